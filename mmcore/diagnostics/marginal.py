"""What every measure of a linear mixed model needs per row, computed once: V^-1 X, P y, diag V^-1, diag P.

Rows are scaled by the square roots of the prior weights: V = I + Z Sigma Z' there, and
P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1. Fixed effects are in whitened coordinates: with X = Q R and
Q'V^-1Q = L L', delta = L' R (beta - beta*), so that |delta|^2 = (beta - beta*)' X'V^-1X (beta - beta*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from ..errors import UnsupportedError
from ..fit import Fit
from ..glmfit import GeneralizedFit
from ..kernels import Factor, Kernel
from ..products import CrossProducts

__all__ = ["Marginal", "linear", "marginal", "need_fixed", "need_gaussian", "whitened_rows"]

ENOUGH = 1e-2  # least part of a column (or of y) that V^-1 leaves, at which S as a difference has its digits


@dataclass(frozen=True, slots=True)
class Marginal:
    """Rows of the model after V and the fixed effects are taken out; no n x n matrix."""

    fit: Fit
    white: np.ndarray  # (p + 1, n) LS^-1 [Q, r]'V^-1; the last row is P y / sqrt(rss)
    random: list[np.ndarray]  # per block (p + 1, K, L): ``white`` Z Sigma, the random effects of its rows
    v: np.ndarray  # (n,) diagonal of V^-1
    h: np.ndarray  # (n,) squared length of the first p rows of ``white``: v - h is the diagonal of P
    LS_inv: np.ndarray  # (p + 1, p + 1) lower: ``white`` = LS^-1 [Q, r]'V^-1
    half: np.ndarray  # (p, p) beta = half delta
    rss: float  # y'Py

    @property
    def A(self) -> CrossProducts:
        """The products of the fit."""
        return self.fit.criterion_fn.kernel.A

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return self.A.p

    @property
    def Sigma(self) -> list[np.ndarray]:
        """(K, K) relative covariance of every block."""
        return self.fit.criterion_fn.covariance.sigma(self.fit.par)

    @property
    def P(self) -> np.ndarray:
        """(n,) diagonal of P; exactly 0 where rounding would leave less than 1e-11."""
        P = self.v - self.h
        return np.where(P / self.v < 1e-11, 0.0, P)

    @property
    def Py(self) -> np.ndarray:
        """(n,) P y = V^-1 (y - X beta) = sqrt(w) (y - fitted)."""
        return self.white[-1] * np.sqrt(self.rss)


def linear(fit: Fit) -> Fit:
    """The linear model that one-step measures work on: the fit itself, or the working model of a
    generalised one.
    """
    fit.require_rows("a diagnostic")
    return fit.working if isinstance(fit, GeneralizedFit) else fit


def marginal(fit: Fit) -> Marginal:
    """The workspace of a fit. Cost O(n (p + k)) for one factor or a nested chain, O(nnz(C) q) for crossed.

    For a generalised model it is that of the working model at its theta, with its dispersion.
    """
    fit = linear(fit)
    kernel, state = fit.criterion_fn.kernel, fit.state
    A, p, prof = kernel.A, kernel.A.p, state.profile
    white, random, v = whitened_rows(kernel, state)
    LS_inv, rss = prof.LS_inv, prof.rss
    left = np.square(prof.LS.diagonal())
    left[p] /= A.A[p, p]
    if left.min() < ENOUGH:
        Sigma = fit.criterion_fn.covariance.sigma(fit.par)
        C, info = dpotrf(_gram(A, Sigma, white, random), lower=1, clean=1)
        if not info:
            C_inv = dtrtri(C, lower=1)[0]
            white, random, LS_inv = C_inv @ white, [np.tensordot(C_inv, u, 1) for u in random], C_inv @ LS_inv
            rss *= float(C[p, p]) ** 2
    half = np.linalg.solve(A.R, LS_inv[:p, :p].T) if p else np.zeros((0, 0))
    return Marginal(fit, white, random, v, np.einsum("in,in->n", white[:p], white[:p]), LS_inv, half, rss)


def _gram(
    A: CrossProducts, Sigma: list[np.ndarray], white: np.ndarray, random: list[np.ndarray]
) -> np.ndarray:
    """(p + 1, p + 1) white V white': the identity, but for what S lost as a difference of much larger numbers."""
    m = len(white)
    out = white @ white.T
    for block, S, u in zip(A.blocks, Sigma, random, strict=True):
        s = block.products(white)
        rest = u - np.matmul(S, s)  # as in loss._inner_part: rounding of u and s cancels to first order
        out += s.reshape(m, -1) @ u.reshape(m, -1).T + rest.reshape(m, -1) @ s.reshape(m, -1).T
    return out


def whitened_rows(kernel: Kernel, state: Factor) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """(p + 1, n) LS^-1 [Q, r]'V^-1, that times Z Sigma per block, (n,) diagonal of V^-1, at any point theta."""
    A, LS_inv = kernel.A, state.profile.LS_inv
    VM, random = A.M.copy(), state.solve_random(kernel.random_products())
    for block, u in zip(A.blocks, random, strict=True):
        for k, column in enumerate(block.columns):
            for i in range(A.m):
                VM[i] -= column * u[i, k][block.codes]
    return LS_inv @ VM, [np.tensordot(LS_inv, u, 1) for u in random], 1.0 - state.quadratic()


def need_gaussian(fit: Fit, what: str) -> None:
    """Raise for a generalised model."""
    fit.require_rows(what)
    if isinstance(fit, GeneralizedFit):
        raise UnsupportedError(f"{what} are defined for linear models, not for family {fit.family.label()}")


def need_fixed(p: int) -> None:
    """Raise if the model has no fixed effects to be influenced."""
    if not p:
        raise UnsupportedError("the model has no fixed effects, so deletion cannot change them")
