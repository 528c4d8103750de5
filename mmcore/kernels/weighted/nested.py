"""Nested grouping factors: eliminated from the innermost outwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import small
from ..products import Block
from .system import Blocks, System, level_product, scaled_inverse, transposed

__all__ = ["NestedSystem", "NestedWeighted"]


def _apply(B: np.ndarray, X: np.ndarray) -> np.ndarray:
    """(r, K_i, L): B (K_i, K_j, L) applied to every row of X (r, K_j, L)."""
    if B.shape[:2] == (1, 1):
        return X * B[0]
    out = np.zeros((len(X), B.shape[0], X.shape[2]))
    for a in range(B.shape[0]):
        for b in range(B.shape[1]):
            out[:, a] += B[a, b] * X[:, b]
    return out


class NestedSystem(System):
    """Each factor within all later ones: every Schur complement stays block diagonal, cost O(n + sum L)."""

    def __init__(self, blocks: Sequence[Block], parents: dict[tuple[int, int], np.ndarray]) -> None:
        super().__init__(blocks)
        self.parents = parents

    def at(self, w: np.ndarray, Sigma: list[np.ndarray]) -> NestedWeighted:
        J = len(self.blocks)
        if all(self.plain):
            D = [self._gram(0, w)]
            for i in range(1, J):
                sums = np.bincount(self.parents[i - 1, i], D[i - 1][0, 0], self.blocks[i].L)
                D.append(sums.reshape(1, 1, -1))
            return NestedWeighted(self, D, {pair: D[pair[0]] for pair in self.parents}, Sigma)
        D = [self._gram(j, w) for j in range(J)]
        return NestedWeighted(self, D, {pair: self._coupling(*pair, w) for pair in self.parents}, Sigma)

    def _coupling(self, j: int, i: int, w: np.ndarray) -> np.ndarray:
        """(K_i, K_j, L_j): (column a of outer i)'W(column b of inner j) in each level of j."""
        inner, outer = self.blocks[j], self.blocks[i]
        out = np.empty((outer.K, inner.K, inner.L))
        for a in range(outer.K):
            weighted = w * outer.columns[a]
            for b in range(inner.K):
                out[a, b] = np.bincount(inner.codes, weighted * inner.columns[b], inner.L)
        return out

    def up(self, values: np.ndarray, j: int, i: int) -> np.ndarray:
        """Sum the last axis (levels of j) into the levels of its ancestor i."""
        L, parent = self.blocks[i].L, self.parents[j, i]
        flat = values.reshape(-1, values.shape[-1])
        if len(flat) == 1:
            return np.bincount(parent, flat[0], L).reshape(*values.shape[:-1], L)
        return np.array([np.bincount(parent, row, L) for row in flat]).reshape(*values.shape[:-1], L)


