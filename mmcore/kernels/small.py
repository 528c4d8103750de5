"""K x K matrices, one per level, stored (K, K, L) with levels last: products, inverses and determinants."""

from __future__ import annotations

import numpy as np

__all__ = ["determinant_and_inverse", "left", "shrink"]


def shrink(D: np.ndarray, Sigma: np.ndarray) -> np.ndarray:
    """(K, K, L): T = I + D Sigma per level."""
    K = len(Sigma)
    T = np.matmul(Sigma, D)  # sum_c Sigma[b, c] D[a, c, l]; Sigma is symmetric
    T.reshape(K * K, -1)[:: K + 1] += 1.0
    return T


def determinant_and_inverse(T: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum over levels of log |T|, and T^-1 as (K, K, L)."""
    K = len(T)
    if K == 1:
        return float(np.log(T).sum()), 1.0 / T
    if K == 2:
        det = T[0, 0] * T[1, 1] - T[0, 1] * T[1, 0]
        inverse = np.empty_like(T)
        np.divide(T[1, 1], det, out=inverse[0, 0])
        np.divide(T[0, 0], det, out=inverse[1, 1])
        np.divide(T[0, 1], -det, out=inverse[0, 1])
        np.divide(T[1, 0], -det, out=inverse[1, 0])
        return float(np.log(det).sum()), inverse
    by_level = np.ascontiguousarray(T.transpose(2, 0, 1))
    logdet = float(np.linalg.slogdet(by_level)[1].sum())
    return logdet, np.ascontiguousarray(np.linalg.inv(by_level).transpose(1, 2, 0))


def left(T: np.ndarray, U: np.ndarray) -> np.ndarray:
    """(r, K, L): T_l U[i, :, l] for every row i of U (r, K, L) and level l."""
    K = len(T)
    if K == 1:
        return U * T[0]
    if K == 2:
        out = np.empty_like(U)
        np.multiply(U[:, 0], T[0, 0], out=out[:, 0])
        out[:, 0] += U[:, 1] * T[0, 1]
        np.multiply(U[:, 0], T[1, 0], out=out[:, 1])
        out[:, 1] += U[:, 1] * T[1, 1]
        return out
    out = np.zeros_like(U)
    for a in range(K):
        for b in range(K):
            out[:, a] += T[a, b] * U[:, b]
    return out
