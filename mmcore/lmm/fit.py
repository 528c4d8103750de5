"""Fits of linear mixed models: in memory, from partitions, and at a given theta."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pandas as pd

from ..covariance.blocks import BlockCovariance
from ..design.build import Design, build
from ..errors import ConvergenceWarning, DataError, FitError, SingularWarning, UnsupportedError
from ..kernels.criterion import Criterion
from ..kernels.products import CrossProducts
from ..kernels.profile import Likelihood, Profile
from ..optimize.control import Control, OptInfo, Status
from ..optimize.newton import Optimum, minimize
from ..results.coefficients import Ddf, usual_ddf
from ..results.fit import Fit, Kind, LinearEstimates, readonly
from ..results.groups import ResidualGroups
from ..results.update import changed_arguments
from ..results.verbs import PredictiveFit
from .criterion import charted, criterion_for
from .text import summary_text
from .varident import fit_varident, residual_groups

__all__ = [
    "NO_WEIGHT",
    "ChunkedFit",
    "LinearMixedFit",
    "checked_theta",
    "fit_data",
    "fit_design",
    "fit_design_at",
    "fit_partitions",
    "singular_warning",
    "warned",
]

FitT = TypeVar("FitT", bound=Fit)

NO_RESIDUAL = 1e6  # relative sd of a random effect beyond which a failed search means that sigma is zero
NO_WEIGHT = 1e-200  # stands for the weight of a row whose weight is zero


@dataclass(frozen=True, repr=False)
class LinearMixedFit(LinearEstimates, PredictiveFit):
    """A fitted linear mixed model: the point theta, and what the model is there. Immutable; refits make new ones.

    Attributes are on the scale of the data; ``theta`` and ``Lambda`` are relative to ``sigma``.
    """

    kind: ClassVar[Kind] = "lmm"
    residual: ResidualGroups | None = None  # residual standard deviations by group, if asked for

    @property
    def df(self) -> int:
        """Number of estimated parameters: p + covariance parameters + 1 for sigma (0 if sigma was given), and the
        ratios of residual standard deviations."""
        ratios = 0 if self.residual is None else len(self.residual.levels) - 1
        return super().df + ratios

    def summary(self, ddf: Ddf | Literal["default"] = "default") -> str:
        """Text in the layout of lme4's summary().

        ``ddf``: degrees of freedom of the t tests, ``"satterthwaite"`` (as lmerTest; the default of a fit that
        converged) or ``"kenward-roger"``; None for no tests.
        """
        return summary_text(self, usual_ddf(self) if ddf == "default" else ddf)

    def fit_to(self, design: Design) -> LinearMixedFit:
        """The same model of another design with the same terms, started from this theta."""
        return fit_design(design, reml=self.reml, start=self.theta.to_numpy(), sigma=self.state.like.sigma)

    def refit(self, y: Sequence[float] | np.ndarray) -> LinearMixedFit:
        """The same model for another response (rows in the order of this fit)."""
        self.require_rows("refit")
        design = self.design.with_response(checked_response(self.design, y))
        return fit_design(design, reml=self.reml, sigma=self.state.like.sigma)

    def update(self, formula: str | None = None, data: Any = None, **changes: Any) -> LinearMixedFit:
        """The model fitted again with some arguments changed; ``fit.update(reml=False)``, ``fit.update("~ . + x")``.

        ``formula`` may use ``.`` for what stands on that side now. ``data``: None takes the variables of the model
        frame, which is enough unless the formula names new ones (then a DataError names them) or the fit has
        weights and other data are wanted. Other arguments are those of :func:`mmcore.lmer`; those not given are kept.
        """
        self.require_rows("update")
        if not self.design.terms:
            raise UnsupportedError("update is for models with random effects; call mm.lm again")
        kept: dict[str, Any] = {"reml": self.reml, "sigma": self.state.like.sigma}
        options = frozenset({"reml", "start", "sigma", "residual", "control"})
        text, rows, arguments = changed_arguments(self, formula, data, changes, kept, options)
        if self.residual is not None and "residual" not in changes:
            raise UnsupportedError(
                "pass residual= to update: the model frame does not hold the grouping of the residual"
            )
        prior = arguments["weights"]
        if data is None and self.residual is not None and prior is not None and "weights" not in changes:
            arguments["weights"] = prior * self.residual.ratio[self.residual.codes] ** 2
        return warned(fit_data(text, rows, **arguments))


class ChunkedFit(LinearMixedFit):
    """A fit from partitions: all estimates, but no rows. Fitted values and residuals raise UnsupportedError;
    ``predict(newdata)`` works for any partition."""

    has_rows = False

    @property
    def nobs(self) -> int:
        """Rows used, of all partitions."""
        return self.kernel.A.n

    @property
    def profile(self) -> Profile:
        """Of the kernel: there are no rows to be summed."""
        return self.state.profile


def fit_data(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Any = None,
    na_action: str = "omit",
    start: Sequence[float] | None = None,
    sigma: float | None = None,
    residual: str | None = None,
    control: Control | None = None,
) -> LinearMixedFit:
    """From a formula and data to the fit, with the arguments of :func:`mmcore.lmer`; warns of nothing."""
    design = build(formula, data, weights=weights, offset=offset, contrasts=contrasts, na_action=na_action)
    if not design.terms:
        raise UnsupportedError(
            f"{formula!r} has no random-effects term such as (1 | g); use mm.lm for a linear model"
        )
    if residual is None:
        return fit_design(design, reml=reml, start=start, sigma=sigma, control=control)

    def at_weights(weighted: Design, theta: Any) -> LinearMixedFit:
        return fit_design(weighted, reml=reml, start=theta, sigma=sigma, control=control)

    fit, groups = fit_varident(design, residual_groups(residual, data, design), at_weights, reml)
    return replace(fit, residual=groups)


def fit_design(
    design: Design,
    *,
    reml: bool = True,
    start: Sequence[float] | np.ndarray | None = None,
    sigma: float | None = None,
    control: Control | None = None,
) -> LinearMixedFit:
    """Estimate theta for a design: the whole of ``lmer`` after its formula, and of every deletion refit."""
    criterion = criterion_for(design, Likelihood(reml, sigma))
    optimum = _optimum(criterion, start, control)
    return LinearMixedFit(design, reml, *_found(criterion, optimum))


def fit_partitions(
    design: Design,
    products: CrossProducts,
    *,
    reml: bool = True,
    start: Sequence[float] | np.ndarray | None = None,
    sigma: float | None = None,
    control: Control | None = None,
) -> ChunkedFit:
    """Estimate theta from the products of partitions; ``design`` carries names, levels and pseudo-rows."""
    criterion = criterion_for(design, Likelihood(reml, sigma), products)
    optimum = _optimum(criterion, start, control)
    return ChunkedFit(design, reml, *_found(criterion, optimum))


def _optimum(criterion: Criterion, start: Any, control: Control | None) -> Optimum:
    cov = criterion.covariance
    work, first = charted(criterion)
    if start is not None:
        first = work.covariance.from_standard(cov.from_theta(checked_theta(start, cov)))
    optimum = minimize(work, first, cov.scale_index(), control or Control())
    if not optimum.status.ok and np.abs(optimum.par[cov.scale_index()]).max() > NO_RESIDUAL:
        raise FitError(
            "the random effects reproduce the response exactly: the criterion falls without limit as the residual "
            "variance goes to zero. Drop a term, or look for a response that is constant within groups"
        )
    return optimum


def _found(criterion: Criterion, at: Optimum) -> tuple[np.ndarray, Criterion, Any, Status, OptInfo]:
    """The fields of a fit after ``reml``."""
    par = readonly(at.objective.covariance.to_standard(at.par))
    info = OptInfo("newton", at.evaluations, at.iterations, at.gradient, at.status.value, at.starts)
    return par, criterion, at.factor, at.status, info


def fit_design_at(
    design: Design, theta: Sequence[float] | np.ndarray, *, reml: bool = True, sigma: float | None = None
) -> LinearMixedFit:
    """The model of a design at a given theta, in lme4's order; nothing is optimized."""
    criterion = criterion_for(design, Likelihood(reml, sigma))
    par = criterion.covariance.from_theta(checked_theta(theta, criterion.covariance))
    factor = criterion.factor(par)
    gradient = criterion.derivatives(par, factor)[0] if len(par) else par
    status = Status.NOT_OPTIMIZED
    info = OptInfo("none", 1, 0, gradient, status.value)
    return LinearMixedFit(design, reml, readonly(par), criterion, factor, status, info)


