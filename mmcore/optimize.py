"""Newton's method on the covariance parameters, with a way off the false boundaries of the Cholesky factor.

A criterion is even in the sign of a column of Lambda, so a zero diagonal entry is always stationary. It is a
minimum only if the Hessian there is positive semi-definite; otherwise the step follows the negative curvature.
Iterates are unconstrained; signs are made canonical at the end and a vanishing entry becomes exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from scipy.linalg.lapack import dsyevd

from .errors import FitError

__all__ = ["Control", "Optimum", "Status", "minimize"]


class Status(Enum):
    """How the optimization ended; the value is the message for people."""

    CONVERGED = "converged: the Newton decrement is below its tolerance"
    CONVERGED_BOUNDARY = "converged on the boundary: a random-effects variance is zero or a correlation is +-1 (singular fit)"
    MAX_ITERATIONS = "not converged: the iteration limit was reached; raise control.max_iterations or give another start"
    STALLED = "not converged: no step lowered the criterion although the gradient is not zero; try another start"
    NOT_OPTIMIZED = "theta was given, not estimated"
    NO_PARAMETERS = "no covariance parameter to estimate"

    @property
    def ok(self) -> bool:
        """True unless the optimization failed."""
        return self not in (Status.MAX_ITERATIONS, Status.STALLED)


@dataclass(frozen=True, slots=True)
class Control:
    """How hard to try."""

    max_iterations: int = 100  # Newton steps per start
    decrement: float = 1e-9  # stop when g'H^-1 g falls below this (twice the drop still to be had)
    restarts: bool = True  # a second start after a slow or a singular run


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where the optimizer stopped."""

    par: np.ndarray  # (n_par,)
    f: float
    gradient: np.ndarray  # (n_par,) at the last point at which derivatives were taken
    hessian: np.ndarray  # (n_par, n_par) there
    status: Status
    iterations: int  # derivative evaluations, all starts


class Objective(Protocol):
    """What ``minimize`` needs of a criterion."""

    def factor(self, par: np.ndarray):  # noqa: ANN201, D102
        ...

    def derivatives(self, par: np.ndarray, factor) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN001, D102
        ...


@dataclass(slots=True)
class _Trial:
    par: np.ndarray
    f: float
    factor: object


def _try(objective: Objective, par: np.ndarray) -> _Trial:
    """Evaluate; a point where the model breaks down counts as infinitely bad."""
    try:
        factor = objective.factor(par)
    except FitError:
        return _Trial(par, np.inf, None)
    f = factor.profile.f
    return _Trial(par, f if np.isfinite(f) else np.inf, factor)


def _newton_step(g: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Step with |eigenvalues| of H, its decrement, the least eigenvalue and that eigenvector."""
    values, vectors, _ = dsyevd(H)
    size = np.abs(values)
    size = np.maximum(size, 1e-7 * max(size.max(), 1e-12))
    along = vectors.T @ g
    return -(vectors @ (along / size)), float(along @ (along / size)), float(values[0]), vectors[:, 0]


def _descend(objective: Objective, start: np.ndarray, control: Control) -> tuple[_Trial, np.ndarray, np.ndarray, Status, int]:
    """Newton from one start."""
    here = _Trial(start, np.inf, None)
    factor = objective.factor(start)  # at the start a breakdown is the user's to see
    here = _Trial(start, factor.profile.f, factor)
    noise = 1e-13 * (1.0 + abs(here.f))
    g = H = np.zeros(0)
    for iteration in range(1, control.max_iterations + 1):
        g, H = objective.derivatives(here.par, here.factor)
        step, decrement, least, direction = _newton_step(g, H)
        curvature = max(np.abs(np.diag(H)).max(), 1.0)
        saddle = least < -1e-6 * curvature
        converged = decrement < control.decrement
        if converged and saddle:
            here, moved = _leave_saddle(objective, here, direction)
            if moved:
                continue
        cap = max(0.2, 0.77 * float(np.abs(here.par).max()))
        longest = float(np.abs(step).max())
        if longest > cap:
            step = step * (cap / longest)
        there = _backtrack(objective, here, step, noise, 1 if converged else 30)
        if converged:
            return (there or here), g, H, Status.CONVERGED, iteration
        if there is None:
            flat = decrement < 1e-6 * (1.0 + abs(here.f))
            return here, g, H, Status.CONVERGED if flat and not saddle else Status.STALLED, iteration
        here = there
    return here, g, H, Status.MAX_ITERATIONS, control.max_iterations


def _leave_saddle(objective: Objective, here: _Trial, direction: np.ndarray) -> tuple[_Trial, bool]:
    """A tenth along the direction of negative curvature, halved until the criterion falls."""
    for size in (0.1, -0.1, 0.02, -0.02, 0.004):
        there = _try(objective, here.par + size * direction)
        if there.f < here.f - 1e-12 * (1 + abs(here.f)):
            return there, True
    return here, False


def _backtrack(objective: Objective, here: _Trial, step: np.ndarray, noise: float, tries: int) -> _Trial | None:
    """The first of step, 0.4 step, 0.16 step ... at which the criterion does not rise."""
    scale = 1.0
    for _ in range(tries):
        there = _try(objective, here.par + scale * step)
        if there.f <= here.f + noise:
            return there
        scale *= 0.4
    return None


def _snap(objective: Objective, trial: _Trial, index: np.ndarray) -> tuple[_Trial, bool]:
    """Put scales that vanish at the optimum exactly on zero, if the criterion does not mind."""
    small = index[np.abs(trial.par[index]) < 2e-3]
    if not len(small):
        return trial, False
    par = trial.par.copy()
    par[small] = 0.0
    there = _try(objective, par)
    if there.f <= trial.f + 1e-10 * (1.0 + abs(trial.f)):
        return there, True
    for one in small:  # together they were not all zero: one at a time
        par = trial.par.copy()
        par[one] = 0.0
        there = _try(objective, par)
        if there.f <= trial.f + 1e-10 * (1.0 + abs(trial.f)):
            return there, True
    return trial, False


def minimize(objective: Objective, start: np.ndarray, scales: np.ndarray, control: Control) -> tuple[Optimum, object]:
    """The best of one or two Newton runs; returns the optimum and the factor there.

    ``scales`` are the positions of parameters whose zero is a boundary. A second start is made when the first
    run was slow or ended on the boundary: with several random effects that is where other optima hide.
    """
    if not len(start):
        factor = objective.factor(start)
        return Optimum(start, factor.profile.f, start, np.zeros((0, 0)), Status.NO_PARAMETERS, 0), factor
    best: tuple[_Trial, bool, np.ndarray, np.ndarray, Status] | None = None
    total = 0
    for scale in (1.0, 0.3, 2.5):
        trial, g, H, status, used = _descend(objective, start * scale, control)
        trial, boundary = _snap(objective, trial, scales)
        total += used
        if best is None or trial.f < best[0].f - 1e-9 * (1.0 + abs(trial.f)) or (status.ok and not best[4].ok):
            best = (trial, boundary, g, H, status)
        suspicious = used > 15 or not status.ok or (boundary and len(start) > 2)
        if not control.restarts or not suspicious:
            break
    trial, boundary, g, H, status = best
    if boundary and status is Status.CONVERGED:
        status = Status.CONVERGED_BOUNDARY
    return Optimum(trial.par, trial.f, g, H, status, total), trial.factor
