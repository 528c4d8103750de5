"""Fits from partitions: data that never stand in memory as a whole, reduced to what the criterion needs.

A model sees its rows only through cross-products, and these add up over partitions. Rows that share the levels of
all grouping factors are a *cell*; the Gram matrix of [Z-columns, X, y] over a cell says all there is to know of its
rows, and a square root of it is a handful of rows that give the same products. Two passes: one for the levels, one
for the cells. Memory is O(cells), independent of the number of rows: for one factor or nested ones the number of
cells is the number of levels; for crossed ones it is the number of combinations that occur.

Columns of X are whitened and y is centred with estimates from a sample of rows before Gram matrices are formed, so
that their condition numbers are not squared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..design.build import Design, build
from ..design.columns import Factor, as_factor, as_numbers, from_series
from ..design.evaluate import Evaluator
from ..design.grouping import grouping_factor
from ..design.random import RandomTerm
from ..design.table import as_frame, is_table
from ..errors import DataError, DesignError, UnsupportedError
from ..formula.parse import Bar, Formula, parse
from ..formula.syntax import Name, deparse
from ..kernels.products import CrossProducts, cross_products

__all__ = ["Cells", "chunked_products", "is_chunked", "read_chunks"]

SAMPLE_ROWS = 2_000  # rows of the first partitions from which coding and scales are taken
BATCH_ROWS = 500_000  # rows of a Parquet file read at a time

Frames = Callable[[], Iterator[pd.DataFrame]]


@dataclass(frozen=True, slots=True)
class Cells:
    """Gram matrices of the rows of each combination of levels."""

    keys: np.ndarray  # (c,) int64, sorted: mixed-radix number of the levels of all factors
    grams: np.ndarray  # (c, d, d) sums of r r' over the rows of the cell, r = (Z-columns, X, y)
    n: int  # rows
    sum_log_w: float

    def plus(self, other: Cells) -> Cells:
        """The cells of both sets of rows."""
        keys = np.union1d(self.keys, other.keys)
        grams = np.zeros((len(keys), *self.grams.shape[1:]))
        for part in (self, other):
            grams[np.searchsorted(keys, part.keys)] += part.grams
        return Cells(keys, grams, self.n + other.n, self.sum_log_w + other.sum_log_w)


def is_chunked(data: Any) -> bool:
    """Whether data come in partitions: a Parquet path, a Dask DataFrame, a callable or an iterable of frames."""
    if hasattr(data, "to_delayed"):
        return True
    if isinstance(data, Mapping | pd.Series) or is_table(data):
        return False
    return isinstance(data, str | Path) or callable(data) or isinstance(data, Iterable)


def read_chunks(source: Any, columns: Sequence[str]) -> Frames:
    """A function that begins a new pass over the partitions.

    Raises DataError for a missing file, a generator (it can be read only once) or something that is no frame.
    """
    if isinstance(source, str | Path):
        return _parquet(Path(source), columns)
    if callable(source):
        return lambda: (as_frame(part) if is_table(part) else part for part in source())
    if isinstance(source, Iterator):
        raise DataError("partitions are read twice, which a generator cannot give: pass a list or a function")
    return lambda: (as_frame(part) if is_table(part) else part for part in source)


def _parquet(path: Path, columns: Sequence[str]) -> Frames:
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UnsupportedError(
            "reading a Parquet file needs pyarrow: pip install 'mmparity[parquet]'"
        ) from None

    def frames() -> Iterator[pd.DataFrame]:
        file = _opened(path)
        wanted = [c for c in columns if c in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            yield batch.to_pandas()

    return frames


def _opened(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{str(path)!r} is not a Parquet file, the only kind that is read in parts: read it first, as with "
            "pandas.read_csv, and pass the frame"
        ) from error


@dataclass(frozen=True, slots=True)
class _Plan:
    """What each partition is reduced by; small, so that it can be sent to workers."""

    formula: Formula
    template: Design  # of a sample of rows: coding of the fixed part and of the effects
    levels: dict[str, tuple[str, ...]]  # factor column -> all its levels, in R's order
    values: dict[str, np.ndarray]  # grouping column -> its levels in the user's type
    dtypes: dict[str, Any]  # factor column -> the dtype that gives every partition the same levels
    groups: tuple[tuple[str, ...], ...]  # columns of each distinct grouping factor
    weights: str | None
    offset: str | None
    R: np.ndarray  # (p, p) upper: X R^-1 has orthonormal columns in the sample
    beta: np.ndarray  # (p,) least squares in the sample


def chunked_products(
    formula: str, source: Any, *, weights: str | None, offset: str | None, contrasts: Any
) -> tuple[Design, CrossProducts]:
    """The cross-products of a model over partitions, and a Design that carries names, levels and pseudo-rows.

    ``weights`` and ``offset`` are column names. Bases that depend on all data (poly, ns, bs, scale) are refused,
    and X must have full rank. Rows with missing values are left out. The pseudo-rows of the design reproduce all
    products; they are not data, so fitted values and residuals do not exist.
    """
    parsed = parse(formula)
    if parsed.has_dot:
        raise UnsupportedError("'.' needs all columns at once: write the columns of the formula out")
    for name, value in (("weights", weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise UnsupportedError(f"{name} of partitioned data is the name of a column")
    needed = [*parsed.variables, *(c for c in (weights, offset) if c is not None)]
    dask = hasattr(source, "to_delayed")
    frames = (lambda: (part.compute() for part in source.partitions)) if dask else read_chunks(source, needed)
    plan = _plan(parsed, frames, weights, offset, contrasts)
    return _assemble(plan, _reduce(plan, source, frames, dask))


def _reduce(plan: _Plan, source: Any, frames: Frames, dask: bool) -> Cells:
    if dask:  # the cluster reduces its partitions; only cells travel
        from dask import compute, delayed

        parts: Iterable[Cells] = compute(*[delayed(_cells)(plan, part) for part in source.to_delayed()])
    else:
        parts = (_cells(plan, part) for part in frames())
    total: Cells | None = None
    for cells in parts:
        total = cells if total is None else total.plus(cells)
    if total is None or not total.n:
        raise DataError("the partitions have no complete rows")
    return total


# --- first pass: levels, coding, scales --------------------------------------------------------------------------


def _plan(formula: Formula, frames: Frames, weights: str | None, offset: str | None, contrasts: Any) -> _Plan:
    grouping = {name for bar in formula.bars for name in _names(bar)}
    seen: dict[str, dict[str, Any]] = {}  # column -> level as text -> as the user has it
    ordered: dict[str, bool] = {}
    sorted_levels: set[str] = set()
    sample: list[pd.DataFrame] = []
    rows = 0
    for part in frames():
        if not isinstance(part, pd.DataFrame):
            raise DataError(f"a partition is a {type(part).__name__}, not a frame")
        new = pd.Series(False, index=range(len(part)))
        for name in formula.variables:
            if name not in part.columns:
                raise DataError(
                    f"a partition has no column {name!r}; its columns: {', '.join(map(str, part.columns))}"
                )
            column = from_series(part[name], name)
            if name in grouping or isinstance(column, Factor):
                factor = column if isinstance(column, Factor) else as_factor(column, name)
                if not isinstance(part[name].dtype, pd.CategoricalDtype):
                    sorted_levels.add(name)
                ordered[name] = factor.ordered
                known = seen.setdefault(name, {})
                fresh = [level for level in factor.levels if level not in known]
                typed = factor.levels if factor.values is None else factor.values.tolist()
                known.update(
                    {level: v for level, v in zip(factor.levels, typed, strict=True) if level in fresh}
                )
                if fresh and name not in grouping:  # the coding must have seen a row of every fixed level
                    wanted = np.isin(factor.codes, [factor.levels.index(level) for level in fresh])
                    new |= wanted
        take = new.to_numpy().copy()
        take[: max(0, SAMPLE_ROWS - rows)] = True
        sample.append(part[take])
        rows += len(part)
    if not rows:
        raise DataError("there are no partitions, or they have no rows")
    levels = {name: _ordered(list(found), name in sorted_levels) for name, found in seen.items()}
    values = {name: _objects([seen[name][level] for level in found]) for name, found in levels.items()}
    dtypes = {name: pd.CategoricalDtype(found, ordered=ordered[name]) for name, found in levels.items()}
    return _with_template(
        formula, pd.concat(sample, ignore_index=True), levels, values, dtypes, weights, offset, contrasts
    )


def _names(bar: Bar) -> tuple[str, ...]:
    """Columns that make up the group of a term."""
    for factor in bar.made_of:
        if not isinstance(factor, Name):
            raise UnsupportedError(
                f"{deparse(factor)} as a group of partitioned data: make it a column of its own"
            )
    return tuple(factor.id for factor in bar.made_of if isinstance(factor, Name))


def _objects(items: list[Any]) -> np.ndarray:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def _ordered(levels: list[str], by_value: bool) -> tuple[str, ...]:
    """Levels in R's order: as the categories came, or sorted, numbers by value and text by code point."""
    if not by_value:
        return tuple(levels)
    try:
        return tuple(sorted(levels, key=float))
    except ValueError:
        return tuple(sorted(levels))


