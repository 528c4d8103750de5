"""A column of a data frame -> number array or Factor: where pandas ends and R's view of types begins.

Numbers stay NumPy arrays of their own type. Booleans become a Factor with levels FALSE, TRUE, strings a
Factor with levels sorted by code point (R in the C locale), a Categorical keeps its order. Missing is NaN or
code -1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..errors import DataError
from ..formula.syntax import format_number


@dataclass(frozen=True, slots=True)
class Factor:
    """R's factor: codes into levels."""

    codes: np.ndarray  # (n,) integers, -1 is missing
    levels: tuple[str, ...]  # (L,)
    ordered: bool = False
    logical: bool = False  # a logical vector: levels are always FALSE, TRUE
    contrasts: str | pd.DataFrame | None = None  # set by C(): overrides the default coding
    values: np.ndarray | None = None  # (L,) object array: levels in the user's type; None where they are text
    text: bool = False  # the column was text: its levels are in alphabetical order, which nobody chose
    too_large: bool = False  # integers beyond 2^53, some missing: as numbers they would not be exact


@dataclass(frozen=True, slots=True)
class Matrix:
    """A variable of several columns, such as poly(x, 2)."""

    values: np.ndarray  # (n, k) float64
    names: tuple[str, ...]  # (k,) suffixes of the column names


Column = np.ndarray | Factor | Matrix

EXACT_INTEGERS = 2**53  # up to here float64 holds every integer
_LONG = 5000
_SMALL_RANGE = 4  # a lookup table over an integer range is used up to this many cells per row


def read_column(data: pd.DataFrame, name: str) -> np.ndarray | Factor:
    """Column `name` of `data`. Raises DataError: no such column, two of them, or a type without meaning
    here."""
    try:
        series = data[name]
    except KeyError:
        raise DataError(
            f"there is no column {name!r} in the data; the columns are: {_some(data.columns)}"
        ) from None
    if not isinstance(series, pd.Series):
        raise DataError(f"the data have several columns named {name!r}: rename all but one")
    return from_series(series, name)


def from_series(series: pd.Series, name: str) -> np.ndarray | Factor:
    """`series` as numbers or Factor, copied so that later changes of the data do not reach the model."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind in "iuf":
            return series.to_numpy(copy=True)
        if dtype.kind == "b":
            return logical(series.to_numpy())
    elif isinstance(dtype, pd.CategoricalDtype):
        return _from_categories(series, name)
    return _from_extension(series, name)


def _from_categories(series: pd.Series, name: str) -> Factor:
    categories = series.dtype.categories
    levels = level_labels(categories)
    if len(set(levels)) < len(levels):
        twice = next(level for i, level in enumerate(levels) if level in levels[:i])
        raise DataError(f"column {name!r} has two categories written {twice!r}: rename one of them")
    values = None if all(type(v) is str for v in categories) else as_objects(categories)
    return Factor(series.array.codes.copy(), levels, bool(series.dtype.ordered), values=values)


def _from_extension(series: pd.Series, name: str) -> np.ndarray | Factor:
    dtype = series.dtype
    if pd.api.types.is_bool_dtype(dtype) and not _is_object(dtype):
        return logical(series.to_numpy(dtype=bool, na_value=False), series.isna().to_numpy())
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        if pd.api.types.is_integer_dtype(dtype):
            return _integers(series, name)
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if pd.api.types.is_string_dtype(dtype) and not _is_object(dtype):
        return _factorize(series)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return series.dt.tz_localize(None).to_numpy()
    if dtype.kind in "mM":
        return series.to_numpy()
    if _is_object(dtype):
        return _from_objects(series, name)
    raise DataError(
        f"column {name!r} has type {dtype}, which has no meaning in a model: convert it to numbers or strings"
    )


def _is_object(dtype: object) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _from_objects(series: pd.Series, name: str) -> np.ndarray | Factor:
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind in ("string", "empty"):
        return _factorize(series)
    if kind == "date":
        return series.where(series.notna(), None).to_numpy(dtype="datetime64[D]")
    if kind in ("datetime", "datetime64"):
        return pd.to_datetime(series).to_numpy()
    if kind == "integer":
        return _integers(series, name)
    if kind in ("floating", "mixed-integer-float", "decimal"):
        return np.array([np.nan if v is None or v is pd.NA else float(v) for v in series])
    if kind == "boolean":
        missing = series.isna().to_numpy()
        return logical(np.where(missing, False, series.to_numpy()).astype(bool), missing)
    raise DataError(f"column {name!r} holds {kind} objects: convert it to numbers, strings or a Categorical")


_TRUTH = np.array([False, True], dtype=object)


def as_objects(values: np.ndarray | pd.Index) -> np.ndarray:
    """(L,) object array of Python's own numbers, dates and times."""
    return pd.Index(values).astype(object).to_numpy()


