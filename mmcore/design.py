"""Formula + data frame -> Design: y, X, random terms, weights, offset, with R's names, order and coding.

The data are read once, column by column; a pandas frame is only built when `Design.frame` is asked for.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from mmcore.columns import Column, Factor, Matrix, as_factor, drop_unused, from_series, is_missing, take_rows, to_pandas
from mmcore.errors import DataError, DesignError, MixedModelWarning, RankWarning, UnsupportedError
from mmcore.formula import Bar, Formula, Term, parse
from mmcore.grouping import grouping_factor
from mmcore.modelmatrix import Coding, make_coding
from mmcore.rank import independent_columns
from mmcore.syntax import Expr, Name, deparse, parse_expression
from mmcore.transforms import Evaluator

NaAction = Literal["omit", "exclude", "fail"]
NA_ACTIONS = ("omit", "exclude", "fail")


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term: rows i have the effects `columns[i]` of level `codes[i]`."""

    group: str  # lme4's name of the factor: "Subject", "cask:batch"
    levels: np.ndarray  # (L,) object array of str, R's level order, only levels that occur
    codes: np.ndarray  # (n,) intp in 0..L-1
    effects: tuple[str, ...]  # (k,) R's column names of the left side
    columns: np.ndarray  # (n, k) float64, model matrix of the left side
    structure: str  # us | diag | cs | ar1; a single effect is always us
    homogeneous: bool  # one variance for all effects

    @property
    def n_levels(self) -> int:
        """L, the number of levels."""
        return len(self.levels)

    @property
    def n_effects(self) -> int:
        """k, the number of effects per level."""
        return len(self.effects)

    @property
    def q(self) -> int:
        """L k, the number of random effects of this term."""
        return len(self.levels) * len(self.effects)


