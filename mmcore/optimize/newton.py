"""Newton's method on the covariance parameters, with a way off the false boundaries of the Cholesky factor.

A criterion is even in the sign of a column of Lambda, so a zero diagonal entry is always stationary. It is a
minimum only if the Hessian there is positive semi-definite; otherwise the step follows the negative
curvature. Where the second-order matrix is the average information, a secant correction makes up for what it
leaves out.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.linalg.lapack import dsyevd

from ..covariance.blocks import BlockCovariance
from ..errors import FitError
from .control import Control, Status

__all__ = ["FEW", "Objective", "Optimum", "is_sharp", "minimize"]

SLOW = 20  # iterations after which another start is worth its price
FEW = 150  # random effects up to which other optima are looked for: several runs then cost a few milliseconds
# Deviance units that a zero scale is expected to cost, with up to two parameters and with more; below, other optima are
# looked for.
SHARP = (1.5, 4.0)
SNAP = 2e-3  # a scale below this is tried at exactly zero


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where the optimizer stopped."""

    par: np.ndarray  # (n_par,)
    f: float
    gradient: np.ndarray  # (n_par,) at the last point at which derivatives were taken
    hessian: np.ndarray  # (n_par, n_par) there
    status: Status
    iterations: int  # derivative evaluations, all starts
    evaluations: int  # of the criterion, all starts
    starts: int
    factor: Any  # the model there
    objective: Any  # the objective in whose coordinates ``par`` is


class Objective(Protocol):
    """What ``minimize`` needs of a criterion; :class:`mmcore.criterion.Criterion` is one."""

    covariance: BlockCovariance

    @property
    def n_random(self) -> int:
        """Random effects in all."""

    @property
    def exact(self) -> bool:
        """Whether second-order matrices are Hessians."""

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower and upper limits of the parameters."""

    def factor(self, par: np.ndarray) -> Any:
        """The model at ``par``; its ``profile.f`` is the value to minimize."""

    def derivatives(self, par: np.ndarray, factor: Any) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (n_par,) and second-order matrix (n_par, n_par)."""

    def rechart(self, par: np.ndarray) -> tuple[Objective, np.ndarray] | None:
        """The objective in better coordinates and the parameters there, or None."""


@dataclass(slots=True)
class _Point:
    par: np.ndarray
    f: float
    factor: Any


@dataclass(slots=True)
class _Run:
    """One Newton run: where it is and what it knows."""

    objective: Objective
    here: _Point
    g: np.ndarray
    H: np.ndarray
    status: Status = Status.MAX_ITERATIONS
    iterations: int = 0
    evaluations: int = 1
    boundary: bool = False
    decrement: float = 0.0  # of the step before; 0: there was none

    def attempt(self, par: np.ndarray) -> _Point:
        """Evaluate, within the limits; a point where the model breaks down counts as infinitely bad."""
        limits = self.objective.bounds
        par = par if limits is None else np.clip(par, *limits)
        self.evaluations += 1
        try:
            factor = self.objective.factor(par)
        except FitError:
            return _Point(par, np.inf, None)
        f = factor.profile.f
        return _Point(par, f if np.isfinite(f) else np.inf, factor)


