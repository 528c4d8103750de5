"""What was measured, as a file: figures, and under what conditions. Every published number is read from such a file.

Two kinds lie in ``benchmarks/measured/``: ``fit.json`` and ``large.json`` (`parity bench run --json`), and tables of
any other benchmark (`Table`), which a module below ``benchmarks/`` writes with `write`.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from parity.bench.against import Entry, Point
from parity.bench.history import commit, machine, now

SCHEMA = 1
# files of `Fits`, and their titles on the page
FITS = {"fit.json": "Formula to fit", "large.json": "Formula to fit: the largest models"}


@dataclass(frozen=True, slots=True)
class Conditions:
    """When, where and under what load something was measured."""

    time: str  # ISO 8601, UTC
    machine: str  # short hash, see `history.machine`
    processor: str
    cores: int
    load: tuple[float, float]  # 1-minute load average before and after; more than the cores: a busy machine
    commit: str
    versions: dict[str, str]
    reference: str = ""  # e.g. "R 4.2.2, lme4 1.1.31, OpenBLAS"
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Fits:
    """Formula to fit: all sides of all problems, and scaling curves."""

    conditions: Conditions
    entries: tuple[Entry, ...]
    curves: tuple[Point, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of another benchmark, ready to be shown."""

    title: str
    note: str  # what was timed against what, and how the answers were checked
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]  # as wide as `columns`
    conditions: Conditions
    schema: int = SCHEMA


Kind = TypeVar("Kind", Fits, Table)


class MeasuredError(ValueError):
    """A file of figures cannot be read; the message names it and what is wrong."""


def load_average() -> float:
    """1-minute load average; 0 where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return 0.0


def conditions(before: float, reference: str = "", rounds: int = 0) -> Conditions:
    """The conditions now; `before`: the load average when measuring began."""
    from parity.bench.history import processor

    return Conditions(
        now(), machine(), processor(), os.cpu_count() or 1, (before, load_average()), commit(Path.cwd()),
        versions(), reference, rounds,
    )  # fmt: skip


def versions() -> dict[str, str]:
    """Python and the libraries that the time of a fit depends on."""
    import numpy as np
    import scipy

    import mmcore as mm

    blas: Any = np.show_config(mode="dicts")
    found = blas.get("Build Dependencies", {}).get("blas", {})
    return {
        "python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
        "mmcore": mm.__version__, "blas": f"{found.get('name', '?')} {found.get('version', '')}".strip(),
    }  # fmt: skip


def write(path: Path, content: Fits | Table) -> None:
    """Write figures; JSON with one entry a line, so that differences can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def read(path: Path, kind: type[Kind]) -> Kind:
    """Read figures.

    Raises
    ------
    MeasuredError
        if the file is not there, is not of this kind, or is of another schema.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise MeasuredError(f"{path.name}: {error}") from error
    if found.schema != SCHEMA:
        raise MeasuredError(
            f"{path.name} has schema {found.schema}, this program reads {SCHEMA}: measure again"
        )
    ragged = [row for row in found.rows if len(row) != len(found.columns)] if isinstance(found, Table) else []
    if isinstance(found, Table) and ragged:
        raise MeasuredError(f"{path.name}: a row has {len(ragged[0])} cells for {len(found.columns)} columns")
    return found


def tables(folder: Path) -> Sequence[tuple[str, Table]]:
    """All tables of a folder, by name of file; those of ``FITS`` are none."""
    files = sorted(path for path in folder.glob("*.json") if path.name not in FITS)
    return [(path.stem, read(path, Table)) for path in files]
