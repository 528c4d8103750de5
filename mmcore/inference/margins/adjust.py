"""p-values and limits of a family of tests."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ...errors import DataError
from .tukey import range_quantile, range_sf

__all__ = ["ADJUSTMENTS", "adjusted", "critical"]

ADJUSTMENTS = ("tukey", "holm", "bonferroni", "sidak", "fdr", "none")


def adjusted(method: str, ratio: np.ndarray, df: np.ndarray, means: int) -> np.ndarray:
    """Two-sided p-values of t ratios (r,), adjusted for being r tests, or all pairs of ``means`` means (tukey)."""
    if method not in ADJUSTMENTS:
        raise DataError(f"adjust={method!r} is not one of {', '.join(ADJUSTMENTS)}")
    size = np.abs(ratio)
    if method == "tukey":
        return np.array([range_sf(np.sqrt(2.0) * t, means, d) for t, d in zip(size, df, strict=True)])
    p = 2.0 * stats.t.sf(size, df)
    there = ~np.isnan(p)
    out = np.full(len(p), np.nan)
    out[there] = _of_p(method, p[there])
    return out


def _of_p(method: str, p: np.ndarray) -> np.ndarray:
    r = len(p)
    if method == "bonferroni":
        return np.minimum(r * p, 1.0)
    if method == "sidak":
        return -np.expm1(r * np.log1p(-p))
    if method in ("holm", "fdr") and r:
        order = np.argsort(p)
        rank = np.arange(r)
        if method == "holm":
            steps = np.minimum(np.maximum.accumulate((r - rank) * p[order]), 1.0)
        else:
            steps = np.minimum(np.minimum.accumulate((r / (rank + 1.0) * p[order])[::-1])[::-1], 1.0)
        out = np.empty(r)
        out[order] = steps
        return out
    return p


def critical(method: str, level: float, df: np.ndarray, means: int, r: int) -> np.ndarray:
    """(r,) multiples of the standard error for limits that hold together; holm and fdr have Bonferroni's."""
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    outside = 1.0 - level
    if method == "tukey":
        return np.array([range_quantile(outside, means, d) / np.sqrt(2.0) for d in df])
    if method == "sidak":
        outside = -np.expm1(np.log1p(-outside) / max(r, 1))
    elif method != "none":
        outside /= max(r, 1)
    return stats.t.isf(outside / 2.0, df)
