"""An orthonormal basis of the columns of X: X = Q R."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri, dtrtrs

__all__ = ["COLLINEAR", "WELL_CONDITIONED", "orthonormal_basis"]

WELL_CONDITIONED = 0.1  # least pivot at which one Cholesky QR is orthogonal to 1e-14


COLLINEAR = 1e-6  # ... and below which even two are not


def orthonormal_basis(Xt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of Q' and upper R with X = Q R, for X given transposed, (p, n).

    Cholesky QR, applied twice unless X is well conditioned after column scaling: as accurate as Householder for
    condition numbers below 1e7, and made of matrix products only. Worse X is first made nearly orthonormal by the
    triangle of LAPACK's Householder QR. Either way each row of Q is accurate for its own size: rows of X may differ
    by many decades, as those of weighted data do, and Householder's Q would not be.
    """
    if not len(Xt):
        return Xt, np.zeros((0, 0))
    once = _cholesky_qr(Xt)
    if once is None:
        return _of_collinear(Xt)
    Q, R, pivot = once
    again = None if pivot > WELL_CONDITIONED else _cholesky_qr(Q)
    return (Q, R) if again is None else (again[0], again[1] @ R)


def _cholesky_qr(Xt: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Q, R and the least pivot of the scaled Gram matrix; None where that is too small for Q to be of use."""
    gram = Xt @ Xt.T
    scale = np.sqrt(gram.diagonal())
    C, info = dpotrf(gram / scale / scale[:, None], lower=0, clean=1)
    pivot = float(C.diagonal().min())
    if info or not pivot >= COLLINEAR:
        return None
    C *= scale
    return dtrtri(C)[0].T @ Xt, C, pivot


def _of_collinear(Xt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    Q, R = np.linalg.qr(Xt.T)
    sign = np.where(R.diagonal() < 0, -1.0, 1.0)
    R *= sign[:, None]
    near = _cholesky_qr(dtrtrs(R, Xt, trans=1)[0]) if R.diagonal().all() else None
    if near is None or near[2] < WELL_CONDITIONED:  # singular to the last digit: this is all that can be had
        return np.ascontiguousarray(Q.T) * sign[:, None], R
    return near[0], near[1] @ R
