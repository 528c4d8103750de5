"""Benchmark history: one append-only CSV, a row per measurement, and the steps in it.

Times of different machines are never mixed: a series is one machine, problem, stage and side. A step is a change
of level that a single outlier cannot make: the split of a series into two parts with the largest difference of
medians, counted when the parts differ by more than 10 % and by more than three times the scatter within them.
"""

import csv
import hashlib
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the history."""

    time: str  # ISO 8601, UTC
    machine: str  # short hash of processor, cores and system
    commit: str
    python: str
    numpy: str
    reference: str  # e.g. "R 4.2.2, lme4 1.1.31, OpenBLAS"
    problem: str
    stage: str
    engine: str
    seconds: float  # median
    ratio: float  # reference seconds / engine seconds, NaN if there is none
    evaluations: int
    peak_mb: float  # NaN if not measured


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level in a series."""

    position: int  # first index of the new level
    before: float  # median seconds
    after: float


FIELDS = tuple(f.name for f in fields(Measurement))


def machine() -> str:
    """A name for this machine that tells nothing about it but whether it is the same one."""
    import os

    text = f"{platform.processor()} {platform.machine()} {platform.system()} {os.cpu_count()} {processor()}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def processor() -> str:
    """The processor's name; "" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def commit(folder: Path) -> str:
    """Short commit of a checkout, with ``+`` if it has changes; "unknown" outside one."""
    git = ["git", "-C", str(folder)]
    head = subprocess.run(
        [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False
    )
    if head.returncode:
        return "unknown"
    dirty = subprocess.run(
        [*git, "status", "--porcelain"], capture_output=True, text=True, check=False
    ).stdout
    return head.stdout.strip() + ("+" if dirty.strip() else "")


def now() -> str:
    """The time of a measurement."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def append(path: Path, rows: Iterable[Measurement]) -> int:
    """Add rows at the end; the header is written once. Returns how many. Raises ValueError on a foreign header."""
    rows = list(rows)
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        read(path)  # refuses a file that is not a history
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return len(rows)


def read(path: Path) -> list[Measurement]:
    """All rows. Raises ValueError naming the line that is not one."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{path.name} is not a benchmark history: its columns are {reader.fieldnames}")
        return [_row(line, path, number) for number, line in enumerate(reader, start=2)]


def _row(line: dict[str, Any], path: Path, number: int) -> Measurement:
    try:
        for name in ("seconds", "ratio", "peak_mb"):
            line[name] = float(line[name])
        line["evaluations"] = int(line["evaluations"])
        return Measurement(**line)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}, line {number}: {error}") from None


def series(rows: Sequence[Measurement]) -> dict[tuple[str, str, str, str], list[Measurement]]:
    """Rows by (machine, problem, stage, engine), in order of time."""
    out: dict[tuple[str, str, str, str], list[Measurement]] = {}
    for row in sorted(rows, key=lambda r: r.time):
        out.setdefault((row.machine, row.problem, row.stage, row.engine), []).append(row)
    return out


def find_step(seconds: Sequence[float], least: float = 0.10, width: int = 2) -> Step | None:
    """The clearest change of level in a series, or None. Needs ``width`` values on each side of it.

    The clearest split is the one that leaves the least scatter around the medians of its two sides.
    """
    x = np.log(np.asarray(seconds, float))
    splits = range(width, len(x) - width + 1)
    if not splits:
        return None
    at = min(splits, key=lambda i: float(_around(x[:i]).sum() + _around(x[i:]).sum()))
    left, right = x[:at], x[at:]
    jump = abs(float(np.median(right) - np.median(left)))
    scatter = float(np.median(np.concatenate([_around(left), _around(right)])))
    if jump <= max(np.log1p(least), 3 * scatter):
        return None
    return Step(at, float(np.exp(np.median(left))), float(np.exp(np.median(right))))


def _around(x: np.ndarray) -> np.ndarray:
    return np.abs(x - np.median(x))
