"""Text of generalised fits in the layout of R's summary() for glm and glmer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..results.text import (
    coefficient_text,
    correlation_table,
    format_columns,
    notes,
    quantile_text,
    random_table,
)

if TYPE_CHECKING:
    from .fit import GeneralizedFit

__all__ = ["glm_summary"]

_METHODS = {
    0: "Laplace approximation, fixed effects at the joint mode (nagq = 0)",
    1: "Laplace approximation",
}


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
        *notes(fit),
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
    parts += notes(fit)
    parts.append(
        f"optimizer: {fit.optinfo.method}, {fit.optinfo.evaluations} evaluations; {fit.status.value}"
    )
    return "\n\n".join(parts)
