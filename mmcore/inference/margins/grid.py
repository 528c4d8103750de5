"""The reference grid: combinations of factor levels, covariates at their means, as rows of the model matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from ...design.build import Design
from ...design.columns import Column, Factor, Matrix, drop_unused, read_column, take_rows
from ...design.evaluate import Evaluator
from ...design.frame import as_frame, kept_variables
from ...errors import DataError
from ...formula.parse import column_names
from ...formula.syntax import Expr, Name, deparse, format_number

__all__ = ["Grid", "Variable", "reference_grid", "variables_of"]

KEPT = 2  # distinct values up to which a covariate is a factor of the grid, as in emmeans
MOST_ROWS = 100_000
ESTIMABLE = 1e-8  # relative size of the part of a row outside the rows of X


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the fixed part: what it is in the data, and where the grid has it."""

    name: str
    column: Column  # (n,) on the rows used
    points: tuple[Any, ...]  # level labels, or numbers
    hidden: str | None = (
        None  # label of the expression that holds its levels if the data column is not at hand
    )

    @property
    def is_factor(self) -> bool:
        """Whether it has levels."""
        return isinstance(self.column, Factor)

    def positions(self) -> np.ndarray:
        """(n,) point of each row; -1 for a value that is none."""
        if isinstance(self.column, Factor):
            at = {level: i for i, level in enumerate(self.points)}
            return np.array([at.get(level, -1) for level in self.column.levels])[self.column.codes]
        found = np.full(len(self.column), -1)  # type: ignore[arg-type]
        for i, value in enumerate(self.points):
            found[np.asarray(self.column) == value] = i
        return found

    def chosen(self, which: np.ndarray) -> Column:
        """The column with points ``which``."""
        if not isinstance(self.column, Factor):
            return np.asarray(self.points, float)[which]
        at = {level: i for i, level in enumerate(self.column.levels)}
        codes = np.array([at[level] for level in self.points], dtype=np.intp)[which]
        return Factor(codes, self.column.levels, self.column.ordered, self.column.logical)