def _with_template(
    formula: Formula, sample: pd.DataFrame, levels: dict[str, tuple[str, ...]],
    values: dict[str, np.ndarray], dtypes: dict[str, Any], weights: str | None, offset: str | None, contrasts: Any,
) -> _Plan:  # fmt: skip
    frame = _typed(sample, dtypes)
    template = build(formula, frame, offset=offset, contrasts=contrasts, allow_saturated=True)
    if any(kind == "call" for kind, _ in template.source.memory):
        raise UnsupportedError(
            "poly(), ns(), bs() and scale() depend on all rows at once: add their columns to the data"
        )
    if template.x_names != template.x_names_full:
        gone = [n for n in template.x_names_full if n not in template.x_names]
        raise DesignError(
            f"X must have full rank over partitions, but {', '.join(gone)} is a combination of others"
        )
    products = cross_products(replace(template, terms=(), weights=None))
    groups = tuple(dict.fromkeys(_names(bar) for bar in template.bars))
    return _Plan(
        formula,
        template,
        levels,
        values,
        dtypes,
        groups,
        weights,
        offset,
        products.R,
        products.beta(np.zeros(template.p)),
    )


def _typed(part: pd.DataFrame, dtypes: Mapping[str, Any]) -> pd.DataFrame:
    """A partition whose factor columns have the levels of all partitions."""
    out = part.reset_index(drop=True).copy()
    for name, dtype in dtypes.items():
        factor = as_factor(from_series(part[name], name), name)
        codes = dtype.categories.get_indexer(list(factor.levels))
        values = np.where(factor.codes >= 0, codes[factor.codes], -1)
        out[name] = pd.Categorical.from_codes(values, dtype=dtype)
    return out


