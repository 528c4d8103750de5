"""Measures that are also read from refits: ``cooks_distance(fit)`` and ``cooks_distance(case_delete(fit))``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ..errors import DataError
from ..results.argument import of_fit

__all__ = ["Refitted", "measure"]

F = TypeVar("F", bound=Callable[..., Any])


class Refitted:
    """Refits without each unit, which know their own measures."""

    if TYPE_CHECKING:

        @property
        def level(self) -> Any:
            """1 if rows were left out, or the name of the grouping factor."""

    def value(self, name: str) -> Any:
        """The measure that the public function ``name`` gives."""
        raise NotImplementedError


def measure(function: F) -> F:
    """A function of a fit (:func:`of_fit`) that gives, for refits, the measure of the same name from these refits."""
    of_model, name = of_fit(function), function.__name__

    @wraps(function)
    def checked(fit: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(fit, Refitted):
            return of_model(fit, *args, **options)
        _check_asked(name, fit, args, options)
        return fit.value(name)

    return cast(F, checked)


def _check_asked(name: str, refits: Refitted, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Refits are made: only arguments that describe them are allowed."""
    level = args[0] if args else options.get("level", refits.level)
    same = isinstance(level, str | int | np.integer) and level == refits.level
    made = {"kind": ("refit",), "refit": (True,), "approx": (False,), "level": (level,)}
    other = [k for k, v in options.items() if not any(v is x or v == x for x in made.get(k, ()))]
    if other or len(args) > 1:
        what = f"{other[0]}=" if other else "further arguments"
        raise DataError(f"{name} of refits takes no {what}: give it to case_delete, which makes the refits")
    if not same:
        raise DataError(f"{name}: level={level!r}, but these are refits without level {refits.level!r}")
