"""Confidence intervals of any fit: one verb, three methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from ...errors import UnsupportedError
from ...glmm.residual import require_residual
from ...lmm.lm import is_lm
from ...results.fit import Fit
from ..bootstrap.bootstrap import bootstrap
from .level import tails
from .parameters import chosen, parameters, require_fit
from .profile import profile_limits

__all__ = ["confint"]

METHODS = ("wald", "profile", "boot")
OF_BOOT = ("nsim", "rng", "type", "interval", "cluster", "progress", "executor")


def confint(
    fit: Fit, parm: str | Sequence[str] | None = None, level: float = 0.95, method: str = "wald", **boot: Any
) -> pd.DataFrame:
    """Confidence intervals of the parameters.

    Parameters
    ----------
    fit : Fit
        Of ``lm``, ``glm``, ``lmer`` or ``glmer``.
    parm : str, sequence of str or None
        Parameters by name: coefficients, ``sigma``, and lme4's ``sd_(Intercept)|Subject``,
        ``cor_Days.(Intercept)|Subject``. ``"theta_"`` are all those of the random effects and sigma, ``"beta_"`` the
        coefficients, None all.
    level : float
        Between 0 and 1.
    method : {"wald", "profile", "boot"}
        Estimate plus or minus a quantile times the standard error; the values at which the likelihood, all else
        re-optimized, falls by the quantile's square; or quantiles of a bootstrap.
    **boot
        Of ``method="boot"``: ``nsim`` (500), ``rng``, ``type``, ``cluster``, ``progress``, ``executor`` of
        :func:`mmcore.bootstrap`, and ``interval`` (``"percentile"``, ``"basic"``, ``"bca"``).

    Returns
    -------
    DataFrame
        Rows by parameter, in lme4's order; columns ``low`` and ``high``.

    Raises
    ------
    DataError
        For a level outside (0, 1) or an unknown name.
    FitError
        Where the model leaves no residual (saturated, exact), or a profile cannot be followed.
    UnsupportedError
        For an unknown method, and models whose likelihood is not profiled.

    Notes
    -----
    Quantiles are normal, in a linear model those of t. Wald intervals of variance parameters do not exist (NaN, as in
    lme4): :func:`mmcore.varcomp_se` has some on the log scale. Profile limits are roots of the profile and not
    interpolated: lme4's, which are, differ by up to about 1e-3 of themselves. Where the likelihood does not fall so
    far, the limit is the end of the domain: 0 for a standard deviation, -1 or 1 for a correlation, infinity for a
    coefficient of separated data. In an lm the profile is the t interval; R's confint for a gaussian glm has normal
    quantiles, as here.

    R equivalent: ``confint(fm, oldNames = FALSE, method = )``.

    References
    ----------
    Bates, Maechler, Bolker and Walker (2015), section 5.1.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.intervals.confint import confint
    >>> fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    >>> confint(fit, ["sigma", "Days"], method="profile").round(3)
              low    high
    sigma  27.814  34.591
    Days    8.887  12.048
    """
    require_fit(fit, "confint")
    tails(level)
    if method not in METHODS:
        raise UnsupportedError(f"method={method!r} is not one of {', '.join(map(repr, METHODS))}")
    unknown = [name for name in boot if method != "boot" or name not in OF_BOOT]
    if unknown:
        raise UnsupportedError(f"confint(method={method!r}) has no argument {unknown[0]!r}")
    if method == "wald":
        return _wald(fit, parm, level)
    if method == "profile":
        return profile_limits(fit, parm, level)
    return _boot(fit, parm, level, dict(boot))


def _wald(fit: Fit, parm: str | Sequence[str] | None, level: float) -> pd.DataFrame:
    require_residual(fit, "is no interval")
    every = [p for p in parameters(fit) if fit.design.terms or p.kind == "beta"]
    wanted, se = chosen(every, parm), fit.se.to_numpy()
    probabilities = np.array(tails(level))
    z = t.ppf(probabilities, fit.df_resid) if is_lm(fit) else norm.ppf(probabilities)
    rows = {p.name: fit.beta[p.i] + se[p.i] * z if p.kind == "beta" else [np.nan, np.nan] for p in wanted}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"], dtype=float)


def _boot(fit: Fit, parm: str | Sequence[str] | None, level: float, options: dict[str, Any]) -> pd.DataFrame:
    wanted = [p.name for p in chosen(parameters(fit), parm)]
    interval, nsim, rng = (
        options.pop("interval", "percentile"),
        options.pop("nsim", 500),
        options.pop("rng", None),
    )
    return bootstrap(fit, nsim, rng, **options).confint(level, interval).loc[wanted]
