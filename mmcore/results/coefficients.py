"""The table of fixed effects that a summary prints.

Degrees of freedom are computed in the inference wing, which stands above the fits: importing mmcore registers its
function here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pandas as pd

from ..optimize.control import Status
from .fit import Fit

__all__ = ["Ddf", "coefficients", "register", "usual_ddf"]

Ddf = Literal["satterthwaite", "kenward-roger", "residual", "asymptotic"] | None
Table = Callable[[Fit, Ddf], pd.DataFrame]
_registered: list[Table] = []


def register(table: Table) -> None:
    """Make ``table(fit, ddf)`` the one that summaries use."""
    _registered[:] = [table]


def usual_ddf(fit: Fit) -> Ddf:
    """Satterthwaite's at an optimum; none elsewhere, where the curvature of the criterion says little."""
    at_optimum = fit.converged and fit.status is not Status.NOT_OPTIMIZED
    return "satterthwaite" if at_optimum else None


def coefficients(fit: Fit, ddf: Ddf) -> pd.DataFrame:
    """Rows by coefficient; columns ``estimate``, ``std.error``, ``statistic`` and, unless ddf is None, ``df``,
    ``p.value``."""
    return _registered[0](fit, ddf)
