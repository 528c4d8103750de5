"""Design -> cross-products: everything the criterion needs, formed once and independent of theta.

Rows are scaled by the square roots of the prior weights. X enters through an orthonormal basis, X = Q R, and
y through its residual on that basis, so that forming products does not square the condition number of X nor
lose the digits a large mean of y takes. Random terms that share a grouping factor are one *block*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from ..design.build import Design
from ..design.random import RandomTerm
from .basis import orthonormal_basis

__all__ = ["Block", "CrossProducts", "cross_products", "random_blocks"]


@dataclass(frozen=True, slots=True)
class Block:
    """All random terms of one grouping factor."""

    group: str
    terms: tuple[int, ...]  # positions in design.terms
    codes: np.ndarray  # (n,) level of each row
    L: int  # number of levels
    columns: (
        np.ndarray
    )  # (K, n) model-matrix columns, one row per effect, scaled by sqrt(weight), in the frame
    frame: np.ndarray | None = (
        None  # (K, K) C: ``columns`` are those of Z C, effects b = C b~; None: identity
    )

    @property
    def K(self) -> int:
        """Number of effects per level."""
        return len(self.columns)

    def products(self, rows: np.ndarray) -> np.ndarray:
        """(r, K, L): sums over each level of ``rows`` (r, n) times the columns."""
        out = np.empty((len(rows), self.K, self.L))
        runs = self._runs()
        for a, column in enumerate(self.columns):
            constant = column[0] == 1.0 and bool((column == 1.0).all())
            if runs is not None:
                out[:, a, runs[1]] = np.add.reduceat(rows if constant else rows * column, runs[0], axis=1)
                continue
            for i, row in enumerate(rows):
                out[i, a] = np.bincount(self.codes, row if constant else row * column, self.L)
        return out

    def gram(self) -> np.ndarray:
        """(K, K, L): Z'Z of each level."""
        out = np.empty((self.K, self.K, self.L))
        runs = self._runs()
        for a in range(self.K):
            for b in range(a + 1):
                row = self.columns[a] * self.columns[b]
                if runs is None:
                    out[a, b] = np.bincount(self.codes, row, self.L)
                else:
                    out[a, b, runs[1]] = np.add.reduceat(row, runs[0])
                out[b, a] = out[a, b]
        return out

    def _runs(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(L,) first row and level of each run of equal codes, if every level is one run; else None."""
        changes = self.codes[1:] != self.codes[:-1]
        if int(np.count_nonzero(changes)) != self.L - 1:
            return None
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        levels = self.codes[starts]
        return (starts, levels) if np.bincount(levels, minlength=self.L).all() else None


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Weighted, orthogonalised data of a linear mixed model and the products of its fixed part."""

    n: int
    p: int
    blocks: tuple[Block, ...]  # largest number of columns first
    M: np.ndarray  # (p + 1, n): basis Q of sqrt(w) X, then sqrt(w)(y - offset) less its projection on Q
    A: np.ndarray  # (p + 1, p + 1) = M M' = diag(1, ..., 1, residual sum of squares)
    R: np.ndarray  # (p, p) upper, sqrt(w) X = Q R
    gamma0: np.ndarray  # (p,) = Q' sqrt(w)(y - offset)
    sqrt_w: np.ndarray | None  # (n,) or None for unit weights
    sum_log_w: float  # sum of log weights
    logdet_R: float  # log |R'R|
    gone: np.ndarray | None = None  # rows of M and of the blocks that the products are without

    @property
    def m(self) -> int:
        """Rows of M: the fixed effects and the response."""
        return self.p + 1

    def beta(self, gamma: np.ndarray) -> np.ndarray:
        """Fixed effects of X from coefficients of the basis beyond ``gamma0``."""
        if not self.p:
            return np.zeros(0)
        return np.linalg.solve(self.R, self.gamma0 + gamma)


def random_blocks(terms: Sequence[RandomTerm], sqrt_w: np.ndarray | None) -> tuple[Block, ...]:
    """Amalgamate terms on one factor; order by number of columns, largest first."""
    by_group: dict[str, list[int]] = {}
    for t, term in enumerate(terms):
        by_group.setdefault(term.group, []).append(t)
    blocks = []
    for group, members in by_group.items():
        columns = [terms[t].columns.T for t in members]
        rows = np.ascontiguousarray(columns[0] if len(columns) == 1 else np.vstack(columns))
        if sqrt_w is not None:
            rows = rows * sqrt_w
        first = terms[members[0]]
        blocks.append(Block(group, tuple(members), first.codes, len(first.levels), rows))
    return tuple(sorted(blocks, key=lambda b: -b.K * b.L))


def in_frame(block: Block, terms: Sequence[RandomTerm]) -> Block:
    """The block with columns Z C such that C'Z'ZC / n is the identity within each unstructured term.

    A slope far from its origin, such as a calendar year, otherwise has a covariance whose digits cancel.
    Effects of other structures are only scaled, so that independence and equality survive.
    """
    if block.K == 1 and block.columns[0, 0] == 1.0 and (block.columns[0] == 1.0).all():
        return block
    n = block.columns.shape[1]
    gram = block.columns @ block.columns.T / n
    C, at = np.zeros(gram.shape), 0
    for t in block.terms:
        rows = slice(at, at + len(terms[t].effects))
        C[rows, rows] = _whitening(gram[rows, rows], terms[t].structure == "us")
        at = rows.stop
    return replace(block, columns=C.T @ block.columns, frame=C)


def _whitening(gram: np.ndarray, correlated: bool) -> np.ndarray:
    """(k, k) upper C with C' gram C = I; only scaled if the effects are not correlated or the columns
    collinear."""
    scale = np.sqrt(gram.diagonal())
    scale = np.where(scale > 0, scale, 1.0)
    if correlated and len(gram) > 1:
        factor, info = dpotrf(gram / scale / scale[:, None], lower=0, clean=1)
        if not info and factor.diagonal().min() > 1e-6:
            return dtrtri(factor, lower=0)[0] / scale[:, None]
    return np.diag(1.0 / scale)


def cross_products(design: Design, y: np.ndarray | None = None) -> CrossProducts:
    """The products of a design; ``y`` replaces the response (offset still subtracted)."""
    y = design.y if y is None else y
    if design.offset is not None:
        y = y - design.offset
    sqrt_w, sum_log_w = None, 0.0
    Xt = np.ascontiguousarray(design.X.T)
    if design.weights is not None:
        sqrt_w = np.sqrt(design.weights)
        sum_log_w = float(np.log(design.weights).sum())
        Xt, y = Xt * sqrt_w, y * sqrt_w
    Q, R = orthonormal_basis(Xt)
    gamma0 = Q @ y
    resid = y - gamma0 @ Q
    again = Q @ resid  # second projection: what is left of Q in the residual is rounding of a large mean
    gamma0, resid = gamma0 + again, resid - again @ Q
    p, n = Q.shape
    M = np.empty((p + 1, n))
    M[:p], M[p] = Q, resid
    logdet_R = 2.0 * float(np.log(np.abs(np.diag(R))).sum()) if p else 0.0
    blocks = tuple(in_frame(b, design.terms) for b in random_blocks(design.terms, sqrt_w))
    A = np.eye(p + 1)
    A[p, p] = resid @ resid
    return CrossProducts(n, p, blocks, M, A, R, gamma0, sqrt_w, sum_log_w, logdet_R)
