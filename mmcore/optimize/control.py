"""How to optimize, how it ended, and what was done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

__all__ = ["Control", "OptInfo", "Status"]


class Status(Enum):
    """How the optimization ended; the value is the message for people."""

    CONVERGED = "converged: the Newton decrement is below its tolerance"
    CONVERGED_BOUNDARY = (
        "converged on the boundary: a random-effects variance is zero or a correlation is +-1 (singular fit)"
    )
    MAX_ITERATIONS = (
        "not converged: the iteration limit was reached; raise control.max_iterations or give another start"
    )
    STALLED = (
        "not converged: no step lowered the criterion although the gradient is not zero; try another start"
    )
    AT_EDGE = (
        "not converged: the likelihood rises up to the edge of the domain of the family, where some means are at "
        "their limit; use a link that cannot leave the domain (log, logit) or drop the rows or covariates at the limit"
    )
    NOT_OPTIMIZED = "theta was given, not estimated"
    NO_PARAMETERS = "no covariance parameter to estimate"

    @property
    def ok(self) -> bool:
        """True unless the optimization failed."""
        return self not in (Status.MAX_ITERATIONS, Status.STALLED, Status.AT_EDGE)


@dataclass(frozen=True, slots=True)
class Control:
    """How hard to try."""

    max_iterations: int = 100  # Newton steps per start; five times as many quasi-Newton steps of a GLMM
    # stop when this is left of g'H^-1 g, twice the drop to be had; where second-order matrices are Hessians a
    # thousandth of it, because there one more step is cheap and squares the error
    decrement: float = 1e-9
    restarts: bool = True  # other starts after a slow or failed run


@dataclass(frozen=True, slots=True)
class OptInfo:
    """What the optimizer did."""

    method: str
    evaluations: int  # of the criterion
    iterations: int  # of the criterion with gradient and second-order matrix
    gradient: np.ndarray  # (n_par,) at the last derivative evaluation
    message: str
    starts: int = 1  # optimizer runs; both counts are over all of them
