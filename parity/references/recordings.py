"""Recorded results as files: written once, read with a checksum."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from parity.schema.case import Case
from parity.schema.results import Missing, MissingKind, Results, Status, Value

__all__ = [
    "COMPRESS_ABOVE",
    "SCHEMA",
    "Recording",
    "RecordingError",
    "read_recording",
    "recording_path",
    "write_recording",
]

SCHEMA = 1


COMPRESS_ABOVE = 1_000_000  # bytes of JSON


class RecordingError(ValueError):
    """A recording cannot be used: damaged, of another schema, or made for other content; the message says
    which."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    labels: str  # a key of `label_sets`
    values: list[float | Literal["NaN", "Inf", "-Inf"]]


class _StoredMissing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: MissingKind
    message: str


class _Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `label_sets` holds each tuple of labels once: most quantities of a model share a few."""

    schema: int
    checksum: str  # SHA-256 of the file's canonical JSON without this field
    case: Case
    engine: str
    version: str
    status: Status
    message: str
    warnings: list[str]
    singular: bool | None
    converged: bool | None
    provenance: dict[str, Any]
    label_sets: dict[str, list[str]]
    values: dict[str, _Stored]
    missing: dict[str, _StoredMissing]


def recording_schema() -> dict[str, Any]:
    """The JSON Schema of a recording."""
    return msgspec.json.schema(_Recording)


@dataclass(frozen=True, slots=True)
class Recording:
    """A stored reference: the case as it was when recorded, and what the engine said."""

    case: Case
    results: Results


def recording_path(directory: Path, case_name: str) -> Path:
    """Where the recording of a case is (or would be written, uncompressed) in `directory`."""
    plain = directory / f"{case_name}.json"
    packed = directory / f"{case_name}.json.gz"
    return packed if packed.exists() else plain


def write_recording(directory: Path, case: Case, results: Results) -> Path:
    """Write a recording, replacing one of the same name, and return its path.

    Numbers are written as the shortest text that reads back to the same double (17 digits at most); NaN and
    the infinities as strings. Files above 1 MB are compressed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = _content(case, results)
    content["checksum"] = _checksum(content)
    data = _layout(content)
    packed = len(data) > COMPRESS_ABOVE
    path = directory / f"{case.name}.json{'.gz' if packed else ''}"
    other = directory / f"{case.name}.json{'' if packed else '.gz'}"
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(gzip.compress(data, 9, mtime=0) if packed else data)
    temporary.replace(path)
    other.unlink(missing_ok=True)
    return path


def read_recording(path: Path) -> Recording:
    """Read and verify a recording.

    Raises
    ------
    RecordingError
        if the file is missing, truncated, of another schema, or its checksum does not match its content.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        content = msgspec.json.decode(data)
        stored = msgspec.convert(content, _Recording)
    except FileNotFoundError as error:
        message = f"there is no recording {path.name}; `parity record` makes one from live R"
        raise RecordingError(message) from error
    except (OSError, EOFError, msgspec.DecodeError, ValueError) as error:
        message = f"recording {path.name} is damaged: {error}; restore it or record it again"
        raise RecordingError(message) from error
    if stored.schema != SCHEMA:
        raise RecordingError(f"recording {path.name} has schema {stored.schema}, this program reads {SCHEMA}")
    checksum = _checksum(content)
    if checksum != stored.checksum:
        raise RecordingError(
            f"recording {path.name} is damaged: its checksum is {stored.checksum[:12]}..., its content "
            f"hashes to {checksum[:12]}...; restore it or record it again"
        )
    return Recording(stored.case, _results(path, stored))


def _content(case: Case, results: Results) -> dict[str, Any]:
    sets: dict[tuple[str, ...], str] = {}
    values = {
        name: {
            "labels": sets.setdefault(value.labels, f"L{len(sets)}"),
            "values": [_number(x) for x in value.values.tolist()],
        }
        for name, value in results.values.items()
    }
    return {
        "schema": SCHEMA,
        "case": msgspec.to_builtins(case),
        "engine": results.engine,
        "version": results.version,
        "status": results.status,
        "message": results.message,
        "warnings": list(results.warnings),
        "singular": results.singular,
        "converged": results.converged,
        "provenance": msgspec.to_builtins(dict(results.provenance)),
        "label_sets": {key: list(labels) for labels, key in sets.items()},
        "values": values,
        "missing": {
            name: {"kind": why.kind, "message": why.message} for name, why in results.missing.items()
        },
    }


def _results(path: Path, stored: _Recording) -> Results:
    unknown = sorted({value.labels for value in stored.values.values()} - set(stored.label_sets))
    if unknown:
        raise RecordingError(f"recording {path.name} is damaged: no label sets {', '.join(unknown)}")
    labels = {key: tuple(names) for key, names in stored.label_sets.items()}
    try:
        values = {
            name: Value(labels[value.labels], np.array([float(x) for x in value.values]))
            for name, value in stored.values.items()
        }
    except ValueError as error:
        raise RecordingError(f"recording {path.name} is damaged: {error}") from error
    return Results(
        engine=stored.engine,
        version=stored.version,
        status=stored.status,
        message=stored.message,
        warnings=tuple(stored.warnings),
        values=values,
        missing={name: Missing(why.kind, why.message) for name, why in stored.missing.items()},
        singular=stored.singular,
        converged=stored.converged,
        provenance=stored.provenance,
    )


def _number(x: float) -> float | str:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Inf" if x > 0 else "-Inf"


def _checksum(content: Mapping[str, Any]) -> str:
    body = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def _layout(content: dict[str, Any]) -> bytes:
    """JSON with one quantity per line, so that a changed recording shows as changed lines."""
    lines: list[str] = []
    for key in ("schema", "checksum", *(k for k in content if k not in ("schema", "checksum"))):
        lines.append(f"{_text(key)}: {_block(key, content[key])}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _block(key: str, value: Any) -> str:
    if key not in ("values", "label_sets", "missing", "provenance") or not value:
        return _text(value)
    rows: Sequence[str] = [f"  {_text(name)}: {_text(entry)}" for name, entry in value.items()]
    return "{\n" + ",\n".join(rows) + "\n}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
