"""Traces tr(V^-1 V_k V^-1 V_l) of directions V_k = Z_b E_k Z_b' in the covariance of the random effects.

With W = Z'V^-1Z they are sums of tr(E_k W_ij E_l W_ji) over all pairs of levels i of k's factor and j of l's.
One factor and small models have W at hand. A nested chain differentiates the sums of its diagonal blocks along E_l,
because dW = -W E_l W; a crossed model sums over its dense part and condenses the leading factor into it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from ...kernels import Factor, small, symmetric
from ...kernels.crossed import Crossed, CrossedFactor
from ...kernels.dense import DenseFactor
from ...kernels.nested import NestedFactor
from ...kernels.one_factor import OneFactorFactor

__all__ = ["traces"]


def traces(factor: Factor, E: Sequence[np.ndarray]) -> np.ndarray:
    """(r, r) tr(V^-1 V_k V^-1 V_l) at the factor of V, relative to sigma^2.

    Parameters
    ----------
    factor : factor of V at some theta.
    E : per block of the kernel, (r_b, K, K) symmetric directions of Sigma_b; r = sum r_b.

    Notes
    -----
    Cost: O(L K^2) for one factor, O(q^2) for a small model, O(r sum L_j) for a nested chain, and O(r q_t^3) for a
    crossed one, q_t random effects of the factors after the first.
    """
    if isinstance(factor, OneFactorFactor):
        return _one_factor(factor, E[0])
    if isinstance(factor, DenseFactor):
        return _dense(factor, E)
    if isinstance(factor, NestedFactor):
        return _nested(factor, E)
    if isinstance(factor, CrossedFactor):
        return _crossed(factor, E)
    return np.zeros((0, 0))


# ---- one factor, small models ----------------------------------------------------------------------------


def _one_factor(factor: OneFactorFactor, E: np.ndarray) -> np.ndarray:
    return _own_traces(factor.W, E)


def _own_traces(W: np.ndarray, E: np.ndarray) -> np.ndarray:
    """(r, r) sum over levels of tr(E_k W E_l W), W (K, K, L) symmetric in each level."""
    r, K = len(E), W.shape[0]
    EW = np.matmul(E.reshape(r * K, K), W.reshape(K, -1)).reshape(r, K, -1)  # [k, a, (c, l)]
    left = EW.reshape(r, K, K, -1)
    return left.reshape(r, -1) @ left.transpose(0, 2, 1, 3).reshape(r, -1).T


def _dense(factor: DenseFactor, E: Sequence[np.ndarray]) -> np.ndarray:
    kernel, q = factor.kernel, factor.kernel.q
    W, WE = factor.inner[:q, :q], np.zeros((sum(map(len, E)), q, q))
    at = 0
    for j, block in enumerate(kernel.blocks):
        s, rows = slice(kernel.starts[j], kernel.starts[j + 1]), slice(at, at + len(E[j]))
        own = np.matmul(W[:, s].reshape(q, block.L, block.K), E[j][:, None])
        WE[rows, :, s] = own.reshape(len(E[j]), q, -1)
        at = rows.stop
    return WE.reshape(len(WE), -1) @ WE.transpose(0, 2, 1).reshape(len(WE), -1).T


# ---- nested chains ---------------------------------------------------------------------------------------


class _Tangent:
    """Matrices of every level with their derivatives along r directions: (1 + r, L, a, b), the value first."""

    def __init__(self, parts: np.ndarray) -> None:
        self.parts = parts

    @property
    def value(self) -> np.ndarray:
        return self.parts[:1]

    @property
    def T(self) -> _Tangent:
        return _Tangent(self.parts.swapaxes(2, 3))

    def __matmul__(self, other: _Tangent) -> _Tangent:
        out = np.matmul(self.parts, other.value)
        out[1:] += np.matmul(self.value, other.parts[1:])
        return _Tangent(out)

    def __sub__(self, other: _Tangent) -> _Tangent:
        return _Tangent(self.parts - other.parts)

    def at(self, levels: np.ndarray) -> _Tangent:
        """The matrices of these levels."""
        return _Tangent(self.parts[:, levels])

    def summed(self, parent: np.ndarray, L: int) -> _Tangent:
        """Sums over the children of every level of an outer factor."""
        d, inner, a, b = self.parts.shape
        members = sp.csr_matrix((np.ones(inner), (parent, np.arange(inner))), shape=(L, inner))
        flat = np.ascontiguousarray(self.parts.transpose(1, 0, 2, 3)).reshape(inner, -1)
        return _Tangent((members @ flat).reshape(L, d, a, b).transpose(1, 0, 2, 3))


def _levels_first(values: np.ndarray) -> np.ndarray:
    return values.transpose(2, 0, 1)


class _NestedTangents:
    """The elimination of a nested chain with derivatives along every direction E_l."""

    def __init__(self, factor: NestedFactor, E: Sequence[np.ndarray]) -> None:
        self.factor, self.blocks, self.parents = factor, factor.kernel.blocks, factor.kernel.parents
        self.J, self.r = len(self.blocks), sum(map(len, E))
        starts = np.concatenate([[0], np.cumsum([len(e) for e in E])])
        self.slopes = [np.zeros((self.r, len(S), len(S))) for S in factor.Sigma]  # dSigma_j
        for j, each in enumerate(E):
            self.slopes[j][starts[j] : starts[j + 1]] = each
        self.D = [self._constant(D) for D in factor.kernel.D]
        self.B = {pair: self._constant(B) for pair, B in factor.kernel.coupling.items()}
        self.T_inv: list[_Tangent] = []
        self.K: list[_Tangent] = []
        for j in range(self.J):
            self._eliminate(j)

    def _constant(self, values: np.ndarray) -> _Tangent:
        return _Tangent(
            np.concatenate([_levels_first(values)[None], np.zeros((self.r, *_levels_first(values).shape))])
        )

    def _eliminate(self, j: int) -> None:
        """T^-1 and K of factor j, dT^-1 = -T^-1 (dD Sigma + D dSigma) T^-1 and dK = T^-T dSigma T^-1 - K dD K."""
        factor, Sigma, slope = self.factor, self.factor.Sigma[j], self.slopes[j][:, None]
        T_inv, K = _levels_first(factor.T_inv[j])[None], _levels_first(factor.K[j])[None]
        D, dD = self.D[j].value, self.D[j].parts[1:]
        self.T_inv.append(_Tangent(np.concatenate([T_inv, -T_inv @ (dD @ Sigma + D @ slope) @ T_inv])))
        self.K.append(_Tangent(np.concatenate([K, T_inv.swapaxes(2, 3) @ slope @ T_inv - K @ dD @ K])))
        for i in range(j + 1, self.J):
            BK, parent, L = self.B[j, i] @ self.K[j], self.parents[j, i], self.blocks[i].L
            self.D[i] = self.D[i] - (BK @ self.B[j, i].T).summed(parent, L)
            for h in range(i + 1, self.J):
                self.B[i, h] = self.B[i, h] - (self.B[j, h] @ BK.T).summed(parent, L)

    def own(self) -> list[_Tangent]:
        """Diagonal blocks of W = Z'V^-1Z of every factor."""
        W: list[_Tangent] = []
        couple: dict[tuple[int, int], _Tangent] = {}  # (j, h) -> Z_h'V_i^-1 Z_j per level of j
        for i in range(self.J):
            for j in range(i):
                parent = self.parents[j, i]
                KB = self.K[i].at(parent) @ couple[j, i]
                W[j] = W[j] - couple[j, i].T @ KB
                for h in range(i + 1, self.J):
                    couple[j, h] = couple[j, h] - self.B[i, h].at(parent) @ KB
            W.append(self.T_inv[i] @ self.D[i])
            for h in range(i + 1, self.J):
                couple[i, h] = self.B[i, h] @ self.T_inv[i].T
        return W


