"""Crossed grouping factors: the largest is eliminated, the rest is dense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from ...covariance.triangle import cholesky_psd
from ...errors import FitError, UnsupportedError
from .. import small
from ..products import Block
from .system import INDEFINITE, Blocks, System, level_product, level_quadratic, scaled_inverse, transposed

__all__ = ["DENSE_CELLS", "ILL_CONDITIONED", "TAIL_LIMIT", "Coupling", "CrossedSystem", "CrossedWeighted"]

DENSE_CELLS = 40_000_000  # largest leading x trailing coupling stored as a dense matrix


TAIL_LIMIT = 12_000  # columns of the trailing factors, whose Schur complement is dense


ILL_CONDITIONED = 1e-3  # relative pivot of Lambda below which its inverse loses too many digits


class CrossedSystem(System):
    """The largest factor block diagonal, the others dense: cost O(n + L1 q_t^2 + q_t^3)."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__(blocks)
        self.lead, self.tail = self.blocks[0], self.blocks[1:]
        self.starts = np.concatenate([[0], np.cumsum([b.K * b.L for b in self.tail])]).astype(np.intp)
        self.q = int(self.starts[-1])
        if self.q > TAIL_LIMIT:
            names = ", ".join(f"{b.group} ({b.L:,} levels x {b.K})" for b in self.tail)
            raise UnsupportedError(
                f"the factors crossed with {self.lead.group} have {self.q:,} random effects together "
                f"({names}); "
                f"dense algebra is limited to {TAIL_LIMIT:,}. Drop a term, or group its levels more coarsely."
            )
        self.at_column = [
            (j, a, self.starts[j] + b.codes * b.K + a) for j, b in enumerate(self.tail) for a in range(b.K)
        ]
        self.dense = self.lead.L * self.lead.K * self.q <= DENSE_CELLS
        self._prepare()

    def _prepare(self) -> None:
        """Flat positions of every product of two columns."""
        lead, q = self.lead, self.q
        if self.dense:
            self.flat = [lead.codes * q + column for _, _, column in self.at_column]
        else:
            keys = np.concatenate(
                [lead.codes.astype(np.int64) * q + column for _, _, column in self.at_column]
            )
            cells, position = np.unique(keys, return_inverse=True)
            self.flat = list(position.reshape(len(self.at_column), -1))
            self.indices = (cells % q).astype(np.int32)
            self.indptr = np.searchsorted(cells // q, np.arange(lead.L + 1)).astype(np.int32)
        self.pairs = []
        for x, (j, a, column) in enumerate(self.at_column):
            for i, b, other in self.at_column[x:]:
                if i != j:
                    cells, position = np.unique(column * np.intp(q) + other, return_inverse=True)
                    self.pairs.append((j, a, i, b, cells, position))

    def tail_gram(self, w: np.ndarray) -> np.ndarray:
        """(q_t, q_t) Z_t'W Z_t."""
        q, tail = self.q, self.tail
        out = np.zeros((q, q))
        flat = out.ravel()
        for j, block in enumerate(tail):
            own = self._gram(j + 1, w)
            first = self.starts[j] + np.arange(block.L) * block.K
            for a in range(block.K):
                for b in range(block.K):
                    flat[(first + a) * q + first + b] = own[a, b]
        for j, a, i, b, cells, position in self.pairs:
            values = np.bincount(position, w * tail[j].columns[a] * tail[i].columns[b], len(cells))
            flat[cells] = values
            flat[(cells % q) * q + cells // q] = values
        return out

    def coupling(self, w: np.ndarray) -> Coupling:
        """Z_1'W Z_t."""
        lead, width = self.lead, self.lead.L * self.q if self.dense else len(self.indices)
        values = np.zeros((lead.K, width))
        for a in range(lead.K):
            weighted = w if self.plain[0] else w * lead.columns[a]
            for flat, (j, b, _) in zip(self.flat, self.at_column, strict=True):
                x = weighted if self.plain[j + 1] else weighted * self.tail[j].columns[b]
                values[a] += np.bincount(flat, x, width)
        if self.dense:
            return Coupling(self, [v.reshape(lead.L, self.q) for v in values])
        return Coupling(
            self, [sp.csr_array((v, self.indices, self.indptr), (lead.L, self.q)) for v in values]
        )

    def at(self, w: np.ndarray, Sigma: list[np.ndarray]) -> CrossedWeighted:
        return CrossedWeighted(self, w, Sigma)

    def split(self, rows: np.ndarray) -> Blocks:
        """(q_t, r) -> per trailing factor (r, K, L)."""
        return [
            rows[self.starts[j] : self.starts[j + 1]].reshape(b.L, b.K, -1).transpose(2, 1, 0)
            for j, b in enumerate(self.tail)
        ]

    def join(self, parts: Blocks) -> np.ndarray:
        """Per trailing factor (r, K, L) -> (q_t, r)."""
        return np.vstack([f.transpose(2, 1, 0).reshape(-1, len(f)) for f in parts])


class Coupling:
    """C = Z_1'W Z_t, one (L1, q_t) matrix per effect of the leading factor, dense or sparse."""

    def __init__(self, system: CrossedSystem, by_effect: list) -> None:
        self.system, self.by_effect = system, by_effect

    def times(self, X: np.ndarray) -> np.ndarray:
        """C X as (r, K1, L1), X (q_t, r)."""
        return np.stack([np.asarray((c @ X).T) for c in self.by_effect], axis=1)

    def transpose_times(self, X: np.ndarray) -> np.ndarray:
        """C'X as (q_t, r), X (r, K1, L1)."""
        return sum(np.asarray(c.T @ X[:, a].T) for a, c in enumerate(self.by_effect))  # type: ignore[return-value]

    def schur(self, K: np.ndarray) -> np.ndarray:
        """(q_t, q_t) sum over leading levels of C_l' K_l C_l."""
        total = np.zeros((self.system.q, self.system.q))
        for a, c in enumerate(self.by_effect):
            scaled = sum(_scale_rows(d, K[a, b]) for b, d in enumerate(self.by_effect))
            part = c.T @ scaled
            total += part if isinstance(part, np.ndarray) else part.toarray()
        return 0.5 * (total + total.T)


def _scale_rows(C, d: np.ndarray):
    return C * d[:, None] if isinstance(C, np.ndarray) else C.multiply(d[:, None]).tocsr()


class CrossedWeighted:
    """The leading factor eliminated level by level, then one dense Cholesky."""

    def __init__(self, system: CrossedSystem, w: np.ndarray, Sigma: list[np.ndarray]) -> None:
        self.system, self.Sigma = system, Sigma
        self.Lambda = [cholesky_psd(s) if len(s) > 1 else np.sqrt(s) for s in Sigma[1:]]
        self.D1 = system._gram(0, w)
        self.logdet, self.T_inv, self.K1 = scaled_inverse(self.D1, Sigma[0])
        self.C = system.coupling(w)
        self.A_tt = system.tail_gram(w)
        self.S = self.A_tt - self.C.schur(self.K1)
        M = self._scale(self._scale(self.S).T)
        M.ravel()[:: system.q + 1] += 1.0
        self.L, info = dpotrf(M, lower=1, clean=0)
        if info:
            raise FitError(INDEFINITE)
        self.logdet += 2.0 * float(np.log(self.L.diagonal()).sum())
        self._N: np.ndarray | None = None
        self._M_inv: np.ndarray | None = None

    def _scale(self, rows: np.ndarray, transpose: bool = True) -> np.ndarray:
        """Lambda' (or Lambda) times the q_t rows of a matrix."""
        out = np.empty(rows.shape)
        for j, (block, Lam) in enumerate(zip(self.system.tail, self.Lambda, strict=True)):
            s = slice(self.system.starts[j], self.system.starts[j + 1])
            if block.K == 1:
                np.multiply(rows[s], Lam[0, 0], out=out[s])
                continue
            piece = rows[s].reshape(block.L, block.K, -1)
            out[s] = np.matmul(Lam.T if transpose else Lam, piece).reshape(s.stop - s.start, -1)
        return out

    def solve(self, g: Blocks) -> tuple[Blocks, Blocks]:
        system, C = self.system, self.C
        Kg = small.left(self.K1, g[0])
        rhs = self._scale(system.join(g[1:]) - C.transpose_times(Kg))
        tail = self._scale(dpotrs(self.L, rhs, lower=1)[0], transpose=False)
        lead = Kg - small.left(self.K1, C.times(tail))
        white_lead = g[0] - small.left(self.D1, lead) - C.times(tail)
        white_tail = system.join(g[1:]) - C.transpose_times(lead) - self.A_tt @ tail
        return [white_lead, *system.split(white_tail)], [lead, *system.split(tail)]

    def _inverse(self) -> np.ndarray:
        """N_tt (q_t, q_t) = Lambda M^-1 Lambda'."""
        if self._N is None:
            M_inv = dpotri(self.L, lower=1)[0]
            M_inv = np.tril(M_inv) + np.tril(M_inv, -1).T
            self._M_inv = M_inv
            self._N = self._scale(self._scale(M_inv, transpose=False).T, transpose=False)
        return self._N

    def _lead_tail(self) -> list[np.ndarray]:
        """C N_tt, one (L1, q_t) per leading effect."""
        N = self._inverse()
        return [np.asarray(c @ N) for c in self.C.by_effect]

    def _spread(self, CN: list[np.ndarray]) -> np.ndarray:
        """(K1, K1, L1): C_l N_tt C_l'."""
        K = len(CN)
        out = np.empty((K, K, len(CN[0])))
        for a in range(K):
            for b in range(a + 1):
                c = self.C.by_effect[b]
                rows = (
                    np.einsum("lq,lq->l", CN[a], c)
                    if isinstance(c, np.ndarray)
                    else c.multiply(CN[a]).sum(axis=1)
                )
                out[a, b] = out[b, a] = rows
        return out

    def levels(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of N."""
        return [
            self._lead_levels(self._lead_tail()),
            *(self._tail_levels(self._inverse(), j) for j in range(len(self.Lambda))),
        ]

    def _lead_levels(self, CN: list[np.ndarray]) -> np.ndarray:
        Q = self._spread(CN)
        return self.K1 + level_product(self.K1, level_product(Q, self.K1))

    def _tail_levels(self, matrix: np.ndarray, j: int) -> np.ndarray:
        block, start = self.system.tail[j], self.system.starts[j]
        rows = start + np.arange(block.L * block.K).reshape(block.L, block.K)
        return np.ascontiguousarray(matrix[rows[:, :, None], rows[:, None, :]].transpose(1, 2, 0))

    def leverage(self) -> np.ndarray:
        system, N, CN = self.system, self._inverse(), self._lead_tail()
        lead, q = system.lead, system.q
        out = level_quadratic(self._lead_levels(CN), lead, system.plain[0])
        cross = [-sum(self.K1[a, b][:, None] * CN[b] for b in range(lead.K)) for a in range(lead.K)]  # N_1t
        flat_N = N.ravel()
        for x, (j, b, column) in enumerate(system.at_column):
            z = None if system.plain[j + 1] else system.tail[j].columns[b]
            for a in range(lead.K):
                values = 2.0 * cross[a][lead.codes, column]
                if not system.plain[0]:
                    values *= lead.columns[a]
                out += values if z is None else values * z
            for y, (i, c, other) in enumerate(system.at_column[x:]):
                values = flat_N[column * q + other] * (2.0 if y else 1.0)
                if z is not None:
                    values *= z
                out += values if system.plain[i + 1] else values * system.tail[i].columns[c]
        return out

    def trace(self) -> list[np.ndarray]:
        CN = self._lead_tail()
        W1 = level_product(self.T_inv, self.D1)
        TQT = level_product(self.T_inv, level_product(self._spread(CN), transposed(self.T_inv)))
        lead = (W1 - TQT).sum(axis=2)
        return [0.5 * (lead + lead.T), *(self._tail_trace(j) for j in range(len(self.Lambda)))]

    def _tail_trace(self, j: int) -> np.ndarray:
        block, Lam, N = self.system.tail[j], self.Lambda[j], self._inverse()
        pivots = np.abs(np.diag(Lam))
        if pivots.min() > ILL_CONDITIONED * max(1.0, pivots.max()):
            assert self._M_inv is not None
            total = block.L * np.eye(block.K) - self._tail_levels(self._M_inv, j).sum(axis=2)
            half = np.linalg.solve(Lam.T, total)
            return np.linalg.solve(Lam.T, half.T).T
        s = slice(self.system.starts[j], self.system.starts[j + 1])
        SN = (self.S[s] @ N).reshape(block.L, block.K, -1)
        total = self._tail_levels(self.S, j).sum(axis=2)
        return total - np.einsum("lkq,lhq->kh", SN, self.S[s].reshape(block.L, block.K, -1))

    def information(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of Z'V^-1Z."""
        CN = self._lead_tail()
        TQT = level_product(self.T_inv, level_product(self._spread(CN), transposed(self.T_inv)))
        lead = level_product(self.T_inv, self.D1) - TQT
        SNS = self.S - self.S @ self._inverse() @ self.S
        return [lead, *(self._tail_levels(SNS, j) for j in range(len(self.Lambda)))]
