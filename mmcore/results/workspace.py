"""What every measure of a linear mixed model needs per row, computed once: V^-1 X, P y, diag V^-1, diag P.

Rows are scaled by the square roots of the prior weights: V = I + Z Sigma Z' there, and
P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1. Fixed effects are in whitened coordinates: with X = Q R and
Q'V^-1Q = L L', delta = L' R (beta - beta*), so that |delta|^2 = (beta - beta*)' X'V^-1X (beta - beta*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedError
from ..kernels.products import CrossProducts
from ..kernels.whitened import whitened_rows
from .fit import Fit, LinearEstimates

__all__ = ["Marginal", "linear", "marginal", "mean_rows", "need_fixed", "need_gaussian"]


@dataclass(frozen=True, slots=True)
class Marginal:
    """Rows of the model after V and the fixed effects are taken out; no n x n matrix."""

    fit: LinearEstimates
    white: np.ndarray  # (p + 1, n) LS^-1 [Q, r]'V^-1; the last row is P y / sqrt(rss)
    random: list[np.ndarray]  # per block (p + 1, K, L): ``white`` Z Sigma, the random effects of its rows
    v: np.ndarray  # (n,) diagonal of V^-1
    h: np.ndarray  # (n,) squared length of the first p rows of ``white``: v - h is the diagonal of P
    half: np.ndarray  # (p, p) beta = half delta

    @property
    def A(self) -> CrossProducts:
        """The products of the fit."""
        return self.fit.kernel.A

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return self.A.p

    @property
    def Sigma(self) -> list[np.ndarray]:
        """(K, K) relative covariance of every block."""
        return self.fit.covariance.sigma(self.fit.par)

    @property
    def rss(self) -> float:
        """y'Py."""
        return self.fit.profile.rss

    @property
    def P(self) -> np.ndarray:
        """(n,) diagonal of P; exactly 0 where rounding would leave less than 1e-11."""
        P = self.v - self.h
        return np.where(P / self.v < 1e-11, 0.0, P)

    @property
    def Py(self) -> np.ndarray:
        """(n,) P y = V^-1 (y - X beta) = sqrt(w) (y - fitted)."""
        return self.white[-1] * np.sqrt(self.rss)


def linear(fit: Fit) -> LinearEstimates:
    """The linear model that one-step measures work on: the fit itself, or the working model of a
    generalised one.
    """
    fit.require_rows("a diagnostic")
    return fit.working


def marginal(fit: Fit) -> Marginal:
    """The workspace of a fit. Cost O(n (p + k)) for one factor or a nested chain, O(nnz(C) q) for crossed.

    For a generalised model it is that of the working model at its theta, with its dispersion.
    """
    model = linear(fit)
    A, p, prof = model.kernel.A, model.design.p, model.profile
    white, random = whitened_rows(model.kernel, model.state, prof)
    half = np.linalg.solve(A.R, prof.LS_inv[:p, :p].T) if p else np.zeros((0, 0))
    v, h = 1.0 - model.state.quadratic(), np.einsum("in,in->n", white[:p], white[:p])
    return Marginal(model, white, random, v, h, half)


def mean_rows(fit: LinearEstimates) -> np.ndarray:
    """(p, n) LS^-1 Q': squared lengths are the diagonal of W^1/2 X (X'V^-1X)^-1 X'W^1/2."""
    A, p = fit.kernel.A, fit.design.p
    return fit.profile.LS_inv[:p, :p] @ A.M[:p]


def need_gaussian(fit: Fit, what: str) -> None:
    """Raise for a generalised model."""
    fit.require_rows(what)
    if fit.family is not None:
        raise UnsupportedError(f"{what} are defined for linear models, not for family {fit.family.label()}")


def need_fixed(p: int) -> None:
    """Raise if the model has no fixed effects to be influenced."""
    if not p:
        raise UnsupportedError("the model has no fixed effects, so deletion cannot change them")
