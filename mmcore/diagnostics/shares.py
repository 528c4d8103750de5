"""Shares of variance: what the fixed part, the groups and the residual account for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.special import polygamma

from ..errors import UnsupportedError
from ..glmm.fit import GeneralizedFit, is_generalized
from ..lmm.lm import is_lm
from ..results.argument import of_fit
from ..results.fit import Fit

__all__ = ["design_effect", "icc", "r2"]


def _random_variances(fit: Fit) -> dict[str, float]:
    """Per grouping factor, the mean over rows of the variance that its terms give: mean of diag(Z Sigma Z')
    sigma^2.

    For random intercepts it is the variance component; for slopes Johnson (2014).
    """
    out: dict[str, float] = {}
    for term, Lambda in zip(fit.design.terms, fit.Lambda, strict=True):
        mean = float(np.square(term.columns @ Lambda).sum(axis=1).mean())
        out[term.group] = out.get(term.group, 0.0) + fit.random_scale**2 * mean
    return out


def _residual_variance(fit: Fit, distribution: str, mean: str) -> float:
    """Mean residual variance: sigma^2 / w, averaged over rows; of a generalised model on the scale of eta."""
    if is_generalized(fit):
        return _distribution_variance(fit, distribution, mean)
    w = fit.design.weights
    return fit.sigma**2 * (1.0 if w is None else float(np.mean(1.0 / w)))


LATENT = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}


MEANS = ("null", "model")


FORMS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "lognormal": lambda v: float(np.log1p(v)),
        "delta": lambda v: v,
        "trigamma": lambda v: float(polygamma(1, 1.0 / v)),
        "unit": lambda v: 1.0,
    }
)


def _distribution_variance(fit: GeneralizedFit, distribution: str, mean: str) -> float:
    """Variance that the distribution adds on the scale of the linear predictor (Nakagawa et al. 2017).

    Binomial: of the latent variable. Log links: the form asked for of v = Var(y) / mean^2, see :func:`icc`.
    """
    if distribution not in FORMS:
        known = ", ".join(map(repr, FORMS))
        raise UnsupportedError(f"distribution={distribution!r} is not one of {known}")
    if mean not in MEANS:
        raise UnsupportedError(f"mean={mean!r} is not one of {', '.join(map(repr, MEANS))}")
    family, link = fit.family.name, fit.family.link.name
    if family == "binomial" and link in LATENT:
        return LATENT[link]
    if link == "log" and family in ("poisson", "negative.binomial", "Gamma"):
        return FORMS[distribution](_squared_variation(fit, mean))
    raise UnsupportedError(f"the residual variance of family {family} with link {link} is not defined here")


def _squared_variation(fit: GeneralizedFit, mean: str) -> float:
    """Var(y) / m^2 at the overall mean m; see :func:`icc`."""
    if fit.family.name == "Gamma":
        return fit.dispersion
    model = _null_model(fit) if mean == "null" else fit
    variance = sum(_random_variances(model).values())
    if mean == "model":
        variance += _fixed_variance(fit)
    extra = 1.0 / fit.size if fit.family.name == "negative.binomial" else 0.0
    return float(np.exp(-_linear_predictor(model).mean() - 0.5 * variance) + extra)


def _null_model(fit: GeneralizedFit) -> GeneralizedFit:
    """The model with an intercept in place of its fixed part; offset, weights and random terms stay."""
    if fit.design.x_names == ("(Intercept)",):
        return fit
    only = replace(fit.design, X=np.ones((fit.design.n, 1)), x_names=("(Intercept)",))
    return fit.fit_to(only)


def _linear_predictor(fit: Fit) -> np.ndarray:
    """(n,) X beta + offset."""
    eta = fit.design.X @ fit.beta
    return eta if fit.design.offset is None else eta + fit.design.offset


def _fixed_variance(fit: Fit) -> float:
    return float(np.var(fit.design.X @ fit.beta, ddof=1))


@of_fit
def icc(fit: Fit, *, distribution: str = "lognormal", mean: str = "null") -> pd.DataFrame:
    """Intraclass correlations: the share of variance between the levels of each grouping factor, and of all.

    Columns: ``variance`` (mean over rows of diag Z Sigma Z' sigma^2; the variance component for a random
    intercept), ``adjusted`` = variance / (all random + residual), ``unadjusted`` = variance / (fixed + all
    random + residual), fixed being the variance of X beta over the rows. The row ``all`` adds the factors.
    With random slopes the correlation depends on the covariate; this is its mean in the sense of Johnson
    (2014).

    Generalized models are taken on the scale of the linear predictor. The residual is that of the latent
    variable for binomial families (logit pi^2 / 3, probit 1, cloglog pi^2 / 6). For Poisson, negative
    binomial and Gamma families with log link it follows from v = Var(y) / m^2 (1 / m, 1 / m + 1 / theta,
    the dispersion): ``distribution="lognormal"`` log(1 + v), ``"delta"`` v, ``"trigamma"`` trigamma(1 / v),
    ``"unit"`` 1.

    The overall mean m of counts is exp(b0 + tau0^2 / 2) of the *null model*, which has an intercept in place of the
    fixed part (``mean="null"``, the default: Nakagawa, Johnson & Schielzeth 2017; MuMIn and insight in R). It is
    fitted here. ``mean="model"`` takes exp(mean of eta + (fixed variance + tau^2) / 2) of the model itself, without
    another fit. An offset counts in b0 and eta by its mean.

    References
    ----------
    Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14: 20170213. Johnson (2014), Methods Ecol. Evol. 5:
    944-946.
    """
    fit.require_rows("icc")
    if not fit.design.terms:
        raise UnsupportedError("an intraclass correlation needs a grouping factor; the model has none")
    random = _random_variances(fit)
    random["all"] = sum(random.values())
    values = np.array(list(random.values()))
    total = random["all"] + _residual_variance(fit, distribution, mean)
    columns = {
        "variance": values,
        "adjusted": values / total,
        "unadjusted": values / (total + _fixed_variance(fit)),
    }
    return pd.DataFrame(columns, index=pd.Index(list(random), name="group"))


@of_fit
def design_effect(fit: Fit, *, distribution: str = "lognormal", mean: str = "null") -> pd.DataFrame:
    """How much clustering inflates variances, roughly: 1 + (mean group size - 1) * adjusted icc, per factor.

    Columns: ``size`` (mean rows per level), ``icc``, ``deff``, and ``inflation`` = sqrt(deff), the factor on
    the standard error of a mean that ignores the groups. ``distribution`` and ``mean`` as for :func:`icc`.
    """
    shares = icc(fit, distribution=distribution, mean=mean).drop(index="all")
    size = np.array([fit.design.n / fit.ngroups[str(group)] for group in shares.index])
    correlation = shares["adjusted"].to_numpy()
    deff = 1.0 + (size - 1.0) * correlation
    columns = {"size": size, "icc": correlation, "deff": deff, "inflation": np.sqrt(deff)}
    return pd.DataFrame(columns, index=shares.index)


@of_fit
def r2(fit: Fit, *, distribution: str = "lognormal", mean: str = "null") -> pd.Series:
    """Coefficients of determination of Nakagawa & Schielzeth (2013), slopes as in Johnson (2014).

    ``marginal`` = fixed / total, ``conditional`` = (fixed + random) / total, where fixed is the variance of
    X beta over the rows (denominator n - 1), random the mean of diag Z Sigma Z' sigma^2 and total adds the
    residual variance. ``distribution`` and ``mean`` as for :func:`icc`. For ``lm``: ``r2`` and ``adjusted``, as R's
    summary.
    """
    fit.require_rows("r2")
    if is_lm(fit):
        return pd.Series({"r2": fit.r_squared, "adjusted": fit.adj_r_squared}, name="r2")
    if not fit.design.terms:
        raise UnsupportedError("r2 is for lm and models with random effects; see the deviance of a glm")
    fixed, random = _fixed_variance(fit), sum(_random_variances(fit).values())
    total = fixed + random + _residual_variance(fit, distribution, mean)
    return pd.Series({"marginal": fixed / total, "conditional": (fixed + random) / total}, name="r2")
