"""The random part under changing weights: factors of Sigma^-1 + Z'WZ for one factor, a nested chain, crossed
factors.

What the kernels do once for a linear model happens here at every step of a generalised one, because the
weights move. A *system* holds what does not depend on the weights (codes, flat positions, columns); ``at(w,
Sigma)`` gives a factor with, for A = Z'WZ, T = I + A Sigma and N = (Sigma^-1 + A)^-1 = Sigma T^-1,
    logdet     log |T| = log |Lambda'A Lambda + I|
    solve(g)   T^-1 g and N g, for g a list of (r, K, L) per block
    leverage() z_i' N z_i of every row
    trace()    sum over levels of the diagonal blocks of A - A N A = Z'V^-1Z, (K, K) per block
No inverse of Sigma is taken, so a singular Sigma is an ordinary point.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from .covariance import cholesky_psd
from .errors import FitError, UnsupportedError
from .kernels import small
from .kernels.nested import ancestors
from .products import Block

__all__ = ["System", "WeightedFactor", "system_for"]

Blocks = list[np.ndarray]  # per block (r, K, L)
DENSE_CELLS = 40_000_000  # largest leading x trailing coupling stored as a dense matrix
INDEFINITE = "the penalised weights of the random effects are not positive definite at these parameters"
TAIL_LIMIT = 12_000  # columns of the trailing factors, whose Schur complement is dense
ILL_CONDITIONED = 1e-3  # relative pivot of Lambda below which its inverse loses too many digits


class WeightedFactor(Protocol):
    """What every shape offers at given weights and Sigma."""

    logdet: float

    def solve(self, g: Blocks) -> tuple[Blocks, Blocks]: ...

    def leverage(self) -> np.ndarray: ...

    def trace(self) -> list[np.ndarray]: ...

    def levels(self) -> list[np.ndarray]: ...

    def information(self) -> list[np.ndarray]: ...


class System:
    """Codes and columns of the random terms; subclasses know the shape."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self.plain = [
            b.K == 1 and bool((b.columns == 1.0).all()) for b in self.blocks
        ]  # random intercepts only

    def cross(self, rows: np.ndarray) -> Blocks:
        """Z' v for every row v of ``rows`` (r, n): per block (r, K, L)."""
        out: Blocks = []
        for block, plain in zip(self.blocks, self.plain, strict=True):
            if plain and len(rows) == 1:
                out.append(np.bincount(block.codes, rows[0], block.L).reshape(1, 1, -1))
                continue
            part = np.empty((len(rows), block.K, block.L))
            for i, row in enumerate(rows):
                for a in range(block.K):
                    part[i, a] = np.bincount(block.codes, row if plain else row * block.columns[a], block.L)
            out.append(part)
        return out

    def times(self, b: Blocks) -> np.ndarray:
        """Z b (n,) for b of one row per block, (1, K, L)."""
        total: np.ndarray | None = None
        for block, plain, part in zip(self.blocks, self.plain, b, strict=True):
            for a in range(block.K):
                values = part[0, a][block.codes]
                if not plain:
                    values *= block.columns[a]
                total = values if total is None else total + values
        assert total is not None
        return total

    def at(self, w: np.ndarray, Sigma: list[np.ndarray]) -> WeightedFactor:
        """The factor at weights (n,) and a relative covariance (K, K) per block."""
        raise NotImplementedError

    def _gram(self, j: int, w: np.ndarray) -> np.ndarray:
        """(K, K, L) Z_j'W Z_j of each level."""
        block = self.blocks[j]
        if self.plain[j]:
            return np.bincount(block.codes, w, block.L).reshape(1, 1, -1)
        out = np.empty((block.K, block.K, block.L))
        for a in range(block.K):
            weighted = w * block.columns[a]
            for b in range(a + 1):
                out[a, b] = out[b, a] = np.bincount(block.codes, weighted * block.columns[b], block.L)
        return out


def system_for(blocks: Sequence[Block]) -> System:
    """The system that fits the shape of Z; blocks come largest first."""
    if len(blocks) == 1:
        return OneFactorSystem(blocks)
    parents = _chain(blocks)
    return CrossedSystem(blocks) if parents is None else NestedSystem(blocks, parents)


