"""Shares of variance: what the fixed part, the groups and the residual account for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.special import polygamma

from ..errors import UnsupportedError
from ..glmm.fit import GeneralizedFit, is_generalized
from ..lmm.lm import is_lm
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


def _residual_variance(fit: Fit, distribution: str = "lognormal") -> float:
    """Mean residual variance: sigma^2 / w, averaged over rows; of a generalised model on the scale of eta."""
    if is_generalized(fit):
        return _distribution_variance(fit, distribution)
    w = fit.design.weights
    return fit.sigma**2 * (1.0 if w is None else float(np.mean(1.0 / w)))


LATENT = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}


FORMS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "lognormal": lambda v: float(np.log1p(v)),
        "delta": lambda v: v,
        "trigamma": lambda v: float(polygamma(1, 1.0 / v)),
        "unit": lambda v: 1.0,
    }
)


def _distribution_variance(fit: GeneralizedFit, distribution: str) -> float:
    """Variance that the distribution adds on the scale of the linear predictor (Nakagawa et al. 2017).

    Binomial: of the latent variable. Log links: the form asked for of v = Var(y) / mean^2, see :func:`icc`.
    """
    if distribution not in FORMS:
        known = ", ".join(map(repr, FORMS))
        raise UnsupportedError(f"distribution={distribution!r} is not one of {known}")
    family, link = fit.family.name, fit.family.link.name
    if family == "binomial" and link in LATENT:
        return LATENT[link]
    if link == "log" and family in ("poisson", "negative.binomial", "Gamma"):
        return FORMS[distribution](_squared_variation(fit))
    raise UnsupportedError(f"the residual variance of family {family} with link {link} is not defined here")


def _squared_variation(fit: GeneralizedFit) -> float:
    """Var(y) / mean^2 at m = exp(mean of X beta + half of the fixed and random variance)."""
    if fit.family.name == "Gamma":
        return fit.dispersion
    random = sum(_random_variances(fit).values())
    mean = np.exp(np.mean(fit.design.X @ fit.beta) + 0.5 * (random + _fixed_variance(fit)))
    extra = 1.0 / fit.size if fit.family.name == "negative.binomial" else 0.0
    return float(1.0 / mean + extra)


def _fixed_variance(fit: Fit) -> float:
    return float(np.var(fit.design.X @ fit.beta, ddof=1))


def icc(fit: Fit, *, distribution: str = "lognormal") -> pd.DataFrame:
    """Intraclass correlations: the share of variance between the levels of each grouping factor, and of all.

    Columns: ``variance`` (mean over rows of diag Z Sigma Z' sigma^2; the variance component for a random
    intercept), ``adjusted`` = variance / (all random + residual), ``unadjusted`` = variance / (fixed + all
    random + residual), fixed being the variance of X beta over the rows. The row ``all`` adds the factors.
    With random slopes the correlation depends on the covariate; this is its mean in the sense of Johnson
    (2014).

    Generalised models are taken on the scale of the linear predictor. The residual is that of the latent
    variable for binomial families (logit pi^2 / 3, probit 1, cloglog pi^2 / 6). For Poisson, negative
    binomial and Gamma families with log link it follows from v = Var(y) / mean^2 (1 / m, 1 / m + 1 / theta,
    the dispersion): ``distribution="lognormal"`` log(1 + v), ``"delta"`` v, ``"trigamma"`` trigamma(1 / v),
    ``"unit"`` 1.
    """
    if not fit.design.terms:
        raise UnsupportedError("an intraclass correlation needs a grouping factor; the model has none")
    random = _random_variances(fit)
    random["all"] = sum(random.values())
    values = np.array(list(random.values()))
    total = random["all"] + _residual_variance(fit, distribution)
    columns = {
        "variance": values,
        "adjusted": values / total,
        "unadjusted": values / (total + _fixed_variance(fit)),
    }
    return pd.DataFrame(columns, index=pd.Index(list(random), name="group"))


def design_effect(fit: Fit, *, distribution: str = "lognormal") -> pd.DataFrame:
    """How much clustering inflates variances, roughly: 1 + (mean group size - 1) * adjusted icc, per factor.

    Columns: ``size`` (mean rows per level), ``icc``, ``deff``, and ``inflation`` = sqrt(deff), the factor on
    the standard error of a mean that ignores the groups. ``distribution`` as for :func:`icc`.
    """
    shares = icc(fit, distribution=distribution).drop(index="all")
    size = np.array([fit.design.n / fit.ngroups[str(group)] for group in shares.index])
    correlation = shares["adjusted"].to_numpy()
    deff = 1.0 + (size - 1.0) * correlation
    columns = {"size": size, "icc": correlation, "deff": deff, "inflation": np.sqrt(deff)}
    return pd.DataFrame(columns, index=shares.index)


def r2(fit: Fit) -> pd.Series:
    """Coefficients of determination of Nakagawa & Schielzeth (2013), slopes as in Johnson (2014).

    ``marginal`` = fixed / total, ``conditional`` = (fixed + random) / total, where fixed is the variance of
    X beta over the rows (denominator n - 1), random the mean of diag Z Sigma Z' sigma^2 and total adds the
    residual variance. For ``lm``: ``r2`` and ``adjusted``, as R's summary.
    """
    fit.require_rows("r2")
    if is_lm(fit):
        return pd.Series({"r2": fit.r_squared, "adjusted": fit.adj_r_squared}, name="r2")
    if not fit.design.terms:
        raise UnsupportedError("r2 is for lm and models with random effects; see the deviance of a glm")
    fixed, random = _fixed_variance(fit), sum(_random_variances(fit).values())
    total = fixed + random + _residual_variance(fit)
    return pd.Series({"marginal": fixed / total, "conditional": (fixed + random) / total}, name="r2")
