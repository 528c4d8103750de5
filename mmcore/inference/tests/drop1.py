"""Tests of the fixed terms that can be deleted, each in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import DataError, UnsupportedError
from ...formula.algebra import Term
from ...glmm.fit import GeneralizedFit, fit_generalized, is_generalized
from ...lmm.fit import fit_design
from ...lmm.lm import LinearFit, fit_linear, is_lm
from ...results.fit import Fit
from .anova import f_table
from .comparison import refit_ml
from .hypotheses import marginal
from .ranova import droppable, term_text
from .reduced import without_fixed_term

__all__ = ["drop1"]


def drop1(
    fit: Fit,
    scope: Sequence[str] | None = None,
    *,
    test: str | None = "Chisq",
    ddf: str = "satterthwaite",
) -> pd.DataFrame:
    """Delete each fixed term that is no margin of another, one at a time.

    Parameters
    ----------
    fit : a linear or generalised model, with or without random effects.
    scope : labels of the terms to delete; default all that can be.
    test : ``"Chisq"`` (also ``"LRT"``): likelihood ratios of refits, mixed models by ML; ``"F"``: for linear mixed
        models lmerTest's F tests without refits, for ``lm`` and ``glm`` R's; None: no test.
    ddf : of the F tests of linear mixed models.

    Returns
    -------
    DataFrame
        Mixed models: ``npar``, ``AIC`` and ``LRT``, ``Pr(Chi)``, rows ``<none>`` and the terms, as lme4 has them; with
        ``test="F"`` the columns of ``anova``. ``lm``: ``Df``, ``Sum of Sq``, ``RSS``, ``AIC`` and ``F value``,
        ``Pr(>F)`` or ``Pr(>Chi)``. ``glm``: ``Df``, ``Deviance``, ``AIC`` and ``LRT``, ``Pr(>Chi)`` or ``F value``,
        ``Pr(>F)``.

    Raises
    ------
    DataError
        For a scope that names other terms.

    Notes
    -----
    R: ``drop1(m, test =)`` of lme4, lmerTest and stats. AIC of an ``lm`` is R's extractAIC, n log(RSS / n) + 2 p.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.tests.drop1 import drop1
    >>> fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    >>> drop1(fit).round(2)
            npar      AIC    LRT  Pr(Chi)
    <none>   NaN  1763.94    NaN      NaN
    Days     1.0  1785.48  23.54      0.0
    """
    if test not in ("Chisq", "LRT", "F", None):
        raise UnsupportedError(f"test={test!r} is not one of 'Chisq', 'LRT', 'F', None")
    terms = _scope(fit, scope)
    if is_generalized(fit):
        return _generalized(fit, terms, test)
    if is_lm(fit):
        return _linear(fit, terms, test)
    if test == "F":
        return f_table(fit, {name: _matrix(fit, name, term) for name, term in terms.items()}, ddf)
    return _mixed(fit, terms, test)


def _scope(fit: Fit, scope: Sequence[str] | None) -> dict[str, Term]:
    found = {term_text(term): term for term in droppable(fit.design.formula.terms)}
    if scope is None:
        return found
    wanted = [scope] if isinstance(scope, str) else list(scope)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise DataError(
            f"{', '.join(map(repr, unknown))} cannot be deleted alone; terms that are no margin of another: "
            f"{', '.join(found) or 'none'}"
        )
    return {name: found[name] for name in wanted}


def _matrix(fit: Fit, name: str, term: Term) -> np.ndarray:
    """Hypothesis of a term: its coefficients; if columns of X were dropped, what the model without it cannot fit."""
    design = fit.design
    if len(design.x_names) == len(design.x_names_full):
        return marginal(design)[name]
    Q = np.linalg.qr(without_fixed_term(design, term).X)[0]
    rest = design.X - Q @ (Q.T @ design.X)
    size, vectors = np.linalg.svd(rest, full_matrices=False)[1:]
    return vectors[size > 1e-8 * np.linalg.norm(design.X)] @ (design.X.T @ rest)


def _mixed(fit: Fit, terms: dict[str, Term], test: str | None) -> pd.DataFrame:
    if fit.residual is not None:
        raise UnsupportedError("drop1 does not refit residual='varident(...)'; compare fits with mm.anova")
    fit.require_rows("drop1")
    full = refit_ml(fit)
    refits = [
        fit_design(without_fixed_term(fit.design, term), reml=False, sigma=fit.state.like.sigma)
        for term in terms.values()
    ]
    return _by_likelihood(full, refits, list(terms), test)


def _by_likelihood(full: Fit, refits: Sequence[Fit], names: Sequence[str], test: str | None) -> pd.DataFrame:
    df = np.append(np.nan, [float(full.df - r.df) for r in refits])
    table = pd.DataFrame({"npar": df, "AIC": [full.aic, *(r.aic for r in refits)]}, index=["<none>", *names])
    if test is None:
        return table
    lrt = np.append(np.nan, [2.0 * (full.loglik - r.loglik) for r in refits])
    return table.assign(**{"LRT": lrt, "Pr(Chi)": stats.chi2.sf(lrt, np.where(df > 0, df, np.nan))})


def _linear(fit: LinearFit, terms: dict[str, Term], test: str | None) -> pd.DataFrame:
    refits = [fit_linear(without_fixed_term(fit.design, term)) for term in terms.values()]
    n, rss = fit.nobs, np.array([fit.deviance, *(r.deviance for r in refits)])
    edf = np.array([fit.design.p, *(r.design.p for r in refits)], float)
    df, drop = edf[0] - edf, rss - rss[0]
    df[0] = drop[0] = np.nan
    columns = {"Df": df, "Sum of Sq": drop, "RSS": rss, "AIC": n * np.log(rss / n) + 2.0 * edf}
    if test == "F":
        F = drop / df / fit.sigma**2
        columns |= {"F value": F, "Pr(>F)": stats.f.sf(F, df, fit.df_resid)}
    elif test is not None:
        columns["Pr(>Chi)"] = stats.chi2.sf(n * np.log(rss / rss[0]) + 0.0 * drop, df)
    return pd.DataFrame(columns, index=["<none>", *terms])


def _generalized(fit: GeneralizedFit, terms: dict[str, Term], test: str | None) -> pd.DataFrame:
    refits = [
        fit_generalized(without_fixed_term(fit.design, term), fit.family, nagq=fit.nagq or 1, quiet=True)
        for term in terms.values()
    ]
    if fit.is_mixed:
        if test == "F":
            raise UnsupportedError("test='F' has no denominator for a generalised mixed model; use 'Chisq'")
        return _by_likelihood(fit, refits, list(terms), test)
    deviance = np.array([fit.deviance, *(r.deviance for r in refits)])
    df = np.append(np.nan, [float(fit.design.p - r.design.p) for r in refits])
    drop = np.append(np.nan, deviance[1:] - deviance[0])
    columns = {"Df": df, "Deviance": deviance}
    if not fit.likelihood_note:  # without a likelihood (quasi families) R leaves the column out too
        columns["AIC"] = np.array([fit.aic, *(r.aic for r in refits)])
    if test == "F":
        F = drop / df / (fit.deviance / fit.df_resid)
        columns |= {"F value": F, "Pr(>F)": stats.f.sf(F, df, fit.df_resid)}
    elif test is not None:
        lrt = drop / fit.dispersion
        columns |= {"LRT": lrt, "Pr(>Chi)": stats.chi2.sf(lrt, df)}
    return pd.DataFrame(columns, index=["<none>", *terms])
