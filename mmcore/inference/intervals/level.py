"""The level of an interval: a number between 0 and 1."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ...errors import DataError

__all__ = ["tails"]


def tails(level: Any) -> tuple[float, float]:
    """Probabilities of the two limits of an equal-tailed interval, 0.025 and 0.975 for level 0.95.

    Raises DataError unless ``level`` is a number strictly between 0 and 1; 95 is a percentage.
    """
    if isinstance(level, bool) or not isinstance(level, Real) or not 0 < float(level) < 1:
        hint = ""
        if isinstance(level, Real) and 1 < float(level) < 100:
            hint = f" (for {level} % write {float(level) / 100:g})"
        raise DataError(f"level must be a number between 0 and 1, got {level!r}{hint}")
    return 0.5 - float(level) / 2, 0.5 + float(level) / 2