# --- second pass: cells ------------------------------------------------------------------------------------------


def _cells(plan: _Plan, part: pd.DataFrame) -> Cells:
    """The cells of one partition."""
    data = _typed(part, plan.dtypes)
    design = plan.template
    found = design.new(data, offset=plan.offset)
    response = plan.formula.response
    assert response is not None
    y = as_numbers(Evaluator(data).variable(response), "the response").astype(float)
    if found.offset is not None:
        y = y - found.offset
    w = (
        None
        if plan.weights is None
        else as_numbers(from_series(data[plan.weights], plan.weights), plan.weights)
    )
    if w is not None and (w <= 0).any():
        raise DataError(
            f"weights of partitioned data must be positive; {plan.weights!r} has {float(w.min())}"
        )
    rows = np.column_stack([*found.columns, np.linalg.solve(plan.R.T, found.X.T).T, y - found.X @ plan.beta])
    codes = {
        name: data[name].cat.codes.to_numpy().astype(np.int64) for group in plan.groups for name in group
    }
    keep = ~np.isnan(rows).any(axis=1) if w is None else ~(np.isnan(rows).any(axis=1) | np.isnan(w))
    keep &= np.all([c >= 0 for c in codes.values()], axis=0)
    if np.isinf(rows[keep]).any():
        raise DataError("a variable of the model is infinite in a partition: drop those rows")
    rows, sum_log_w = rows[keep], 0.0
    if w is not None:
        rows, sum_log_w = rows * np.sqrt(w[keep])[:, None], float(np.log(w[keep]).sum())
    key = np.zeros(len(rows), dtype=np.int64)
    for name in _radix(plan):
        key = key * len(plan.levels[name]) + codes[name][keep]
    keys, cell = np.unique(key, return_inverse=True)
    d = rows.shape[1]
    grams = np.empty((len(keys), d, d))
    for i in range(d):
        for j in range(i + 1):
            grams[:, i, j] = grams[:, j, i] = np.bincount(cell, rows[:, i] * rows[:, j], len(keys))
    return Cells(keys, grams, len(rows), sum_log_w)


