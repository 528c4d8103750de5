"""Which columns of X R keeps: Householder elimination in order, negligible columns moved to the end.

R's `qr()` looks at the columns from left to right and sets one aside when the part of it that is orthogonal
to the columns already kept has a norm below `tol` times its own norm.
"""

import numpy as np
from scipy.linalg.lapack import dpotrf

TOLERANCE = 1e-7
_SURE = 1e-4  # the Gram matrix cannot tell smaller ratios from rounding, hence the second look


def independent_columns(X: np.ndarray, tol: float = TOLERANCE) -> np.ndarray:
    """Positions (r,) of the columns of X (n, p) that R keeps, increasing. Cost O(n p^2)."""
    n, p = X.shape
    if p == 0 or (n >= p and _surely_full_rank(X)):
        return np.arange(p)
    return _eliminate(X, tol)


def _surely_full_rank(X: np.ndarray) -> bool:
    gram = X.T @ X
    norms = np.sqrt(gram.diagonal())
    if not norms.all() or not np.isfinite(norms).all():
        return False
    gram /= norms
    gram /= norms[:, None]
    factor, info = dpotrf(gram, lower=1)
    return info == 0 and bool((factor.diagonal() > _SURE).all())


def _eliminate(X: np.ndarray, tol: float) -> np.ndarray:
    n, p = X.shape
    scale = np.abs(X).max(axis=0)
    rest = X / np.where(scale > 0, scale, 1.0)
    norms = np.sqrt((rest * rest).sum(axis=0))
    kept: list[int] = []
    for j in range(p):
        remaining = np.sqrt((rest[:, j] ** 2).sum())
        if len(kept) == n or norms[j] == 0 or remaining < tol * norms[j]:
            continue
        kept.append(j)
        direction = rest[:, j] / remaining
        later = rest[:, j + 1 :]
        later -= np.outer(direction, direction @ later)
        later -= np.outer(direction, direction @ later)
    return np.array(kept, dtype=np.intp)
