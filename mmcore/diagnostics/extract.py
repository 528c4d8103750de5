"""The matrices of a fit, for those who want to do their own algebra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ..results.argument import of_fit
from ..results.fit import Fit

__all__ = ["DesignMatrices", "extract_design"]


@dataclass(frozen=True, slots=True)
class DesignMatrices:
    """y = X beta + Z b + e with Var(b) = sigma^2 D, Var(y) = V; rows in the order of the data."""

    Y: np.ndarray  # (n,) response less offset
    X: np.ndarray  # (n, p)
    Z: sp.csc_array  # (n, q) terms in order, level after level, effects fastest
    D: sp.csc_array  # (q, q) relative covariance of b, block diagonal
    V: sp.csc_array  # (n, n) covariance of Y, sigma^2 included


@of_fit
def extract_design(fit: Fit) -> DesignMatrices:
    """Y, X, Z, D and V = sigma^2 (W^-1 + Z D Z') as matrices, the large ones sparse.

    HLMdiag's extract_design (for lme), with prior weights in V. V is as full as rows share levels: with one
    factor of many levels it is sparse, with crossed factors it may hold n^2 numbers. Nothing else here
    forms it.
    """
    fit.require_rows("extract_design")
    design = fit.design
    blocks = [
        sp.kron(sp.eye_array(len(t.levels)), sp.coo_array(L @ L.T))
        for t, L in zip(design.terms, fit.Lambda, strict=True)
    ]
    Z = sp.csc_array(design.Z())
    D = sp.csc_array(sp.block_diag(blocks)) if blocks else sp.csc_array((0, 0))
    W_inv = sp.diags_array(np.ones(design.n) if design.weights is None else 1.0 / design.weights)
    V = sp.csc_array(fit.sigma**2 * (W_inv + Z @ D @ Z.T if blocks else W_inv))
    Y = design.y if design.offset is None else design.y - design.offset
    return DesignMatrices(Y, design.X, Z, D, V)
