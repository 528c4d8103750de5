"""Tests and intervals of generalised linear models: analysis of deviance, Wald and profile-likelihood
intervals.

Everything stands on refits by iteratively reweighted least squares of models with fewer columns, or with one
coefficient held.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import chi2, f, norm

from ..errors import DataError, FitError, UnsupportedError
from ..formula.syntax import deparse
from ..glmm.fit import GeneralizedFit
from ..glmm.irls import Irls, irls
from ..kernels.basis import orthonormal_basis

__all__ = ["anova_glm", "confint_glm", "profile_glm"]

FAR = 60.0  # standard errors from the estimate at which a profile is called flat


# --- analysis of deviance ---------------------------------------------------------------------------------


def anova_glm(fit: GeneralizedFit, *others: GeneralizedFit, test: str | None = "Chisq") -> pd.DataFrame:
    """Analysis of deviance: of the terms of one model in their order, or of several models as given.

    Columns: Df, Deviance (drop), Resid. Df, Resid. Dev, then ``Pr(>Chi)`` (``test="Chisq"``, also
    ``"LRT"``), or ``F`` and ``Pr(>F)`` (``"F"``). The scale is the dispersion of the largest model, one
    where it is known; F has infinite denominator degrees of freedom then, as in R, where a chi-squared test
    is better.

    R's anova.glm. Raises DataError for models of different responses, UnsupportedError for mixed models.
    """
    if test not in ("Chisq", "LRT", "F", None):
        raise UnsupportedError(f"test={test!r} is not one of 'Chisq', 'LRT', 'F', None")
    fits = (fit, *others)
    for each in fits:
        if each.is_mixed:
            raise UnsupportedError("anova_glm compares models without random effects")
    labels, deviances, free = _sequence(fit) if not others else _models(fits)
    table = pd.DataFrame(
        {
            "Df": -np.diff(free, prepend=np.nan),
            "Deviance": -np.diff(deviances, prepend=np.nan),
            "Resid. Df": free,
            "Resid. Dev": deviances,
        },
        index=labels,
    )
    largest = min(fits, key=lambda each: each.df_resid)
    return _with_test(table, largest, test)


def _with_test(table: pd.DataFrame, largest: GeneralizedFit, test: str | None) -> pd.DataFrame:
    if test is None:
        return table
    scale, df = largest.dispersion, table["Df"].to_numpy()
    sign = np.where(df < 0, -1.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        drop = sign * table["Deviance"].to_numpy() / scale
        df = np.where(df == 0, np.nan, np.abs(df))
        if test == "F":
            F = drop / df
            denominator = np.inf if largest.family.dispersion_known else largest.df_resid
            p = chi2.sf(F * df, df) if np.isinf(denominator) else f.sf(F, df, denominator)
            return table.assign(**{"F": F, "Pr(>F)": p})
        return table.assign(**{"Pr(>Chi)": chi2.sf(drop, df)})


def _sequence(fit: GeneralizedFit) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Terms added one after the other."""
    assign, formula = np.array(fit.design.assign, int), fit.design.formula
    names = [":".join(deparse(v) for v in term) for term in formula.terms]
    labels, deviances, free = ["NULL"], [fit.null_deviance], [fit.nobs - int(formula.intercept)]
    for k, name in enumerate(names, 1):
        found = _submodel(fit, np.flatnonzero(assign <= k))
        labels.append(name)
        deviances.append(_deviance(fit, found))
        free.append(fit.nobs - int((assign <= k).sum()))
    return labels, np.array(deviances), np.array(free, float)


def _submodel(fit: GeneralizedFit, columns: np.ndarray) -> Irls:
    offset = 0.0 if fit.design.offset is None else fit.design.offset
    if len(columns) == fit.design.p:
        return Irls(fit.solution.gamma, fit.solution.at, 0, True, 0.0)
    Q, _ = orthonormal_basis(np.ascontiguousarray(fit.design.X[:, columns].T))
    with np.errstate(all="ignore"):
        return irls(fit.solution.conditional, Q, offset)


def _deviance(fit: GeneralizedFit, found: Irls) -> float:
    return float(fit.solution.conditional.deviance_terms(found.at).sum())


def _models(fits: Sequence[GeneralizedFit]) -> tuple[list[str], np.ndarray, np.ndarray]:
    first = fits[0]
    for other in fits[1:]:
        if other.design.n != first.design.n or not np.array_equal(other.design.y, first.design.y):
            raise DataError(
                "the models have different responses or rows: fit all of them to the rows complete in every "
                "variable"
            )
        if type(other.family) is not type(first.family):
            raise DataError(
                f"the models have different families, {first.family.name} and {other.family.name}"
            )
    labels = [f"{i}: {each.formula}" for i, each in enumerate(fits, 1)]
    return (
        labels,
        np.array([each.deviance for each in fits]),
        np.array([each.df_resid for each in fits], float),
    )


