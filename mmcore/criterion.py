"""The profiled criterion of a linear mixed model as a function of its covariance parameters."""

from __future__ import annotations

import numpy as np

from .covariance import BlockCovariance, structure_for
from .design import Design
from .kernels import Factor, Kernel, Likelihood, kernel_for
from .products import CrossProducts, cross_products

__all__ = ["Criterion", "criterion_for"]


class Criterion:
    """f(par): -2 log-likelihood or REML criterion, beta and sigma profiled out (Bates et al. 2015, eqs. 34, 41)."""

    def __init__(self, kernel: Kernel, covariance: BlockCovariance, like: Likelihood) -> None:
        self.kernel, self.covariance, self.like = kernel, covariance, like
        self.evaluations = 0

    def factor(self, par: np.ndarray) -> Factor:
        """The factor of V at ``par``; its ``profile.f`` is the criterion."""
        self.evaluations += 1
        return self.kernel.at(self.covariance.sigma(par), self.like)

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


def criterion_for(design: Design, like: Likelihood, products: CrossProducts | None = None) -> Criterion:
    """The criterion of a design; ``products`` may be given when they exist already."""
    products = cross_products(design) if products is None else products
    structures = [structure_for(t.structure, len(t.effects), t.homogeneous) for t in design.terms]
    covariance = BlockCovariance([b.terms for b in products.blocks], structures)
    return Criterion(kernel_for(products), covariance, like)
