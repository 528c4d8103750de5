"""Text of linear mixed models in the layout of lme4's summary()."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..results.coefficients import Ddf, coefficients
from ..results.fit import Fit
from ..results.text import correlation_table, format_columns, format_p, notes, random_table, significant

__all__ = ["summary_text"]


METHODS = {"satterthwaite": "Satterthwaite's method", "kenward-roger": "the method of Kenward and Roger"}


def _fixed_table(fit: Fit, ddf: Ddf) -> str:
    """Fixed effects with t tests; without degrees of freedom where the method is not defined for the model."""
    note = ""
    try:
        table = coefficients(fit, ddf)
    except UnsupportedError as error:
        table, note = coefficients(fit, None), f"\nno degrees of freedom: {error}"
    title = f" (t tests by {METHODS[ddf]})" if ddf in METHODS and not note else ""
    header, columns = ["", "Estimate", "Std. Error"], [list(table.index)]
    columns += [significant(table["estimate"]), significant(table["std.error"])]
    if "df" in table:
        header.append("df")
        columns.append([f"{x:.4g}" for x in table["df"]])
    header.append("t value")
    columns.append([f"{x:.3f}" for x in table["statistic"]])
    if "df" in table:
        header.append("Pr(>|t|)")
        columns.append([format_p(x) for x in table["p.value"]])
    return f"Fixed effects{title}:\n{format_columns(header, columns)}{note}"


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


def summary_text(fit: Fit, ddf: Ddf) -> str:
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
        parts.append(_fixed_table(fit, ddf))
    if fit.design.p > 1:
        parts.append(f"Correlation of Fixed Effects:\n{correlation_table(fit)}")
    parts += notes(fit)
    parts.append(
        f"optimizer: {fit.optinfo.method}, {fit.optinfo.evaluations} evaluations; {fit.status.value}"
    )
    return "\n\n".join(parts)
