"""Lower triangular factors, their entries in lme4's order, and the names of these entries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.linalg.lapack import dgeqrf

__all__ = [
    "TENSORS",
    "cholesky_psd",
    "lower_factor",
    "triangle_entries",
    "triangle_names",
    "triangle_tensors",
]


TENSORS = 8  # effects up to which the Jacobian is one product with constants


def cholesky_psd(Sigma: np.ndarray) -> np.ndarray:
    """Lower factor of a positive semi-definite matrix; a zero pivot gives a zero column."""
    k = len(Sigma)
    L = np.zeros((k, k))
    A = np.array(Sigma, float)
    for j in range(k):
        pivot = A[j, j]
        if pivot > 1e-14 * max(Sigma[j, j], 1e-300):
            L[j:, j] = A[j:, j] / np.sqrt(pivot)
            A[j:, j:] -= np.outer(L[j:, j], L[j:, j])
    return L


def lower_factor(A: np.ndarray) -> np.ndarray:
    """Lower triangular L with L L' = A A', from A itself: forming A A' would lose half the digits."""
    if len(A) == 1:
        return np.abs(A)
    return dgeqrf(A.T)[0].T * _lower(len(A))


@lru_cache(maxsize=32)
def _lower(k: int) -> np.ndarray:
    return np.tri(k)


def triangle_names(effects: Sequence[str]) -> list[str]:
    """lme4's labels of the lower triangle, column by column: ``a``, ``b.a``, ``b``."""
    k = len(effects)
    return [effects[i] if i == j else f"{effects[i]}.{effects[j]}" for j in range(k) for i in range(j, k)]


def triangle_entries(L: np.ndarray) -> np.ndarray:
    """Entries of the lower triangle, column by column."""
    return np.concatenate([L[j:, j] for j in range(len(L))])


@lru_cache(maxsize=32)
def triangle_tensors(k: int) -> tuple[np.ndarray, ...]:
    """Rows, columns, positions of the diagonal, (n_par, k, k, k^2) constants of the Jacobian, same-column mask.

    The constants grow with the sixth power of k: beyond ``TENSORS`` effects there are none.
    """
    cols = [(i, j) for j in range(k) for i in range(j, k)]
    row, col = np.array([i for i, _ in cols]), np.array([j for _, j in cols])
    # dSigma_ab / dpar_t = base[t, a, b] vec(Lambda): constant, so the Jacobian is one product
    if k > TENSORS:
        return row, col, np.flatnonzero(row == col), np.zeros(0), 2.0 * (col[:, None] == col[None, :])
    base = np.zeros((len(cols), k, k, k, k))
    for t, (r, c) in enumerate(cols):
        for a in range(k):
            base[t, r, a, a, c] += 1.0
            base[t, a, r, a, c] += 1.0
    same_column = 2.0 * (col[:, None] == col[None, :])
    return row, col, np.flatnonzero(row == col), base.reshape(len(cols), k, k, k * k), same_column
