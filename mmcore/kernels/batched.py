"""The factor of V for many deletions at once: one array operation per step, not one model per step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.blocks import BlockCovariance
from .one_factor import OneFactor
from .profile import LOG_2PI, Likelihood

__all__ = ["BatchedFactor", "Deletions", "PairProducts", "QuadraticCovariance"]


@dataclass(frozen=True, slots=True)
class Deletions:
    """What each deletion leaves: the changed level's products and the totals."""

    rows: list[np.ndarray]  # of each unit, for units that need the careful optimizer
    level: np.ndarray  # (U,) the level that changes
    U: np.ndarray  # (U, K + m, K) its products without the deleted rows
    A: np.ndarray  # (U, m, m) M M'
    n: np.ndarray  # (U,) rows left
    sum_log_w: np.ndarray  # (U,)

    def take(self, at: np.ndarray) -> Deletions:
        """Some of the units."""
        rows = [self.rows[i] for i in at]
        return Deletions(rows, self.level[at], self.U[at], self.A[at], self.n[at], self.sum_log_w[at])


class QuadraticCovariance:
    """Sigma(par) and its derivatives for B parameter vectors, when Sigma is quadratic in them (us, diag)."""

    def __init__(self, cov: BlockCovariance) -> None:
        # dSigma / dpar is linear in par, so its values at the unit vectors are all there is to know
        self.tensor = np.stack([cov.jacobian(e)[0] for e in np.eye(cov.n_par)], axis=-1)

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        """(B, n_par, K, K)."""
        return np.tensordot(par, self.tensor, ([1], [3]))

    def sigma(self, par: np.ndarray) -> np.ndarray:
        """(B, K, K)."""
        return 0.5 * np.einsum("bt,btij->bij", par, self.jacobian(par))

    def curvature(self, G: np.ndarray) -> np.ndarray:
        """(B, n_par, n_par): <G, second derivative of Sigma>."""
        return np.tensordot(G, self.tensor, ([1, 2], [1, 2]))


