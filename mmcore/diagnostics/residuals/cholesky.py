"""L^-1 r for the Cholesky factor V = L L' in the order of the rows, without an n x n matrix.

V is block diagonal over sets of rows that no random effect connects, and so is its factor. With one grouping
factor the factor's rows are one-step prediction errors: row i of a group is predicted from the rows before
it.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular
from scipy.sparse.csgraph import connected_components

from ...errors import UnsupportedError
from ...results.fit import Fit

__all__ = ["cholesky_whitened"]

CONNECTED_ROWS = 6000  # a dense factor of that size is 288 MB and some seconds


def cholesky_whitened(fit: Fit, r: np.ndarray) -> np.ndarray:
    """(n,) L^-1 r, V = sigma^2 (W^-1 + Z Sigma Z') = L L', rows in the order given.

    Raises UnsupportedError if crossed factors connect more than CONNECTED_ROWS rows. Cost O(n K^2) for one
    factor, else the sum of cubes of the sizes of the connected sets.
    """
    A = fit.kernel.A
    scale = 1.0 if A.sqrt_w is None else A.sqrt_w
    scaled = r * scale / fit.sigma  # L_V = W^-1/2 L_scaled: both are lower triangular
    Sigma = fit.covariance.sigma(fit.par)
    if not A.blocks:
        return scaled
    if len(A.blocks) == 1:
        return _innovations(A.blocks[0].columns, A.blocks[0].codes, A.blocks[0].L, Sigma[0], scaled)
    return _connected(A.blocks, Sigma, scaled)


def _innovations(z: np.ndarray, codes: np.ndarray, L: int, Sigma: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Standardised one-step prediction errors, all groups in step.

    State: mean (K, G) and covariance (K, K, G) of the group's effects given its rows so far.
    """
    size = np.bincount(codes, minlength=L)
    rank = np.empty(L, dtype=np.intp)
    # large groups first: those still running are a prefix
    rank[np.argsort(-size, kind="stable")] = np.arange(L)
    group = rank[codes]
    order = np.argsort(group, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.sort(size)[::-1])[:-1]])
    running = np.searchsorted(-np.sort(size)[::-1], -np.arange(1, size.max() + 1), side="right")
    K = len(z)
    mean, cov = np.zeros((K, L)), np.repeat(Sigma[:, :, None], L, axis=2)
    out = np.empty(len(r))
    for step, g in enumerate(running):
        rows = order[start[:g] + step]
        zi = z[:, rows]
        Cz = (cov[:, :, :g] * zi[None]).sum(axis=1)
        f = 1.0 + (Cz * zi).sum(axis=0)
        error = r[rows] - (mean[:, :g] * zi).sum(axis=0)
        out[rows] = error / np.sqrt(f)
        gain = Cz / f
        mean[:, :g] += gain * error
        cov[:, :, :g] -= gain[:, None] * Cz[None]
    return out


def _connected(blocks: tuple, Sigma: list[np.ndarray], r: np.ndarray) -> np.ndarray:
    """A dense Cholesky factor for every set of rows that shared levels connect."""
    starts = np.cumsum([0, *(b.L for b in blocks)])
    n = len(r)
    edges = sp.coo_matrix(
        (
            np.ones(n * (len(blocks) - 1)),
            (
                np.tile(blocks[0].codes, len(blocks) - 1),
                np.concatenate([s + b.codes for s, b in zip(starts[1:], blocks[1:], strict=False)]),
            ),
        ),
        shape=(starts[-1], starts[-1]),
    )
    component = connected_components(edges, directed=False)[1][blocks[0].codes]
    size = np.bincount(component)
    if size.max() > CONNECTED_ROWS:
        raise UnsupportedError(
            f"Cholesky residuals need the factor of V over all rows that shared levels connect: "
            f"{size.max():,} rows here, the limit is {CONNECTED_ROWS:,}. Use type='pearson' or 'studentized'."
        )
    out = np.empty(n)
    for rows in np.split(np.argsort(component, kind="stable"), np.cumsum(size)[:-1]):
        V = np.eye(len(rows))
        for block, S in zip(blocks, Sigma, strict=True):
            z, codes = block.columns[:, rows], block.codes[rows]
            V += np.where(codes[:, None] == codes[None, :], z.T @ S @ z, 0.0)
        out[rows] = solve_triangular(np.linalg.cholesky(V), r[rows], lower=True, check_finite=False)
    return out
