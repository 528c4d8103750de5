"""A quasi-Newton minimiser for objectives with an exact gradient and an approximate Hessian to start from.

BFGS on (gamma, par), started and for a few steps restarted from the expected Hessian of the working linear
model. The objective is even in the sign of a column of Lambda, so a zero variance is always stationary: a run
that ends there looks for a lower point beside it before it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs, dsyevd

from ..covariance.blocks import BlockCovariance
from ..errors import FitError
from .control import Control, Status
from .newton import FEW, is_sharp

__all__ = ["Result", "hessian_by_differences", "quasi_newton"]

REFRESH = 2  # steps that start from the expected Hessian instead of the updated one
PER_NEWTON = 5  # steps allowed for one of Newton's: along the ridge of a singular optimum they are many
DECREMENT = 1e-10  # stop when g'B^-1 g falls below this: twice the deviance still to be had
LEFT = 1e-3  # ... and the last step, at the rate of fall so far, is to leave less than this part of that tolerance
ZERO = 2e-3  # a scale below this is tried at exactly zero
NEAR = 0.05  # a scale below this may be held by the false boundary
ROUGH = 1e-10  # tolerance of the modes at a start
TIGHT = 1e-24  # tolerance of the modes where the last digits are wanted
ACCURATE = 1e-21  # decrement of the modes with which a final point is left as it is

Box = tuple[np.ndarray, np.ndarray] | None  # lower and upper limits of x; None: no limits


class Modes(Protocol):
    """Conditional modes of the random effects."""

    @property
    def decrement(self) -> float:
        """What the last step of their iteration promised."""


class Point(Protocol):
    """An objective evaluated."""

    @property
    def x(self) -> np.ndarray:
        """Where."""

    @property
    def f(self) -> float:
        """The value to minimize."""

    @property
    def modes(self) -> Modes:
        """The conditional modes there."""


PointT = TypeVar("PointT", bound=Point)


class Objective(Protocol[PointT]):
    """What the minimiser needs."""

    p: int  # leading entries of x that are not covariance parameters
    covariance: BlockCovariance
    n_random: int  # random effects in all

    def at(self, x: np.ndarray, tolerance: float = ...) -> PointT: ...

    def keep(self, point: PointT) -> None: ...

    def gradient(self, point: PointT) -> np.ndarray: ...

    def expected_hessian(self, point: PointT) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Result(Generic[PointT]):
    """Where the minimiser stopped."""

    point: PointT
    gradient: np.ndarray  # at the last point at which it was taken
    status: Status
    iterations: int  # gradients taken, all starts


@dataclass(frozen=True, slots=True)
class _Run(Generic[PointT]):
    point: PointT
    gradient: np.ndarray
    status: Status
    iterations: int


def quasi_newton(objective: Objective[PointT], start: np.ndarray, control: Control) -> Result[PointT]:
    """Minimise from ``start``; x is kept within the bounds of the covariance structures."""
    box = _box(objective)
    run = _descend(objective, start, control, box)
    used = run.iterations
    for _ in range(5 if control.restarts else 0):
        lower = _beside_boundary(objective, run.point)
        if lower is None:
            break
        objective.keep(lower)
        run = _descend(objective, lower.x, control, box)
        used += run.iterations
    for x in _other_starts(objective, run.point) if control.restarts else ():
        if (
            used > PER_NEWTON * control.max_iterations
        ):  # a criterion without a minimum is not searched again and again
            break
        other = _attempt(objective, x, control, box)
        used += 0 if other is None else other.iterations
        if other is not None and other.point.f < run.point.f - 1e-8 * (1.0 + abs(run.point.f)):
            run = other
    point, boundary = _snap(objective, run.point)
    objective.keep(point)
    final = _try(objective, point.x, TIGHT) if point.modes.decrement > ACCURATE else point
    boundary = boundary or _at_bound(objective, point.x, box)
    status = run.status
    if boundary and status is Status.CONVERGED:
        status = Status.CONVERGED_BOUNDARY
    return Result(final or point, run.gradient, status, used)


def hessian_by_differences(objective: Objective[PointT], point: PointT, step: float = 1e-4) -> np.ndarray:
    """(m, m) Hessian at a point: central differences of the exact gradient.

    Steps are ``step`` standard errors of the working model: the relative error is about 1e-10, truncation and rounding
    alike; 3e-7 has been seen where a standard deviation is known much less well than by half.
    """
    x, m = point.x, len(point.x)
    H = np.empty((m, m))
    curvature = np.abs(objective.expected_hessian(point).diagonal())
    for i in range(m):
        h = step * min((2.0 / curvature[i]) ** 0.5 if curvature[i] > 0 else 1.0, 5.0)
        up, down = (objective.gradient(objective.at(_shifted(x, i, k), TIGHT)) for k in (h, -h))
        H[i] = (up - down) / (2.0 * h)
    return 0.5 * (H + H.T)


# --- one run ------------------------------------------------------------------------------------------------


def _descend(objective: Objective[PointT], x: np.ndarray, control: Control, box: Box) -> _Run[PointT]:
    here = objective.at(x, ROUGH)
    if not np.isfinite(here.f):
        raise FitError("the likelihood is not finite at the start: give another start")
    objective.keep(here)
    noise = 1e-13 * (1.0 + abs(here.f))
    tolerance = control.decrement or DECREMENT
    g, B = objective.gradient(here), objective.expected_hessian(here)
    fresh, previous = True, 0.0
    for iteration in range(1, PER_NEWTON * control.max_iterations + 1):
        step, decrement = _step(B, g, _held(here.x, g, box))
        rate = min(1.0, decrement / previous) if previous > 0.0 else 1.0
        previous = decrement
        if decrement < tolerance and decrement * rate < LEFT * tolerance:
            last = _try(objective, _within(here.x + step, box), TIGHT)
            if last is not None and last.f <= here.f + 1e-9 * (1.0 + abs(here.f)):
                return _Run(last, g, Status.CONVERGED, iteration)
            return _Run(here, g, Status.CONVERGED, iteration)
        there = _search(objective, here, g, _cap(objective, here.x, step), noise, box)
        if there is None:
            flat = decrement < 1e-9 * (1.0 + abs(here.f))
            if flat or fresh:
                return _Run(here, g, Status.CONVERGED if flat else Status.STALLED, iteration)
            B, fresh = objective.expected_hessian(here), True
            continue
        objective.keep(there)
        g_new = objective.gradient(there)
        if iteration <= REFRESH:
            B = objective.expected_hessian(there)
        B = _update(B, there.x - here.x, g_new - g)
        here, g, fresh = there, g_new, False
    return _Run(here, g, Status.MAX_ITERATIONS, PER_NEWTON * control.max_iterations)


def _within(x: np.ndarray, box: Box) -> np.ndarray:
    return x if box is None else np.clip(x, *box)


def _held(x: np.ndarray, g: np.ndarray, box: Box) -> np.ndarray | None:
    """Mask of the coordinates that a bound holds."""
    if box is None:
        return None
    return ((x <= box[0]) & (g > 0)) | ((x >= box[1]) & (g < 0)) | (box[0] == box[1])


def _step(B: np.ndarray, g: np.ndarray, held: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Quasi-Newton step in the free coordinates and its decrement; B is made positive definite."""
    if held is None or not held.any():
        step = -_solve(B, g)
        return step, -float(g @ step)
    step, free = np.zeros(len(g)), ~held
    if free.any():
        step[free] = -_solve(B[np.ix_(free, free)], g[free])
    return step, -float(g @ step)