# --- intervals --------------------------------------------------------------------------------------------


def confint_glm(
    fit: GeneralizedFit,
    parm: str | Sequence[str] | None = None,
    *,
    method: str = "profile",
    level: float = 0.95,
) -> pd.DataFrame:
    """Confidence intervals of the coefficients, columns ``2.5 %`` and ``97.5 %`` (for level 0.95).

    ``method="wald"``: estimate +- normal quantile times standard error; R's confint.default. ``"profile"``:
    the values at which the signed root of the drop in deviance, scaled by the dispersion, meets the normal
    quantile; R's confint.glm, found as roots and not by interpolation (R's agree to about 1e-4 standard
    errors). A limit that does not exist (separation) is infinite.
    """
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    names = _chosen(fit, parm)
    tails = (0.5 - level / 2, 0.5 + level / 2)
    z = norm.ppf(tails)
    columns = [f"{100 * t:.3g} %" for t in tails]
    if method == "wald":
        values = [fit.fixef[name] + fit.se[name] * z for name in names]
    elif method == "profile":
        values = [[_Held(fit, name).limit(q) for q in z] for name in names]
    else:
        raise UnsupportedError(f"method={method!r} is not 'wald' or 'profile'")
    return pd.DataFrame(np.array(values).reshape(len(names), 2), index=names, columns=columns)


def profile_glm(
    fit: GeneralizedFit, parm: str | Sequence[str] | None = None, *, zeta_max: float = 2.6, steps: int = 10
) -> pd.DataFrame:
    """The signed root deviance zeta on a grid of each coefficient: columns ``parameter``, ``value``,
    ``zeta``.

    Grid points lie at equal steps of zeta on either side of the estimate. MASS's profile.glm holds the same
    curve.
    """
    parts = []
    for name in _chosen(fit, parm):
        held = _Held(fit, name)
        zetas = np.linspace(-zeta_max, zeta_max, 2 * steps + 1)
        values = [held.limit(z) if z else float(fit.fixef[name]) for z in zetas]
        parts.append(pd.DataFrame({"parameter": name, "value": values, "zeta": zetas}))
    return (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["parameter", "value", "zeta"])
    )


def _chosen(fit: GeneralizedFit, parm: str | Sequence[str] | None) -> list[str]:
    if fit.is_mixed:
        raise UnsupportedError("these intervals are for models without random effects")
    names = list(fit.design.x_names)
    if parm is None:
        return names
    wanted = [parm] if isinstance(parm, str) else list(parm)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise DataError(
            f"no coefficient is named {', '.join(map(repr, unknown))}; there are {', '.join(names)}"
        )
    return wanted


class _Held:
    """The model with one coefficient held at a value, the others at their optimum."""

    def __init__(self, fit: GeneralizedFit, name: str) -> None:
        self.fit = fit
        j = fit.design.x_names.index(name)
        self.column = self.fit.design.X[:, j]
        self.Q, self.R = orthonormal_basis(np.ascontiguousarray(np.delete(self.fit.design.X, j, axis=1).T))
        self.gamma = self.R @ np.delete(self.fit.beta, j)
        self.offset = 0.0 if self.fit.design.offset is None else self.fit.design.offset
        self.estimate, self.se = float(self.fit.beta[j]), float(self.fit.se.iloc[j])

    def zeta(self, value: float) -> float:
        """sign(value - estimate) sqrt((deviance - smallest deviance) / dispersion)."""
        try:
            with np.errstate(all="ignore"):
                found = irls(
                    self.fit.solution.conditional, self.Q, self.offset + value * self.column, self.gamma
                )
        except FitError:
            return np.inf * np.sign(value - self.estimate)
        if found.converged:
            self.gamma = found.gamma
        drop = max(_deviance(self.fit, found) - self.fit.deviance, 0.0) / self.fit.dispersion
        return float(np.sign(value - self.estimate) * np.sqrt(drop))

    def limit(self, z: float) -> float:
        """The value whose zeta is z; infinite where the profile stays below."""
        side = np.sign(z)
        near, far = self.estimate, self.estimate + z * self.se
        while side * self.zeta(far) < abs(z):
            if abs(far - self.estimate) > FAR * self.se:
                return side * np.inf
            near, far = far, self.estimate + 2.0 * (far - self.estimate)
        if not np.isfinite(self.zeta(far)):
            far = self._inside(near, far)
        return float(brentq(lambda value: self.zeta(value) - z, near, far, xtol=1e-12 * self.se, rtol=1e-12))

    def _inside(self, near: float, far: float) -> float:
        """A point short of ``far``, which is outside the domain, where zeta is finite and beyond the
        quantile.
        """
        for _ in range(60):
            middle = 0.5 * (near + far)
            if np.isfinite(self.zeta(middle)):
                near = middle
            else:
                far = middle
        return near
