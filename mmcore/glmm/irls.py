"""Iteratively reweighted least squares: a generalised linear model, the case of no random effects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from ..errors import FitError
from ..families.family import Conditional, Working

__all__ = ["Irls", "irls", "null_deviance"]

MAX_ITERATIONS = 100
HALVINGS = 30
TOLERANCE = 1e-20  # of the decrement, relative to the deviance
SCORING = 3  # iterations of Fisher scoring before Newton's method


@dataclass(frozen=True, slots=True)
class Irls:
    """Where the iteration ended."""

    gamma: np.ndarray  # (p,) coefficients of the basis
    at: Working
    iterations: int
    converged: bool
    decrement: float


def _solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    factor, info = dpotrf(A, lower=1)
    if info:
        return np.linalg.lstsq(A, b, rcond=None)[0]
    return dpotrs(factor, b, lower=1)[0]


def _first(family: Conditional, Q: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, Working]:
    """One least-squares step from the family's starting means, or a constant mean where that leaves the
    domain.
    """
    mu = family.family.start(family.y, family.w)
    at = family.at(family.family.link.eta(mu))
    if at.s is not None:
        QW = Q * at.W
        gamma = _solve(QW @ Q.T, QW @ (at.eta - offset) + Q @ at.s)
        first = family.at(offset + gamma @ Q)
        if np.isfinite(first.D):
            return gamma, first
    level = float(np.average(mu, weights=np.maximum(family.w, 1e-300)))
    gamma = Q @ (family.family.link.eta(np.full(family.n, level)) - offset)
    first = family.at(offset + gamma @ Q)
    if np.isfinite(first.D):
        return gamma, first
    raise FitError(
        f"no coefficients give means inside the domain of {family.family.label()} to start from: "
        "use a link that cannot leave it (log, logit), or look at the offset"
    )


def irls(
    family: Conditional,
    Q: np.ndarray,
    offset: np.ndarray | float = 0.0,
    start: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> Irls:
    """Maximum (quasi-)likelihood coefficients of the orthonormal basis Q (p, n).

    Fisher scoring to begin with, then Newton's method where the observed weights allow it: with a link that
    is not canonical scoring alone converges slowly. The deviance never rises. ``start`` are coefficients
    (p,); by default the family's starting means are used. Stops when the decrement g'B^-1g is below
    ``tolerance`` of the deviance or at rounding. With p = 0 the means are those of the offset. Cost O(n p^2)
    per iteration.
    """
    offset = np.zeros(family.n) + offset
    if not len(Q):
        at = family.at(offset)
        if not np.isfinite(at.D):
            raise FitError(f"the offset gives means outside the domain of {family.family.label()}")
        return Irls(np.zeros(0), at, 0, True, 0.0)
    gamma, at = _first(family, Q, offset) if start is None else (start, family.at(offset + start @ Q))
    if not np.isfinite(at.D):
        gamma, at = _first(family, Q, offset)
    previous = np.inf
    for iteration in range(1, MAX_ITERATIONS + 1):
        step, decrement = _step(family, Q, at, newton=iteration > SCORING)
        scale = abs(at.D) + 0.1
        stuck = decrement > 0.25 * previous and decrement < 1e-12 * scale
        if decrement <= tolerance * scale or stuck:
            # the step is known, and what it leaves is of second order
            gamma, at = _halve(family, Q, offset, gamma, at, step) or (gamma, at)
            return Irls(gamma, at, iteration, True, decrement)
        previous = decrement
        moved = _halve(family, Q, offset, gamma, at, step)
        if moved is None:
            return Irls(gamma, at, iteration, decrement < 1e-8 * scale, decrement)
        gamma, at = moved
    return Irls(gamma, at, MAX_ITERATIONS, False, decrement)


def _step(family: Conditional, Q: np.ndarray, at: Working, newton: bool) -> tuple[np.ndarray, float]:
    """Newton's step (with observed weights) or the scoring step where that is not downhill, and its
    decrement.
    """
    score = Q @ at.s
    if newton and not family.family.is_canonical:
        H = family.curvature(at)[1]
        factor, info = dpotrf((Q * H) @ Q.T, lower=1)
        if not info:
            step = dpotrs(factor, score, lower=1)[0]
            return step, float(score @ step)
    step = _solve((Q * at.W) @ Q.T, score)
    return step, float(score @ step)


def _halve(
    family: Conditional, Q: np.ndarray, offset: np.ndarray, gamma: np.ndarray, at: Working, step: np.ndarray
) -> tuple[np.ndarray, Working] | None:
    """The first of the step, half of it, ... that does not raise the deviance; None if there is none."""
    noise, size = 1e-13 * (1.0 + abs(at.D)), 1.0
    for _ in range(HALVINGS):
        gamma1 = gamma + size * step
        at1 = family.at(offset + gamma1 @ Q)
        if at.D + noise >= at1.D:
            return gamma1, at1
        size *= 0.5
    return None


def null_deviance(family: Conditional, offset: np.ndarray | None, intercept: bool) -> float:
    """Deviance of the model with an intercept (if there is one) and the offset only, as R's glm reports
    it.
    """
    if not intercept:
        eta = np.zeros(family.n) if offset is None else offset
        return float(family.deviance_terms(family.at(eta)).sum())
    if offset is None:
        mean = np.full(family.n, np.average(family.y, weights=family.w))
        return float(family.w @ family.family.unit_deviance(family.y, mean))
    with np.errstate(all="ignore"):
        found = irls(family, np.full((1, family.n), family.n**-0.5), offset)
    return float(family.deviance_terms(found.at).sum())