@dataclass(frozen=True, slots=True)
class ModelFrame:
    """Variables of the model on all input rows, and what prediction must repeat."""

    variables: Mapping[str, Column]  # label -> column, R's model-frame order, response first
    weights: np.ndarray | None  # (n_input,) or None
    offset: np.ndarray | None  # (n_input,) sum of the offset argument and offset() terms, or None
    has_offset_argument: bool
    memory: dict[str, object]  # fitted bases and levels of the training data
    contrasts: Mapping[str, object] | None
    index: pd.Index  # row labels of the input


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
    random_codings: tuple[Coding, ...]  # of each random term
    bars: tuple[Bar, ...]  # of each random term
    source: ModelFrame
    rows: np.ndarray | None  # (n,) positions of the rows kept among the input rows, None for all
    na_action: str  # omit | exclude | fail
    allow_saturated: bool  # whether a factor may have as many levels as rows (GLMM)

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
        """Positions of the input rows that were dropped."""
        if self.rows is None:
            return np.empty(0, dtype=np.intp)
        return np.setdiff1d(np.arange(self.n_input), self.rows)

    @property
    def assign(self) -> tuple[int, ...]:
        """(p,) number of the fixed term of each column of X, 0 for the intercept (R's `assign`)."""
        position = {name: a for name, a in zip(self.coding.names, self.coding.assign, strict=True)}
        return tuple(position[name] for name in self.x_names)

    def Z(self) -> sparse.csc_array:
        """Z (n, q): term after term, within a term level after level, effects fastest (lme4's order)."""
        if not self.terms:
            return sparse.csc_array((self.n, 0))
        return sparse.hstack([_term_Z(term) for term in self.terms], format="csc")

    def frame(self) -> pd.DataFrame:
        """R's model frame of the rows used: response first, then variables in order of appearance."""
        columns: dict[str, pd.Series] = {}
        for label, column in self.source.variables.items():
            kept = column if self.rows is None else take_rows(column, self.rows)
            kept = drop_unused(kept) if isinstance(kept, Factor) else kept
            columns |= to_pandas(kept, label, self.index)
        if self.weights is not None:
            columns["(weights)"] = pd.Series(self.weights, index=self.index)
        if self.source.has_offset_argument:
            columns["(offset)"] = pd.Series(self.offset, index=self.index)
        return pd.DataFrame(columns, index=self.index)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Design":
        """The design of a subset of the rows: positions 0..n-1 (repeats allowed) or a boolean mask (n,).

        Levels that no longer occur are dropped, the rank of X is looked at again, and lme4's checks are repeated.
        Bases such as poly() stay those of all rows. A fixed factor that loses a level is coded afresh, as
        refitting in R does. The order of the random terms is kept, whatever the new numbers of levels are.
        Raises DesignError when the subset cannot be fitted. Cost O(m (p + sum k)) for m rows.
        """
        picked = np.asarray(rows)
        picked = np.flatnonzero(picked) if picked.dtype == bool else picked.astype(np.intp, copy=False)
        if not len(picked):
            raise DataError("no rows are left: the subset of rows is empty")
        positions = picked if self.rows is None else self.rows[picked]
        if self._loses_level(positions):
            return _recode(self, picked, positions)
        X = self.X[picked]
        kept = independent_columns(X)
        names = self.x_names
        if len(kept) < X.shape[1]:
            X, names = X[:, kept], tuple(names[j] for j in kept)
        terms = tuple(_take_term(term, picked) for term in self.terms)
        return _checked(_subset(self, picked, positions, X=X, x_names=names, terms=terms))

    def _loses_level(self, positions: np.ndarray) -> bool:
        seen: set[str] = set()
        for coding in (self.coding, *self.random_codings):
            for factor in coding.factors:
                if factor.label in seen:
                    continue
                seen.add(factor.label)
                column = _aligned(self.source.variables[factor.label], factor.levels)
                if not column.logical and not np.bincount(column.codes[positions], minlength=len(factor.levels)).all():
                    return True
        return False

    def new(self, data: pd.DataFrame, *, terms: Sequence[int] | None = None, offset: object = None) -> "NewRows":
        """The rows of `data` coded as this design is: for prediction.

        `terms` names the random terms that are wanted by position (None: all); columns that only the others use may
        be absent, as may the response. Rows with missing values give NaN rows and code -1; `offset` replaces the
        offset argument of the fit. Raises DataError for an absent column or a fixed level that the model does not know.
        """
        return _new_rows(self, data, terms, offset)


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of new data in the columns of a fitted design."""

    X: np.ndarray  # (m, p), NaN where a variable is missing
    codes: tuple[np.ndarray, ...]  # per wanted term (m,): level position, -1 for a level that is new or missing
    columns: tuple[np.ndarray, ...]  # per wanted term (m, k)
    new_levels: tuple[tuple[str, ...], ...]  # per wanted term: labels the model does not know
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
) -> Design:
    """The Design of `formula` over `data`, equal to what lme4's `lFormula` makes, names and order included.

    formula: text or a parsed Formula; without a bar the design is that of `lm`.
    weights, offset: array-like of length nrow(data), or the name of a column. The offset adds to offset() terms.
    contrasts: fixed factor -> "contr.sum", "helmert", ... or a matrix; random terms keep the default, as in lme4.
    na_action: "omit" and "exclude" drop rows with a missing value in a variable that is used ("exclude" lets fitted
    values be padded later), "fail" refuses them.
    allow_saturated: accept a grouping factor with as many levels as rows (only meaningful without a residual).

    Raises FormulaError; DataError (no such column, infinite values, no rows left, wrong lengths); DesignError
    (constant response, a grouping factor of one level, levels >= rows, a term with as many effects as rows).
    Warns RankWarning naming the columns of X that are aliased; they are dropped, as R does.
    Cost O(n (p^2 + sum k)) and no sort except of strings and wide integers.
    """
    parsed = parse(formula) if isinstance(formula, str) else formula
    data = data if isinstance(data, pd.DataFrame) else _as_frame(data)
    if na_action not in NA_ACTIONS:
        raise DataError(f"na_action is one of {', '.join(NA_ACTIONS)}, not {na_action!r}")
    if parsed.has_dot:
        parsed = parsed.expand_dot(data.columns)
    if parsed.response is None:
        raise DataError("the formula has no response: write it left of '~'")
    source = _read_source(parsed, data, weights, offset, contrasts)
    rows = _complete_rows(source, na_action)
    variables = _kept_variables(source.variables, rows)
    y = _response(parsed.response, variables)
    n = len(y)
    coding = make_coding(parsed.terms, parsed.intercept, variables, contrasts)
    X = coding.matrix(variables, n)
    _refuse_infinite(X, coding.names, source.index, rows)
    kept = independent_columns(X)
    x_names = coding.names
    if len(kept) < len(x_names):
        X, x_names = _drop_aliased(X, x_names, kept)
    terms, codings, bars = _random_terms(parsed, variables, n, coding, X if contrasts is None else None)
    for term in terms:
        _refuse_infinite(term.columns, term.effects, source.index, rows)
    design = Design(
        parsed, y, X, x_names, coding.names, terms,
        source.weights if rows is None or source.weights is None else source.weights[rows],
        source.offset if rows is None or source.offset is None else source.offset[rows],
        source.index if rows is None else source.index[rows],
        coding, codings, bars, source, rows, na_action, allow_saturated,
    )  # fmt: skip
    return _checked(design)


def _as_frame(data: object) -> pd.DataFrame:
    if isinstance(data, Mapping):
        return pd.DataFrame(data)
    raise DataError(f"data must be a pandas DataFrame or a mapping of columns, not {type(data).__name__}")


def _read_source(formula: Formula, data: pd.DataFrame, weights, offset, contrasts) -> ModelFrame:
    evaluator = Evaluator(data)
    variables = {deparse(v): evaluator.variable(v) for v in formula.frame_variables}
    for name in contrasts or ():
        if name not in variables:
            raise DataError(f"contrasts are given for {name!r}, which is not a variable of the formula")
    prior = _argument(weights, data, "weights")
    if prior is not None and (prior < 0).any():
        raise DataError(f"weights must not be negative: row {data.index[int(np.argmax(prior < 0))]!r} has {prior.min()}")
    extra = _argument(offset, data, "offset")
    total = extra
    for call in formula.offsets:
        part = _numbers(variables[deparse(call)], deparse(call))
        total = part if total is None else total + part
    for values, what in ((prior, "weights"), (total, "offset")):
        if values is not None and np.isinf(values).any():
            raise DataError(f"{what} is infinite in row {data.index[int(np.argmax(np.isinf(values)))]!r}: drop the row")
    return ModelFrame(variables, prior, total, extra is not None, evaluator.memory, contrasts, data.index)


def _argument(value: object, data: pd.DataFrame, what: str) -> np.ndarray | None:
    if value is None:
        return None
    if isinstance(value, str):
        name = value if value in data.columns else None
        column = Evaluator(data).variable(Name(name) if name is not None else parse_expression(value))
        return _numbers(column, f"{what} {value!r}")
    values = from_series(value if isinstance(value, pd.Series) else pd.Series(np.asarray(value)), what)
    if len(values) != len(data):  # type: ignore[arg-type]
        raise DataError(f"{what} has {len(values)} values for {len(data)} rows of data")  # type: ignore[arg-type]
    return _numbers(values, what)


def _numbers(column: Column, what: str) -> np.ndarray:
    if isinstance(column, Factor) and column.logical:
        return np.where(column.codes < 0, np.nan, column.codes.astype(np.float64))
    if isinstance(column, Factor):
        levels = ", ".join(column.levels[:5])
        raise DataError(f"{what} is not numeric: it is a factor with levels {levels}{', ...' if len(column.levels) > 5 else ''}")
    if isinstance(column, Matrix):
        if column.values.shape[1] != 1:
            raise UnsupportedError(f"{what} has {column.values.shape[1]} columns; a single column is needed")
        return column.values[:, 0]
    return column.astype(np.float64, copy=False)


def _complete_rows(source: ModelFrame, na_action: str) -> np.ndarray | None:
    """Positions of the rows without missing values, None when there are no others."""
    missing: np.ndarray | None = None
    offenders: list[str] = []
    extras = {"weights": source.weights, "offset": source.offset}
    for label, column in [*source.variables.items(), *extras.items()]:
        mask = None if column is None else is_missing(column)
        if mask is not None:
            offenders.append(f"{label} ({int(mask.sum())})")
            missing = mask if missing is None else missing | mask
    if missing is None:
        if not len(source.index):
            raise DataError("the data have no rows")
        return None
    if na_action == "fail":
        raise DataError(f"missing values in {', '.join(offenders)}: drop these rows or use na_action='omit'")
    rows = np.flatnonzero(~missing)
    if not len(rows):
        raise DataError(f"no rows are left: every row has a missing value in one of {', '.join(offenders)}")
    return rows


def _kept_variables(variables: Mapping[str, Column], rows: np.ndarray | None) -> dict[str, Column]:
    kept: dict[str, Column] = {}
    for label, column in variables.items():
        if rows is not None:
            column = take_rows(column, rows)
        if isinstance(column, Factor):
            column = _without_unused(column, label)
        kept[label] = column
    return kept


def _without_unused(column: Factor, label: str) -> Factor:
    dropped = drop_unused(column)
    if dropped is not column and column.contrasts is not None:
        warnings.warn(f"contrasts of {label} are reset: some of its levels do not occur", MixedModelWarning, stacklevel=4)
    return dropped


def _response(expr: Expr, variables: Mapping[str, Column]) -> np.ndarray:
    label = deparse(expr)
    y = _numbers(variables[label], f"the response {label}")
    if not np.isfinite(y).all():
        raise DataError(f"the response {label} is infinite in {int(np.isinf(y).sum())} row(s): drop or correct them")
    return y


def _refuse_infinite(X: np.ndarray, names: Sequence[str], index: pd.Index, rows: np.ndarray | None) -> None:
    if np.isfinite(X).all():
        return
    row, column = (int(v[0]) for v in np.nonzero(~np.isfinite(X)))
    label = index[row if rows is None else rows[row]]
    raise DataError(f"column {names[column]} is {X[row, column]} in row {label!r}: drop or correct such rows")


def _drop_aliased(X: np.ndarray, names: tuple[str, ...], kept: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    chosen = set(kept.tolist())
    gone = [name for j, name in enumerate(names) if j not in chosen]
    message = (
        f"X has {len(names)} columns but rank {len(kept)}: dropped {', '.join(gone)}, "
        "each a linear combination of earlier columns"
    )
    warnings.warn(message, RankWarning, stacklevel=3)
    return X[:, kept], tuple(names[j] for j in kept.tolist())


def _random_terms(formula: Formula, variables: Mapping[str, Column], n: int, fixed: Coding, X: np.ndarray | None):
    """(terms, codings, bars) in lme4's order. X, where its coding is the default one, is shared with equal left sides."""
    groups: dict[tuple[str, ...], tuple[Factor, np.ndarray, np.ndarray]] = {}
    sides: dict[tuple, tuple[Coding, np.ndarray]] = {}
    if X is not None and X.shape[1] == len(fixed.names):
        sides[formula.intercept, formula.terms] = fixed, X
    made = []
    for bar in formula.bars:
        if bar.factors not in groups:
            groups[bar.factors] = _group(bar.factors, variables)
        key = (bar.intercept, bar.terms)
        coded = sides.get(key)
        if coded is None or set(bar.factors) & set(coded[0].variables):
            coded = _left_side(bar, variables, n)
            sides.setdefault(key, coded)
        made.append((_random_term(bar, groups[bar.factors], coded), coded[0], bar))
    ordered = _lme4_order(made)
    return tuple(t for t, _, _ in ordered), tuple(c for _, c, _ in ordered), tuple(b for _, _, b in ordered)


