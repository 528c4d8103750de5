"""Columns of a data frame as R vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["r_column"]

_INT32 = np.iinfo(np.int32)


def r_column(column: pd.Series) -> dict[str, Any]:
    """A column as `data_column` of `model.R` reads it. Missing values stay missing in every type.

    Text becomes a factor with its levels in code-point order, as R makes it in the C locale. Whole numbers
    beyond R's integers become doubles.

    Raises
    ------
    ValueError
        for a type that R has no like of here (dates, mixed objects).
    """
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        levels = [_level(value) for value in kind.categories]
        return _factor(np.asarray(column.cat.codes), levels, bool(kind.ordered))
    if pd.api.types.is_bool_dtype(kind):
        absent = column.isna().to_numpy()
        codes = np.where(absent, -1, column.fillna(False).to_numpy(dtype=bool))
        return {"kind": "logical", "codes": codes.astype(np.int32)}
    if pd.api.types.is_integer_dtype(kind):
        return _integers(column)
    if pd.api.types.is_float_dtype(kind):
        return {"kind": "double", "values": column.to_numpy(dtype=np.float64, na_value=np.nan)}
    if pd.api.types.is_string_dtype(kind) or pd.api.types.is_object_dtype(kind):
        return _text(column)
    raise ValueError(f"column {column.name!r} has type {kind}, which cannot be sent to R")


def _factor(codes: np.ndarray, levels: list[str], ordered: bool) -> dict[str, Any]:
    return {"kind": "factor", "codes": codes.astype(np.int32), "levels": levels, "ordered": ordered}


def _level(value: object) -> str:
    """A category as R's as.character writes it: whole floats without a point."""
    if isinstance(value, (bool, np.bool_)):
        return "TRUE" if value else "FALSE"
    return f"{value:.15g}" if isinstance(value, (float, np.floating)) else str(value)


def _integers(column: pd.Series) -> dict[str, Any]:
    absent = column.isna().to_numpy()
    whole = column.fillna(0).to_numpy(dtype=np.int64)
    if len(whole) and (whole.min() <= _INT32.min or whole.max() > _INT32.max):
        return {"kind": "double", "values": np.where(absent, np.nan, whole.astype(np.float64))}
    missing = np.flatnonzero(absent).astype(np.int32)
    return {"kind": "integer", "codes": whole.astype(np.int32), "missing": missing}


def _text(column: pd.Series) -> dict[str, Any]:
    values = [None if pd.isna(value) else value for value in column]
    strange = next((value for value in values if value is not None and not isinstance(value, str)), None)
    if strange is not None:
        name = type(strange).__name__
        raise ValueError(f"column {column.name!r} holds a {name} among objects; make it text or a category")
    levels = sorted({value for value in values if value is not None})
    position = {level: i for i, level in enumerate(levels)}
    codes = np.array([-1 if value is None else position[value] for value in values], dtype=np.int32)
    return _factor(codes, levels, False)
