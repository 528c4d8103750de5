"""Design + family -> Solution: estimates of a generalised model, or the model at parameters that are
given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from .agq import AdaptiveGaussHermite
from .covariance import BlockCovariance, structure_for
from .design import Design
from .errors import DataError, FitError, UnsupportedError
from .families import Conditional, Family, NegativeBinomial, Working
from .fit import OptInfo
from .irls import Irls, irls
from .laplace import JointLaplace, Laplace, Point
from .optimize import Control, Status
from .products import orthonormal_basis, random_blocks
from .quasinewton import Result, quasi_newton
from .response import bind_design
from .weighted import system_for

__all__ = ["Solution", "Solved", "solve", "solve_at"]

START_RANGE = (0.15, 3.0)  # of standard deviations in their charts
SIZE_RANGE = (
    -9.0,
    16.0,
)  # log(theta) of a negative binomial: beyond it the data do not tell theta from 0 or infinity


@dataclass(frozen=True, slots=True)
class Solution:
    """Where a generalised model was evaluated: estimated, or at parameters that were given."""

    conditional: Conditional  # family bound to the response
    Q: np.ndarray  # (p, n) rows of an orthonormal basis of X
    R: np.ndarray  # (p, p) upper, X = Q'R
    gamma: np.ndarray  # (p,) R beta
    at: Working  # the family at the linear predictor
    covariance: BlockCovariance  # structures of the random terms, without charts
    par: np.ndarray  # (n_par,) canonical
    objective: Laplace | None  # None for a GLM
    point: Point | None  # in the coordinates of the objective
    nagq: int  # quadrature points: 1 Laplace, 0 fixed effects at the joint mode
    size_estimated: bool = False  # whether theta of a negative binomial family was estimated


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution, the family at its estimated size, and how it was found."""

    solution: Solution
    family: Family
    status: Status
    info: OptInfo


@dataclass(frozen=True, slots=True)
class _Setup:
    """What does not depend on parameters, nor on the size of a negative binomial."""

    Q: np.ndarray
    R: np.ndarray
    offset: np.ndarray | float
    blocks: tuple
    covariance: BlockCovariance
    nagq: int

    def objective(
        self, conditional: Conditional, covariance: BlockCovariance, nagq: int | None = None
    ) -> Laplace:
        """The objective of a number of quadrature points, in the charts of ``covariance``."""
        nagq = self.nagq if nagq is None else nagq
        args = (conditional, self.Q, self.offset, system_for(self.blocks), covariance)
        if nagq == 0:
            return JointLaplace(*args)
        return Laplace(*args) if nagq == 1 else AdaptiveGaussHermite(*args, n_nodes=nagq)


def _setup(design: Design, nagq: int) -> _Setup:
    Q, R = orthonormal_basis(np.ascontiguousarray(design.X.T))
    blocks = random_blocks(design.terms, None)
    structures = [structure_for(t.structure, len(t.effects), t.homogeneous) for t in design.terms]
    covariance = BlockCovariance([b.terms for b in blocks], structures)
    return _Setup(Q, R, 0.0 if design.offset is None else design.offset, blocks, covariance, nagq)


def solve(
    design: Design, family: Family, *, nagq: int, start: Any, control: Control, quiet: bool = False
) -> Solved:
    """Estimate the parameters. See :func:`mmcore.glmer` for the arguments and errors."""
    _check(design, family, nagq)
    setup = _setup(design, nagq)
    with np.errstate(all="ignore"):
        if isinstance(family, NegativeBinomial) and family.theta is None:
            return _with_size(design, family, setup, start, control, quiet)
        conditional = bind_design(design, family, quiet)
        if not design.terms:
            return _glm(setup, conditional)
        return _mixed(setup, conditional, _start(setup, conditional, start), control)


def _check(design: Design, family: Family, nagq: int) -> None:
    if nagq != int(nagq) or nagq < 0:
        raise UnsupportedError(f"nagq={nagq!r} must be 0, 1 (Laplace) or a number of quadrature points")
    if design.terms and not family.likelihood:
        raise UnsupportedError(
            f"family {family.name} has no likelihood, and a mixed model needs one; overdispersion is "
            "modelled by a random effect per row, (1 | row), or by a negative binomial family"
        )


# --- generalised linear models ----------------------------------------------------------------------------


def _glm(setup: _Setup, conditional: Conditional, start: np.ndarray | None = None) -> Solved:
    found = irls(conditional, setup.Q, setup.offset, start)
    status = Status.CONVERGED if found.converged else Status.MAX_ITERATIONS
    return Solved(
        _glm_solution(setup, conditional, found), conditional.family, status, _irls_info(found, status)
    )


def _glm_solution(setup: _Setup, conditional: Conditional, found: Irls) -> Solution:
    par = np.zeros(0)
    return Solution(
        conditional, setup.Q, setup.R, found.gamma, found.at, setup.covariance, par, None, None, 1
    )


