"""One-step influence: what deletion does to the fixed effects when V stays what it is.

For a deleted set A, with B the p x p part of its whitened loss D_A and c the part with the response
(:mod:`mmcore.diagnostics.loss`), the generalised-least-squares fit of the other rows has
    beta - beta_(A) = half (I - B)^-1 c,        C_(A) = half (I - B)^-1 half' sigma^2.
Theta and sigma are those of the full fit (Christensen, Pearson & Johnson 1992); refits are in ``deletion``.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..errors import MixedModelWarning, UnsupportedError
from ..fit import Fit
from .loss import losses
from .marginal import Marginal, marginal, need_fixed
from .units import Units, by_row, units

__all__ = ["OneStep", "cooks_distance", "covratio", "covtrace", "mdffits", "one_step"]

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


def one_step(ws: Marginal, u: Units) -> OneStep:
    """All one-step measures at once."""
    need_fixed(ws)
    out = _rows(ws, u) if u.is_rows else _sets(ws, u)
    lost = np.isnan(out.covratio)
    if lost.any():
        names = [str(x) for x in u.labels[lost][:5]]
        more = f" and {int(lost.sum()) - 5} more" if lost.sum() > 5 else ""
        warnings.warn(
            f"without {'row' if u.is_rows else str(u.level)} {', '.join(names)}{more} the fixed effects are "
            "not determined: the deletion measures there are NaN",
            MixedModelWarning,
            stacklevel=3,
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
        return OneStep(u, delta, cook, cook * P / v, ratio, v / P)


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
    )


def _measure(fit: Fit, level: Hashable, delete: Any, name: str) -> Any:
    u = units(fit, level, delete)
    return u.series(getattr(one_step(marginal(fit), u), name), name)


def cooks_distance(
    fit: Fit, level: Hashable = 1, *, kind: str = "marginal", delete: Any = None, include_attr: bool = False
) -> Any:
    """Cook's distance: how far deletion moves the estimates, in one of three definitions that are not
    comparable.

    ``kind="marginal"`` (default): D_A = (b - b_(A))' C^-1 (b - b_(A)) / p, C = vcov(b), at the full fit's
    theta and sigma. HLMdiag's one-step cooks.distance; for ``lm`` it is R's cooks.distance. Not lme4's.
    ``kind="plugin"``: (r_i / (1 - h_i))^2 h_i / (sigma^2 p) with the Pearson residual r and h = hatvalues:
    the change of the *conditional* fitted values. lme4's cooks.distance.merMod; rows only.
    ``kind="refit"``: the marginal formula with b_(A) from a refit in which theta and sigma are estimated
    anew; C is still the full fit's. HLMdiag's on a case_delete; (K - p) / K times it is lme4's
    cooks.distance(influence()).

    Parameters
    ----------
    level : 1 for rows, or the name of a grouping factor.
    delete : one set (row labels, level labels or a mask of rows), or a mapping of names to sets.
    include_attr : also return the p elements of b - b_(A) (full minus deleted) as columns.

    Returns
    -------
    Series by row or level label (levels in order of first appearance), a float for one set, or a DataFrame
    with ``include_attr``. NaN with a warning where the remaining rows do not determine b.

    Cost: O(n p^2) for rows and for levels of one factor or of a nested chain; no n x n matrix.
    """
    if kind == "plugin":
        return _plugin(fit, level, delete)
    if kind == "refit":
        return _refit(fit, level, delete, "cooksd")
    if kind != "marginal":
        raise UnsupportedError(f"kind={kind!r} is not one of 'marginal', 'plugin', 'refit'")
    return _with_delta(fit, level, delete, "cooksd", include_attr)


def mdffits(
    fit: Fit, level: Hashable = 1, *, refit: bool = False, delete: Any = None, include_attr: bool = False
) -> Any:
    """MDFFITS: (b - b_(A))' C_(A)^-1 (b - b_(A)) / p with the covariance of the *deleted* data, C_(A).

    One step (default): theta and sigma of the full fit; HLMdiag's mdffits. ``refit=True``: b_(A) and C_(A)
    of a full refit. At most Cook's distance in one step. Returns and costs as :func:`cooks_distance`.
    """
    if refit:
        return _refit(fit, level, delete, "mdffits")
    return _with_delta(fit, level, delete, "mdffits", include_attr)


def covtrace(fit: Fit, level: Hashable = 1, *, refit: bool = False, delete: Any = None) -> Any:
    """COVTRACE: |tr(C^-1 C_(A)) - p|, 0 where deletion does not change the precision of the fixed effects.

    One step (default): sigma is the full fit's, so deletion can only lose precision. ``refit=True``: both
    covariances as estimated. HLMdiag's covtrace.
    """
    return _refit(fit, level, delete, "covtrace") if refit else _measure(fit, level, delete, "covtrace")


def covratio(fit: Fit, level: Hashable = 1, *, refit: bool = False, delete: Any = None) -> Any:
    """COVRATIO: det C_(A) / det C, 1 where deletion does not change the precision of the fixed effects.

    One step (default): at least 1, because sigma is kept. Not R's stats::covratio for ``lm``, which re-
    estimates sigma: that is ``refit=True``. HLMdiag's covratio.
    """
    return _refit(fit, level, delete, "covratio") if refit else _measure(fit, level, delete, "covratio")


def _with_delta(fit: Fit, level: Hashable, delete: Any, name: str, include_attr: bool) -> Any:
    u = units(fit, level, delete)
    step = one_step(marginal(fit), u)
    values = getattr(step, name)
    if not include_attr:
        return u.series(values, name)
    return u.frame(np.column_stack([values, step.delta]), [name, *fit.design.x_names])


def _plugin(fit: Fit, level: Hashable, delete: Any) -> pd.Series:
    if level != 1 or delete is not None:
        raise UnsupportedError(
            "kind='plugin' is defined for single rows (level=1) only; use kind='marginal' for groups and sets"
        )
    ws = marginal(fit)
    need_fixed(ws)
    P = ws.P
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(P > 0, (ws.Py / P) ** 2 * (1.0 - P) / (ws.p * fit.sigma**2), np.nan)
    return by_row(fit, values, "cooksd")


def _refit(fit: Fit, level: Hashable, delete: Any, name: str) -> Any:
    raise UnsupportedError("refits are not available yet")
