"""Profiles of the likelihood as tables: one parameter held at a value after another, all others re-optimized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2, t

from ...errors import DataError
from ...lmm.lm import is_lm
from ...results.fit import Fit
from .level import tails
from .optimum import Optimum, optimum_of
from .parameters import Parameter, chosen, require_fit

__all__ = ["LikelihoodProfile", "profile", "profile_limits", "quantiles"]

LARGEST = float(np.sqrt(chi2.ppf(0.99, 2)))  # 3.03: enough for a 99 % region of two parameters


@dataclass(frozen=True)
class LikelihoodProfile:
    """Points of the profile of every parameter asked for."""

    frame: pd.DataFrame  # .zeta, a column per parameter of the model, .par
    estimate: pd.Series  # of every parameter, where the likelihood is largest

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that were profiled."""
        return list(dict.fromkeys(self.frame[".par"]))

    def __getitem__(self, name: str) -> pd.DataFrame:
        """The points of one parameter, in the order of its value."""
        if name not in self.parameters:
            raise DataError(f"{name!r} was not profiled; there are {', '.join(self.parameters)}")
        return self.frame[self.frame[".par"] == name].reset_index(drop=True)


def profile(
    fit: Fit, parm: str | Sequence[str] | None = None, *, zeta_max: float = LARGEST, steps: int = 8
) -> LikelihoodProfile:
    """Profile the likelihood over each parameter.

    Parameters
    ----------
    fit : Fit
        Of ``lm``, ``glm``, ``lmer`` or ``glmer`` (nagq >= 1, known dispersion).
    parm : str, sequence of str or None
        Parameters by name; ``"theta_"`` are those of the random effects and sigma, ``"beta_"`` the coefficients.
    zeta_max : float
        The profile runs from -zeta_max to zeta_max, or to the end of the parameter's domain.
    steps : int
        Points on each side of the estimate, at equal steps of zeta.

    Returns
    -------
    LikelihoodProfile
        ``frame`` has lme4's columns: ``.zeta``, the values of all parameters, ``.par``.

    Raises
    ------
    FitError
        Where the model leaves no residual, or its maximum was not found.
    DataError
        For an unknown name, a ``zeta_max`` that is not positive, fewer than one step.
    UnsupportedError
        For ``varident``, a mixed model with a dispersion, nagq = 0.

    Notes
    -----
    zeta is the signed root of the rise of -2 log-likelihood above its minimum when the parameter is held and all others
    are re-optimized. Mixed models are profiled by maximum likelihood, those fitted by REML too, as in lme4; standard
    deviations and correlations are lme4's parameters. In a glm the rise is that of the deviance over the dispersion
    (MASS's profile.glm), in an lm zeta is the t statistic. The size of a negative binomial is held at its estimate. Not
    a slice: :func:`mmcore.fit_at` evaluates the likelihood with nothing re-optimized.

    R equivalent: ``profile(fm, signames = FALSE)``.

    References
    ----------
    Bates, Maechler, Bolker and Walker (2015), section 5.1. Venzon and Moolgavkar (1988), Applied Statistics 37, 87.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.intervals.profile import profile
    >>> fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"))
    >>> table = profile(fit, "sigma", zeta_max=2.0, steps=1).frame
    >>> table[[".zeta", "sigma"]].round(3).to_numpy().tolist()
    [[-2.0, 38.046], [0.0, 49.51], [2.0, 68.137]]
    """
    require_fit(fit, "profile")
    if not zeta_max > 0 or steps < 1:
        raise DataError(
            f"a profile needs zeta_max > 0 and steps >= 1, got zeta_max={zeta_max!r}, steps={steps!r}"
        )
    best = optimum_of(fit)
    wanted = chosen(best.every, parm)
    names = [p.name for p in best.every]
    parts = [_points(best, which, np.linspace(0.0, zeta_max, steps + 1)[1:]) for which in wanted]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[".zeta", *names, ".par"])
    return LikelihoodProfile(frame, pd.Series(best.estimate, index=names, name="estimate"))


def _points(best: Optimum, which: Parameter, zetas: np.ndarray) -> pd.DataFrame:
    """The profile of one parameter."""
    curve, rows = best.curve(which), []
    for side in (-1.0, 1.0):
        for zeta in zetas:
            node = curve.limit(float(side * zeta))
            if np.isfinite(node.v):
                rows.append([node.zeta, *curve.held.estimates(node.v, node.psi, best.every)])
            if not np.isfinite(node.v) or node.v in curve.held.domain:
                break
    rows.append([0.0, *best.estimate])
    column = 1 + best.every.index(which)
    rows = [row for row in rows if not np.isnan(row[column])]
    rows.sort(key=lambda row: row[column])
    frame = pd.DataFrame(rows, columns=[".zeta", *(p.name for p in best.every)])
    return frame.assign(**{".par": which.name}).drop_duplicates(which.name, ignore_index=True)


def profile_limits(fit: Fit, parm: str | Sequence[str] | None, level: float) -> pd.DataFrame:
    """(parameters, 2) the values at which each profile meets the quantile, columns ``low`` and ``high``.

    A limit beyond the domain is its end: 0 for a standard deviation, -1 or 1 for a correlation.
    """
    zetas, best = quantiles(fit, level), optimum_of(fit)
    rows = {}
    for which in chosen(best.every, parm):
        curve = best.curve(which)
        rows[which.name] = [curve.limit(z).v for z in zetas]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"])


def quantiles(fit: Fit, level: float) -> tuple[float, float]:
    """Of zeta: t with the residual degrees of freedom in a linear model, else normal."""
    lower, upper = tails(level)
    df = fit.df_resid if is_lm(fit) else np.inf
    return float(t.ppf(lower, df)), float(t.ppf(upper, df))
