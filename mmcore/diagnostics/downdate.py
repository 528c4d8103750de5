"""The products of a model without some of its rows, in the coordinates of the full fit."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from ..kernels import Kernel, kernel_for
from ..kernels.dense import Dense
from ..kernels.fixed import Fixed
from ..kernels.one_factor import OneFactor
from ..products import Block, CrossProducts

__all__ = ["restrict", "without"]


def restrict(A: CrossProducts, rows: np.ndarray) -> CrossProducts:
    """The products of some of the rows. Levels keep their numbers; those without rows stay, empty.

    The basis of X is still the full model's, hence not orthonormal on these rows: criterion, beta and
    (X'V^-1X)^-1 come out right because all of them go through the same R.
    """
    M = A.M[:, rows]
    sqrt_w = None if A.sqrt_w is None else A.sqrt_w[rows]
    blocks = tuple(
        Block(b.group, b.terms, b.codes[rows], b.L, np.ascontiguousarray(b.columns[:, rows]))
        for b in A.blocks
    )
    sum_log_w = 0.0 if sqrt_w is None else 2.0 * float(np.log(sqrt_w).sum())
    return CrossProducts(len(rows), A.p, blocks, M, M @ M.T, A.R, A.gamma0, sqrt_w, sum_log_w, A.logdet_R)


def _lighter(A: CrossProducts, gone: np.ndarray) -> CrossProducts:
    """The scalars and M M' without some rows; row-wise arrays are left as they were (not used by the
    criterion).
    """
    M = A.M[:, gone]
    log_w = 0.0 if A.sqrt_w is None else 2.0 * float(np.log(A.sqrt_w[gone]).sum())
    return replace(A, n=A.n - len(gone), A=A.A - M @ M.T, sum_log_w=A.sum_log_w - log_w)


def without(kernel: Kernel, gone: np.ndarray) -> Kernel:
    """A kernel for the criterion of the model without the rows ``gone``; products are downdated where that
    is cheap.

    Cost O(|gone|) plus a copy of the products for no, one or few random effects; O(n) otherwise.
    Only the criterion, its derivatives and beta may be asked of it: row-wise arrays are the full model's.
    """
    if isinstance(kernel, Fixed):
        return Fixed(_lighter(kernel.A, gone))
    if isinstance(kernel, OneFactor):
        return _one_factor_without(kernel, gone)
    if isinstance(kernel, Dense):
        lighter = copy(kernel)
        lighter.A = _lighter(kernel.A, gone)
        Z = kernel.ZM[:, gone]
        lighter.products = kernel.products - Z @ Z.T
        return lighter
    keep = np.ones(kernel.A.n, dtype=bool)
    keep[gone] = False
    return kernel_for(restrict(kernel.A, np.flatnonzero(keep)))


def _one_factor_without(kernel: OneFactor, gone: np.ndarray) -> OneFactor:
    block, K = kernel.block, kernel.block.K
    lighter = copy(kernel)
    lighter.A = _lighter(kernel.A, gone)
    lighter.U = kernel.U.copy()
    levels, codes = np.unique(block.codes[gone], return_inverse=True)
    part = Block(block.group, block.terms, codes, len(levels), np.ascontiguousarray(block.columns[:, gone]))
    lighter.U[:K, :, levels] -= part.gram()
    lighter.U[K:, :, levels] -= part.products(kernel.A.M[:, gone])
    return lighter
