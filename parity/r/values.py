"""Python data as R objects and back: for an embedded R, and as JSON for R as a program.

Only data cross the border: doubles, integers, logicals, text, and lists of these by name. No data frame is
converted: R builds it from columns (`r_reference/R/model.R`), so that integers with missing values, the order
of levels and categories of numbers cannot be lost in a conversion.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

RValue = Any  # None, bool, str, list of these, dict by name, or a float64 array

# --- embedded R -----------------------------------------------------------------------------------------


def to_r(value: Any) -> Any:
    """A Python value as an R object; a vector for every scalar, a list for every dict."""
    import rpy2.rinterface as ri

    if value is None:
        return ri.NULL
    if isinstance(value, Mapping):
        names = [str(key) for key in value]
        named = ri.ListSexpVector([to_r(item) for item in value.values()])
        named.do_slot_assign("names", ri.StrSexpVector(names))
        return named
    if isinstance(value, np.ndarray):
        return _array_to_r(value)
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    items = [item.item() if isinstance(item, np.generic) else item for item in items]
    kinds = {type(item) for item in items}
    if kinds <= {str}:
        return ri.StrSexpVector(items)
    if kinds <= {bool}:
        return ri.BoolSexpVector(items)
    if kinds <= {int, float}:
        return _array_to_r(np.array(items, dtype=np.float64))
    raise TypeError(f"cannot send {', '.join(sorted(kind.__name__ for kind in kinds))} to R")


def _array_to_r(array: np.ndarray) -> Any:
    import rpy2.rinterface as ri

    if array.ndim != 1:
        raise TypeError(f"only vectors are sent to R, not an array of shape {array.shape}")
    if array.dtype == np.float64:
        return ri.FloatSexpVector.from_memoryview(np.ascontiguousarray(array).data)
    if array.dtype == np.int32:
        return ri.IntSexpVector.from_memoryview(np.ascontiguousarray(array).data)
    raise TypeError(f"only float64 and int32 arrays are sent to R, not {array.dtype}")


def from_r(obj: Any) -> RValue:
    """An R object as data: numbers as float64 arrays (NA: NaN), text and logicals as lists (NA: None)."""
    import rpy2.rinterface as ri

    if obj is ri.NULL or isinstance(obj, type(ri.NULL)):
        return None
    if isinstance(obj, ri.ListSexpVector):
        names = obj.names
        items = [from_r(item) for item in obj]
        return items if isinstance(names, type(ri.NULL)) else dict(zip(names, items, strict=True))
    if isinstance(obj, ri.FloatSexpVector):
        return _numbers(obj, np.float64)
    if isinstance(obj, ri.IntSexpVector):
        whole = _numbers(obj, np.int32)
        whole[whole == -(2.0**31)] = np.nan  # NA_integer_
        return whole
    if isinstance(obj, ri.StrSexpVector):
        return [None if text is ri.NA_Character else text for text in obj]
    if isinstance(obj, ri.BoolSexpVector):
        return [None if flag is ri.NA_Logical else bool(flag) for flag in obj]
    raise TypeError(f"R returned an object of type {obj.typeof}, which is not data")


def _numbers(obj: Any, kind: type[np.generic]) -> np.ndarray:
    """(n,) float64, a copy of the numbers of an R vector.

    Not by the vector's `memoryview()`: its helper in C gives away one reference to None at each call (rpy2 3.6), and
    before Python 3.12 the process dies when none is left.
    """
    openrlib: Any = import_module("rpy2.rinterface_lib.openrlib")
    if not len(obj):
        return np.empty(0)
    bytes_ = np.dtype(kind).itemsize * len(obj)
    data = openrlib.ffi.buffer(obj._R_GET_PTR(obj.__sexp__._cdata), bytes_)
    return np.frombuffer(data, dtype=kind).astype(np.float64)


# --- JSON -----------------------------------------------------------------------------------------------


def to_json_data(value: Any) -> Any:
    """A Python value as JSON data that `jsonlite` reads back to the same R object."""
    if isinstance(value, Mapping):
        return {str(key): to_json_data(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype not in (np.float64, np.int32):
            raise TypeError(f"only vectors of float64 and int32 go to R, not {value.dtype}{value.shape}")
        return [to_json_data(item) for item in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [to_json_data(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else _special(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise TypeError(f"cannot send {type(value).__name__} to R")


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"


_SPECIAL = {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}


def from_json_data(value: Any) -> RValue:
    """The JSON of `write.R` as `from_r` would give it: each vector is an array there, numbers float64."""
    if isinstance(value, dict):
        return {key: from_json_data(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    numbers = [_SPECIAL.get(item, item) if isinstance(item, str) else item for item in value]
    # A vector of text that consists of the word NaN only would be misread here; none of ours can.
    if value and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in numbers):
        return np.array(numbers, dtype=np.float64)
    return [from_json_data(item) for item in value]
