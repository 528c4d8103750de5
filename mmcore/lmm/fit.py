"""Fitting: ``lmer`` finds theta, ``fit_at`` evaluates a model at a given theta, both end in one
:class:`Fit`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..covariance.structure import SINGULAR
from ..design.build import Design, build
from ..errors import DataError, FitError, UnsupportedError
from ..kernels import Factor
from ..kernels.products import CrossProducts
from ..kernels.profile import Likelihood, Profile
from ..kernels.whitened import resummed, without_random
from ..optimize.control import Control, OptInfo, Status
from ..optimize.newton import minimize
from ..results.predict import predict
from ..results.simulate import simulate
from ..results.text import summary_text
from ..results.varcorr import TermCovariance, VarCorr, term_names
from .criterion import Criterion, criterion_for
from .varident import ResidualGroups

__all__ = ["ChunkedFit", "Fit", "fit_design", "lm"]

NO_RESIDUAL = 1e6  # relative sd of a random effect beyond which a failed search means that sigma is zero


@dataclass(frozen=True)
class Fit:
    """A fitted linear mixed model: the point theta, and what the model is there. Immutable; refits make new
    ones.

    Attributes are on the scale of the data; ``theta`` and ``Lambda`` are relative to ``sigma``.
    A model without random effects is the same object with ``q = 0``.
    """

    design: Design  # y, X, random terms, weights, offset, labels
    reml: bool
    par: np.ndarray  # (n_par,) covariance parameters as optimized
    criterion_fn: Criterion  # products and structures; evaluates the criterion at other parameters
    state: Factor  # the factor of V at theta: what every diagnostic stands on
    status: Status
    optinfo: OptInfo
    family: None = None  # a Gaussian model
    residual: ResidualGroups | None = None  # residual standard deviations by group, if asked for

    # ---- numbers ----------------------------------------------------------------------------------------

    @cached_property
    def profile(self) -> Profile:
        """What is left of X and y at theta: S = LS LS' = [Q r]'V^-1[Q r] and ``rss``, lme4's pwrss.

        Q is the orthonormal basis of X, in which LS' has the part of lme4's RX. It is ``state.profile``, summed anew
        over the rows where that lost digits; without unit but ``rss``, which has that of y^2.
        """
        criterion = self.criterion_fn
        return resummed(criterion.kernel, self.state, criterion.covariance.sigma(self.par))

    @cached_property
    def _gamma(self) -> np.ndarray:
        """(p,) coefficients of the orthonormal basis of X, beyond the OLS ones."""
        LS, p = self.profile.LS, self.design.p
        return np.linalg.solve(LS[:p, :p].T, LS[p, :p]) if p else np.zeros(0)

    @cached_property
    def beta(self) -> np.ndarray:
        """(p,) fixed effects, in the order of ``design.x_names``."""
        return _readonly(self.criterion_fn.kernel.A.beta(self._gamma))

    @cached_property
    def XtVinvX_inv(self) -> np.ndarray:
        """(p, p) = (X'V^-1X)^-1 with V relative to sigma^2; ``vcov`` is sigma^2 times this."""
        p, R = self.design.p, self.criterion_fn.kernel.A.R
        if not p:
            return np.zeros((0, 0))
        half = self.profile.LS_inv[:p, :p] @ np.linalg.inv(R).T
        return _readonly(half.T @ half)

    @cached_property
    def Lambda(self) -> tuple[np.ndarray, ...]:
        """Per term, (k, k) lower relative covariance factor (Bates et al. 2015, eq. 4)."""
        return tuple(_readonly(L) for L in self.criterion_fn.covariance.Lambda(self.par))

    @cached_property
    def b(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k) conditional modes of the random effects."""
        weights = np.append(-self._gamma, 1.0)
        kernel = self.criterion_fn.kernel
        Zr = [np.tensordot(weights, C, 1)[None] for C in kernel.random_products()]
        return _by_term(self, [x[0].T for x in self.state.solve_random(Zr)])

    @cached_property
    def _condvar(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k, k) conditional covariance of b given y, sigma^2 (Sigma^-1 + Z'WZ)^-1, beta
        known."""
        blocks = [self.sigma**2 * c.transpose(2, 0, 1) for c in self.state.conditional()]
        return _by_term(self, blocks, square=True)

    def diag_Vinv(self) -> np.ndarray:
        """(n,) diagonal of V^-1, V = W^-1 + Z Lambda Lambda' Z' (relative to sigma^2). Cost O(n) for one
        factor."""
        quadratic = self.state.quadratic()
        w = self.design.weights
        return 1.0 - quadratic if w is None else w * (1.0 - quadratic)

    def solve_V(self, B: np.ndarray) -> np.ndarray:
        """V^-1 B for B (n, r), V relative to sigma^2; no n x n matrix is formed."""
        A = self.criterion_fn.kernel.A
        rows = np.asarray(B, float).reshape(self.design.n, -1).T
        rows = rows if A.sqrt_w is None else rows * A.sqrt_w
        random = self.state.solve_random([block.products(rows) for block in A.blocks])
        out = without_random(rows, A.blocks, random)
        out = out if A.sqrt_w is None else out * A.sqrt_w
        return out.T.reshape(np.shape(B))

    @property
    def sigma(self) -> float:
        """Residual standard deviation, unit of y: eq. 40 (REML, denominator n - p) or 33 (ML, n)."""
        known = self.state.like.sigma
        profile = self.profile
        return float(np.sqrt(profile.rss / profile.nu)) if known is None else known

    @property
    def criterion(self) -> float:
        """REML criterion (eq. 41) if ``reml``, else -2 log-likelihood (eq. 34)."""
        return self.profile.f

    @property
    def loglik(self) -> float:
        """-criterion / 2; the restricted log-likelihood if ``reml``, as lme4's logLik."""
        return -0.5 * self.criterion

    @property
    def df(self) -> int:
        """Number of estimated parameters: p + covariance parameters + 1 for sigma (0 if sigma was given)."""
        ratios = 0 if self.residual is None else len(self.residual.levels) - 1
        return self.design.p + len(self.par) + (self.state.like.sigma is None) + ratios

    @property
    def aic(self) -> float:
        """criterion + 2 df."""
        return self.criterion + 2 * self.df

    @property
    def bic(self) -> float:
        """criterion + log(n) df, n the number of rows."""
        return self.criterion + np.log(self.nobs) * self.df

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.design.n

    @property
    def is_singular(self) -> bool:
        """True if a diagonal entry of Lambda vanishes: see ``singular_terms``."""
        return bool(self.singular_terms())

    def singular_terms(self, tol: float = SINGULAR) -> list[str]:
        """Names of the terms of which a diagonal entry of Lambda is below ``tol``, as such and times the root mean
        square of its column of the model matrix.

        lme4's isSingular looks at the entry alone, and so calls the slope of a covariate in small units singular.
        """
        out = []
        names = term_names([term.group for term in self.design.terms])
        for name, term, L in zip(names, self.design.terms, self.Lambda, strict=True):
            small = np.flatnonzero(np.abs(L.diagonal()) < tol)
            size = [np.sqrt(np.mean(np.square(term.columns[:, k]))) for k in small]
            if any(abs(L[k, k]) * s < tol for k, s in zip(small, size, strict=True)):
                out.append(name)
        return out

    @property
    def converged(self) -> bool:
        """True if the optimizer met its tolerance (or there was nothing to optimize)."""
        return self.status.ok

    # ---- labelled ---------------------------------------------------------------------------------------

    @cached_property
    def theta(self) -> pd.Series:
        """Covariance parameters in lme4's order and names, e.g. ``Subject.Days.(Intercept)``."""
        names: list[str] = []
        for term, structure in zip(self.design.terms, self.criterion_fn.covariance.structures, strict=True):
            names += [f"{term.group}.{name}" for name in structure.theta_names(term.effects)]
        return pd.Series(self.criterion_fn.covariance.theta(self.par), index=names, name="theta")

    @property
    def fixef(self) -> pd.Series:
        """Fixed effects by name."""
        return pd.Series(self.beta, index=list(self.design.x_names), name="fixef")

    @property
    def fixef_full(self) -> pd.Series:
        """Fixed effects of all columns, NaN for those dropped because X was rank deficient."""
        return self.fixef.reindex(list(self.design.x_names_full))

    @property
    def vcov(self) -> pd.DataFrame:
        """Covariance of the fixed effects at this theta: sigma^2 (X'V^-1X)^-1 (eq. 54)."""
        names = list(self.design.x_names)
        return pd.DataFrame(self.sigma**2 * self.XtVinvX_inv, index=names, columns=names)

    @property
    def se(self) -> pd.Series:
        """Standard errors: square roots of the diagonal of ``vcov``."""
        values = self.sigma * np.sqrt(np.diag(self.XtVinvX_inv))
        return pd.Series(values, index=list(self.design.x_names), name="se")

    @property
    def ngroups(self) -> dict[str, int]:
        """Levels per grouping factor."""
        return {t.group: len(t.levels) for t in self.design.terms}

    @property
    def varcorr(self) -> VarCorr:
        """Covariances of the random effects and the residual standard deviation."""
        terms = [
            TermCovariance(t.group, t.effects, self.sigma**2 * (L @ L.T))
            for t, L in zip(self.design.terms, self.Lambda, strict=True)
        ]
        return VarCorr(terms, self.sigma)

    @property
    def ranef(self) -> dict[str, pd.DataFrame]:
        """Conditional modes by grouping factor: levels x effects."""
        frames: dict[str, pd.DataFrame] = {}
        for t, b in zip(self.design.terms, self.b, strict=True):
            part = pd.DataFrame(b, index=t.index, columns=list(t.effects))
            frames[t.group] = pd.concat([frames[t.group], part], axis=1) if t.group in frames else part
        return frames

    @property
    def condvar(self) -> dict[str, np.ndarray]:
        """Conditional covariances of the random effects by term name: (levels, k, k); beta is taken as
        known."""
        return dict(zip(self.varcorr, self._condvar, strict=True))

    def coef(self) -> dict[str, pd.DataFrame]:
        """Per grouping factor, fixed effects plus the level's random effects (levels x all effects)."""
        out = {}
        for group, effects in self.ranef.items():
            columns = list(dict.fromkeys([*self.design.x_names, *effects.columns]))
            base = self.fixef.reindex(columns, fill_value=0.0).to_numpy()
            frame = pd.DataFrame(np.tile(base, (len(effects), 1)), index=effects.index, columns=columns)
            frame[list(effects.columns)] += effects
            out[group] = frame
        return out

    @cached_property
    def _random_part(self) -> np.ndarray:
        """(n,) Z b."""
        out = np.zeros(self.design.n)
        for t, b in zip(self.design.terms, self.b, strict=True):
            for k in range(b.shape[1]):
                out += t.columns[:, k] * b[:, k][t.codes]
        return out

    @cached_property
    def residual_marginal(self) -> np.ndarray:
        """(n,) y - X beta - offset of the rows used, unit of y: y - predict(m, re.form = NA) in lme4, HLMdiag's
        resid_marginal, and not the conditional residuals of ``resid``.

        From what the basis of X leaves of y and not as y less a mean: beta would bring in the rounding of the whole
        model, which a row that nearly fixes its own mean (a large weight, leverage near one) has to divide by.
        """
        A = self.criterion_fn.kernel.A
        r = A.M[A.p] - self._gamma @ A.M[: A.p]
        return _readonly(r if A.sqrt_w is None else r / A.sqrt_w)

    @cached_property
    def fitted_marginal(self) -> np.ndarray:
        """(n,) X beta + offset."""
        return self.design.y - self.residual_marginal

    @property
    def fitted_values(self) -> np.ndarray:
        """(n,) conditional fitted values X beta + Z b + offset of the rows used."""
        return self.fitted_marginal + self._random_part

    @property
    def fitted(self) -> pd.Series:
        """``fitted_values`` by row label; with ``na_action="exclude"`` NaN where rows were left out."""
        return self._by_row(self.fitted_values, "fitted")

    def residual_values(self, type: str = "response", scaled: bool = False) -> np.ndarray:
        """(n,) conditional residuals of the rows used; kinds as in ``resid``."""
        if type not in ("response", "working", "pearson", "deviance"):
            raise UnsupportedError(
                f"resid(type={type!r}) is not one of 'response', 'pearson', 'deviance', 'working'"
            )
        values = self.residual_marginal - self._random_part
        if type in ("pearson", "deviance") and self.design.weights is not None:
            values = values * np.sqrt(self.design.weights)
        return values / self.sigma if scaled else values

    def resid(self, type: str = "response", scaled: bool = False) -> pd.Series:
        """Conditional residuals by row label; with ``na_action="exclude"`` NaN where rows were left out.

        ``response`` and ``working``: y - fitted. ``pearson`` and ``deviance``: sqrt(weight) (y - fitted).
        ``scaled`` divides by sigma. As lme4's residuals.merMod; marginal residuals are ``hlm_resid``'s. A generalised
        model has ``pearson`` sqrt(w) (y - mu) / sqrt(V), ``working`` (y - mu) / mu' and as ``deviance`` (R's default
        there) the signed root of the row's deviance.
        """
        return self._by_row(self.residual_values(type, scaled), "resid")

    def _by_row(self, values: np.ndarray, name: str) -> pd.Series:
        d = self.design
        if d.na_action != "exclude" or d.rows is None:
            return pd.Series(values, index=d.index, name=name)
        full = np.full(d.n_input, np.nan)
        full[d.rows] = values
        return pd.Series(full, index=d.source.index, name=name)

    @property
    def formula(self) -> str:
        """The formula, rebuilt from its tree."""
        return self.design.formula.to_r()

    def summary(self) -> str:
        """Text in the layout of lme4's summary()."""
        return summary_text(self)

    def __repr__(self) -> str:
        return self.summary()

    def refit(self, y: Sequence[float] | np.ndarray) -> Fit:
        """The same model for another response: a Series goes by its labels, an array by position."""
        return fit_design(self.design.with_response(y), reml=self.reml, sigma=self.state.like.sigma)

    def update(self, formula: str | None = None, data: Any = None, **changes: Any) -> Fit:
        """The model fitted again with some arguments changed; ``fit.update(reml=False)``, ``fit.update("~ . + x")``.

        ``formula`` may use ``.`` for what stands on that side now. ``data``: None takes the variables of the model
        frame, which is enough unless the formula names new ones (then a DataError names them) or the fit has
        weights and other data are wanted. Other arguments are those of :func:`lmer`; those not given are kept.
        """
        return _update(self, formula, data, changes)

    def predict(
        self,
        newdata: Any = None,
        *,
        re_form: str | bool | None = None,
        type: str = "link",
        allow_new_levels: bool = False,
        se_fit: bool = False,
        offset: Any = None,
    ) -> Any:
        """Predicted values of the rows of the fit or of ``newdata``: see :func:`mmcore.predict.predict`."""
        return predict(
            self,
            newdata,
            re_form=re_form,
            type=type,
            allow_new_levels=allow_new_levels,
            se_fit=se_fit,
            offset=offset,
        )

    def simulate(
        self, nsim: int = 1, rng: np.random.Generator | int | None = None, *, use_u: bool = False
    ) -> pd.DataFrame:
        """Responses drawn from the model, (n, nsim): see :func:`mmcore.simulate.simulate`."""
        return simulate(self, nsim, rng, use_u=use_u)

    @property
    def has_rows(self) -> bool:
        """Whether the rows of the data are at hand: fitted values, residuals and influence need them."""
        return True

    def require_rows(self, what: str) -> None:
        """Raise UnsupportedError if the rows of the data are not at hand."""

    def __getstate__(self) -> dict[str, Any]:
        names = self.__dataclass_fields__
        return {k: v for k, v in self.__dict__.items() if k in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class ChunkedFit(Fit):
    """A fit from partitions: all estimates, but no rows. Fitted values and residuals raise UnsupportedError;
    ``predict(newdata)`` works for any partition."""

    @property
    def has_rows(self) -> bool:
        """False: the rows of partitions are not kept."""
        return False

    @property
    def nobs(self) -> int:
        """Rows used, of all partitions."""
        return self.criterion_fn.kernel.A.n

    @property
    def profile(self) -> Profile:
        """Of the kernel: there are no rows to be summed."""
        return self.state.profile

    def _refuse(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{what} needs the rows of the data, which a fit from partitions does not keep: "
            "use predict(newdata=partition), or fit the rows in memory"
        )

    def require_rows(self, what: str) -> None:
        """Raises UnsupportedError naming ``what``."""
        raise self._refuse(what)

    def diag_Vinv(self) -> np.ndarray:
        """Not available without rows."""
        raise self._refuse("diag_Vinv")

    def solve_V(self, B: np.ndarray) -> np.ndarray:
        """Not available without rows."""
        raise self._refuse("solve_V")

    @property
    def fitted_values(self) -> np.ndarray:
        """Not available without rows."""
        raise self._refuse("fitted")

    @property
    def fitted_marginal(self) -> np.ndarray:
        """Not available without rows."""
        raise self._refuse("fitted_marginal")

    @property
    def residual_marginal(self) -> np.ndarray:
        """Not available without rows."""
        raise self._refuse("residual_marginal")

    def residual_values(self, type: str = "response", scaled: bool = False) -> np.ndarray:
        """Not available without rows."""
        raise self._refuse("resid")

    def refit(self, y: Any) -> Fit:
        """Not available without rows."""
        raise self._refuse("refit")

    def update(self, formula: str | None = None, data: Any = None, **changes: Any) -> Fit:
        """Not available without rows: call lmer again."""
        raise self._refuse("update")

    def simulate(
        self, nsim: int = 1, rng: np.random.Generator | int | None = None, *, use_u: bool = False
    ) -> pd.DataFrame:
        """Not available without rows."""
        raise self._refuse("simulate")

    def predict(self, newdata: Any = None, **options: Any) -> Any:
        """Predictions for a partition or other rows; standard errors only without random effects."""
        if newdata is None:
            raise self._refuse("predict without newdata")
        return super().predict(newdata, **options)


_UPDATABLE = frozenset(
    {"reml", "weights", "offset", "contrasts", "na_action", "start", "sigma", "residual", "control"}
)
_DOT = re.compile(r"(?<![\w.`])\.(?![\w.`])")


def _update(fit: Fit, formula: str | None, data: Any, changes: dict[str, Any]) -> Fit:
    """See :meth:`Fit.update`."""
    if fit.family is not None or not fit.design.terms:
        raise UnsupportedError("update is for linear mixed models; call mm.lm, mm.glm or mm.glmer again")
    unknown = sorted(set(changes) - _UPDATABLE)
    if unknown:
        raise DataError(
            f"update has no argument {unknown[0]!r}; it has formula, data, {', '.join(sorted(_UPDATABLE))}"
        )
    kept: dict[str, Any] = {
        "reml": fit.reml,
        "sigma": fit.state.like.sigma,
        "na_action": fit.design.na_action,
    }
    kept["contrasts"] = fit.design.source.contrasts
    if data is None:
        data = fit.design.frame()
        prior = fit.design.weights
        if fit.residual is not None and prior is not None:
            prior = prior * fit.residual.ratio[fit.residual.codes] ** 2
        kept["weights"] = prior
        kept["offset"] = data["(offset)"].to_numpy() if "(offset)" in data else None
    if fit.residual is not None and "residual" not in changes:
        raise UnsupportedError(
            "pass residual= to update: the model frame does not hold the grouping of the residual"
        )
    text = fit.formula if formula is None else _dotted(fit.formula, formula)
    from .lmer import lmer

    return lmer(text, data, **(kept | changes))


def _dotted(present: str, wanted: str) -> str:
    """``wanted`` with ``.`` replaced by what stands on that side of ``present``."""
    sides = [side.strip() for side in present.split("~", 1)]
    left, tilde, right = wanted.rpartition("~")
    if not tilde:
        raise DataError(f"update needs a formula with '~', such as '. ~ . + x', not {wanted!r}")
    left = _DOT.sub(lambda _: sides[0], left.strip() or ".")
    # without parentheses: a minus or plus that follows applies to each term alike
    return f"{left} ~ {_DOT.sub(lambda _: sides[1], right)}"


def _readonly(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


def _by_term(fit: Fit, blocks: list[np.ndarray], square: bool = False) -> tuple[np.ndarray, ...]:
    """Cut per-block arrays (L, K[, K]) into one array per term, in the order and coordinates of the
    design."""
    out: list[np.ndarray] = [np.empty(0)] * len(fit.design.terms)
    for block, values in zip(fit.criterion_fn.kernel.A.blocks, blocks, strict=True):
        at = 0
        for t in block.terms:
            rows = slice(at, at + len(fit.design.terms[t].effects))
            part = values[:, rows, rows] if square else values[:, rows]
            if block.frame is not None:
                C = block.frame[rows, rows]
                part = C @ part @ C.T if square else part @ C.T
            out[t] = _readonly(np.ascontiguousarray(part))
            at = rows.stop
    return tuple(out)


def fit_design(
    design: Design,
    *,
    reml: bool = True,
    start: Sequence[float] | np.ndarray | None = None,
    sigma: float | None = None,
    control: Control | None = None,
    products: CrossProducts | None = None,
) -> Fit:
    """Estimate theta for a design: the whole of ``lmer`` after its formula, and of every deletion refit.

    ``products`` may be given when they exist already; with those of partitions the fit is a :class:`ChunkedFit`.
    """
    criterion = criterion_for(design, Likelihood(reml, sigma), products)
    cov = criterion.covariance
    work, first = criterion.charted()
    if start is not None:
        first = work.covariance.from_standard(cov.from_theta(_check_theta(start, criterion)))
    optimum = minimize(work, first, cov.scale_index(), control or Control())
    if not optimum.status.ok and np.abs(optimum.par[cov.scale_index()]).max() > NO_RESIDUAL:
        raise FitError(
            "the random effects reproduce the response exactly: the criterion falls without limit as the residual "
            "variance goes to zero. Drop a term, or look for a response that is constant within groups"
        )
    par = optimum.objective.covariance.to_standard(optimum.par)
    info = OptInfo(
        "newton",
        optimum.evaluations,
        optimum.iterations,
        optimum.gradient,
        optimum.status.value,
        optimum.starts,
    )
    kind = Fit if products is None else ChunkedFit
    return kind(design, reml, _readonly(par), criterion, optimum.factor, optimum.status, info)


def _check_theta(theta: Sequence[float] | np.ndarray, criterion: Criterion) -> np.ndarray:
    values = np.asarray(theta, float).ravel()
    expected = criterion.covariance.n_theta
    if len(values) != expected or not np.isfinite(values).all():
        raise DataError(f"theta needs {expected} finite values for this model, got {len(values)}: {values!r}")
    return values


def lm(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str] | None = None,
    na_action: str = "omit",
) -> Fit:
    """Fit a linear model by least squares: the mixed model with q = 0.

    ``sigma`` has denominator n - p and ``criterion`` is -2 log-likelihood with the ML variance, as R's
    lm/logLik.
    """
    design = build(formula, data, weights=weights, offset=offset, contrasts=contrasts, na_action=na_action)
    if design.terms:
        raise UnsupportedError(f"{formula!r} has random-effects terms; use mm.lmer")
    return fit_design(design, reml=True)


def fit_design_at(
    design: Design, theta: Sequence[float] | np.ndarray, *, reml: bool = True, sigma: float | None = None
) -> Fit:
    """``fit_at`` for a design that exists already."""
    criterion = criterion_for(design, Likelihood(reml, sigma))
    par = criterion.covariance.from_theta(_check_theta(theta, criterion))
    factor = criterion.factor(par)
    gradient = criterion.derivatives(par, factor)[0] if len(par) else par
    info = OptInfo("none", 1, 0, gradient, Status.NOT_OPTIMIZED.value)
    return Fit(design, reml, _readonly(par), criterion, factor, Status.NOT_OPTIMIZED, info)
