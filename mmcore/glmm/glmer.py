"""Public functions for generalised models: ``glm``, ``glmer``, and ``fit_at`` for every model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..design.build import Design, build
from ..errors import ConvergenceWarning, DataError, MixedModelWarning, SeparationWarning, UnsupportedError
from ..families.continuous import Gaussian
from ..families.family import Family
from ..families.names import family_named
from ..lmm.fit import LinearMixedFit, singular_warning
from ..lmm.lmer import fit_at as linear_at
from ..lmm.lmer import lmer
from ..optimize.control import Control, Status
from .fit import GeneralizedFit, fit_generalized, fit_generalized_at
from .response import reader, with_trials

__all__ = ["fit_at", "glm", "glmer"]

AT_THE_EDGE = 1e-8  # a fitted probability (or its complement) below this counts as zero
DIVERGED = 200.0  # standard error times size of the column, in units of the linear predictor


def _design(formula: str, data: Any, family: Family, **options: Any) -> Design:
    design = build(formula, data, allow_saturated=True, response=reader(family), **options)
    return with_trials(design, family)


def _chosen(family: str | Family | None, link: str | None, function: str) -> Family:
    """The family asked for: there is no default, because none is right for most responses."""
    if family is None:
        raise DataError(
            f'mm.{function} needs a family: family="binomial" for yes and no or proportions, "poisson" or '
            '"negative.binomial" for counts, "Gamma" or "inverse.gaussian" for positive measurements, "gaussian" for '
            "measurements of any sign"
        )
    return family_named(family, link)


def glm(
    formula: str,
    data: Any,
    *,
    family: str | Family | None = None,
    link: str | None = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
) -> GeneralizedFit:
    """Fit a generalised linear model by iteratively reweighted least squares.

    Not for random effects (use ``glmer``). A Gaussian family with identity link is ``lm`` with the numbers
    of R's glm.

    Parameters
    ----------
    formula : R's language, parsed and never evaluated. A binomial response is 0/1, TRUE/FALSE, a factor (its
        first level is failure), a proportion with ``weights`` = trials, or ``cbind(successes, failures)``.
    family : R's name (``"binomial"``, ``"poisson"``, ``"Gamma"``, ``"inverse.gaussian"``, ``"gaussian"``,
        ``"negative.binomial"``, ``"quasibinomial"``, ``"quasipoisson"``) or a Family; a negative binomial
        without theta has it estimated.
    link : name of the link; the default is R's.
    weights, offset, contrasts, na_action : as in ``lm``.

    Returns
    -------
    GeneralizedFit

    Raises
    ------
    FormulaError, DataError, DesignError, UnsupportedError, FitError. Warns ConvergenceWarning,
    SeparationWarning (estimates run off to infinity) and MixedModelWarning (counts that are not whole).

    R equivalents: ``stats::glm`` at convergence far below its default tolerance, ``MASS::glm.nb``. Cost O(n
    p^2) per iteration, 4-8 iterations.
    """
    chosen = _chosen(family, link, "glm")
    options = {"weights": weights, "offset": offset, "contrasts": contrasts, "na_action": na_action}
    design = _design(formula, data, chosen, **options)
    if design.terms:
        raise UnsupportedError(f"{formula!r} has random-effects terms; use mm.glmer")
    return _warned(fit_generalized(design, chosen))


def glmer(
    formula: str,
    data: Any,
    *,
    family: str | Family | None = None,
    link: str | None = None,
    nagq: int = 1,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    start: Sequence[float] | Mapping[str, Any] | None = None,
    control: Control | None = None,
) -> GeneralizedFit | LinearMixedFit:
    """Fit a generalised linear mixed model by maximum likelihood: g(E y) = X beta + Z b, b ~ N(0, Sigma).

    Fixed effects and covariance parameters are estimated together with the exact gradient of the approximated
    likelihood. Not for quasi families, nor for models without a random term (use ``glm``).

    Parameters
    ----------
    formula : lme4's language; responses as in ``glm``.
    family, link : as in ``glm``. ``gaussian`` with the identity link is a linear mixed model: a warning, and
        ``lmer``.
    nagq : 1 the Laplace approximation; 2 to 100 adaptive Gauss-Hermite points, for one random effect per
        level of one factor and a known dispersion; 0 the fixed effects at the joint mode (fast, biased).
    start : theta, or ``{"theta": ..., "beta": ...}``.
    control : how hard to try.

    Returns
    -------
    GeneralizedFit (a Fit)

    Raises
    ------
    FormulaError, DataError, DesignError, UnsupportedError, FitError. Warns ConvergenceWarning,
    SingularWarning, SeparationWarning, MixedModelWarning.

    R equivalents: ``lme4::glmer`` with a tolerance of 1e-10 or less in its inner iteration,
    ``lme4::glmer.nb``. The criterion is never above glmer's by more than 1e-8 relative. Standard errors come
    from an accurate Hessian, see ``vcov_hessian``.
    """
    chosen = _chosen(family, link, "glmer")
    options = {"weights": weights, "offset": offset, "contrasts": contrasts, "na_action": na_action}
    if isinstance(chosen, Gaussian) and chosen.link.name == "identity":
        message = (
            "glmer with a Gaussian family and identity link is a linear mixed model: lmer is called instead"
        )
        warnings.warn(MixedModelWarning(message), stacklevel=2)
        return lmer(formula, data, start=start, control=control, **options)  # type: ignore[arg-type]
    design = _design(formula, data, chosen, **options)
    if not design.terms:
        raise UnsupportedError(f"{formula!r} has no random-effects term such as (1 | g); use mm.glm")
    return _warned(fit_generalized(design, chosen, nagq=nagq, start=start, control=control))


def fit_at(
    formula: str,
    data: Any,
    theta: Sequence[float] | np.ndarray,
    *,
    reml: bool = True,
    family: str | Family | None = None,
    link: str | None = None,
    nagq: int = 1,
    beta: Sequence[float] | np.ndarray | None = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    sigma: float | None = None,
) -> GeneralizedFit | LinearMixedFit:
    """The model at given parameters, nothing optimized: what a comparison at fixed parameters stands on.

    Linear mixed models (``family=None``): theta in lme4's order; ``reml``, ``sigma`` as in ``lmer``.
    Generalised ones: theta and ``beta`` (in the order of the columns of X; not needed for nagq = 0); the
    conditional modes are found to the last digit. Equals the value of lme4's deviance functions there.
    """
    options = {"weights": weights, "offset": offset, "contrasts": contrasts, "na_action": na_action}
    if family is None:
        if beta is not None:
            raise UnsupportedError(
                "a linear mixed model has its fixed effects at their optimum for theta: leave beta out"
            )
        return linear_at(formula, data, theta, reml=reml, sigma=sigma, **options)
    chosen = family_named(family, link)
    design = _design(formula, data, chosen, **options)
    return fit_generalized_at(design, chosen, theta, beta, nagq=nagq)


# --- warnings ---------------------------------------------------------------------------------------------


def _warned(fit: GeneralizedFit) -> GeneralizedFit:
    """The fit, after saying what is wrong with it."""
    said = "" if fit.status is Status.AT_EDGE else _separation(fit)
    if said:
        warnings.warn(SeparationWarning(said), stacklevel=3)
    if not fit.converged:
        if not said:
            warnings.warn(ConvergenceWarning(_why_not(fit)), stacklevel=3)
    elif fit.is_mixed and fit.is_singular:
        warnings.warn(singular_warning(fit), stacklevel=3)
    elif fit.status is Status.CONVERGED_BOUNDARY and fit.solution.size_estimated:
        message = (
            f"the data are not overdispersed: theta of the negative binomial family grows without end "
            f"({fit.size:.3g} here); a Poisson model says the same"
        )
        warnings.warn(ConvergenceWarning(message), stacklevel=3)
    return fit


def _why_not(fit: GeneralizedFit) -> str:
    if fit.solution.size_estimated and fit.status is Status.MAX_ITERATIONS:
        return f"theta of the negative binomial falls to zero ({fit.size:.3g}): no model of this family fits"
    return fit.status.value


def _separation(fit: GeneralizedFit) -> str:
    """Which estimates run off to infinity, and why, if some do."""
    counts = fit.family.name in ("binomial", "quasibinomial", "poisson", "quasipoisson", "negative.binomial")
    if not fit.design.p or not (counts or fit.family.link.name == "log"):
        return ""
    at, w = fit.solution.at, fit.solution.conditional.w
    extreme = np.zeros(fit.design.n, bool)
    if counts:
        top = 1.0 - at.mu if "binomial" in fit.family.name and fit.family.name[0] != "n" else np.inf
        extreme = (np.minimum(at.mu, top) < AT_THE_EDGE) & (w > 0)
        if not extreme.any():
            return ""
    names = _without_end(fit)
    if not names:
        return ""
    if not counts:
        return (
            f"the estimates of {', '.join(names)} run off to infinity, or are known to within hundreds of units of the "
            f"linear predictor only: the smallest mean is {at.mu.min():.3g}. A mean of a {fit.family.name} response "
            f"with link {fit.family.link.name} is positive: look for groups whose mean response is not, or use another "
            "link"
        )
    what = "means of 0" if np.isinf(top).all() else "probabilities of 0 or 1"
    return (
        f"complete or quasi-complete separation: fitted {what} in {int(extreme.sum())} of {fit.nobs} rows, "
        f"and the estimates of {', '.join(names)} run off to infinity. Look at a cross-table of the response "
        "with these columns; drop them, merge levels, or use a penalized method"
    )


def _without_end(fit: GeneralizedFit) -> list[str]:
    """Coefficients about which the data say nothing at these means: standard errors beyond all bounds."""
    s = fit.solution
    if s.objective is None or s.point is None:
        information = (s.Q * s.at.W) @ s.Q.T
    else:
        information = s.objective.working_information(s.point)
    size = np.sqrt(np.square(fit.design.X).mean(axis=0))
    scaled = (s.R / size).T @ information @ (s.R / size)
    if not np.isfinite(scaled).all():
        return []
    values, vectors = np.linalg.eigh(scaled)
    variances = np.square(vectors) @ (1.0 / np.maximum(values, np.finfo(float).tiny))
    return [n for n, v in zip(fit.design.x_names, fit.dispersion * variances, strict=True) if v > DIVERGED**2]
