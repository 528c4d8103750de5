"""Linear models: the mixed model without random effects, with the likelihood and the summary of R's lm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import log, pi
from typing import Any, ClassVar, TypeGuard

import numpy as np
import pandas as pd

from ..design.build import Design, build
from ..errors import UnsupportedError
from ..results.fit import Fit, Kind, LinearEstimates
from ..results.text import coefficient_text, format_p, notes, quantile_text
from ..results.update import changed_arguments
from ..results.verbs import PredictiveFit
from .fit import NO_WEIGHT, checked_response, fit_design

__all__ = ["LinearFit", "fit_linear", "is_lm", "lm"]


@dataclass(frozen=True, repr=False)
class LinearFit(LinearEstimates, PredictiveFit):
    """A least-squares fit. Names are those of :class:`Fit`; there are no random effects.

    ``sigma`` has the denominator n - p; ``criterion`` is -2 log-likelihood at the ML variance rss / n, as R's
    logLik of an lm. Rows of weight zero have fitted values and residuals and count for nothing else.
    """

    kind: ClassVar[Kind] = "lm"

    @property
    def nobs(self) -> int:
        """Rows with positive weight."""
        w = self.design.weights
        return self.design.n if w is None else int((w > 0).sum())

    @property
    def df_resid(self) -> int:
        """nobs - p."""
        return self.nobs - self.design.p

    @property
    def deviance(self) -> float:
        """Weighted residual sum of squares."""
        return self.profile.rss

    @property
    def sigma(self) -> float:
        """Residual standard deviation, sqrt(rss / (n - p)); NaN when no degree of freedom is left."""
        return float(np.sqrt(self.deviance / self.df_resid)) if self.df_resid > 0 else np.nan

    @property
    def criterion(self) -> float:
        """-2 log-likelihood with the variance at rss / n."""
        n, w = self.nobs, self.design.weights
        sum_log_w = 0.0 if w is None else float(np.log(w[w > 0]).sum())
        return n * (1.0 + log(2.0 * pi) + float(np.log(self.deviance / n))) - sum_log_w

    @property
    def df(self) -> int:
        """p + 1: the variance is estimated too."""
        return self.design.p + 1

    @property
    def r_squared(self) -> float:
        """Share of the (weighted) sum of squares about the mean, or about zero without an intercept."""
        w = np.ones(self.design.n) if self.design.weights is None else self.design.weights
        fitted = self.design.X @ self.beta
        centre = float(np.average(fitted, weights=w)) if self.design.formula.intercept else 0.0
        explained = float(w @ (fitted - centre) ** 2)
        return explained / (explained + self.deviance)

    @property
    def adj_r_squared(self) -> float:
        """1 - (1 - R^2) (n - intercept) / (n - p)."""
        free = self.nobs - int(self.design.formula.intercept)
        return 1.0 - (1.0 - self.r_squared) * free / self.df_resid

    @property
    def fstatistic(self) -> tuple[float, int, int]:
        """F of all coefficients but the intercept, with its degrees of freedom."""
        numerator = self.design.p - int(self.design.formula.intercept)
        if numerator <= 0:
            raise UnsupportedError("the F statistic compares with the intercept; this model has nothing else")
        r2 = self.r_squared
        return r2 / (1.0 - r2) * self.df_resid / numerator, numerator, self.df_resid

    def coefficients(self) -> pd.DataFrame:
        """Estimate, Std. Error, t value and two-sided p-value per coefficient."""
        from scipy.stats import t

        ratio = self.beta / self.se.to_numpy()
        columns = {
            "Estimate": self.beta,
            "Std. Error": self.se.to_numpy(),
            "t value": ratio,
            "Pr(>|t|)": 2.0 * t.sf(np.abs(ratio), self.df_resid),
        }
        return pd.DataFrame(columns, index=list(self.design.x_names))

    def summary(self) -> str:
        """Text in the layout of R's summary() of an lm."""
        parts = [
            f"Linear model\nFormula: {self.formula}",
            f"Residuals:\n{quantile_text(self.residual_values('pearson'))}",
        ]
        if self.design.p:
            parts.append(f"Coefficients:\n{coefficient_text(self.coefficients())}")
        parts.append(_closing(self))
        parts += notes(self)
        return "\n\n".join(parts)

    def update(self, formula: str | None = None, data: Any = None, **changes: Any) -> LinearFit:
        """The model fitted again with some arguments changed, e.g. ``fit.update("~ . + x")``.

        ``formula`` may use ``.`` for what stands on that side now; ``data=None`` takes the model frame. Other
        arguments are those of :func:`mmcore.lm`; those not given are kept.
        """
        text, rows, arguments = changed_arguments(self, formula, data, changes, {}, frozenset())
        return lm(text, rows, **arguments)

    def fit_to(self, design: Design) -> LinearFit:
        """Least squares for another design."""
        return fit_linear(design)

    def refit(self, y: Any) -> LinearFit:
        """The same model for another response, rows in the order of this fit."""
        return fit_linear(self.design.with_response(checked_response(self.design, y)))


def _closing(fit: LinearFit) -> str:
    text = f"Residual standard error: {fit.sigma:.4g} on {fit.df_resid} degrees of freedom"
    if fit.design.p > int(fit.design.formula.intercept):
        from scipy.stats import f

        value, up, down = fit.fstatistic
        p = format_p(float(f.sf(value, up, down)))
        text += (
            f"\nMultiple R-squared: {fit.r_squared:.4g}, Adjusted R-squared: {fit.adj_r_squared:.4g}"
            f"\nF-statistic: {value:.4g} on {up} and {down} DF, p-value: {p}"
        )
    return text


def is_lm(fit: Fit) -> TypeGuard[LinearFit]:
    """Whether a fit is a linear model without random effects."""
    return fit.kind == "lm"


def fit_linear(design: Design) -> LinearFit:
    """Least squares for a design without random terms."""
    base = fit_design(_weighted(design), reml=True)
    parts = {f.name: getattr(base, f.name) for f in fields(LinearEstimates)}
    return LinearFit(**{**parts, "design": design})


def _weighted(design: Design) -> Design:
    """The design with weights that are zero made too small to count."""
    w = design.weights
    return design if w is None or w.all() else replace(design, weights=np.maximum(w, NO_WEIGHT))


def lm(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
) -> LinearFit:
    """Fit a linear model by least squares: the mixed model with q = 0.

    Not for random effects (use ``lmer``) nor for other distributions (use ``glm``). Parameters as in
    ``lmer``.

    Returns
    -------
    LinearFit
        ``sigma`` with denominator n - p; ``criterion``, ``loglik``, ``aic`` and ``bic`` as R's logLik, AIC
        and BIC of an lm.

    Raises
    ------
    FormulaError, DataError, DesignError; UnsupportedError if the formula has random-effects terms.

    R equivalent: ``stats::lm``. Cost O(n p^2).
    """
    design = build(formula, data, weights=weights, offset=offset, contrasts=contrasts, na_action=na_action)
    if design.terms:
        raise UnsupportedError(f"{formula!r} has random-effects terms; use mm.lmer")
    return fit_linear(design)
