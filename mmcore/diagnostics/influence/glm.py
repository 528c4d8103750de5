"""Influence of rows on a linear or generalized linear model, as R measures it.

R measures what deletion of a row does to a glm by the formulas of least squares at the final weights, with
deviance residuals in the place of residuals (`lm.influence`), except for Cook's distance and the standardised
Pearson residuals. With Pearson residuals the change of the coefficients is one Newton step from the full fit
(Pregibon 1981); it is offered beside R's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import pandas as pd

from ...errors import UnsupportedError
from ...glmm.fit import GeneralizedFit, is_generalized
from ...glmm.residual import require_residual
from ...lmm.lm import LinearFit, is_lm
from ...results.argument import of_fit
from ...results.fit import Fit
from ...results.workspace import marginal
from ..leverage import hatvalues
from ..units import by_row, pad

__all__ = [
    "GlmRows",
    "glm_covratio",
    "glm_dfbeta",
    "glm_dfbetas",
    "glm_dffits",
    "glm_rows",
    "is_glm",
    "rstandard",
]

ONE = 1.0 - 10.0 * np.finfo(float).eps  # R: a leverage above this is one


def is_glm(fit: Fit) -> TypeGuard[GeneralizedFit]:
    """Whether a fit is a generalised linear model without random effects."""
    return is_generalized(fit) and not fit.is_mixed


@dataclass(frozen=True, slots=True)
class GlmRows:
    """What R's influence measures of an lm or glm are made of; rows of prior weight zero have leverage zero."""

    fit: LinearFit | GeneralizedFit
    half: np.ndarray  # (p, n) B with B' B the hat matrix: (X'WX)^-1/2 X'W^1/2
    root: np.ndarray  # (p, p) beta = root times coefficients of the rows of ``half``
    hat: np.ndarray  # (n,) leverage
    pearson: np.ndarray  # (n,)
    deviance: np.ndarray  # (n,) deviance residuals
    sigma: np.ndarray  # (n,) ``sigma_without_row``


def glm_rows(fit: Fit, what: str = "this measure") -> GlmRows:
    """The workspace of a fit. Cost O(n p^2). Raises UnsupportedError for a model with random effects, FitError for
    one that leaves no residual."""
    require_residual(fit, "is no scale for influence: leverage() and hatvalues() do not need one")
    if is_lm(fit):
        ws, e = marginal(fit), fit.residual_values("pearson")
        hat = 1.0 - ws.P
        return GlmRows(fit, ws.white[:-1], ws.half, hat, e, e, sigma_without_row(fit, e, 1.0 - hat))
    if not is_glm(fit):
        raise UnsupportedError(
            f"{what} is R's for models without random effects (lm, glm); mm.dfbeta, mm.covratio and the others of "
            "that name are for every model"
        )
    s = fit.solution
    QW = s.Q * np.sqrt(s.at.W)
    L = np.linalg.cholesky(QW @ QW.T) if len(QW) else np.zeros((0, 0))
    half = np.linalg.solve(L, QW) if len(QW) else QW
    root = np.linalg.solve(s.R, np.linalg.inv(L).T) if len(QW) else L
    hat = np.square(half).sum(axis=0)
    hat = np.where(hat > ONE, 1.0, hat)
    deviance = fit.residual_values("deviance")
    sigma = sigma_without_row(fit, deviance, 1.0 - hat)
    return GlmRows(fit, half, root, hat, fit.residual_values("pearson"), deviance, sigma)


