"""Where profiles start: the maximum of the likelihood, and the models with one parameter held beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...covariance.blocks import BlockCovariance
from ...errors import FitError, UnsupportedError
from ...glmm.fit import GeneralizedFit, is_generalized
from ...glmm.laplace import JointLaplace
from ...glmm.residual import require_residual
from ...kernels.criterion import Criterion
from ...lmm.criterion import charted
from ...lmm.lm import LinearFit, is_lm
from ...optimize.control import Control
from ...optimize.newton import minimize
from ...results.fit import Fit
from .curve import Curve, Held
from .held import HeldLinear
from .held_glm import HeldGeneralized, HeldMixed
from .parameters import Parameter, parameters, values
from .settle import Minimum

__all__ = ["Optimum", "optimum_of"]

COR_STEP, SD_STEP = 0.3, 0.15  # guesses of a standard error, of sd in units of itself
LEAST_SD = 1e-3  # ... and at least in units of sigma
FAR_GLM, FAR = 60.0, 1e9  # standard errors from the estimate at which a profile is called flat
WIDE_ETA = 10.0  # change of a linear predictor that is large on the scale of any link with a known dispersion


@dataclass(frozen=True, slots=True)
class Optimum:
    """The likelihood at its maximum."""

    every: tuple[Parameter, ...]
    estimate: np.ndarray  # (len(every),)
    step: np.ndarray  # (len(every),) guesses of standard errors
    f: float  # the criterion there: -2 log-likelihood, or the deviance
    scale: float  # rises of the criterion are divided by it: the dispersion of a glm
    hold: Callable[[Parameter], Held]
    far: float = FAR

    def curve(self, which: Parameter) -> Curve:
        """The profile of a parameter."""
        i = self.every.index(which)
        held, estimate = self.hold(which), float(self.estimate[i])
        if np.isnan(
            estimate
        ):  # the correlation of an effect without variance: any value has the same likelihood
            estimate = 0.5 * sum(held.domain)
        return Curve(held, estimate, self.f, float(self.step[i]), self.scale, self.far)


def optimum_of(fit: Fit) -> Optimum:
    """The maximum of the likelihood of a fit; a model fitted by REML is refitted by ML, as lme4 does.

    Raises FitError where nothing is left to estimate a residual from, UnsupportedError for models whose likelihood
    this file does not know.
    """
    require_residual(fit, "is no interval")
    if is_lm(fit):
        return _of_lm(fit)
    if is_generalized(fit):
        return _of_glmer(fit) if fit.is_mixed else _of_glm(fit)
    if fit.residual is not None:
        raise UnsupportedError(
            "the likelihood of a model with residual='varident(...)' is not profiled: its ratios of standard "
            "deviations would have to be re-optimized as well; use method='boot' or 'wald'"
        )
    return _of_lmer(fit)


# --- linear models --------------------------------------------------------------------------------------------------


class _Parabola:
    """One coefficient of a linear model: ((v - estimate) / standard error)^2, the square of t."""

    domain = (-np.inf, np.inf)
    open_ended = False

    def __init__(self, fit: LinearFit, which: Parameter) -> None:
        self.fit, self.j = fit, which.i
        self.start = np.zeros(0)

    def minimum(self, v: float, start: np.ndarray) -> Minimum:
        return Minimum(((v - self.fit.beta[self.j]) / self.fit.se.iloc[self.j]) ** 2, start)

    def estimates(self, v: float, psi: np.ndarray, every: Sequence[Parameter]) -> np.ndarray:
        C, j, fit = self.fit.XtVinvX_inv, self.j, self.fit
        beta = fit.beta + C[:, j] / C[j, j] * (v - fit.beta[j])
        rise = ((v - fit.beta[j]) / fit.se.iloc[j]) ** 2
        return values(every, (), fit.sigma * float(np.sqrt(1.0 + rise / fit.df_resid)), beta)


def _of_lm(fit: LinearFit) -> Optimum:
    every = tuple(p for p in parameters(fit) if p.kind == "beta")
    return Optimum(every, fit.beta, fit.se.to_numpy(), 0.0, 1.0, lambda which: _Parabola(fit, which))


def _of_glm(fit: GeneralizedFit) -> Optimum:
    every = tuple(p for p in parameters(fit) if p.kind == "beta")
    se = fit.se.to_numpy()
    if fit.family.dispersion_known:  # standard errors of separated data are as large as the optimizer went
        se = np.minimum(se, WIDE_ETA / _spread(fit.design.X))
    far = FAR_GLM + 3.0 * float(np.max(np.abs(fit.beta) / se, initial=0.0))
    return Optimum(
        every, fit.beta, se, fit.deviance, fit.dispersion, lambda which: HeldGeneralized(fit, which), far
    )


def _spread(X: np.ndarray) -> np.ndarray:
    """(p,) root mean square of what each column of X adds to the others."""
    return np.sqrt(1.0 / np.diag(np.linalg.pinv(X.T @ X)) / len(X)) if X.shape[1] else np.zeros(0)


# --- mixed models ---------------------------------------------------------------------------------------------------


def _of_lmer(fit: Fit) -> Optimum:
    fn = fit.working.criterion_fn
    ml = Criterion(fn.kernel, fn.covariance, replace(fit.state.like, reml=False))
    work, first = charted(ml)
    if not fit.is_singular and np.isfinite(fit.par).all():
        first = work.covariance.from_standard(fit.par)
    # other optima were looked for when the fit was made by ML
    control = Control(restarts=fit.reml or not fit.converged)
    found = minimize(work, first, ml.covariance.scale_index(), control)
    if not found.status.ok:
        raise FitError(f"the likelihood has no profile: its maximum was not found ({found.status.value})")
    par = found.objective.covariance.to_standard(found.par)
    profile, p = found.factor.profile, fit.design.p
    gamma = np.linalg.solve(profile.LS[:p, :p].T, profile.LS[p, :p]) if p else np.zeros(0)
    half = np.linalg.solve(fn.kernel.A.R, profile.LS_inv[:p, :p].T) if p else np.zeros((0, 0))
    known = ml.like.sigma
    sigma = float(np.sqrt(profile.rss / profile.nu)) if known is None else known
    every = parameters(fit)
    estimate = values(every, ml.covariance.Lambda(par), sigma, fn.kernel.A.beta(gamma))
    _correlations_of_structures(every, ml.covariance, par, estimate)
    step = _steps(every, estimate, sigma, sigma * np.sqrt(np.square(half).sum(axis=1)), profile.nu)
    return Optimum(every, estimate, step, found.f, 1.0, lambda which: HeldLinear(ml, par, sigma, which))


def _of_glmer(fit: GeneralizedFit) -> Optimum:
    if not fit.family.dispersion_known:
        raise UnsupportedError(
            f"the likelihood of a mixed model with a dispersion (family {fit.family.name}) is not profiled; "
            "use method='boot' or 'wald'"
        )
    point, objective = fit.solution.point, fit.solution.objective
    if point is None or objective is None or isinstance(objective, JointLaplace):
        raise UnsupportedError("profiles need the likelihood in fixed effects and theta: fit with nagq >= 1")
    every = parameters(fit)
    estimate = values(every, fit.Lambda, 1.0, fit.beta)
    _correlations_of_structures(every, fit.solution.covariance, fit.par, estimate)
    step = _steps(every, estimate, 1.0, np.sqrt(np.diag(fit.vcov_rx)), fit.nobs)
    return Optimum(every, estimate, step, point.f, 1.0, lambda which: HeldMixed(fit, which))


def _correlations_of_structures(
    every: Sequence[Parameter], covariance: BlockCovariance, par: np.ndarray, estimate: np.ndarray
) -> None:
    """Put rho of cs and ar1 itself into ``estimate``: variances of zero may hide it in the covariance."""
    for k, which in enumerate(every):
        if which.kind == "rho":
            estimate[k] = par[sum(s.n_par for s in covariance.structures[: which.term + 1]) - 1]


def _steps(
    every: Sequence[Parameter], estimate: np.ndarray, sigma: float, se: np.ndarray, nu: int
) -> np.ndarray:
    """Rough standard errors; a factor of three off does no harm."""
    out = np.empty(len(every))
    for k, (which, value) in enumerate(zip(every, estimate, strict=True)):
        if which.kind == "beta":
            out[k] = se[which.i]
        elif which.kind == "sigma":
            out[k] = sigma * (2.0 * nu) ** -0.5
        elif which.kind == "sd":
            out[k] = max(SD_STEP * value, LEAST_SD * sigma)
        else:
            out[k] = COR_STEP
    return out
