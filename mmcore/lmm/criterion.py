"""The profiled criterion of a linear mixed model as a function of its covariance parameters."""

from __future__ import annotations

import numpy as np

from ..covariance.blocks import BlockCovariance, structure_for
from ..design.build import Design
from ..errors import DataError, DesignError
from ..kernels import Factor, Kernel, kernel_for
from ..kernels.identified import linked_effects, present
from ..kernels.products import CrossProducts, cross_products
from ..kernels.profile import Likelihood
from ..kernels.whitened import resummed
from .start import start_covariance

__all__ = ["Criterion", "covariance_of", "criterion_for"]

EXACT = 16 * np.finfo(float).eps  # relative residual that is rounding of the response
LOST = 1e-5  # part that V^-1 leaves of a column of X or of y, below which the criterion lacks digits


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

    def charted(self) -> tuple[Criterion, np.ndarray]:
        """The same criterion in the coordinates of the products, and parameters to start from."""
        linked = [linked_effects(present(gram)) for gram in self.kernel.level_grams()]
        work = Criterion(self.kernel, self.covariance.charted().separated(linked), self.like)
        return work, work.covariance.start(start_covariance(self.kernel, self.like.sigma))

    def rechart(self, par: np.ndarray) -> tuple[Criterion, np.ndarray] | None:
        """The criterion in better charts and the parameters there, or None if the present ones will do."""
        found = self.covariance.rechart(par)
        return None if found is None else (Criterion(self.kernel, found[0], self.like), found[1])

    @property
    def n_random(self) -> int:
        """Random effects in all."""
        return sum(b.K * b.L for b in self.kernel.A.blocks)


def criterion_for(design: Design, like: Likelihood, products: CrossProducts | None = None) -> Criterion:
    """The criterion of a design; ``products`` may be given when they exist already.

    Raises DataError for a weight of zero and a response out of range, DesignError when the fixed effects alone
    reproduce the response.
    """
    if design.weights is not None and design.terms and not design.weights.all():
        raise DataError(
            f"row {design.index[int(np.argmin(design.weights))]!r} has weight 0: it says nothing about the model "
            "and its log-likelihood is not finite; drop the rows of weight 0"
        )
    products = cross_products(design) if products is None else products
    if design.terms:
        _refuse_perfect(products)
    return Criterion(kernel_for(products), covariance_of(design, products), like)


def covariance_of(design: Design, products: CrossProducts) -> BlockCovariance:
    """The structures of a design's terms, with standard parameters, in the frames of its products."""
    structures = [structure_for(t.structure, len(t.effects), t.homogeneous) for t in design.terms]
    for block in products.blocks:
        at = 0
        for t in block.terms:
            rows = slice(at, at + structures[t].k)
            if block.frame is not None:
                structures[t] = structures[t].framed(block.frame[rows, rows])
            at = rows.stop
    return BlockCovariance([b.terms for b in products.blocks], structures)


def _refuse_perfect(A: CrossProducts) -> None:
    """A response without a residual after the fixed effects, or too large or small to be squared."""
    left, total = float(A.A[-1, -1]), float(A.A[-1, -1] + A.gamma0 @ A.gamma0)
    if not 1e-200 < total / A.n < 1e200:
        size = (total / A.n) ** 0.5
        raise DataError(
            f"the response (less the offset) is of size {size:g}: bring it nearer to 1 by rescaling"
        )
    if left <= EXACT**2 * total:
        raise DesignError(
            f"the fixed effects reproduce the response exactly (relative residual {(left / total) ** 0.5:.1g}): "
            "there is no variance left to model"
        )


def estimates(A: CrossProducts, factor: Factor) -> tuple[np.ndarray, np.ndarray, float]:
    """beta (p,), (X'V^-1X)^-1 (p, p) and sigma at the point of a factor."""
    prof, p, sigma = factor.profile, A.p, factor.like.sigma
    sigma = float(np.sqrt(prof.rss / prof.nu)) if sigma is None else sigma
    if not p:
        return np.zeros(0), np.zeros((0, 0)), sigma
    gamma = np.linalg.solve(prof.LS[:p, :p].T, prof.LS[p, :p])
    half = np.linalg.solve(A.R, prof.LS_inv[:p, :p].T)
    return A.beta(gamma), half @ half.T, sigma