def sigma_without_row(fit: Fit, deviance: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(n,) sigma_(i) = sqrt((sum d^2 - d_i^2 / (1 - h_i)) / (n - p - 1)), d deviance residuals, ``free`` = 1 - h.

    R's influence()$sigma. Exact for least squares, of first order in a glm: NaN there where the row takes more than
    all of the deviance with it. So has R, which puts the full model's in that place if rows were missing. A row of
    leverage one takes nothing.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        left = (deviance**2).sum() - np.where(free > 0.0, deviance**2 / free, 0.0)
        least = np.where(left > 0.0, left, np.nan) if fit.family is not None else np.maximum(left, 0.0)
        return np.sqrt(least / (fit.nobs - fit.design.p - 1))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        out = a / b
    return np.where(np.isfinite(out), out, np.nan)


@of_fit
def rstandard(fit: Fit, type: str = "deviance") -> pd.Series:
    """Standardised residuals by row: residual / sqrt(phi (1 - h)), internally studentised.

    ``type`` is ``"deviance"`` or ``"pearson"``; for ``lm`` and mixed models both are the Pearson residual.
    R's rstandard for glm and lm. NaN where the leverage is one.
    """
    if type not in ("deviance", "pearson"):
        raise UnsupportedError(f"rstandard(type={type!r}) is not 'deviance' or 'pearson'")
    require_residual(fit, "are no standardized residuals")
    h = hatvalues(fit).to_numpy()
    values = fit.residual_values(type, scaled=True)
    return by_row(fit, _divide(values, np.sqrt(np.maximum(1.0 - h, 0.0))), "rstandard")


@of_fit
def glm_dfbeta(fit: Fit, residuals: str = "deviance") -> pd.DataFrame:
    """Full minus deleted coefficients by row, one step: (X'WX)^-1 x_i sqrt(W_i) r_i / (1 - h_i).

    ``residuals="deviance"`` is R's dfbeta; ``"pearson"`` is one Newton step from the full fit (Pregibon
    1981), which is nearer to a refit. For ``lm`` both are exact, :func:`mmcore.dfbeta`. NaN where the leverage is
    one.
    """
    values, index = pad(fit, _glm_delta(glm_rows(fit, "glm_dfbeta"), residuals))
    return pd.DataFrame(values, index=index, columns=list(fit.design.x_names))


def _glm_delta(rows: GlmRows, residuals: str) -> np.ndarray:
    """(n, p) full minus deleted coefficients."""
    r = _residuals(rows, residuals)
    return (rows.root @ (rows.half * _divide(r, 1.0 - rows.hat))).T


def glm_dfbetas(fit: Fit, residuals: str = "deviance") -> pd.DataFrame:
    """:func:`glm_dfbeta` divided by sigma_(i) sqrt((X'WX)^-1_kk). R's dfbetas."""
    rows = glm_rows(fit, "glm_dfbetas")
    scale = np.outer(rows.sigma, np.sqrt(np.square(rows.root).sum(axis=1)))
    values, index = pad(fit, _divide(_glm_delta(rows, residuals), scale))
    return pd.DataFrame(values, index=index, columns=list(fit.design.x_names))


def glm_dffits(fit: Fit, residuals: str = "deviance") -> pd.Series:
    """r_i sqrt(h_i) / (sigma_(i) (1 - h_i)). R's dffits of a glm."""
    rows = glm_rows(fit, "glm_dffits")
    r = _residuals(rows, residuals)
    return by_row(fit, _divide(r * np.sqrt(rows.hat), rows.sigma * (1.0 - rows.hat)), "dffits")


@of_fit
def glm_covratio(fit: Fit) -> pd.Series:
    """R's ``covratio`` of an lm or glm by row: 1 / ((1 - h) ((n - p - 1 + e^2) / (n - p))^p).

    e is the externally studentized deviance residual: sigma is estimated anew without the row. For ``lm`` that is
    det C_(i) / det C of a refit, ``mm.covratio(fit, refit=True)``, in closed form.

    Not :func:`mmcore.covratio` in one step, which keeps sigma (HLMdiag's definition, for every model).
    """
    rows, p = glm_rows(fit, "glm_covratio"), fit.design.p
    free = 1.0 - rows.hat
    e = _divide(rows.deviance, rows.sigma * np.sqrt(free))
    nu = rows.fit.df_resid
    return by_row(fit, _divide(np.ones_like(e), free * ((nu - 1 + e**2) / nu) ** p), "covratio")


def _residuals(rows: GlmRows, kind: str) -> np.ndarray:
    if kind not in ("deviance", "pearson"):
        raise UnsupportedError(f"residuals={kind!r} is not 'deviance' (R's measures) or 'pearson' (one step)")
    return rows.deviance if kind == "deviance" else rows.pearson
