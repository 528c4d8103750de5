"""Recorded references: what R said once, read from `r_reference/recorded/SOURCE/CASE.json`.

A source is one set of programs (say lme4 1.1-31 on R 4.2.2, or HLMdiag 0.5.1); several may stand side by
side. The one with most cases is the primary source. The others are partial: a case they lack is not held,
which is no error. A recording answers only for the content of the case that it was made for, and only at
its own theta.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parity.references.recordings import RecordingError, read_recording, recording_path
from parity.resources import recorded_dir
from parity.schema.case import Case
from parity.schema.engine import point
from parity.schema.results import Missing, Results

NAME = "recorded"


class Recorded:
    """One source of recordings as a reference."""

    capabilities = frozenset(
        {"lm", "glm", "lmm", "glmm", "weights", "offset", "contrasts", "optimum", "all_quantities"}
    )

    def __init__(self, directory: Path, *, partial: bool = False) -> None:
        self.directory = directory
        self.partial = partial
        self.name = f"{NAME}:{directory.name}"
        self.version = directory.name

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The recorded values of a case. `theta` can only be the recorded one."""
        path = recording_path(self.directory, case.name)
        if self.partial and not path.exists():
            return self._without(case, "unsupported", f"{self.version} has no recording of {case.name}")
        try:
            recording = read_recording(path)
        except RecordingError as error:
            return self._without(case, "missing", str(error))
        if recording.case.id != case.id:
            message = (
                f"recording {path.name} was made for another content of the case (id {recording.case.id}, "
                f"now {case.id}); record it again"
            )
            return self._without(case, "missing", message)
        results = recording.results
        if theta is not None and not _same(theta, point(case, results)):
            return self._without(case, "unsupported", "a recording cannot be evaluated at another theta")
        return self._selected(results, quantities)

    def _selected(self, results: Results, quantities: Sequence[str]) -> Results:
        values = {name: results.values[name] for name in quantities if name in results.values}
        absent = Missing("skipped", "not in the recording")
        missing = {name: results.missing.get(name, absent) for name in quantities if name not in values}
        return Results(
            engine=self.name, version=results.version, status=results.status, message=results.message,
            warnings=results.warnings, values=values, missing=missing, singular=results.singular,
            converged=results.converged, provenance=results.provenance,
        )  # fmt: skip

    def _without(self, case: Case, status: str, message: str) -> Results:
        return Results(self.name, self.version, status, message)  # type: ignore[arg-type]


def engine() -> Recorded:
    """The primary source.

    Raises
    ------
    FileNotFoundError
        if there are no recordings at all.
    """
    return engines()[0]


def engines(directory: Path | None = None) -> tuple[Recorded, ...]:
    """All sources, the primary one first.

    Raises
    ------
    FileNotFoundError
        if there are no recordings at all.
    """
    root = recorded_dir() if directory is None else directory
    folders = sorted(
        (f for f in root.glob("*") if f.is_dir() and _count(f)), key=lambda f: (-_count(f), f.name)
    )
    if not folders:
        raise FileNotFoundError(f"there are no recordings in {root}; `parity record` makes them from live R")
    return tuple(Recorded(folder, partial=i > 0) for i, folder in enumerate(folders))


def _count(folder: Path) -> int:
    return len([*folder.glob("*.json"), *folder.glob("*.json.gz")])


def _same(theta: np.ndarray, recorded: np.ndarray | None) -> bool:
    return recorded is not None and np.array_equal(np.asarray(theta, dtype=np.float64), recorded)
