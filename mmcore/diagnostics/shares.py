"""Shares of variance: what the fixed part, the groups and the residual account for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import UnsupportedError
from ..fit import Fit
from ..glmfit import GeneralizedFit
from ..linear import LinearFit

__all__ = ["icc", "r2"]


def _random_variances(fit: Fit) -> dict[str, float]:
    """Per grouping factor, the mean over rows of the variance that its terms give: mean of diag(Z Sigma Z')
    sigma^2.

    For random intercepts it is the variance component; for slopes Johnson (2014).
    """
    out: dict[str, float] = {}
    for term, Lambda in zip(fit.design.terms, fit.Lambda, strict=True):
        mean = float(np.square(term.columns @ Lambda).sum(axis=1).mean())
        out[term.group] = out.get(term.group, 0.0) + fit.sigma**2 * mean
    return out


def _residual_variance(fit: Fit) -> float:
    """Mean residual variance: sigma^2 / w, averaged over rows; of a generalised model on the scale of eta."""
    if isinstance(fit, GeneralizedFit):
        return _distribution_variance(fit)
    w = fit.design.weights
    return fit.sigma**2 * (1.0 if w is None else float(np.mean(1.0 / w)))


LATENT = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}


def _distribution_variance(fit: GeneralizedFit) -> float:
    """Variance that the distribution adds on the scale of the linear predictor (Nakagawa et al. 2017).

    Binomial: of the latent variable. Poisson with log link: log(1 + 1 / m), m = exp(mean of X beta + half
    of the fixed and random variance), the mean count in the population.
    """
    family, link = fit.family.name, fit.family.link.name
    if family == "binomial" and link in LATENT:
        return LATENT[link]
    if family == "poisson" and link == "log":
        random = sum(_random_variances(fit).values())
        mean = np.exp(np.mean(fit.design.X @ fit.beta) + 0.5 * (random + _fixed_variance(fit)))
        return float(np.log1p(1.0 / mean))
    raise UnsupportedError(f"the residual variance of family {family} with link {link} is not defined here")


def _fixed_variance(fit: Fit) -> float:
    return float(np.var(fit.design.X @ fit.beta, ddof=1))


def icc(fit: Fit) -> pd.DataFrame:
    """Intraclass correlations: the share of variance between the levels of each grouping factor, and of all.

    Columns: ``variance`` (mean over rows of diag Z Sigma Z' sigma^2; the variance component for a random
    intercept), ``adjusted`` = variance / (all random + residual), ``unadjusted`` = variance / (fixed + all
    random + residual), fixed being the variance of X beta over the rows. The row ``all`` adds the factors.
    With random slopes the correlation depends on the covariate; this is its mean in the sense of Johnson
    (2014).
    """
    if not fit.design.terms:
        raise UnsupportedError("an intraclass correlation needs a grouping factor; the model has none")
    random = _random_variances(fit)
    random["all"] = sum(random.values())
    values = np.array(list(random.values()))
    total = random["all"] + _residual_variance(fit)
    columns = {
        "variance": values,
        "adjusted": values / total,
        "unadjusted": values / (total + _fixed_variance(fit)),
    }
    return pd.DataFrame(columns, index=pd.Index(list(random), name="group"))


def r2(fit: Fit) -> pd.Series:
    """Coefficients of determination of Nakagawa & Schielzeth (2013), slopes as in Johnson (2014).

    ``marginal`` = fixed / total, ``conditional`` = (fixed + random) / total, where fixed is the variance of
    X beta over the rows (denominator n - 1), random the mean of diag Z Sigma Z' sigma^2 and total adds the
    residual variance. For ``lm``: ``r2`` and ``adjusted``, as R's summary.
    """
    fit.require_rows("r2")
    if isinstance(fit, LinearFit):
        return pd.Series({"r2": fit.r_squared, "adjusted": fit.adj_r_squared}, name="r2")
    if not fit.design.terms:
        raise UnsupportedError("r2 is for lm and models with random effects; see the deviance of a glm")
    fixed, random = _fixed_variance(fit), sum(_random_variances(fit).values())
    total = fixed + random + _residual_variance(fit)
    return pd.Series({"marginal": fixed / total, "conditional": (fixed + random) / total}, name="r2")
