"""Tests and intervals of generalised linear models: analysis of deviance, Wald and profile-likelihood
intervals.

Everything stands on refits by iteratively reweighted least squares of models with fewer columns, or with one
coefficient held.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import chi2, f

from ...errors import DataError, UnsupportedError
from ...formula.syntax import deparse
from ...glmm.fit import GeneralizedFit
from ...glmm.irls import Irls, irls
from ...kernels.basis import orthonormal_basis

__all__ = ["anova_glm"]

FAR = 60.0  # standard errors from the estimate at which a profile is called flat


# --- analysis of deviance ---------------------------------------------------------------------------------


def anova_glm(fit: GeneralizedFit, *others: GeneralizedFit, test: str | None = "Chisq") -> pd.DataFrame:
    """Analysis of deviance: of the terms of one model in their order, or of several models as given.

    Columns: Df, Deviance (drop), Resid. Df, Resid. Dev, then ``Pr(>Chi)`` (``test="Chisq"``, also
    ``"LRT"``), or ``F`` and ``Pr(>F)`` (``"F"``). The scale is the dispersion of the largest model, one
    where it is known; F has infinite denominator degrees of freedom then, as in R, where a chi-squared test
    is better.

    R's anova.glm. Raises DataError for models of different responses, UnsupportedError for mixed models.
    """
    if test not in ("Chisq", "LRT", "F", None):
        raise UnsupportedError(f"test={test!r} is not one of 'Chisq', 'LRT', 'F', None")
    fits = (fit, *others)
    for each in fits:
        if each.is_mixed:
            raise UnsupportedError("anova_glm compares models without random effects")
    labels, deviances, free = _sequence(fit) if not others else _models(fits)
    table = pd.DataFrame(
        {
            "Df": -np.diff(free, prepend=np.nan),
            "Deviance": -np.diff(deviances, prepend=np.nan),
            "Resid. Df": free,
            "Resid. Dev": deviances,
        },
        index=labels,
    )
    largest = min(fits, key=lambda each: each.df_resid)
    return _with_test(table, largest, test)


def _with_test(table: pd.DataFrame, largest: GeneralizedFit, test: str | None) -> pd.DataFrame:
    if test is None:
        return table
    scale, df = largest.dispersion, table["Df"].to_numpy()
    sign = np.where(df < 0, -1.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        drop = sign * table["Deviance"].to_numpy() / scale
        df = np.where(df == 0, np.nan, np.abs(df))
        if test == "F":
            F = drop / df
            denominator = np.inf if largest.family.dispersion_known else largest.df_resid
            p = chi2.sf(F * df, df) if np.isinf(denominator) else f.sf(F, df, denominator)
            return table.assign(**{"F": F, "Pr(>F)": p})
        return table.assign(**{"Pr(>Chi)": chi2.sf(drop, df)})


def _sequence(fit: GeneralizedFit) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Terms added one after the other."""
    assign, formula = np.array(fit.design.assign, int), fit.design.formula
    names = [":".join(deparse(v) for v in term) for term in formula.terms]
    labels, deviances, free = ["NULL"], [fit.null_deviance], [fit.nobs - int(formula.intercept)]
    for k, name in enumerate(names, 1):
        found = _submodel(fit, np.flatnonzero(assign <= k))
        labels.append(name)
        deviances.append(_deviance(fit, found))
        free.append(fit.nobs - int((assign <= k).sum()))
    return labels, np.array(deviances), np.array(free, float)


def _submodel(fit: GeneralizedFit, columns: np.ndarray) -> Irls:
    offset = 0.0 if fit.design.offset is None else fit.design.offset
    if len(columns) == fit.design.p:
        return Irls(fit.solution.gamma, fit.solution.at, 0, True, 0.0)
    Q, _ = orthonormal_basis(np.ascontiguousarray(fit.design.X[:, columns].T))
    with np.errstate(all="ignore"):
        return irls(fit.solution.conditional, Q, offset)


def _deviance(fit: GeneralizedFit, found: Irls) -> float:
    return float(fit.solution.conditional.deviance_terms(found.at).sum())


def _models(fits: Sequence[GeneralizedFit]) -> tuple[list[str], np.ndarray, np.ndarray]:
    first = fits[0]
    for other in fits[1:]:
        if other.design.n != first.design.n or not np.array_equal(other.design.y, first.design.y):
            raise DataError(
                "the models have different responses or rows: fit all of them to the rows complete in every "
                "variable"
            )
        if type(other.family) is not type(first.family):
            raise DataError(
                f"the models have different families, {first.family.name} and {other.family.name}"
            )
    labels = [f"{i}: {each.formula}" for i, each in enumerate(fits, 1)]
    return (
        labels,
        np.array([each.deviance for each in fits]),
        np.array([each.df_resid for each in fits], float),
    )
