"""Satterthwaite's degrees of freedom, from exact derivatives.

A contrast l of the fixed effects has variance v(phi) = l' vcov(phi) l, phi = (theta, sigma). With A the covariance of
the estimate of phi, twice the inverse Hessian of the criterion,
    df = 2 v^2 / (g' A g),    g = dv / dphi.
lmerTest takes the same derivatives by differences. Covariance parameters are ``fit.par``, which is theta but for
``cs`` and ``ar1``; log sigma stands for sigma, which changes nothing but the unit.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ...errors import MixedModelWarning, UnsupportedError
from ...glmm.fit import is_generalized
from ...results.fit import Fit
from .curvature import along_parameters, exact_hessian
from .ftest import NO_TEST, FTest, pooled_df

__all__ = ["Satterthwaite", "need_linear_mixed", "satterthwaite", "singular_directions"]

POSITIVE = 1e-10  # least pivot of the Hessian, scaled to a diagonal of ones, at which it is plainly inverted
NO_CURVATURE = 1e-8  # eigenvalue of the Hessian in (theta, sigma) below which lmerTest leaves a direction out
RANK = 1.5e-8  # relative eigenvalue of L vcov L' below which a row of L repeats others
NOT_ZERO = 1e-6  # relative change of vcov along a direction that is left out, above which this is said


@dataclass(frozen=True, slots=True)
class Satterthwaite:
    """What the degrees of freedom of any contrast are made from."""

    vcov: np.ndarray  # (p, p) of the fixed effects
    jacobian: np.ndarray  # (r, p, p) its derivatives by the covariance parameters and log sigma
    vcov_par: np.ndarray  # (r, r) covariance of the estimates of these

    def df(self, contrast: np.ndarray) -> float:
        """Degrees of freedom of one contrast (p,)."""
        variance = contrast @ self.vcov @ contrast
        slope = self.jacobian @ contrast @ contrast
        spread = float(slope @ self.vcov_par @ slope)
        return float(2.0 * variance**2 / spread) if spread > 0.0 else np.inf

    def f_test(self, L: np.ndarray, estimate: np.ndarray) -> FTest:
        """F of L beta = rhs, L (q, p) and ``estimate`` (q,) L beta - rhs.

        Rows are turned into uncorrelated contrasts, the eigenvectors of L vcov L', whose df are pooled. The df of
        several rows depend on how these are scaled, not only on the space they span.
        """
        variances, vectors = np.linalg.eigh(L @ self.vcov @ L.T)
        kept = variances > RANK * max(variances.max(initial=0.0), 0.0)
        if not kept.any():
            return NO_TEST
        turned = vectors[:, kept].T
        F = float(np.mean((turned @ estimate) ** 2 / variances[kept]))
        df = np.array([self.df(row) for row in turned @ L])
        return FTest(F, F, int(kept.sum()), pooled_df(df))


def need_linear_mixed(fit: Fit, what: str) -> None:
    """Raise UnsupportedError unless the fit is a linear mixed model with its rows, all of whose variance parameters
    are in ``fit.par`` and ``fit.sigma``.
    """
    if is_generalized(fit) or not fit.design.terms:
        raise UnsupportedError(f"{what} are defined for linear mixed models (mm.lmer); pass ddf=None")
    if fit.residual is not None:
        raise UnsupportedError(
            f"{what} do not know residual standard deviations by group (residual='varident(...)'): "
            "their estimation costs degrees of freedom that would not be counted; pass ddf=None"
        )
    fit.require_rows(what)


def satterthwaite(fit: Fit) -> Satterthwaite:
    """Derivatives and covariances that Satterthwaite's degrees of freedom of a linear mixed model need.

    Notes
    -----
    At a singular fit the parameters that are zero do not move vcov and count as known, as in lmerTest. A direction in
    which the criterion does not curve upwards, so that the fit is no optimum there, is left out as in lmerTest, with a
    warning where vcov depends on it. Cost: that of one Newton step; no n x n matrix.
    """
    need_linear_mixed(fit, "Satterthwaite degrees of freedom")
    prof, p, sigma = fit.working.profile, fit.design.p, fit.sigma
    second = along_parameters(fit)
    criterion = fit.working.criterion_fn
    H = criterion.derivatives(fit.par, fit.state)[1] if criterion.exact else exact_hessian(fit, second)
    half = sigma * np.linalg.solve(criterion.kernel.A.R, prof.LS_inv[:p, :p].T) if p else np.zeros((0, 0))
    jacobian = half @ second.P[:, :p, :p] @ half.T
    vcov = half @ half.T
    if fit.state.like.sigma is None:
        jacobian = np.concatenate([jacobian, 2.0 * vcov[None]])
        H = _with_log_sigma(H, second.P[:, p, p], prof.nu)
    return Satterthwaite(vcov, jacobian, _covariance(H, jacobian, vcov, sigma, fit.state.like.sigma is None))


def _with_log_sigma(H: np.ndarray, q: np.ndarray, nu: int) -> np.ndarray:
    """(r + 1, r + 1) Hessian in (theta, log sigma) of the criterion of which ``H`` has sigma profiled out.

    f = log-determinants + rss / sigma^2 + nu log sigma^2, q = -(d rss / d theta) / sigma^2.
    """
    r = len(H)
    out = np.empty((r + 1, r + 1))
    out[:r, :r] = H + np.outer(q, q) / nu
    out[r, :r] = out[:r, r] = 2.0 * q
    out[r, r] = 4.0 * nu
    return out


def _covariance(
    H: np.ndarray, jacobian: np.ndarray, vcov: np.ndarray, sigma: float, with_sigma: bool
) -> np.ndarray:
    """Twice the inverse of the Hessian; where it is not positive definite, of its part that is."""
    size = np.sqrt(np.abs(H.diagonal()))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(H / size / size[:, None])
    if len(H) and values[0] > POSITIVE:
        root = vectors / size[:, None]
        return 2.0 * (root / values) @ root.T
    unit = np.append(np.ones(len(H) - with_sigma), [1.0 / sigma] * with_sigma)  # theta, sigma: lmerTest's
    values, vectors = np.linalg.eigh(H * unit * unit[:, None])
    kept = values > NO_CURVATURE
    _say_left_out(vectors[:, ~kept] * unit[:, None], jacobian, vcov)
    root = vectors[:, kept] * unit[:, None]
    return 2.0 * (root / values[kept]) @ root.T


def _say_left_out(directions: np.ndarray, jacobian: np.ndarray, vcov: np.ndarray) -> None:
    """Warn if vcov changes along directions in which the criterion does not curve upwards."""
    change = np.abs(np.tensordot(directions.T, jacobian, 1)).max(initial=0.0)
    if change > NOT_ZERO * np.abs(vcov).max(initial=0.0):
        warnings.warn(
            MixedModelWarning(
                "the criterion has no minimum in some direction of the variance parameters at this fit: "
                "Satterthwaite degrees of freedom leave it out. Fit by lmer, or pass theta of an optimum"
            ),
            stacklevel=4,
        )


def singular_directions(fit: Fit, tol: float = 1e-4) -> dict[str, np.ndarray]:
    """Per term with a singular covariance, (d, k) combinations of its effects whose variance is zero.

    Degrees of freedom take these variances as known to be zero. Rows have length one; ``tol`` is relative to sigma.
    """
    out: dict[str, np.ndarray] = {}
    for name, L in zip(fit.varcorr, fit.Lambda, strict=True):
        values, vectors = np.linalg.eigh(L @ L.T)
        zero = values < tol**2
        if zero.any():
            out[name] = vectors[:, zero].T
    return out
