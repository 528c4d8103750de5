"""Influence on single coefficients and on single fitted values, in one step."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from ...glmm.residual import require_residual
from ...results.argument import of_fit
from ...results.fit import Fit
from ...results.workspace import marginal
from ..refitted import measure
from ..units import by_row, units
from .glm import glm_dfbeta, glm_dfbetas, glm_dffits, is_glm
from .one_step import WITHOUT, one_step

__all__ = ["dfbeta", "dfbetas", "dffits"]


@measure
def dfbeta(fit: Fit, level: Hashable = 1, *, delete: Any = None) -> pd.DataFrame:
    """Full minus deleted fixed effects, at the full fit's theta: units x coefficients, in their units.

    For ``lm`` it is R's dfbeta. For mixed models it is the vector inside HLMdiag's one-step Cook's
    distance; lme4's dfbeta(influence()) is deleted minus full, from refits: ``influence(fit).dfbeta``. For
    rows of a ``glm`` it is R's dfbeta, with deviance residuals; ``glm_dfbeta(fit, "pearson")`` is the Newton
    step. Cost O(n p^2).
    """
    if is_glm(fit) and level == 1 and delete is None:
        return glm_dfbeta(fit)
    u = units(fit, level, delete)
    return u.frame(one_step(marginal(fit), u).delta, fit.design.x_names)


@measure
def dfbetas(fit: Fit, level: Hashable = 1, *, delete: Any = None) -> pd.DataFrame:
    """:func:`dfbeta` in standard errors: (b_k - b_k(A)) / (sigma_(A) sqrt((X'V^-1X)^-1_kk)).

    sigma_(A) is that of the rows left at the full fit's theta. For ``lm`` it is R's dfbetas. lme4's divides
    by the standard error of a refit: ``influence(fit).dfbetas``. For rows of a ``glm`` it is R's dfbetas. A
    common yardstick is 2 / sqrt(n).
    """
    if is_glm(fit) and level == 1 and delete is None:
        return glm_dfbetas(fit)
    u = units(fit, level, delete)
    step = one_step(marginal(fit), u)
    scale = step.sigma[:, None] * np.sqrt(np.diag(fit.XtVinvX_inv))
    with np.errstate(invalid="ignore", divide="ignore"):
        return u.frame(step.delta / scale, fit.design.x_names)


@of_fit
def dffits(fit: Fit) -> pd.Series:
    """Change of a row's own conditional fitted value on its deletion, in its standard deviation.

    r_i / (sigma_(i) sqrt(1 - h_i)) sqrt(h_i / (1 - h_i)) with the Pearson residual r, h = hatvalues and
    sigma_(i) of the other rows at the full fit's theta. For ``lm`` and ``glm`` it is R's dffits (of a glm
    with deviance residuals). NaN where h is 1.
    """
    require_residual(fit, WITHOUT)
    if is_glm(fit):
        return glm_dffits(fit)
    ws = marginal(fit)
    P, py = ws.P, ws.Py
    known, prof = ws.fit.state.like.sigma, ws.fit.profile
    with np.errstate(invalid="ignore", divide="ignore"):
        left = (prof.rss - py * py / P) / (prof.nu - 1)
        sigma = np.sqrt(np.maximum(left, 0.0)) if known is None else known
        values = np.where(P > 0, py / (sigma * np.sqrt(P)) * np.sqrt((1.0 - P) / P), np.nan)
    return by_row(fit, values, "dffits")
