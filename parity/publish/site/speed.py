"""Pictures of speed, each with the table of its numbers: accuracy against time, scaling, history."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from parity.bench.against import Entry, milliseconds, told
from parity.bench.history import Measurement, find_step, read, series
from parity.bench.measured import Conditions, Fits, Table
from parity.bench.timing import slope
from parity.publish.chart import Axis, Mark, Series, chart
from parity.publish.speed_page import cell_text

MOST_DIGITS = 15.0
KINDS = {"n": "rows", "q": "levels", "terms": "crossed random terms"}
TRENDS = 24  # drawn at most; the history file has all
ENGINES = ("mmcore", "lme4", "statsmodels", "interlace", "mixedlm", "nlme", "glmmTMB")  # fixed colours


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart, what it shows in words, and its numbers."""

    title: str
    svg: Markup
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def speed_rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """The table of all problems and engines."""
    return [
        (
            e.problem, f"{e.rows:,}", e.engine, milliseconds(e.seconds),
            "" if e.ratio is None else f"{e.ratio.value:.2f}",
            "" if e.ratio is None else f"{e.ratio.low:.2f} to {e.ratio.high:.2f}",
            f"{e.aim:g}" if e.engine == "lme4" else "", told(e.evaluations, "{:d}"),
            told(e.peak_mb, "{:.0f}"), told(e.digits, "{:.1f}"), e.message,
        )
        for e in entries
    ]  # fmt: skip


SPEED_COLUMNS = (
    "problem", "rows", "engine", "ms", "times mmcore's", "95 % interval", "aim", "evaluations", "peak MB", "digits",
    "remark",
)  # fmt: skip


def pareto(fits: Fits) -> list[Picture]:
    """Accuracy against time, a chart per problem on which engines' digits were counted."""
    problems = dict.fromkeys(e.problem for e in fits.entries)
    pictures = (_pareto([e for e in fits.entries if e.problem == name], name) for name in problems)
    return [picture for picture in pictures if picture is not None]


def _pareto(entries: Sequence[Entry], name: str) -> Picture | None:
    shown = [e for e in entries if e.seconds is not None and e.digits is not None]
    if len(shown) < 2:
        return None
    points = [
        Series(
            e.engine, (1e3 * (e.seconds or 0),), (min(e.digits or 0, MOST_DIGITS),),
            (f"{e.engine}: {1e3 * (e.seconds or 0):.3g} ms, {e.digits:.1f} digits",), style=_style(e.engine),
        )
        for e in shown
    ]  # fmt: skip
    best = [e for e in shown if on_frontier(e, shown)]
    caption = (
        f"{name}: milliseconds of a fit and its digits (fewest of criterion, fixed effects, their standard errors, "
        f"sigma and covariances, against {' and '.join(sorted({e.judge for e in shown}))}). Up and left is better; "
        f"no other engine is both faster and more accurate than {', '.join(e.engine for e in best)}."
    )
    svg = chart(points, Axis("ms", log=True), Axis("digits", zero=True), alt=caption)
    rows = tuple(
        (e.engine, milliseconds(e.seconds), told(e.digits, "{:.1f}"), "yes" if e in best else "no")
        for e in shown
    )
    return Picture(name, Markup(svg), caption, ("engine", "ms", "digits", "on the frontier"), rows)


def on_frontier(entry: Entry, entries: Sequence[Entry]) -> bool:
    """Whether no other entry is at least as fast and as accurate, and better in one of the two."""
    a, b = entry.seconds or 0.0, entry.digits or 0.0
    others = [(e.seconds or 0.0, e.digits or 0.0) for e in entries if e is not entry]
    return not any(s <= a and d >= b and (s < a or d > b) for s, d in others)


def scaling(fits: Fits) -> list[Picture]:
    """Time against size, a chart per kind of size, with fitted exponents."""
    return [_scaling(fits, kind) for kind in dict.fromkeys(point.kind for point in fits.curves)]


