"""Doors: what a public function that is handed a fit does before it begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import pandas as pd

from ..errors import DataError
from .fit import Fit

__all__ = ["kind_of", "of_fit", "without_data"]

F = TypeVar("F", bound=Callable[..., Any])


def of_fit(function: F) -> F:
    """The function, whose first argument must be a fitted model.

    The data may be given too, as the second argument or as ``data=``. They are not needed, because a fit holds its
    rows, and must be those of the fit.
    """
    own_data = "data" in signature(function).parameters

    @wraps(function)
    def checked(fit: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(fit, Fit):
            raise DataError(
                f"{function.__name__}: fit must be a fitted model, not {kind_of(fit)}: fit one with mm.lm, mm.glm, "
                "mm.lmer or mm.glmer"
            )
        if not own_data:
            args, options = without_data(function.__name__, fit, args, options)
        return function(fit, *args, **options)

    return cast(F, checked)


def without_data(
    name: str, fit: Fit, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments without the data of the fit."""
    if args and _is_table(args[0]):
        data, args = args[0], args[1:]
    elif "data" in options:
        data, options = options["data"], {k: v for k, v in options.items() if k != "data"}
    else:
        return args, options
    if data is not None and not _is_data_of(fit, data):
        raise DataError(
            f"{name}: data is {kind_of(data)} and not the rows that the model was fitted to. Leave it out: the fit "
            "holds its data"
        )
    return args, options


def kind_of(value: Any) -> str:
    """The type of a value in words: ``None``, ``the text 'abc'``, ``a pandas DataFrame``, ``a polars DataFrame``."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    package, name = type(value).__module__.split(".")[0], type(value).__name__
    return f"a {name}" if package in ("builtins", "mmcore") else f"a {package} {name}"


def _is_table(value: Any) -> bool:
    return isinstance(value, pd.DataFrame) or (hasattr(value, "columns") and hasattr(value, "shape"))


def _is_data_of(fit: Fit, data: Any) -> bool:
    """Whether a table can be the one that the model was fitted to: the same rows."""
    if not _is_table(data):
        return False
    index = data.index if isinstance(data, pd.DataFrame) else pd.RangeIndex(len(data))
    return bool(index.equals(fit.design.source.index))
