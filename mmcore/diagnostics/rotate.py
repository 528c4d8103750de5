"""Rotated random effects: combinations that the residual errors confound least."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import DataError, UnsupportedError
from ..results.argument import of_fit
from ..results.fit import Fit
from ..results.workspace import need_gaussian

__all__ = ["rotate_ranef"]

LARGEST = 3000  # combinations: beyond, three dense matrices of 72 MB and cubes of the size
TOLERANCE = 1e-10


@of_fit
def rotate_ranef(
    fit: Fit, L: str | np.ndarray | None = None, *, s: int | None = None, varimax: bool = False
) -> pd.DataFrame:
    """Rotate the random effects to the directions with the least share of residual error (Loy & Hofmann
    2015).

    With K = P Z D L the map from y to L'b (D = Lambda Lambda', relative to sigma^2), A = K'K is the part of
    its variance that errors bring and B = L'D Z'PZ D L all of it. Directions w with w'Bw = 1 are ordered by
    lambda = w'Aw, the fraction confounded, from most to least; the last ``s`` are kept. Use them for Q-Q
    plots: predicted random effects look normal because errors are mixed in, these least so.

    Parameters
    ----------
    L : None for all random effects, the name of an effect (``"(Intercept)"``: of all levels), or a (q, m)
    matrix
        of combinations, rows in the order of ``design.Z()``.
    s : number of directions, by default the rank of B.
    varimax : rotate the kept directions once more, orthogonally, to simple structure.

    Returns
    -------
    DataFrame with ``z`` (the rotated effects, variance 1 relative to sigma^2) and ``lambda``, in decreasing
    lambda (with ``varimax``, lambda is NaN: directions are mixed). Signs are arbitrary, and so is the basis
    where lambda is tied, as in balanced data. HLMdiag's rotate_ranef; several terms and factors are
    allowed.
    """
    need_gaussian(fit, "rotated random effects")
    combos = _combinations(fit, L)
    if combos.shape[1] > LARGEST:
        raise UnsupportedError(
            f"rotation works on dense {combos.shape[1]:,} x {combos.shape[1]:,} matrices; the "
            f"limit is {LARGEST:,}. Pick an effect by name, or fewer combinations L"
        )
    DL = _times_D(fit, combos)
    w = fit.design.weights
    ZDL = fit.design.Z() @ DL
    K = _apply_P(fit, ZDL)
    errors = K if w is None else K / np.sqrt(w)[:, None]
    A, B = errors.T @ errors, ZDL.T @ K
    values, vectors = np.linalg.eigh(0.5 * (B + B.T))
    kept = values > TOLERANCE * values[-1]
    half = vectors[:, kept] / np.sqrt(values[kept])
    share, U = np.linalg.eigh(half.T @ A @ half)
    W, share = half @ U[:, ::-1], share[::-1]
    number = len(share) if s is None else s
    if not 0 < number <= len(share):
        raise DataError(f"s={s} directions were asked for; there are {len(share)}")
    W, share = W[:, -number:], share[-number:]
    if varimax:
        W, share = W @ _varimax(W), np.full(number, np.nan)
    z = W.T @ (combos.T @ _modes(fit))
    return pd.DataFrame({"z": z, "lambda": share}, index=pd.RangeIndex(1, number + 1, name="direction"))


def _combinations(fit: Fit, L: str | np.ndarray | None) -> np.ndarray:
    q = fit.design.q
    if not q:
        raise UnsupportedError("the model has no random effects to rotate")
    if L is None:
        return np.eye(q)
    if isinstance(L, str):
        names = [e for t in fit.design.terms for _ in t.levels for e in t.effects]
        chosen = np.flatnonzero(np.array(names) == L)
        if not len(chosen):
            raise DataError(f"{L!r} is not a random effect of the model: {', '.join(dict.fromkeys(names))}")
        return np.eye(q)[:, chosen]
    matrix = np.asarray(L, float)
    if matrix.ndim != 2 or len(matrix) != q:
        raise DataError(f"L must have one row per random effect, ({q}, m); got shape {matrix.shape}")
    return matrix


def _times_D(fit: Fit, X: np.ndarray) -> np.ndarray:
    """D X, term by term, level by level."""
    out, at = np.empty_like(X), 0
    for term, Lambda in zip(fit.design.terms, fit.Lambda, strict=True):
        end = at + term.q
        piece = X[at:end].reshape(len(term.levels), len(term.effects), -1)
        out[at:end] = np.matmul(Lambda @ Lambda.T, piece).reshape(end - at, -1)
        at = end
    return out


def _apply_P(fit: Fit, X: np.ndarray) -> np.ndarray:
    """P X, relative to sigma^2."""
    VX = fit.solve_V(X)
    design = fit.design.X
    return VX - fit.solve_V(design) @ (fit.XtVinvX_inv @ (design.T @ VX))


def _modes(fit: Fit) -> np.ndarray:
    """(q,) conditional modes in the order of Z."""
    return np.concatenate([b.ravel() for b in fit.b])


def _varimax(W: np.ndarray, steps: int = 500) -> np.ndarray:
    """Orthogonal rotation that maximises the variance of squared loadings (Kaiser 1958, no normalisation)."""
    n, k = W.shape
    rotation, last = np.eye(k), 0.0
    for _ in range(steps):
        turned = W @ rotation
        target = turned**3 - turned * (np.square(turned).sum(axis=0) / n)
        U, d, Vt = np.linalg.svd(W.T @ target)
        rotation = U @ Vt
        if d.sum() <= last * (1 + 1e-10):
            break
        last = d.sum()
    return rotation