def _integers(series: pd.Series, name: str) -> np.ndarray | Factor:
    """Integers, of which some may be missing. Those that a float cannot hold become a Factor: see `_of_integers`."""
    missing = series.isna().to_numpy()
    present = series[~missing] if missing.any() else series
    try:
        exact = present.to_numpy(dtype=np.int64)
    except (OverflowError, TypeError, ValueError):
        raise DataError(
            f"column {name!r} has integers beyond 64 bits: convert it to text if it names groups"
        ) from None
    if not missing.any():
        return exact
    if not len(exact) or max(abs(int(exact.min())), abs(int(exact.max()))) <= EXACT_INTEGERS:
        values = np.full(len(series), np.nan)
        values[~missing] = exact
        return values
    codes = np.full(len(series), -1, dtype=np.intp)
    codes[~missing], uniques = sorted_codes(exact)
    return Factor(codes, tuple(map(str, uniques.tolist())), values=as_objects(uniques), too_large=True)


def logical(values: np.ndarray, missing: np.ndarray | None = None) -> Factor:
    """Truth values (n,) as R's logical vector; `missing` (n,) marks NA."""
    codes = values.astype(np.int8)
    if missing is not None and missing.any():
        codes[missing] = -1
    return Factor(codes, ("FALSE", "TRUE"), logical=True, values=_TRUTH)


def as_factor(column: Column, name: str) -> Factor:
    """R's `factor(column)` without dropping unused levels of a factor: levels of numbers are sorted."""
    if isinstance(column, Factor):
        return column
    if isinstance(column, Matrix):
        raise DataError(f"{name} has several columns and cannot be a factor")
    if column.dtype.kind in "iu":
        return _integer_factor(column)
    return _float_factor(column) if column.dtype.kind == "f" else _time_factor(column)


def _integer_factor(values: np.ndarray) -> Factor:
    if not len(values):
        return Factor(values.astype(np.intp), ())
    low, high = int(values.min()), int(values.max())
    if high < 2**62 and high - low < _SMALL_RANGE * len(values) + 1000:
        shifted = values.astype(np.intp) - low
        codes, used = compress(shifted, high - low + 1)
        return Factor(codes, tuple(map(str, (used + low).tolist())), values=as_objects(used + low))
    codes, uniques = sorted_codes(values)
    return Factor(codes, tuple(map(str, uniques.tolist())), values=as_objects(uniques))


def _float_factor(values: np.ndarray) -> Factor:
    codes, uniques = sorted_codes(values.astype(np.float64, copy=False) + 0.0)
    labels = [format_number(v) for v in uniques.tolist()]
    if len(set(labels)) < len(labels):  # R tells numbers apart by 15 digits
        distinct = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        lookup = np.array([distinct[label] for label in labels] + [-1], dtype=np.intp)
        first = np.unique(lookup[:-1], return_index=True)[1]
        return Factor(lookup[codes], tuple(distinct), values=_whole(uniques[first]))
    return Factor(codes, tuple(labels), values=_whole(uniques))


def _whole(values: np.ndarray) -> np.ndarray:
    """Integers as such: a column of ids that has a missing value is one of floats."""
    whole = len(values) and bool((values == np.rint(values)).all()) and bool((np.abs(values) < 1e15).all())
    return as_objects(values.astype(np.int64) if whole else values)


def _time_factor(values: np.ndarray) -> Factor:
    codes, uniques = sorted_codes(values)
    if uniques.dtype == np.dtype("datetime64[D]"):
        dates = uniques.astype(object)
        return Factor(codes, tuple(map(str, dates.tolist())), values=dates)
    return Factor(codes, level_labels(pd.Index(uniques)), values=as_objects(uniques))


def as_numbers(column: Column, label: str) -> np.ndarray:
    """A numeric or logical column as float64 (n,). Raises DataError naming `label` for anything else."""
    if isinstance(column, Factor):
        if column.logical:
            return np.where(column.codes < 0, np.nan, column.codes.astype(np.float64))
        if column.too_large:
            raise DataError(
                f"{label} has missing values and integers beyond 2^53, which are not exact as numbers: subtract a "
                "constant, or convert the column to floats"
            )
        more = ", ..." if len(column.levels) > 5 else ""
        raise DataError(
            f"{label} must be numeric, but it is a factor with levels {', '.join(column.levels[:5])}{more}"
        )
    if isinstance(column, Matrix):
        if column.values.shape[1] != 1:
            raise DataError(f"{label} must be a single column, but it has {column.values.shape[1]}")
        return column.values[:, 0]
    if column.dtype.kind in "mM":
        raise DataError(f"{label} holds times: convert it to numbers, such as days since the first")
    if column.dtype.kind in "iu" and len(column):
        largest = max(abs(int(column.min())), abs(int(column.max())))
        if largest > EXACT_INTEGERS and any(int(float(v)) != v for v in column.tolist()):
            raise DataError(
                f"{label} has integers up to {largest}, which are not exact as numbers (beyond 2^53): subtract a "
                "constant, or convert the column to floats"
            )
    return column.astype(np.float64, copy=False)


