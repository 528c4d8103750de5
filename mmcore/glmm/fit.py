"""Generalised linear (mixed) models: one fit that is a :class:`mmcore.Fit`, with the same names.

A generalised model at its estimates is a weighted linear mixed model, the *working model*: response z = eta
+ (y - mu) / mu', weights W, residual variance one (or the dispersion). Its V = W^-1 + Z Sigma Z' is what
``state``, ``solve_V`` and the influence measures of the fit stand on.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from ..covariance.blocks import BlockCovariance
from ..design.build import Design
from ..errors import FitError, MixedModelWarning, UnsupportedError
from ..families.counts import NegativeBinomial
from ..families.family import Family
from ..kernels import Factor
from ..lmm.fit import NO_WEIGHT, fit_design, fit_design_at
from ..optimize.control import Control, OptInfo, Status
from ..results.fit import RESIDUALS, Fit, Kind, LinearEstimates, per_term, readonly
from ..results.verbs import PredictiveFit
from .agq import AdaptiveGaussHermite
from .hessian import beta_block, hessian_of, in_beta, is_unique
from .irls import null_deviance
from .problem import Solution
from .solve import solve, solve_at
from .text import glm_summary

NO_HESSIAN = (
    "is not positive definite at this fit, or theta is one of many with the same covariance (singular)"
)

__all__ = ["GeneralizedFit", "fit_generalized", "fit_generalized_at", "is_generalized"]


@dataclass(frozen=True, repr=False)
class GeneralizedFit(PredictiveFit):
    """A fitted generalised linear model, with or without random effects. Immutable; refits make new ones.

    Names are those of :class:`Fit`. ``fitted`` are means, ``eta`` the linear predictor; ``theta``, ``ranef``
    and ``condvar`` are on the scale of the linear predictor, relative to ``sigma`` where the dispersion is
    estimated. ``sigma`` is 1 for binomial, Poisson and negative binomial families.
    """

    design: Design  # y as the family reads it, X, random terms, weights, offset, labels
    family: Family
    solution: Solution  # estimates on the scale of the optimizer, and the model there
    status: Status
    optinfo: OptInfo

    @property
    def kind(self) -> Kind:
        """``glmm`` with random effects, else ``glm``."""
        return "glmm" if self.design.terms else "glm"

    @property
    def reml(self) -> bool:
        """False: there is no restricted likelihood."""
        return False

    @property
    def par(self) -> np.ndarray:
        """(n_par,) covariance parameters as optimized."""
        return self.solution.par

    @property
    def covariance(self) -> BlockCovariance:
        """From ``par`` to Lambda and Sigma."""
        return self.solution.covariance

    # ---- numbers ----------------------------------------------------------------------------------------

    @property
    def nagq(self) -> int | None:
        """Quadrature points; None for a GLM."""
        return self.solution.nagq if self.is_mixed else None

    @property
    def is_mixed(self) -> bool:
        """Whether there are random effects."""
        return bool(self.design.terms)

    @cached_property
    def beta(self) -> np.ndarray:
        """(p,) fixed effects."""
        p = self.design.p
        return readonly(np.linalg.solve(self.solution.R, self.solution.gamma) if p else np.zeros(0))

    @property
    def eta(self) -> pd.Series:
        """Linear predictor X beta + Z b + offset by row label."""
        return pd.Series(self.solution.at.eta, index=self.design.index, name="eta")

    @cached_property
    def b(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k) conditional modes of the random effects."""
        if self.solution.point is None or self.solution.objective is None:
            return ()
        modes = [b[0].T for b in self.solution.point.modes.b]
        return per_term(self.design.terms, self.solution.objective.system.blocks, modes)

    @cached_property
    def condvar_values(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k, k) covariance of b given y at the modes; beta is taken as known."""
        if self.solution.point is None or self.solution.objective is None:
            return ()
        levels = self.solution.point.modes.factor.levels()
        blocks = [self.random_scale**2 * c.transpose(2, 0, 1) for c in levels]
        return per_term(self.design.terms, self.solution.objective.system.blocks, blocks, square=True)

    @cached_property
    def working(self) -> LinearEstimates:
        """The working linear mixed model at this theta: response z, weights W, residual variance sigma^2.

        Its generalised least-squares beta is that of a GLM, but not the Laplace estimate of a mixed model.
        """
        at, sigma = self.solution.at, self.sigma
        sigma = (
            sigma if sigma > 0 else 1.0
        )  # without a residual the scale is arbitrary, and leverage has none
        with np.errstate(all="ignore"):
            z = at.eta + np.where(at.W > 0, at.s / at.W, 0.0)
            design = replace(self.design, y=z, weights=np.maximum(at.W, NO_WEIGHT))
            if not self.is_mixed:
                return fit_design(design, reml=False, sigma=sigma)
            return fit_design_at(design, self.theta.to_numpy(), reml=False, sigma=sigma)

    @property
    def state(self) -> Factor:
        """The factor of V of the working model."""
        return self.working.state

    @cached_property
    def XtVinvX_inv(self) -> np.ndarray:
        """(p, p) = (X'V^-1X)^-1 of the working model; lme4's unscaled covariance from RX."""
        s = self.solution
        if not self.design.p:
            return np.zeros((0, 0))
        if s.objective is None or s.point is None:
            information = (s.Q * s.at.W) @ s.Q.T
        else:
            information = s.objective.working_information(s.point.modes)
        try:
            half = np.linalg.solve(np.linalg.cholesky(information), np.linalg.inv(s.R).T)
        except np.linalg.LinAlgError as error:
            raise FitError(
                "the information about the fixed effects is not positive definite at this fit: some means are at "
                "their limit. Look for a factor level or a covariate that separates the responses"
            ) from error
        return readonly(half.T @ half)

    # ---- dispersion and likelihood ------------------------------------------------------------------------

    @property
    def df_resid(self) -> int:
        """Rows with positive weight less the number of fixed effects."""
        return self.nobs - self.design.p

    @property
    def nobs(self) -> int:
        """Rows used; for a GLM those with positive weight, as R counts them."""
        w = self.design.weights
        return self.design.n if self.is_mixed or w is None else int((w > 0).sum())

    @cached_property
    def pearson_chi2(self) -> float:
        """Sum of squared Pearson residuals."""
        return float(np.square(self.residual_values("pearson")).sum())

    @cached_property
    def dispersion(self) -> float:
        """phi: one where the family says so; Pearson's X^2 / (n - p) for a GLM; (X^2 + |u|^2) / n for a GLMM
        (lme4).
        """
        if self.family.dispersion_known:
            return 1.0
        if self.solution.point is not None:
            return (self.pearson_chi2 + self.solution.point.modes.penalty) / self.design.n
        return self.pearson_chi2 / self.df_resid if self.df_resid > 0 else np.nan

    @property
    def dispersion_pearson(self) -> float:
        """Pearson's X^2 / (n - p), whatever the family says."""
        return self.pearson_chi2 / self.df_resid

    @property
    def dispersion_fletcher(self) -> float:
        """Fletcher's (2012) estimate X^2 / (n - p) / (1 + s), s = mean of V'(mu) (y - mu) / V(mu); steadier
        for small counts.
        """
        mu = self.solution.at.mu
        ratio = self.family.variance_slope(mu) * (self.design.y - mu) / self.family.variance(mu)
        return self.dispersion_pearson / (1.0 + float(ratio.mean()))

    @property
    def sigma(self) -> float:
        """Square root of the dispersion."""
        return float(np.sqrt(self.dispersion))

    @property
    def deviance(self) -> float:
        """Sum of the deviance residuals squared; of a mixed model, given the random effects (lme4's
        deviance()).
        """
        return float(self.solution.conditional.deviance_terms(self.solution.at).sum())

    @cached_property
    def null_deviance(self) -> float:
        """Deviance of the model with the offset and, if the formula has one, an intercept (R's glm)."""
        return null_deviance(self.solution.conditional, self.design.offset, self.design.formula.intercept)

    @cached_property
    def _minus2loglik(self) -> float:
        if not self.family.dispersion_known and not self.solution.at.D > 0:
            return -np.inf  # the response is reproduced exactly
        return self.solution.conditional.minus2loglik(self.solution.at)

    @property
    def likelihood_note(self) -> str:
        """Why there is no log-likelihood, or an empty string."""
        if not self.family.likelihood:
            return f"family {self.family.name} is defined by its moments and has no likelihood"
        broken = self.family.not_counts(self.design.y, self.solution.conditional.w)
        if broken is not None and broken.any() and self.family.name != "binomial":
            return (
                f"{int(broken.sum())} responses are not whole numbers: a {self.family.name} distribution "
                "gives them probability zero. Round the response, or use a quasi family"
            )
        return ""

    @property
    def criterion(self) -> float:
        """-2 log-likelihood: of a GLM; of a mixed model by its approximation, with lme4's constants.

        Laplace: all constants of the data, and 2 where the dispersion is estimated. Quadrature (nagq > 1):
        none, see ``loglik_full``. NaN with a warning where there is no likelihood.
        """
        if self.likelihood_note:
            warnings.warn(
                MixedModelWarning(f"the log-likelihood is undefined: {self.likelihood_note}"), stacklevel=2
            )
            return np.nan
        point = self.solution.point
        if point is None:
            return self._minus2loglik
        if isinstance(self.solution.objective, AdaptiveGaussHermite):
            return point.f
        return self._full_criterion + (0.0 if self.family.dispersion_known else 2.0)

    @property
    def _full_criterion(self) -> float:
        """-2 log-likelihood with every constant of the data and no other."""
        point = self.solution.point
        if point is None:
            return self._minus2loglik
        h = self.family.of_deviance(self.solution.at.D, self.solution.conditional.w)[0]
        return point.f - h + self._minus2loglik

    @property
    def loglik_full(self) -> float:
        """Log-likelihood with every constant: comparable between Laplace and quadrature, unlike lme4's
        ``loglik``.
        """
        return -0.5 * (self.criterion if self.likelihood_note else self._full_criterion)

    @property
    def df(self) -> int:
        """Fixed effects, covariance parameters, and one for an estimated dispersion or negative binomial
        size.
        """
        extra = self.solution.size_estimated or not self.family.dispersion_known
        return self.design.p + len(self.par) + int(extra)

    # ---- covariance of the fixed effects ------------------------------------------------------------------

    @property
    def hessian(self) -> np.ndarray:
        """(p + n_par,) square: second derivatives of the criterion in (beta, covariance parameters), mixed models.

        Differences of the exact gradient; covariance parameters are those of the optimizer's coordinates.
        """
        return readonly(in_beta(self.solution, self._hessian))

    @cached_property
    def _hessian(self) -> np.ndarray:
        return hessian_of(self.solution)

    @cached_property
    def _hessian_block(self) -> np.ndarray | None:
        return beta_block(self.solution, self._hessian) if is_unique(self.solution) else None

    @property
    def vcov_values(self) -> np.ndarray:
        """(p, p) covariance of the fixed effects: by the Hessian, or by the working model (see ``vcov_type``)."""
        return self._vcov[0]

    @property
    def vcov_type(self) -> str:
        """Where ``vcov`` comes from: ``hessian`` for a mixed model with nagq >= 1, else ``rx``."""
        return self._vcov[1]

    @cached_property
    def _vcov(self) -> tuple[np.ndarray, str]:
        rx = self.dispersion * self.XtVinvX_inv
        if not self.is_mixed or self.solution.nagq == 0 or not self.design.p:
            return rx, "rx"
        if self._hessian_block is None:
            warnings.warn(
                MixedModelWarning(
                    f"the Hessian of the criterion {NO_HESSIAN}; covariances of the fixed effects take theta as "
                    "known (vcov_rx)"
                ),
                stacklevel=4,
            )
            return rx, "rx"
        return self._hessian_block, "hessian"

    def _labelled(self, values: np.ndarray) -> pd.DataFrame:
        names = list(self.design.x_names)
        return pd.DataFrame(values, index=names, columns=names)

    @property
    def vcov_rx(self) -> pd.DataFrame:
        """sigma^2 (X'V^-1X)^-1 of the working model: theta is taken as known (lme4's use.hessian = FALSE)."""
        return self._labelled(self.dispersion * self.XtVinvX_inv)

    @property
    def vcov_hessian(self) -> pd.DataFrame:
        """Fixed-effects block of twice the inverse Hessian of the criterion: uncertainty of theta included.

        lme4's default for nagq >= 1, without the noise of its finite differences. Raises UnsupportedError
        for a GLM, for nagq = 0, where the Hessian is not positive definite, and where a variance is zero whose
        effect comes before one that is not: then many theta have the same covariance, and each has another
        Hessian (lme4 gives that of the one it stopped at).
        """
        block = self._hessian_block
        if block is None:
            raise UnsupportedError(f"the Hessian of the criterion {NO_HESSIAN}: use vcov_rx")
        return self._labelled(block)

    # ---- labelled -----------------------------------------------------------------------------------------

    @cached_property
    def fitted_marginal(self) -> np.ndarray:
        """(n,) means at b = 0: the inverse link of X beta + offset (not the mean over the random effects)."""
        eta = self.design.X @ self.beta
        eta = eta if self.design.offset is None else eta + self.design.offset
        return self.family.link.mu(eta)

    @property
    def fitted_values(self) -> np.ndarray:
        """(n,) conditional means of the rows used."""
        return self.solution.at.mu

    def residual_values(self, type: str = "response", scaled: bool = False) -> np.ndarray:
        """(n,) residuals of the rows used; R's default for these models is ``deviance``.

        ``response`` y - mu; ``pearson`` sqrt(w) (y - mu) / sqrt(V); ``working`` (y - mu) / mu'; ``deviance``
        the signed root of the row's deviance. ``scaled`` divides by sigma.
        """
        at, conditional = self.solution.at, self.solution.conditional
        values, V = conditional.residuals(at)
        if type == "pearson":
            values = values * np.sqrt(conditional.w / V)
        elif type == "working":
            values = values / self.family.link.slopes(at.eta, at.mu)[0]
        elif type == "deviance":
            values = np.sign(values) * np.sqrt(conditional.deviance_terms(at))
        elif type not in RESIDUALS:
            raise UnsupportedError(
                f"resid(type={type!r}) is not one of 'response', 'pearson', 'deviance', 'working'"
            )
        return values / self.sigma if scaled else values

    def coefficients(self) -> pd.DataFrame:
        """Estimate, Std. Error, z (or t where the dispersion is estimated) and two-sided p-value per
        coefficient.
        """
        from scipy.stats import norm, t

        estimate, se = self.beta, self.se.to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):  # without a residual there is no standard error
            ratio = estimate / se
        use_t = not self.family.dispersion_known and not self.is_mixed
        p = 2.0 * (t.sf(np.abs(ratio), self.df_resid) if use_t else norm.sf(np.abs(ratio)))
        kind = "z" if self.family.dispersion_known else "t"
        columns = {"Estimate": estimate, "Std. Error": se, f"{kind} value": ratio, f"Pr(>|{kind}|)": p}
        return pd.DataFrame(columns, index=list(self.design.x_names))

    def summary(self) -> str:
        """Text in the layout of R's summary() of a glm or glmer fit."""
        return glm_summary(self)

    def fit_to(self, design: Design) -> GeneralizedFit:
        """The same model of another design with the same terms, from this theta; an estimated size is estimated."""
        family = self.family
        if isinstance(family, NegativeBinomial) and self.solution.size_estimated:
            family = replace(family, theta=None)
        start = {"theta": self.theta.to_numpy()} if self.is_mixed else None
        return fit_generalized(design, family, nagq=self.solution.nagq, start=start, quiet=True)

    def refit(self, y: Any) -> GeneralizedFit:
        """The same model for another response, rows in the order of this fit; a negative binomial size is kept."""
        design = self.design.with_response(y)
        return fit_generalized(design, self.family, nagq=self.solution.nagq, quiet=True)

    @property
    def size(self) -> float:
        """theta of a negative binomial family."""
        if not isinstance(self.family, NegativeBinomial):
            raise UnsupportedError(f"family {self.family.name} has no size parameter")
        return self.family.size


def is_generalized(fit: Fit) -> TypeGuard[GeneralizedFit]:
    """Whether a fit is of a generalized model."""
    return fit.family is not None


def fit_generalized(
    design: Design,
    family: Family,
    *,
    nagq: int = 1,
    start: Any = None,
    control: Control | None = None,
    quiet: bool = False,
) -> GeneralizedFit:
    """Estimate a generalised model for a design: the whole of ``glm`` and ``glmer`` after the formula.

    ``design`` has the response as the family reads it (:mod:`mmcore.response`); ``quiet`` leaves warnings
    about the response out. The unit of every deletion refit.
    """
    solved = solve(design, family, nagq=nagq, start=start, control=control or Control(), quiet=quiet)
    return GeneralizedFit(design, solved.family, solved.solution, solved.status, solved.info)


def fit_generalized_at(
    design: Design, family: Family, theta: Any, beta: Any = None, *, nagq: int = 1
) -> GeneralizedFit:
    """The model at given parameters, nothing optimised but the conditional modes (and beta if nagq is 0)."""
    solved = solve_at(design, family, theta, beta, nagq=nagq)
    return GeneralizedFit(design, solved.family, solved.solution, solved.status, solved.info)
