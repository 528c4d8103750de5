"""Crossed factors: the largest block diagonal, the rest dense.

With V_1 = I + Z_1 Sigma_1 Z_1' eliminated level by level, S_zz = Z_t'V_1^-1Z_t = A_tt - sum_l C_l' K_l C_l is
dense (q_t x q_t), M1 = I + Lambda' S_zz Lambda its penalised Cholesky, and
    N = (Sigma_t^-1 + S_zz)^-1 = Lambda M1^-1 Lambda',
    Z_t'V^-1M = S_zM - S_zz N S_zM,      Z_1'V^-1M = R_1 - T^-1 C N S_zM.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dtrtrs

from ..covariance.triangle import cholesky_psd
from ..errors import FitError, UnsupportedError
from . import small, symmetric
from .coupling import Coupling, choose_eliminator
from .products import Block, CrossProducts
from .profile import TOO_LARGE, Likelihood, profile, whitened

__all__ = ["Crossed"]

DENSE_LIMIT = 12_000  # a 12,000 x 12,000 factor is 1.2 GB and 13 s; three of them are alive at once
ILL_CONDITIONED = 1e-3  # relative pivot of Lambda below which Lambda^-1 loses too many digits


def _tail_gram(tail: list[Block], starts: np.ndarray) -> np.ndarray:
    """(q_t, q_t) Z_t'Z_t of the trailing factors."""
    q = int(starts[-1])
    columns = [
        (starts[j] + block.codes * block.K + k, block.columns[k])
        for j, block in enumerate(tail)
        for k in range(block.K)
    ]
    total = sp.csr_matrix((q, q))
    for i, (at, x) in enumerate(columns):
        for at2, x2 in columns[i:]:
            part = sp.coo_matrix((x * x2, (at, at2)), shape=(q, q)).tocsr()
            total = total + (part if at is at2 else part + part.T)
    return np.asarray(total.toarray())


def level_blocks(matrix: np.ndarray, block: Block, start: int) -> np.ndarray:
    """(L, K, K) diagonal blocks of one factor, whose rows begin at ``start``, in a symmetric matrix."""
    first = start + block.K * np.arange(block.L)
    out = np.empty((block.L, block.K, block.K))
    for a in range(block.K):
        for b in range(a, block.K):
            out[:, a, b] = out[:, b, a] = matrix[first + a, first + b]
    return out


