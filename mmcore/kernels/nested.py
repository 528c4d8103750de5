"""A chain of nested factors (a within b within c ...): every Schur complement stays block diagonal.

Stage j eliminates factor j. For a level l of j let g(l) be its ancestor in a later factor i. The current
coupling B = Z_i'V_j^-1 Z_j (K_i x K_j per level of j), gram D_j and products C_j = Z_j'V^-1 M give, with
T = I + D Sigma and K = Sigma T^-1:
    D_i -= sum_{children} B K B',   C_i -= sum B K C_j,   S -= sum C' K C.
Cost O(sum L_j) per evaluation: neither n nor a dense matrix enters.
"""

from __future__ import annotations

import numpy as np

from . import small
from .products import CrossProducts
from .profile import Likelihood, profile, whitened

__all__ = ["Nested"]


def _sum_children(values: np.ndarray, parent: np.ndarray, L: int) -> np.ndarray:
    """Sum the last axis (L_inner) into the levels of the ancestor."""
    flat = values.reshape(-1, values.shape[-1])
    return np.array([np.bincount(parent, row, L) for row in flat]).reshape(*values.shape[:-1], L)


class Nested:
    """Products of a chain of nested factors, innermost (most levels) first."""

    exact = False  # second-order matrices are average information
    by_roots = False

    def __init__(self, A: CrossProducts, parents: dict[tuple[int, int], np.ndarray]) -> None:
        self.A, self.blocks, self.parents = A, A.blocks, parents
        J = len(A.blocks)
        self.D = [b.gram() for b in A.blocks]
        self.C = [b.products(A.M) for b in A.blocks]
        # coupling[j, i][a, b, l] = (column a of outer i)'(column b of inner j) in level l of j
        self.coupling = {
            (j, i): A.blocks[j].products(A.blocks[i].columns) for j in range(J) for i in range(j + 1, J)
        }

    def at(
        self, Sigma: list[np.ndarray], like: Likelihood, roots: list[np.ndarray] | None = None
    ) -> NestedFactor:
        """The factor at a relative covariance."""
        return NestedFactor(self, Sigma, like)

    def random_products(self) -> list[np.ndarray]:
        """(m, K, L) per block: Z_j'M of every level."""
        return self.C

    def level_grams(self) -> list[np.ndarray]:
        """(K, K, L) per block: Z_j'Z_j of every level."""
        return self.D

    def cross_moments(self, A: list[np.ndarray]) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """Per ordered pair of blocks (j, k), two (K_j, K_k, L_j) arrays: for effect a of level l of j and effect b
        of k, sums over the levels m of k of c_m^2 and of c_m A_j[:, a, l]'A_k[:, b, m], c_m = Z_jal'Z_kbm.
        """
        out = {}
        for (j, i), B in self.coupling.items():
            parent, squares = self.parents[j, i], np.square(B)
            dots = B * np.einsum("pbl,pal->bal", A[i][:, :, parent], A[j])
            out[j, i] = squares.transpose(1, 0, 2), dots.transpose(1, 0, 2)
            out[i, j] = (
                _sum_children(squares, parent, self.blocks[i].L),
                _sum_children(dots, parent, self.blocks[i].L),
            )
        return out