def _chain(blocks: Sequence[Block]) -> dict[tuple[int, int], np.ndarray] | None:
    """Ancestor maps of every pair if each factor is nested in all later ones."""
    parents = {}
    for j, inner in enumerate(blocks):
        for i in range(j + 1, len(blocks)):
            found = ancestors(inner, blocks[i]) if inner.L >= blocks[i].L else None
            if found is None:
                return None
            parents[j, i] = found
    return parents


def _scaled_inverse(D: np.ndarray, Sigma: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """log |T|, T^-1 and N = Sigma T^-1, per level, for T = I + D Sigma."""
    k = len(Sigma)
    if k == 1:
        variance = float(Sigma[0, 0])
        T = 1.0 + variance * D
        logdet = float(np.log(T).sum())
        if not isfinite(logdet):
            raise FitError(INDEFINITE)
        T_inv = 1.0 / T
        return logdet, T_inv, variance * T_inv
    try:
        logdet, T_inv = small.determinant_and_inverse(small.shrink(D, Sigma))
    except np.linalg.LinAlgError:  # exactly singular, where rounding or a blind step would have it
        raise FitError(INDEFINITE) from None
    if not isfinite(logdet):
        raise FitError(INDEFINITE)
    N = np.matmul(Sigma, T_inv.reshape(k, -1)).reshape(k, k, -1)
    return logdet, T_inv, 0.5 * (N + N.transpose(1, 0, 2))


def _quadratic(N: np.ndarray, block: Block, plain: bool) -> np.ndarray:
    """(n,) z_i' N_level(i) z_i."""
    if plain:
        return N[0, 0][block.codes]
    out = np.zeros(len(block.codes))
    for a in range(block.K):
        for b in range(a + 1):
            twice = 1.0 if a == b else 2.0
            out += twice * block.columns[a] * block.columns[b] * N[a, b][block.codes]
    return out


def _product(B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(r, s, L): B (r, k, L) times C (k, s, L), level by level."""
    if B.shape[1] == 1:
        return B * C if B.shape[0] == 1 or C.shape[1] == 1 else B[:, :1] * C[:1]
    return np.ascontiguousarray(np.matmul(B.transpose(2, 0, 1), C.transpose(2, 0, 1)).transpose(1, 2, 0))


def _turn(B: np.ndarray) -> np.ndarray:
    return B.transpose(1, 0, 2)


def _apply(B: np.ndarray, X: np.ndarray) -> np.ndarray:
    """(r, K_i, L): B (K_i, K_j, L) applied to every row of X (r, K_j, L)."""
    if B.shape[:2] == (1, 1):
        return X * B[0]
    out = np.zeros((len(X), B.shape[0], X.shape[2]))
    for a in range(B.shape[0]):
        for b in range(B.shape[1]):
            out[:, a] += B[a, b] * X[:, b]
    return out


# --- one grouping factor ----------------------------------------------------------------------------------


class OneFactorSystem(System):
    """Block diagonal: cost O(n K^2 + L K^3)."""

    def at(self, w: np.ndarray, Sigma: list[np.ndarray]) -> OneFactorWeighted:
        return OneFactorWeighted(self, self._gram(0, w), Sigma[0])


class OneFactorWeighted:
    """One K x K problem per level."""

    def __init__(self, system: OneFactorSystem, D: np.ndarray, Sigma: np.ndarray) -> None:
        self.system, self.D, self.Sigma = system, D, Sigma
        self.logdet, self.T_inv, self.N = _scaled_inverse(D, Sigma)

    def solve(self, g: Blocks) -> tuple[Blocks, Blocks]:
        if len(self.Sigma) == 1:
            return [self.T_inv[0] * g[0]], [self.N[0] * g[0]]
        return [small.left(self.T_inv, g[0])], [small.left(self.N, g[0])]

    def leverage(self) -> np.ndarray:
        return _quadratic(self.N, self.system.blocks[0], self.system.plain[0])

    def trace(self) -> list[np.ndarray]:
        K = len(self.Sigma)
        if K == 1:
            return [np.array([[float(self.T_inv[0, 0] @ self.D[0, 0])]])]
        total = _product(self.T_inv, self.D).sum(axis=2)
        return [0.5 * (total + total.T)]

    def levels(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of N."""
        return [self.N]

    def information(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of Z'V^-1Z."""
        return [_product(self.T_inv, self.D)]


# --- a chain of nested factors ----------------------------------------------------------------------------


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
            part, T_inv, K = _scaled_inverse(self.D[j], Sigma[j])
            self.logdet += part
            self.T_inv.append(T_inv)
            self.K.append(K)
            for i in range(j + 1, J):
                BK = _product(self.B[j, i], K)
                for h in range(i, J):
                    change = _product(BK, _turn(self.B[j, h]))  # (K_i, K_h, L_j)
                    if h == i:
                        self.D[i] = self.D[i] - system.up(change, j, i)
                    else:
                        self.B[i, h] = self.B[i, h] - system.up(_turn(change), j, i)

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
                rhs = rhs - _apply(_turn(self.B[j, i]), out[i][:, :, system.parents[j, i]])
            out[j] = small.left(self.K[j], rhs)
        return [a - b for a, b in zip(g, self._gram_times(out), strict=True)], out

    def _gram_times(self, X: Blocks) -> Blocks:
        """A X."""
        out = [small.left(D, x) for D, x in zip(self.D0, X, strict=True)]
        for (j, i), B in self.coupling.items():
            out[i] = out[i] + self.system.up(_apply(B, X[j]), j, i)
            out[j] = out[j] + _apply(_turn(B), X[i][:, :, self.system.parents[j, i]])
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
                    block = N[h, i][:, :, at] if h <= i else _turn(N[i, h][:, :, at])
                    total = total + _product(_turn(self.B[j, h]), block)
                N[j, i] = -_product(self.K[j], np.asarray(total))
            own = self.K[j]
            for h in range(j + 1, J):
                own = own - _product(self.K[j], _product(_turn(self.B[j, h]), _turn(N[j, h])))
            N[j, j] = 0.5 * (own + _turn(own))
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
                KB = _product(self.K[i][:, :, parent], B)
                W[j] = W[j] - _product(_turn(B), KB)
                for h in range(i + 1, J):
                    couple[j, h] = couple[j, h] - _product(self.B[i, h][:, :, parent], KB)
            W.append(_product(self.T_inv[i], self.D[i]))
            for h in range(i + 1, J):
                couple[i, h] = _product(self.B[i, h], _turn(self.T_inv[i]))
        return W

    def trace(self) -> list[np.ndarray]:
        sums = [w.sum(axis=2) for w in self.information()]
        return [0.5 * (s + s.T) for s in sums]


# --- crossed factors --------------------------------------------------------------------------------------


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
        self.logdet, self.T_inv, self.K1 = _scaled_inverse(self.D1, Sigma[0])
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
        return self.K1 + _product(self.K1, _product(Q, self.K1))

    def _tail_levels(self, matrix: np.ndarray, j: int) -> np.ndarray:
        block, start = self.system.tail[j], self.system.starts[j]
        rows = start + np.arange(block.L * block.K).reshape(block.L, block.K)
        return np.ascontiguousarray(matrix[rows[:, :, None], rows[:, None, :]].transpose(1, 2, 0))

    def leverage(self) -> np.ndarray:
        system, N, CN = self.system, self._inverse(), self._lead_tail()
        lead, q = system.lead, system.q
        out = _quadratic(self._lead_levels(CN), lead, system.plain[0])
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
        W1 = _product(self.T_inv, self.D1)
        TQT = _product(self.T_inv, _product(self._spread(CN), _turn(self.T_inv)))
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
        TQT = _product(self.T_inv, _product(self._spread(CN), _turn(self.T_inv)))
        lead = _product(self.T_inv, self.D1) - TQT
        SNS = self.S - self.S @ self._inverse() @ self.S
        return [lead, *(self._tail_levels(SNS, j) for j in range(len(self.Lambda)))]
