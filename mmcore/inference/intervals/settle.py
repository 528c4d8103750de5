"""The lowest point of a criterion under a constraint, from a start that is usually good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from ...errors import FitError
from ...optimize.control import Control
from ...optimize.newton import minimize

__all__ = ["Minimum", "free_bounds", "settle"]

CLOSE = 1e-7  # decrement at which what is left of the criterion is half of it, to rounding
MOST_NEWTON = 8
INSIDE = 0.25  # of a domain, or a relative standard deviation: where a second start is from the limits
CONTROL = Control(decrement=1e-11, restarts=False)
NO_SCALES = np.zeros(0, np.intp)  # none that may vanish: the constraint's coordinates are not those of a fit


@dataclass(frozen=True, slots=True)
class Minimum:
    """The lowest point with a parameter held."""

    f: float  # the criterion
    psi: np.ndarray  # (n_free,) the free coordinates there


def settle(objective: Any, start: np.ndarray) -> Minimum:
    """The minimum of a constrained objective: Newton where second-order matrices are Hessians and the start is good,
    the careful optimizer otherwise. Both end after a number of steps.

    Raises FitError where the model breaks down at the start.
    """
    if objective.exact and objective.bounds is None:
        quick = _newton(objective, start)
        if quick is not None:
            return quick
    runs = [minimize(objective, psi, NO_SCALES, CONTROL) for psi in _starts(objective, start)]
    best = min(runs, key=lambda run: run.f)
    return Minimum(best.f, best.par)


def _starts(objective: Any, start: np.ndarray) -> list[np.ndarray]:
    """The start; where it is close to a limit, at which a parameter may be held in vain, others all over the domain."""
    if objective.bounds is None:
        return [start]
    low, high = objective.bounds
    room = np.where(np.isfinite(high - low), INSIDE * (high - low), INSIDE)
    inside = np.minimum(np.maximum(start, low + room), high - room)
    if np.array_equal(inside, start):
        return [start]
    return [start, inside, *objective.scattered(start)]


def _newton(objective: Any, psi: np.ndarray) -> Minimum | None:
    """A few undamped steps; None if the criterion is not convex on the way or does not fall."""
    last = np.inf
    for _ in range(MOST_NEWTON):
        try:
            factor = objective.factor(psi)
        except FitError:
            return None
        f = factor.profile.f
        if not f <= last + 1e-11 * (1.0 + abs(f)):
            return None
        if not len(psi):
            return Minimum(f, psi)
        g, H = objective.derivatives(psi, factor)
        C, info = dpotrf(H, lower=1)
        if info:
            return None
        step = dpotrs(C, g, lower=1)[0]
        decrement = float(g @ step)
        if decrement < CLOSE:
            return Minimum(f - 0.5 * decrement, psi - step)
        last, psi = f, psi - step
    return None


def free_bounds(
    limits: tuple[np.ndarray, np.ndarray] | None, B: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Limits of psi where par = base + B psi: those of the parameters that are coordinates themselves."""
    if limits is None:
        return None
    low, high = np.full(B.shape[1], -np.inf), np.full(B.shape[1], np.inf)
    for c, column in enumerate(B.T):
        rows = np.flatnonzero(column)
        if len(rows) == 1 and column[rows[0]] == 1.0:
            low[c], high[c] = limits[0][rows[0]], limits[1][rows[0]]
    return low, high