def checked_theta(theta: Any, covariance: BlockCovariance) -> np.ndarray:
    """``theta`` as an array; DataError unless it has one finite value for each entry of the model's theta."""
    try:
        values = np.asarray(theta, float).ravel()
    except (TypeError, ValueError):
        raise DataError(f"theta is a list of numbers in lme4's order, not {theta!r}") from None
    expected = covariance.n_theta
    if len(values) != expected or not np.isfinite(values).all():
        raise DataError(f"theta needs {expected} finite values for this model, got {len(values)}: {values!r}")
    return values


def checked_response(design: Design, y: Any) -> np.ndarray:
    """Another response as (n,) numbers: a Series by its labels where it has those of the fit, else by position."""
    values = y.reindex(design.index) if isinstance(y, pd.Series) and set(y.index) == set(design.index) else y
    try:
        values = np.asarray(values, float)
    except (TypeError, ValueError):
        raise DataError("refit needs numbers as the response") from None
    if values.shape != (design.n,):
        raise DataError(f"refit needs {design.n} values of the response, got shape {values.shape}")
    return values


def warned(fit: FitT, stacklevel: int = 3) -> FitT:
    """The fit, after saying what is wrong with it."""
    if not fit.converged:
        warnings.warn(ConvergenceWarning(fit.status.value), stacklevel=stacklevel)
    elif fit.is_singular:
        warnings.warn(singular_warning(fit), stacklevel=stacklevel)
    return fit


def singular_warning(fit: Fit) -> SingularWarning:
    """What to say of a fit on the boundary."""
    names = ", ".join(fit.singular_terms())
    return SingularWarning(f"boundary (singular) fit: a variance of {names} is zero or a correlation is +-1")
