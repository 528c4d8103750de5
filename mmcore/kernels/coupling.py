"""The sparse block Z_1'Z_t of a crossed model, and two ways to eliminate the leading factor from the rest.

C is (L1 K1) x q_t. Per evaluation two things are needed, with a K1 x K1 matrix per leading level:

    schur(K)  = sum_l C_l' K_l C_l           (q_t, q_t), upper triangle
    spread(N) = C_l N C_l' for every level   (K1, K1, L1), or only sums of it

``Pairs`` writes both as one sparse matrix of products of pairs of entries, independent of theta, times a
vector: cost = number of pairs. ``Gemm`` uses dense products: cost L1 K1 q_t^2. The cheaper one is chosen.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import dsymm

from . import small, symmetric
from .products import Block

__all__ = ["Coupling", "choose_eliminator"]

PAIR_LIMIT = 250_000_000  # 3 GB
PAIRS_AT_ONCE = 2_000_000  # built at a time, so that temporaries stay small
PAIR_BUILD, PAIR_PASS = 30e-9, 2e-9  # seconds per pair: measured on one core of 2020
GEMM_PER_SECOND = 3.0e10  # floating-point operations, dense products on the same core


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
        indptr = C.indptr.astype(np.int64)
        partners = np.repeat(indptr[1:], np.diff(indptr)) - np.arange(
            len(C.indices)
        )  # at or after each entry
        ends = np.concatenate([[0], np.cumsum(partners)])
        total = int(ends[-1])
        small = np.int32 if C.q * C.q < 2**31 and total < 2**31 else np.int64
        key, self._indptr = np.empty(total, dtype=small), ends[indptr].astype(small)
        effects = [(a, b) for a in range(C.K) for b in range(a + 1)]
        data = [np.empty(total) for _ in effects]
        for begin, end in _spans(ends):
            self._fill(partners, ends, slice(begin, end), key, data, effects)
        self._by_effects = []
        for (a, b), values in zip(effects, data, strict=True):
            matrix = sp.csr_matrix((values, key, self._indptr), shape=(C.L, C.q * C.q), copy=False)
            self._by_effects.append((a, b, matrix, matrix.T))

    def _fill(
        self,
        partners: np.ndarray,
        ends: np.ndarray,
        entries: slice,
        key: np.ndarray,
        data: list[np.ndarray],
        effects: list[tuple[int, int]],
    ) -> None:
        """Keys and values of the pairs whose first entry is in ``entries``."""
        C, counts = self.C, partners[entries]
        at = slice(int(ends[entries.start]), int(ends[entries.stop]))
        own = np.arange(entries.start, entries.stop)
        # second = position in the span of pairs - start of the entry's pairs + the entry itself
        second = np.arange(at.stop - at.start) + np.repeat(own - (ends[entries] - at.start), counts)
        key[at] = np.repeat(C.indices[entries].astype(np.int64) * C.q, counts) + C.indices[second]
        for (a, b), values in zip(effects, data, strict=True):
            np.multiply(np.repeat(C.values[a, entries], counts), C.values[b][second], out=values[at])
            if a != b:
                values[at] += np.repeat(C.values[b, entries], counts) * C.values[a][second]

    def schur(self, K: np.ndarray) -> np.ndarray:
        """(q_t, q_t), upper triangle: sum_l C_l' K_l C_l."""
        q = self.C.q
        total = np.zeros(q * q)
        for a, b, _, matrix in self._by_effects:
            total = matrix @ K[a, b] if a == b == 0 else total + matrix @ K[a, b]
        return total.reshape(q, q)

    def spread(self, N: np.ndarray) -> np.ndarray:
        """(K1, K1, L1): C_l N C_l' for symmetric N (q_t, q_t), upper triangle."""
        K, v = self.C.K, self.C.values
        flat, diagonal = N.ravel(), N.diagonal().copy()
        out = np.empty((K, K, self.C.L))
        for a, b, matrix, _ in self._by_effects:
            # the pairs of an entry with itself come once in C_l N C_l', all others twice
            same = self.C.with_values(v[a] * v[b]) @ diagonal
            total = matrix @ flat
            out[a, b] = out[b, a] = 2.0 * total - same if a == b else total - same
        return out

    def traces(self, left: np.ndarray, N: np.ndarray) -> np.ndarray:
        """(K1, K1): sum_l left_l C_l N C_l' left_l'."""
        return _sandwich(left, self.spread(N))


