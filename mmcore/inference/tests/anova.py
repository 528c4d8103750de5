"""Tests of the terms of one model, and comparisons of several."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import UnsupportedError
from ...glmm.fit import GeneralizedFit, is_generalized
from ...lmm.lm import LinearFit, is_lm
from ...results.fit import Fit
from ..df.denominators import denominator
from ..df.ftest import FTest
from .comparison import compare
from .deviance import anova_glm
from .hypotheses import hypotheses, term_columns, type_number

__all__ = ["anova", "f_table", "f_tests"]

METHODS = {"satterthwaite": "Satterthwaite's", "kenward-roger": "Kenward-Roger's"}


def anova(
    fit: Fit,
    *others: Fit,
    type: int | str | None = None,
    ddf: str | None = "satterthwaite",
    test: str | None = None,
    refit: bool = True,
) -> pd.DataFrame:
    """Test the terms of a model, or compare several models.

    Parameters
    ----------
    fit : a linear or generalised model, with or without random effects.
    others : further models of the same response and rows. Then models are compared, in order of their number of
        parameters; ``type`` and ``ddf`` are not used.
    type : 1 sequential, 2 or 3 (also "I", "II", "III"). Default 3 for mixed models, 1 for ``lm`` and ``glm``, as
        lmerTest and R have it.
    ddf : of linear mixed models: ``"satterthwaite"``, ``"kenward-roger"``, ``"residual"``, ``"asymptotic"``; None gives
        lme4's table without p-values.
    test : for ``glm``: ``"Chisq"`` (default, also ``"LRT"``) or ``"F"``.
    refit : whether models fitted by REML are fitted again by ML before they are compared, as R does.

    Returns
    -------
    DataFrame
        Linear mixed models: a row per term; ``Sum Sq``, ``Mean Sq`` (F times sigma^2), ``NumDF``, ``DenDF``,
        ``F value``, ``Pr(>F)``. ``lm``: R's ``Df``, ``Sum Sq``, ``Mean Sq``, ``F value``, ``Pr(>F)``, and a row
        ``Residuals``. ``glm`` of type 1: analysis of deviance. Other generalised: Wald tests ``Chisq``, ``Df``,
        ``Pr(>Chisq)``. Several mixed models: ``npar``, ``AIC``, ``BIC``, ``logLik``, ``deviance``, ``Chisq``, ``Df``,
        ``Pr(>Chisq)``.

    Raises
    ------
    DataError
        For models of different responses or rows, and unknown options.
    UnsupportedError
        Where a method is not defined for the model.

    Notes
    -----
    Hypotheses are those of :mod:`mmcore.inference.tests.hypotheses`. R: ``anova(lmerTest::lmer(...), type=, ddf=)``,
    ``anova(m1, m2)``, ``anova(lm)``, ``anova(glm, test=)``; ``car::Anova`` for Wald tests. On the boundary the
    chi-squared p-value of a variance is too large: see ``lrt_vs_linear``.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.tests.anova import anova
    >>> fit = mm.lmer("score ~ Machine + (1 | Worker/Machine)", mm.load_dataset("Machines"))
    >>> anova(fit).round(3)
             Sum Sq  Mean Sq  NumDF  DenDF  F value  Pr(>F)
    Machine  38.051   19.025      2   10.0   20.576     0.0
    """
    if others:
        return compare((fit, *others), test=test, refit=refit)
    mixed = bool(fit.design.terms)
    number = type_number(type if type is not None else (3 if mixed else 1))
    if is_generalized(fit):
        return _generalized(fit, number, test)
    if is_lm(fit):
        return _linear(fit, number)
    if ddf is None:
        return _without_p(fit)
    table = f_table(fit, hypotheses(fit.design, number), ddf)
    label = METHODS.get(ddf, ddf)
    table.attrs["heading"] = f"Type {'I' * number} Analysis of Variance Table with {label} method"
    return table


def f_tests(fit: Fit, matrices: Mapping[str, np.ndarray], ddf: str | None) -> dict[str, FTest]:
    """An F test of L beta = 0 per matrix L."""
    method = denominator(fit, ddf)
    return {name: method.f_test(L, L @ fit.beta) for name, L in matrices.items()}


def f_table(fit: Fit, matrices: Mapping[str, np.ndarray], ddf: str | None) -> pd.DataFrame:
    """lmerTest's table of F tests; NaN for a term without coefficients."""
    tests = f_tests(fit, matrices, ddf)
    mean = np.array([t.unscaled for t in tests.values()]) * fit.sigma**2
    df = np.array([t.num_df for t in tests.values()], float)
    columns = {
        "Sum Sq": mean * df,
        "Mean Sq": mean,
        "NumDF": df if np.isnan(df).any() else df.astype(int),
        "DenDF": np.array([t.den_df for t in tests.values()], float),
        "F value": np.array([t.statistic for t in tests.values()], float),
        "Pr(>F)": np.array([t.p_value for t in tests.values()], float),
    }
    return pd.DataFrame(columns, index=list(tests))


def _without_p(fit: Fit) -> pd.DataFrame:
    """lme4's table: each term's part of |RX beta|^2, RX'RX = X'V^-1X, and F without denominator df."""
    p = fit.design.p
    squares = (fit.working.profile.LS[:p, :p].T @ fit.kernel.A.R @ fit.beta) ** 2
    columns = {name: at for name, at in term_columns(fit.design).items() if len(at)}
    df = np.array([len(at) for at in columns.values()], int)
    total = np.array([squares[at].sum() for at in columns.values()])
    values = {"npar": df, "Sum Sq": total, "Mean Sq": total / df, "F value": total / df / fit.sigma**2}
    return pd.DataFrame(values, index=list(columns))


def _linear(fit: LinearFit, number: int) -> pd.DataFrame:
    """R's table of an lm; types II and III by the same hypotheses as mixed models."""
    tests = f_tests(fit, hypotheses(fit.design, number, fit.design.weights), "residual")
    tests = {name: t for name, t in tests.items() if t.num_df > 0}
    df = np.array([t.num_df for t in tests.values()], int)
    F = np.array([t.statistic for t in tests.values()], float)
    mean = F * fit.sigma**2
    columns = {
        "Df": np.append(df, fit.df_resid),
        "Sum Sq": np.append(mean * df, fit.deviance),
        "Mean Sq": np.append(mean, fit.sigma**2),
        "F value": np.append(F, np.nan),
        "Pr(>F)": np.append([t.p_value for t in tests.values()], np.nan),
    }
    return pd.DataFrame(columns, index=[*tests, "Residuals"])


def _generalized(fit: GeneralizedFit, number: int, test: str | None) -> pd.DataFrame:
    """Analysis of deviance of a glm (type I), else Wald tests."""
    if number == 1 and not fit.is_mixed:
        return anova_glm(fit, test=test or "Chisq")
    if test not in (None, "Chisq", "F"):
        raise UnsupportedError(
            f"test={test!r}: terms of types II and III, and of glmer, get Wald tests ('Chisq', 'F')"
        )
    tests = f_tests(fit, hypotheses(fit.design, number), "residual")
    df = np.array([t.num_df for t in tests.values()], float)
    F = np.array([t.statistic for t in tests.values()], float)
    if test == "F":
        free = np.array([t.den_df for t in tests.values()], float)
        p = np.array([t.p_value for t in tests.values()], float)
        return pd.DataFrame({"F": F, "Df": df, "Df.res": free, "Pr(>F)": p}, index=list(tests))
    return pd.DataFrame(
        {"Chisq": F * df, "Df": df, "Pr(>Chisq)": stats.chi2.sf(F * df, df)}, index=list(tests)
    )