def _scaling(fits: Fits, kind: str) -> Picture:
    lines, told_slopes = [], []
    engines = dict.fromkeys(p.engine for p in fits.curves if p.kind == kind)
    for engine in engines:
        points = [p for p in fits.curves if (p.kind, p.engine) == (kind, engine)]
        sizes, seconds = [p.size for p in points], [p.seconds for p in points]
        name = engine
        if len(points) >= 3:
            steepness = slope(np.array(sizes), np.array(seconds))
            name = f"{engine}, exponent {steepness:.2f}"
            told_slopes.append(f"{engine}: seconds grow as {KINDS[kind]} to the power of {steepness:.2f}")
        texts = tuple(
            f"{engine}, {s:,} {KINDS[kind]}: {t:.3g} s" for s, t in zip(sizes, seconds, strict=True)
        )
        lines.append(Series(name, tuple(map(float, sizes)), tuple(seconds), texts, style=_style(engine)))
    caption = f"Formula to fit by number of {KINDS[kind]}. {'; '.join(told_slopes)}."
    svg = chart(lines, Axis(KINDS[kind], log=True), Axis("seconds", log=True), alt=caption)
    rows = tuple(
        (f"{size:,}", *(_at(fits, kind, size, engine) for engine in engines))
        for size in dict.fromkeys(p.size for p in fits.curves if p.kind == kind)
    )
    columns = (KINDS[kind], *(f"{engine}, seconds" for engine in engines))
    return Picture(f"By {KINDS[kind]}", Markup(svg), caption, columns, rows)


def _at(fits: Fits, kind: str, size: int, engine: str) -> str:
    found = [p.seconds for p in fits.curves if (p.kind, p.size, p.engine) == (kind, size, engine)]
    return f"{found[0]:.3g}" if found else ""


def _style(engine: str) -> int:
    return ENGINES.index(engine) if engine in ENGINES else 7


def trends(path: Path) -> list[Picture]:
    """Time against commit, a chart per series of two measurements or more; those with a step first."""
    if not path.exists():
        return []
    found = [(key, rows) for key, rows in series(read(path)).items() if len(rows) >= 2]
    found.sort(key=lambda item: find_step([row.seconds for row in item[1]]) is None)
    out = []
    for (machine, problem, stage, engine), rows in found[:TRENDS]:
        title = f"{problem}, {stage}, {engine}, machine {machine}"
        step = find_step([row.seconds for row in rows])
        caption = f"{title}: " + (
            f"a step of {step.after / step.before:.2f} times since {rows[step.position].commit}."
            if step
            else "no step."
        )
        table = tuple((r.time, r.commit, f"{1e3 * r.seconds:.3g}", str(r.evaluations)) for r in rows)
        svg = Markup(trend_svg(rows, title))
        out.append(Picture(title, svg, caption, ("time", "commit", "ms", "evaluations"), table))
    return out


def cells(table: Table) -> list[tuple[str, ...]]:
    """The cells of another benchmark's table as text."""
    return [tuple(cell_text(cell) for cell in row) for row in table.rows]


def load_told(c: Conditions) -> str:
    """The conditions of a measurement in a sentence."""
    low, high = sorted(c.load)
    busy = "; the machine was busy with other work, so absolute times are too long" if high > 1.5 else ""
    return (
        f"Measured {c.time} at commit {c.commit} on {c.processor or 'an unknown processor'}, {c.cores} cores, one BLAS "
        f"thread, load average {low:g} to {high:g}{busy}. {c.reference}."
    )


def trend_svg(rows: Sequence[Measurement], title: str) -> str:
    """One series as inline SVG text: milliseconds against measurement, with its step marked."""
    seconds = [row.seconds for row in rows]
    names = tuple(row.commit[:8] for row in rows)
    step = find_step(seconds)
    marks = () if step is None else (Mark(step.position - 0.5, f"{step.after / step.before:.2f} x"),)
    points = Series(
        title, tuple(map(float, range(len(rows)))), tuple(1e3 * s for s in seconds),
        tuple(f"{r.time} {r.commit}: {1e3 * r.seconds:.3g} ms" for r in rows), style=0,
    )  # fmt: skip
    told = f"{title}: {len(rows)} measurements, {1e3 * seconds[0]:.3g} to {1e3 * seconds[-1]:.3g} ms"
    if step is not None:
        told += f", a step of {step.after / step.before:.2f} times since {rows[step.position].commit}"
    return chart([points], Axis("commit", names=names), Axis("ms", zero=True), alt=told, marks=marks)
