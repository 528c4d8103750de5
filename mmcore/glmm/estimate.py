"""Estimates of a generalized model at a given size parameter: IRLS, or the optimum of the approximation."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ..covariance.blocks import BlockCovariance
from ..errors import FitError
from ..families.family import Conditional
from ..optimize.control import Control, OptInfo, Status
from ..optimize.quasinewton import Result, quasi_newton
from .agq import AdaptiveGaussHermite
from .irls import Irls, irls
from .laplace import JointLaplace, Laplace, Point
from .problem import Problem, Solution, Solved

__all__ = ["mixed_solution", "optimizer_info", "solve_glm", "solve_mixed"]


def solve_glm(setup: Problem, conditional: Conditional, start: np.ndarray | None = None) -> Solved:
    found = irls(conditional, setup.Q, setup.offset, start)
    status = Status.CONVERGED
    if not found.converged:
        status = Status.AT_EDGE if found.at_edge else Status.STALLED
    return Solved(
        _glm_solution(setup, conditional, found), conditional.family, status, _irls_info(found, status)
    )


def _glm_solution(setup: Problem, conditional: Conditional, found: Irls) -> Solution:
    par = np.zeros(0)
    return Solution(
        conditional, setup.Q, setup.R, found.gamma, found.at, setup.covariance, par, None, None, 1
    )


def _irls_info(found: Irls, status: Status) -> OptInfo:
    return optimizer_info("irls", found.iterations + 1, found.iterations, np.zeros(0), status)


def optimizer_info(
    method: str, evaluations: int, iterations: int, gradient: np.ndarray, status: Status, starts: int = 1
) -> OptInfo:
    values = {
        "method": method, "evaluations": evaluations, "iterations": iterations, "starts": starts,
        "gradient": gradient, "message": status.value,
    }  # fmt: skip
    return OptInfo(**{field.name: values[field.name] for field in fields(OptInfo)})  # type: ignore[arg-type]


def solve_mixed(
    setup: Problem,
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
    info = optimizer_info(
        f"quasi-newton, {objective.name}", objective.evaluations + evaluations, result.iterations,
        result.gradient, result.status,
    )  # fmt: skip
    return Solved(mixed_solution(setup, objective, result.point), conditional.family, result.status, info)


def _from_start(setup: Problem, objective: Laplace, x: np.ndarray, control: Control) -> Result[Point]:
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


def mixed_solution(setup: Problem, objective: Laplace, point: Point) -> Solution:
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
