"""Likelihood-ratio tests of the random terms, each deleted or reduced in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import UnsupportedError
from ...formula.algebra import Term
from ...formula.parse import Bar
from ...formula.syntax import deparse
from ...glmm.fit import is_generalized
from ...lmm.fit import fit_design
from ...results.fit import Fit
from .reduced import with_bars

__all__ = ["droppable", "ranova", "term_text"]


def droppable(terms: Sequence[Term]) -> list[Term]:
    """The terms that are no margin of another one: R's drop.scope."""
    sets = [frozenset(deparse(v) for v in term) for term in terms]
    return [term for term, own in zip(terms, sets, strict=True) if not any(own < other for other in sets)]


def term_text(term: Term) -> str:
    """R's label of a term."""
    return ":".join(deparse(v) for v in term)


def ranova(fit: Fit, *, reduce_terms: bool = True) -> pd.DataFrame:
    """Test each random term of a linear mixed model by a refit without it.

    Parameters
    ----------
    fit : a linear mixed model, by REML or maximum likelihood; the refits are by the same.
    reduce_terms : ``(x | g)`` is tested against ``(1 | g)``, a term with several effects against each that lacks one;
        False deletes whole terms.

    Returns
    -------
    DataFrame
        Rows ``<none>``, then the terms, as lmerTest names them: ``(1 | g)``, ``x in (x | g)``. Columns ``npar``,
        ``logLik``, ``AIC``, ``LRT``, ``Df``, ``Pr(>Chisq)``.

    Raises
    ------
    UnsupportedError
        For other models, fits from partitions and ``residual="varident(...)"``.

    Notes
    -----
    The chi-squared p-value is too large, up to twice for a single variance, because variances are not negative (Self &
    Liang 1987). R: ``lmerTest::ranova``. As there, ``(0 + x | g)`` is reduced to ``(1 | g)``.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.tests.ranova import ranova
    >>> fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    >>> ranova(fit).round(2)
                              npar  logLik      AIC    LRT   Df  Pr(>Chisq)
    <none>                       6 -871.81  1755.63    NaN  NaN         NaN
    Days in (Days | Subject)     4 -893.23  1794.47  42.84  2.0         0.0
    """
    if is_generalized(fit) or not fit.design.terms:
        raise UnsupportedError(
            "ranova is for linear mixed models (mm.lmer): there is no random term to test here"
        )
    if fit.residual is not None:
        raise UnsupportedError("ranova does not refit residual='varident(...)'; compare fits with mm.anova")
    fit.require_rows("ranova")
    rows = [("<none>", fit.df, fit.loglik)]
    bars = fit.design.formula.bars
    for i, bar in enumerate(bars):
        rest = [*bars[:i], *bars[i + 1 :]]
        for label, reduced in _reductions(bar, reduce_terms):
            found = fit_design(
                with_bars(fit.design, rest if reduced is None or _held(reduced, rest) else [*rest, reduced]),
                reml=fit.reml,
                sigma=fit.state.like.sigma,
            )
            rows.append((label, found.df, found.loglik))
    return _table(rows)


def _reductions(bar: Bar, reduce_terms: bool) -> list[tuple[str, Bar | None]]:
    """Labels and terms that stand for ``bar``; None where nothing is left."""
    text = bar.to_r()
    if not reduce_terms or not bar.terms:
        return [(text, None)]
    out: list[tuple[str, Bar | None]] = []
    for term in droppable(bar.terms):
        left = tuple(t for t in bar.terms if t != term)
        parts = [*([] if bar.intercept else ["0"]), *map(term_text, left)]
        reduced = replace(
            bar, terms=left, left=" + ".join(parts) if left else "1", intercept=bar.intercept or not left
        )
        out.append((f"{term_text(term)} in {text}", reduced))
    return out


def _held(bar: Bar, others: Sequence[Bar]) -> bool:
    """Whether the model has this term already: a formula that names it twice has it once."""
    return any((o.terms, o.intercept, o.group) == (bar.terms, bar.intercept, bar.group) for o in others)


def _table(rows: Sequence[tuple[str, int, float]]) -> pd.DataFrame:
    npar, loglik = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    lrt, df = 2.0 * (loglik[0] - loglik), (npar[0] - npar).astype(float)
    lrt[0] = df[0] = np.nan
    columns = {
        "npar": npar,
        "logLik": loglik,
        "AIC": 2.0 * npar - 2.0 * loglik,
        "LRT": lrt,
        "Df": df,
        "Pr(>Chisq)": stats.chi2.sf(lrt, np.where(df > 0, df, np.nan)),
    }
    return pd.DataFrame(columns, index=[r[0] for r in rows])
