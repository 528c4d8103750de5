"""Which tests a fit's coefficients get: by Satterthwaite, Kenward-Roger, residual degrees of freedom, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import DataError
from ...glmm.fit import is_generalized
from ...lmm.lm import is_lm
from ...results.coefficients import Ddf
from ...results.fit import Fit
from .ftest import NO_TEST, FTest
from .kenward_roger import kenward_roger
from .satterthwaite import satterthwaite
from .vcov import checked_vcov

__all__ = ["DDF", "Denominator", "FixedDenominator", "coefficient_table", "denominator", "two_sided"]

DDF = ("satterthwaite", "kenward-roger", "residual", "asymptotic")
RANK = 1e-8


class Denominator(Protocol):
    """A covariance of the fixed effects and the degrees of freedom that go with it."""

    @property
    def vcov(self) -> np.ndarray:
        """(p, p) covariance that standard errors come from."""

    def df(self, contrast: np.ndarray) -> float:
        """Degrees of freedom of one contrast (p,)."""

    def f_test(self, L: np.ndarray, estimate: np.ndarray) -> FTest:
        """F of L beta = rhs, L (q, p) and ``estimate`` (q,) L beta - rhs."""


@dataclass(frozen=True, slots=True)
class FixedDenominator:
    """The same degrees of freedom for every hypothesis; infinite for normal and chi-squared tests."""

    vcov: np.ndarray  # (p, p)
    free: float

    def df(self, contrast: np.ndarray) -> float:
        """``free``."""
        return self.free

    def f_test(self, L: np.ndarray, estimate: np.ndarray) -> FTest:
        """Wald statistic over the rank of L."""
        left, size, right = np.linalg.svd(L, full_matrices=False)
        kept = size > RANK * size.max(initial=0.0)
        q = int(kept.sum())
        if not q:
            return NO_TEST
        rows, value = right[kept], (left[:, kept].T @ estimate) / size[kept]
        F = float(value @ np.linalg.solve(rows @ self.vcov @ rows.T, value)) / q
        return FTest(F, F, q, self.free)


def denominator(fit: Fit, ddf: str | None = "satterthwaite", vcov: np.ndarray | None = None) -> Denominator:
    """The tests of a fit's fixed effects.

    Linear models have residual degrees of freedom, exactly, whichever of ``ddf`` is asked for, but for "asymptotic".
    Generalized models with a known dispersion have normal ones; with an estimated one and no random effects, residual.
    ``vcov`` (p, p) takes the place of the model's covariance where the degrees of freedom are the same for all.
    """
    if ddf is not None and ddf not in DDF:
        raise DataError(f"ddf={ddf!r} is not one of {', '.join(map(repr, DDF))}, None")
    free = _same_for_all(fit, ddf)
    if free is not None:
        return FixedDenominator(fit.vcov.to_numpy() if vcov is None else vcov, free)
    return satterthwaite(fit) if ddf == "satterthwaite" else kenward_roger(fit)


def _same_for_all(fit: Fit, ddf: str | None) -> float | None:
    """Degrees of freedom that every hypothesis has; None if they depend on it."""
    if ddf == "asymptotic" or ddf is None:
        return np.inf
    if is_lm(fit):
        return float(fit.df_resid)
    if is_generalized(fit):
        return np.inf if fit.is_mixed or fit.family.dispersion_known else float(fit.df_resid)
    return float(fit.nobs - fit.design.p) if ddf == "residual" else None


def two_sided(statistic: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Two-sided p-values of t statistics; of normal ones where df is infinite."""
    size, df = np.abs(np.asarray(statistic, float)), np.asarray(df, float)
    return np.where(
        np.isinf(df), 2.0 * stats.norm.sf(size), 2.0 * stats.t.sf(size, np.where(np.isinf(df), 1.0, df))
    )


def coefficient_table(fit: Fit, ddf: Ddf = "satterthwaite", vcov: Any = None) -> pd.DataFrame:
    """Fixed effects with standard errors, degrees of freedom and two-sided p-values.

    Parameters
    ----------
    fit : a linear or generalised model, with or without random effects.
    ddf : ``"satterthwaite"``, ``"kenward-roger"`` (standard errors from ``vcov_kr`` too), ``"residual"``,
        ``"asymptotic"`` (normal), or None: no degrees of freedom and no p-values.
    vcov : (p, p), labelled or not: takes the place of the covariance that standard errors come from.

    Returns
    -------
    DataFrame
        A row per coefficient, named as in ``fixef``; columns ``estimate``, ``std.error``, ``statistic``, ``df``,
        ``p.value``.

    Raises
    ------
    UnsupportedError
        If the method is not defined for the fit.

    Notes
    -----
    R: ``coef(summary(lmerTest::as_lmerModLmerTest(m), ddf = ))``.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.df.denominators import coefficient_table
    >>> fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    >>> coefficient_table(fit).round(3)
                 estimate  std.error  statistic    df  p.value
    (Intercept)   251.405      6.825     36.838  17.0      0.0
    Days           10.467      1.546      6.771  17.0      0.0
    """
    method = denominator(fit, ddf)
    V = method.vcov if vcov is None else checked_vcov(fit, vcov)
    estimate, se = np.array(fit.beta), np.sqrt(np.diag(V))
    with np.errstate(divide="ignore", invalid="ignore"):  # a model without residual has no standard error
        ratio = estimate / se
    columns = {"estimate": estimate, "std.error": se, "statistic": ratio}
    if ddf is not None:
        df = np.array([method.df(row) for row in np.eye(len(estimate))])
        columns |= {"df": df, "p.value": two_sided(ratio, df)}
    return pd.DataFrame(columns, index=list(fit.design.x_names))
