"""The sparse block Z_1'Z_t of a crossed model, and the two ways to eliminate the leading factor from the
rest.

C is (L1 K1) x q_t. Per evaluation two things are needed for a K1 x K1 matrix per leading level: schur(K)  =
sum_l C_l' K_l C_l           (q_t, q_t) spread(N) = C_l N C_l' for every level   (K1, K1, L1) ``Pairs`` writes
both as one sparse matrix of products of pairs of entries, independent of theta, times a vector: cost = number
of pairs. ``Gemm`` uses dense products: cost L1 K1 q_t^2. The cheaper one is chosen by counting.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..products import Block

__all__ = ["Coupling", "choose_eliminator"]

PAIR_BYTES = 12
PAIR_LIMIT = 250_000_000  # 3 GB
GEMM_PER_SECOND = 4.0e10


class Coupling:
    """C by leading level: ``columns`` of level l are ``indices[indptr[l]:indptr[l+1]]``, K1 values each."""

    def __init__(self, lead: Block, tail: list[Block], starts: np.ndarray) -> None:
        self.K, self.L, self.q = lead.K, lead.L, int(starts[-1])
        rows, cols, values = [], [], []
        for block, start in zip(tail, starts[:-1], strict=True):
            for b in range(block.K):
                rows.append(lead.codes)
                cols.append(start + block.codes * block.K + b)
                values.append(block.columns[b])
        row, col = np.concatenate(rows), np.concatenate(cols)
        # one pattern for all K1 effects: the pairs (level, column) that occur together
        pattern = sp.coo_matrix((np.ones(len(row)), (row, col)), shape=(self.L, self.q)).tocsr()
        pattern.sort_indices()
        self.indptr, self.indices = pattern.indptr, pattern.indices
        self.values = np.empty((self.K, len(self.indices)))
        for a in range(self.K):
            entries = np.concatenate([v * lead.columns[a] for v in values])
            matrix = sp.coo_matrix((entries, (row, col)), shape=(self.L, self.q)).tocsr()
            matrix.sort_indices()
            self.values[a] = matrix.data
        self.by_effect = [self.with_values(v) for v in self.values]
        self.by_effect_T = [c.T.tocsr() for c in self.by_effect]

    def with_values(self, values: np.ndarray) -> sp.csr_matrix:
        """(L1, q_t) sparse matrix with the pattern of C."""
        return sp.csr_matrix((values, self.indices, self.indptr), shape=(self.L, self.q))

    def times(self, X: np.ndarray) -> np.ndarray:
        """C X as (r, K1, L1), for X (q_t, r)."""
        out = np.empty((X.shape[1], self.K, self.L))
        for a, c in enumerate(self.by_effect):
            out[:, a] = (c @ X).T
        return out

    def transpose_times(self, X: np.ndarray) -> np.ndarray:
        """C' X as (q_t, r), for X (r, K1, L1)."""
        total = self.by_effect_T[0] @ np.ascontiguousarray(X[:, 0].T)
        for a in range(1, self.K):
            total = total + self.by_effect_T[a] @ np.ascontiguousarray(X[:, a].T)
        return total

    def n_pairs(self) -> int:
        """Pairs of entries that share a leading level."""
        count = np.diff(self.indptr).astype(np.int64)
        return int((count * (count + 1) // 2).sum())


class Pairs:
    """Products of entry pairs (i <= j) by leading level, in the order of the levels."""

    def __init__(self, C: Coupling) -> None:
        self.C = C
        indptr, indices = C.indptr.astype(np.int64), C.indices.astype(np.int64)
        counts = np.repeat(indptr[1:], np.diff(indptr)) - np.arange(len(indices))  # partners at or after
        ends = np.cumsum(counts)
        first = np.repeat(np.arange(len(indices)), counts)
        second = np.arange(int(ends[-1])) - np.repeat(ends - counts, counts) + first
        key = indices[first] * C.q + indices[second]
        self._indptr = np.concatenate([[0], ends])[indptr]
        small = np.int32 if C.q * C.q < 2**31 and ends[-1] < 2**31 else np.int64
        key, self._indptr = key.astype(small), self._indptr.astype(small)
        self._diagonal = np.arange(C.q) * (C.q + 1)
        self._by_effects = []
        v = C.values
        for a in range(C.K):
            for b in range(a + 1):
                data = v[a, first] * v[b, second]
                if a != b:
                    data += v[b, first] * v[a, second]
                matrix = sp.csr_matrix((data, key, self._indptr), shape=(C.L, C.q * C.q), copy=False)
                self._by_effects.append((a, b, matrix, matrix.T))

    def schur(self, K: np.ndarray) -> np.ndarray:
        """(q_t, q_t), upper triangle filled and mirrored: sum_l C_l' K_l C_l."""
        q = self.C.q
        total = np.zeros(q * q)
        for a, b, _, matrix in self._by_effects:
            total += matrix @ K[a, b]
        upper = total.reshape(q, q)
        full = upper + upper.T
        full.ravel()[self._diagonal] = upper.ravel()[self._diagonal]
        return full

    def spread(self, N: np.ndarray) -> np.ndarray:
        """(K1, K1, L1): C_l N C_l' for symmetric N (q_t, q_t)."""
        K = self.C.K
        doubled = 2.0 * N
        doubled.ravel()[self._diagonal] *= 0.5
        flat, out = doubled.ravel(), np.empty((K, K, self.C.L))
        for a, b, matrix, _ in self._by_effects:
            out[a, b] = out[b, a] = (matrix @ flat) * (1.0 if a == b else 0.5)
        return out


class Gemm:
    """The same two operations by dense matrix products."""

    def __init__(self, C: Coupling) -> None:
        self.C = C
        self.dense = [c.toarray() for c in C.by_effect]  # K1 x (L1, q_t)

    def schur(self, K: np.ndarray) -> np.ndarray:
        """(q_t, q_t): sum_l C_l' K_l C_l."""
        total = np.zeros((self.C.q, self.C.q))
        for a in range(self.C.K):
            scaled = self.dense[0] * K[a, 0][:, None]
            for b in range(1, self.C.K):
                scaled += self.dense[b] * K[a, b][:, None]
            total += self.dense[a].T @ scaled
        return 0.5 * (total + total.T)

    def spread(self, N: np.ndarray) -> np.ndarray:
        """(K1, K1, L1): C_l N C_l'."""
        K, out = self.C.K, np.empty((self.C.K, self.C.K, self.C.L))
        for a in range(K):
            CN = self.dense[a] @ N
            for b in range(a + 1):
                out[a, b] = out[b, a] = np.einsum("lq,lq->l", CN, self.dense[b])
        return out


def choose_eliminator(C: Coupling, evaluations: int = 6) -> Pairs | Gemm:
    """The cheaper of the two by operation counts, within the memory of PAIR_LIMIT pairs."""
    effects = C.K * (C.K + 1) // 2
    pairs = C.n_pairs()
    pair_cost = pairs * effects * (45e-9 + 2 * evaluations * 4e-9)
    gemm_cost = 2 * evaluations * 2.0 * C.K * C.L * C.q**2 / GEMM_PER_SECOND
    return Pairs(C) if pair_cost < gemm_cost and pairs * effects < PAIR_LIMIT else Gemm(C)
