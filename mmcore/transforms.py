"""Value of an expression over the columns of a data frame: an interpreter over the tree, never `eval`.

`Evaluator.value(expr)` gives numbers (n,), a Factor or a Matrix. Data-dependent bases keep what they learnt
in `memory` under the text of their call, so that the same Evaluator kind on new data repeats the training
basis.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from .bases import Poly, Scale, Spline
from .columns import Column, Factor, Matrix, as_factor, as_numbers, logical, read_column
from .contrasts import KINDS, contrast_matrix
from .errors import DataError, MixedModelWarning
from .syntax import Call, Constant, Expr, Name, deparse

Value = Column | float | str | bool | None | list

_WORDS = {"T": True, "F": False}
_CONTRAST_WORDS = ("treatment", "sum", "helmert", "poly", "SAS")

_MATH: dict[str, Callable] = {
    "abs": np.abs, "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "ceiling": np.ceil, "cos": np.cos,
    "cosh": np.cosh, "exp": np.exp, "expm1": np.expm1, "floor": np.floor, "log10": np.log10,
    "log1p": np.log1p, "log2": np.log2, "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt,
    "tan": np.tan, "tanh": np.tanh, "trunc": np.trunc,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "^": np.power,
    "%%": np.mod, "%/%": np.floor_divide,
}  # fmt: skip
_COMPARE: dict[str, Callable] = {
    "==": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater,
    "<=": np.less_equal, ">=": np.greater_equal,
}  # fmt: skip


class Evaluator:
    """Evaluates expressions over `data`; each column is read once.

    `memory` (label -> fitted basis or training levels) is filled when `fitting`, else only read.
    """

    __slots__ = ("columns", "data", "fitting", "memory", "n")

    def __init__(self, data: pd.DataFrame, memory: dict[str, object] | None = None):
        self.data = data
        self.n = len(data)
        self.columns: dict[str, np.ndarray | Factor] = {}
        self.fitting = memory is None
        self.memory: dict[str, object] = {} if memory is None else memory

    def column(self, name: str) -> np.ndarray | Factor:
        """Column `name`; on new data a factor gets the order of the training levels."""
        found = self.columns.get(name)
        if found is None:
            found = self.columns[name] = self._read(name)
        return found

    def _read(self, name: str) -> np.ndarray | Factor:
        column = read_column(self.data, name)
        if not isinstance(column, Factor):
            return column
        if self.fitting:
            self.memory[name] = column.levels
            return column
        known = self.memory.get(name)
        return column if known is None else align_levels(column, known)  # type: ignore[arg-type]

    def variable(self, expr: Expr) -> Column:
        """`expr` as a column of n rows. Raises DataError naming the expression when it is not one."""
        if isinstance(expr, Name):
            return self.column(expr.id)
        value = self.value(expr)
        if isinstance(value, np.ndarray) and value.ndim == 1 and len(value) == self.n:
            return value
        if isinstance(value, Factor | Matrix):
            return value
        raise DataError(f"{deparse(expr)} is not a column of {self.n} values")

    def value(self, expr: Expr) -> Value:
        """Value of any expression: a column, a number, a string, TRUE/FALSE, None or a list from c()."""
        if isinstance(expr, Name):
            return self.column(expr.id)
        if isinstance(expr, Constant):
            return expr.value
        function = expr.function.rpartition("::")[2] if "::" in expr.function else expr.function
        with np.errstate(all="ignore"):
            return self._apply(function, expr)

    def _apply(self, function: str, call: Call) -> Value:
        special = _SPECIAL.get(function)
        if special is not None:
            return special(self, call)
        if function in _MATH:
            (x,) = self._numbers(call, 1)
            return self._checked(_MATH[function](x), x, call)
        if function in _ARITHMETIC:
            return self._arithmetic(function, call)
        if function in _COMPARE:
            return self._compare(function, call)
        raise DataError(f"{deparse(call)}: {function} cannot be used here")

    def _numbers(self, call: Call, count: int) -> list:
        if len(call.args) != count or call.names:
            raise DataError(f"{deparse(call)}: {call.function}() takes {count} unnamed argument(s)")
        return [self.numeric(arg, call) for arg in call.args]

    def numeric(self, expr: Expr, call: Expr) -> np.ndarray | float:
        """Value of `expr` as float64 (n,) or a number; `call` is named when it is neither."""
        value = self.value(expr)
        if isinstance(value, Factor | Matrix | np.ndarray):
            return as_numbers(value, f"{deparse(expr)} in {deparse(call)}")
        if isinstance(value, bool | float):
            return float(value)
        raise DataError(f"{deparse(expr)} in {deparse(call)} must be numeric")

    def _checked(self, result, x, call: Call):
        produced = np.isnan(result) & ~np.isnan(x)
        if np.any(produced):
            count = int(np.sum(produced))
            message = f"{deparse(call)} is not a number in {count} row(s), which count as missing"
            warnings.warn(message, MixedModelWarning, stacklevel=2)
        return result

    def _arithmetic(self, function: str, call: Call) -> np.ndarray | float:
        operands = [self.numeric(arg, call) for arg in call.args]
        if len(operands) == 1:
            return -operands[0] if function == "-" else operands[0]
        return _ARITHMETIC[function](*operands)

    def _compare(self, function: str, call: Call) -> Factor:
        left, right = (self.value(arg) for arg in call.args)
        if isinstance(left, str) or isinstance(right, str):
            return self._compare_levels(function, left, right, call)
        a, b = (self.numeric(arg, call) for arg in call.args)
        return self._logical(_COMPARE[function](a, b), np.isnan(a) | np.isnan(b))

    def _compare_levels(self, function: str, left: Value, right: Value, call: Call) -> Factor:
        factor, text = (left, right) if isinstance(left, Factor) else (right, left)
        if not isinstance(factor, Factor) or not isinstance(text, str):
            raise DataError(f"{deparse(call)} compares a number with text")
        if function not in ("==", "!="):
            raise DataError(f"{deparse(call)}: levels can be compared with == and != only")
        code = factor.levels.index(text) if text in factor.levels else -2
        return self._logical(_COMPARE[function](factor.codes, code), factor.codes < 0)

    def _logical(self, truth, missing) -> Factor:
        shape = (self.n,)
        return logical(np.broadcast_to(truth, shape), np.broadcast_to(missing, shape))

    def arguments(self, call: Call, names: tuple[str, ...]) -> dict[str, Expr]:
        """Arguments of `call` matched to `names` by name, then by position."""
        given = call.names or (None,) * len(call.args)
        matched: dict[str, Expr] = {}
        for name, arg in zip(given, call.args, strict=True):
            if name is not None:
                full = name if name in names else _partial(name, names)
                if full is None or full in matched:
                    raise DataError(
                        f"{deparse(call)}: unknown or repeated argument {name!r}; it takes {', '.join(names)}"
                    )
                matched[full] = arg
        free = (n for n in names if n not in matched)
        for name, arg in zip(given, call.args, strict=True):
            if name is None:
                target = next(free, None)
                if target is None:
                    raise DataError(f"{deparse(call)} has too many arguments; it takes {', '.join(names)}")
                matched[target] = arg
        return matched

    def option(self, expr: Expr | None, default: Value, call: Call) -> Value:
        """Value of an argument that is a constant, `T`, `F` or c(...), not a column."""
        if expr is None:
            return default
        if isinstance(expr, Name):
            if expr.id in _WORDS:
                return _WORDS[expr.id]
            raise DataError(f"{deparse(call)}: {deparse(expr)} must be a constant")
        value = self.value(expr)
        if isinstance(value, Factor | Matrix | np.ndarray):
            raise DataError(f"{deparse(call)}: {deparse(expr)} must be a constant")
        return value

    def remembered(self, call: Call, fit: Callable[[], object]) -> object:
        """The basis of `call`: fitted now, or the one that was fitted to the training data."""
        label = deparse(call)
        if self.fitting and label not in self.memory:
            self.memory[label] = fit()
        return self.memory[label]


def align_levels(factor: Factor, levels: tuple[str, ...]) -> Factor:
    """`factor` with `levels` first, in their order; levels not among them follow."""
    if factor.levels == levels:
        return factor
    extra = tuple(level for level in factor.levels if level not in set(levels))
    position = {level: i for i, level in enumerate(levels + extra)}
    lookup = np.array([position[level] for level in factor.levels] + [-1], dtype=np.intp)
    return replace(factor, codes=lookup[factor.codes], levels=levels + extra)


def _partial(name: str, names: tuple[str, ...]) -> str | None:
    matches = [n for n in names if n.startswith(name)]
    return matches[0] if len(matches) == 1 else None


def _column_of(ev: Evaluator, expr: Expr, call: Call) -> np.ndarray:
    x = ev.numeric(expr, call)
    if not isinstance(x, np.ndarray):
        raise DataError(f"{deparse(call)}: {deparse(expr)} is not a column")
    return x


def _identity(ev: Evaluator, call: Call) -> Value:
    return ev.value(call.args[0])


def _log(ev: Evaluator, call: Call) -> Value:
    args = ev.arguments(call, ("x", "base"))
    x = ev.numeric(args["x"], call)
    result = np.log(x)
    if "base" in args:
        result = result / np.log(ev.numeric(args["base"], call))
    return ev._checked(result, x, call)


def _round(ev: Evaluator, call: Call) -> Value:
    args = ev.arguments(call, ("x", "digits"))
    return np.round(ev.numeric(args["x"], call), int(ev.option(args.get("digits"), 0.0, call)))  # type: ignore[arg-type]


def _and_or(ev: Evaluator, call: Call) -> Value:
    a, b = (ev.numeric(arg, call) for arg in call.args)
    if call.function in ("&&", "||"):
        raise DataError(f"{deparse(call)}: write {call.function[0]} to combine columns")
    unknown_a, unknown_b = np.isnan(a), np.isnan(b)
    if call.function == "&":
        known_false = (~unknown_a & (a == 0)) | (~unknown_b & (b == 0))
        return ev._logical((a != 0) & (b != 0) & ~known_false, (unknown_a | unknown_b) & ~known_false)
    known_true = (~unknown_a & (a != 0)) | (~unknown_b & (b != 0))
    return ev._logical(known_true, (unknown_a | unknown_b) & ~known_true)


def _not(ev: Evaluator, call: Call) -> Value:
    x = ev.numeric(call.args[0], call)
    return ev._logical(x == 0, np.isnan(x))


def _is_na(ev: Evaluator, call: Call) -> Value:
    value = ev.variable(call.args[0])
    missing = value.codes < 0 if isinstance(value, Factor) else np.isnan(ev.numeric(call.args[0], call))
    return ev._logical(missing, np.zeros(ev.n, dtype=bool))


def _ifelse(ev: Evaluator, call: Call) -> Value:
    args = ev.arguments(call, ("test", "yes", "no"))
    test, yes, no = (ev.numeric(args[name], call) for name in ("test", "yes", "no"))
    return np.where(np.isnan(test), np.nan, np.where(test != 0, yes, no))


def _parallel(ev: Evaluator, call: Call) -> Value:
    pick = np.minimum if call.function == "pmin" else np.maximum
    values = [ev.numeric(arg, call) for arg in call.args]
    result = values[0]
    for value in values[1:]:
        result = pick(result, value)
    return result


def _combine(ev: Evaluator, call: Call) -> Value:
    return [ev.option(arg, None, call) for arg in call.args]


def _cbind(ev: Evaluator, call: Call) -> Matrix:
    names = call.names or (None,) * len(call.args)
    columns = [np.broadcast_to(ev.numeric(arg, call), (ev.n,)) for arg in call.args]
    labels = tuple(
        name if name is not None else (arg.id if isinstance(arg, Name) else "")
        for name, arg in zip(names, call.args, strict=True)
    )
    return Matrix(np.column_stack(columns), labels)


def _poly(ev: Evaluator, call: Call) -> Matrix:
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
    if ev.fitting and deparse(call) not in ev.memory:
        ev.memory[deparse(call)], columns = Poly.fit(x, degree)
        return Matrix(columns, names)
    basis = ev.memory[deparse(call)]
    assert isinstance(basis, Poly)
    return Matrix(basis.columns(x), names)


def _spline(ev: Evaluator, call: Call) -> Matrix:
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


def _scale(ev: Evaluator, call: Call) -> np.ndarray:
    args = ev.arguments(call, ("x", "center", "scale"))
    x = _column_of(ev, args["x"], call)
    center, scale = (ev.option(args.get(name), True, call) for name in ("center", "scale"))
    basis = ev.remembered(call, lambda: Scale.fit(x, center, scale))  # type: ignore[arg-type]
    assert isinstance(basis, Scale)
    return basis.columns(x)


def _factor(ev: Evaluator, call: Call) -> Factor:
    args = ev.arguments(call, ("x", "levels", "labels", "ordered"))
    value = ev.variable(args["x"])
    factor = as_factor(value, deparse(args["x"]))
    ordered = call.function == "ordered" or bool(ev.option(args.get("ordered"), factor.ordered, call))
    if isinstance(value, Factor) and value.logical:
        factor = Factor(value.codes, value.levels)
    if "levels" in args:
        factor = _with_levels(factor, [_text(v) for v in _listed(ev.option(args["levels"], None, call))])
    labels = (
        [_text(v) for v in _listed(ev.option(args["labels"], None, call))]
        if "labels" in args
        else factor.levels
    )
    if len(labels) != len(factor.levels):
        raise DataError(f"{deparse(call)}: {len(labels)} labels for {len(factor.levels)} levels")
    factor = Factor(factor.codes, tuple(labels), ordered)
    known = ev.remembered(call, lambda: factor.levels)
    return factor if ev.fitting else align_levels(factor, known)  # type: ignore[arg-type]


def _with_levels(factor: Factor, levels: list[str]) -> Factor:
    position = {level: i for i, level in enumerate(levels)}
    lookup = np.array([position.get(level, -1) for level in factor.levels] + [-1], dtype=np.intp)
    return Factor(lookup[factor.codes], tuple(levels), factor.ordered)


def _listed(value: Value) -> list:
    return value if isinstance(value, list) else [value]


def _text(value: Value) -> str:
    return value if isinstance(value, str) else deparse(Constant(value))  # type: ignore[arg-type]


def _as_factor(ev: Evaluator, call: Call) -> Factor:
    value = ev.variable(call.args[0])
    factor = as_factor(value, deparse(call.args[0]))
    factor = Factor(factor.codes, factor.levels, factor.ordered)
    known = ev.remembered(call, lambda: factor.levels)
    return factor if ev.fitting else align_levels(factor, known)  # type: ignore[arg-type]


def _as_numeric(ev: Evaluator, call: Call) -> np.ndarray:
    value = ev.variable(call.args[0])
    if isinstance(value, Factor) and not value.logical:
        return np.where(value.codes < 0, np.nan, value.codes + 1.0)
    x = np.asarray(ev.numeric(call.args[0], call))
    return np.trunc(x) if call.function == "as.integer" else x


def _as_logical(ev: Evaluator, call: Call) -> Factor:
    x = ev.numeric(call.args[0], call)
    return ev._logical(x != 0, np.isnan(x))


def _relevel(ev: Evaluator, call: Call) -> Factor:
    args = ev.arguments(call, ("x", "ref"))
    factor = ev.variable(args["x"])
    reference = ev.option(args.get("ref"), None, call)
    if not isinstance(factor, Factor) or _text(reference) not in factor.levels:
        raise DataError(f"{deparse(call)}: {_text(reference)!r} is not a level of {deparse(args['x'])}")
    rest = [level for level in factor.levels if level != _text(reference)]
    return _with_levels(replace(factor, ordered=False), [_text(reference), *rest])


def _contrasts(ev: Evaluator, call: Call) -> Factor:
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


_SPECIAL: Mapping[str, Callable[[Evaluator, Call], Value]] = {
    "(": _identity, "I": _identity, "offset": _identity, "log": _log, "round": _round,
    "&": _and_or, "|": _and_or, "&&": _and_or, "||": _and_or, "!": _not, "is.na": _is_na, "ifelse": _ifelse,
    "pmin": _parallel, "pmax": _parallel, "c": _combine, "cbind": _cbind, "poly": _poly, "ns": _spline,
    "bs": _spline, "scale": _scale, "factor": _factor, "ordered": _factor, "as.factor": _as_factor,
    "as.numeric": _as_numeric, "as.integer": _as_numeric, "as.logical": _as_logical, "relevel": _relevel,
    "C": _contrasts,
}  # fmt: skip
