"""Standard errors of variances and covariances from the observed information, as Stata's mixed prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from ...covariance.blocks import BlockCovariance
from ...covariance.compound import Compound
from ...covariance.diagonal import Diagonal
from ...covariance.structure import SINGULAR
from ...covariance.unstructured import Unstructured
from ...errors import UnsupportedError
from ...glmm.fit import GeneralizedFit, is_generalized
from ...glmm.laplace import JointLaplace
from ...kernels.criterion import Criterion
from ...results.fit import Fit
from .held import of_rss
from .level import tails
from .parameters import Parameter, has_sigma, parameters, require_fit

__all__ = ["varcomp_se"]

DIFFERENCE = 1e-3  # step of a difference of exact gradients, in units of the parameters or 1


def varcomp_se(fit: Fit, level: float = 0.95) -> pd.DataFrame:
    """Variances and covariances of a mixed model with standard errors and intervals.

    Parameters
    ----------
    fit : Fit
        Of ``lmer`` or ``glmer`` (known dispersion, nagq >= 1); by ML or REML, whichever the fit was.
    level : float
        Of the intervals, between 0 and 1.

    Returns
    -------
    DataFrame
        Rows ``var_(Intercept)|g``, ``cov_x.(Intercept)|g``, ``cor_rho|g`` (of cs and ar1), ``var_Residual``; columns
        ``estimate``, ``std.error``, ``low``, ``high``.

    Raises
    ------
    DataError
        For a level outside (0, 1).
    UnsupportedError
        For models without random effects, ``varident``, a mixed model with a dispersion, nagq = 0.

    Notes
    -----
    Delta method from twice the inverse of the Hessian of the criterion in the covariance parameters and log sigma
    (and the coefficients of a generalized model). Intervals of variances are symmetric on the log scale, of a
    correlation on that of atanh, of covariances as they are: Stata's. A variance of zero has no standard error (NaN);
    what lies on the boundary is taken as known for the others. Not lme4's profile intervals, which are better where a
    variance is not far from zero: ``mm.confint(fit, method="profile")``.

    References
    ----------
    Pinheiro and Bates (2000), section 2.4.3. StataCorp, Multilevel Mixed-Effects Reference Manual, ``mixed``.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.intervals.varcomp_se import varcomp_se
    >>> fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"), reml=False)
    >>> varcomp_se(fit).round(1).loc["var_Residual"].tolist()
    [2451.3, 707.6, 1392.1, 4316.3]
    """
    require_fit(fit, "varcomp_se")
    z = float(norm.ppf(tails(level)[1]))
    information = _of_generalized(fit) if is_generalized(fit) else _of_linear(fit)
    wanted = [p for p in parameters(fit) if p.kind != "beta"]
    V, rows = _covariance(information), {}
    for which in wanted:
        estimate, slope = information.component(which)
        se = float(np.sqrt(max(slope @ V @ slope, 0.0))) if V is not None else np.nan
        on_boundary = estimate == 0.0 and which.kind in ("sd", "sigma")
        se = np.nan if on_boundary or not slope.any() else se
        rows[_name(which)] = [estimate, se, *_interval(which, estimate, se, z)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "std.error", "low", "high"])


def _name(which: Parameter) -> str:
    if which.kind == "sigma":
        return "var_Residual"
    return {"sd": "var", "cor": "cov", "rho": "cor"}[which.kind] + which.name[which.name.index("_") :]


def _interval(which: Parameter, estimate: float, se: float, z: float) -> tuple[float, float]:
    if which.kind == "cor" or np.isnan(se):
        return estimate - z * se, estimate + z * se
    if which.kind == "rho":
        half = z * se / (1.0 - estimate**2) if abs(estimate) < 1.0 else np.nan
        return float(np.tanh(np.arctanh(estimate) - half)), float(np.tanh(np.arctanh(estimate) + half))
    factor = float(np.exp(z * se / estimate))
    return estimate / factor, estimate * factor


@dataclass(frozen=True, slots=True)
class _Information:
    """Second derivatives of the criterion at the estimates, and what the components are there."""

    hessian: np.ndarray  # (m, m) in other parameters, covariance parameters, log sigma
    lead: int  # parameters before those of the covariance
    covariance: BlockCovariance
    par: np.ndarray  # (n_par,)
    sigma: float
    free_sigma: bool  # whether log sigma is the last parameter

    def component(self, which: Parameter) -> tuple[float, np.ndarray]:
        """Value and (m,) gradient of a variance, a covariance or rho."""
        slope, n = np.zeros(len(self.hessian)), len(self.par)
        own = slice(self.lead, self.lead + n)
        if which.kind == "sigma":
            slope[-1] = 2.0 * self.sigma**2
            return self.sigma**2, slope
        if which.kind == "rho":
            at = sum(s.n_par for s in self.covariance.structures[: which.term + 1]) - 1
            slope[self.lead + at] = 1.0
            return float(self.par[at]), slope
        i, j = which.i, which.i if which.kind == "sd" else which.j
        value, gradient = self._entry(which.term, i, j)
        slope[own] = self.sigma**2 * gradient
        value *= self.sigma**2
        if self.free_sigma:
            slope[-1] = 2.0 * value
        return value, slope

    def _entry(self, t: int, i: int, j: int) -> tuple[float, np.ndarray]:
        """Entry of the relative covariance of term t and its (n_par,) gradient."""
        cov = self.covariance
        b = next(k for k, terms in enumerate(cov.blocks) if t in terms)
        rows = cov.rows[b][cov.blocks[b].index(t)]
        C = cov.frames[b][rows, rows]
        gradient = np.zeros(len(self.par))
        E = cov.jacobian(self.par)[b][:, rows, rows]
        gradient[cov.index[b]] = np.einsum("c,kcd,d->k", C[i], E, C[j])
        Sigma = C @ cov.sigma(self.par)[b][rows, rows] @ C.T
        return float(Sigma[i, j]), gradient


def _covariance(information: _Information) -> np.ndarray | None:
    """(m, m) covariance of the parameters, zero for those on the boundary; None where the rest are not identified."""
    H = information.hessian
    free = np.ones(len(H), bool)
    free[information.lead + _on_boundary(information.covariance, information.par)] = False
    out = np.zeros(H.shape)
    if not np.isfinite(H).all():
        return None
    scale = np.sqrt(np.abs(H.diagonal()[free]))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(H[np.ix_(free, free)] / scale / scale[:, None])
    if len(values) and values[0] <= 1e-10:
        return None
    half = vectors / scale[:, None]
    out[np.ix_(free, free)] = 2.0 * (half / values) @ half.T
    return out


def _on_boundary(cov: BlockCovariance, par: np.ndarray) -> np.ndarray:
    """Positions of parameters at the limit of their domain; of a zero pivot the whole column."""
    out: list[int] = []
    first = 0
    for structure in cov.structures:
        piece = par[first : first + structure.n_par]
        if isinstance(structure, Unstructured):
            k, at = structure.k, 0
            for j in range(k):
                if abs(piece[at]) < SINGULAR:
                    out += range(first + at, first + at + k - j)
                at += k - j
        elif isinstance(structure, Diagonal | Compound):
            out += [first + i for i in structure.scale_index if abs(piece[i]) < SINGULAR]
            if structure.bounds is not None and piece[-1] in (
                structure.bounds[0][-1],
                structure.bounds[1][-1],
            ):
                out.append(first + len(piece) - 1)
        first += structure.n_par
    return np.array(sorted(set(out)), np.intp)


# --- the two kinds of model -----------------------------------------------------------------------------------------


def _of_linear(fit: Fit) -> _Information:
    if not fit.design.terms:
        raise UnsupportedError(
            "varcomp_se needs random effects: a linear model has one variance, fit.sigma ** 2"
        )
    if fit.residual is not None:
        raise UnsupportedError("varcomp_se does not know models with residual='varident(...)'")
    free_sigma = has_sigma(fit)
    base, par = fit.working.criterion_fn, np.array(fit.par)
    at_sigma = Criterion(base.kernel, base.covariance, replace(fit.state.like, sigma=fit.sigma))
    factor = at_sigma.factor(par)
    g, H = at_sigma.derivatives(par, factor)
    if not base.exact:
        H = _differences(lambda x: at_sigma.derivatives(x, at_sigma.factor(x))[0], par)
    if free_sigma:
        across = -2.0 * of_rss(at_sigma, par, factor, g)
        corner = 4.0 * factor.profile.rss * factor.profile.per_rss
        H = np.block([[H, across[:, None]], [across, np.array([[corner]])]])
    return _Information(H, 0, base.covariance, par, fit.sigma, free_sigma)


def _of_generalized(fit: GeneralizedFit) -> _Information:
    if not fit.is_mixed:
        raise UnsupportedError("varcomp_se needs random effects: this is a generalized linear model")
    if not fit.family.dispersion_known:
        raise UnsupportedError(
            f"varcomp_se does not know mixed models with a dispersion (family {fit.family.name})"
        )
    objective, point = fit.solution.objective, fit.solution.point
    if objective is None or point is None or isinstance(objective, JointLaplace):
        raise UnsupportedError(
            "varcomp_se needs the likelihood in fixed effects and theta: fit with nagq >= 1"
        )
    p = objective.p
    return _Information(fit.hessian, p, objective.covariance, point.x[p:], 1.0, False)


def _differences(gradient: Callable[[np.ndarray], np.ndarray], par: np.ndarray) -> np.ndarray:
    """(n, n) Hessian: fourth-order central differences of an exact gradient."""
    H = np.empty((len(par), len(par)))
    for i in range(len(par)):
        h = DIFFERENCE * max(1.0, abs(par[i]))
        e = np.eye(len(par))[i] * h
        near = gradient(par + e) - gradient(par - e)
        wide = gradient(par + 2.0 * e) - gradient(par - 2.0 * e)
        H[i] = (8.0 * near - wide) / (12.0 * h)
    return 0.5 * (H + H.T)
