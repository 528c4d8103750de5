"""Public functions for generalized models: ``glm``, ``glmer``, and ``fit_at`` for every model."""

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
    """Fit a generalized linear model by iteratively reweighted least squares.

    Parameters
    ----------
    formula : str
        R's language, parsed and never evaluated, without random terms (those are for ``glmer``). A binomial response is
        0/1, True/False, a factor (its first level is failure), a proportion with ``weights`` = trials, or
        ``cbind(successes, failures)``.
    data : DataFrame
        The columns that the formula names.
    family : str or Family
        R's name (``"binomial"``, ``"poisson"``, ``"Gamma"``, ``"inverse.gaussian"``, ``"gaussian"``,
        ``"negative.binomial"``, ``"quasibinomial"``, ``"quasipoisson"``) or a Family; a negative binomial without theta
        has it estimated. There is no default.
    link : str, optional
        Name of the link; the default is R's.
    weights, offset, contrasts, na_action
        As in ``lm``.

    Returns
    -------
    GeneralizedFit

    Raises
    ------
    FormulaError, DataError, DesignError, UnsupportedError
        The formula, the data or the combination is wrong.
    FitError
        No coefficients give means inside the domain of the family.

    Warns
    -----
    SeparationWarning
        Estimates run off to infinity: standard errors mean nothing.
    ConvergenceWarning
        The score is not zero at the estimates, or the maximum is at the edge of the domain of the family: the estimates
        are the best that were found, standard errors mean nothing.
    MixedModelWarning
        Counts that are not whole: estimates are those of the score equations, there is no likelihood.

    Notes
    -----
    As R's ``glm`` at a tolerance of 1e-20 in place of 1e-8, and ``MASS::glm.nb``. Where R's iteration diverges (means
    over decades, links whose domain is bounded) steps are shortened and other starts are tried. Where the deviance can
    have several minima, all starts are run. A Gaussian family with identity link is ``lm`` with the numbers of R's glm.
    ``loglik`` and ``aic`` are R's, with the dispersion D / n, which is not the estimate of maximum likelihood for a
    Gamma family: that one is ``dispersion_ml``, with ``loglik_ml`` and ``aic_ml``. Cost O(n p^2) per iteration, 4 to 8
    iterations.

    Examples
    --------
    >>> import mmcore as mm
    >>> fit = mm.glm("Days ~ Eth + Sex", mm.load_dataset("MASS_quine"), family="poisson")
    >>> fit.fixef.round(3).to_dict()
    {'(Intercept)': 3.037, 'EthN': -0.527, 'SexM': 0.136}
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
    criterion: str = "joint",
) -> GeneralizedFit | LinearMixedFit:
    """Fit a generalized linear mixed model by maximum likelihood: g(E y) = X beta + Z b, b ~ N(0, Sigma).

    All parameters are estimated together with the exact gradient of the approximated likelihood: beta, those of Sigma,
    and the dispersion of Gamma, inverse Gaussian and gaussian responses.

    Parameters
    ----------
    formula : str
        lme4's language; responses as in ``glm``.
    data : DataFrame
        The columns that the formula names.
    family, link
        As in ``glm``. ``gaussian`` with the identity link is a linear mixed model: a warning, and ``lmer``.
    nagq : int
        1 the Laplace approximation; 2 to 100 adaptive Gauss-Hermite points, for one random effect per level of one
        factor; 0 the fixed effects at the joint mode (fast, biased).
    weights
        Prior weights; they divide the dispersion. Numbers of trials for a binomial family.
    offset, contrasts, na_action
        As in ``lm``.
    start : sequence or mapping, optional
        theta, or ``{"theta": ..., "beta": ...}``.
    control : Control, optional
        How hard to try.
    criterion : {"joint", "lme4"}
        What is minimized where the family has a dispersion. ``joint`` is -2 log-likelihood of all parameters. ``lme4``
        is what lme4 minimizes, for comparisons: see Notes.

    Returns
    -------
    GeneralizedFit

    Raises
    ------
    FormulaError, DataError, DesignError, UnsupportedError
        The formula, the data or the combination is wrong.
    FitError
        The model breaks down: no means inside the domain of the family, or no residual left for a dispersion.

    Warns
    -----
    ConvergenceWarning
        The gradient is not zero at the estimates: trust neither them nor their standard errors.
    SingularWarning
        A variance is zero, or a correlation one: the estimates hold, standard errors take theta as known.
    SeparationWarning
        Estimates run off to infinity: their standard errors mean nothing.
    MixedModelWarning
        Counts that are not whole.

    Notes
    -----
    Without a dispersion the criterion is lme4's (``lme4::glmer`` with an inner tolerance of 1e-10 or less, and
    ``lme4::glmer.nb``), and never above glmer's by more than 1e-8 relative. With a dispersion ``joint`` is
    glmmTMB's: Sigma is the covariance of b itself, and the determinant of the Laplace approximation has the observed
    weights. lme4 finds the modes with the dispersion held at one and, up to 2.0, multiplies the variances by the
    dispersion afterwards: ``criterion="lme4"`` is lme4 1.1-31, whose value is not the likelihood of any parameters and
    whose estimates move with the unit of the response. Standard errors come from an accurate Hessian, see
    ``vcov_hessian``.

    Examples
    --------
    >>> import mmcore as mm
    >>> cbpp = mm.load_dataset("cbpp")
    >>> fit = mm.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, family="binomial")
    >>> round(float(fit.theta.iloc[0]), 4), round(fit.loglik, 4)
    (0.6423, -92.0263)
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
    return _warned(
        fit_generalized(design, chosen, nagq=nagq, start=start, control=control, criterion=criterion)
    )


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
    criterion: str = "joint",
) -> GeneralizedFit | LinearMixedFit:
    """The model at given parameters, nothing optimized: what a comparison at fixed parameters stands on.

    Parameters
    ----------
    formula, data, family, link, weights, offset, contrasts, na_action
        As in ``lmer`` (``family=None``) or ``glmer``.
    theta : sequence
        Covariance parameters in lme4's order.
    reml : bool
        As in ``lmer``.
    nagq, criterion
        As in ``glmer``.
    beta : sequence
        Of a generalized model, in the order of the columns of X; not needed for nagq = 0.
    sigma : float, optional
        A known residual standard deviation, as in ``lmer``; the square root of the dispersion of a generalized model,
        by default where the likelihood of theta and beta is highest.

    Returns
    -------
    LinearMixedFit or GeneralizedFit
        Its conditional modes are found to the last digit.

    Raises
    ------
    DataError
        A parameter is missing, not a number or of the wrong length.
    UnsupportedError
        beta for a linear model, or sigma for a family without a dispersion.

    Notes
    -----
    Without a dispersion this is the value of lme4's deviance functions at the same parameters.

    Examples
    --------
    >>> import mmcore as mm
    >>> data = mm.load_dataset("sleepstudy")
    >>> at = mm.fit_at("Reaction ~ Days + (1 | Subject)", data, [1.2], reml=False)
    >>> round(at.criterion, 4)
    1794.4655
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
    return fit_generalized_at(design, chosen, theta, beta, nagq=nagq, sigma=sigma, criterion=criterion)


# --- warnings ---------------------------------------------------------------------------------------------


def _warned(fit: GeneralizedFit) -> GeneralizedFit:
    """The fit, after saying what is wrong with it."""
    said = "" if fit.status is Status.AT_EDGE else _separation(fit)
    if said:
        warnings.warn(SeparationWarning(said), stacklevel=3)
    if not fit.converged:
        if not said:
            warnings.warn(ConvergenceWarning(_why_not(fit)), stacklevel=3)
    elif fit.is_mixed and fit.is_singular and not said:
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
    s, information = fit.solution, fit.information
    size = np.sqrt(np.square(fit.design.X).mean(axis=0))
    scaled = (s.R / size).T @ information @ (s.R / size)
    if not np.isfinite(scaled).all():
        return []
    values, vectors = np.linalg.eigh(scaled)
    variances = np.square(vectors) @ (1.0 / np.maximum(values, np.finfo(float).eps * values[-1]))
    return [n for n, v in zip(fit.design.x_names, fit.dispersion * variances, strict=True) if v > DIVERGED**2]
