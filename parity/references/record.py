"""Recording references from a live engine: never silently over what is there.

Each recording that would change is reported with how much; it is replaced only when that was asked for.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from parity.references.recordings import RecordingError, read_recording, recording_path, write_recording
from parity.resources import recorded_dir
from parity.schema.case import Case
from parity.schema.engine import Engine
from parity.schema.quantities import of_kind
from parity.schema.results import Results, Value

Kind = Literal["new", "same", "changed", "replaced", "failed"]


@dataclass(frozen=True, slots=True)
class Change:
    """What recording a case did, or would do."""

    case: str
    kind: Kind  # "changed": different from what is there, left alone; "replaced": different and overwritten
    path: Path
    details: tuple[str, ...] = ()  # what differs, or why it failed


def directory_of(engine: Engine) -> Path:
    """The folder of an engine's recordings among the recorded references: its versions, as a name."""
    words = re.findall(r"[A-Za-z0-9.]+", engine.version) or [engine.name]
    return recorded_dir() / "-".join(words)


def record(
    cases: Sequence[Case], engine: Engine, directory: Path, *, overwrite: bool = False
) -> Iterator[Change]:
    """Record cases one by one; yields what happened to each. Stopping early keeps what was written.

    Only answers with status "ok" are recorded, and "refused" or "error" for cases that are there to be
    refused.
    """
    for case in cases:
        yield _record_one(case, engine, directory, overwrite)


def _record_one(case: Case, engine: Engine, directory: Path, overwrite: bool) -> Change:
    path = recording_path(directory, case.name)
    results = _signed(engine.run(case, of_kind(case.kind)), engine)
    admitted = ("ok",) if case.expect == "fit" else ("refused", "error")
    if results.status not in admitted:
        return Change(case.name, "failed", path, (f"{results.status}: {results.message}",))
    if not path.exists():
        return Change(case.name, "new", write_recording(directory, case, results))
    details = _differences(path, case, results)
    if not details:
        return Change(case.name, "same", path, _other_code(path, results))
    if not overwrite:
        return Change(case.name, "changed", path, details)
    return Change(case.name, "replaced", write_recording(directory, case, results), details)


def _signed(results: Results, engine: Engine) -> Results:
    """Results whose provenance says at least which program made them: a refused model has no other."""
    return replace(
        results, provenance={"engine": engine.name, "version": engine.version, **results.provenance}
    )


def _other_code(path: Path, results: Results) -> tuple[str, ...]:
    old = read_recording(path).results.provenance.get("code_sha256")
    if old == results.provenance.get("code_sha256"):
        return ()
    return ("the code that computes it has changed, the numbers have not",)


def _differences(path: Path, case: Case, results: Results) -> tuple[str, ...]:
    try:
        old = read_recording(path)
    except RecordingError as error:
        return (str(error),)
    parts = [] if old.case.id == case.id else [f"the case: id {old.case.id} -> {case.id}"]
    if old.results.status != results.status:
        parts.append(f"status {old.results.status} -> {results.status}")
    parts += _keys("values", set(old.results.values), set(results.values))
    for name in old.results.values:
        if name in results.values:
            parts += _changed(name, old.results.values[name], results.values[name])
    for what, was, now in _descriptions(old.results, results):
        if was != now:
            parts.append(f"{what}: {was} -> {now}")
    return tuple(parts)


def _descriptions(old: Results, new: Results) -> Iterator[tuple[str, object, object]]:
    yield "version", old.version, new.version
    yield "singular", old.singular, new.singular
    yield "converged", old.converged, new.converged
    yield "missing", sorted(old.missing), sorted(new.missing)


def _keys(what: str, old: set[str], new: set[str]) -> list[str]:
    gone, added = sorted(old - new), sorted(new - old)
    parts = [f"{what} gone: {', '.join(gone)}"] if gone else []
    return parts + ([f"{what} added: {', '.join(added)}"] if added else [])


def _changed(name: str, old: Value, new: Value) -> list[str]:
    if old.labels != new.labels:
        return [f"{name}: labels differ ({len(old.labels)} -> {len(new.labels)})"]
    if np.array_equal(old.values, new.values, equal_nan=True):
        return []
    if not np.array_equal(np.isnan(old.values), np.isnan(new.values)):
        return [f"{name}: other elements are NaN"]
    with np.errstate(all="ignore"):
        difference = np.abs(new.values - old.values)
        worst = int(np.nanargmax(difference))
        scaled = difference[worst] / np.nanmax(np.abs(old.values))
    was, now = old.values[worst], new.values[worst]
    return [f"{name}[{old.labels[worst]}]: {was:.17g} -> {now:.17g} ({scaled:.2g} of the largest)"]