def _radix(plan: _Plan) -> tuple[str, ...]:
    """Factor columns in the order of their digits in a key."""
    names = tuple(dict.fromkeys(name for group in plan.groups for name in group))
    size = 1.0
    for name in names:
        size *= len(plan.levels[name])
    if size >= 2.0**63:
        raise UnsupportedError(f"the factors {', '.join(names)} have more than 2^63 combinations of levels")
    return names


# --- pseudo-rows -------------------------------------------------------------------------------------------------


def _assemble(plan: _Plan, cells: Cells) -> tuple[Design, CrossProducts]:
    """A Design of pseudo-rows with the levels of all partitions, and its products with the true number of rows."""
    values, vectors = np.linalg.eigh(cells.grams)
    roots = np.sqrt(np.maximum(values, 0.0))[:, :, None] * vectors.transpose(
        0, 2, 1
    )  # (c, d, d): rows of each cell
    used = values > 1e-15 * np.maximum(values[:, -1:], 1e-300)
    rows, cell = roots[used], np.nonzero(used)[0]
    template, digits = plan.template, _digits(plan, cells.keys)
    k, p = [len(t.effects) for t in template.terms], template.p
    ends = np.cumsum(k)
    X = rows[:, ends[-1] : ends[-1] + p] @ plan.R
    # an offset is in y already; weights are in the rows
    y = rows[:, -1] + X @ plan.beta
    terms = tuple(
        _term(plan, digits, cell, t, term, rows[:, end - size : end])
        for t, (term, end, size) in enumerate(zip(template.terms, ends, k, strict=True))
    )
    order = sorted(range(len(terms)), key=lambda t: -len(terms[t].levels))
    design = replace(
        template, y=y, X=X, terms=tuple(terms[t] for t in order), bars=tuple(template.bars[t] for t in order),
        random_codings=tuple(template.random_codings[t] for t in order), weights=None, offset=None,
        index=pd.RangeIndex(len(y)), rows=None,
    )  # fmt: skip
    for term in design.terms:
        if len(term.levels) < 2 or len(term.levels) >= cells.n:
            raise DesignError(
                f"grouping factor {term.group} has {len(term.levels)} levels for {cells.n} rows"
            )
    products = replace(cross_products(design), n=cells.n, sum_log_w=cells.sum_log_w)
    return design, products


def _digits(plan: _Plan, keys: np.ndarray) -> dict[str, np.ndarray]:
    """Level of each factor column in every cell."""
    out, rest = {}, keys
    for name in reversed(_radix(plan)):
        rest, out[name] = np.divmod(rest, len(plan.levels[name]))
    return out


def _term(
    plan: _Plan,
    digits: dict[str, np.ndarray],
    cell: np.ndarray,
    t: int,
    term: RandomTerm,
    columns: np.ndarray,
) -> RandomTerm:
    factors = _names(plan.template.bars[t])
    codes, levels = grouping_factor(
        [Factor(digits[name], plan.levels[name], values=plan.values[name]) for name in factors]
    )
    return replace(term, grouping=levels, codes=codes[cell], columns=columns)
