"""A quasi-Newton minimiser for objectives with an exact gradient and an approximate Hessian to start from.

BFGS on (gamma, par), started and for a few steps restarted from the expected Hessian of the working linear
model. The objective is even in the sign of a column of Lambda, so a zero variance is always stationary: a
run that ends there looks for negative curvature before it believes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg.lapack import dsyevd

from .errors import FitError
from .laplace import Point
from .optimize import Control, Status

__all__ = ["Result", "hessian_by_differences", "quasi_newton"]

REFRESH = 3  # steps that start from the expected Hessian instead of the updated one
ZERO = 2e-3  # a scale below this may be zero
DECREMENT = 1e-10  # stop when g'B^-1 g falls below this: twice the deviance still to be had


class Objective(Protocol):
    """What the minimiser needs."""

    p: int  # leading entries of x that are not covariance parameters

    def at(self, x: np.ndarray, tolerance: float = ...) -> Point: ...

    def keep(self, point: Point) -> None: ...

    def gradient(self, point: Point) -> np.ndarray: ...

    def expected_hessian(self, point: Point) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Result:
    """Where the minimiser stopped."""

    point: Point
    gradient: np.ndarray  # at the last point at which it was taken
    status: Status
    iterations: int  # gradients taken, all starts


def _positive(B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, made positive, and eigenvectors of a symmetric matrix."""
    values, vectors, _ = dsyevd(B)
    size = np.abs(values)
    return np.maximum(size, 1e-8 * max(float(size.max()), 1e-8)), vectors


def _try(objective: Objective, x: np.ndarray) -> Point | None:
    """The point, or None where the model breaks down."""
    try:
        point = objective.at(x)
    except FitError:
        return None
    return point if np.isfinite(point.f) else None


def _cap(objective: Objective, x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Shorten a step that would change a covariance parameter by more than three quarters of the largest."""
    p = objective.p
    par, change = x[p:], step[p:]
    if not len(par):
        return step
    limit = max(0.3, 0.77 * float(np.abs(par).max()))
    longest = float(np.abs(change).max())
    return step * (limit / longest) if longest > limit else step


def _search(objective: Objective, here: Point, g: np.ndarray, step: np.ndarray, noise: float) -> Point | None:
    """Backtracking with a parabola through the value and slope."""
    slope, size = float(g @ step), 1.0
    for _ in range(30):
        there = _try(objective, here.x + size * step)
        if there is not None and there.f <= here.f + 1e-4 * size * slope + noise:
            return there
        if there is None:
            size *= 0.3
            continue
        curve = there.f - here.f - size * slope
        size *= min(max(-0.5 * size * slope / curve, 0.1), 0.5) if curve > 0 else 0.3
    return None


def _update(B: np.ndarray, step: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Powell's damped BFGS update."""
    Bs = B @ step
    sBs, sy = float(step @ Bs), float(step @ y)
    if sy < 0.2 * sBs:
        share = 0.8 * sBs / (sBs - sy)
        y = share * y + (1.0 - share) * Bs
        sy = float(step @ y)
    return B + np.outer(y, y) / sy - np.outer(Bs, Bs) / sBs


def _descend(objective: Objective, x: np.ndarray, control: Control) -> tuple[Point, np.ndarray, Status, int]:
    here = objective.at(x)
    if not np.isfinite(here.f):
        raise FitError("the likelihood is not finite at the start: give another start")
    objective.keep(here)
    noise = 1e-13 * (1.0 + abs(here.f))
    g = objective.gradient(here)
    B = objective.expected_hessian(here)
    fresh = True
    for iteration in range(1, control.max_iterations + 1):
        values, vectors = _positive(B)
        along = vectors.T @ g
        decrement = float(along @ (along / values))
        step = _cap(objective, here.x, -(vectors @ (along / values)))
        converged = decrement < (control.decrement or DECREMENT) and not (fresh and iteration == 1)
        there = _search(objective, here, g, step, noise)
        if there is None:
            if not fresh and not converged and decrement > 1e-6 * (1.0 + abs(here.f)):
                B, fresh = objective.expected_hessian(here), True
                continue
            flat = decrement < 1e-6 * (1.0 + abs(here.f))
            return here, g, Status.CONVERGED if flat else Status.STALLED, iteration
        objective.keep(there)
        if converged:
            return there, g, Status.CONVERGED, iteration
        g_new = objective.gradient(there)
        if iteration <= REFRESH:
            B = objective.expected_hessian(there)
        B = _update(B, there.x - here.x, g_new - g)
        here, g, fresh = there, g_new, False
    return here, g, Status.MAX_ITERATIONS, control.max_iterations


def hessian_by_differences(
    objective: Objective, x: np.ndarray, step: float = 1e-3, tolerance: float = 1e-24
) -> np.ndarray:
    """(m, m) Hessian at x from fourth-order central differences of the exact gradient; relative error about
    1e-9.
    """
    m = len(x)
    H = np.empty((m, m))
    for i in range(m):
        h = step * max(1.0 if i < objective.p else 0.3, abs(float(x[i])))
        grads = []
        for k in (-2.0, -1.0, 1.0, 2.0):
            moved = x.copy()
            moved[i] += k * h
            grads.append(objective.gradient(objective.at(moved, tolerance)))
        H[i] = (grads[0] - 8.0 * grads[1] + 8.0 * grads[2] - grads[3]) / (12.0 * h)
    return 0.5 * (H + H.T)


def _leave_boundary(objective: Objective, point: Point, scales: np.ndarray) -> Point | None:
    """A lower point along a direction of negative curvature, if a scale is nearly zero and there is one."""
    small = objective.p + scales[np.abs(point.x[objective.p + scales]) < 0.05]
    if not len(small):
        return None
    for one in small:
        for size in (0.3, 0.1, -0.1, 0.03):
            x = point.x.copy()
            x[one] += size
            there = _try(objective, x)
            if there is not None and there.f < point.f - 1e-9 * (1.0 + abs(point.f)):
                return there
    return None


def _snap(objective: Objective, point: Point, scales: np.ndarray) -> tuple[Point, bool]:
    """Put scales that vanish exactly on zero if the objective does not mind."""
    small = objective.p + scales[np.abs(point.x[objective.p + scales]) < ZERO]
    if not len(small):
        return point, False
    for chosen in [small, *([s] for s in small)]:
        x = point.x.copy()
        x[chosen] = 0.0
        there = _try(objective, x)
        if there is not None and there.f <= point.f + 1e-10 * (1.0 + abs(point.f)):
            return there, True
    return point, False


def quasi_newton(objective: Objective, start: np.ndarray, scales: np.ndarray, control: Control) -> Result:
    """Minimise from ``start``; ``scales`` are the positions among the covariance parameters whose zero is a
    boundary.
    """
    point, g, status, used = _descend(objective, start, control)
    for _ in range(5):
        lower = _leave_boundary(objective, point, scales) if control.restarts else None
        if lower is None:
            break
        objective.keep(lower)
        point, g, status, more = _descend(objective, lower.x, control)
        used += more
    point, boundary = _snap(objective, point, scales)
    objective.keep(point)
    if boundary and status is Status.CONVERGED:
        status = Status.CONVERGED_BOUNDARY
    return Result(point, g, status, used)