def _nested(factor: NestedFactor, E: Sequence[np.ndarray]) -> np.ndarray:
    W = _NestedTangents(factor, E).own()
    rows = [-np.einsum("kab,dab->kd", each, w.parts[1:].sum(axis=1)) for each, w in zip(E, W, strict=True)]
    out = np.concatenate(rows)
    return 0.5 * (out + out.T)


# ---- crossed factors -------------------------------------------------------------------------------------


def _crossed(factor: CrossedFactor, E: Sequence[np.ndarray]) -> np.ndarray:
    """With S = Z_t'V_1^-1Z_t, F = (I + Sigma_t S)^-1 and N = F Sigma_t for the trailing factors t:
    W_tt = S F, W_1t = T^-1 C F, W_11 = U - T^-1 C N C'T^-T, level by level of the leading factor.
    """
    kernel, lead, tail = factor.kernel, E[0], E[1:]
    S = symmetric.mirrored(factor.S_zz)
    F = np.linalg.inv(np.eye(kernel.q) + _apply_blocks(kernel, factor.Sigma[1:], S))
    N = _apply_blocks(kernel, factor.Sigma[1:], F.T).T
    W = S @ F
    r, first = len(lead), sum(map(len, tail))
    out = np.zeros((r + first, r + first))
    out[r:, r:] = _tail_traces(factor, tail, 0.5 * (W + W.T))
    T_inv = factor.T_inv
    condensed = [_condense(factor, T_inv, Ek) for Ek in lead]  # sum_l C_l'T_l^-T E_k T_l^-1 C_l
    NS = [N @ Sk for Sk in condensed]
    out[:r, :r] = _lead_traces(factor, lead, N) + np.array([[np.vdot(a.T, b) for b in NS] for a in NS])
    for k, Sk in enumerate(condensed):
        out[k, r:] = out[r:, k] = _diagonal_traces(factor, tail, F.T @ Sk @ F)
    return 0.5 * (out + out.T)


