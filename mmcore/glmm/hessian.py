"""Second derivatives of the criterion of a generalized mixed model, and the covariance of beta that they give."""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..optimize.quasinewton import hessian_by_differences
from .laplace import JointLaplace
from .problem import Solution

__all__ = ["beta_block", "hessian_of", "in_beta", "is_unique"]

FLAT = 1e-8  # relative curvature below which the criterion does not depend on a parameter
INDEFINITE = 1e-10  # least eigenvalue relative to the largest, below which the Hessian has no inverse


def hessian_of(solution: Solution) -> np.ndarray:
    """(p + n_par,) square, in (gamma, covariance parameters): gamma = R beta are of comparable sizes.

    Differences of the exact gradient. UnsupportedError for a GLM, and for nagq = 0, whose criterion has no beta.
    """
    s = solution
    if s.objective is None or s.point is None or isinstance(s.objective, JointLaplace):
        raise UnsupportedError("a Hessian in (beta, theta) exists for mixed models with nagq >= 1 only")
    with np.errstate(all="ignore"):
        return hessian_by_differences(s.objective, s.point)


def in_beta(solution: Solution, H: np.ndarray) -> np.ndarray:
    """The same in (beta, covariance parameters)."""
    out, R = H.copy(), solution.R
    p = len(R)
    out[:p] = R.T @ out[:p]
    out[:, :p] = out[:, :p] @ R
    return out


def is_unique(solution: Solution) -> bool:
    """Whether theta is the only one with its covariance; else each of many theta has another Hessian."""
    return solution.covariance.is_unique(solution.par)


def beta_block(solution: Solution, H: np.ndarray) -> np.ndarray | None:
    """(p, p) block of 2 H^-1 for beta, or None where H is not positive definite.

    Parameters that the criterion does not depend on are left out.
    """
    p = len(solution.R)
    if not np.isfinite(H).all():
        return None
    flat = np.abs(H[p:, p:]).sum(axis=1) <= FLAT * np.abs(H).max()
    keep = np.concatenate([np.ones(p, bool), ~flat])
    values, vectors = np.linalg.eigh(H[np.ix_(keep, keep)])
    if values.min() <= INDEFINITE * values.max():
        return None
    half = np.linalg.solve(solution.R, vectors[:p])
    return 2.0 * (half / values) @ half.T