@dataclass(frozen=True)
class Grid:
    """Rows at which a model is evaluated."""

    design: Design
    variables: tuple[Variable, ...]
    index: np.ndarray  # (m, v) point of each variable in each row

    def points(self, name: str) -> np.ndarray:
        """(m,) points of a variable."""
        return self.index[:, [v.name for v in self.variables].index(name)]

    def variable(self, name: str) -> Variable:
        """The variable of that name. Raises DataError naming those there are."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        known = ", ".join(v.name for v in self.variables) or "none"
        raise DataError(f"{name!r} is not a variable of the fixed part of the model, which has: {known}")

    @cached_property
    def full_rows(self) -> np.ndarray:
        """(m, all columns) rows of the model matrix, aliased columns included."""
        columns = {v.name: v.chosen(self.points(v.name)) for v in self.variables}
        return model_rows(self.design, columns, self.variables, len(self.index))

    @property
    def rows(self) -> np.ndarray:
        """(m, p)."""
        return kept_columns(self.design, self.full_rows)

    def not_estimable(self, L: np.ndarray) -> np.ndarray:
        """(r,) whether functions of the full coefficients (r, all columns) depend on how the aliased are chosen."""
        design = self.design
        if design.x_names == design.x_names_full:
            return np.zeros(len(L), dtype=bool)
        n_full = design.coding.matrix(kept_variables(design.source.variables, design.rows), design.n)
        kept = [design.coding.names.index(name) for name in design.x_names]
        gone = np.setdiff1d(np.arange(n_full.shape[1]), kept)
        by_kept = np.linalg.lstsq(design.X, n_full[:, gone], rcond=None)[0]
        off = np.abs(L[:, gone] - L[:, kept] @ by_kept).max(axis=1)
        return off > ESTIMABLE * np.maximum(np.abs(L).max(axis=1), 1.0)


def kept_columns(design: Design, full: np.ndarray) -> np.ndarray:
    """The columns of the design among all columns of its coding."""
    return full[:, [design.coding.names.index(name) for name in design.x_names]]


def model_rows(
    design: Design, columns: Mapping[str, Column], variables: Iterable[Variable], m: int
) -> np.ndarray:
    """(m, all columns) of the fixed part for m values of each of its variables."""
    evaluator = Evaluator(pd.DataFrame(index=range(m)), design.source.memory)
    hidden = {v.hidden: columns[v.name] for v in variables if v.hidden is not None}
    evaluator.columns.update(
        {name: column for name, column in columns.items() if not isinstance(column, Matrix)}
    )
    found: dict[str, Column] = {}
    for expr in _expressions(design):
        label = deparse(expr)
        found[label] = hidden[label] if label in hidden else evaluator.variable(expr)
    return design.coding.matrix(found, m)


def _expressions(design: Design) -> list[Expr]:
    return list({deparse(v): v for term in design.formula.terms for v in term}.values())


def variables_of(design: Design, data: Any = None) -> tuple[Variable, ...]:
    """The variables of the fixed part in order of appearance.

    ``data`` is needed for a covariate that the model has only inside a function, such as x of ``log(x)``: a design
    keeps the values of its expressions.
    """
    used = kept_variables(design.source.variables, design.rows)
    out: dict[str, Variable] = {}
    for expr in _expressions(design):
        for name in dict.fromkeys(column_names(expr)):
            if name not in out:
                out[name] = _variable(design, expr, name, used, data)
    for expr in _expressions(design):  # a covariate inside factor() has its values as levels
        names = list(dict.fromkeys(column_names(expr)))
        if len(names) == 1 and isinstance(used[deparse(expr)], Factor) and not out[names[0]].is_factor:
            old = out[names[0]]
            out[old.name] = Variable(old.name, old.column, tuple(np.unique(np.asarray(old.column)).tolist()))
    return tuple(out.values())


def _variable(design: Design, expr: Expr, name: str, used: Mapping[str, Column], data: Any) -> Variable:
    column, hidden = used.get(deparse(Name(name))), None
    if column is None and data is not None:
        column = _from_data(design, as_frame(data), name)
    if column is None:
        whole = used[deparse(expr)]
        if not isinstance(whole, Factor) or len(set(column_names(expr))) > 1:
            raise DataError(
                f"the model has {name!r} only inside {deparse(expr)}, whose values it keeps and not those of {name!r}: "
                "pass the data of the fit, data=..."
            )
        column, hidden = whole, deparse(expr)
    if isinstance(column, Matrix):
        raise DataError(f"{name!r} has several columns and cannot be part of a reference grid")
    return Variable(name, column, _points(column), hidden)


def _from_data(design: Design, data: pd.DataFrame, name: str) -> Column:
    column: Column = read_column(data, name)
    if len(data) != design.n_input:
        raise DataError(f"data has {len(data)} rows; the model was fitted to data of {design.n_input}")
    column = column if design.rows is None else take_rows(column, design.rows)
    return drop_unused(column) if isinstance(column, Factor) else column


def _points(column: Factor | np.ndarray) -> tuple[Any, ...]:
    if isinstance(column, Factor):
        return tuple(column.levels)
    if column.dtype.kind not in "iuf":
        raise DataError(
            "dates in the fixed part have no place in a reference grid: use numbers, such as days"
        )
    distinct = np.unique(column)
    return tuple(distinct.tolist()) if len(distinct) <= KEPT else (float(np.mean(column)),)


def reference_grid(design: Design, at: Mapping[str, Any] | None = None, data: Any = None) -> Grid:
    """All combinations of factor levels, covariates at their means (those of two values at both); ``at`` replaces.

    Combinations of a factor and one nested in it that do not occur are left out, so that means over the nested factor
    are over the levels that there are.
    """
    variables = variables_of(design, data)
    known = {v.name for v in variables}
    for name in at or {}:
        if name not in known:
            raise DataError(
                f"at names {name!r}, which is not a variable of the fixed part: {', '.join(sorted(known))}"
            )
    placed = tuple(_placed(v, at[v.name]) if at and v.name in at else v for v in variables)
    sizes = [len(v.points) for v in placed]
    if np.prod(sizes, dtype=float) > MOST_ROWS:
        raise DataError(f"the reference grid has more than {MOST_ROWS:,} rows: hold some variables by at=")
    # The first variable varies fastest.
    rows = np.array(list(product(*[range(s) for s in reversed(sizes)])), dtype=np.intp).reshape(
        -1, len(sizes)
    )
    index = rows[:, ::-1]
    for nested, outer in nestings(placed):
        i, j = (known_at(placed, name) for name in (nested, outer))
        pairs = set(zip(placed[i].positions().tolist(), placed[j].positions().tolist(), strict=True))
        index = index[
            [(a, b) in pairs for a, b in zip(index[:, i].tolist(), index[:, j].tolist(), strict=True)]
        ]
    return Grid(design, placed, index)


def known_at(variables: tuple[Variable, ...], name: str) -> int:
    """Position of a variable."""
    return [v.name for v in variables].index(name)


def nestings(variables: tuple[Variable, ...]) -> list[tuple[str, str]]:
    """Pairs (nested, outer): each level of the first has rows with one level of the second only."""
    factors = [v for v in variables if v.is_factor and len(v.points) > 1]
    out = []
    for a, b in product(factors, factors):
        if len(a.points) <= len(b.points) or a is b:
            continue
        pairs = np.unique(np.stack([a.positions(), b.positions()]), axis=1)
        if len(np.unique(pairs[0])) == pairs.shape[1]:
            out.append((a.name, b.name))
    return out


def _placed(variable: Variable, wanted: Any) -> Variable:
    values: list[Any] = [wanted] if np.isscalar(wanted) else list(wanted)
    if not values:
        raise DataError(f"at[{variable.name!r}] is empty: name at least one value")
    if not variable.is_factor:
        try:
            numbers = tuple(float(v) for v in values)
        except (TypeError, ValueError):
            raise DataError(f"at[{variable.name!r}] must be numbers, not {values!r}") from None
        return Variable(variable.name, variable.column, numbers, variable.hidden)
    labels = tuple(v if isinstance(v, str) else _text(v) for v in values)
    unknown = [label for label in labels if label not in variable.points]
    if unknown:
        raise DataError(
            f"{variable.name} has no level {unknown[0]!r}; its levels are {', '.join(map(str, variable.points))}"
        )
    return Variable(variable.name, variable.column, labels, variable.hidden)


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(value).upper()
    return (
        format_number(float(value))
        if isinstance(value, int | float | np.integer | np.floating)
        else str(value)
    )
