"""docs/speed.md, written from the figures in benchmarks/measured/ and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parity.bench.against import Entry, milliseconds, told
from parity.bench.measured import FITS, Conditions, Fits, Table, read, tables
from parity.bench.timing import slope

NOTE = "<!-- made by scripts/make_docs.py from benchmarks/measured/; measure again instead of editing this page -->"
HOW = """`make bench` measures. Two sides take turns (A B A B ...), ratios are medians over rounds of the ratio within a
round, with 95 % bootstrap intervals; one BLAS thread. mmcore and lme4 go from a formula and a data frame in memory to a
fitted model; other engines are timed through their adapters (data set read, design made by mmcore, handed over,
fitted). An engine whose criterion is above the best one by more than 1e-6 of it gets no time. *Digits*: fewest of
criterion, fixed effects, standard errors, sigma and covariances at the engine's own optimum, against certified numbers
where there are any, else against lme4 polished. *Peak MB*: what a fit adds to a fresh process."""
KINDS = {"n": "rows", "q": "levels", "terms": "crossed random terms"}


def page(folder: Path) -> str:
    """The page. Without figures it says so. Raises MeasuredError for a file that cannot be read."""
    parts = ["# Speed", NOTE, HOW]
    there = [(folder / name, title) for name, title in FITS.items() if (folder / name).exists()]
    for path, title in there:
        fits = read(path, Fits)
        parts += [f"## {title}", conditions(fits.conditions), *_problems(fits.entries), *_curves(fits)]
    if not there:
        parts.append("Nothing has been measured yet.")
    for _, table in tables(folder):
        parts += [f"## {table.title}", table.note, conditions(table.conditions), _generic(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(c: Conditions) -> str:
    """When, where and under what load, in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in c.versions.items())
    low, high = sorted(c.load)
    rounds = f"; {c.rounds} rounds" if c.rounds else ""
    return (
        f"{c.time[:10]}, commit {c.commit}, {c.processor or 'unknown processor'} with {c.cores} cores, load average "
        f"{low:g} to {high:g} ({_busy(high, c.cores)}); {c.reference or 'no R'}; {versions}{rounds}."
    )


def _busy(load: float, cores: int) -> str:
    if load <= 1.5:
        return "otherwise idle"
    return "more work than cores: absolute times are too long" if load > cores else "other work beside it"


def _problems(entries: Sequence[Entry]) -> list[str]:
    head = (
        "problem",
        "rows",
        "engine",
        "ms",
        "times mmcore's",
        "interval",
        "aim",
        "evaluations",
        "peak MB",
        "digits",
    )
    rows = [_row(e) for e in entries if e.seconds is not None]
    without = [
        f"* {e.problem}, {e.engine}: {' '.join(e.message.split())}" for e in entries if e.seconds is None
    ]
    left = ["No time is shown for:\n\n" + "\n".join(without)] if without else []
    return [table(head, rows), *left]


def _row(e: Entry) -> tuple[str, ...]:
    ratio, between = (
        ("", "") if e.ratio is None else (f"{e.ratio.value:.1f}", f"{e.ratio.low:.1f} to {e.ratio.high:.1f}")
    )
    return (
        e.problem, f"{e.rows:,}", e.engine, milliseconds(e.seconds), ratio, between,
        f"{e.aim:g}" if e.engine == "lme4" else "", told(e.evaluations, "{:d}"), told(e.peak_mb, "{:.0f}"),
        told(e.digits, "{:.1f}"),
    )  # fmt: skip


def _curves(fits: Fits) -> list[str]:
    out = ["## Scaling"] if fits.curves else []
    for kind in dict.fromkeys(p.kind for p in fits.curves):
        points = [p for p in fits.curves if p.kind == kind]
        engines, sizes = (
            list(dict.fromkeys(p.engine for p in points)),
            list(dict.fromkeys(p.size for p in points)),
        )
        found = {(p.size, p.engine): p.seconds for p in points}
        rows = [(f"{n:,}", *(milliseconds(found.get((n, e))) for e in engines)) for n in sizes]
        exponents = [_exponent([(n, found[n, e]) for n in sizes if (n, e) in found]) for e in engines]
        rows.append(("exponent", *exponents))
        out.append(table((KINDS[kind], *(f"{e}, ms" for e in engines)), rows))
    return out


def _exponent(points: Sequence[tuple[int, float]]) -> str:
    if len(points) < 3:
        return ""
    return f"{slope(np.array([n for n, _ in points]), np.array([s for _, s in points])):.2f}"


def _generic(found: Table) -> str:
    return table(found.columns, [tuple(cell_text(cell) for cell in row) for row in found.rows])


def cell_text(value: str | float | int | None) -> str:
    """A cell as text: three digits of a number that is not whole, nothing for nothing."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
