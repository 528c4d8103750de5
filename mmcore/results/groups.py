"""Residual standard deviations that differ between groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["ResidualGroups"]


@dataclass(frozen=True, slots=True)
class ResidualGroups:
    """The grouping of the residual variance."""

    group: str  # column
    levels: tuple[str, ...]  # (L,) levels that occur; the first has ratio 1
    codes: np.ndarray  # (n,) level of each row used
    ratio: np.ndarray  # (L,) residual sd relative to the first level's

    def to_dict(self, sigma: float) -> Mapping[str, float]:
        """Residual standard deviation by level."""
        return {level: float(sigma * r) for level, r in zip(self.levels, self.ratio, strict=True)}
