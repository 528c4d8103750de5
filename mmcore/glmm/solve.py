"""Design + family -> Solution: estimates of a generalised model, or the model at parameters that are
given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..design.build import Design
from ..errors import DataError, UnsupportedError
from ..families.counts import NegativeBinomial
from ..families.family import Family
from ..lmm.fit import checked_theta
from ..optimize.control import Control, Status
from .estimate import mixed_solution, optimizer_info, solve_glm, solve_mixed
from .laplace import JointLaplace
from .problem import Solved, problem_of
from .response import bind_design
from .size import solve_size
from .start import checked_beta, start_fixed, start_point

__all__ = ["solve", "solve_at"]


def solve(
    design: Design, family: Family, *, nagq: int, start: Any, control: Control, quiet: bool = False
) -> Solved:
    """Estimate the parameters. See :func:`mmcore.glmer` for the arguments and errors."""
    _check(design, family, nagq)
    setup = problem_of(design, nagq)
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
            "modelled by a random effect per row, (1 | row), or by a negative binomial family"
        )


# --- generalised linear models ----------------------------------------------------------------------------


# --- mixed models -----------------------------------------------------------------------------------------


# --- at given parameters ----------------------------------------------------------------------------------


def solve_at(design: Design, family: Family, theta: Any, beta: Any, *, nagq: int) -> Solved:
    """The model at theta (and beta: required unless nagq is 0 or there are no fixed effects)."""
    _check(design, family, nagq)
    if not design.terms:
        raise UnsupportedError("a model without random effects has no theta to be evaluated at; use mm.glm")
    setup = problem_of(design, nagq)
    values, fixed = checked_theta(theta, setup.covariance), checked_beta(setup, beta)
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
            objective.start_at(start_fixed(setup, conditional)[0])
            gamma = np.zeros(0)
        point = objective.at(np.concatenate([gamma, par]), 1e-26)
        gradient = objective.gradient(point)
    info = optimizer_info(objective.name, 1, 1, gradient, Status.NOT_OPTIMIZED, 0)
    return Solved(mixed_solution(setup, objective, point), family, Status.NOT_OPTIMIZED, info)


# --- the size of a negative binomial ----------------------------------------------------------------------
