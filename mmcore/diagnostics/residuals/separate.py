"""Separate least-squares fits of the fixed part in every level of a factor, all levels at once.

Gram-Schmidt column by column, twice, over all groups in step. A column whose part outside the earlier ones is
below 1e-7 of its length in a group is aliased there, as in R's lm; a column constant in a group is aliased
with the intercept. Projections do not depend on which of several dependent columns is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...design.build import Design

__all__ = ["SeparateFits", "separate_fits"]

ALIASED = 1e-7  # R's tolerance in lm
EXACT = 1e-13  # residuals below this fraction of the response are rounding


@dataclass(frozen=True, slots=True)
class SeparateFits:
    """One weighted least-squares fit per group."""

    codes: np.ndarray  # (n,) group of every row
    fitted: np.ndarray  # (n,) offset included
    resid: np.ndarray  # (n,) y - fitted
    scaled: np.ndarray  # (n,) sqrt(w) (y - fitted)
    hat: np.ndarray  # (n,) leverage within the group
    coef: np.ndarray  # (G, p) coefficients of the columns of X, NaN where aliased
    rss: np.ndarray  # (G,) weighted residual sum of squares, 0 for an exact fit
    rank: np.ndarray  # (G,)
    size: np.ndarray  # (G,)
    gram_inv: np.ndarray  # (G, p, p) (X'WX)^-1 of the estimable columns, NaN where aliased
    alias: (
        np.ndarray
    )  # (G, p, p) in the group, an aliased column j is the sum of alias[:, k, j] times column k

    @property
    def df(self) -> np.ndarray:
        """(G,) residual degrees of freedom."""
        return self.size - self.rank

    @property
    def s(self) -> np.ndarray:
        """(G,) residual standard deviation, NaN without degrees of freedom or with an exact fit."""
        with np.errstate(invalid="ignore", divide="ignore"):
            s = np.sqrt(self.rss / self.df)
        return np.where((self.df > 0) & (self.rss > 0), s, np.nan)


def separate_fits(design: Design, codes: np.ndarray, G: int) -> SeparateFits:
    """Fits of y - offset on X within groups; cost O(n p^2), memory O(n p + G p^2)."""
    y = design.y if design.offset is None else design.y - design.offset
    w = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    p, size = design.p, np.bincount(codes, minlength=G)

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.bincount(codes, a * b, G)

    Q, R = np.zeros((p, design.n)), np.zeros((G, p, p))
    kept = np.zeros((G, p), dtype=bool)
    for j in range(p):
        column = design.X[:, j] * w
        length = np.sqrt(dot(column, column))
        for _ in range(2):
            for k in range(j):
                along = dot(Q[k], column)
                R[:, k, j] += along
                column = column - along[codes] * Q[k]
        left = np.sqrt(dot(column, column))
        kept[:, j] = left > ALIASED * length
        R[:, j, j] = np.where(kept[:, j], left, 1.0)
        Q[j] = np.where(kept[codes, j], column / R[codes, j, j], 0.0)
    R[~kept] = 0.0
    R[:, np.arange(p), np.arange(p)] += ~kept
    resid, qy = y * w, np.zeros((G, p))
    for _ in range(2):
        for k in range(p):
            along = dot(Q[k], resid)
            qy[:, k] += along
            resid = resid - along[codes] * Q[k]
    total = dot(y * w, y * w)
    rss = dot(resid, resid)
    exact = rss <= EXACT**2 * total
    rss[exact] = 0.0
    rank = kept.sum(axis=1)
    with np.errstate(invalid="ignore"):
        R_inv = np.linalg.inv(R) if p else R
    R_inv = np.where(kept[:, :, None] & kept[:, None, :], R_inv, 0.0)
    coef = np.where(kept, np.einsum("gij,gj->gi", R_inv, qy), np.nan)
    gram_inv = np.where(kept[:, :, None] & kept[:, None, :], R_inv @ R_inv.transpose(0, 2, 1), np.nan)
    alias = np.where(kept[:, :, None] & ~kept[:, None, :], R_inv @ R, 0.0)
    fitted = y - resid / w
    fitted = fitted if design.offset is None else fitted + design.offset
    hat = np.einsum("in,in->n", Q, Q)
    return SeparateFits(codes, fitted, resid / w, resid, hat, coef, rss, rank, size, gram_inv, alias)
