"""Values row by row that come beside the data: what has an index goes by its labels, what has none by position."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..errors import DataError
from .table import is_column, pandas_column

__all__ = ["aligned", "label_order", "shown"]

_MOST_SHOWN = 3  # labels in a message


def aligned(values: object, index: pd.Index, what: str) -> pd.Series:
    """`values` in the order of the rows `index`, as a Series with that index.

    Parameters
    ----------
    values
        A Series or a frame of one column goes by its labels. An array, a list, a Polars Series or an Arrow array has
        no labels and goes by position.
    index
        Row labels of the data.
    what
        Name of the argument, for messages.

    Raises
    ------
    DataError
        Not one value for each row, or labels other than those of the data. Repeated labels have no order: then the
        index must equal that of the data.
    """
    if isinstance(values, pd.DataFrame):
        if values.shape[1] != 1:
            raise DataError(
                f"{what} is a frame of {values.shape[1]} columns: give one column, such as data['w']"
            )
        values = values.iloc[:, 0]
    if not isinstance(values, pd.Series):
        return _by_position(values, index, what)
    if values.index is index or values.index.equals(index):
        return values
    order = label_order(values.index, index)
    if order is None:
        raise DataError(_unlike(values.index, index, what))
    return values.iloc[order]


def label_order(given: pd.Index, wanted: pd.Index) -> np.ndarray | None:
    """Positions in `given` of the labels of `wanted`; None unless both have the same labels, each once."""
    if len(given) != len(wanted) or not given.is_unique or not wanted.is_unique:
        return None
    order = given.get_indexer(wanted)
    return None if (order < 0).any() else order


def shown(label: object) -> str:
    """A row label for a message: NumPy's numbers as Python's."""
    return repr(label.item() if isinstance(label, np.generic) else label)


def _by_position(values: object, index: pd.Index, what: str) -> pd.Series:
    found = pandas_column(values, what) if is_column(values) else _series_of(values, what)
    if len(found) != len(index):
        raise DataError(
            f"{what} has {len(found)} values for {len(index)} rows of data: give one for each row"
        )
    return found.set_axis(index)


def _series_of(values: object, what: str) -> pd.Series:
    if isinstance(values, Mapping | set | frozenset) or np.isscalar(values) or values is None:
        raise DataError(
            f"{what} is a {type(values).__name__}: give one value for each row, or the name of a column"
        )
    if isinstance(values, pd.Index | pd.api.extensions.ExtensionArray):
        return pd.Series(values)
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{what} has entries of different lengths: give one value for each row") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{what} has shape {array.shape}: give one value for each row, shape (n,)")
    return pd.Series(array)


def _unlike(given: pd.Index, wanted: pd.Index, what: str) -> str:
    if len(given) != len(wanted):
        problem = f"it has {len(given)} values, the data have {len(wanted)} rows"
    elif not given.is_unique or not wanted.is_unique:
        problem = "labels are repeated, so rows cannot be told apart by them"
    else:
        unknown = given.difference(wanted, sort=False)[:_MOST_SHOWN]
        problem = f"the data have no row {', '.join(map(shown, unknown))}"
    return (
        f"the index of {what} does not match that of the data: {problem}. Take {what} from the data, or pass "
        f"{what}.to_numpy() to go by position"
    )
