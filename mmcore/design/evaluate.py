"""Value of an expression over the columns of a data frame: an interpreter over the tree, never `eval`.

`Evaluator.value(expr)` gives numbers (n,), a Factor or a Matrix. Data-dependent bases keep what they learnt
in `memory` under the text of their call, so that new data get the training basis.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..errors import DataError, MixedModelWarning
from ..formula.syntax import Call, Constant, Expr, Name, deparse
from .columns import Column, Factor, Matrix, align_levels, as_numbers, logical, read_column
from .functions import FUNCTION_TABLE, Value

_WORDS = {"T": True, "F": False}

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

    `memory` (("column", name) -> training levels, ("call", text) -> fitted basis) is filled when `fitting`,
    else only read.
    """

    __slots__ = ("columns", "data", "fitting", "memory", "n")

    def __init__(self, data: pd.DataFrame, memory: dict[tuple[str, str], object] | None = None):
        self.data = data
        self.n = len(data)
        self.columns: dict[str, np.ndarray | Factor] = {}
        self.fitting = memory is None
        self.memory: dict[tuple[str, str], object] = {} if memory is None else memory

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
            self.memory["column", name] = column.levels
            return column
        known = self.memory.get(("column", name))
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
        special = FUNCTION_TABLE.get(function)
        if special is not None:
            return special(self, call)
        if function in _MATH:
            (x,) = self._numbers(call, 1)
            return self.checked(_MATH[function](x), x, call)
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

    def checked(self, result: np.ndarray | float, x: np.ndarray | float, call: Call) -> np.ndarray | float:
        """`result`, after a warning about values that are not a number although x is."""
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
        return self.truth(_COMPARE[function](a, b), np.isnan(a) | np.isnan(b))

    def _compare_levels(self, function: str, left: Value, right: Value, call: Call) -> Factor:
        factor, text = (left, right) if isinstance(left, Factor) else (right, left)
        if not isinstance(factor, Factor) or not isinstance(text, str):
            raise DataError(f"{deparse(call)} compares a number with text")
        if function not in ("==", "!="):
            raise DataError(f"{deparse(call)}: levels can be compared with == and != only")
        code = factor.levels.index(text) if text in factor.levels else -2
        return self.truth(_COMPARE[function](factor.codes, code), factor.codes < 0)

    def truth(self, truth: np.ndarray, missing: np.ndarray) -> Factor:
        """R's logical vector (n,); `missing` marks NA. Both may be single values."""
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
        key = ("call", deparse(call))
        if self.fitting and key not in self.memory:
            self.memory[key] = fit()
        return self.memory[key]


def _partial(name: str, names: tuple[str, ...]) -> str | None:
    matches = [n for n in names if n.startswith(name)]
    return matches[0] if len(matches) == 1 else None