def _mul(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """(B, K, K, L): products A B of K x K matrices, level by level (a last axis of 1 is broadcast)."""
    K = A.shape[1]
    if K == 1:
        return A * B
    shape = np.broadcast_shapes(A.shape, B.shape)
    out = np.empty(shape)
    for a in range(K):
        for b in range(K):
            total = A[:, a, 0] * B[:, 0, b]
            for c in range(1, K):
                total += A[:, a, c] * B[:, c, b]
            out[:, a, b] = total
    return out


def _inverse(T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) sum over levels of log |T| and (B, K, K, L) T^-1."""
    K = T.shape[1]
    if K == 1:
        return np.log(T[:, 0, 0]).sum(axis=1), 1.0 / T
    if K == 2:
        det = T[:, 0, 0] * T[:, 1, 1] - T[:, 0, 1] * T[:, 1, 0]
        out = np.empty_like(T)
        np.divide(T[:, 1, 1], det, out=out[:, 0, 0])
        np.divide(T[:, 0, 0], det, out=out[:, 1, 1])
        np.divide(T[:, 0, 1], -det, out=out[:, 0, 1])
        np.divide(T[:, 1, 0], -det, out=out[:, 1, 0])
        return np.log(det).sum(axis=1), out
    moved = np.ascontiguousarray(T.transpose(0, 3, 1, 2))
    logdet = np.linalg.slogdet(moved)[1].sum(axis=1)
    return logdet, np.ascontiguousarray(np.linalg.inv(moved).transpose(0, 2, 3, 1))


class PairProducts:
    """C_i C_j' of every level: what turns sums over levels into matrix products that all deletions share."""

    def __init__(self, kernel: OneFactor) -> None:
        K = kernel.block.K
        C = kernel.U[K:]
        m, _, L = C.shape
        self.kernel, self.D, self.C = kernel, kernel.U[:K], C
        pairs = C[:, None, :, None] * C[None, :, None]  # [i, j, a, b, l]
        self.flat = pairs.reshape(m * m, K * K * L)

    @staticmethod
    def nbytes(kernel: OneFactor) -> int:
        """Memory that the pairs take."""
        return 8 * kernel.A.m**2 * kernel.block.K**2 * kernel.block.L


class BatchedFactor:
    """The profiled criterion of B deletions, each at its own Sigma (B, K, K)."""

    def __init__(self, pairs: PairProducts, like: Likelihood, d: Deletions, Sigma: np.ndarray) -> None:
        B, K = Sigma.shape[:2]
        self.pairs, self.like, self.d, self.every = pairs, like, d, np.arange(B)
        self.C_new, self.C_old = d.U[:, K:], pairs.C[:, :, d.level].transpose(2, 0, 1)  # (B, m, K)
        D = np.repeat(pairs.D[None], B, axis=0)
        D[self.every, :, :, d.level] = d.U[:, :K]
        T = _mul(D, Sigma[:, :, :, None])
        T.reshape(B, K * K, -1)[:, :: K + 1] += 1.0
        logdet, self.T_inv = _inverse(T)
        self.D = D
        K_all = _mul(Sigma[:, :, :, None], self.T_inv)
        self.S = d.A - self._over_levels(K_all[:, None])[:, 0]
        self._profile(logdet)

    def _over_levels(self, X: np.ndarray) -> np.ndarray:
        """(B, r, m, m): sum over levels of C X C' for X (B, r, K, K, L), with the changed level's own C."""
        B, r = X.shape[:2]
        m = self.pairs.kernel.A.m
        total = (X.reshape(B * r, -1) @ self.pairs.flat.T).reshape(B, r, m, m)
        own = X[self.every, :, :, :, self.d.level]  # (B, r, K, K)
        new, old = self.C_new[:, None], self.C_old[:, None]
        return total + new @ own @ new.swapaxes(2, 3) - old @ own @ old.swapaxes(2, 3)

    def _by_level(self, Om: np.ndarray) -> np.ndarray:
        """(B, K, K, L): C' Om C of every level for Om (B, m, m), with the changed level's own C."""
        B, K = len(Om), self.D.shape[1]
        out = (Om.reshape(B, -1) @ self.pairs.flat).reshape(B, K, K, -1)
        out[self.every, :, :, self.d.level] = self.C_new.transpose(0, 2, 1) @ Om @ self.C_new
        return out

    def _profile(self, logdet: np.ndarray) -> None:
        A, like, d = self.pairs.kernel.A, self.like, self.d
        p = A.p
        self.LS = np.linalg.cholesky(0.5 * (self.S + self.S.transpose(0, 2, 1)))
        diagonal = np.diagonal(self.LS, axis1=1, axis2=2)
        self.rss = diagonal[:, p] ** 2
        self.nu = d.n - p if like.reml else d.n
        f = logdet - d.sum_log_w
        if like.reml and p:
            f = f + 2.0 * np.log(diagonal[:, :p]).sum(axis=1) + A.logdet_R
        if like.sigma is None:
            self.per_rss, self.curl = self.nu / self.rss, self.nu / self.rss**2
            self.f = f + self.nu * (1.0 + LOG_2PI + np.log(self.rss / self.nu))
        else:
            self.per_rss, self.curl = np.full(len(f), like.sigma**-2), np.zeros(len(f))
            self.f = f + self.nu * (LOG_2PI + 2.0 * np.log(like.sigma)) + self.rss * self.per_rss

    def derivatives(self, E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, K, K) gradient in Sigma and (B, n_par, n_par) second-order part for dSigma / dpar = E."""
        B, K, _, L = self.D.shape
        m, p, T_inv = self.S.shape[1], self.pairs.kernel.A.p, self.T_inv
        W = _mul(T_inv, self.D)
        half = np.linalg.inv(self.LS)
        half[:, p] *= np.sqrt(self.per_rss * self.rss)[:, None]
        rows = half if self.like.reml else half[:, p:]
        outer = _mul(_mul(T_inv, self._by_level(rows.transpose(0, 2, 1) @ rows)), T_inv.transpose(0, 2, 1, 3))
        G = (W - outer).sum(axis=3)
        W2 = (2.0 * outer - W).reshape(B, K * K, L)
        Q = np.matmul(W.reshape(B, K * K, L), W2.transpose(0, 2, 1)).reshape(B, K, K, K, K)
        Ek = E.reshape(B, -1, K * K)
        H = Ek @ Q.transpose(0, 4, 1, 2, 3).reshape(B, K * K, K * K) @ Ek.transpose(0, 2, 1)
        # Gram[a, b] = sum over levels of (T^-1 C')_a (T^-1 C')_b', then whitened on both sides
        squared = T_inv[:, :, None, :, None] * T_inv[:, None, :, None]  # [a, b, c, d, l]
        Gram = self._over_levels(squared.reshape(B, K * K, K, K, L))
        Gram = half[:, None] @ Gram @ half.transpose(0, 2, 1)[:, None]
        Pt = Ek @ Gram.reshape(B, K * K, m * m)
        Om = np.ones((B, m, m)) if self.like.reml else np.zeros((B, m, m))
        Om[:, p, :] = Om[:, :, p] = 1.0
        Om[:, p, p] = self.curl / self.per_rss**2
        H = H - (Pt * Om.reshape(B, 1, -1)) @ Pt.transpose(0, 2, 1)
        return 0.5 * (G + G.transpose(0, 2, 1)), 0.5 * (H + H.transpose(0, 2, 1))

    def estimates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """beta (B, p), (X'V^-1X)^-1 (B, p, p) and sigma (B,)."""
        A, B, known = self.pairs.kernel.A, len(self.f), self.like.sigma
        p = A.p
        sigma = np.sqrt(self.rss / self.nu) if known is None else np.full(B, known)
        if not p:
            return np.zeros((B, 0)), np.zeros((B, 0, 0)), sigma
        Lt = self.LS[:, :p, :p].transpose(0, 2, 1)
        gamma = np.linalg.solve(Lt, self.LS[:, p, :p, None])[:, :, 0]
        half = np.linalg.inv(A.R) @ np.linalg.inv(Lt)
        beta = np.linalg.solve(A.R, (A.gamma0 + gamma).T).T
        return beta, half @ half.transpose(0, 2, 1), sigma
