"""The arguments of a fit that is to be made again with some of them changed."""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from ..formula.update import updated
from .fit import Fit

__all__ = ["changed_arguments"]

SHARED = frozenset({"weights", "offset", "contrasts", "na_action"})  # arguments that every model has


def changed_arguments(
    fit: Fit,
    formula: str | None,
    data: Any,
    changes: dict[str, Any],
    kept: dict[str, Any],
    options: frozenset[str],
) -> tuple[str, Any, dict[str, Any]]:
    """Formula, data and keyword arguments of the call that fits the model again.

    ``kept`` are arguments of this kind of model that stay unless changed, ``options`` the names of all of them. With
    ``data=None`` the variables of the model frame are taken, and the weights and offset of the fit.
    """
    allowed = options | SHARED
    unknown = sorted(set(changes) - allowed)
    if unknown:
        raise DataError(
            f"update has no argument {unknown[0]!r}; it has formula, data, {', '.join(sorted(allowed))}"
        )
    design = fit.design
    arguments = kept | {"na_action": design.na_action, "contrasts": design.source.contrasts, "weights": None}
    if data is None:
        data = design.frame()
        offset = data["(offset)"].to_numpy() if "(offset)" in data else None
        arguments |= {"weights": design.weights, "offset": offset}
    text = fit.formula if formula is None else updated(fit.formula, formula)
    return text, data, arguments | changes
