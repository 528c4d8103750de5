"""Design + family -> Solution: estimates of a generalized model, or the model at parameters that are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq

from ..design.build import Design
from ..errors import DataError, FitError, UnsupportedError
from ..families.counts import NegativeBinomial
from ..families.dispersion import Dispersion
from ..families.family import Conditional, Family
from ..lmm.fit import checked_theta
from ..optimize.control import Control, Status
from .estimate import mixed_solution, optimizer_info, solve_glm, solve_mixed
from .laplace import JointLaplace, Laplace
from .problem import Problem, Solved, checked_criterion, problem_of
from .response import bind_design
from .size import solve_size
from .start import checked_beta, start_dispersion, start_fixed, start_point

__all__ = ["solve", "solve_at"]

WIDENINGS = 60  # steps of two in log(phi) in which a bracket of the best dispersion is looked for


def solve(
    design: Design,
    family: Family,
    *,
    nagq: int,
    start: Any,
    control: Control,
    criterion: str = "joint",
    quiet: bool = False,
) -> Solved:
    """Estimate the parameters. See :func:`mmcore.glmer` for the arguments and errors."""
    _check(design, family, nagq)
    setup = problem_of(design, nagq, checked_criterion(criterion))
    with np.errstate(all="ignore"):
        if isinstance(family, NegativeBinomial) and family.theta is None:
            return solve_size(design, family, setup, start, control, quiet)
        conditional = bind_design(design, family, quiet)
        if not design.terms:
            return solve_glm(setup, conditional)
        return solve_mixed(setup, conditional, start_point(setup, conditional, start), control)


def _check(design: Design, family: Family, nagq: int) -> None:
    if nagq != int(nagq) or nagq < 0:
        raise UnsupportedError(f"nagq={nagq!r} must be 0, 1 (Laplace) or a number of quadrature points")
    if design.terms and not family.likelihood:
        raise UnsupportedError(
            f"family {family.name} has no likelihood, and a mixed model needs one; overdispersion is "
            "modeled by a random effect per row, (1 | row), or by a negative binomial family"
        )


def solve_at(
    design: Design,
    family: Family,
    theta: Any,
    beta: Any,
    *,
    nagq: int,
    sigma: float | None = None,
    criterion: str = "joint",
) -> Solved:
    """The model at theta and beta (required unless nagq is 0 or there are no fixed effects).

    A dispersion that is a parameter is ``sigma`` squared, or where the likelihood of theta and beta is highest.
    """
    _check(design, family, nagq)
    if not design.terms:
        raise UnsupportedError("a model without random effects has no theta to be evaluated at; use mm.glm")
    setup = problem_of(design, nagq, checked_criterion(criterion))
    values, fixed = checked_theta(theta, setup.covariance), checked_beta(setup, beta)
    if fixed is None and nagq > 0 and len(setup.Q):
        raise DataError("beta must be given: the likelihood is a function of theta and beta")
    if values is None:
        raise DataError("theta must be given")
    with np.errstate(all="ignore"):
        conditional = bind_design(design, family, quiet=True)
        objective, gamma, log_phi = _objective_at(setup, conditional, fixed, sigma)
        x = np.concatenate([gamma, log_phi, setup.covariance.from_theta(values)])
        if objective.dispersion is not None and sigma is None:
            x = _at_best_dispersion(objective, x)
        point = objective.at(x, 1e-26)
        gradient = objective.gradient(point)
    info = optimizer_info(objective.name, 1, 1, gradient, Status.NOT_OPTIMIZED, 0)
    return Solved(mixed_solution(setup, objective, point), family, Status.NOT_OPTIMIZED, info)


def _objective_at(
    setup: Problem, conditional: Conditional, beta: np.ndarray | None, sigma: float | None
) -> tuple[Laplace, np.ndarray, np.ndarray]:
    """The objective without charts, and gamma and log phi as far as they are coordinates of it."""
    joint = setup.is_joint(conditional.family)
    if sigma is not None and not joint:
        raise UnsupportedError(
            f"sigma is a parameter of the likelihood of Gamma, inverse Gaussian and gaussian models with a link only; "
            f"the family is {conditional.family.label()}, the criterion {setup.criterion!r}"
        )
    dispersion, log_phi = None, np.zeros(0)
    if joint:
        if sigma is None:
            start = start_dispersion(conditional, start_fixed(setup, conditional)[1])
        else:
            start = 2.0 * float(np.log(checked_sigma(sigma)))
        dispersion, log_phi = Dispersion(conditional, start), np.array([start])
    objective = setup.objective(conditional, setup.covariance, dispersion)
    if isinstance(objective, JointLaplace):
        objective.start_at(start_fixed(setup, conditional)[0])
        return objective, np.zeros(0), log_phi
    return objective, np.zeros(0) if beta is None else setup.R @ beta, log_phi


def checked_sigma(sigma: float) -> float:
    """A positive finite number, or DataError."""
    try:
        value = float(sigma)
    except (TypeError, ValueError):
        value = np.nan
    if not 0.0 < value < np.inf:
        raise DataError(
            f"sigma={sigma!r} must be a positive finite number: the square root of the dispersion"
        )
    return value


def _at_best_dispersion(objective: Laplace, x: np.ndarray) -> np.ndarray:
    """x with log(phi) where the criterion is lowest, the other coordinates held."""
    at = objective.p - 1

    def slope(log_phi: float) -> float:
        there = x.copy()
        there[at] = log_phi
        point = objective.at(there)
        objective.keep(point)
        return float(objective.gradient(point)[at])

    low = high = float(x[at])
    for _ in range(WIDENINGS):
        if slope(low) <= 0.0:
            break
        high, low = low, low - 2.0
    else:
        raise FitError("the likelihood of these parameters rises as the dispersion falls to zero: give sigma")
    while slope(high) < 0.0:
        high += 2.0
    out = x.copy()
    out[at] = brentq(slope, low, high, xtol=1e-13, rtol=1e-14) if low < high else low
    return out
