"""Small models of any shape: all random effects in one dense factor, exact Hessian.

With A = [Z M]'[Z M] and M1 = I + Lambda' Z'Z Lambda (one Cholesky), a single triangular solve gives
[Z M]'V^-1[Z M] = A - A_z' Lambda M1^-1 Lambda' A_z: the Schur complement, Z'V^-1Z and Z'V^-1M together.
For total q up to about 150; beyond that the structured kernels are faster.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtrs

from ..covariance.triangle import cholesky_psd
from ..errors import FitError
from .products import Block, CrossProducts
from .profile import TOO_LARGE, Likelihood, profile, whitened

__all__ = ["Dense"]


def _random_columns(block: Block, n: int) -> np.ndarray:
    """(K L, n): rows of Z' for one block, level-major, effects fastest."""
    K = block.K
    out = np.zeros((K * block.L, n))
    rows = np.arange(n)
    for a in range(K):
        out[block.codes * K + a, rows] = block.columns[a]
    return out


class Dense:
    """Products of a model with few random effects in all."""

    exact = True  # second-order matrices are Hessians
    by_roots = True  # works with factors of Sigma

    def __init__(self, A: CrossProducts) -> None:
        self.A = A
        self.blocks = A.blocks
        sizes = [b.K * b.L for b in A.blocks]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.q = int(self.starts[-1])
        self.ZM = np.vstack([*(_random_columns(b, A.M.shape[1]) for b in A.blocks), A.M])
        self.products = self.ZM @ self.ZM.T
        self.scalar = all(b.K == 1 for b in A.blocks)

    def at(
        self, Sigma: list[np.ndarray], like: Likelihood, roots: list[np.ndarray] | None = None
    ) -> DenseFactor:
        """The factor at a relative covariance; ``roots``: its lower factors, if known better than from Sigma."""
        return DenseFactor(self, Sigma, like, roots)

    def random_products(self) -> list[np.ndarray]:
        """(m, K, L) per block: Z_j'M of every level."""
        return self.split(self.products[: self.q, self.q :])

    def level_grams(self) -> list[np.ndarray]:
        """(K, K, L) per block: Z_j'Z_j of every level."""
        out = []
        for j, b in enumerate(self.blocks):
            s, levels = slice(self.starts[j], self.starts[j + 1]), np.arange(b.L)
            own = self.products[s, s].reshape(b.L, b.K, b.L, b.K)
            out.append(own[levels, :, levels, :].transpose(1, 2, 0))
        return out

    def cross_moments(self, A: list[np.ndarray]) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """Per ordered pair of blocks (j, k), two (K_j, K_k, L_j) arrays: for effect a of level l of j and effect b
        of k, sums over the levels m of k of c_m^2 and of c_m A_j[:, a, l]'A_k[:, b, m], c_m = Z_jal'Z_kbm.
        """
        out = {}
        for j, b in enumerate(self.blocks):
            for k, d in enumerate(self.blocks):
                if j != k:
                    rows, columns = (slice(self.starts[h], self.starts[h + 1]) for h in (j, k))
                    c = self.products[rows, columns].reshape(b.L, b.K, d.L, d.K)
                    dots = np.einsum("lamb,pbm,pal->abl", c, A[k], A[j], optimize=b.L * d.L > 500)
                    out[j, k] = np.square(c).sum(axis=2).transpose(1, 2, 0), dots
        return out

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """(q, r) -> per block (r, K, L)."""
        return [
            rows[self.starts[j] : self.starts[j + 1]].reshape(b.L, b.K, -1).transpose(2, 1, 0)
            for j, b in enumerate(self.blocks)
        ]


