"""Generalised linear (mixed) models: one fit that is a :class:`mmcore.Fit`, with the same names.

A generalised model at its estimates is a weighted linear mixed model, the *working model*: response z = eta
+ (y - mu) / mu', weights W, residual variance one (or the dispersion). Its V = W^-1 + Z Sigma Z' is what
``state``, ``solve_V`` and the influence measures of the fit stand on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..design.build import Design
from ..errors import FitError, MixedModelWarning, UnsupportedError
from ..families.counts import NegativeBinomial
from ..families.family import Family
from ..kernels import Factor
from ..lmm.criterion import Criterion
from ..lmm.fit import Fit, fit_design, fit_design_at
from ..optimize.control import Control, OptInfo, Status
from ..optimize.quasinewton import hessian_by_differences
from ..results.varcorr import TermCovariance, VarCorr
from .agq import AdaptiveGaussHermite
from .irls import null_deviance
from .laplace import JointLaplace
from .problem import Solution
from .solve import solve, solve_at
from .text import glm_summary

NO_WEIGHT = 1e-200  # in the working model, the weight of a row that has none
NO_HESSIAN = (
    "is not positive definite at this fit, or theta is one of many with the same covariance (singular)"
)

__all__ = ["GeneralizedFit", "fit_generalized", "fit_generalized_at"]


class GeneralizedFit(Fit):
    """A fitted generalised linear model, with or without random effects. Immutable; refits make new ones.

    Names are those of :class:`Fit`. ``fitted`` are means, ``eta`` the linear predictor; ``theta``, ``ranef``
    and ``condvar`` are on the scale of the linear predictor, relative to ``sigma`` where the dispersion is
    estimated. ``sigma`` is 1 for binomial, Poisson and negative binomial families.
    """

    family: Family  # type: ignore[assignment]
    solution: Solution

    _FIELDS = ("design", "family", "solution", "status", "optinfo")

    def __init__(
        self, design: Design, family: Family, solution: Solution, status: Status, optinfo: OptInfo
    ) -> None:
        values = (design, family, solution, status, optinfo)
        self.__dict__.update(zip(self._FIELDS, values, strict=True))
        self.__dict__.update(reml=False, par=solution.par)

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
        return _readonly(np.linalg.solve(self.solution.R, self.solution.gamma) if p else np.zeros(0))

    @property
    def eta(self) -> pd.Series:
        """Linear predictor X beta + Z b + offset by row label."""
        return pd.Series(self.solution.at.eta, index=self.design.index, name="eta")

    @cached_property
    def Lambda(self) -> tuple[np.ndarray, ...]:
        """Per term, (k, k) lower relative covariance factor."""
        return tuple(_readonly(L) for L in self.solution.covariance.Lambda(self.par))

    @cached_property
    def b(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k) conditional modes of the random effects."""
        if self.solution.point is None:
            return ()
        return self._by_term([b[0].T for b in self.solution.point.modes.b])

    @cached_property
    def _condvar(self) -> tuple[np.ndarray, ...]:
        if self.solution.point is None:
            return ()
        levels = self.solution.point.modes.factor.levels()
        return self._by_term([self.sigma**2 * c.transpose(2, 0, 1) for c in levels], square=True)

    def _by_term(self, blocks: list[np.ndarray], square: bool = False) -> tuple[np.ndarray, ...]:
        """Cut per-block arrays (L, K[, K]) into one per term, in the order of the design."""
        out: list[np.ndarray] = [np.empty(0)] * len(self.design.terms)
        assert self.solution.objective is not None
        for block, values in zip(self.solution.objective.system.blocks, blocks, strict=True):
            at = 0
            for t in block.terms:
                rows = slice(at, at + len(self.design.terms[t].effects))
                out[t] = _readonly(np.ascontiguousarray(values[:, rows, rows] if square else values[:, rows]))
                at = rows.stop
        return tuple(out)

    @cached_property
    def working(self) -> Fit:
        """The working linear mixed model at this theta: response z, weights W, residual variance sigma^2.

        Its generalised least-squares beta is that of a GLM, but not the Laplace estimate of a mixed model.
        """
        at = self.solution.at
        with np.errstate(all="ignore"):
            z = at.eta + np.where(at.W > 0, at.s / at.W, 0.0)
            design = replace(self.design, y=z, weights=np.maximum(at.W, NO_WEIGHT))
            if not self.is_mixed:
                return fit_design(design, reml=False, sigma=self.sigma)
            return fit_design_at(design, self.theta.to_numpy(), reml=False, sigma=self.sigma)

    @property
    def state(self) -> Factor:
        """The factor of V of the working model."""
        return self.working.state

    @property
    def criterion_fn(self) -> Criterion:
        """The criterion of the working model."""
        return self.working.criterion_fn

    def diag_Vinv(self) -> np.ndarray:
        """(n,) diagonal of V^-1 of the working model."""
        return self.working.diag_Vinv()

    def solve_V(self, B: np.ndarray) -> np.ndarray:
        """V^-1 B of the working model."""
        return self.working.solve_V(B)

    @cached_property
    def XtVinvX_inv(self) -> np.ndarray:
        """(p, p) = (X'V^-1X)^-1 of the working model; lme4's unscaled covariance from RX."""
        s = self.solution
        if not self.design.p:
            return np.zeros((0, 0))
        if s.objective is None or s.point is None:
            information = (s.Q * s.at.W) @ s.Q.T
        else:
            information = s.objective.working_information(s.point)
        try:
            half = np.linalg.solve(np.linalg.cholesky(information), np.linalg.inv(s.R).T)
        except np.linalg.LinAlgError as error:
            raise FitError(
                "the information about the fixed effects is not positive definite at this fit: some means are at "
                "their limit. Look for a factor level or a covariate that separates the responses"
            ) from error
        return _readonly(half.T @ half)

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
    def loglik(self) -> float:
        """-criterion / 2."""
        return -0.5 * self.criterion

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
        """(p + n_par,) square: second derivatives of the criterion in (beta, covariance parameters), mixed
        models.

        Differences of the exact gradient; covariance parameters are those of the optimiser's coordinates.
        """
        H, p, R = self._hessian.copy(), self.design.p, self.solution.R
        H[:p] = R.T @ H[:p]
        H[:, :p] = H[:, :p] @ R
        return _readonly(H)

    @cached_property
    def _hessian(self) -> np.ndarray:
        """The same in (gamma, covariance parameters), gamma = R beta, which are of comparable sizes."""
        s = self.solution
        if s.objective is None or s.point is None or isinstance(s.objective, JointLaplace):
            raise UnsupportedError("a Hessian in (beta, theta) exists for mixed models with nagq >= 1 only")
        with np.errstate(all="ignore"):
            return hessian_by_differences(s.objective, s.point)

    @property
    def vcov_rx(self) -> pd.DataFrame:
        """sigma^2 (X'V^-1X)^-1 of the working model: theta is taken as known (lme4's use.hessian = FALSE)."""
        return self._labelled(self.dispersion * self.XtVinvX_inv)

    @cached_property
    def _hessian_block(self) -> np.ndarray | None:
        """(p, p) block of 2 H^-1, or None where H is not positive definite or belongs to one theta of many.

        Parameters that the criterion does not depend on are left out.
        """
        if not self.solution.covariance.is_unique(self.par):
            return None
        H, p = self._hessian, self.design.p
        if not np.isfinite(H).all():
            return None
        flat = np.abs(H[p:, p:]).sum(axis=1) <= 1e-8 * np.abs(H).max()
        keep = np.concatenate([np.ones(p, bool), ~flat])
        values, vectors = np.linalg.eigh(H[np.ix_(keep, keep)])
        if values.min() <= 1e-10 * values.max():
            return None
        half = np.linalg.solve(self.solution.R, vectors[:p])
        return 2.0 * (half / values) @ half.T

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

    @property
    def vcov(self) -> pd.DataFrame:
        """Covariance of the fixed effects: ``vcov_hessian`` for a mixed model (nagq >= 1), ``vcov_rx``
        otherwise.
        """
        names = list(self.design.x_names)
        return pd.DataFrame(self._vcov[0], index=names, columns=names)

    @property
    def vcov_type(self) -> str:
        """Where ``vcov`` comes from: ``hessian`` or ``rx``."""
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
    def se(self) -> pd.Series:
        """Standard errors: square roots of the diagonal of ``vcov``."""
        return pd.Series(np.sqrt(np.diag(self._vcov[0])), index=list(self.design.x_names), name="se")

    # ---- labelled -----------------------------------------------------------------------------------------

    @cached_property
    def theta(self) -> pd.Series:
        """Covariance parameters in lme4's order and names."""
        names: list[str] = []
        for term, structure in zip(self.design.terms, self.solution.covariance.structures, strict=True):
            names += [f"{term.group}.{name}" for name in structure.theta_names(term.effects)]
        return pd.Series(self.solution.covariance.theta(self.par), index=names, name="theta", dtype=float)

    @property
    def varcorr(self) -> VarCorr:
        """Covariances of the random effects; a residual standard deviation only where the dispersion is
        estimated.
        """
        terms = [
            TermCovariance(t.group, t.effects, self.dispersion * (L @ L.T))
            for t, L in zip(self.design.terms, self.Lambda, strict=True)
        ]
        return VarCorr(terms, None if self.family.dispersion_known else self.sigma)

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
        elif type != "response":
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
        ratio = estimate / se
        use_t = not self.family.dispersion_known and not self.is_mixed
        p = 2.0 * (t.sf(np.abs(ratio), self.df_resid) if use_t else norm.sf(np.abs(ratio)))
        kind = "z" if self.family.dispersion_known else "t"
        columns = {"Estimate": estimate, "Std. Error": se, f"{kind} value": ratio, f"Pr(>|{kind}|)": p}
        return pd.DataFrame(columns, index=list(self.design.x_names))

    def summary(self) -> str:
        """Text in the layout of R's summary() of a glm or glmer fit."""
        return glm_summary(self)

    def refit(self, y: Any) -> GeneralizedFit:
        """The same model for another response, rows in the order of this fit; a negative binomial size is
        kept.
        """
        design = self.design.with_response(np.asarray(y, float))
        return fit_generalized(design, self.family, nagq=self.solution.nagq, quiet=True)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in (*self._FIELDS, "reml", "par")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def size(self) -> float:
        """theta of a negative binomial family."""
        if not isinstance(self.family, NegativeBinomial):
            raise UnsupportedError(f"family {self.family.name} has no size parameter")
        return self.family.size


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


def _readonly(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a
