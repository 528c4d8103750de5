"""Text of linear mixed models in the layout of lme4's summary()."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..results.fit import Fit
from ..results.text import correlation_table, format_columns, random_table, significant

__all__ = ["summary_text"]


def _fixed_table(fit: Fit) -> str:
    estimate, se = fit.fixef.to_numpy(), fit.se.to_numpy()
    t = estimate / se
    return format_columns(
        ["", "Estimate", "Std. Error", "t value"],
        [list(fit.design.x_names), significant(estimate), significant(se), [f"{x:.3f}" for x in t]],
    )


def _criterion_lines(fit: Fit) -> str:
    if fit.reml:
        return f"REML criterion at convergence: {fit.criterion:.1f}"
    values: dict[str, Any] = {
        "AIC": fit.aic,
        "BIC": fit.bic,
        "logLik": fit.loglik,
        "deviance": fit.criterion,
        "df.resid": fit.nobs - fit.df,
    }
    text = [f"{v:.1f}" if k != "df.resid" else str(v) for k, v in values.items()]
    return format_columns(list(values), [[t] for t in text], left=0)


def _residual_lines(fit: Fit) -> str:
    scaled = fit.residual_values("pearson", scaled=True)
    quantiles = significant(np.quantile(scaled[np.isfinite(scaled)], [0, 0.25, 0.5, 0.75, 1]))
    head = ["Min", "1Q", "Median", "3Q", "Max"]
    return "Scaled residuals:\n" + format_columns(head, [[x] for x in quantiles], left=0)


def summary_text(fit: Fit) -> str:
    """The layout of lme4's summary(): criterion, scaled residuals, random effects, fixed effects,
    correlations.
    """
    kind = "Linear mixed model fit by " + ("REML" if fit.reml else "maximum likelihood")
    groups = "; ".join(f"{g}, {n}" for g, n in fit.ngroups.items())
    parts = [
        f"{kind}\nFormula: {fit.formula}",
        _criterion_lines(fit),
        *([_residual_lines(fit)] if fit.has_rows else []),
        f"Random effects:\n{random_table(fit)}\nNumber of obs: {fit.nobs}, groups:  {groups}",
    ]
    if fit.design.p:
        parts.append(f"Fixed effects:\n{_fixed_table(fit)}")
    if fit.design.p > 1:
        parts.append(f"Correlation of Fixed Effects:\n{correlation_table(fit)}")
    if fit.design.x_names_full != fit.design.x_names:
        dropped = [n for n in fit.design.x_names_full if n not in fit.design.x_names]
        parts.append(f"dropped, rank deficient: {', '.join(dropped)}")
    parts.append(
        f"optimizer: {fit.optinfo.method}, {fit.optinfo.evaluations} evaluations; {fit.status.value}"
    )
    return "\n\n".join(parts)
