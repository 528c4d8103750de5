"""Charts as inline SVG text: points and lines on linear or logarithmic axes, coloured by the page's style sheet.

A chart holds no colour and no font of its own; the classes ``s0`` to ``s7``, ``axis``, ``grid`` and ``mark`` are given
them by the page, for light and dark. Series differ by the shape of their points too, not by colour alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460.0, 300.0
LEFT, RIGHT, BOTTOM = 58.0, 14.0, 44.0
LETTER = 7.0  # width of a letter of the legend
ROW = 17.0  # height of a row of the legend
STYLES = 8


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind; finite numbers only."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    told: tuple[str, ...] = ()  # what each point says when pointed at
    line: bool = True  # whether the points are joined
    style: int | None = None  # 0 to 7; None: by position


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis."""

    title: str
    log: bool = False
    names: tuple[str, ...] = ()  # of the integers 0, 1, ... where the axis is one of names
    zero: bool = False  # whether it begins at zero


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed line across the chart at x, with a word."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    log: bool
    start: float  # SVG units
    stop: float

    def __call__(self, value: float) -> float:
        at, low, high = (math.log10(v) if self.log else v for v in (value, self.low, self.high))
        return self.start + (at - low) / (high - low) * (self.stop - self.start)


def chart(series: Sequence[Series], x: Axis, y: Axis, *, alt: str, marks: Sequence[Mark] = ()) -> str:
    """An ``<svg>`` element with `alt` as its text alternative; an empty chart says so in words.

    Raises ValueError for a value that has no place: not finite, or not positive on a logarithmic axis.
    """
    shown = [s for s in series if s.x]
    _checked(shown, x, y)
    legend, rows = _legend(shown)
    top = 10 + ROW * rows
    parts = [legend]
    if shown:
        across = _scale([v for s in shown for v in s.x] + [m.x for m in marks], x, LEFT, WIDTH - RIGHT)
        up = _scale([v for s in shown for v in s.y], y, HEIGHT - BOTTOM, top)
        parts += [_x_axis(across, x, top), _y_axis(up, y)]
        parts += [_mark(mark, across, top) for mark in marks]
        parts += [_points(s, _style(s, i), across, up) for i, s in enumerate(shown)]
    else:
        parts.append(
            f'<text class="axis" x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no values</text>'
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(alt)}">'
        + "".join(parts)
        + "</svg>"
    )


def _checked(series: Sequence[Series], x: Axis, y: Axis) -> None:
    for s in series:
        if len(s.x) != len(s.y) or (s.told and len(s.told) != len(s.x)):
            raise ValueError(f"series {s.name!r} has {len(s.x)} x, {len(s.y)} y and {len(s.told)} texts")
        for values, axis in ((s.x, x), (s.y, y)):
            bad = [v for v in values if not math.isfinite(v) or (axis.log and v <= 0)]
            if bad:
                raise ValueError(f"series {s.name!r}: {bad[0]!r} has no place on the axis {axis.title!r}")


def _style(series: Series, position: int) -> int:
    return (position if series.style is None else series.style) % STYLES


def _scale(values: Sequence[float], axis: Axis, start: float, stop: float) -> _Scale:
    low, high = min(values), max(values)
    if axis.names:
        return _Scale(-0.5, len(axis.names) - 0.5, False, start, stop)
    if axis.log:
        room = max(0.08 * math.log10(high / low), 0.05)
        return _Scale(low / 10**room, high * 10**room, True, start, stop)
    if axis.zero:
        return _Scale(0.0, 1.08 * max(high, 1e-300), False, start, stop)
    room = 0.06 * (high - low) or 0.5
    return _Scale(low - room, high + room, False, start, stop)


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers within an interval: some, but not many."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            found = [s * 10.0**e for e in range(first, last + 1) for s in steps if low <= s * 10.0**e <= high]
            if len(found) >= 3:
                break
        return found[:: math.ceil(len(found) / 6)] if len(found) > 6 else found
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def number(x: float) -> str:
    """A tick's number, short: 2000000 is 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"


def _x_axis(scale: _Scale, axis: Axis, top: float) -> str:
    floor = HEIGHT - BOTTOM
    parts = [f'<path class="frame" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>']
    if axis.names:
        every = math.ceil(len(axis.names) / 8)
        places = [(float(i), name) for i, name in enumerate(axis.names) if i % every == 0]
    else:
        places = [(t, number(t)) for t in ticks(scale.low, scale.high, scale.log)]
    for value, text in places:
        at = scale(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {top:.1f}V{floor}"/>')
        parts.append(
            f'<text class="axis" x="{at:.1f}" y="{floor + 15}" text-anchor="middle">{escape(text)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    title = (
        f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(axis.title)}</text>'
    )
    return "".join([*parts, title])


def _y_axis(scale: _Scale, axis: Axis) -> str:
    parts = []
    for value in ticks(scale.low, scale.high, scale.log):
        at = scale(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="axis" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    middle = (scale.start + scale.stop) / 2
    title = (
        f'<text class="axis" transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(axis.title)}</text>"
    )
    return "".join([*parts, title])


def _mark(mark: Mark, scale: _Scale, top: float) -> str:
    at = scale(mark.x)
    left = at > 0.6 * WIDTH
    place = f'x="{at - 4:.1f}" text-anchor="end"' if left else f'x="{at + 4:.1f}"'
    return (
        f'<path class="mark" d="M{at:.1f} {top:.1f}V{HEIGHT - BOTTOM}"/>'
        f'<text class="axis" {place} y="{top + 11:.1f}">{escape(mark.text)}</text>'
    )


def _points(series: Series, style: int, across: _Scale, up: _Scale) -> str:
    places = [(across(a), up(b)) for a, b in zip(series.x, series.y, strict=True)]
    parts = []
    if series.line and len(places) > 1:
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(f'<path class="line s{style}" d="{path}"/>')
    told = series.told or (series.name,) * len(places)
    for (a, b), text in zip(places, told, strict=True):
        parts.append(f"<g><title>{escape(text)}</title>{_shape(style, a, b)}</g>")
    return "".join(parts)


def _shape(style: int, x: float, y: float) -> str:
    """One of four outlines, filled or hollow: eight that differ without colour."""
    r = 4.0
    outline = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z",
        f"M{x:.1f} {y - r - 1.5:.1f}l{r + 1.5} {r + 1.5}l{-r - 1.5} {r + 1.5}l{-r - 1.5} {-r - 1.5}z",
    )[style % 4]
    return f'<path class="point s{style}{" hollow" if style >= 4 else ""}" d="{outline}"/>'


def _legend(series: Sequence[Series]) -> tuple[str, int]:
    """The names above the chart, in as many rows as they need; nothing for a single series."""
    if len(series) < 2:
        return "", 0
    parts, x, row = [], LEFT, 0
    for i, s in enumerate(series):
        wide = 26 + LETTER * len(s.name)
        if x > LEFT and x + wide > WIDTH - RIGHT:
            x, row = LEFT, row + 1
        y = 10 + ROW * row
        parts.append(_shape(_style(s, i), x + 5, y))
        parts.append(f'<text class="axis" x="{x + 14:.1f}" y="{y + 4:.1f}">{escape(s.name)}</text>')
        x += wide
    return "".join(parts), row + 1
