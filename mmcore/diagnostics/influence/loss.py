"""How much information about the fixed effects and the response goes with a set of rows, at fixed Sigma.

With S = [X y]'V^-1[X y] of all rows and S_A of the rows without A, the loss is
    D_A = LS^-1 (S - S_A) LS^-T = G_A (V^-1[A, A])^-1 G_A',      G = LS^-1 [X y]'V^-1,
in whitened coordinates: its first p x p block B has eigenvalues in [0, 1], and 1 means that the remaining
rows do not determine beta. Every one-step measure is a function of D_A; V^-1[A, A] is formed for small A
only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
import scipy.sparse as sp

from ...kernels.criterion import Criterion
from ...kernels.crossed import CrossedFactor
from ...kernels.downdate import without
from ...kernels.nested import NestedFactor
from ...kernels.one_factor import OneFactorFactor
from ...kernels.products import Block
from ...kernels.profile import Likelihood
from ...kernels.whitened import of_random
from ...results.workspace import Marginal
from ..units import Units

__all__ = ["losses"]

DENSE_ROWS = 1200  # largest set whose V^-1[A, A] is formed: beyond, new products of the kept rows are cheaper


def losses(ws: Marginal, units: Units) -> np.ndarray:
    """(U, m, m) loss of every unit.

    Levels of a factor of a one-factor or nested model: O(n m^2) in all. Crossed: per level, one dense
    matrix of its rows, or the products of the rest if it is large. Sets: downdated products.
    """
    state = ws.fit.state
    if units.codes is not None and not units.is_rows and isinstance(state, OneFactorFactor | NestedFactor):
        return _by_level(ws, units.codes, units.level, state)
    sets = units.rows()
    if isinstance(state, CrossedFactor):
        return _crossed(ws, sets, state)
    return np.array([_by_downdate(ws, rows) for rows in sets])


def _by_downdate(ws: Marginal, rows: np.ndarray) -> np.ndarray:
    """Loss of one set from the Schur complement without it."""
    state, LS_inv = ws.fit.state, ws.fit.state.profile.LS_inv
    criterion = Criterion(without(ws.fit.kernel, rows), ws.fit.covariance, Likelihood(profiled=False))
    rest = criterion.factor(ws.fit.par)
    return LS_inv @ (state.S - rest.S) @ LS_inv.T


# ---- levels of a factor in a one-factor or nested model ------------------------------


def _chain(
    state: OneFactorFactor | NestedFactor,
) -> tuple[tuple[Block, ...], list[np.ndarray]]:
    """Blocks and Sigma per factor, innermost first."""
    if isinstance(state, OneFactorFactor):
        return (state.kernel.block,), [state.Sigma]
    return state.kernel.blocks, list(state.Sigma)


def _by_level(
    ws: Marginal, codes: np.ndarray, level: Hashable, state: OneFactorFactor | NestedFactor
) -> np.ndarray:
    """Loss of every level of a factor j at once.

    With V_A the covariance of the rows of a level from the factors up to j, and the outer factors' effects of
    that level, Z_o, with conditional covariance H:  (V^-1[A, A])^-1 = V_A + Z_o H (I - Q H)^-1 Z_o',
    Q = Z_o'V_A^-1Z_o.
    """
    blocks, Sigma = _chain(state)
    j = next(i for i, b in enumerate(blocks) if b.group == level)
    at = blocks[j].codes
    D = _inner_part(ws, j, blocks, Sigma)
    if isinstance(state, NestedFactor) and j + 1 < len(blocks):
        inner = _outer_weight(state, j)
        outer = np.concatenate([_sums(at, blocks[j].L, b.columns, ws.white) for b in blocks[j + 1 :]], axis=1)
        D += np.einsum("ikl,khl,jhl->ijl", outer, inner, outer, optimize=True)
    order = np.empty(codes.max() + 1, dtype=np.intp)
    order[codes] = at
    return np.ascontiguousarray(D.transpose(2, 0, 1)[order])


def _sums(codes: np.ndarray, L: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(r, K, L): sums over levels of rows times columns."""
    return np.array([[np.bincount(codes, row * col, L) for col in columns] for row in rows])


def _inner_part(ws: Marginal, j: int, blocks: tuple[Block, ...], Sigma: list[np.ndarray]) -> np.ndarray:
    """(m, m, L_j) G_A V_A G_A' for V_A = I + sum over factors up to j of Z Sigma Z'."""
    G, m, L, codes = ws.white, len(ws.white), blocks[j].L, blocks[j].codes
    D = np.empty((m, m, L))
    for a in range(m):
        for b in range(a + 1):
            D[a, b] = D[b, a] = np.bincount(codes, G[a] * G[b], L)
    for i in range(j + 1):
        u = ws.random[i]  # (m, K, L_i), as s and rest
        s, rest = of_random(blocks[i], Sigma[i], G, u)
        parent = _parents(blocks[i], blocks[j])
        for a in range(m):
            for b in range(a + 1):
                part = (s[a] * u[b] + rest[a] * s[b]).sum(axis=0)
                part = part if parent is None else np.bincount(parent, part, L)
                D[a, b] += part
                if a != b:
                    D[b, a] += part
    return D


