"""Whether a linear or generalized linear model leaves a residual: what dispersion, intervals and influence need."""

from __future__ import annotations

import numpy as np

from ..errors import FitError
from ..lmm.lm import LinearFit, is_lm
from ..results.fit import Fit
from .fit import GeneralizedFit, is_generalized

__all__ = ["reproduces_response", "require_residual"]

EXACT = 64 * np.finfo(float).eps  # relative residual that is rounding of the response


def reproduces_response(fit: Fit) -> bool:
    """Whether a model without random effects reproduces the response up to rounding: no dispersion is left."""
    if is_generalized(fit):
        return not (fit.is_mixed or fit.family.dispersion_known) and not _relative_pearson(fit) > EXACT**2
    return is_lm(fit) and not fit.deviance > EXACT**2 * _total(fit)


def require_residual(fit: Fit, without: str) -> None:
    """Raise FitError where no dispersion can be estimated; ``without`` says what there is not then."""
    if not (is_lm(fit) or (is_generalized(fit) and not fit.is_mixed and not fit.family.dispersion_known)):
        return
    if fit.df_resid <= 0:
        raise FitError(
            f"the model has as many coefficients as rows ({fit.design.p}): no dispersion can be estimated, so there "
            f"{without}. Drop terms"
        )
    if reproduces_response(fit):
        raise FitError(
            f"the model reproduces the response exactly: no dispersion can be estimated, so there {without}. Look for "
            "a response that was computed from the covariates"
        )


def _total(fit: LinearFit) -> float:
    w = 1.0 if fit.design.weights is None else fit.design.weights
    y = fit.design.y if fit.design.offset is None else fit.design.y - fit.design.offset
    return float(np.sum(w * y * y))


def _relative_pearson(fit: GeneralizedFit) -> float:
    """Pearson's X^2 as a part of that of the response itself, the same in every unit of y."""
    conditional, at = fit.solution.conditional, fit.solution.at
    with np.errstate(all="ignore"):
        whole = float(np.sum(conditional.w * fit.design.y**2 / fit.family.variance(at.mu)))
    return fit.pearson_chi2 / max(whole, 1e-300)
