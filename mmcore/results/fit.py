"""What every fitted model is: estimates, and their labelled views.

:class:`Fit` is the base of all fitted models. Each kind of model computes the numbers; the labelled views stand here
once. :class:`LinearEstimates` adds the numbers of generalized least squares. They belong to linear models, and to the
working model of any other: V, beta, b and sigma at a given theta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ..covariance.blocks import BlockCovariance
from ..covariance.structure import SINGULAR
from ..design.build import Design
from ..design.random import RandomTerm
from ..errors import UnsupportedError
from ..families.family import Family
from ..kernels import Factor, Kernel
from ..kernels.criterion import Criterion
from ..kernels.products import Block
from ..kernels.profile import Profile
from ..kernels.whitened import resummed, without_random
from ..optimize.control import OptInfo, Status
from .groups import ResidualGroups
from .varcorr import TermCovariance, VarCorr, term_names

__all__ = ["RESIDUALS", "Fit", "Kind", "LinearEstimates", "per_term", "readonly"]

Kind = Literal["lm", "glm", "lmm", "glmm"]
RESIDUALS = ("response", "pearson", "deviance", "working")


class Fit:
    """A fitted model. Immutable; refits make new ones.

    Attributes are on the scale of the data (of the linear predictor where there is a link); ``theta`` and ``Lambda``
    are relative to ``random_scale``. A model without random effects has ``q = 0``.
    """

    if TYPE_CHECKING:  # what each kind of model gives: a field, or a property that computes it

        @property
        def kind(self) -> Kind:
            """Which model: ``lm``, ``glm``, ``lmm`` or ``glmm``."""

        @property
        def design(self) -> Design:
            """y, X, random terms, weights, offset, labels."""

        @property
        def reml(self) -> bool:
            """Whether the criterion is the restricted likelihood."""

        @property
        def par(self) -> np.ndarray:
            """(n_par,) covariance parameters as optimized."""

        @property
        def status(self) -> Status:
            """How the optimizer ended."""

        @property
        def optinfo(self) -> OptInfo:
            """What the optimizer did."""

        @property
        def beta(self) -> np.ndarray:
            """(p,) fixed effects, in the order of ``design.x_names``."""

        @property
        def b(self) -> tuple[np.ndarray, ...]:
            """Per term, (L, k) conditional modes of the random effects."""

        @property
        def condvar_values(self) -> tuple[np.ndarray, ...]:
            """Per term, (L, k, k) conditional covariance of b given y; beta is taken as known."""

        @property
        def sigma(self) -> float:
            """Residual standard deviation, or the square root of the dispersion."""

        @property
        def criterion(self) -> float:
            """What was minimized: the REML criterion, or -2 log-likelihood."""

        @property
        def df(self) -> int:
            """Number of estimated parameters."""

        @property
        def XtVinvX_inv(self) -> np.ndarray:
            """(p, p) = (X'V^-1X)^-1 of the working model."""

        @property
        def covariance(self) -> BlockCovariance:
            """From ``par`` to Lambda and Sigma."""

        @property
        def family(self) -> Family | None:
            """The distribution of the response; None for a linear model."""

        @property
        def state(self) -> Factor:
            """The factor of V of the working model."""

        @property
        def working(self) -> LinearEstimates:
            """The linear mixed model that diagnostics stand on: the fit itself, or the working model of another."""

        @property
        def fitted_values(self) -> np.ndarray:
            """(n,) conditional fitted values of the rows used."""

        @property
        def fitted_marginal(self) -> np.ndarray:
            """(n,) fitted values at b = 0."""

        def residual_values(self, type: str = "response", scaled: bool = False) -> np.ndarray:
            """(n,) conditional residuals of the rows used; kinds as in ``resid``."""

        def fit_to(self, design: Design) -> Fit:
            """The same model of another design with the same terms, started from this fit."""

        def summary(self) -> str:
            """The fit as text."""

    @property
    def residual(self) -> ResidualGroups | None:
        """Residual standard deviations by group (varident), None where there is one."""
        return None

    has_rows = True  # False: a fit from partitions, whose rows are not kept

    # ---- numbers ----------------------------------------------------------------------------------------

    @cached_property
    def Lambda(self) -> tuple[np.ndarray, ...]:
        """Per term, (k, k) lower relative covariance factor (Bates et al. 2015, eq. 4)."""
        return tuple(readonly(L) for L in self.covariance.Lambda(self.par))

    @property
    def random_scale(self) -> float:
        """Standard deviation that Lambda is relative to."""
        return self.sigma

    @property
    def factors_of_sigma(self) -> tuple[np.ndarray, ...]:
        """Per term, (k, k) factor of the covariance of the random effects relative to sigma^2."""
        return tuple(L * (self.random_scale / self.sigma) for L in self.Lambda)

    @property
    def singular_scale(self) -> float:
        """What an entry of Lambda is measured by to call it zero."""
        return 1.0

    @property
    def kernel(self) -> Kernel:
        """Products of the design, in the shape of Z, of the working model."""
        return self.working.kernel

    def diag_Vinv(self) -> np.ndarray:
        """(n,) diagonal of V^-1 of the working model, V = W^-1 + Z Lambda Lambda' Z'."""
        return self.working.diag_Vinv()

    def solve_V(self, B: np.ndarray) -> np.ndarray:
        """V^-1 B of the working model, for B (n, r)."""
        return self.working.solve_V(B)

    @property
    def vcov_values(self) -> np.ndarray:
        """(p, p) covariance of the fixed effects."""
        return self.sigma**2 * self.XtVinvX_inv

    @property
    def loglik(self) -> float:
        """-criterion / 2; the restricted log-likelihood if ``reml``, as lme4's logLik."""
        return -0.5 * self.criterion

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
            entries = np.abs(L.diagonal()) / self.singular_scale
            small = np.flatnonzero(entries < tol)
            size = [np.sqrt(np.mean(np.square(term.columns[:, k]))) for k in small]
            if any(entries[k] * s < tol for k, s in zip(small, size, strict=True)):
                out.append(name)
        return out

    @property
    def converged(self) -> bool:
        """True if the optimizer met its tolerance (or there was nothing to optimize)."""
        return self.status.ok

    def require_rows(self, what: str) -> None:
        """Raise UnsupportedError if the rows of the data are not at hand."""
        if not self.has_rows:
            raise UnsupportedError(
                f"{what} needs the rows of the data, which a fit from partitions does not keep: "
                "use predict(newdata=partition), or fit the rows in memory"
            )

    # ---- labelled ---------------------------------------------------------------------------------------

    @cached_property
    def theta(self) -> pd.Series:
        """Covariance parameters in lme4's order and names, e.g. ``Subject.Days.(Intercept)``."""
        names: list[str] = []
        for term, structure in zip(self.design.terms, self.covariance.structures, strict=True):
            names += [f"{term.group}.{name}" for name in structure.theta_names(term.effects)]
        return pd.Series(self.covariance.theta(self.par), index=names, name="theta", dtype=float)

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
        """Covariance of the fixed effects (eq. 54): theta is taken as known."""
        names = list(self.design.x_names)
        return pd.DataFrame(self.vcov_values, index=names, columns=names)

    @property
    def se(self) -> pd.Series:
        """Standard errors: square roots of the diagonal of ``vcov``."""
        values = np.sqrt(np.diag(self.vcov_values))
        return pd.Series(values, index=list(self.design.x_names), name="se")

    @property
    def ngroups(self) -> dict[str, int]:
        """Levels per grouping factor."""
        return {t.group: len(t.levels) for t in self.design.terms}

    @property
    def varcorr(self) -> VarCorr:
        """Covariances of the random effects; and the residual standard deviation, if it is estimated."""
        scale = self.random_scale**2
        terms = [
            TermCovariance(t.group, t.effects, scale * (L @ L.T))
            for t, L in zip(self.design.terms, self.Lambda, strict=True)
        ]
        known = self.family is not None and self.family.dispersion_known
        return VarCorr(terms, None if known else self.sigma)

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
        return dict(zip(self.varcorr, self.condvar_values, strict=True))

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

    @property
    def fitted(self) -> pd.Series:
        """``fitted_values`` by row label; with ``na_action="exclude"`` NaN where rows were left out."""
        return self._by_row(self.fitted_values, "fitted")

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

    def __repr__(self) -> str:
        return self.summary()

    def __getstate__(self) -> dict[str, Any]:
        names = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        return {k: v for k, v in self.__dict__.items() if k in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True, repr=False)
class LinearEstimates(Fit):
    """Generalized least squares at theta: the numbers of a linear model, mixed or not, and of a working model."""

    design: Design  # y, X, random terms, weights, offset, labels
    reml: bool
    par: np.ndarray  # (n_par,) covariance parameters as optimized
    criterion_fn: Criterion  # products and structures; evaluates the criterion at other parameters
    state: Factor  # the factor of V at theta: what every diagnostic stands on
    status: Status
    optinfo: OptInfo

    @property
    def family(self) -> None:
        """None: the response is Gaussian."""
        return None

    @property
    def kernel(self) -> Kernel:
        """Products of the design, in the shape of Z."""
        return self.criterion_fn.kernel

    @property
    def covariance(self) -> BlockCovariance:
        """From ``par`` to Lambda and Sigma."""
        return self.criterion_fn.covariance

    @property
    def working(self) -> LinearEstimates:
        """The fit itself."""
        return self

    @cached_property
    def profile(self) -> Profile:
        """What is left of X and y at theta: S = LS LS' = [Q r]'V^-1[Q r] and ``rss``, lme4's pwrss.

        Q is the orthonormal basis of X; LS' there plays the part of lme4's RX. Equals ``state.profile``, recomputed
        from the rows when cancellation has cost it digits. ``rss`` is in units of y^2; all else is unitless.
        """
        return resummed(self.kernel, self.state, self.covariance.sigma(self.par))

    @cached_property
    def gamma(self) -> np.ndarray:
        """(p,) coefficients of the orthonormal basis of X, beyond the least-squares ones."""
        LS, p = self.profile.LS, self.design.p
        return np.linalg.solve(LS[:p, :p].T, LS[p, :p]) if p else np.zeros(0)

    @cached_property
    def beta(self) -> np.ndarray:
        """(p,) fixed effects, in the order of ``design.x_names``."""
        return readonly(self.kernel.A.beta(self.gamma))

    @cached_property
    def XtVinvX_inv(self) -> np.ndarray:
        """(p, p) = (X'V^-1X)^-1 with V relative to sigma^2; ``vcov`` is sigma^2 times this."""
        p, R = self.design.p, self.kernel.A.R
        if not p:
            return np.zeros((0, 0))
        half = self.profile.LS_inv[:p, :p] @ np.linalg.inv(R).T
        return readonly(half.T @ half)

    @cached_property
    def b(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k) conditional modes of the random effects."""
        weights = np.append(-self.gamma, 1.0)
        Zr = [np.tensordot(weights, C, 1)[None] for C in self.kernel.random_products()]
        return per_term(
            self.design.terms, self.kernel.A.blocks, [x[0].T for x in self.state.solve_random(Zr)]
        )

    @cached_property
    def condvar_values(self) -> tuple[np.ndarray, ...]:
        """Per term, (L, k, k) covariance of b given y, sigma^2 (Sigma^-1 + Z'WZ)^-1; beta is taken as known."""
        blocks = [self.sigma**2 * c.transpose(2, 0, 1) for c in self.state.conditional()]
        return per_term(self.design.terms, self.kernel.A.blocks, blocks, square=True)

    def diag_Vinv(self) -> np.ndarray:
        """(n,) diagonal of V^-1, V = W^-1 + Z Lambda Lambda' Z' (relative to sigma^2). Cost O(n) for one
        factor."""
        self.require_rows("diag_Vinv")
        quadratic = self.state.quadratic()
        w = self.design.weights
        return 1.0 - quadratic if w is None else w * (1.0 - quadratic)

    def solve_V(self, B: np.ndarray) -> np.ndarray:
        """V^-1 B for B (n, r), V relative to sigma^2; no n x n matrix is formed."""
        self.require_rows("solve_V")
        A = self.kernel.A
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
    def df(self) -> int:
        """Number of estimated parameters: p + covariance parameters + 1 for sigma (0 if sigma was given)."""
        return self.design.p + len(self.par) + (self.state.like.sigma is None)

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

        Computed from the projection residual rather than as y - X beta. Subtracting the mean would carry the rounding
        error of beta into every row, and rows with leverage near one then amplify it.
        """
        self.require_rows("residual_marginal")
        A = self.kernel.A
        r = A.M[A.p] - self.gamma @ A.M[: A.p]
        return readonly(r if A.sqrt_w is None else r / A.sqrt_w)

    @cached_property
    def fitted_marginal(self) -> np.ndarray:
        """(n,) X beta + offset."""
        return self.design.y - self.residual_marginal

    @property
    def fitted_values(self) -> np.ndarray:
        """(n,) conditional fitted values X beta + Z b + offset of the rows used."""
        return self.fitted_marginal + self._random_part

    def residual_values(self, type: str = "response", scaled: bool = False) -> np.ndarray:
        """(n,) conditional residuals of the rows used; kinds as in ``resid``."""
        self.require_rows("resid")
        if type not in RESIDUALS:
            raise UnsupportedError(
                f"resid(type={type!r}) is not one of 'response', 'pearson', 'deviance', 'working'"
            )
        values = self.residual_marginal - self._random_part
        if type in ("pearson", "deviance") and self.design.weights is not None:
            values = values * np.sqrt(self.design.weights)
        return values / self.sigma if scaled else values


def per_term(
    terms: Sequence[RandomTerm], blocks: Sequence[Block], values: Sequence[np.ndarray], square: bool = False
) -> tuple[np.ndarray, ...]:
    """Cut per-block arrays (L, K[, K]) into one array per term, in the order and coordinates of the design."""
    out: list[np.ndarray] = [np.empty(0)] * len(terms)
    for block, of_block in zip(blocks, values, strict=True):
        at = 0
        for t in block.terms:
            rows = slice(at, at + len(terms[t].effects))
            part = of_block[:, rows, rows] if square else of_block[:, rows]
            if block.frame is not None:
                C = block.frame[rows, rows]
                part = C @ part @ C.T if square else part @ C.T
            out[t] = readonly(np.ascontiguousarray(part))
            at = rows.stop
    return tuple(out)


def readonly(a: np.ndarray) -> np.ndarray:
    """The array itself, which can no longer be written to."""
    a.flags.writeable = False
    return a
