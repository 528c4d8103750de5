"""The profiled criterion of a linear mixed model as a function of its covariance parameters."""

from __future__ import annotations

import numpy as np

from ..covariance.blocks import BlockCovariance
from . import Factor, Kernel
from .products import CrossProducts
from .profile import Likelihood
from .whitened import resummed

__all__ = ["Criterion", "estimates"]

# If V^-1 retains less than this fraction of a column of X (or of y), the criterion is recomputed from the rows:
# cancellation has cost too many digits.
LOST = 1e-5


class Criterion:
    """f(par): -2 log-likelihood or REML criterion, beta and sigma profiled out (Bates et al. 2015, eqs. 34,
    41)."""

    def __init__(self, kernel: Kernel, covariance: BlockCovariance, like: Likelihood) -> None:
        self.kernel, self.covariance, self.like = kernel, covariance, like

    @property
    def exact(self) -> bool:
        """Whether ``derivatives`` returns the Hessian; else it is the average information."""
        return self.kernel.exact

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(n_par,) lower and upper limits of the parameters, None if they are free."""
        return self.covariance.bounds

    def factor(self, par: np.ndarray) -> Factor:
        """The factor of V at ``par``; its ``profile.f`` is the criterion."""
        roots = self.covariance.roots(par) if self.kernel.by_roots else None
        Sigma = self.covariance.sigma(par)
        factor = self.kernel.at(Sigma, self.like, roots)
        factor.profile = resummed(self.kernel, factor, Sigma, LOST)
        return factor

    def derivatives(self, par: np.ndarray, factor: Factor) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (exact) and second-order matrix (exact Hessian or average information) at ``par``.

        With G the gradient in Sigma and E_k = dSigma/dpar_k:  g_k = <E_k, G>,
        H_kl = <second derivative in Sigma>(E_k, E_l) + <G, d2Sigma/dpar_k dpar_l>.
        """
        cov = self.covariance
        E = cov.jacobian(par)
        G, H = factor.derivatives(E)
        g = np.concatenate([Eb.reshape(len(Eb), -1) @ Gb.ravel() for Eb, Gb in zip(E, G, strict=True)])
        return cov.in_par_order(g), cov.in_par_order(H) + cov.curvature(par, G)

    def rechart(self, par: np.ndarray) -> tuple[Criterion, np.ndarray] | None:
        """The criterion in better charts and the parameters there, or None if the present ones will do."""
        found = self.covariance.rechart(par)
        return None if found is None else (Criterion(self.kernel, found[0], self.like), found[1])

    @property
    def n_random(self) -> int:
        """Random effects in all."""
        return sum(b.K * b.L for b in self.kernel.A.blocks)


def estimates(A: CrossProducts, factor: Factor) -> tuple[np.ndarray, np.ndarray, float]:
    """beta (p,), (X'V^-1X)^-1 (p, p) and sigma at the point of a factor."""
    prof, p, sigma = factor.profile, A.p, factor.like.sigma
    if sigma is None:
        sigma = float(np.sqrt(prof.rss / prof.nu)) if prof.nu > 0 else np.nan
    if not p:
        return np.zeros(0), np.zeros((0, 0)), sigma
    gamma = np.linalg.solve(prof.LS[:p, :p].T, prof.LS[p, :p])
    half = np.linalg.solve(A.R, prof.LS_inv[:p, :p].T)
    return A.beta(gamma), half @ half.T, sigma
