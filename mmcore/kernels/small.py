"""K x K matrices, one per level, stored (K, K, L) with levels last: products, inverses and determinants."""

from __future__ import annotations

import numpy as np

from ..covariance.triangle import cholesky_psd
from ..errors import FitError
from .profile import TOO_LARGE

__all__ = ["determinant_and_inverse", "eliminate", "half", "left", "shrink"]


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


def eliminate(
    D: np.ndarray, Sigma: np.ndarray, root: np.ndarray | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum of log |T|, T^-1 and K = (Sigma^-1 + D)^-1 = Sigma T^-1 per level, T = I + D Sigma; D is (K, K, L).

    K is found without going through T, whose inverse carries errors of the order of cond(T): with large
    random effects that is the whole residual. Two effects: |T| = 1 + tr D Sigma + |D| |Sigma| and K = (Sigma
    + |Sigma| adj D) / |T|. More: K = Lambda (I + Lambda'D Lambda)^-1 Lambda', valid for a singular Sigma too;
    ``root`` is Lambda, where it is known better than from Sigma.
    """
    k = len(Sigma)
    if k == 1:
        T_inv = 1.0 / (1.0 + Sigma[0, 0] * D)
        return -float(np.log(T_inv).sum()), T_inv, Sigma[0, 0] * T_inv
    if k == 2:
        return _eliminate_two(D, Sigma)
    Lambda = cholesky_psd(Sigma) if root is None else root
    by_level, M = _penalised(D, Lambda)
    logdet = float(np.log(_cholesky(M).diagonal(axis1=1, axis2=2)).sum()) * 2.0
    K = Lambda @ np.linalg.inv(M) @ Lambda.T
    T_inv = -(by_level @ K)
    T_inv.reshape(len(M), -1)[:, :: k + 1] += 1.0
    return logdet, np.ascontiguousarray(T_inv.transpose(1, 2, 0)), np.ascontiguousarray(K.transpose(1, 2, 0))


def _penalised(D: np.ndarray, Lambda: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By level (L, K, K): D and I + Lambda'D Lambda."""
    by_level = np.ascontiguousarray(D.transpose(2, 0, 1))
    M = Lambda.T @ by_level @ Lambda
    M.reshape(len(M), -1)[:, :: len(Lambda) + 1] += 1.0
    return by_level, M


def _cholesky(M: np.ndarray) -> np.ndarray:
    """(L, K, K) lower factors."""
    try:
        return np.linalg.cholesky(M)
    except np.linalg.LinAlgError as error:
        raise FitError(TOO_LARGE) from error


def half(D: np.ndarray, Lambda: np.ndarray) -> np.ndarray:
    """(K, K, L) H = L^-1 Lambda' per level, L L' = I + Lambda'D Lambda: H'H = (Sigma^-1 + D)^-1.

    To be applied as H'(H u): where random effects are large, H'H u of a matrix formed first has no digits left.
    """
    M = _penalised(D, Lambda)[1]
    H = np.linalg.solve(_cholesky(M), Lambda.T)
    return np.ascontiguousarray(H.transpose(1, 2, 0))


def _eliminate_two(D: np.ndarray, Sigma: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    s00, s01, s11 = float(Sigma[0, 0]), float(Sigma[0, 1]), float(Sigma[1, 1])
    size = s00 * s11 - s01 * s01
    size = size if size > 1e-14 * s00 * s11 else 0.0
    d00, d01, d11 = D[0, 0], D[0, 1], D[1, 1]
    a, b = s00 * d00 + s01 * d01, s01 * d01 + s11 * d11  # diagonal of D Sigma
    det = 1.0 + a + b
    if size:
        det += size * (d00 * d11 - d01 * d01)
    over = 1.0 / det
    T_inv, K = np.empty_like(D), np.empty_like(D)
    np.multiply(1.0 + b, over, out=T_inv[0, 0])
    np.multiply(1.0 + a, over, out=T_inv[1, 1])
    np.multiply(s01 * d00 + s11 * d01, -over, out=T_inv[0, 1])
    np.multiply(s00 * d01 + s01 * d11, -over, out=T_inv[1, 0])
    np.multiply(s00 + size * d11, over, out=K[0, 0])
    np.multiply(s11 + size * d00, over, out=K[1, 1])
    np.multiply(s01 - size * d01, over, out=K[0, 1])
    K[1, 0] = K[0, 1]
    return float(np.log(det).sum()), T_inv, K


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
