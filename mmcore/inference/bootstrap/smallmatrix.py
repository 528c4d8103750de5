"""Stacks of small matrices (B, ..., k, k), factored by loops over k: for k of a few, faster than LAPACK one by one."""

from __future__ import annotations

import numpy as np

__all__ = ["cholesky", "determinant_and_inverse", "lower_inverse", "solve_definite"]


def cholesky(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower factors of A (B, k, k), and (B,) whether A is positive definite; where it is not they are NaN."""
    k = A.shape[-1]
    L = np.zeros(A.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        for j in range(k):
            pivot = A[:, j, j] - np.square(L[:, j, :j]).sum(axis=1)
            L[:, j, j] = np.sqrt(np.where(pivot > 0.0, pivot, np.nan))
            for i in range(j + 1, k):
                L[:, i, j] = (A[:, i, j] - (L[:, i, :j] * L[:, j, :j]).sum(axis=1)) / L[:, j, j]
    return L, np.asarray(np.isfinite(L).all(axis=(1, 2)))


def lower_inverse(L: np.ndarray) -> np.ndarray:
    """L^-1 of lower triangular L (B, k, k)."""
    k = L.shape[-1]
    out = np.zeros(L.shape)
    for i in range(k):
        out[:, i, i] = 1.0 / L[:, i, i]
        for j in range(i):
            out[:, i, j] = -out[:, i, i] * (L[:, i, j:i] * out[:, j:i, j]).sum(axis=1)
    return out


def solve_definite(H: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H^-1 g (B, k), g'H^-1 g (B,) and whether H is positive definite, safely so; NaN where it is not."""
    L, ok = cholesky(H)
    half = lower_inverse(L)
    u = (half * g[:, None, :]).sum(axis=2)
    pivots = np.square(np.diagonal(L, axis1=1, axis2=2))
    ok &= pivots.min(axis=1) > 1e-8 * pivots.max(axis=1)
    return (half * u[:, :, None]).sum(axis=1), np.square(u).sum(axis=1), ok


def determinant_and_inverse(T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log |T| (B, G) and T^-1 of T (B, G, k, k) with positive determinants."""
    k = T.shape[-1]
    if k == 1:
        return np.log(T[..., 0, 0]), 1.0 / T
    if k == 2:
        det = T[..., 0, 0] * T[..., 1, 1] - T[..., 0, 1] * T[..., 1, 0]
        out = np.empty_like(T)
        out[..., 0, 0], out[..., 1, 1] = T[..., 1, 1] / det, T[..., 0, 0] / det
        out[..., 0, 1], out[..., 1, 0] = -T[..., 0, 1] / det, -T[..., 1, 0] / det
        return np.log(det), out
    return np.linalg.slogdet(T)[1], np.linalg.inv(T)