def _mul(B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(r, s, L): B (r, k, L) times C (k, s, L), level by level."""
    if B.shape[1] == 1:
        return B * C if B.shape[0] == 1 or C.shape[1] == 1 else B[:, 0][:, None] * C[0][None]
    return np.ascontiguousarray(np.matmul(B.transpose(2, 0, 1), C.transpose(2, 0, 1)).transpose(1, 2, 0))


def _t(B: np.ndarray) -> np.ndarray:
    return B.transpose(1, 0, 2)


class NestedFactor:
    """V and the profiled criterion at one Sigma."""

    def __init__(self, kernel: Nested, Sigma: list[np.ndarray], like: Likelihood) -> None:
        self.kernel, self.Sigma, self.like = kernel, Sigma, like
        J = len(kernel.blocks)
        D, self.B = list(kernel.D), dict(kernel.coupling)
        self.D: list[np.ndarray] = []
        self.T_inv: list[np.ndarray] = []
        self.K: list[np.ndarray] = []
        logdet = 0.0
        for j in range(J):
            part, T_inv, K = small.eliminate(D[j], Sigma[j])
            logdet += part
            self.D.append(D[j])
            self.T_inv.append(T_inv)
            self.K.append(K)
            for i in range(j + 1, J):
                BK = _mul(self.B[j, i], K)
                for h in range(i, J):
                    change = _mul(BK, _t(self.B[j, h]))  # (K_i, K_h, L_j)
                    parent = kernel.parents[j, i]
                    if h == i:
                        D[i] = D[i] - _sum_children(change, parent, kernel.blocks[i].L)
                    else:
                        self.B[i, h] = self.B[i, h] - _sum_children(_t(change), parent, kernel.blocks[i].L)
        self.C, self.S = self._eliminate(kernel.C, kernel.A.A)
        self.profile = profile(self.S, logdet, kernel.A, like)

    def _eliminate(self, C0: list[np.ndarray], A: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Carry right-hand sides C0[j] (m, K_j, L_j) through the stages; the Schur complement of A (m, m)."""
        C, S = list(C0), A
        J, m = len(C0), len(A)
        for j in range(J):
            KC = small.left(self.K[j], C[j])  # (m, K_j, L_j)
            S = S - C[j].reshape(m, -1) @ KC.reshape(m, -1).T
            for i in range(j + 1, J):
                change = small_apply(self.B[j, i], KC)
                C[i] = C[i] - _sum_children(change, self.kernel.parents[j, i], self.kernel.blocks[i].L)
        return C, S

    def _weighted(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """W_j = Z_j'V^-1Z_j diagonal blocks (K, K, L) and R_j = Z_j'V^-1M (m, K, L) for every factor."""
        kernel, J = self.kernel, len(self.kernel.blocks)
        W: list[np.ndarray] = []
        R: list[np.ndarray] = []
        couple: dict[tuple[int, int], np.ndarray] = {}  # (j, h) -> Z_h'V_i^-1 Z_j per level of j
        for i in range(J):
            for j in range(i):
                parent = kernel.parents[j, i]
                B, K = couple[j, i], self.K[i][:, :, parent]
                KB = _mul(K, B)  # (K_i, K_j, L_j)
                R[j] = R[j] - small_apply(_t(KB), self.C[i][:, :, parent])
                W[j] = W[j] - _mul(_t(B), KB)
                for h in range(i + 1, J):
                    couple[j, h] = couple[j, h] - _mul(self.B[i, h][:, :, parent], KB)
            W.append(_mul(self.T_inv[i], self.D[i]))
            R.append(small.left(self.T_inv[i], self.C[i]))
            for h in range(i + 1, J):
                couple[i, h] = _mul(self.B[i, h], _t(self.T_inv[i]))
        return W, R

    def derivatives(self, E: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """G per factor and the average-information matrix per_rss f_a'P f_b - curl q_a q_b, f_a = Z E_a e."""
        prof, p = self.profile, self.kernel.A.p
        W, R = self._weighted()
        G, directions = [], []
        for j, (Wj, Rj) in enumerate(zip(W, R, strict=True)):
            Rt = whitened(prof, Rj)
            rows = Rt if self.like.reml else Rt[p:]
            G.append(Wj.sum(axis=2) - np.tensordot(rows, rows, ([0, 2], [0, 2])))
            directions += [(j, np.matmul(Ea, Rt[p])) for Ea in E[j]]
        return [0.5 * (g + g.T) for g in G], self._average_information(directions, R)

    def _average_information(
        self, directions: list[tuple[int, np.ndarray]], R: list[np.ndarray]
    ) -> np.ndarray:
        kernel, prof, p = self.kernel, self.profile, self.kernel.A.p
        F = [np.zeros((len(directions), b.K, b.L)) for b in kernel.blocks]
        for a, (j, f) in enumerate(directions):
            F[j][a] = f
        ZZF = self._apply_gram(F)
        r = len(directions)
        FZZF = sum(f.reshape(r, -1) @ g.reshape(r, -1).T for f, g in zip(F, ZZF, strict=True))
        quad = self._eliminate(ZZF, FZZF)[1]
        RF = sum(Rj.reshape(len(Rj), -1) @ f.reshape(r, -1).T for Rj, f in zip(R, F, strict=True))
        white = prof.LS_inv @ RF
        e = white[p] * (prof.per_rss * prof.rss) ** 0.5
        return quad - white[:p].T @ white[:p] - (prof.curl / prof.per_rss**2) * np.outer(e, e)

    def _apply_gram(self, F: list[np.ndarray]) -> list[np.ndarray]:
        """Z'Z F per factor, F[j] (r, K_j, L_j)."""
        kernel, J = self.kernel, len(F)
        out = [small.left(kernel.D[j], F[j]) for j in range(J)]
        for (j, i), B in kernel.coupling.items():
            parent = kernel.parents[j, i]
            out[i] = out[i] + _sum_children(small_apply(B, F[j]), parent, kernel.blocks[i].L)
            out[j] = out[j] + small_apply(_t(B), F[i][:, :, parent])
        return out

    def solve_random(self, R: list[np.ndarray]) -> list[np.ndarray]:
        """(Sigma^-1 + Z'Z)^-1 R: forward elimination, then back substitution from the outermost factor."""
        J = len(R)
        C = self._eliminate(R, np.zeros((len(R[0]), len(R[0]))))[0]
        out: list[np.ndarray] = [np.empty(0)] * J
        for j in reversed(range(J)):
            rhs = C[j]
            for i in range(j + 1, J):
                rhs = rhs - small_apply(_t(self.B[j, i]), out[i][:, :, self.kernel.parents[j, i]])
            out[j] = small.left(self.K[j], rhs)
        return out

    def _conditional_pairs(self) -> dict[tuple[int, int], np.ndarray]:
        """Blocks N[j, i] (K_j, K_i, L_j) of (Sigma^-1 + Z'Z)^-1 between a level of j and its ancestor in i >=
        j."""
        J = len(self.K)
        N: dict[tuple[int, int], np.ndarray] = {}
        for j in reversed(range(J)):
            for i in range(j + 1, J):
                total = np.zeros(())
                for h in range(j + 1, J):
                    at = self.kernel.parents[j, min(h, i)]
                    block = N[h, i][:, :, at] if h <= i else _t(N[i, h][:, :, at])
                    total = total + _mul(_t(self.B[j, h]), block)
                N[j, i] = -_mul(self.K[j], total)
            own = self.K[j]
            for h in range(j + 1, J):
                own = own - _mul(self.K[j], _mul(_t(self.B[j, h]), _t(N[j, h])))
            N[j, j] = 0.5 * (own + _t(own))
        return N

    def conditional(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of (Sigma^-1 + Z'Z)^-1, per factor."""
        N = self._conditional_pairs()
        return [N[j, j] for j in range(len(self.K))]

    def quadratic(self) -> np.ndarray:
        """(n,) diagonal of Z (Sigma^-1 + Z'Z)^-1 Z'."""
        N, blocks = self._conditional_pairs(), self.kernel.blocks
        out = np.zeros(self.kernel.A.n)
        for (j, i), block in N.items():
            twice = 1.0 if i == j else 2.0
            for a in range(block.shape[0]):
                for b in range(block.shape[1]):
                    out += twice * blocks[j].columns[a] * blocks[i].columns[b] * block[a, b][blocks[j].codes]
        return out


def small_apply(B: np.ndarray, X: np.ndarray) -> np.ndarray:
    """(r, K_i, L): B (K_i, K_j, L) applied to every row of X (r, K_j, L)."""
    if B.shape[:2] == (1, 1):
        return X * B[0]
    out = np.zeros((len(X), B.shape[0], X.shape[2]))
    for a in range(B.shape[0]):
        for b in range(B.shape[1]):
            out[:, a] += B[a, b] * X[:, b]
    return out