def _irls_info(found: Irls, status: Status) -> OptInfo:
    return _info("irls", found.iterations + 1, found.iterations, np.zeros(0), status)


def _info(
    method: str, evaluations: int, iterations: int, gradient: np.ndarray, status: Status, starts: int = 1
) -> OptInfo:
    values = {
        "method": method, "evaluations": evaluations, "iterations": iterations, "starts": starts,
        "gradient": gradient, "message": status.value,
    }  # fmt: skip
    return OptInfo(**{field.name: values[field.name] for field in fields(OptInfo)})  # type: ignore[arg-type]


# --- mixed models -----------------------------------------------------------------------------------------


def _start(
    setup: _Setup, conditional: Conditional, start: Any
) -> tuple[BlockCovariance, np.ndarray, np.ndarray]:
    """Charted covariance, gamma and par to start from."""
    theta, beta = _given(setup, start)
    if beta is None:
        gamma, at = _start_fixed(setup, conditional)
    else:
        gamma = setup.R @ beta
        at = conditional.at(np.zeros(conditional.n) + setup.offset + gamma @ setup.Q)
        if not np.isfinite(at.D):
            raise DataError(f"the given start has means outside the domain of {conditional.family.label()}")
    charts = _charts(setup, conditional, at)
    covariance = setup.covariance.charted(charts)
    if theta is None:
        par = _scaled_start(covariance, _moments(setup, conditional, at, charts))
    else:
        par = covariance.from_standard(setup.covariance.from_theta(theta))
    return covariance, gamma, par


