"""The size of a negative binomial family, where it is estimated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from ..design.build import Design
from ..families.counts import NegativeBinomial
from ..optimize.control import Control, Status
from .agq import AdaptiveGaussHermite
from .estimate import solve_glm, solve_mixed
from .problem import SIZE_RANGE, Problem, Solved
from .response import bind_design
from .start import Start, start_point

__all__ = ["solve_size"]


def solve_size(
    design: Design, family: NegativeBinomial, setup: Problem, start: Any, control: Control, quiet: bool
) -> Solved:
    """Estimate theta by the root of the derivative of the profiled log-likelihood in log(theta)."""
    bind_design(design, family.with_theta(1.0), quiet)
    search = _SizeSearch(design, family, setup, start, control)
    low, high = _bracket(search.slope, _moment_size(design))
    if low is None or high is None:
        end = SIZE_RANGE[0] if low is None else SIZE_RANGE[1]
        search.slope(end)
        return _at_edge(search.solved, end)
    if setup.nagq > 1:
        search.value(
            float(
                minimize_scalar(search.value, bounds=(low, high), method="bounded", options={"xatol": 1e-9}).x
            )
        )
    else:
        search.slope(float(brentq(search.slope, low, high, xtol=1e-12, rtol=1e-12)))
    solved = search.solved
    return _sized(solved, solved.status)


def _at_edge(solved: Solved, end: float) -> Solved:
    """The likelihood rises up to the end of the range of sizes."""
    status = Status.MAX_ITERATIONS if end == SIZE_RANGE[0] else Status.CONVERGED_BOUNDARY
    return _sized(solved, status)


def _sized(solved: Solved, status: Status) -> Solved:
    solution = replace(solved.solution, size_estimated=True)
    return Solved(solution, solved.family, status, replace(solved.info, message=status.value))


def _moment_size(design: Design) -> float:
    """log(theta) from mean and variance of the response: a start."""
    y = design.y
    mean, var = float(y.mean()), float(y.var())
    return float(np.clip(np.log(mean * mean / max(var - mean, 0.05 * mean)), -3.0, 5.0))


def _bracket(slope: Any, centre: float) -> tuple[float | None, float | None]:
    """Points left and right of the root of an increasing function; None where the range ends first."""
    here, width = slope(centre), 0.7
    low = high = centre
    while here < 0:
        low, high = high, min(high + width, SIZE_RANGE[1])
        if low == high:
            return low, None
        here, width = slope(high), 2.0 * width
    if high > low:
        return low, high
    while here >= 0:
        high, low = low, max(low - width, SIZE_RANGE[0])
        if low == high:
            return None, high
        here, width = slope(low), 2.0 * width
    return low, high


class _SizeSearch:
    """Profiles -2 log-likelihood over everything but the size; remembers the last fit."""

    def __init__(
        self, design: Design, family: NegativeBinomial, setup: Problem, start: Any, control: Control
    ) -> None:
        self.design, self.family, self.setup, self.control = design, family, setup, control
        self.start = start
        self.solved: Any = None

    def _fit(self, log_size: float) -> Solved:
        family = self.family.with_theta(float(np.exp(log_size)))
        conditional = bind_design(self.design, family, quiet=True)
        if not self.design.terms:
            gamma = None if self.solved is None else self.solved.solution.gamma
            self.solved = solve_glm(self.setup, conditional, gamma)
            return self.solved
        if self.solved is None:
            begin = start_point(self.setup, conditional, self.start)
        else:
            last = self.solved.solution
            own = last.objective.covariance
            begin = Start(own, last.gamma, own.from_standard(last.par))
        self.solved = solve_mixed(self.setup, conditional, begin, self.control)
        return self.solved

    def value(self, log_size: float) -> float:
        """-2 log-likelihood with all constants."""
        s = self._fit(log_size).solution
        if s.point is None:
            return s.conditional.minus2loglik(s.at)
        return s.point.f - s.at.D + s.conditional.minus2loglik(s.at)

    def slope(self, log_size: float) -> float:
        """Derivative of :meth:`value`: that at fixed estimates, which are optimal, modes following."""
        s = self._fit(log_size).solution
        direct, dW, ds = s.conditional.family.size_slopes(s.conditional.y, s.conditional.w, s.at)  # type: ignore[attr-defined]
        if s.point is None or s.objective is None:
            return direct
        if isinstance(s.objective, AdaptiveGaussHermite):
            h = 1e-4
            return (self.value(log_size + h) - self.value(log_size - h)) / (2.0 * h)
        modes, system = s.point.modes, s.objective.system
        leverage = modes.factor.leverage()
        t = s.conditional.curvature(modes.at)[0] * leverage
        _, Nc = modes.newton.solve(system.cross(t[None]))
        return direct + float(leverage @ dW) + float(system.times(Nc) @ ds)