class DenseFactor:
    """V and the profiled criterion at one Sigma."""

    def __init__(
        self, kernel: Dense, Sigma: list[np.ndarray], like: Likelihood, roots: list[np.ndarray] | None = None
    ) -> None:
        self.kernel, self.Sigma, self.like = kernel, Sigma, like
        q = kernel.q
        self.Lambda = [cholesky_psd(s) for s in Sigma] if roots is None else roots
        scaled = self._scale(kernel.products[:q])  # Lambda' Z'[Z M]
        M1 = self._scale(scaled[:, :q].T)
        M1.ravel()[:: q + 1] += 1.0
        self.L, info = dpotrf(M1, lower=1, clean=1)
        if info:
            raise FitError(TOO_LARGE)
        Y = dtrtrs(self.L, scaled, lower=1)[0]
        self.inner = kernel.products - Y.T @ Y  # [Z M]'V^-1[Z M]
        logdet = 2.0 * float(np.log(self.L.diagonal()).sum())
        self.S = self.inner[q:, q:]
        self.profile = profile(self.S, logdet, kernel.A, like)

    def _scale(self, rows: np.ndarray) -> np.ndarray:
        """Lambda' applied to the q rows of a matrix."""
        out = np.empty(rows.shape)
        for j, (block, Lam) in enumerate(zip(self.kernel.blocks, self.Lambda, strict=True)):
            s = slice(self.kernel.starts[j], self.kernel.starts[j + 1])
            if block.K == 1:
                np.multiply(rows[s], Lam[0, 0], out=out[s])
            else:
                piece = rows[s].reshape(block.L, block.K, -1)
                out[s] = np.matmul(Lam.T, piece).reshape(s.stop - s.start, -1)
        return out

    def derivatives(self, E: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """G per block and the exact second-order part: -tr(W E_a W E_b) + 2 per_rss e'E_a W E_b e - curl q_a
        q_b.

        W = Z'PZ (REML; Z'V^-1Z in the trace for ML), e = Z'V^-1(y - X beta), q_a = e'E_a e.
        """
        kernel, prof, q, p = self.kernel, self.profile, self.kernel.q, self.kernel.A.p
        Rt = whitened(prof, self.inner[q:, :q])
        ZVZ = self.inner[:q, :q]
        ZPZ = ZVZ - Rt[:p].T @ Rt[:p]
        W = ZPZ if self.like.reml else ZVZ
        e = Rt[p]  # carries sqrt(per_rss)
        if kernel.scalar:
            return self._scalar_derivatives(E, W, ZPZ, e)
        n_par, at, G = sum(map(len, E)), 0, []
        WE, eE = np.zeros((n_par, q, q)), np.zeros((n_par, q))
        for j, block in enumerate(kernel.blocks):
            s, a = slice(kernel.starts[j], kernel.starts[j + 1]), slice(at, at + len(E[j]))
            K, L = block.K, block.L
            own = W[s, s].reshape(L, K, L, K)
            levels = np.arange(L)
            e_levels = e[s].reshape(L, K)
            G.append(own[levels, :, levels, :].sum(axis=0) - e_levels.T @ e_levels)
            WE[a, :, s] = np.matmul(W[:, s].reshape(q, L, K), E[j][:, None]).reshape(-1, q, L * K)
            eE[a, s] = np.matmul(e_levels, E[j]).reshape(-1, L * K)
            at = a.stop
        H = -WE.reshape(n_par, -1) @ WE.transpose(0, 2, 1).reshape(n_par, -1).T
        quadratic = eE @ e  # per_rss q_a
        H += 2.0 * eE @ ZPZ @ eE.T - (prof.curl / prof.per_rss**2) * np.outer(quadratic, quadratic)
        return [0.5 * (g + g.T) for g in G], 0.5 * (H + H.T)

    def _scalar_derivatives(
        self, E: list[np.ndarray], W: np.ndarray, ZPZ: np.ndarray, e: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The same with one effect per block: sums over blocks of W o W."""
        prof, starts = self.profile, self.kernel.starts[:-1]
        e2 = np.add.reduceat(e * e, starts)
        trace = np.add.reduceat(W.diagonal(), starts)
        WW = np.add.reduceat(np.add.reduceat(W * W, starts, axis=0), starts, axis=1)
        eWe = np.add.reduceat(np.add.reduceat(ZPZ * e * e[:, None], starts, axis=0), starts, axis=1)
        scale = np.array([Ej[0, 0, 0] for Ej in E])
        H = -WW + 2.0 * eWe - (prof.curl / prof.per_rss**2) * e2[:, None] * e2
        return [np.array([[g]]) for g in trace - e2], H * scale * scale[:, None]

    def _half(self) -> np.ndarray:
        """(q, q) H = L^-1 Lambda', with H'H = (Sigma^-1 + Z'Z)^-1.

        Applied in two halves: H'H formed first would lose the digits that large random effects cost twice.
        """
        q = self.kernel.q
        Lam = np.zeros((q, q))
        for j, (block, small) in enumerate(zip(self.kernel.blocks, self.Lambda, strict=True)):
            s = self.kernel.starts[j]
            for level in range(block.L):
                at = slice(s + level * block.K, s + (level + 1) * block.K)
                Lam[at, at] = small
        return dtrtrs(self.L, Lam.T, lower=1)[0]

    def solve_random(self, R: list[np.ndarray]) -> list[np.ndarray]:
        """(Sigma^-1 + Z'Z)^-1 R, per block (r, K, L) in and out."""
        stacked = np.vstack([r.transpose(2, 1, 0).reshape(-1, len(r)) for r in R])
        H = self._half()
        return self.kernel.split(H.T @ (H @ stacked))

    def conditional(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of (Sigma^-1 + Z'Z)^-1, per block."""
        H = self._half()
        N, out = H.T @ H, []
        for j, b in enumerate(self.kernel.blocks):
            s = slice(self.kernel.starts[j], self.kernel.starts[j + 1])
            levels = np.arange(b.L)
            out.append(N[s, s].reshape(b.L, b.K, b.L, b.K)[levels, :, levels, :].transpose(1, 2, 0))
        return out

    def quadratic(self) -> np.ndarray:
        """(n,) diagonal of Z (Sigma^-1 + Z'Z)^-1 Z'."""
        HZ = self._half() @ self.kernel.ZM[: self.kernel.q]
        return np.einsum("in,in->n", HZ, HZ)