def _given(setup: _Setup, start: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    if start is None:
        return None, None
    parts = dict(start) if isinstance(start, Mapping) else {"theta": start}
    unknown = set(parts) - {"theta", "beta", "fixef"}
    if unknown:
        raise DataError(
            f"start has the unknown entries {', '.join(sorted(map(str, unknown)))}; use theta and beta"
        )
    beta = parts.get("beta", parts.get("fixef"))
    return _checked_theta(setup, parts.get("theta")), _checked_beta(setup, beta)


def _checked_theta(setup: _Setup, theta: Any) -> np.ndarray | None:
    if theta is None:
        return None
    values, n = np.asarray(theta, float).ravel(), setup.covariance.n_theta
    if len(values) != n or not np.isfinite(values).all():
        raise DataError(f"theta needs {n} finite values for this model, got {len(values)}: {values!r}")
    return values


def _checked_beta(setup: _Setup, beta: Any) -> np.ndarray | None:
    if beta is None:
        return None
    values, p = np.asarray(beta, float).ravel(), len(setup.Q)
    if len(values) != p or not np.isfinite(values).all():
        raise DataError(f"beta needs {p} finite values for this model, got {len(values)}: {values!r}")
    return values


def _start_fixed(setup: _Setup, conditional: Conditional) -> tuple[np.ndarray, Working]:
    """Coefficients of the model without random effects: a start, so a rough one will do."""
    found = irls(conditional, setup.Q, setup.offset, tolerance=1e-3)
    return found.gamma, found.at


def _charts(setup: _Setup, conditional: Conditional, at: Working) -> list[np.ndarray]:
    """Diagonal charts in which a standard deviation of order one changes the means by a sizeable part."""
    if not conditional.family.dispersion_known:
        scale = float(
            (conditional.w.mean() / max(at.W.mean(), 1e-300)) ** 0.5
        )  # a residual standard deviation
    elif conditional.family.link.bounded or conditional.family.link.name == "log":
        scale = 1.0
    else:
        scale = float(np.median(np.abs(at.mu / at.m1)))
    charts = []
    for block in setup.blocks:
        size = np.sqrt(np.square(block.columns).mean(axis=1))
        charts.append(np.diag(scale / np.where(size > 0, size, 1.0)))
    return charts


def _scaled_start(covariance: BlockCovariance, sd: list[np.ndarray]) -> np.ndarray:
    """The structures' start with the standard deviations (K,) of each block as its scales."""
    by_term = [np.empty(0)] * len(covariance.structures)
    for b, terms in enumerate(covariance.blocks):
        for t, rows in zip(terms, covariance.rows[b], strict=True):
            by_term[t] = sd[b][rows]
    par = covariance.start()
    par[covariance.scale_index()] = np.concatenate(
        [
            values if len(values) == len(s.scale_index) else np.full(len(s.scale_index), values.mean())
            for s, values in zip(covariance.structures, by_term, strict=True)
        ]
    )
    return par


def _moments(
    setup: _Setup, conditional: Conditional, at: Working, charts: list[np.ndarray]
) -> list[np.ndarray]:
    """Standard deviations (K,) per block, in the chart, from moments of the scores of the fixed model.

    With r = z's and A = z'Wz of a level, E r^2 = A + A^2 variance, other effects left out of account.
    """
    phi = 1.0 if conditional.family.dispersion_known else at.D / conditional.n
    out = []
    for block, C in zip(setup.blocks, charts, strict=True):
        sd = np.empty(block.K)
        for a, z in enumerate(block.columns):
            r = np.bincount(block.codes, z * at.s, block.L)
            A = np.bincount(block.codes, z * z * at.W, block.L)
            excess = float((r @ r / phi - A.sum()) / max(A @ A, 1e-300))
            sd[a] = np.sqrt(max(excess, 0.0)) / C[a, a]
        out.append(np.clip(sd, *START_RANGE))
    return out


def _mixed(
    setup: _Setup,
    conditional: Conditional,
    start: tuple[BlockCovariance, np.ndarray, np.ndarray],
    control: Control,
) -> Solved:
    covariance, gamma, par = start
    objective = setup.objective(conditional, covariance)
    x = par if setup.nagq == 0 else np.concatenate([gamma, par])
    evaluations = 0
    if isinstance(objective, JointLaplace):
        objective.start_at(gamma)
    elif isinstance(objective, AdaptiveGaussHermite):
        laplace = setup.objective(conditional, covariance, 1)
        x = quasi_newton(laplace, x, Control(control.max_iterations, 1e-4, False)).point.x
        evaluations = laplace.evaluations
    result = _from_start(setup, objective, x, control)
    info = _info(
        f"quasi-newton, {objective.name}", objective.evaluations + evaluations, result.iterations,
        result.gradient, result.status,
    )  # fmt: skip
    return Solved(_mixed_solution(setup, objective, result.point), conditional.family, result.status, info)


def _from_start(setup: _Setup, objective: Laplace, x: np.ndarray, control: Control) -> Result:
    """The optimum; where the model breaks down at the start, from smaller random effects and means drawn
    together.
    """
    try:
        return quasi_newton(objective, x, control)
    except FitError:
        p = objective.p
        again = x.copy()
        again[p:] *= 0.2
        if p:
            again[:p] = 0.7 * x[:p] + 0.3 * (
                setup.Q @ np.full(objective.family.n, objective.predictor(x).mean())
            )
        return quasi_newton(objective, again, control)


def _mixed_solution(setup: _Setup, objective: Laplace, point: Point) -> Solution:
    p = objective.p
    gamma = point.extra.gamma if isinstance(objective, JointLaplace) else point.x[:p]  # type: ignore[attr-defined]
    par = objective.covariance.to_standard(point.x[p:])
    return Solution(
        objective.family,
        setup.Q,
        setup.R,
        gamma,
        point.modes.at,
        setup.covariance,
        par,
        objective,
        point,
        setup.nagq,
    )


# --- at given parameters ----------------------------------------------------------------------------------


def solve_at(design: Design, family: Family, theta: Any, beta: Any, *, nagq: int) -> Solved:
    """The model at theta (and beta: required unless nagq is 0 or there are no fixed effects)."""
    _check(design, family, nagq)
    if not design.terms:
        raise UnsupportedError("a model without random effects has no theta to be evaluated at; use mm.glm")
    setup = _setup(design, nagq)
    values, fixed = _checked_theta(setup, theta), _checked_beta(setup, beta)
    if fixed is None and nagq > 0 and len(setup.Q):
        raise DataError("beta must be given: the likelihood is a function of theta and beta")
    if values is None:
        raise DataError("theta must be given")
    with np.errstate(all="ignore"):
        conditional = bind_design(design, family, quiet=True)
        objective = setup.objective(conditional, setup.covariance)
        par = setup.covariance.from_theta(values)
        gamma = np.zeros(0) if fixed is None else setup.R @ fixed
        if isinstance(objective, JointLaplace):
            objective.start_at(_start_fixed(setup, conditional)[0])
            gamma = np.zeros(0)
        point = objective.at(np.concatenate([gamma, par]), 1e-26)
        gradient = objective.gradient(point)
    info = _info(objective.name, 1, 1, gradient, Status.NOT_OPTIMIZED, 0)
    return Solved(_mixed_solution(setup, objective, point), family, Status.NOT_OPTIMIZED, info)


# --- the size of a negative binomial ----------------------------------------------------------------------


def _with_size(
    design: Design, family: NegativeBinomial, setup: _Setup, start: Any, control: Control, quiet: bool
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
        self, design: Design, family: NegativeBinomial, setup: _Setup, start: Any, control: Control
    ) -> None:
        self.design, self.family, self.setup, self.control = design, family, setup, control
        self.start = start
        self.solved: Any = None

    def _fit(self, log_size: float) -> Solved:
        family = self.family.with_theta(float(np.exp(log_size)))
        conditional = bind_design(self.design, family, quiet=True)
        if not self.design.terms:
            gamma = None if self.solved is None else self.solved.solution.gamma
            self.solved = _glm(self.setup, conditional, gamma)
            return self.solved
        if self.solved is None:
            begin = _start(self.setup, conditional, self.start)
        else:
            last = self.solved.solution
            begin = (last.objective.covariance, last.gamma, last.objective.covariance.from_standard(last.par))
        self.solved = _mixed(self.setup, conditional, begin, self.control)
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
