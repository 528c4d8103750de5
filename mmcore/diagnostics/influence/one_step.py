"""One-step influence: what deletion does to the fixed effects when V stays what it is.

For a deleted set A, with B the p x p part of its whitened loss D_A and c the part with the response
(:mod:`mmcore.diagnostics.loss`), the generalised-least-squares fit of the other rows has
    beta - beta_(A) = half (I - B)^-1 c,        C_(A) = half (I - B)^-1 half' sigma^2.
Theta and sigma are those of the full fit (Christensen, Pearson & Johnson 1992); refits are in ``deletion``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import warn
from ...glmm.residual import require_residual
from ...results.fit import Fit
from ...results.workspace import Marginal, marginal, need_fixed
from ..units import Units
from .loss import losses

__all__ = ["OneStep", "one_step", "plugin_cooks_distance"]

WITHOUT = "is no scale for influence: leverage() and hatvalues() do not need one"
UNDETERMINED = 1e-10  # 1 - eigenvalue of B below which the remaining rows do not determine beta


@dataclass(frozen=True, slots=True)
class OneStep:
    """One-step deletion measures of every unit; NaN for units without which beta is not determined."""

    units: Units
    delta: np.ndarray  # (U, p) beta - beta_(A), unit of the coefficients: full minus deleted
    cooksd: np.ndarray  # (U,)
    mdffits: np.ndarray  # (U,)
    covtrace: np.ndarray  # (U,)
    covratio: np.ndarray  # (U,)
    sigma: np.ndarray  # (U,) residual standard deviation of the rows left, theta kept


def one_step(ws: Marginal, u: Units) -> OneStep:
    """All one-step measures at once. Raises FitError for a model that leaves no residual."""
    need_fixed(ws.p)
    require_residual(u.fit, WITHOUT)
    out = _rows(ws, u) if u.is_rows else _sets(ws, u)
    lost = np.isnan(out.covratio)
    if lost.any():
        names = [str(x) for x in u.labels[lost][:5]]
        more = f" and {int(lost.sum()) - 5} more" if lost.sum() > 5 else ""
        warn(
            f"without {'row' if u.is_rows else str(u.level)} {', '.join(names)}{more} the fixed effects are "
            "not determined: the deletion measures there are NaN"
        )
    return out


def _rows(ws: Marginal, u: Units) -> OneStep:
    """Single rows: B has the one eigenvalue h / v."""
    v, h, py = ws.v, ws.h, ws.Py
    left = v - h
    with np.errstate(invalid="ignore", divide="ignore"):
        P = np.where(left > UNDETERMINED * v, left, np.nan)
        ratio = h / P
        cook = ratio * py * py / (P * ws.p * ws.fit.sigma**2)
        delta = (ws.half @ (ws.white[:-1] * (py / P))).T
        sigma = _sigma(ws, py * py / P, np.ones(len(v)))
        return OneStep(u, delta, cook, cook * P / v, ratio, v / P, sigma)


def _sets(ws: Marginal, u: Units) -> OneStep:
    D, p = losses(ws, u), ws.p
    lost = ~np.isfinite(D).all(axis=(1, 2))
    values, vectors = np.linalg.eigh(np.where(lost[:, None, None], 0.0, D[:, :p, :p]))
    left = 1.0 - values
    left[lost | (left[:, -1] < UNDETERMINED)] = np.nan
    c = np.einsum("uik,ui->uk", vectors, D[:, :p, p]) * np.sqrt(ws.rss)
    scale = 1.0 / (p * ws.fit.sigma**2)
    delta = np.einsum("uik,uk->ui", vectors, c / left)
    return OneStep(
        u,
        delta @ ws.half.T,
        scale * ((c / left) ** 2).sum(axis=1),
        scale * (c**2 / left).sum(axis=1),
        np.abs((values / left).sum(axis=1)),
        1.0 / left.prod(axis=1),
        _sigma(ws, ws.rss * D[:, p, p] + (c**2 / left).sum(axis=1), u.sizes()),
    )


def _sigma(ws: Marginal, loss: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(U,) sigma without units that take ``loss`` of y'Py and ``size`` rows with them."""
    prof, known = ws.fit.profile, ws.fit.state.like.sigma
    if known is not None:
        return np.where(np.isfinite(loss), known, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.maximum(prof.rss - loss, 0.0) / (prof.nu - size))


def plugin_cooks_distance(fit: Fit) -> np.ndarray:
    """(n,) lme4's: squared Pearson residual over (1 - h)^2, times h / (sigma^2 p)."""
    require_residual(fit, WITHOUT)
    ws, pearson = marginal(fit), fit.residual_values("pearson")
    need_fixed(ws.p)
    P = ws.P
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(P > 0, (pearson / P) ** 2 * (1.0 - P) / (ws.p * ws.fit.sigma**2), np.nan)
