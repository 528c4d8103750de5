"""The estimation problem of a generalized model, and what a solution of it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..covariance.blocks import BlockCovariance, structure_for
from ..design.build import Design
from ..errors import UnsupportedError
from ..families.dispersion import Dispersion
from ..families.family import Conditional, Family, Working
from ..kernels.basis import orthonormal_basis
from ..kernels.products import random_blocks
from ..kernels.weighted.choose import system_for
from ..optimize.control import OptInfo, Status
from .agq import AdaptiveGaussHermite
from .laplace import JointLaplace, Laplace, Point

__all__ = [
    "SIZE_RANGE",
    "START_RANGE",
    "CriterionName",
    "Problem",
    "Solution",
    "Solved",
    "checked_criterion",
    "problem_of",
]

CriterionName = Literal["joint", "lme4"]
START_RANGE = (0.15, 3.0)  # of standard deviations in their charts


# log(theta) of a negative binomial: beyond it the data do not tell theta from 0 or infinity
SIZE_RANGE = (-9.0, 16.0)


@dataclass(frozen=True, slots=True)
class Solution:
    """Where a generalized model was evaluated: estimated, or at parameters that were given."""

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
    dispersion: Dispersion | None = None  # where phi is a parameter of the criterion
    log_phi: float = 0.0  # its logarithm there


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution, the family at its estimated size, and how it was found."""

    solution: Solution
    family: Family
    status: Status
    info: OptInfo


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not depend on parameters, nor on the size of a negative binomial."""

    Q: np.ndarray
    R: np.ndarray
    offset: np.ndarray | float
    blocks: tuple
    covariance: BlockCovariance
    nagq: int
    criterion: CriterionName

    def is_joint(self, family: Family) -> bool:
        """Whether the dispersion is a parameter of the criterion."""
        return self.criterion == "joint" and not family.dispersion_known

    def objective(
        self,
        conditional: Conditional,
        covariance: BlockCovariance,
        dispersion: Dispersion | None = None,
        nagq: int | None = None,
    ) -> Laplace:
        """The objective of a number of quadrature points, in the charts of ``covariance``."""
        nagq = self.nagq if nagq is None else nagq
        args = (conditional, self.Q, self.offset, system_for(self.blocks), covariance, dispersion)
        if nagq == 0:
            return JointLaplace(*args)
        return Laplace(*args) if nagq == 1 else AdaptiveGaussHermite(*args, n_nodes=nagq)


def checked_criterion(criterion: str) -> CriterionName:
    """The name of a criterion, or UnsupportedError."""
    if criterion not in get_args(CriterionName):
        raise UnsupportedError(
            f"criterion={criterion!r} is not one of 'joint' (the likelihood of all parameters, dispersion included) "
            "and 'lme4' (what lme4 minimizes for models with a dispersion)"
        )
    return criterion  # type: ignore[return-value]


def problem_of(design: Design, nagq: int, criterion: CriterionName = "joint") -> Problem:
    """What a design and the choice of a criterion say about the problem."""
    Q, R = orthonormal_basis(np.ascontiguousarray(design.X.T))
    blocks = random_blocks(design.terms, None)
    structures = [structure_for(t.structure, len(t.effects), t.homogeneous) for t in design.terms]
    covariance = BlockCovariance([b.terms for b in blocks], structures)
    return Problem(Q, R, 0.0 if design.offset is None else design.offset, blocks, covariance, nagq, criterion)
