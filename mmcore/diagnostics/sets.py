"""What ``delete=`` names: the positions of the rows of one set, given by label, by level or as a mask.

A mask with an index is aligned by it, to all rows of the user's data or to the rows that the model uses. A mask
without one goes by position. Rows that the model does not use, such as those with missing values, may be in a mask:
there is nothing to delete.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..design.build import Design
from ..errors import DataError

__all__ = ["is_list_of_sets", "listed", "rows_of"]

HOW = "row labels, level labels, or a boolean mask of the rows"


def is_list_of_sets(delete: Any) -> bool:
    """Whether every entry is itself a list, set or array; tuples are labels of a MultiIndex."""
    inner = (list, set, frozenset, np.ndarray, pd.Index, pd.Series)
    return isinstance(delete, list | tuple) and len(delete) > 0 and all(isinstance(x, inner) for x in delete)


def rows_of(design: Design, wanted: Any, levels: tuple[Sequence[Hashable], np.ndarray] | None) -> np.ndarray:
    """Positions (increasing) of the rows that one set means.

    ``levels``: the labels of a grouping factor and the (n,) position of each row in them; None to name rows.
    """
    _refuse_shapes(wanted)
    if _is_mask(wanted):
        rows = np.flatnonzero(_mask(design, wanted))
    elif levels is None:
        rows = _rows_by_label(design, _as_list(wanted, design.index))
    else:
        rows = _rows_by_level(_as_list(wanted, levels[0]), *levels)
    if not len(rows):
        raise DataError("delete is empty: name at least one row or level that the model uses")
    if len(rows) == design.n:
        raise DataError(f"delete names all {design.n} rows: nothing would be left")
    return rows


def _refuse_shapes(wanted: Any) -> None:
    """Raise for what cannot be a set of labels nor a mask."""
    shape = getattr(wanted, "shape", None)
    if isinstance(shape, tuple) and len(shape) > 1:
        raise DataError(f"delete has {len(shape)} dimensions, shape {shape}: give {HOW}")
    if isinstance(wanted, slice):
        raise DataError(
            f"delete is {wanted!r}: a slice names no labels; give data.index[...] or a boolean mask"
        )
    if not (np.isscalar(wanted) or hasattr(wanted, "__iter__") or _is_label(wanted)):
        raise DataError(f"delete is of type {type(wanted).__name__}: give {HOW}")


def _is_label(value: Any) -> bool:
    return isinstance(value, np.generic | pd.Timestamp | pd.Timedelta | pd.Period) or hasattr(
        value, "isoformat"
    )


def _is_mask(wanted: Any) -> bool:
    if isinstance(wanted, np.ndarray | pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        values = pd.Series(wanted)
        kind = pd.api.types.infer_dtype(values, skipna=True) if values.dtype == object else ""
        return pd.api.types.is_bool_dtype(values.dtype) or kind == "boolean"
    if isinstance(wanted, list | tuple) and len(wanted):
        return all(isinstance(x, bool | np.bool_) for x in wanted)
    return isinstance(wanted, bool | np.bool_) or str(getattr(wanted, "dtype", "")) in ("bool", "Boolean")


def _mask(design: Design, wanted: Any) -> np.ndarray:
    """(n,) whether each row that the model uses is in the mask."""
    values = wanted if isinstance(wanted, pd.Series) else pd.Series(np.atleast_1d(wanted))
    if values.isna().any():
        raise DataError(f"delete is a mask with {int(values.isna().sum())} missing values: say True or False")
    mask = values.to_numpy(dtype=bool)
    used = np.arange(design.n) if design.rows is None else design.rows
    if not isinstance(wanted, pd.Series):
        if len(mask) not in (design.n, design.n_input):
            raise DataError(f"delete is a mask of {len(mask)} values; the model uses {_rows_said(design)}")
        return mask if len(mask) == design.n else mask[used]
    for index, at in ((design.source.index, used), (design.index, np.arange(design.n))):
        order = _order(values.index, index)
        if order is not None:
            return mask[order][at]
    raise DataError(_unlike(design, values.index))


def _order(given: pd.Index, wanted: pd.Index) -> np.ndarray | None:
    """Positions in ``given`` of the labels of ``wanted``; None unless both have the same labels, each once or in the
    same order."""
    if given.equals(wanted):
        return np.arange(len(wanted))
    if len(given) != len(wanted) or not given.is_unique or not wanted.is_unique:
        return None
    order = given.get_indexer(wanted)
    return None if (order < 0).any() else order


def _rows_said(design: Design) -> str:
    more = "" if design.n == design.n_input else f" of the {design.n_input} of the data"
    return f"{design.n} rows{more}"


def _unlike(design: Design, index: pd.Index) -> str:
    unknown = [x for x in index if x not in design.source.index]
    what = (
        f"delete is a mask whose index does not match the rows of the data: {len(index)} labels; the model uses "
        f"{_rows_said(design)}"
    )
    if unknown:
        return f"{what}. Unknown: {listed(unknown)}. Make the mask from the data themselves"
    return f"{what}. Make the mask from the data themselves, or pass mask.to_numpy() to go by position"


def _as_list(wanted: Any, known: Sequence[Hashable]) -> list[Any]:
    """The labels; a tuple is one label where the labels are tuples."""
    if np.isscalar(wanted) or _is_label(wanted) or (isinstance(wanted, tuple) and wanted in known):
        return [wanted]
    labels = list(wanted)
    for label in labels:
        if not isinstance(label, Hashable):
            raise DataError(
                f"delete has an entry that is no label, {label!r}: give {HOW}, or a list of such sets"
            )
    return labels


def _rows_by_label(design: Design, labels: list[Any]) -> np.ndarray:
    index = design.index
    if not index.is_unique:
        raise DataError(
            "the row labels are not unique, so delete cannot name rows: pass a boolean mask instead"
        )
    at = index.get_indexer(pd.Index(labels, tupleize_cols=isinstance(index, pd.MultiIndex)))
    unknown = [x for x, i in zip(labels, at, strict=True) if i < 0]
    if unknown:
        raise DataError(
            f"delete names rows that the model does not use: {listed(unknown)}. Rows are named by "
            f"their label in the data frame ({listed(list(index[:3]))}, ...); rows with missing values are "
            "not used"
        )
    return np.unique(at)


def _rows_by_level(names: list[Any], levels: Sequence[Hashable], codes: np.ndarray) -> np.ndarray:
    """Levels are named as the data have them, or by their text."""
    by_label = {label: i for i, label in enumerate(levels)}
    by_text = {str(label): i for label, i in by_label.items()}
    at = [by_label.get(name, by_text.get(str(name), -1)) for name in names]
    unknown = [name for name, i in zip(names, at, strict=True) if i < 0]
    if unknown:
        raise DataError(
            f"delete names levels that the grouping factor does not have: {listed(unknown)}. Its levels are "
            f"{listed(list(levels))}"
        )
    return np.flatnonzero(np.isin(codes, at))


def listed(values: list, most: int = 5) -> str:
    """The first values, and how many more there are."""
    shown = ", ".join(repr(v.item() if isinstance(v, np.generic) else v) for v in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