def _parents(inner: Block, outer: Block) -> np.ndarray | None:
    """(L_inner,) level of the outer factor that holds each level, None for a factor and itself."""
    if inner is outer:
        return None
    parent = np.zeros(inner.L, dtype=np.intp)
    parent[inner.codes] = outer.codes
    return parent


def _outer_weight(state: NestedFactor, j: int) -> np.ndarray:
    """(K_o, K_o, L_j) H (I - Q H)^-1 over the effects of all factors outside j."""
    blocks, J = state.kernel.blocks, len(state.kernel.blocks)
    L, codes = blocks[j].L, blocks[j].codes
    pairs = state._conditional_pairs()
    ends = np.cumsum([0, *(b.K for b in blocks[j + 1 :])])
    H, Q = np.zeros((ends[-1], ends[-1], L)), np.zeros((ends[-1], ends[-1], L))
    for i in range(j + 1, J):
        rows = slice(ends[i - j - 1], ends[i - j])
        for h in range(i, J):
            cols = slice(ends[h - j - 1], ends[h - j])
            block = pairs[i, h][:, :, state.kernel.parents[j, i]]
            gram = _sums(codes, L, blocks[h].columns, blocks[i].columns)
            for f in range(j + 1):
                change = np.einsum(
                    "kal,abl,hbl->khl", state.B[f, i], state.K[f], state.B[f, h], optimize=True
                )
                gram = gram - (change if f == j else _to_parent(change, state.kernel.parents[f, j], L))
            H[rows, cols], Q[rows, cols] = block, gram
            H[cols, rows], Q[cols, rows] = block.transpose(1, 0, 2), gram.transpose(1, 0, 2)
    H, Q = H.transpose(2, 0, 1), Q.transpose(2, 0, 1)
    inner = np.linalg.solve((np.eye(ends[-1]) - Q @ H).transpose(0, 2, 1), H.transpose(0, 2, 1))
    return (0.5 * (inner + inner.transpose(0, 2, 1))).transpose(1, 2, 0)


def _to_parent(values: np.ndarray, parent: np.ndarray, L: int) -> np.ndarray:
    flat = values.reshape(-1, values.shape[-1])
    return np.array([np.bincount(parent, row, L) for row in flat]).reshape(*values.shape[:-1], L)


# ---- crossed models ------------------------------------------------------------------


class RowGram:
    """Z_A (Sigma^-1 + Z'Z)^-1 Z_A' for the rows A of a crossed model.

    With the leading factor eliminated it is z K_1 z' within a leading level plus Y N Y', Y = Z_t - Z_1 K_1 C.
    """

    def __init__(self, state: CrossedFactor) -> None:
        self.state, kernel = state, state.kernel
        n = len(kernel.lead.codes)
        rows = np.arange(n)
        parts = [
            sp.csr_matrix((b.columns[k], (rows, kernel.starts[j] + b.codes * b.K + k)), shape=(n, kernel.q))
            for j, b in enumerate(kernel.tail)
            for k in range(b.K)
        ]
        self.Z_tail = sum(parts[1:], start=parts[0]).tocsr()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        state, kernel = self.state, self.state.kernel
        lead = kernel.lead
        at, z = lead.codes[rows], lead.columns[:, rows]
        zK = np.einsum("bi,bai->ai", z, state.K1[:, :, at])
        Y = self.Z_tail[rows]
        for a, C in enumerate(kernel.coupling.by_effect):
            Y = Y - sp.diags_array(zK[a]) @ C[at]
        Y = Y.tocsr()
        YN = Y @ state._inverse()
        own = np.where(at[:, None] == at[None, :], zK.T @ z, 0.0)
        return own + (Y @ YN.T).T


def _crossed(ws: Marginal, sets: Iterable[np.ndarray], state: CrossedFactor) -> np.ndarray:
    gram = RowGram(state)
    out = []
    for rows in sets:
        if len(rows) > DENSE_ROWS:
            out.append(_by_downdate(ws, rows))
            continue
        N = -gram(rows)
        N[np.diag_indices_from(N)] += 1.0
        G = ws.white[:, rows]
        out.append(G @ np.linalg.solve(0.5 * (N + N.T), G.T))
    return np.array(out)