def _newton_step(g: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Step with |eigenvalues| of H, its decrement, the least eigenvalue and that eigenvector."""
    values, vectors, _ = dsyevd(H)
    size = np.abs(values)
    size = np.maximum(size, 1e-7 * max(size.max(), 1e-12))
    along = vectors.T @ g
    return -(vectors @ (along / size)), float(along @ (along / size)), float(values[0]), vectors[:, 0]


class _Secant:
    """What the average information lacks, learnt from gradients: symmetric rank-one updates (Dennis, Gay,
    Welsch)."""

    def __init__(self, n: int) -> None:
        self.C = np.zeros((n, n))
        self.last: tuple[np.ndarray, np.ndarray] | None = None

    def correct(self, par: np.ndarray, g: np.ndarray, H: np.ndarray) -> np.ndarray:
        """H plus the correction after the step that led to ``par``."""
        if self.last is not None:
            step, change = par - self.last[0], g - self.last[1]
            lacking = change - H @ step
            bent = float(step @ self.C @ step)
            if bent:
                self.C *= min(1.0, abs(float(step @ lacking)) / abs(bent))
            rest = lacking - self.C @ step
            along = float(rest @ step)
            if abs(along) > 1e-6 * np.sqrt(float(rest @ rest) * float(step @ step)):
                self.C += np.outer(rest, rest) / along
        self.last = par, g
        return H + self.C

    def forget(self) -> None:
        """Start again, after a jump or a change of coordinates."""
        self.C[:] = 0.0
        self.last = None


def _free(par: np.ndarray, g: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray | None:
    """Mask of the parameters that may move: not at a limit with the gradient pushing outwards. None: all."""
    if bounds is None:
        return None
    held = ((par <= bounds[0]) & (g > 0)) | ((par >= bounds[1]) & (g < 0)) | (bounds[0] == bounds[1])
    return ~held if held.any() else None


def _descend(objective: Objective, start: np.ndarray, control: Control) -> _Run:
    """Newton from one start."""
    factor = objective.factor(start)  # at the start a breakdown is the user's to see
    run = _Run(objective, _Point(start, factor.profile.f, factor), np.zeros(0), np.zeros((0, 0)))
    secant = None if objective.exact else _Secant(len(start))
    while run.iterations < control.max_iterations:
        better = run.objective.rechart(run.here.par)
        if better is not None:
            run.objective, run.here.par = better
            if secant:
                secant.forget()
        run.iterations += 1
        if _advance(run, secant, control.decrement * (1e-3 if objective.exact else 1.0)):
            break
    return run


def _advance(run: _Run, secant: _Secant | None, tolerance: float) -> bool:
    """One Newton step; True when the run is over."""
    here = run.here
    noise = 1e-13 * (1.0 + abs(here.f))
    run.g, run.H = run.objective.derivatives(here.par, here.factor)
    H = run.H if secant is None else secant.correct(here.par, run.g, run.H)
    free = _free(here.par, run.g, run.objective.bounds)
    step, decrement, least, direction = _restricted_step(run.g, H, free)
    if secant is not None and secant.C.any():
        least, direction = _restricted_step(run.g, run.H, free)[2:]
    saddle = least < -1e-6 * max(np.abs(run.H.diagonal()).max(), 1.0)
    # the last step is taken all the same: what it leaves is the decrement times its next rate of fall, which is the
    # rate so far, and its square for Newton's method
    rate = min(1.0, decrement / run.decrement) if run.decrement > 0 else 1.0
    run.decrement, converged = decrement, decrement * (rate if secant else rate**2) < tolerance
    if converged and saddle:
        there = _leave_saddle(run, direction)
        if there is not None:
            run.here = there
            if secant:
                secant.forget()
            return False
    cap = max(0.2, 0.77 * float(np.abs(here.par).max()))
    longest = float(np.abs(step).max())
    if longest > cap:
        step = step * (cap / longest)
    flat = decrement < 1e-7 * (1.0 + abs(here.f))
    there = _backtrack(run, step, noise, 1 if converged else 3 if flat else 30)
    if converged:
        run.here, run.status = there or here, Status.CONVERGED
        return True
    if there is None:
        run.status = Status.CONVERGED if flat and not saddle else Status.STALLED
        return True
    run.here = there
    return False


def _restricted_step(
    g: np.ndarray, H: np.ndarray, free: np.ndarray | None
) -> tuple[np.ndarray, float, float, np.ndarray]:
    """``_newton_step`` of the free parameters, the others staying where they are."""
    if free is None:
        return _newton_step(g, H)
    step, direction = np.zeros(len(g)), np.zeros(len(g))
    if not free.any():
        return step, 0.0, 1.0, direction
    step[free], decrement, least, direction[free] = _newton_step(g[free], H[np.ix_(free, free)])
    return step, decrement, least, direction


def _leave_saddle(run: _Run, direction: np.ndarray) -> _Point | None:
    """A tenth along the direction of negative curvature, less if the criterion does not fall."""
    here = run.here
    for size in (0.1, -0.1, 0.02, -0.02, 0.004):
        there = run.attempt(here.par + size * direction)
        if there.f < here.f - 1e-12 * (1 + abs(here.f)):
            return there
    return None


def _backtrack(run: _Run, step: np.ndarray, noise: float, tries: int) -> _Point | None:
    """The first of step, 0.4 step, 0.16 step ... at which the criterion does not rise."""
    scale = 1.0
    for _ in range(tries):
        there = run.attempt(run.here.par + scale * step)
        if there.f <= run.here.f + noise:
            return there
        scale *= 0.4
    return None


def _snap(run: _Run, index: np.ndarray) -> None:
    """Put scales that vanish at the optimum exactly on zero, if the criterion does not mind."""
    here = run.here
    small = index[np.abs(here.par[index]) < SNAP]
    one_by_one = [small[i : i + 1] for i in range(len(small))] if len(small) > 1 else []
    for zeros in [small, *one_by_one] if len(small) else []:
        par = here.par.copy()
        par[zeros] = 0.0
        there = run.attempt(par)
        if there.f <= here.f + 1e-10 * (1.0 + abs(here.f)):
            run.here, run.boundary = there, True
            return


def _run(objective: Objective, start: np.ndarray, scales: np.ndarray, control: Control) -> _Run:
    run = _descend(objective, start, control)
    _snap(run, scales)
    return run


def _runs(objective: Objective, starts: list[np.ndarray], scales: np.ndarray, control: Control) -> list[_Run]:
    """A run from each start at which the model does not break down."""
    runs = []
    for start in starts:
        with suppress(FitError):
            runs.append(_run(objective, start, scales, control))
    return runs


def _best(runs: list[_Run]) -> _Run:
    """The first run that converged to the least value, up to rounding; a failed run only if it is lower."""
    least = min(run.here.f for run in runs)
    close = [run for run in runs if run.here.f <= least + 1e-9 * (1.0 + abs(least))]
    return next((run for run in close if run.status.ok), close[0])


def is_sharp(par: np.ndarray, H: np.ndarray, scales: np.ndarray) -> bool:
    """Whether the parabola at an optimum says that no scale could be zero: then other optima are not expected."""
    if not np.isfinite(H).all():
        return False
    least = SHARP[len(par) > 2]
    variances = np.linalg.pinv(H).diagonal()[scales]
    rise = 0.5 * np.square(par[scales])
    return bool((variances > 0).all() and (rise > least * variances).all())


def _elsewhere(best: _Run, scales: np.ndarray, control: Control) -> list[_Run]:
    """Runs from other starts, where a term could go, there is one parameter, or the optimum found is not sharp."""
    covariance, here = best.objective.covariance, best.here
    lower = [par for par in covariance.vanished(here.par) if best.attempt(par).f < here.f]
    if not lower and len(here.par) > 1 and is_sharp(here.par, best.H, scales):
        return []
    runs = _runs(best.objective, [*lower, *covariance.scattered()], scales, control)
    best = _best([best, *runs])
    return runs + _runs(best.objective, best.objective.covariance.filled(best.here.par), scales, control)


def minimize(objective: Objective, start: np.ndarray, scales: np.ndarray, control: Control) -> Optimum:
    """The best of one or more Newton runs.

    ``scales`` are the positions of parameters whose zero is a boundary. Other starts are tried after a run that was
    slow or failed, and, with few random effects, where another optimum is likely.
    """
    if not len(start):
        factor = objective.factor(start)
        none = np.zeros((0, 0))
        return Optimum(start, factor.profile.f, start, none, Status.NO_PARAMETERS, 0, 1, 1, factor, objective)
    runs = [_run(objective, start, scales, control)]
    if control.restarts:
        if runs[0].iterations > SLOW or not runs[0].status.ok:
            runs += [_run(objective, start * scale, scales, control) for scale in (0.3, 2.5)]
        if objective.n_random <= FEW:
            runs += _elsewhere(_best(runs), scales, control)
    best = _best(runs)
    status = best.status
    if best.boundary and status is Status.CONVERGED:
        status = Status.CONVERGED_BOUNDARY
    here = best.here
    return Optimum(
        here.par, here.f, best.g, best.H, status,
        sum(run.iterations for run in runs), sum(run.evaluations for run in runs), len(runs),
        here.factor, best.objective,
    )  # fmt: skip
