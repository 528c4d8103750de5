"""Formula + data frame -> Design: y, X, random terms, weights, offset, with R's names, order and coding.

The data are read once, column by column; a pandas frame is only built when `Design.frame` is asked for.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from ..errors import DataError, DesignError, RankWarning
from ..formula.algebra import Term
from ..formula.parse import Bar, Formula, parse
from ..formula.syntax import Expr, deparse
from .align import aligned, shown
from .columns import Column, Factor, align_levels, as_factor, as_numbers, from_series
from .evaluate import Evaluator
from .frame import (
    NA_ACTIONS,
    ModelFrame,
    argument,
    complete_rows,
    frame_table,
    kept_variables,
    read_frame,
    total_offset,
    used_columns,
)
from .grouping import grouping_factor
from .matrix import Coding, make_coding
from .random import CodedTerm, RandomTerm, lme4_order, make_terms
from .rank import independent_columns
from .table import as_frame

_MOST_NAMES = 20  # of aliased columns in a warning

__all__ = ["Design", "NewRows", "RandomTerm", "build"]


@dataclass(frozen=True, slots=True)
class Design:
    """A model without parameters: all that a fit needs, row labels and names included. See `build`."""

    formula: Formula  # with '.' expanded
    y: np.ndarray  # (n,) float64
    X: np.ndarray  # (n, p) float64 of full column rank
    x_names: tuple[str, ...]  # (p,)
    x_names_full: tuple[str, ...]  # names before aliased columns were dropped
    terms: tuple[RandomTerm, ...]  # lme4's order: decreasing number of levels; () for lm
    weights: np.ndarray | None  # (n,) prior weights, None for ones
    offset: np.ndarray | None  # (n,), None for zeros
    index: pd.Index  # (n,) row labels of the rows kept
    coding: Coding  # of X, aliased columns included
    random_codings: tuple[Coding, ...]  # of the left side of each random term
    bars: tuple[Bar, ...]  # of each random term
    source: ModelFrame  # the variables on all input rows
    rows: np.ndarray | None  # (n,) positions of the rows kept among the input rows, None for all
    na_action: str  # omit | exclude | fail
    allow_saturated: bool  # whether a factor may have as many levels as rows (GLMM, known sigma)

    @property
    def n(self) -> int:
        """Rows used."""
        return len(self.y)

    @property
    def p(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    @property
    def q(self) -> int:
        """Random effects, all terms together."""
        return sum(term.q for term in self.terms)

    @property
    def n_input(self) -> int:
        """Rows of the data before any were dropped."""
        return len(self.source.index)

    @property
    def omitted(self) -> np.ndarray:
        """Positions of the input rows that are not used."""
        if self.rows is None:
            return np.empty(0, dtype=np.intp)
        return np.setdiff1d(np.arange(self.n_input), self.rows)

    @property
    def assign(self) -> tuple[int, ...]:
        """(p,) number of the fixed term of each column of X, 0 for the intercept (R's `assign`)."""
        term = dict(zip(self.coding.names, self.coding.assign, strict=True))
        return tuple(term[name] for name in self.x_names)

    def Z(self) -> sparse.csc_array:
        """Z (n, q): term after term, within a term level after level, effects fastest (lme4's order)."""
        if not self.terms:
            return sparse.csc_array((self.n, 0))
        return sparse.hstack([term.Z() for term in self.terms], format="csc")

    def frame(self) -> pd.DataFrame:
        """R's model frame of the rows used: response first, then variables in order of appearance."""
        return frame_table(self.source, self.rows)

    def with_response(self, y: object) -> "Design":
        """The same design with other values of the response, on its transformed scale; rows as in `align`."""
        values = as_numbers(from_series(self.align(y, "y"), "y"), "y, the new response,")
        if not np.isfinite(values).all():
            where = shown(self.index[int(np.argmin(np.isfinite(values)))])
            raise DataError(
                f"y, the new response, is missing or infinite in row {where}: give a number for each row"
            )
        full = np.full(self.n_input, np.nan)
        full[slice(None) if self.rows is None else self.rows] = values
        response = next(iter(self.source.variables))
        source = replace(self.source, variables={**self.source.variables, response: full})
        return _checked(replace(self, y=values, source=source))

    def take(self, rows: Sequence[int] | np.ndarray) -> "Design":
        """The design of a subset of the rows: positions 0..n-1 (repeats allowed) or a boolean mask (n,).

        Levels that no longer occur are dropped, columns of X that become aliased are dropped without a
        warning (`x_names` tells), and lme4's checks are repeated. A fixed factor that loses a level is coded
        afresh, as a refit in R does; bases such as poly() stay those of all rows. The random terms keep their
        order.
        Raises DesignError when the subset cannot be fitted. Cost O(m (p^2 + sum k)) for m rows.
        """
        picked = np.asarray(rows)
        picked = np.flatnonzero(picked) if picked.dtype == bool else picked.astype(np.intp, copy=False)
        if not len(picked):
            raise DataError("no rows are left: the subset of rows is empty")
        positions = picked if self.rows is None else self.rows[picked]
        if self._loses_level(positions):
            return _recode(self, picked, positions)
        X, names = self.X[picked], self.x_names
        kept = independent_columns(X)
        if len(kept) < X.shape[1]:
            X, names = X[:, kept], tuple(names[j] for j in kept)
        terms = tuple(term.take(picked) for term in self.terms)
        return _subset(self, picked, positions, X=X, x_names=names, terms=terms)

    def _loses_level(self, positions: np.ndarray) -> bool:
        codings = {factor.label: factor for c in (self.coding, *self.random_codings) for factor in c.factors}
        for label, factor in codings.items():
            column = as_factor(self.source.variables[label], label)
            codes = align_levels(column, factor.levels).codes[positions]
            if not column.logical and not np.bincount(codes, minlength=len(factor.levels)).all():
                return True
        return False

    def new(self, data: object, *, terms: Sequence[int] | None = None, offset: object = None) -> "NewRows":
        """The rows of `data` coded as this design is: for prediction.

        terms: positions of the random terms that are wanted (None: all); columns that only the others use may
        be absent, as may the response. offset: replaces the offset argument of the fit. Rows with missing
        values give NaN rows and code -1. Raises DataError for an absent column, a fixed level that the model
        does not know, or a column that changed between numbers and factor.
        """
        return _new_rows(self, as_frame(data), terms, offset)

    def align(self, values: object, what: str) -> pd.Series:
        """Values for the rows used (n,), from values beside the data that the user handed in or beside those rows.

        What has an index goes by its labels: those of the data (rows with missing values may be among them), or
        those of the rows used. What has none goes by position among all rows or, by its length, the rows used.
        `what` names the argument in messages. Raises DataError as `aligned` does.
        """
        if self.rows is None:
            return aligned(values, self.index, what)
        length = len(values) if isinstance(values, Sized) else None
        if length == self.n:
            return aligned(values, self.index, what)
        return aligned(values, self.source.index, what).iloc[self.rows]


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of new data in the columns of a fitted design."""

    X: np.ndarray  # (m, p), NaN where a variable is missing
    codes: tuple[
        np.ndarray, ...
    ]  # per wanted term (m,): level position, -1 where the level is new or missing
    columns: tuple[np.ndarray, ...]  # per wanted term (m, k)
    absent: tuple[np.ndarray, ...]  # per wanted term (m,): whether a variable of the group is missing
    new_levels: tuple[tuple[str, ...], ...]  # per wanted term: labels that the model does not know
    offset: np.ndarray | None  # (m,)
    index: pd.Index  # (m,)


def build(
    formula: str | Formula,
    data: pd.DataFrame,
    *,
    weights: object = None,
    offset: object = None,
    contrasts: Mapping[str, object] | None = None,
    na_action: str = "omit",
    allow_saturated: bool = False,
    response: Callable[[Column, str], np.ndarray] = as_numbers,
) -> Design:
    """The Design of `formula` over `data`, equal to what lme4's `lFormula` makes, names and order included.

    formula: text or a parsed Formula; without a bar the design is that of `lm`.
    weights, offset: array-like of length nrow(data), or the name of a column. The offset adds to offset()
    terms.
    contrasts: fixed factor -> "contr.sum", "helmert", ... or a matrix; random terms keep the default, as in
    lme4.
    na_action: "omit" and "exclude" drop rows with a missing value in a variable that is used ("exclude" lets
    fitted values be padded later), "fail" refuses them.
    allow_saturated: accept a grouping factor with as many levels as rows. Its variance is identified where there is no
    residual variance to estimate: in a GLMM without dispersion, and where sigma is known (meta-analysis).
    response: makes y (n,) of the response column and its label; other families read factors and cbind().

    Raises FormulaError; DataError (no such column, infinite values, no rows left, wrong lengths); DesignError
    (constant response, a grouping factor of one level, levels >= rows, a term with as many effects as rows).
    Warns RankWarning naming the columns of X that are aliased; they are dropped, as R does.
    Cost O(n (p^2 + sum k)) and no sort except of strings and of integers that are spread widely.
    """
    parsed = formula if isinstance(formula, Formula) else parse(formula)
    if na_action not in NA_ACTIONS:
        raise DataError(f"na_action is one of {', '.join(NA_ACTIONS)}, not {na_action!r}")
    data = as_frame(data, None if parsed.has_dot else used_columns(parsed, weights, offset))
    if parsed.has_dot:
        parsed = parsed.expand_dot(data.columns)
    if parsed.response is None:
        raise DataError("the formula has no response: write it left of '~'")
    source = read_frame(parsed, data, weights, offset, contrasts)
    rows = complete_rows(source, na_action)
    variables = kept_variables(source.variables, rows)
    y = _response(parsed.response, variables, response)
    coding, X, x_names, terms = _matrices(parsed, variables, len(y), contrasts)
    _refuse_infinite(X, x_names, source.index, rows)
    for item in terms:
        if item.term.columns is not X:
            _refuse_infinite(item.term.columns, item.term.effects, source.index, rows)
    kept = independent_columns(X)
    if len(kept) < len(x_names):
        X, x_names = _drop_aliased(X, x_names, kept)
    ordered = lme4_order(terms)
    return _checked(
        Design(
            parsed, y, X, x_names, coding.names,
            tuple(item.term for item in ordered),
            _at(source.weights, rows), _at(source.offset, rows),
            source.index if rows is None else source.index[rows],
            coding, tuple(item.coding for item in ordered), tuple(item.bar for item in ordered),
            source, rows, na_action, allow_saturated,
        )
    )  # fmt: skip


def _matrices(
    formula: Formula, variables: Mapping[str, Column], n: int, contrasts: Mapping[str, object] | None
) -> tuple[Coding, np.ndarray, tuple[str, ...], tuple[CodedTerm, ...]]:
    coding = make_coding(formula.terms, formula.intercept, variables, contrasts)
    X = coding.matrix(variables, n)
    known = {} if contrasts else {(formula.intercept, formula.terms): (coding, X)}
    return coding, X, coding.names, make_terms(formula.bars, variables, n, known)


def _at(values: np.ndarray | None, rows: np.ndarray | None) -> np.ndarray | None:
    return values if values is None or rows is None else values[rows]


def _response(
    expr: Expr, variables: Mapping[str, Column], read: Callable[[Column, str], np.ndarray]
) -> np.ndarray:
    label = deparse(expr)
    y = read(variables[label], f"the response {label}")
    if not np.isfinite(y).all():
        count = int((~np.isfinite(y)).sum())
        raise DataError(f"the response {label} is infinite in {count} row(s): drop or correct them")
    return y


def _refuse_infinite(X: np.ndarray, names: Sequence[str], index: pd.Index, rows: np.ndarray | None) -> None:
    if np.isfinite(X).all():
        return
    row, column = (int(v[0]) for v in np.nonzero(~np.isfinite(X)))
    label = shown(index[row if rows is None else rows[row]])
    raise DataError(f"column {names[column]} is {X[row, column]} in row {label}: drop or correct such rows")


def _drop_aliased(
    X: np.ndarray, names: tuple[str, ...], kept: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    chosen = set(kept.tolist())
    gone = [name for j, name in enumerate(names) if j not in chosen]
    shown = ", ".join(gone[:_MOST_NAMES]) + (", ..." if len(gone) > _MOST_NAMES else "")
    message = (
        f"X has {len(names)} columns but rank {len(kept)}: dropped {len(gone)}, linear combinations of "
        f"earlier ones: {shown}"
    )
    warnings.warn(message, RankWarning, stacklevel=3)
    return X[:, kept], tuple(names[j] for j in kept.tolist())


def _checked(design: Design) -> Design:
    """`design` with its arrays closed for writing, after lme4's checks of what can be estimated."""
    y, n = design.y, design.n
    for array in (y, design.X, *(a for term in design.terms for a in (term.codes, term.columns))):
        array.setflags(write=False)
    if design.terms and y[0] == y[-1] and (y == y[0]).all():
        label = deparse(design.formula.response) if design.formula.response is not None else ""
        raise DesignError(f"the response {label} is constant ({y[0]:g}): there is nothing to model")
    for term in design.terms:
        if term.n_levels < 2:
            raise DesignError(
                f"grouping factor {term.group} has one level ({term.labels[0]!r}) in the rows used; "
                "a random effect needs at least two"
            )
        if not design.allow_saturated and term.n_levels >= n:
            raise DesignError(
                f"grouping factor {term.group} has {term.n_levels} levels for {n} rows: its effects cannot "
                "be told from the residuals; it needs fewer levels than rows"
            )
        if not design.allow_saturated and term.q >= n and term.structure == "us" and term.n_present() >= n:
            raise DesignError(
                f"the term ({' + '.join(term.effects)} | {term.group}) has {term.n_present()} random effects for {n} "
                "rows: they cannot be told from the residuals; use fewer effects"
            )
    return design


def _subset(design: Design, picked: np.ndarray, positions: np.ndarray, **changes) -> Design:
    return _checked(
        replace(
            design,
            y=design.y[picked],
            weights=_at(design.weights, picked),
            offset=_at(design.offset, picked),
            index=design.index[picked],
            rows=positions,
            **changes,
        )
    )


def _recode(design: Design, picked: np.ndarray, positions: np.ndarray) -> Design:
    variables = kept_variables(design.source.variables, positions)
    formula = replace(design.formula, bars=design.bars)
    coding, X, names, terms = _matrices(formula, variables, len(picked), design.source.contrasts)
    kept = independent_columns(X)
    return _subset(
        replace(design, coding=coding, random_codings=tuple(item.coding for item in terms)),
        picked,
        positions,
        X=X[:, kept],
        x_names=tuple(names[j] for j in kept),
        x_names_full=names,
        terms=tuple(item.term for item in terms),
    )


def _new_rows(design: Design, data: pd.DataFrame, wanted: Sequence[int] | None, offset: object) -> NewRows:
    evaluator = Evaluator(data, design.source.memory)
    X = _new_block(design.coding, design.formula.terms, evaluator)
    position = {name: j for j, name in enumerate(design.coding.names)}
    X = X[:, [position[name] for name in design.x_names]]
    codes, columns, absent, unknown = [], [], [], []
    for i in range(len(design.terms)) if wanted is None else wanted:
        bar = design.bars[i]
        columns.append(_new_block(design.random_codings[i], bar.terms, evaluator, bar.made_of))
        matched, present, new = _new_codes(bar, design.terms[i], evaluator)
        codes.append(matched)
        absent.append(~present)
        unknown.append(new)
    offsets = {deparse(call): evaluator.variable(call) for call in design.formula.offsets}
    total = total_offset(design.formula, offsets, argument(offset, data, "offset"))
    return NewRows(X, tuple(codes), tuple(columns), tuple(absent), tuple(unknown), total, data.index)


def _new_block(
    coding: Coding, terms: Sequence[Term], evaluator: Evaluator, groups: tuple[Expr, ...] = ()
) -> np.ndarray:
    columns: dict[str, Column] = {}
    for label, variable in {deparse(v): v for term in terms for v in term}.items():
        column = evaluator.variable(variable)
        columns[label] = as_factor(column, label) if variable in groups else column
    return coding.matrix(columns, evaluator.n)


def _new_codes(
    bar: Bar, term: RandomTerm, evaluator: Evaluator
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Level of each row (-1: new or missing), whether the group is there, and labels of the new levels."""
    factors = [as_factor(evaluator.variable(factor), deparse(factor)) for factor in bar.made_of]
    present = np.logical_and.reduce([f.codes >= 0 for f in factors])
    found, levels = grouping_factor([Factor(f.codes[present], f.levels) for f in factors])
    position = {key: i for i, key in enumerate(term.grouping.keys())}
    found_keys = levels.keys()
    lookup = np.array([position.get(key, -1) for key in found_keys], dtype=np.intp)
    codes = np.full(evaluator.n, -1, dtype=np.intp)
    if len(lookup):
        codes[present] = lookup[found]
    return codes, present, tuple(levels.labels[lookup < 0].tolist())
