"""Symmetric matrices of which only the upper triangle is kept, in C order: to LAPACK the lower one, untransposed.

Half the memory traffic of full ones and no transposition: the products, factors and inverses of a crossed model
spend their time here. What stands below the diagonal is undefined.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dsymm, dsyrk
from scipy.linalg.lapack import dpotrf, dpotri

STRIP = 128  # rows mirrored at a time

__all__ = ["cholesky", "gram", "inner", "inverse", "mirrored", "times"]


def times(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A B for A (q, q) and B (q, r)."""
    if not B.shape[1]:
        return np.zeros(B.shape)
    return dsymm(1.0, A.T, B, lower=1)


def cholesky(A: np.ndarray) -> tuple[np.ndarray, int]:
    """Lower factor L (in the lower triangle of the result) of A, which is overwritten; and LAPACK's info."""
    return dpotrf(A.T, lower=1, clean=0, overwrite_a=1)


def inverse(L: np.ndarray) -> np.ndarray:
    """(L L')^-1, its upper triangle; L is overwritten."""
    return dpotri(L, lower=1, overwrite_c=1)[0].T


def gram(rows: np.ndarray) -> np.ndarray:
    """rows' rows (q, q) for rows (n, q) in C order."""
    return dsyrk(1.0, rows.T, lower=1).T


def mirrored(A: np.ndarray) -> np.ndarray:
    """A copy with both triangles."""
    out, q = A.copy(), len(A)
    for begin in range(0, q, STRIP):
        end = min(begin + STRIP, q)
        out[end:, begin:end] = out[begin:end, end:].T
        corner = np.triu(out[begin:end, begin:end])
        out[begin:end, begin:end] = corner + np.triu(corner, 1).T
    return out


def inner(A: np.ndarray, B: np.ndarray) -> float:
    """sum_ij A_ij B_ij."""
    total = 0.0
    for begin in range(0, len(A), STRIP):
        end = min(begin + STRIP, len(A))
        corner = A[begin:end, begin:end] * B[begin:end, begin:end]
        total += float(np.vdot(A[begin:end, end:], B[begin:end, end:])) + float(np.triu(corner, 1).sum())
    return 2.0 * total + float(A.diagonal() @ B.diagonal())
