"""Residuals of rows: conditional (from X beta + Z b), marginal (from X beta), least squares (within
groups).
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd

from ...errors import UnsupportedError, warn
from ...glmm.residual import require_residual
from ...results.argument import of_fit
from ...results.fit import Fit
from ...results.workspace import Marginal, marginal, mean_rows, need_gaussian
from ..influence.glm import sigma_without_row
from ..leverage import random_variance
from ..units import by_row, check_level, groups_of, level_codes, pad
from .cholesky import cholesky_whitened
from .separate import SeparateFits, separate_fits

__all__ = ["ls_residuals", "pull_resid", "resid_conditional", "resid_marginal", "rstudent"]


@of_fit
def resid_conditional(fit: Fit, type: str = "raw") -> pd.Series:
    """Conditional residuals e = y - X beta - Z b - offset, by row.

    ``raw``          e
    ``pearson``      sqrt(w) e / sigma
    ``studentized``  e / sd(e) = sqrt(w) e / (sigma sqrt(1 - h)), h = hatvalues: Var(e) = sigma^4 W^-1 P W^-1
    ``cholesky``     L^-1 e for Var(y | b) = sigma^2 W^-1 = L L', which is ``pearson``

    HLMdiag's resid_conditional, with prior weights honoured. ``studentized`` is lme4's rstudent. NaN where
    the leverage is 1. Marginal residuals: :func:`resid_marginal`.
    """
    e = fit.residual_values("response")
    if type == "raw":
        return by_row(fit, e, "resid")
    if type in ("pearson", "cholesky", "studentized"):
        require_residual(fit, "are no standardized residuals")
    if type in ("pearson", "cholesky"):
        return by_row(fit, fit.residual_values("pearson", scaled=True), "resid")
    if type == "studentized":
        return by_row(fit, _studentized(marginal(fit)), "resid")
    raise _unknown(type)


@of_fit
def rstudent(fit: Fit) -> pd.Series:
    """Studentized residuals as R's rstudent of the same kind of model; not one definition.

    Mixed models (lme4): sign(d) sqrt(d^2 + h r^2 / (1 - h)) / sigma with deviance and Pearson residuals d
    and r and sigma of *all* rows: internally studentized, for linear models ``resid_conditional(fit,
    "studentized")``. ``lm``, ``glm``: externally studentized, sigma_(i)^2 = (deviance - d_i^2 / (1 - h_i))
    / (n - p - 1) instead; 1 for the binomial and Poisson families. NaN where the leverage is 1, and where this
    sigma_(i)^2, of first order in a glm, is negative.
    """
    require_residual(fit, "are no standardized residuals")
    ws = marginal(fit)
    P = np.where(ws.P > 0, ws.P, np.nan)
    d, r = (fit.residual_values(type) for type in ("deviance", "pearson"))
    value = np.sign(d) * np.sqrt(d**2 + (1.0 - P) * r**2 / P)
    if fit.design.terms or _fixed_dispersion(fit):
        return by_row(fit, value / fit.sigma, "rstudent")
    with np.errstate(invalid="ignore", divide="ignore"):
        return by_row(fit, value / sigma_without_row(fit, d, P), "rstudent")


def _fixed_dispersion(fit: Fit) -> bool:
    """As R has it: not a negative binomial, whose dispersion is one as well."""
    return fit.family is not None and fit.family.name in ("binomial", "poisson")


def _studentized(ws: Marginal) -> np.ndarray:
    P = ws.P
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(P > 0, ws.Py / (ws.fit.sigma * np.sqrt(P)), np.nan)


@of_fit
def resid_marginal(fit: Fit, type: str = "raw") -> pd.Series:
    """Marginal residuals r = y - X beta - offset, by row, V = sigma^2 (W^-1 + Z Sigma Z').

    ``raw``          r
    ``pearson``      r_i / sqrt(V_ii)
    ``studentized``  r_i / sqrt((V - X C X')_ii), C = vcov(beta): divided by its standard deviation
    ``cholesky``     L^-1 r with V = L L', rows in the order of the data: uncorrelated with variance 1 at
    the true
                     parameters; depends on the order of the rows

    HLMdiag's resid_marginal, with prior weights and offset honoured. ``cholesky`` for crossed factors needs
    a dense factor of connected rows and raises UnsupportedError beyond 6,000 of them.
    """
    need_gaussian(fit, "marginal residuals")
    r = fit.working.residual_marginal
    if type == "raw":
        return by_row(fit, r, "resid")
    if type in ("pearson", "cholesky", "studentized"):
        require_residual(fit, "are no standardized residuals")
    if type == "cholesky":
        return by_row(fit, cholesky_whitened(fit, r), "resid")
    if type not in ("pearson", "studentized"):
        raise _unknown(type)
    w = fit.design.weights
    V = random_variance(fit) + (1.0 if w is None else 1.0 / w)
    variance = V
    if type == "studentized":
        variance = V - _mean_variance(fit)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(variance > 1e-11 * V, r / (fit.sigma * np.sqrt(variance)), np.nan)
    return by_row(fit, values, "resid")


def _mean_variance(fit: Fit) -> np.ndarray:
    """(n,) diagonal of X (X'V^-1X)^-1 X', in the basis of X, where 1 - h has the digits of h."""
    squares, root = np.square(mean_rows(fit.working)).sum(axis=0), fit.kernel.A.sqrt_w
    return squares if root is None else squares / root**2


def _unknown(type: str) -> UnsupportedError:
    return UnsupportedError(f"type={type!r} is not one of 'raw', 'pearson', 'studentized', 'cholesky'")


def innermost(fit: Fit) -> str:
    """The grouping factor of the first term: the one with most levels."""
    groups = groups_of(fit)
    if not groups:
        raise UnsupportedError("least-squares residuals are per group, and the model has no grouping factor")
    return groups[0]


def row_fits(fit: Fit, group: Hashable | None = None) -> SeparateFits:
    """Separate fits in the levels of ``group``, by default the factor with most levels."""
    need_gaussian(fit, "least-squares residuals")
    level = innermost(fit) if group is None else group
    check_level(fit, level)
    labels, codes = level_codes(fit, level)
    fits = separate_fits(fit.design, codes, len(labels))
    full = int((fits.df == 0).sum())
    if full:
        warn(
            f"{full} of {len(labels)} levels of {level} have no more rows than coefficients: their "
            "least-squares residuals are 0 (standardized: NaN); include_ls=False leaves them out"
        )
    return fits


def ls_values(fits: SeparateFits, standardize: bool | str) -> np.ndarray:
    """(n,) least-squares residuals: raw, internally studentized (True) or over sqrt(1 - h) ("semi")."""
    if standardize is False:
        return fits.resid
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.where(fits.hat < 1.0 - 1e-10, np.sqrt(1.0 - fits.hat), np.nan)
        return fits.resid / root if standardize == "semi" else fits.scaled / (root * fits.s[fits.codes])


def check_standardize(standardize: bool | str) -> None:
    """Raise unless True, False or "semi"."""
    if standardize is not True and standardize is not False and standardize != "semi":
        raise UnsupportedError(f"standardize={standardize!r} is not one of False, True, 'semi'")


@of_fit
def ls_residuals(fit: Fit, group: str | None = None, *, standardize: bool | str = False) -> pd.DataFrame:
    """Residuals of separate least-squares fits of the fixed part in every level of a grouping factor.

    They do not depend on the random-effects part, hence not on theta: use them to check the rows before the
    groups. ``group`` defaults to the factor with most levels; crossed models are allowed, one factor at a
    time.

    Columns: ``.ls.resid`` and ``.ls.fitted``; ``standardize=True`` gives ``.std.ls.resid`` = r sqrt(w) / (s_g
    sqrt(1 - h)) with the group's own s_g, ``"semi"`` gives ``.semi.ls.resid`` = r / sqrt(1 - h). Rows by
    label, in the order of the data. HLMdiag's LSresids, but the intercept is there only if the model has
    one, weights and offset count, and rows stay in order. A level with no more rows than coefficients has
    residuals 0 (standardized NaN) and a warning. Cost O(n p^2).
    """
    fit.require_rows("ls_residuals")
    check_standardize(standardize)
    fits = row_fits(fit, group)
    values = ls_values(fits, standardize)
    full, index = pad(fit, np.column_stack([values, fits.fitted]))
    return pd.DataFrame(full, index=index, columns=[ls_name(standardize), ".ls.fitted"])


def ls_name(standardize: bool | str) -> str:
    """Column name of the least-squares residual."""
    if standardize == "semi":
        return ".semi.ls.resid"
    return ".std.ls.resid" if standardize else ".ls.resid"


@of_fit
def pull_resid(fit: Fit, type: str = "ls", standardize: bool = False) -> pd.Series:
    """One kind of row residual by name: ``"ls"`` (within groups), ``"eb"`` (conditional) or ``"marginal"``.

    ``standardize=True``: internally studentized within the group; sqrt(w) e / sigma; L^-1 r (Cholesky).
    HLMdiag's pull_resid, crossed models included.
    """
    fit.require_rows("pull_resid")
    if standardize is not True and standardize is not False:
        raise UnsupportedError(f"standardize={standardize!r} must be True or False")
    if type == "ls":
        return ls_residuals(fit, standardize=standardize).iloc[:, 0]
    if type == "eb":
        return resid_conditional(fit, "pearson" if standardize else "raw")
    if type == "marginal":
        return resid_marginal(fit, "cholesky" if standardize else "raw")
    raise UnsupportedError(f"type={type!r} is not one of 'ls', 'eb', 'marginal'")