def _group(factors: tuple[str, ...], variables: Mapping[str, Column]) -> tuple[np.ndarray, np.ndarray]:
    made = grouping_factor([as_factor(variables[deparse(Name(name))], name) for name in factors])
    levels = np.empty(len(made.levels), dtype=object)
    levels[:] = made.levels
    return made.codes.astype(np.intp, copy=False), levels


def _left_side(bar: Bar, variables: Mapping[str, Column], n: int) -> tuple[Coding, np.ndarray]:
    used = {deparse(v): variables[deparse(v)] for term in bar.terms for v in term}
    for name in bar.factors:
        label = deparse(Name(name))
        if label in used:
            used[label] = drop_unused(as_factor(used[label], name))
    coding = make_coding(bar.terms, bar.intercept, used)
    return coding, coding.matrix(used, n)


def _random_term(bar: Bar, group: tuple[np.ndarray, np.ndarray], side: tuple[Coding, np.ndarray]) -> RandomTerm:
    codes, levels = group
    coding, columns = side
    structure = bar.structure if len(coding.names) > 1 else "us"
    return RandomTerm(bar.group, levels, codes, coding.names, columns, structure, bool(bar.homogeneous))


def _lme4_order(made: list) -> list:
    """Decreasing number of levels; when anything has to move, lme4 also reverses ties."""
    sizes = [item[0].n_levels for item in made]
    if all(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        return made
    return sorted(made, key=lambda item: item[0].n_levels)[::-1]


def _checked(design: Design) -> Design:
    """lme4's checks of what can be estimated."""
    n, y = design.n, design.y
    if y[0] == y[-1] and (y == y[0]).all():
        raise DesignError(f"the response {deparse(design.formula.response)} is constant ({y[0]:g}): there is nothing to model")  # type: ignore[arg-type]
    for term in design.terms:
        if term.n_levels < 2:
            raise DesignError(
                f"grouping factor {term.group} has one level ({term.levels[0]!r}) in the rows used; a random effect "
                "needs at least two"
            )
        if design.allow_saturated:
            continue
        if term.n_levels >= n:
            raise DesignError(
                f"grouping factor {term.group} has {term.n_levels} levels for {n} rows: its effects cannot be told "
                "from the residuals; it needs fewer levels than rows"
            )
        if term.q >= n:
            raise DesignError(
                f"the term ({' + '.join(term.effects)} | {term.group}) has {term.q} random effects for {n} rows: they "
                "cannot be told from the residuals; use fewer effects"
            )
    return design


def _term_Z(term: RandomTerm) -> sparse.csr_array:
    n, k = term.columns.shape
    columns = (term.codes[:, None] * k + np.arange(k)).ravel()
    return sparse.csr_array((term.columns.ravel(), columns, np.arange(0, n * k + 1, k)), shape=(n, term.q))


def _take_term(term: RandomTerm, rows: np.ndarray) -> RandomTerm:
    codes = term.codes[rows]
    levels = term.levels
    counts = np.bincount(codes, minlength=len(levels))
    if not counts.all():
        used = counts > 0
        codes, levels = (np.cumsum(used) - 1)[codes], levels[used]
    return replace(term, codes=codes, levels=levels, columns=term.columns[rows])


def _subset(design: Design, picked: np.ndarray, positions: np.ndarray, **changes) -> Design:
    return replace(
        design,
        y=design.y[picked],
        weights=None if design.weights is None else design.weights[picked],
        offset=None if design.offset is None else design.offset[picked],
        index=design.index[picked],
        rows=positions,
        **changes,
    )


def _recode(design: Design, picked: np.ndarray, positions: np.ndarray) -> Design:
    variables = _kept_variables(design.source.variables, positions)
    formula, n = design.formula, len(picked)
    coding = make_coding(formula.terms, formula.intercept, variables, design.source.contrasts)
    X = coding.matrix(variables, n)
    kept = independent_columns(X)
    terms = []
    codings = []
    for bar in design.bars:
        side = _left_side(bar, variables, n)
        terms.append(_random_term(bar, _group(bar.factors, variables), side))
        codings.append(side[0])
    return _checked(
        _subset(
            design, picked, positions,
            X=X[:, kept], x_names=tuple(coding.names[j] for j in kept), x_names_full=coding.names,
            terms=tuple(terms), coding=coding, random_codings=tuple(codings),
        )
    )  # fmt: skip


def _aligned(column: Column, levels: tuple[str, ...]) -> Factor:
    from mmcore.transforms import align_levels

    assert isinstance(column, Factor)
    return align_levels(column, levels)


def _new_rows(design: Design, data: pd.DataFrame, wanted: Sequence[int] | None, offset: object) -> NewRows:
    data = data if isinstance(data, pd.DataFrame) else _as_frame(data)
    evaluator = Evaluator(data, design.source.memory)
    chosen = range(len(design.terms)) if wanted is None else wanted
    X = _new_block(design.coding, design.formula.terms, evaluator)
    position = {name: j for j, name in enumerate(design.coding.names)}
    X = X[:, [position[name] for name in design.x_names]] if X.shape[1] > design.p else X
    codes, columns, unknown = [], [], []
    for i in chosen:
        bar, term = design.bars[i], design.terms[i]
        columns.append(_new_block(design.random_codings[i], bar.terms, evaluator, bar.factors))
        matched, new = _new_codes(bar, term, evaluator)
        codes.append(matched)
        unknown.append(new)
    total = _argument(offset, data, "offset")
    for call in design.formula.offsets:
        part = _numbers(evaluator.variable(call), deparse(call))
        total = part if total is None else total + part
    return NewRows(X, tuple(codes), tuple(columns), tuple(unknown), total, data.index)


def _new_block(coding: Coding, terms: Sequence[Term], evaluator: Evaluator, groups: tuple[str, ...] = ()) -> np.ndarray:
    columns: dict[str, Column] = {}
    for variable in {deparse(v): v for term in terms for v in term}.values():
        column = evaluator.variable(variable)
        label = deparse(variable)
        columns[label] = as_factor(column, label) if type(variable) is Name and variable.id in groups else column
    return coding.matrix(columns, evaluator.n)


def _new_codes(bar: Bar, term: RandomTerm, evaluator: Evaluator) -> tuple[np.ndarray, tuple[str, ...]]:
    factors = [as_factor(evaluator.column(name), name) for name in bar.factors]
    present = np.all([f.codes >= 0 for f in factors], axis=0)
    group = grouping_factor([replace(f, codes=f.codes[present]) for f in factors])
    position = {level: i for i, level in enumerate(term.levels.tolist())}
    lookup = np.array([position.get(level, -1) for level in group.levels], dtype=np.intp)
    codes = np.full(evaluator.n, -1, dtype=np.intp)
    codes[present] = lookup[group.codes] if len(lookup) else -1
    return codes, tuple(level for level in group.levels if level not in position)
