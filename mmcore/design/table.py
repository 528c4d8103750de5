"""Frames of other libraries -> pandas: Polars, Arrow tables, DuckDB relations and all that narwhals knows.

Only the columns that a model uses are converted; numbers without missing values are not copied.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from ..errors import DataError

__all__ = ["as_frame", "is_column", "is_table", "pandas_column"]

KINDS = "a pandas or Polars DataFrame, an Arrow table, a DuckDB relation or a mapping of columns"


def is_table(data: object) -> bool:
    """Whether `data` are a frame of some library, held at once or lazily."""
    if isinstance(data, pd.DataFrame) or hasattr(data, "to_delayed"):
        return True
    return isinstance(_native(data), nw.DataFrame | nw.LazyFrame)


def is_column(values: object) -> bool:
    """Whether `values` are a column of a library other than pandas."""
    if isinstance(values, pd.Series | np.ndarray | list | tuple | str) or values is None:
        return False
    return isinstance(nw.from_native(values, series_only=True, pass_through=True), nw.Series)


def as_frame(data: object, wanted: Collection[str] | None = None) -> pd.DataFrame:
    """`data` as a pandas DataFrame; a pandas frame is returned as it is, with its index.

    Parameters
    ----------
    data
        A pandas or Polars DataFrame, an Arrow table, a DuckDB relation or another frame that narwhals knows, or a
        mapping of column names to values. Those without row labels get 0, 1, 2, ...
    wanted
        Columns that are needed, None for all. Names that the data lack are ignored.

    Raises
    ------
    DataError
        No frame, columns of different lengths, or a column of a type without meaning in a model.
    """
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, Mapping):
        return _of_mapping(data)
    frame = _native(data)
    if isinstance(frame, nw.DataFrame) and isinstance(frame.to_native(), pd.DataFrame):
        return frame.to_native()
    if isinstance(frame, nw.LazyFrame):
        names = _chosen(frame.collect_schema().names(), wanted)
        frame = frame.select(names).collect()
    if isinstance(frame, nw.DataFrame):
        names = _chosen(frame.columns, wanted)
        columns = {name: _converted(frame[name], name) for name in names}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)), copy=False)
    raise DataError(_refusal(data))


def pandas_column(values: object, what: str) -> pd.Series:
    """A column of another library as a pandas Series 0, 1, 2, ...; `what` names it in messages."""
    return _converted(nw.from_native(values, series_only=True), what)


def _native(data: object) -> object:
    """The frame as narwhals sees it, or `data` itself; Dask's as pandas, since narwhals is giving Dask up."""
    if hasattr(data, "to_delayed") and hasattr(data, "compute"):
        data = data.compute()
    return nw.from_native(data, pass_through=True)


def _chosen(names: list[str], wanted: Collection[str] | None) -> list[str]:
    return names if wanted is None else [name for name in names if name in wanted]


def _of_mapping(data: Mapping) -> pd.DataFrame:
    try:
        return pd.DataFrame(data)
    except (ValueError, TypeError) as error:
        lengths = {name: np.shape(values) for name, values in data.items()}
        raise DataError(f"data is a mapping, but not of columns of one length: {lengths}") from error


def _refusal(data: object) -> str:
    if isinstance(data, str | Path):
        return (
            f"data is the text {str(data)!r}: read the file first, as with pandas.read_csv({str(data)!r}), and pass "
            "the frame"
        )
    return f"data must be {KINDS}, not {type(data).__name__}"


def _converted(column: nw.Series, name: str) -> pd.Series:
    dtype = column.dtype
    if dtype.is_numeric() and not dtype.is_decimal():
        return _numbers(column, dtype.is_integer())
    if dtype == nw.Boolean:
        return _with_missing(column, False, pd.arrays.BooleanArray)
    if dtype == nw.Categorical or dtype == nw.Enum:
        return _levels(column)
    if dtype == nw.Datetime and column.null_count() == 0:
        return pd.Series(column.to_numpy())
    if dtype in (nw.String, nw.Date, nw.Datetime, nw.Duration, nw.Decimal, nw.Object):
        return pd.Series(column.to_list(), dtype=object)
    if dtype == nw.Unknown and column.null_count() == len(column):
        return pd.Series(np.full(len(column), np.nan))
    raise DataError(
        f"column {name!r} has type {dtype}, which has no meaning in a model: convert it to numbers or text"
    )


def _levels(column: nw.Series) -> pd.Series:
    text = column.cast(nw.String).to_list()
    if isinstance(column.dtype, nw.Enum):
        return pd.Series(pd.Categorical(text, categories=list(column.dtype.categories)))
    if column.implementation.is_polars():  # its categories have no order of their own
        return pd.Series(text, dtype=object)
    return pd.Series(pd.Categorical(text, categories=column.cat.get_categories().to_list()))


def _numbers(column: nw.Series, integer: bool) -> pd.Series:
    if integer:
        return _with_missing(column, 0, pd.arrays.IntegerArray)
    filled = column.fill_null(float("nan")) if column.null_count() else column
    return pd.Series(filled.to_numpy(), copy=False)


def _with_missing(column: nw.Series, instead: int | bool, array: type) -> pd.Series:
    """Integers or truth values; missing ones stay exact beside them, not as floats."""
    if not column.null_count():
        return pd.Series(column.to_numpy(), copy=False)
    values = column.fill_null(instead).to_numpy()
    missing = column.is_null().to_numpy()
    return pd.Series(array(np.array(values), np.array(missing)))
