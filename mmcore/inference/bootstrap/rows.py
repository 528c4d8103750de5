"""A kernel with other rows of M: fewer fixed effects, or another response. Z and its products stay."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from ...kernels import Kernel
from ...kernels.crossed import Crossed
from ...kernels.dense import Dense
from ...kernels.nested import Nested
from ...kernels.one_factor import OneFactor
from ...kernels.products import CrossProducts

__all__ = ["combined", "with_response", "with_rows"]


def with_rows(kernel: Kernel, A: CrossProducts, ZM: list[np.ndarray]) -> Kernel:
    """The kernel of the products ``A``, whose blocks are the same; ``ZM`` per block (m, K, L) are the new Z'M."""
    new = copy(kernel)
    new.A = A
    if isinstance(new, OneFactor):
        new.U = np.concatenate([new.U[: new.block.K], ZM[0]])
    elif isinstance(new, Nested):
        new.C = ZM
    elif isinstance(new, Crossed):
        new.U = np.concatenate([new.U[: new.lead.K], ZM[0]])
        new.tail_M = _stacked(ZM[1:])
    elif isinstance(new, Dense):
        q, m = new.q, A.m
        products = np.empty((q + m, q + m))
        products[:q, :q] = new.products[:q, :q]
        products[:q, q:] = _stacked(ZM)
        products[q:, :q] = products[:q, q:].T
        products[q:, q:] = A.A
        new.products, new.ZM = products, np.vstack([new.ZM[:q], A.M])
    return new


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Per block (m, K, L) -> (q, m), level by level."""
    return np.vstack([part.transpose(2, 1, 0).reshape(-1, len(part)) for part in parts])


def combined(kernel: Kernel, T: np.ndarray) -> Kernel:
    """The kernel with rows T M (r, m) of which the first r - 1 are orthonormal combinations of the fixed effects'."""
    A = kernel.A
    new = replace(
        A, p=len(T) - 1, M=T @ A.M, A=T @ A.A @ T.T, R=np.eye(len(T) - 1), gamma0=np.zeros(len(T) - 1)
    )
    return with_rows(kernel, new, [np.tensordot(T, C, 1) for C in kernel.random_products()])


def with_response(kernel: Kernel, y: np.ndarray) -> Kernel:
    """The kernel for another response (n,), offset already subtracted; O(n (p + k))."""
    A = kernel.A
    p, M = A.p, A.M.copy()
    y = y if A.sqrt_w is None else y * A.sqrt_w
    gamma0 = M[:p] @ y
    rest = y - gamma0 @ M[:p]
    again = M[:p] @ rest
    M[p], gamma0 = rest - again @ M[:p], gamma0 + again
    gram = A.A.copy()
    gram[p, p] = M[p] @ M[p]
    new = replace(A, M=M, A=gram, gamma0=gamma0)
    ZM = [C.copy() for C in kernel.random_products()]
    for block, C in zip(A.blocks, ZM, strict=True):
        C[p] = block.products(M[p][None])[0]
    return with_rows(kernel, new, ZM)
