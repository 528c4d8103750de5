"""A formula changed by another: `. ~ . + z - (x | g)`, where a dot is what stands on that side now."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import DataError, FormulaError
from .parse import Bar, bars_of
from .syntax import Call, Expr, Name, deparse, parse_sides, strip_parentheses

__all__ = ["updated"]

_Part = tuple[str, Expr]  # "+" or "-", and what is added or removed


def updated(present: str, wanted: str) -> str:
    """`wanted` with each `.` replaced by that side of `present`: R's `update.formula`, with random-effects terms.

    Parameters
    ----------
    present
        The formula of a model.
    wanted
        What it should be. Without a left side the response stays. `- (x | g)` takes out a random-effects term, also
        one that a term such as `(x || g)` stands for.

    Raises
    ------
    DataError
        `wanted` is no text with a '~'.
    FormulaError
        `wanted` is no formula, or takes out a random-effects term that the model does not have.

    Examples
    --------
    >>> updated("y ~ x + (x | g)", ". ~ . - (x | g) + (1 | g)")
    'y ~ x + (1 | g)'
    >>> updated("y ~ x + (x || g)", "log(.) ~ . - (1 | g)")
    'log(y) ~ x + (0 + x | g)'
    """
    if not isinstance(wanted, str) or "~" not in wanted:
        raise DataError(f"update needs a formula with '~', such as '. ~ . + x', not {wanted!r}")
    response, right = parse_sides(present)
    left, change = parse_sides(wanted)
    if response is None:
        raise FormulaError("the formula to be changed has no response", present)
    new_left = response if left is None else _substituted(left, response)
    parts = _settled(
        [part for sign, expr in _parts(change) for part in _without_dot(sign, expr, right)], wanted
    )
    return f"{deparse(new_left)} ~ {_text(parts)}"


def _substituted(expr: Expr, dot: Expr) -> Expr:
    """`expr` with every `.` in it replaced, inside functions too."""
    if isinstance(expr, Name):
        return dot if expr.id == "." else expr
    if isinstance(expr, Call):
        return replace(expr, args=tuple(_substituted(arg, dot) for arg in expr.args))
    return expr


def _without_dot(sign: str, expr: Expr, dot: Expr) -> list[_Part]:
    """A dot of its own is all parts of the side: a sign that follows applies to each alike."""
    inner = strip_parentheses(expr)
    if not isinstance(inner, Name) or inner.id != ".":
        return [(sign, _substituted(expr, dot))]
    parts = list(_parts(dot))
    return parts if sign == "+" else [(_opposite(other), part) for other, part in parts]


def _parts(expr: Expr, sign: str = "+") -> Iterator[_Part]:
    """The summands of a side in order, with their signs; a sum in parentheses is opened unless it is subtracted."""
    if isinstance(expr, Call) and expr.function in ("+", "-") and len(expr.args) == 2:
        yield from _parts(expr.args[0], sign)
        yield from _parts(expr.args[1], sign if expr.function == "+" else _opposite(sign))
    elif isinstance(expr, Call) and expr.function in ("+", "-"):
        yield from _parts(expr.args[0], sign if expr.function == "+" else _opposite(sign))
    else:
        yield sign, expr


def _opposite(sign: str) -> str:
    return "-" if sign == "+" else "+"


def _settled(parts: Sequence[_Part], text: str) -> list[_Part]:
    """The parts after random-effects terms were taken out."""
    kept: list[_Part] = []
    for sign, expr in parts:
        gone = bars_of(expr)
        if sign == "+" or not gone:
            kept.append((sign, expr))
            continue
        for bar in gone:
            kept = _taken_out(kept, bar, text)
    return kept


def _taken_out(parts: Sequence[_Part], gone: Bar, text: str) -> list[_Part]:
    out: list[_Part] = []
    found = False
    for sign, expr in parts:
        bars = bars_of(expr)
        rest = [bar for bar in bars if _key(bar) != _key(gone)]
        if len(rest) == len(bars):
            out.append((sign, expr))
            continue
        found = True
        out += [(sign, parse_sides("~ " + bar.to_r())[1]) for bar in rest]
    if not found:
        known = [bar.to_r() for _, expr in parts for bar in bars_of(expr)]
        listed = f"has {', '.join(known)}" if known else "has none left"
        raise FormulaError(
            f"{gone.to_r()} cannot be taken out: of random-effects terms the model {listed}", text
        )
    return out


def _key(bar: Bar) -> tuple[object, ...]:
    labels = frozenset(frozenset(deparse(v) for v in term) for term in bar.terms)
    return labels, bar.intercept, bar.group, bar.structure, bar.homogeneous


def _text(parts: Sequence[_Part]) -> str:
    if not parts:
        return "1"
    first = deparse(parts[0][1]) if parts[0][0] == "+" else f"1 - {deparse(parts[0][1])}"
    return first + "".join(f" {sign} {deparse(expr)}" for sign, expr in parts[1:])
