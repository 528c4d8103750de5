"""The products of a model without some of its rows, in the coordinates of the full fit."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import Kernel
from .coupling import Coupling, Gemm, Pairs
from .crossed import Crossed
from .dense import Dense
from .nested import Nested
from .one_factor import OneFactor
from .products import Block, CrossProducts

__all__ = ["without"]


def without(kernel: Kernel, gone: np.ndarray) -> Kernel:
    """A kernel of the model without the rows ``gone``: its products less those of the rows.

    The basis of X is still the full model's, hence not orthonormal on the rows kept: criterion, beta and
    (X'V^-1X)^-1 come out right because all of them go through the same R. Levels without rows stay, empty.
    Row-wise arrays are the full model's: ask for the criterion, its derivatives and beta only.
    Cost: a copy of the products and O(|gone|).
    """
    lighter: Any = copy(kernel)
    lighter.A = _lighter(kernel.A, gone)
    if isinstance(kernel, OneFactor):
        _one_factor(lighter, kernel, gone)
    elif isinstance(kernel, Dense):
        Z = kernel.ZM[:, gone]
        lighter.products = kernel.products - Z @ Z.T
    elif isinstance(kernel, Nested):
        _nested(lighter, kernel, gone)
    elif isinstance(kernel, Crossed):
        _crossed(lighter, kernel, gone)
    return lighter


def _lighter(A: CrossProducts, gone: np.ndarray) -> CrossProducts:
    """The scalars and M M' without some rows."""
    M = A.M[:, gone]
    log_w = 0.0 if A.sqrt_w is None else 2.0 * float(np.log(A.sqrt_w[gone]).sum())
    return replace(A, n=A.n - len(gone), A=A.A - M @ M.T, sum_log_w=A.sum_log_w - log_w, gone=gone)


def _part(block: Block, gone: np.ndarray) -> tuple[np.ndarray, Block]:
    """The levels that the rows touch, and the block of these rows on these levels."""
    levels, codes = np.unique(block.codes[gone], return_inverse=True)
    columns = np.ascontiguousarray(block.columns[:, gone])
    return levels, Block(block.group, block.terms, codes, len(levels), columns)


def _one_factor(lighter: OneFactor, kernel: OneFactor, gone: np.ndarray) -> None:
    K = kernel.block.K
    levels, part = _part(kernel.block, gone)
    lighter.U = kernel.U.copy()
    lighter.U[:K, :, levels] -= part.gram()
    lighter.U[K:, :, levels] -= part.products(kernel.A.M[:, gone])


def _nested(lighter: Nested, kernel: Nested, gone: np.ndarray) -> None:
    M = kernel.A.M[:, gone]
    lighter.D, lighter.C = [d.copy() for d in kernel.D], [c.copy() for c in kernel.C]
    lighter.coupling = {pair: c.copy() for pair, c in kernel.coupling.items()}
    for j, block in enumerate(kernel.blocks):
        levels, part = _part(block, gone)
        lighter.D[j][:, :, levels] -= part.gram()
        lighter.C[j][:, :, levels] -= part.products(M)
        for i in range(j + 1, len(kernel.blocks)):
            lighter.coupling[j, i][:, :, levels] -= part.products(kernel.blocks[i].columns[:, gone])


def _crossed(lighter: Crossed, kernel: Crossed, gone: np.ndarray) -> None:
    K, M = kernel.lead.K, kernel.A.M[:, gone]
    levels, part = _part(kernel.lead, gone)
    lighter.U = kernel.U.copy()
    lighter.U[:K, :, levels] -= part.gram()
    lighter.U[K:, :, levels] -= part.products(M)
    Z = _tail_columns(kernel, gone)
    lighter.tail_gram = kernel.tail_gram.copy()
    active = np.unique(Z.indices)
    lighter.tail_gram[np.ix_(active, active)] -= (Z.T @ Z).tocsr()[active][:, active].toarray()
    lighter.tail_M = kernel.tail_M - Z.T @ M.T
    lighter.coupling = _coupling(kernel.coupling, part, levels, Z)
    lighter.eliminator = _eliminator(kernel.eliminator, lighter.coupling, levels)


def _tail_columns(kernel: Crossed, rows: np.ndarray) -> sp.csr_array:
    """(|rows|, q_t) columns of the trailing factors."""
    at, values = [], []
    for j, block in enumerate(kernel.tail):
        for k in range(block.K):
            at.append(kernel.starts[j] + block.codes[rows] * block.K + k)
            values.append(block.columns[k, rows])
    order = np.repeat(np.arange(len(rows)), len(at))
    flat = (np.stack(values, 1).ravel(), (order, np.stack(at, 1).ravel()))
    return sp.csr_array(flat, shape=(len(rows), kernel.q))


def _coupling(C: Coupling, lead: Block, levels: np.ndarray, Z: sp.csr_array) -> Coupling:
    """The coupling less the products of some rows; its pattern stays."""
    lighter = copy(C)
    lighter.values = C.values.copy()
    change = [_by_level(lead.codes, column, lead.L) @ Z for column in lead.columns]
    for local, level in enumerate(levels):
        span = slice(C.indptr[level], C.indptr[level + 1])
        for a, rows in enumerate(change):
            row = rows[[local]].toarray().ravel()
            lighter.values[a, span] -= row[C.indices[span]]
    shape = (C.L, C.q)
    lighter.by_effect = [sp.csr_matrix((v, C.indices, C.indptr), shape=shape) for v in lighter.values]
    lighter.by_effect_T = [c.T.tocsr() for c in lighter.by_effect]
    return lighter


def _by_level(codes: np.ndarray, column: np.ndarray, L: int) -> sp.csr_array:
    return sp.csr_array((column, (codes, np.arange(len(codes)))), shape=(L, len(codes)))


def _eliminator(old: Pairs | Gemm, C: Coupling, levels: np.ndarray) -> Pairs | Gemm:
    lighter: Any = copy(old)
    lighter.C = C
    if isinstance(old, Gemm):
        lighter.dense = [d.copy() for d in old.dense]
        for a, dense in enumerate(lighter.dense):
            dense[levels] = C.by_effect[a][levels].toarray()
        return lighter
    lighter._by_effects = []
    firsts, seconds = zip(*(_pairs_of(C, level) for level in levels), strict=True)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    v = C.values
    for a, b, matrix, _ in old._by_effects:
        data = matrix.data.copy()
        values = v[a, first] * v[b, second]
        if a != b:
            values += v[b, first] * v[a, second]
        spans = [np.arange(matrix.indptr[level], matrix.indptr[level + 1]) for level in levels]
        data[np.concatenate(spans)] = values
        new = sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=False)
        lighter._by_effects.append((a, b, new, new.T))
    return lighter


def _pairs_of(C: Coupling, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the pairs (i <= j) of entries of a level, in the order in which they are stored."""
    begin, end = int(C.indptr[level]), int(C.indptr[level + 1])
    first, second = np.triu_indices(end - begin)
    return begin + first, begin + second
