"""One grouping factor with any number of effects: exact Hessian, cost O(L K^2 (K + p)) per evaluation.

Per level l, with D = Z'Z and T = I + D Sigma:  Z'V^-1 = T^-1 Z', so T^-1 [Z'Z, Z'M] gives
W = Z'V^-1Z and R = Z'V^-1M at once, log|V| = sum log|T|, and S = M'M - sum (Z'M)' Sigma R.
No factor of Sigma is needed, so a singular Sigma is an ordinary point.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..covariance.triangle import cholesky_psd
from . import small
from .products import CrossProducts
from .profile import Likelihood, profile, whitened

__all__ = ["OneFactor"]


class OneFactor:
    """Products of a model whose random terms share one grouping factor."""

    exact = True  # second-order matrices are Hessians
    by_roots = True  # works with factors of Sigma

    def __init__(self, A: CrossProducts) -> None:
        (block,) = A.blocks
        self.A, self.block = A, block
        K, L = block.K, block.L
        self.U = np.empty((K + A.m, K, L))  # per level Z'[Z, M], transposed: U[i, a] = (column i)'Z_a
        self.U[:K] = block.gram()
        self.U[K:] = block.products(A.M)

    def at(
        self, Sigma: list[np.ndarray], like: Likelihood, roots: list[np.ndarray] | None = None
    ) -> OneFactorFactor:
        """The factor at a relative covariance; ``roots``: its lower factors, if known better than from Sigma."""
        return OneFactorFactor(self, Sigma[0], like, None if roots is None else roots[0])

    def random_products(self) -> list[np.ndarray]:
        """(m, K, L) per block: Z_j'M of every level."""
        return [self.U[self.block.K :]]

    def level_grams(self) -> list[np.ndarray]:
        """(K, K, L) per block: Z_j'Z_j of every level."""
        return [self.U[: self.block.K]]

    def cross_moments(self, A: list[np.ndarray]) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """No pairs of blocks."""
        return {}


class OneFactorFactor:
    """V and the profiled criterion at one Sigma."""

    def __init__(
        self, kernel: OneFactor, Sigma: np.ndarray, like: Likelihood, root: np.ndarray | None = None
    ) -> None:
        A, U = kernel.A, kernel.U
        K, m = len(Sigma), A.m
        self.kernel, self.Sigma, self.like, self.root = kernel, Sigma, like, root
        logdet, self.T_inv, self.K = small.eliminate(U[:K], Sigma, root)
        R = small.left(self.T_inv, U)
        self.W, self.R = R[:K], R[K:]
        self.S = A.A - U[K:].reshape(m, -1) @ small.left(self.K, U[K:]).reshape(m, -1).T
        self.profile = profile(self.S, logdet, A, like)

    def derivatives(self, E: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """G with df = tr(G dSigma), and the (n_par, n_par) second-order part at constant dSigma, exact.

        H_kl = sum_l tr(E_k W E_l (2B - W)) - sum_ij Om_ij Pt_k[ij] Pt_l[ij], where B = R~R~' and
        Pt_k = sum_l R~' E_k R~ over the whitened rows R~ of R.
        """
        prof, W = self.profile, self.W
        K, _, L = W.shape
        m, p = len(self.R), len(self.R) - 1
        Rt = whitened(prof, self.R)
        Gram = Rt.reshape(m * K, L) @ Rt.reshape(m * K, L).T
        rows = Rt if self.like.reml else Rt[p:]
        B = np.matmul(rows.transpose(2, 1, 0), rows.transpose(2, 0, 1)) if K > 2 else _outer(rows)
        if K > 2:
            B = np.ascontiguousarray(B.transpose(1, 2, 0))
        G = (W - B).sum(axis=2)
        Ek = E[0].reshape(len(E[0]), K * K)
        Q = W.reshape(K * K, L) @ (2.0 * B - W).reshape(K * K, L).T  # [(b, c), (d, a)]
        Q = Q.reshape(K, K, K, K).transpose(3, 0, 1, 2).reshape(K * K, K * K)  # [(a, b), (c, d)]
        H = Ek @ Q @ Ek.T
        Pt = Ek @ Gram.reshape(m, K, m, K).transpose(1, 3, 0, 2).reshape(K * K, m * m)
        Om = np.ones((m, m)) if self.like.reml else np.zeros((m, m))
        Om[p, :] = Om[:, p] = 1.0
        Om[p, p] = prof.curl / prof.per_rss**2
        H -= (Pt * Om.ravel()) @ Pt.T
        return [0.5 * (G + G.T)], 0.5 * (H + H.T)

    @cached_property
    def _half(self) -> np.ndarray:
        """(K, K, L) H with H'H = (Sigma^-1 + Z'Z)^-1."""
        root = cholesky_psd(self.Sigma) if self.root is None else self.root
        return small.half(self.kernel.U[: len(root)], root)

    def solve_random(self, R: list[np.ndarray]) -> list[np.ndarray]:
        """(Sigma^-1 + Z'Z)^-1 R per block, for R (r, K, L); Sigma may be singular."""
        if len(self.Sigma) == 1:
            return [small.left(self.K, R[0])]
        H = self._half
        return [small.left(H.transpose(1, 0, 2), small.left(H, R[0]))]

    def quadratic(self) -> np.ndarray:
        """(n,) diagonal of Z (Sigma^-1 + Z'Z)^-1 Z'."""
        z, codes = self.kernel.block.columns, self.kernel.block.codes
        if len(z) == 1:
            return z[0] * z[0] * self.K[0, 0][codes]
        out = np.zeros(len(codes))
        for row in self._half:
            Hz = row[0][codes] * z[0]
            for column, h in zip(z[1:], row[1:], strict=True):
                Hz += h[codes] * column
            out += Hz * Hz
        return out

    def conditional(self) -> list[np.ndarray]:
        """(K, K, L) blocks of (Sigma^-1 + Z'Z)^-1: conditional variances of b relative to sigma^2."""
        return [self.K]


def _outer(rows: np.ndarray) -> np.ndarray:
    """(K, K, L): sum over rows (r, K, L) of outer products, K <= 2."""
    K = rows.shape[1]
    out = np.empty((K, K, rows.shape[2]))
    for a in range(K):
        for b in range(a + 1):
            out[a, b] = out[b, a] = (rows[:, a] * rows[:, b]).sum(axis=0)
    return out