def _spans(ends: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of entries with at most PAIRS_AT_ONCE pairs each (or one entry)."""
    cuts, n = [0], len(ends) - 1
    while cuts[-1] < n:
        cuts.append(
            max(cuts[-1] + 1, int(np.searchsorted(ends, ends[cuts[-1]] + PAIRS_AT_ONCE, "right")) - 1)
        )
    return list(pairwise(cuts))


def _sandwich(left: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """(K, K): sum over levels of left_l Q_l left_l', Q symmetric; all (K, K, L)."""
    half = small.left(left, Q).transpose(1, 0, 2)
    return small.left(left, half).sum(axis=2)


class Gemm:
    """The same two operations by dense matrix products."""

    def __init__(self, C: Coupling) -> None:
        self.C = C
        self.dense = [c.toarray() for c in C.by_effect]  # K1 x (L1, q_t)

    def schur(self, K: np.ndarray) -> np.ndarray:
        """(q_t, q_t), upper triangle: sum_l C_l' K_l C_l, K_l positive semi-definite."""
        C = self.C
        if C.K == 1:
            return symmetric.gram(self.dense[0] * np.sqrt(K[0, 0])[:, None])
        half = _halves(K)
        total = np.zeros((C.q, C.q))
        for b in range(
            C.K
        ):  # one column of the factor at a time: a (L1, q_t) array in memory, not K1 of them
            rows = self.dense[b] * half[b, b][:, None]
            for a in range(b + 1, C.K):
                rows += self.dense[a] * half[a, b][:, None]
            total += symmetric.gram(rows)
        return total

    def spread(self, N: np.ndarray) -> np.ndarray:
        """(K1, K1, L1): C_l N C_l'; N as for ``Pairs``."""
        K, out = self.C.K, np.empty((self.C.K, self.C.K, self.C.L))
        for a in range(K):
            CN = dsymm(1.0, N.T, self.dense[a].T, lower=1).T
            for b in range(a + 1):
                out[a, b] = out[b, a] = np.einsum("lq,lq->l", CN, self.dense[b])
        return out

    def traces(self, left: np.ndarray, N: np.ndarray) -> np.ndarray:
        """(K1, K1): sum_l left_l C_l N C_l' left_l'."""
        if self.C.K == 1:
            return np.array([[symmetric.inner(self.schur(np.square(left)), N)]])
        return _sandwich(left, self.spread(N))


def _halves(K: np.ndarray) -> np.ndarray:
    """(K, K, L) lower factors of positive semi-definite matrices, zero columns where a pivot vanishes."""
    k, out, rest = len(K), np.zeros(K.shape), K.copy()
    for j in range(k):
        pivot = np.sqrt(np.maximum(rest[j, j], 0.0))
        over = np.divide(1.0, pivot, out=np.zeros_like(pivot), where=rest[j, j] > 1e-14 * np.abs(K[j, j]))
        out[j:, j] = rest[j:, j] * over
        for i in range(j + 1, k):
            rest[i:, i] -= out[i:, j] * out[i, j]
    return out


def choose_eliminator(C: Coupling, evaluations: int = 5) -> Pairs | Gemm:
    """The cheaper of the two by operation counts, within the memory of PAIR_LIMIT pairs."""
    effects = C.K * (C.K + 1) // 2
    pairs = C.n_pairs()
    pair_cost = pairs * effects * (PAIR_BUILD + 2 * evaluations * PAIR_PASS)
    gemm_cost = (2 if C.K == 1 else 3) * evaluations * C.K * C.L * C.q**2 / GEMM_PER_SECOND
    return Pairs(C) if pair_cost < gemm_cost and pairs * effects < PAIR_LIMIT else Gemm(C)