class NestedWeighted:
    """Eliminates factor after factor, innermost first."""

    def __init__(
        self,
        system: NestedSystem,
        D: list[np.ndarray],
        coupling: dict[tuple[int, int], np.ndarray],
        Sigma: list[np.ndarray],
    ) -> None:
        self.system, self.D0, self.coupling, self.Sigma = system, D, coupling, Sigma
        self.D, self.B = list(D), dict(coupling)
        self.T_inv: list[np.ndarray] = []
        self.K: list[np.ndarray] = []
        self.logdet = 0.0
        self._pairs: dict[tuple[int, int], np.ndarray] | None = None
        J = len(D)
        for j in range(J):
            part, T_inv, K = scaled_inverse(self.D[j], Sigma[j])
            self.logdet += part
            self.T_inv.append(T_inv)
            self.K.append(K)
            for i in range(j + 1, J):
                BK = level_product(self.B[j, i], K)
                for h in range(i, J):
                    change = level_product(BK, transposed(self.B[j, h]))  # (K_i, K_h, L_j)
                    if h == i:
                        self.D[i] = self.D[i] - system.up(change, j, i)
                    else:
                        self.B[i, h] = self.B[i, h] - system.up(transposed(change), j, i)

    def solve(self, g: Blocks) -> tuple[Blocks, Blocks]:
        system, J = self.system, len(g)
        C = list(g)
        for j in range(J):
            KC = small.left(self.K[j], C[j])
            for i in range(j + 1, J):
                C[i] = C[i] - system.up(_apply(self.B[j, i], KC), j, i)
        out: Blocks = [np.empty(0)] * J
        for j in reversed(range(J)):
            rhs = C[j]
            for i in range(j + 1, J):
                rhs = rhs - _apply(transposed(self.B[j, i]), out[i][:, :, system.parents[j, i]])
            out[j] = small.left(self.K[j], rhs)
        return [a - b for a, b in zip(g, self._gram_times(out), strict=True)], out

    def _gram_times(self, X: Blocks) -> Blocks:
        """A X."""
        out = [small.left(D, x) for D, x in zip(self.D0, X, strict=True)]
        for (j, i), B in self.coupling.items():
            out[i] = out[i] + self.system.up(_apply(B, X[j]), j, i)
            out[j] = out[j] + _apply(transposed(B), X[i][:, :, self.system.parents[j, i]])
        return out

    def _inverse_pairs(self) -> dict[tuple[int, int], np.ndarray]:
        """Blocks (K_j, K_i, L_j) of N between a level of j and its ancestor in i >= j."""
        if self._pairs is not None:
            return self._pairs
        J, parents = len(self.K), self.system.parents
        N: dict[tuple[int, int], np.ndarray] = {}
        for j in reversed(range(J)):
            for i in range(j + 1, J):
                total: np.ndarray | float = 0.0
                for h in range(j + 1, J):
                    at = parents[j, min(h, i)]
                    block = N[h, i][:, :, at] if h <= i else transposed(N[i, h][:, :, at])
                    total = total + level_product(transposed(self.B[j, h]), block)
                N[j, i] = -level_product(self.K[j], np.asarray(total))
            own = self.K[j]
            for h in range(j + 1, J):
                own = own - level_product(
                    self.K[j], level_product(transposed(self.B[j, h]), transposed(N[j, h]))
                )
            N[j, j] = 0.5 * (own + transposed(own))
        self._pairs = N
        return N

    def levels(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of N."""
        N = self._inverse_pairs()
        return [N[j, j] for j in range(len(self.K))]

    def leverage(self) -> np.ndarray:
        system, blocks = self.system, self.system.blocks
        N = self._inverse_pairs()
        if all(system.plain):
            per_level = N[0, 0][0, 0].copy()  # every row of an innermost level has the same
            for (j, i), block in N.items():
                if (j, i) != (0, 0):
                    values = block[0, 0] if i == j else 2.0 * block[0, 0]
                    per_level += values if j == 0 else values[system.parents[0, j]]
            return per_level[blocks[0].codes]
        out = np.zeros(len(blocks[0].codes))
        for (j, i), block in N.items():
            twice = 1.0 if i == j else 2.0
            for a in range(block.shape[0]):
                for b in range(block.shape[1]):
                    out += twice * blocks[j].columns[a] * blocks[i].columns[b] * block[a, b][blocks[j].codes]
        return out

    def information(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of Z'V^-1Z."""
        system, J = self.system, len(self.K)
        W: list[np.ndarray] = []
        couple: dict[tuple[int, int], np.ndarray] = {}  # (j, h) -> Z_h'V_i^-1 Z_j per level of j
        for i in range(J):
            for j in range(i):
                parent = system.parents[j, i]
                B = couple[j, i]
                KB = level_product(self.K[i][:, :, parent], B)
                W[j] = W[j] - level_product(transposed(B), KB)
                for h in range(i + 1, J):
                    couple[j, h] = couple[j, h] - level_product(self.B[i, h][:, :, parent], KB)
            W.append(level_product(self.T_inv[i], self.D[i]))
            for h in range(i + 1, J):
                couple[i, h] = level_product(self.B[i, h], transposed(self.T_inv[i]))
        return W

    def trace(self) -> list[np.ndarray]:
        sums = [w.sum(axis=2) for w in self.information()]
        return [0.5 * (s + s.T) for s in sums]