class Crossed:
    """Products of a model with one leading factor and dense coupling among the rest."""

    exact = False  # second-order matrices are average information
    by_roots = False

    def __init__(self, A: CrossProducts) -> None:
        self.A, self.lead, self.tail = A, A.blocks[0], list(A.blocks[1:])
        sizes = [b.K * b.L for b in self.tail]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.q = int(self.starts[-1])
        if self.q > DENSE_LIMIT:
            names = ", ".join(f"{b.group} ({b.L:,} levels x {b.K})" for b in self.tail)
            raise UnsupportedError(
                f"the factors crossed with {self.lead.group} have {self.q:,} random effects together ({names}); "
                f"dense algebra is limited to {DENSE_LIMIT:,}. Drop a term, or group its levels more coarsely."
            )
        K, L = self.lead.K, self.lead.L
        self.U = np.empty((K + A.m, K, L))
        self.U[:K] = self.lead.gram()
        self.U[K:] = self.lead.products(A.M)
        self.coupling = Coupling(self.lead, self.tail, self.starts)
        self.eliminator = choose_eliminator(self.coupling)
        self.tail_gram = _tail_gram(self.tail, self.starts)
        self.tail_M = np.vstack(  # (q_t, m) = Z_t'M
            [b.products(A.M).transpose(2, 1, 0).reshape(-1, A.m) for b in self.tail]
        )

    def at(
        self, Sigma: list[np.ndarray], like: Likelihood, roots: list[np.ndarray] | None = None
    ) -> CrossedFactor:
        """The factor at a relative covariance."""
        return CrossedFactor(self, Sigma, like)

    def random_products(self) -> list[np.ndarray]:
        """(m, K, L) per block: Z_j'M of every level."""
        return [self.U[self.lead.K :], *self.split(self.tail_M)]

    def level_grams(self) -> list[np.ndarray]:
        """(K, K, L) per block: Z_j'Z_j of every level."""
        tail = [level_blocks(self.tail_gram, b, s) for b, s in zip(self.tail, self.starts, strict=False)]
        return [self.U[: self.lead.K], *(t.transpose(1, 2, 0) for t in tail)]

    def cross_moments(self, A: list[np.ndarray]) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """Per ordered pair of blocks (j, k), two (K_j, K_k, L_j) arrays: for effect a of level l of j and effect b
        of k, sums over the levels m of k of c_m^2 and of c_m A_j[:, a, l]'A_k[:, b, m], c_m = Z_jal'Z_kbm.
        """
        out = {}
        for k, d in enumerate(self.tail, start=1):
            out[0, k], out[k, 0] = self._lead_moments(k, A)
            for h, e in enumerate(self.tail, start=1):
                if h == k:
                    continue
                rows, columns = (slice(self.starts[i - 1], self.starts[i]) for i in (k, h))
                c = self.tail_gram[rows, columns]
                squares = np.square(c).reshape(d.L * d.K, e.L, e.K).sum(axis=1).reshape(d.L, d.K, e.K)
                dots = np.empty((d.K, e.K, d.L))
                for b in range(e.K):
                    applied = (c[:, b :: e.K] @ A[h][:, b].T).reshape(d.L, d.K, -1)
                    dots[:, b] = np.einsum("lap,pal->al", applied, A[k])
                out[k, h] = squares.transpose(1, 2, 0), dots
        return out

    def _lead_moments(
        self, k: int, A: list[np.ndarray]
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """``cross_moments`` of the leading block with trailing factor k, and the other way round."""
        lead, d = self.lead, self.tail[k - 1]
        shape = (lead.K, d.K, lead.L)
        squares, dots, turned, turned_dots = np.empty(shape), np.empty(shape), [], []
        at = slice(self.starts[k - 1], self.starts[k])
        for a, C in enumerate(self.coupling.by_effect):
            part = C[:, at]
            square = part.multiply(part).tocsr()
            turned.append(np.asarray(square.sum(axis=0)).reshape(d.L, d.K).T)
            turned_dots.append(
                np.einsum("qp,pq->q", part.T @ A[0][:, a].T, self._flat(A[k])).reshape(d.L, d.K).T
            )
            for b in range(d.K):
                squares[a, b] = square[:, b :: d.K].sum(axis=1).ravel()
                dots[a, b] = np.einsum("lp,pl->l", part[:, b :: d.K] @ A[k][:, b].T, A[0][:, a])
        tail = np.array(turned).transpose(1, 0, 2), np.array(turned_dots).transpose(1, 0, 2)
        return (squares, dots), tail

    @staticmethod
    def _flat(A: np.ndarray) -> np.ndarray:
        """(p, K, L) -> (p, L K), level by level."""
        return A.transpose(0, 2, 1).reshape(len(A), A.shape[1] * A.shape[2])

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """(q_t, r) -> per trailing factor (r, K, L)."""
        return [
            rows[self.starts[j] : self.starts[j + 1]].reshape(b.L, b.K, -1).transpose(2, 1, 0)
            for j, b in enumerate(self.tail)
        ]


class CrossedFactor:
    """V and the profiled criterion at one Sigma. Symmetric matrices here keep their upper triangle only."""

    def __init__(self, kernel: Crossed, Sigma: list[np.ndarray], like: Likelihood) -> None:
        A, U, C = kernel.A, kernel.U, kernel.coupling
        K = kernel.lead.K
        self.kernel, self.Sigma, self.like = kernel, Sigma, like
        self.Lambda = [cholesky_psd(s) for s in Sigma[1:]]
        logdet, self.T_inv, self.K1 = small.eliminate(U[:K], Sigma[0])
        R = small.left(self.T_inv, U)
        self.W1, self.R1 = R[:K], R[K:]
        SR = small.left(self.K1, U[K:])
        self.S_MM = A.A - U[K:].reshape(A.m, -1) @ SR.reshape(A.m, -1).T
        self.S_zz = kernel.tail_gram - kernel.eliminator.schur(self.K1)
        self.S_zM = kernel.tail_M - C.transpose_times(SR)
        M1 = self._scaled(self.S_zz, transpose=True)
        M1.ravel()[:: kernel.q + 1] += 1.0
        self._L, info = symmetric.cholesky(M1)
        if info:
            raise FitError(TOO_LARGE)
        Y = dtrtrs(self._L, self._scale(self.S_zM), lower=1)[0]
        self.S = self.S_MM - Y.T @ Y
        logdet += 2.0 * float(np.log(self._L.diagonal()).sum())
        self.profile = profile(self.S, logdet, A, like)
        self._N: np.ndarray | None = None
        self._full_N: np.ndarray | None = None
        self._M1_inv_blocks: list[np.ndarray] = []

    def _scale(self, rows: np.ndarray, transpose: bool = True) -> np.ndarray:
        """Lambda' (or Lambda) applied to the q_t rows of a matrix."""
        out = np.empty(rows.shape)
        for j, (block, Lam) in enumerate(zip(self.kernel.tail, self.Lambda, strict=True)):
            s = slice(self.kernel.starts[j], self.kernel.starts[j + 1])
            if block.K == 1:
                np.multiply(rows[s], Lam[0, 0], out=out[s])
                continue
            piece = rows[s].reshape(block.L, block.K, -1)
            out[s] = np.matmul(Lam.T if transpose else Lam, piece).reshape(s.stop - s.start, -1)
        return out

    def _scaled(self, A: np.ndarray, transpose: bool) -> np.ndarray:
        """Lambda' A Lambda (``transpose``) or Lambda A Lambda' for a symmetric A; a new array."""
        if all(block.K == 1 for block in self.kernel.tail):
            scale = np.repeat([Lam[0, 0] for Lam in self.Lambda], [b.L for b in self.kernel.tail])
            if len(self.Lambda) == 1:
                return A * scale[0] ** 2
            out = A * scale
            out *= scale[:, None]
            return out
        full = symmetric.mirrored(A)
        return self._scale(self._scale(full, transpose).T, transpose)

    def _half_inverse(self) -> np.ndarray:
        """N, upper triangle, computed once; the level blocks of M1^-1 are kept on the way, the factor is lost."""
        if self._N is None:
            inverse = symmetric.inverse(self._L)
            self._M1_inv_blocks = [self._level_blocks(inverse, j) for j in range(len(self.Lambda))]
            self._N = self._scaled(inverse, transpose=False)
        return self._N

    def _inverse(self) -> np.ndarray:
        """(q_t, q_t) N with both triangles."""
        if self._full_N is None:
            self._full_N = symmetric.mirrored(self._half_inverse())
        return self._full_N

    def _level_blocks(self, matrix: np.ndarray, j: int) -> np.ndarray:
        """(L, K, K) diagonal blocks of trailing factor j in a symmetric (q_t, q_t) matrix."""
        return level_blocks(matrix, self.kernel.tail[j], self.kernel.starts[j])

    def _tail_W(self, j: int) -> np.ndarray:
        """(K, K) sum over levels of Z'V^-1Z for trailing factor j."""
        block, Lam = self.kernel.tail[j], self.Lambda[j]
        self._half_inverse()
        pivots = np.abs(np.diag(Lam))
        if pivots.min() > ILL_CONDITIONED * max(1.0, pivots.max()):
            total = (np.eye(block.K) - self._M1_inv_blocks[j]).sum(axis=0)
            half = np.linalg.solve(Lam.T, total)
            return np.linalg.solve(Lam.T, half.T).T
        s = slice(self.kernel.starts[j], self.kernel.starts[j + 1])
        own = symmetric.mirrored(self.S_zz)[:, s]
        NS = symmetric.times(self._half_inverse(), own)
        a, b = own.T.reshape(block.L, block.K, -1), NS.T.reshape(block.L, block.K, -1)
        return self._level_blocks(self.S_zz, j).sum(axis=0) - np.einsum("lkq,lhq->kh", a, b)

    def _right_hand_sides(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Z_1'V^-1M (m, K1, L1) and Z_j'V^-1M (m, K_j, L_j) of the trailing factors."""
        NS = symmetric.times(self._half_inverse(), self.S_zM)
        lead = self.R1 - small.left(self.T_inv, self.kernel.coupling.times(NS))
        return lead, self.kernel.split(self.S_zM - symmetric.times(self.S_zz, NS))

    def _join(self, parts: list[np.ndarray]) -> np.ndarray:
        """Per trailing factor (r, K, L) -> (q_t, r)."""
        return np.vstack([f.transpose(2, 1, 0).reshape(-1, len(f)) for f in parts])

    def derivatives(self, E: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """G per block and the average-information matrix per_rss f_a'P f_b - curl q_a q_b, f_a = Z E_a e."""
        prof, p = self.profile, self.kernel.A.p
        R_lead, R_tail = self._right_hand_sides()
        R = [R_lead, *R_tail]
        lead = self.W1.sum(axis=2) - self.kernel.eliminator.traces(self.T_inv, self._half_inverse())
        W = [lead, *(self._tail_W(j) for j in range(len(self.Lambda)))]
        G, directions = [], []
        for j, (Wj, Rj) in enumerate(zip(W, R, strict=True)):
            Rt = whitened(prof, Rj)
            rows = Rt if self.like.reml else Rt[p:]
            G.append(Wj - np.tensordot(rows, rows, ([0, 2], [0, 2])))
            directions += [(j, np.matmul(Ea, Rt[p])) for Ea in E[j]]
        return [0.5 * (g + g.T) for g in G], self._average_information(directions, R)

    def _average_information(
        self, directions: list[tuple[int, np.ndarray]], R: list[np.ndarray]
    ) -> np.ndarray:
        kernel, prof, p = self.kernel, self.profile, self.kernel.A.p
        r = len(directions)
        F = [np.zeros((r, b.K, b.L)) for b in (kernel.lead, *kernel.tail)]
        for a, (j, f) in enumerate(directions):
            F[j][a] = f
        ft = self._join(F[1:])
        Cf = kernel.coupling.times(ft)
        s1 = small.left(self.W1, F[0]) + small.left(self.T_inv, Cf)
        st = kernel.coupling.transpose_times(small.left(self.T_inv.transpose(1, 0, 2), F[0]))
        st += symmetric.times(self.S_zz, ft)
        quad = F[0].reshape(r, -1) @ s1.reshape(r, -1).T + ft.T @ st
        quad -= st.T @ symmetric.times(self._half_inverse(), st)
        RF = sum(Rj.reshape(len(Rj), -1) @ f.reshape(r, -1).T for Rj, f in zip(R, F, strict=True))
        white = prof.LS_inv @ RF
        e = white[p] * (prof.per_rss * prof.rss) ** 0.5
        H = quad - white[:p].T @ white[:p] - (prof.curl / prof.per_rss**2) * np.outer(e, e)
        return 0.5 * (H + H.T)

    def solve_random(self, R: list[np.ndarray]) -> list[np.ndarray]:
        """(Sigma^-1 + Z'Z)^-1 R, per block (r, K, L) in and out, leading block first."""
        C = self.kernel.coupling
        KR = small.left(self.K1, R[0])
        tail = symmetric.times(self._half_inverse(), self._join(R[1:]) - C.transpose_times(KR))
        return [KR - small.left(self.K1, C.times(tail)), *self.kernel.split(tail)]

    def conditional(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of (Sigma^-1 + Z'Z)^-1, per block."""
        N = self._half_inverse()
        Q = self.kernel.eliminator.spread(N)
        KQ = small.left(self.K1, Q)
        lead = self.K1 + small.left(self.K1, KQ.transpose(1, 0, 2))
        tail = [self._level_blocks(N, j).transpose(1, 2, 0) for j in range(len(self.Lambda))]
        return [0.5 * (lead + lead.transpose(1, 0, 2)), *tail]

    def quadratic(self, chunk: int = 512) -> np.ndarray:
        """(n,) diagonal of Z (Sigma^-1 + Z'Z)^-1 Z', in chunks of leading levels; memory O(n + chunk q_t)."""
        kernel, N = self.kernel, self._inverse()
        lead, C = kernel.lead, kernel.coupling
        order = np.argsort(lead.codes, kind="stable")
        bounds = np.searchsorted(lead.codes[order], np.arange(lead.L + 1))
        NC, n = self.conditional()[0], len(lead.codes)
        out = np.zeros(n)
        for a in range(lead.K):
            for b in range(lead.K):
                out += lead.columns[a] * lead.columns[b] * NC[a, b][lead.codes]
        tails = [
            (kernel.starts[j] + b.codes * b.K + k, b.columns[k])
            for j, b in enumerate(kernel.tail)
            for k in range(b.K)
        ]
        for at, x in tails:
            for at2, x2 in tails:
                out += x * x2 * N[at, at2]
        for begin in range(0, lead.L, chunk):
            end = min(begin + chunk, lead.L)
            rows = order[bounds[begin] : bounds[end]]
            level = lead.codes[rows]
            CN = [c[begin:end] @ N for c in C.by_effect]  # (chunk, q_t) each
            for a in range(lead.K):
                weight = sum(lead.columns[b][rows] * self.K1[b, a][level] for b in range(lead.K))
                for at, x in tails:
                    out[rows] -= 2.0 * weight * CN[a][level - begin, at[rows]] * x[rows]
        return out
