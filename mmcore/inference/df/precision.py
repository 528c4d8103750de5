"""How precise a linear function of the fixed effects is: its covariance and its degrees of freedom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError, UnsupportedError
from ...results.fit import Fit
from .denominators import denominator
from .vcov import checked_vcov

__all__ = ["Precision", "precision_of"]

METHODS = ("kenward-roger", "satterthwaite", "asymptotic")


@dataclass(frozen=True, slots=True)
class Precision:
    """Covariance of the fixed effects and degrees of freedom of their linear functions."""

    vcov: np.ndarray  # (p, p)
    df_of: Callable[[np.ndarray], float]
    method: str

    def se(self, L: np.ndarray) -> np.ndarray:
        """(r,) standard errors of L beta, L (r, p)."""
        return np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", L, self.vcov, L), 0.0))

    def df(self, L: np.ndarray) -> np.ndarray:
        """(r,) degrees of freedom of L beta; NaN for a function that is zero."""
        return np.array([self.df_of(row) if row.any() else np.nan for row in L])


def precision_of(fit: Fit, ddf: str | None = None, vcov: Any = None) -> Precision:
    """The precision of linear functions of the fixed effects.

    Parameters
    ----------
    fit : any fit.
    ddf : ``"kenward-roger"`` (with its adjusted covariance), ``"satterthwaite"`` or ``"asymptotic"`` (infinite), for
        linear mixed models. None: Kenward-Roger of a fit by REML, Satterthwaite by maximum likelihood. Linear models
        have n - p, generalized ones too where the dispersion is estimated, and infinite otherwise.
    vcov : (p, p), labelled or not, in the place of the model's, such as a robust one.
    """
    if ddf is not None and ddf not in METHODS:
        raise DataError(f"ddf={ddf!r} is not one of {', '.join(METHODS)}")
    mixed = fit.kind == "lmm"
    if not mixed and ddf in ("kenward-roger", "satterthwaite"):
        raise UnsupportedError(f"ddf={ddf!r} is for linear mixed models (mm.lmer); leave ddf out")
    own = None if vcov is None else checked_vcov(fit, vcov)
    found = denominator(fit, ddf or (_usual(fit) if mixed else "residual"), own)
    V = found.vcov if own is None else own
    if mixed:
        return Precision(V, found.df, ddf or _usual(fit))
    free = found.df(np.zeros(len(V)))
    return Precision(V, found.df, "asymptotic" if np.isinf(free) else "residual")


def _usual(fit: Fit) -> str:
    if fit.residual is not None:
        return "asymptotic"
    return "kenward-roger" if fit.reml else "satterthwaite"