def _solve(B: np.ndarray, g: np.ndarray) -> np.ndarray:
    """B^-1 g; eigenvalues that are not positive are replaced by their size."""
    factor, info = dpotrf(B, lower=1)
    if not info:
        return dpotrs(factor, g, lower=1)[0]
    values, vectors, _ = dsyevd(B)
    values = np.abs(values)
    values = np.maximum(values, 1e-8 * max(float(values.max()), 1e-8))
    return vectors @ ((vectors.T @ g) / values)


def _cap(objective: Objective[PointT], x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Shorten a step that would change a covariance parameter by more than three quarters of the largest."""
    par, change = x[objective.p :], step[objective.p :]
    if not len(par):
        return step
    longest = max(map(abs, change.tolist()))
    limit = max(0.3, 0.77 * max(map(abs, par.tolist())))
    return step * (limit / longest) if longest > limit else step


def _try(objective: Objective[PointT], x: np.ndarray, tolerance: float | None = None) -> PointT | None:
    """The point, or None where the model breaks down."""
    try:
        point = objective.at(x) if tolerance is None else objective.at(x, tolerance)
    except FitError:
        return None
    return point if np.isfinite(point.f) else None


def _search(
    objective: Objective[PointT], here: PointT, g: np.ndarray, step: np.ndarray, noise: float, box: Box
) -> PointT | None:
    """Backtracking with a parabola through value and slope; trial points are kept within the box.

    Modes are found as exactly as the expected progress asks for.
    """
    slope, size = float(g @ step), 1.0
    tolerance = max((1e-4 * slope) ** 2, 1e-18) if slope > -1.0 else 1e-8
    for _ in range(30):
        there = _try(objective, _within(here.x + size * step, box), tolerance)
        if there is None:
            size *= 0.3
            continue
        if there.f <= here.f + 1e-4 * size * slope + noise:
            return there
        curve = there.f - here.f - size * slope
        size *= min(max(-0.5 * size * slope / curve, 0.1), 0.5) if curve > 0 else 0.3
    return None


def _update(B: np.ndarray, step: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Powell's damped BFGS update."""
    Bs = B @ step
    sBs, sy = float(step @ Bs), float(step @ y)
    if sBs <= 0.0:
        return B
    if sy < 0.2 * sBs:
        share = 0.8 * sBs / (sBs - sy)
        y = share * y + (1.0 - share) * Bs
        sy = float(step @ y)
    return B + (y / sy)[:, None] * y - (Bs / sBs)[:, None] * Bs


# --- boundaries ---------------------------------------------------------------------------------------------


def _box(objective: Objective[PointT]) -> Box:
    bounds = objective.covariance.bounds
    if bounds is None:
        return None
    free = np.full(objective.p, np.inf)
    return np.concatenate([-free, bounds[0]]), np.concatenate([free, bounds[1]])


def _at_bound(objective: Objective[PointT], x: np.ndarray, box: Box) -> bool:
    if box is None:
        return False
    free = box[0] < box[1]  # equal limits hold what is not in the likelihood: no boundary
    return bool((free & ((x <= box[0]) | (x >= box[1])))[objective.p :].any())


def _small_scales(objective: Objective[PointT], x: np.ndarray, limit: float) -> np.ndarray:
    index = objective.p + objective.covariance.scale_index()
    return index[np.abs(x[index]) < limit]


def _beside_boundary(objective: Objective[PointT], point: PointT) -> PointT | None:
    """A lower point some way off a scale that is nearly zero, or a lower one among other patterns of
    signs.
    """
    small = _small_scales(objective, point.x, NEAR)
    if not len(small):
        return None
    trials = [_shifted(point.x, one, size) for one in small for size in (0.3, 0.1, -0.1, 0.03)]
    par = point.x[objective.p :]
    trials += [
        np.concatenate([point.x[: objective.p], other]) for other in objective.covariance.alternatives(par)
    ]
    for x in trials:
        there = _try(objective, x)
        if there is not None and there.f < point.f - 1e-9 * (1.0 + abs(point.f)):
            return there
    return None


def _other_starts(objective: Objective[PointT], point: PointT) -> list[np.ndarray]:
    """Starts from all over the covariance parameters, where the optimum found is not sharp and runs are cheap."""
    p, covariance = objective.p, objective.covariance
    scales, par = covariance.scale_index(), point.x[p:].copy()
    if objective.n_random > FEW or is_sharp(par, objective.expected_hessian(point)[p:, p:], scales):
        return []
    par[scales[np.abs(par[scales]) < ZERO]] = 0.0
    starts = [*covariance.scattered(), *covariance.filled(par)]
    return [np.concatenate([point.x[:p], other]) for other in starts]


def _attempt(objective: Objective[PointT], x: np.ndarray, control: Control, box: Box) -> _Run[PointT] | None:
    """A run from another start, or None if it breaks down."""
    try:
        return _descend(objective, x, control, box)
    except FitError:
        return None


def _shifted(x: np.ndarray, position: int, size: float) -> np.ndarray:
    out = x.copy()
    out[position] += size
    return out


def _snap(objective: Objective[PointT], point: PointT) -> tuple[PointT, bool]:
    """Put scales that vanish exactly on zero if the objective does not mind."""
    small = _small_scales(objective, point.x, ZERO)
    if not len(small):
        return point, False
    for chosen in (small, *small.reshape(-1, 1)):
        x = point.x.copy()
        x[chosen] = 0.0
        there = _try(objective, x)
        if there is not None and there.f <= point.f + 1e-10 * (1.0 + abs(point.f)):
            return there, True
    return point, False