def _apply_blocks(kernel: Crossed, Sigma: Sequence[np.ndarray], A: np.ndarray) -> np.ndarray:
    """Sigma_t A for A (q_t, r), level by level of every trailing factor."""
    out = np.empty(A.shape)
    for j, (block, each) in enumerate(zip(kernel.tail, Sigma, strict=True)):
        s = slice(kernel.starts[j], kernel.starts[j + 1])
        out[s] = np.matmul(each, A[s].reshape(block.L, block.K, -1)).reshape(s.stop - s.start, -1)
    return out


def _condense(factor: CrossedFactor, T_inv: np.ndarray, Ek: np.ndarray) -> np.ndarray:
    """(q_t, q_t) sum over leading levels of C'T^-T E T^-1 C; E may be indefinite."""
    K = len(Ek)
    C = factor.kernel.coupling.by_effect
    H = [sum((C[c].multiply(T_inv[a, c][:, None]) for c in range(K)), 0.0 * C[0]).tocsr() for a in range(K)]
    total = sp.csr_matrix((factor.kernel.q, factor.kernel.q))
    for a in range(K):
        half = sum((Ek[a, b] * H[b] for b in range(K)), 0.0 * H[0])
        total = total + H[a].T @ half
    return np.asarray(total.toarray())


def _lead_traces(factor: CrossedFactor, lead: np.ndarray, N: np.ndarray) -> np.ndarray:
    """Terms within one level: tr(E_k U E_l U) - tr(E_k U E_l G) - tr(E_k G E_l U), G = T^-1 C N C'T^-T."""
    spread = factor.kernel.eliminator.spread(np.ascontiguousarray(0.5 * (N + N.T)))
    half = small.left(factor.T_inv, spread).transpose(1, 0, 2)
    G = small.left(factor.T_inv, half)
    U = factor.W1
    return _pair_traces(U, U, lead) - _pair_traces(U, G, lead) - _pair_traces(G, U, lead)


def _pair_traces(A: np.ndarray, B: np.ndarray, E: np.ndarray) -> np.ndarray:
    """(r, r) sum over levels of tr(E_k A E_l B), A and B (K, K, L)."""
    return np.einsum("kab,bcl,mcd,dal->km", E, A, E, B, optimize=True)


def _tail_traces(factor: CrossedFactor, tail: Sequence[np.ndarray], W: np.ndarray) -> np.ndarray:
    """(r_t, r_t) sums of tr(E_k W_ij E_l W_ji) over levels of the trailing factors."""
    kernel = factor.kernel
    spans = [slice(kernel.starts[j], kernel.starts[j + 1]) for j in range(len(kernel.tail))]
    rows = []
    for b, s, each in zip(kernel.tail, spans, tail, strict=True):
        row = []
        for d, t, other in zip(kernel.tail, spans, tail, strict=True):
            block = W[s, t].reshape(b.L, b.K, d.L, d.K)
            inner = np.einsum("iajb,icjd->abcd", block, block, optimize=True)  # [a, b, c, d]: W_ab W_cd
            row.append(np.einsum("kca,lbd,abcd->kl", each, other, inner, optimize=True))
        rows.append(np.hstack(row))
    return np.vstack(rows)


def _diagonal_traces(factor: CrossedFactor, tail: Sequence[np.ndarray], A: np.ndarray) -> np.ndarray:
    """(r_t,) sums over levels of <E_l, A_jj>."""
    kernel, out = factor.kernel, []
    for j, (block, each) in enumerate(zip(kernel.tail, tail, strict=True)):
        own = A[kernel.starts[j] : kernel.starts[j + 1], kernel.starts[j] : kernel.starts[j + 1]]
        levels = np.arange(block.L)
        total = own.reshape(block.L, block.K, block.L, block.K)[levels, :, levels, :].sum(axis=0)
        out.append(each.reshape(len(each), -1) @ total.ravel())
    return np.concatenate(out)