def sorted_codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(codes (n,), sorted distinct values): hashing, then a sort of the distinct ones only. NaN gets -1."""
    codes, uniques = pd.factorize(values)
    order = np.argsort(uniques, kind="stable")
    lookup = np.empty(len(order) + 1, dtype=np.intp)
    lookup[order] = np.arange(len(order))
    lookup[-1] = -1
    return lookup[codes], uniques[order]


def compress(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(new codes, used): `codes` in 0..size-1 renumbered to the values that occur, in increasing order."""
    present = np.zeros(size, dtype=bool)
    present[codes] = True
    used = np.flatnonzero(present)
    if len(used) == size:
        return codes, used
    lookup = np.cumsum(present) - 1
    return lookup[codes], used


def drop_unused(factor: Factor) -> Factor:
    """`factor` with only the levels that occur; a logical vector keeps both."""
    size = len(factor.levels)
    if factor.logical or not size:
        return factor
    observed = factor.codes[factor.codes >= 0] if _has_na(factor) else factor.codes
    counts = np.bincount(observed, minlength=size)
    if counts.all():
        return factor
    lookup = np.append(np.cumsum(counts > 0) - 1, -1)
    levels = tuple(level for level, count in zip(factor.levels, counts.tolist(), strict=True) if count)
    values = None if factor.values is None else factor.values[counts > 0]
    return replace(factor, codes=lookup[factor.codes], levels=levels, values=values, contrasts=None)


def align_levels(factor: Factor, levels: tuple[str, ...]) -> Factor:
    """`factor` with `levels` first, in their order; levels not among them follow."""
    if factor.levels == levels:
        return factor
    known = set(levels)
    extra = tuple(level for level in factor.levels if level not in known)
    position = {level: i for i, level in enumerate(levels + extra)}
    lookup = np.array([position[level] for level in factor.levels] + [-1], dtype=np.intp)
    return replace(factor, codes=lookup[factor.codes], levels=levels + extra, values=None)


def _has_na(factor: Factor) -> bool:
    return bool(len(factor.codes)) and bool(factor.codes.min() < 0)


def _factorize(series: pd.Series) -> Factor:
    # Arrow strings are hashed faster where they are, but short columns are not worth its set-up.
    codes, uniques = pd.factorize(series if len(series) > _LONG else series.to_numpy(dtype=object))
    labels = level_labels(uniques)
    order = sorted(range(len(labels)), key=labels.__getitem__)
    lookup = np.empty(len(order) + 1, dtype=np.intp)
    lookup[order] = np.arange(len(order))
    lookup[-1] = -1
    return Factor(lookup[codes], tuple(labels[i] for i in order), text=True)


def level_labels(values: Iterable) -> tuple[str, ...]:
    """Level names as R's `as.character` gives them: 1.0 is "1", True is "TRUE", midnight is a date."""
    items = values.tolist() if isinstance(values, pd.Index | np.ndarray) else list(values)
    if all(type(v) is str for v in items):
        return tuple(items)
    return tuple(_label(v) for v in items)


def _label(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float | np.floating):
        return format_number(float(value))
    if isinstance(value, pd.Timestamp) and value == value.normalize():
        return str(value.date())
    return str(value)


def is_missing(column: Column) -> np.ndarray | None:
    """Mask (n,) of the missing rows, None when there are none."""
    if isinstance(column, Factor):
        return column.codes < 0 if _has_na(column) else None
    values = column.values if isinstance(column, Matrix) else column
    if values.dtype.kind in "mM":
        mask = np.isnat(values)
        return mask if mask.any() else None
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    mask = np.isnan(values)
    if mask.ndim == 2:
        mask = mask.any(axis=1)
    return mask if mask.any() else None


def take_rows(column: Column, rows: np.ndarray) -> Column:
    """The rows of a column; levels are kept."""
    if isinstance(column, Factor):
        return replace(column, codes=column.codes[rows])
    if isinstance(column, Matrix):
        return Matrix(column.values[rows], column.names)
    return column[rows]


def to_pandas(column: Column, label: str, index: pd.Index) -> dict[str, pd.Series]:
    """Series of the column by name; a matrix gives one per column, named as R's data frames name them."""
    if isinstance(column, Matrix):
        return {
            f"{label}.{name}": pd.Series(column.values[:, j], index=index)
            for j, name in enumerate(column.names)
        }
    if not isinstance(column, Factor):
        return {label: pd.Series(column, index=index)}
    if column.logical:
        return {label: pd.Series(column.codes > 0, index=index)}
    values = pd.Categorical.from_codes(column.codes, list(column.levels), ordered=column.ordered)
    return {label: pd.Series(values, index=index)}


def _some(names: Sequence, limit: int = 20) -> str:
    shown = ", ".join(str(n) for n in list(names)[:limit])
    return shown + (", ..." if len(names) > limit else "")
