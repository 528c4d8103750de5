"""The functions that a formula may use and that are not plain arithmetic: factors, bases, contrasts, logic.

Each takes the reader of the columns and its own call, and gives the value. Nothing outside `FUNCTION_TABLE`
and the arithmetic of `transforms` can be reached from a formula.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import pandas as pd

from ..errors import DataError
from ..formula.syntax import Call, Constant, Expr, Name, deparse
from .bases import Poly, Scale, Spline
from .columns import Column, Factor, Matrix, align_levels, as_factor
from .contrasts import KINDS, contrast_matrix

Value = Column | float | str | bool | None | list

_CONTRAST_WORDS = ("treatment", "sum", "helmert", "poly", "SAS")


class Reader(Protocol):
    """What a function may ask of the evaluator."""

    n: int  # rows
    fitting: bool  # whether bases are fitted now, or repeated

    def value(self, expr: Expr) -> Value: ...
    def variable(self, expr: Expr) -> Column: ...
    def numeric(self, expr: Expr, call: Expr) -> np.ndarray | float: ...
    def option(self, expr: Expr | None, default: Value, call: Call) -> Value: ...
    def arguments(self, call: Call, names: tuple[str, ...]) -> dict[str, Expr]: ...
    def remembered(self, call: Call, fit: Callable[[], object]) -> object: ...
    def checked(
        self, result: np.ndarray | float, x: np.ndarray | float, call: Call
    ) -> np.ndarray | float: ...
    def truth(self, truth: np.ndarray, missing: np.ndarray) -> Factor: ...


def _column_of(ev: Reader, expr: Expr, call: Call) -> np.ndarray:
    x = ev.numeric(expr, call)
    if not isinstance(x, np.ndarray):
        raise DataError(f"{deparse(call)}: {deparse(expr)} is not a column")
    return x


def _only(call: Call) -> Expr:
    if len(call.args) != 1 or call.names:
        raise DataError(f"{deparse(call)}: {call.function}() takes one unnamed argument")
    return call.args[0]


def _identity(ev: Reader, call: Call) -> Value:
    return ev.value(_only(call))


def _log(ev: Reader, call: Call) -> Value:
    args = ev.arguments(call, ("x", "base"))
    x = ev.numeric(args["x"], call)
    result = np.log(x)
    if "base" in args:
        result = result / np.log(ev.numeric(args["base"], call))
    return ev.checked(result, x, call)


def _round(ev: Reader, call: Call) -> Value:
    args = ev.arguments(call, ("x", "digits"))
    x, digits = ev.numeric(args["x"], call), ev.option(args.get("digits"), 0.0, call)
    if not isinstance(digits, float):
        raise DataError(f"{deparse(call)}: digits must be a number")
    return np.rint(x) if digits == 0 else _round_decimal(np.asarray(x), 10.0 ** int(digits))


def _round_decimal(x: np.ndarray, power: float) -> np.ndarray:
    """The nearer of the two decimal neighbours of x, the even one of equals (R since 4.0.0)."""
    shifted = x * power
    low, high = np.floor(shifted), np.ceil(shifted)
    below, above = x - low / power, high / power - x
    down = (below < above) | ((below == above) & (low % 2 == 0))
    return np.where(down, low, high) / power


def _and_or(ev: Reader, call: Call) -> Value:
    a, b = (ev.numeric(arg, call) for arg in call.args)
    if call.function in ("&&", "||"):
        raise DataError(f"{deparse(call)}: write {call.function[0]} to combine columns")
    unknown_a, unknown_b = np.isnan(a), np.isnan(b)
    if call.function == "&":
        known_false = (~unknown_a & (a == 0)) | (~unknown_b & (b == 0))
        return ev.truth((a != 0) & (b != 0) & ~known_false, (unknown_a | unknown_b) & ~known_false)
    known_true = (~unknown_a & (a != 0)) | (~unknown_b & (b != 0))
    return ev.truth(known_true, (unknown_a | unknown_b) & ~known_true)


def _not(ev: Reader, call: Call) -> Value:
    x = ev.numeric(_only(call), call)
    return ev.truth(np.equal(x, 0), np.isnan(x))


def _is_na(ev: Reader, call: Call) -> Value:
    value = ev.variable(_only(call))
    missing = value.codes < 0 if isinstance(value, Factor) else np.isnan(ev.numeric(call.args[0], call))
    return ev.truth(missing, np.zeros(ev.n, dtype=bool))


def _ifelse(ev: Reader, call: Call) -> Value:
    args = ev.arguments(call, ("test", "yes", "no"))
    test, yes, no = (ev.numeric(args[name], call) for name in ("test", "yes", "no"))
    return np.where(np.isnan(test), np.nan, np.where(test != 0, yes, no))


def _parallel(ev: Reader, call: Call) -> Value:
    pick = np.minimum if call.function == "pmin" else np.maximum
    values = [ev.numeric(arg, call) for arg in call.args]
    result = values[0]
    for value in values[1:]:
        result = pick(result, value)
    return result


def _combine(ev: Reader, call: Call) -> Value:
    return [ev.option(arg, None, call) for arg in call.args]


def _cbind(ev: Reader, call: Call) -> Matrix:
    names = call.names or (None,) * len(call.args)
    columns = [np.broadcast_to(ev.numeric(arg, call), (ev.n,)) for arg in call.args]
    labels = tuple(
        name if name is not None else (arg.id if isinstance(arg, Name) else "")
        for name, arg in zip(names, call.args, strict=True)
    )
    return Matrix(np.column_stack(columns), labels)


def _poly(ev: Reader, call: Call) -> Matrix:
    args = ev.arguments(call, ("x", "degree", "coefs", "raw", "simple"))
    if "coefs" in args:
        raise DataError(f"{deparse(call)}: coefs cannot be given, they are kept from the training data")
    x = _column_of(ev, args["x"], call)
    if "degree" in args and not isinstance(ev.value(args["degree"]), float):
        raise DataError(
            f"{deparse(call)}: polynomials of several variables are not supported; the degree is a number"
        )
    degree = int(ev.option(args.get("degree"), 1.0, call))  # type: ignore[arg-type]
    names = tuple(str(j) for j in range(1, degree + 1))
    if ev.option(args.get("raw"), False, call):
        return Matrix(np.vander(x, degree + 1, increasing=True)[:, 1:], names)
    basis = ev.remembered(call, lambda: Poly.fit(x, degree))
    assert isinstance(basis, Poly)
    return Matrix(basis.columns(x), names)


def _spline(ev: Reader, call: Call) -> Matrix:
    natural = call.function.endswith("ns")
    extra = () if natural else ("degree",)
    args = ev.arguments(call, ("x", "df", "knots", *extra, "intercept", "Boundary.knots"))
    x = _column_of(ev, args["x"], call)
    option = {name: ev.option(args.get(name), None, call) for name in args if name != "x"}
    degree = 3 if natural else int(option.get("degree") or 3)  # type: ignore[arg-type]

    def fit() -> Spline:
        df, knots = option.get("df"), option.get("knots")
        listed = [knots] if isinstance(knots, float) else knots
        boundary, intercept = option.get("Boundary.knots"), bool(option.get("intercept", False))
        return Spline.fit(x, None if df is None else int(df), listed, degree, intercept, boundary, natural)  # type: ignore[arg-type]

    basis = ev.remembered(call, fit)
    assert isinstance(basis, Spline)
    columns = basis.columns(x)
    return Matrix(columns, tuple(str(j + 1) for j in range(columns.shape[1])))


def _scale(ev: Reader, call: Call) -> np.ndarray:
    args = ev.arguments(call, ("x", "center", "scale"))
    x = _column_of(ev, args["x"], call)
    center, scale = (ev.option(args.get(name), True, call) for name in ("center", "scale"))
    basis = ev.remembered(call, lambda: Scale.fit(x, center, scale))  # type: ignore[arg-type]
    assert isinstance(basis, Scale)
    return basis.columns(x)


def _factor(ev: Reader, call: Call) -> Factor:
    args = ev.arguments(call, ("x", "levels", "labels", "ordered"))
    factor = as_factor(ev.variable(args["x"]), deparse(args["x"]))
    ordered = call.function == "ordered" or bool(ev.option(args.get("ordered"), factor.ordered, call))
    factor = Factor(factor.codes, factor.levels, ordered, values=factor.values)
    if "levels" in args:
        factor = _with_levels(factor, _texts(ev, args["levels"], call))
    factor = _with_known_levels(ev, call, factor)
    if "labels" not in args:
        return factor
    labels = _texts(ev, args["labels"], call)
    if ev.fitting and len(labels) != len(factor.levels):
        raise DataError(f"{deparse(call)}: {len(labels)} labels for {len(factor.levels)} levels")
    return Factor(factor.codes, (*labels, *factor.levels[len(labels) :]), ordered)


def _with_levels(factor: Factor, levels: list[str]) -> Factor:
    position = {level: i for i, level in enumerate(levels)}
    lookup = np.array([position.get(level, -1) for level in factor.levels] + [-1], dtype=np.intp)
    at = [factor.levels.index(level) if level in factor.levels else -1 for level in levels]
    values = None if factor.values is None or -1 in at else factor.values[at]
    return Factor(lookup[factor.codes], tuple(levels), factor.ordered, values=values)


def _texts(ev: Reader, expr: Expr, call: Call) -> list[str]:
    value = ev.option(expr, None, call)
    return [_text(v) for v in (value if isinstance(value, list) else [value])]


def _text(value: Value) -> str:
    return value if isinstance(value, str) else deparse(Constant(value))  # type: ignore[arg-type]


def _as_factor(ev: Reader, call: Call) -> Factor:
    factor = as_factor(ev.variable(_only(call)), deparse(call.args[0]))
    return _with_known_levels(
        ev, call, Factor(factor.codes, factor.levels, factor.ordered, values=factor.values)
    )


def _with_known_levels(ev: Reader, call: Call, factor: Factor) -> Factor:
    known = ev.remembered(call, lambda: factor.levels)
    return factor if ev.fitting else align_levels(factor, known)  # type: ignore[arg-type]


def _as_numeric(ev: Reader, call: Call) -> np.ndarray:
    value = ev.variable(_only(call))
    if isinstance(value, Factor) and not value.logical:
        return np.where(value.codes < 0, np.nan, value.codes + 1.0)
    x = np.asarray(ev.numeric(call.args[0], call))
    return np.trunc(x) if call.function == "as.integer" else x


def _as_logical(ev: Reader, call: Call) -> Factor:
    x = ev.numeric(_only(call), call)
    return ev.truth(np.not_equal(x, 0), np.isnan(x))


def _relevel(ev: Reader, call: Call) -> Factor:
    args = ev.arguments(call, ("x", "ref"))
    factor = ev.variable(args["x"])
    reference = ev.option(args.get("ref"), None, call)
    if not isinstance(factor, Factor) or _text(reference) not in factor.levels:
        raise DataError(f"{deparse(call)}: {_text(reference)!r} is not a level of {deparse(args['x'])}")
    rest = [level for level in factor.levels if level != _text(reference)]
    return _with_levels(replace(factor, ordered=False), [_text(reference), *rest])


def _contrasts(ev: Reader, call: Call) -> Factor:
    args = ev.arguments(call, ("object", "contr", "how.many"))
    factor = as_factor(ev.variable(args["object"]), deparse(args["object"]))
    if "how.many" in args:
        raise DataError(f"{deparse(call)}: how.many is not supported")
    if "contr" not in args:
        return replace(factor, contrasts="contr.poly" if factor.ordered else "contr.treatment")
    kind = _contrast_word(args["contr"], call)
    if isinstance(args["contr"], Name) and args["contr"].id.startswith("contr."):
        # R hands the *number* of levels to a contrast function, so its columns are named by position.
        positions = [str(i + 1) for i in range(len(factor.levels))]
        matrix, names = contrast_matrix(kind, positions, deparse(call))
        return replace(factor, contrasts=pd.DataFrame(matrix, columns=list(names)))
    return replace(factor, contrasts=kind)


def _contrast_word(expr: Expr, call: Call) -> str:
    word = expr.id if isinstance(expr, Name) else expr.value if isinstance(expr, Constant) else None
    known = [f"contr.{kind}" for kind in KINDS]
    if isinstance(expr, Name) and word in _CONTRAST_WORDS:
        return f"contr.{word}"
    if not isinstance(word, str) or word not in known:
        raise DataError(
            f"{deparse(call)}: the contrast must be one of {', '.join([*known, *_CONTRAST_WORDS])}"
        )
    return word


FUNCTION_TABLE: Mapping[str, Callable[[Reader, Call], Value]] = {
    "(": _identity, "I": _identity, "offset": _identity, "log": _log, "round": _round,
    "&": _and_or, "|": _and_or, "&&": _and_or, "||": _and_or, "!": _not, "is.na": _is_na, "ifelse": _ifelse,
    "pmin": _parallel, "pmax": _parallel, "c": _combine, "cbind": _cbind, "poly": _poly, "ns": _spline,
    "bs": _spline, "scale": _scale, "factor": _factor, "ordered": _factor, "as.factor": _as_factor,
    "as.numeric": _as_numeric, "as.integer": _as_numeric, "as.logical": _as_logical, "relevel": _relevel,
    "C": _contrasts,
}  # fmt: skip
