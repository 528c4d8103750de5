"""How precise a linear function of the fixed effects is: its covariance and its degrees of freedom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError, UnsupportedError
from ...glmm.fit import is_generalized
from ...results.fit import Fit
from .kenward_roger import kenward_roger
from .satterthwaite import satterthwaite
from .vcov import checked_vcov

__all__ = ["Precision", "precision_of"]

METHODS = ("kenward-roger", "satterthwaite", "asymptotic")


@dataclass(frozen=True, slots=True)
class Known:
    """Degrees of freedom that are the same for every function."""

    value: float

    def __call__(self, row: np.ndarray) -> float:
        """The value."""
        return self.value


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
    own = None if vcov is None else checked_vcov(fit, vcov)
    return _of_mixed(fit, ddf, own) if _is_linear_mixed(fit) else _of_others(fit, ddf, own)


def _is_linear_mixed(fit: Fit) -> bool:
    return bool(fit.design.terms) and not is_generalized(fit)


def _of_mixed(fit: Fit, ddf: str | None, own: np.ndarray | None) -> Precision:
    if ddf is None:
        known = fit.residual is None
        ddf = ("kenward-roger" if fit.reml else "satterthwaite") if known else "asymptotic"
    if ddf == "asymptotic":
        return Precision(_vcov(fit, own), Known(np.inf), ddf)
    found = kenward_roger(fit) if ddf == "kenward-roger" else satterthwaite(fit)
    return Precision(found.vcov if own is None else own, found.df, ddf)


def _vcov(fit: Fit, own: np.ndarray | None) -> np.ndarray:
    return fit.vcov.to_numpy() if own is None else own


def _of_others(fit: Fit, ddf: str | None, own: np.ndarray | None) -> Precision:
    if ddf in ("kenward-roger", "satterthwaite"):
        raise UnsupportedError(f"ddf={ddf!r} is for linear mixed models (mm.lmer); leave ddf out")
    known = is_generalized(fit) and (fit.is_mixed or fit.family.dispersion_known)
    df = np.inf if known or ddf == "asymptotic" else float(fit.nobs - fit.design.p)
    return Precision(_vcov(fit, own), Known(df), "asymptotic" if np.isinf(df) else "residual")
