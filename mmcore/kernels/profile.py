"""What the kernels share: the profiled criterion from a Schur complement, and sums over levels.

A *kernel* holds the products of one shape of Z and gives, at a relative covariance Sigma, a *factor*: the
logarithm of |V| and the Schur complement S = M'V^-1M of the fixed effects and the response, and from these
the criterion, its gradient with respect to Sigma and its second-order matrix. V = I + Z Sigma Z' (rows scaled
by sqrt of weights), P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1, nu = n - p (REML) or n (ML), rss = y'Py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, nan, pi

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from ..errors import FitError
from .products import CrossProducts

LOG_2PI = log(2.0 * pi)
TOO_LARGE = (
    "the random effects are so large relative to the residual that their covariance cannot be factored"
)

__all__ = ["TOO_LARGE", "Likelihood", "Profile", "profile", "whitened"]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Which criterion: REML or ML, and a residual standard deviation if it is known; or none at all."""

    reml: bool = True
    sigma: float | None = None
    profiled: bool = True  # False: only the Schur complement is wanted, rows may be too few for a criterion


@dataclass(frozen=True, slots=True)
class Profile:
    """The criterion with beta and sigma profiled out, and the weights its derivatives need."""

    f: float  # -2 log (restricted) likelihood
    LS: np.ndarray  # (m, m) lower, S = LS LS'
    LS_inv: np.ndarray  # (m, m) lower
    rss: float  # y'Py, weighted; Bates et al. 2015: r^2(theta)
    per_rss: float  # d f / d rss = nu / rss, or 1 / sigma^2 if sigma is known
    curl: float  # -d2 f / d rss2 = nu / rss^2, or 0 if sigma is known
    nu: int


_NONE = np.zeros((0, 0))
UNPROFILED = Profile(np.nan, _NONE, _NONE, np.nan, np.nan, np.nan, 0)


def profile(S: np.ndarray, logdet_V: float, A: CrossProducts, like: Likelihood) -> Profile:
    """Bates et al. 2015, eq. 34 (ML) or 41 (REML), from the Schur complement S and log|V|."""
    if not like.profiled:
        return UNPROFILED
    p = A.p
    LS, info = dpotrf(S, lower=1, clean=1)
    if info:
        raise FitError(
            "the residual sum of squares is zero at these variance parameters: the model reproduces the response "
            "exactly, so no residual variance can be estimated. Look for a constant or duplicated response."
            if info == p + 1
            else f"the fixed-effects matrix is numerically rank deficient given the random effects (column {info})"
        )
    diagonal = LS.diagonal()
    rss = float(diagonal[p]) ** 2
    nu = A.n - p if like.reml else A.n
    f = logdet_V - A.sum_log_w
    if like.reml and p:
        f += 2.0 * float(np.log(diagonal[:p]).sum()) + A.logdet_R
    if like.sigma is None and nu <= 0:
        f = per_rss = curl = nan  # no degree of freedom is left for sigma
    elif like.sigma is None:
        per_rss, curl = nu / rss, nu / rss**2
        f += nu * (1.0 + LOG_2PI + log(rss / nu))
    else:
        per_rss, curl = 1.0 / like.sigma**2, 0.0
        f += nu * (LOG_2PI + 2.0 * log(like.sigma)) + rss * per_rss
    return Profile(f, LS, dtrtri(LS, lower=1)[0], rss, per_rss, curl, nu)


def whitened(prof: Profile, R: np.ndarray) -> np.ndarray:
    """Rows LS^-1 R with the last one scaled to sqrt(per_rss) (y - X beta)'V^-1 Z; R is (m, ...)."""
    out = prof.LS_inv @ R.reshape(len(R), -1)
    out[-1] *= (prof.per_rss * prof.rss) ** 0.5
    return out.reshape(R.shape)
