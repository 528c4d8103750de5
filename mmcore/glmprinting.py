"""Text of generalised fits in the layout of R's summary() for glm and glmer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .printing import correlation_table, format_columns, random_table, significant

if TYPE_CHECKING:
    from .glmfit import GeneralizedFit

__all__ = ["coefficient_text", "format_p", "glm_summary", "quantile_text"]

_METHODS = {
    0: "Laplace approximation, fixed effects at the joint mode (nagq = 0)",
    1: "Laplace approximation",
}


def format_p(p: float) -> str:
    """A p-value as R prints it: three digits, `<2e-16` at the limit."""
    if not np.isfinite(p):
        return "NaN"
    return "<2e-16" if p < 2e-16 else f"{p:.3g}"


def coefficient_text(table: pd.DataFrame) -> str:
    """A table of estimates, standard errors, test statistics and p-values."""
    columns = [
        list(table.index),
        significant(table.iloc[:, 0]),
        significant(table.iloc[:, 1]),
        [f"{x:.3f}" for x in table.iloc[:, 2]],
        [format_p(x) for x in table.iloc[:, 3]],
    ]
    return format_columns(["", *table.columns], columns)


def quantile_text(values: np.ndarray) -> str:
    """Minimum, quartiles and maximum of residuals."""
    found = np.quantile(values[np.isfinite(values)], [0, 0.25, 0.5, 0.75, 1])
    return format_columns(["Min", "1Q", "Median", "3Q", "Max"], [[x] for x in significant(found)], left=0)


def glm_summary(fit: GeneralizedFit) -> str:
    """Summary of a generalised linear model, with or without random effects."""
    return _mixed(fit) if fit.is_mixed else _fixed(fit)


def _fixed(fit: GeneralizedFit) -> str:
    estimated = not fit.family.dispersion_known
    note = f"({'estimated: ' if estimated else ''}dispersion parameter {fit.dispersion:.6g})"
    deviances = (
        f"    Null deviance: {fit.null_deviance:.4f}  on {fit.nobs - int(fit.design.formula.intercept)} "
        f"degrees of freedom\nResidual deviance: {fit.deviance:.4f}  on {fit.df_resid} degrees of freedom"
    )
    aic = f"AIC: undefined, {fit.likelihood_note}" if fit.likelihood_note else f"AIC: {fit.aic:.2f}"
    parts = [
        f"Generalized linear model, family {fit.family.label()}\nFormula: {fit.formula}",
        f"Deviance residuals:\n{quantile_text(fit.residual_values('deviance'))}",
    ]
    if fit.design.p:
        parts.append(f"Coefficients:\n{coefficient_text(fit.coefficients())}")
    parts += [
        note,
        f"{deviances}\n{aic}",
        f"{fit.optinfo.iterations} Fisher scoring iterations; {fit.status.value}",
    ]
    return "\n\n".join(parts)


def _mixed(fit: GeneralizedFit) -> str:
    nagq = fit.solution.nagq
    method = _METHODS.get(nagq, f"adaptive Gauss-Hermite quadrature, {nagq} points")
    groups = "; ".join(f"{g}, {n}" for g, n in fit.ngroups.items())
    values = [fit.aic, fit.bic, fit.loglik, fit.criterion]
    criteria = format_columns(
        ["AIC", "BIC", "logLik", "-2*logLik", "df.resid"],
        [*([f"{v:.1f}"] for v in values), [str(fit.nobs - fit.df)]],
        left=0,
    )
    parts = [
        f"Generalized linear mixed model fit by maximum likelihood ({method})\n"
        f"Family: {fit.family.label()}\nFormula: {fit.formula}",
        criteria,
        f"Scaled residuals:\n{quantile_text(fit.residual_values('pearson', scaled=True))}",
        f"Random effects:\n{random_table(fit)}\nNumber of obs: {fit.nobs}, groups:  {groups}",
    ]
    if fit.design.p:
        parts.append(f"Fixed effects (covariance: {fit.vcov_type}):\n{coefficient_text(fit.coefficients())}")
    if fit.design.p > 1:
        parts.append(f"Correlation of Fixed Effects:\n{correlation_table(fit)}")
    parts.append(
        f"optimizer: {fit.optinfo.method}, {fit.optinfo.evaluations} evaluations; {fit.status.value}"
    )
    return "\n\n".join(parts)
