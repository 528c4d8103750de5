"""Models compared by their likelihoods, or, for least squares, by their residual sums of squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import DataError, UnsupportedError
from ...glmm.fit import GeneralizedFit, is_generalized
from ...lmm.fit import fit_design, fit_partitions
from ...lmm.lm import is_lm
from ...results.fit import Fit
from .deviance import anova_glm

__all__ = ["by_likelihood", "compare", "refit_ml"]


def compare(fits: Sequence[Fit], *, test: str | None = None, refit: bool = True) -> pd.DataFrame:
    """The table of ``anova(fit, *others)``: F for ``lm``, analysis of deviance for ``glm``, likelihood ratios else.

    Raises DataError unless all models have the same rows and response, on the same scale.
    """
    _refuse_other_rows(fits)
    labels = [f"{i}: {each.formula}" for i, each in enumerate(fits, 1)]
    if all(is_lm(each) for each in fits) and test in (None, "F"):
        return _linear(fits, labels)
    if test == "F" and not _all_glm(fits):
        raise UnsupportedError(
            "test='F' compares models without random effects; leave it out for likelihood ratios"
        )
    if _all_glm(fits):
        return anova_glm(*_glms(fits), test=test or "Chisq")
    if test not in (None, "LRT", "Chisq"):
        raise UnsupportedError(f"test={test!r} is not one of 'LRT', 'Chisq', 'F'")
    return by_likelihood([refit_ml(each) for each in fits] if refit else fits, labels)


def _glms(fits: Sequence[Fit]) -> list[GeneralizedFit]:
    return [each for each in fits if is_generalized(each) and not each.is_mixed]


def _all_glm(fits: Sequence[Fit]) -> bool:
    return len(_glms(fits)) == len(fits)


def _refuse_other_rows(fits: Sequence[Fit]) -> None:
    first = fits[0]
    for i, other in enumerate(fits[1:], 2):
        if other.nobs != first.nobs:
            raise DataError(
                f"model {i} uses {other.nobs} rows and model 1 {first.nobs}: fit all of them to the rows complete in "
                "every variable"
            )
        if _family_label(first) != _family_label(other):
            raise DataError(
                f"model {i} has another family or link than model 1: their likelihoods cannot be compared"
            )
        if first.has_rows and other.has_rows and not np.array_equal(first.design.y, other.design.y):
            raise DataError(
                f"model {i} has another response than model 1, or its rows in another order: transform and sort the "
                "data before fitting"
            )
    if any(is_generalized(f) and (f.nagq or 1) > 1 for f in fits) and any(not f.design.terms for f in fits):
        raise DataError(
            "a likelihood by quadrature (nagq > 1) leaves out a constant that a glm keeps: use nagq=1"
        )


def refit_ml(fit: Fit) -> Fit:
    """The model fitted by maximum likelihood; the fit itself if it was."""
    if not fit.reml or fit.kind != "lmm":
        return fit
    if fit.residual is not None:
        raise UnsupportedError(
            "models with residual='varident(...)' are not fitted again by ML here: fit them with reml=False"
        )
    sigma = fit.state.like.sigma
    if not fit.has_rows:
        return fit_partitions(fit.design, fit.kernel.A, reml=False, sigma=sigma)
    return fit_design(fit.design, reml=False, sigma=sigma)


def _family_label(fit: Fit) -> str | None:
    return None if fit.family is None else fit.family.label()


def by_likelihood(fits: Sequence[Fit], labels: Sequence[str]) -> pd.DataFrame:
    """lme4's table, in order of the number of parameters; each model is tested against the one before.

    p is NaN where two models have as many parameters: they are not nested.
    """
    order = sorted(range(len(fits)), key=lambda i: fits[i].df)
    chosen = [fits[i] for i in order]
    npar, loglik = np.array([f.df for f in chosen]), np.array([f.loglik for f in chosen])
    df = np.append(np.nan, np.diff(npar).astype(float))
    chisq = np.append(np.nan, 2.0 * np.maximum(np.diff(loglik), 0.0))
    columns = {
        "npar": npar,
        "AIC": [f.aic for f in chosen],
        "BIC": [f.bic for f in chosen],
        "logLik": loglik,
        "deviance": -2.0 * loglik,
        "Chisq": chisq,
        "Df": df,
        "Pr(>Chisq)": stats.chi2.sf(chisq, np.where(df > 0, df, np.nan)),
    }
    return pd.DataFrame(columns, index=[labels[i] for i in order])


def _linear(fits: Sequence[Fit], labels: Sequence[str]) -> pd.DataFrame:
    """R's anova of several lm: F with the scale of the largest model."""
    free = np.array([f.nobs - f.design.p for f in fits], float)
    rss = np.array([f.working.profile.rss for f in fits])
    df, drop = -np.diff(free, prepend=np.nan), -np.diff(rss, prepend=np.nan)
    largest = int(np.argmin(free))
    with np.errstate(invalid="ignore", divide="ignore"):
        F = drop / np.where(df == 0, np.nan, df) / (rss[largest] / free[largest])
        p = stats.f.sf(F, np.abs(df), free[largest])
    columns = {"Res.Df": free.astype(int), "RSS": rss, "Df": df, "Sum of Sq": drop, "F": F, "Pr(>F)": p}
    return pd.DataFrame(columns, index=list(labels))
