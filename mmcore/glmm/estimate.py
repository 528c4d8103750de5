"""Estimates of a generalized model at a given size parameter: IRLS, or the optimum of the approximation."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ..errors import FitError
from ..families.family import Conditional
from ..optimize.control import Control, OptInfo, Status
from ..optimize.quasinewton import Result, quasi_newton
from .agq import AdaptiveGaussHermite
from .irls import Irls, irls
from .laplace import JointLaplace, Laplace, Point
from .problem import Problem, Solution, Solved
from .start import Start

BESIDE_NONE = (
    0.1  # scales in their charts from which an optimum is looked for beside the model without random effects
)

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


def solve_mixed(setup: Problem, conditional: Conditional, start: Start, control: Control) -> Solved:
    """The optimum of the approximated likelihood."""
    objective = setup.objective(conditional, start.covariance, start.dispersion)
    x = _coordinates(setup, start)
    evaluations = 0
    if isinstance(objective, JointLaplace):
        objective.start_at(start.gamma)
    elif isinstance(objective, AdaptiveGaussHermite):
        laplace = setup.objective(conditional, start.covariance, start.dispersion, 1)
        x = quasi_newton(laplace, x, Control(control.max_iterations, 1e-4, False)).point.x
        evaluations = laplace.evaluations
    result = _from_start(setup, objective, x, control)
    if control.restarts and start.dispersion is not None:
        result = _against_none(setup, objective, result, control)
    info = optimizer_info(
        f"quasi-newton, {objective.name}", objective.evaluations + evaluations, result.iterations,
        result.gradient, result.status,
    )  # fmt: skip
    return Solved(mixed_solution(setup, objective, result.point), conditional.family, result.status, info)


def _coordinates(setup: Problem, start: Start) -> np.ndarray:
    """(gamma, log phi, par), without gamma at the joint mode, without log phi where the dispersion is known."""
    gamma = np.zeros(0) if setup.nagq == 0 else start.gamma
    log_phi = np.zeros(0) if start.dispersion is None else np.array([start.log_phi])
    return np.concatenate([gamma, log_phi, start.par])


def _from_start(setup: Problem, objective: Laplace, x: np.ndarray, control: Control) -> Result:
    """The optimum; where the model breaks down at the start, from smaller random effects and means drawn together."""
    try:
        return quasi_newton(objective, x, control)
    except FitError:
        p, fixed = objective.p, objective.p_fixed
        again = x.copy()
        again[p:] *= 0.2
        if fixed:
            mean = np.full(objective.family.n, objective.predictor(x).mean())
            again[:fixed] = 0.7 * x[:fixed] + 0.3 * (setup.Q @ mean)
        return quasi_newton(objective, again, control)


def _against_none(setup: Problem, objective: Laplace, result: Result, control: Control) -> Result:
    """The optimum, or a lower one that is reached from the model without random effects.

    With a dispersion the criterion can have an optimum there and another far from it.
    """
    found = irls(objective.family, setup.Q, setup.offset)
    if not found.converged:
        return result
    assert objective.dispersion is not None
    gamma = np.zeros(0) if isinstance(objective, JointLaplace) else found.gamma
    log_phi = objective.dispersion.estimate(found.at.D)
    x = np.concatenate([gamma, [log_phi], np.zeros(len(result.point.x) - objective.p)])
    try:
        none = objective.at(x)
        if none.f >= result.point.f - 1e-8 * (1.0 + abs(result.point.f)):
            return result
        x[objective.p + objective.covariance.scale_index()] = BESIDE_NONE
        other = quasi_newton(objective, x, control)
    except FitError:
        return result
    return other if other.point.f < result.point.f else result


def mixed_solution(setup: Problem, objective: Laplace, point: Point) -> Solution:
    """The solution at a point of the objective."""
    gamma = point.extra.gamma if isinstance(objective, JointLaplace) else point.x[: objective.p_fixed]  # type: ignore[attr-defined]
    at = point.modes.at
    if objective.dispersion is not None:
        with np.errstate(all="ignore"):
            at = objective.family.at(at.eta)  # without the dispersion, which weights the point's own
    return Solution(
        objective.family,
        setup.Q,
        setup.R,
        gamma,
        at,
        setup.covariance,
        objective.covariance.to_standard(point.x[objective.p :]),
        objective,
        point,
        setup.nagq,
        dispersion=objective.dispersion,
        log_phi=objective.log_phi(point.x),
    )
