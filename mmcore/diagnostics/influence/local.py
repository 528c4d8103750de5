"""Local influence: the derivative of any function of the estimates in the prior weight of each row.

With case weights omega the residual variance of row i is sigma^2 / (w_i omega_i). At omega = 1, theta kept,
    d beta / d omega_i = C a_i u_i,   d rss / d omega_i = u_i^2,   d f / d omega_i = m_i,
a = V^-1X and u = Py in sqrt(w)-scaled rows, C = (X'V^-1X)^-1, m_i = (nu / rss) u_i^2 - P_ii (v_i for ML).
Theta follows by the implicit function theorem, d theta / d omega_i = -H^-1 d m_i / d theta, and takes beta
and sigma along. A row whose weight goes to zero is a deleted row: t - t_(i) is about d t / d omega_i.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataError, UnsupportedError
from ...kernels.criterion import estimates
from ...kernels.whitened import whitened_rows
from ...results.argument import of_fit
from ...results.fit import Fit, LinearEstimates
from ...results.workspace import need_gaussian
from ..units import by_row, units
from ..varcomp import component_names, components

__all__ = ["Estimates", "local_influence"]

STEP = 1e-3  # of a conditional standard error of theta


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a function of the fit may depend on."""

    fixef: pd.Series
    theta: pd.Series
    sigma: float
    varcomp: pd.Series  # sigma2, D11, ...


@of_fit
def local_influence(fit: Fit, function: str | Callable[[Estimates], float], level: Hashable = 1) -> pd.Series:
    """Derivative of a scalar function of the estimates in the weight of each row, or of each level's rows.

    Positive: the row pulls the value up, by about this much (what deletion would take away, to first order:
    the infinitesimal jackknife). Cook (1986) with case weights; all parameters respond, theta too.

    Parameters
    ----------
    function : the name of a fixed effect or of a variance component (``"sigma2"``, ``"D11"``), or a
    function of an
        :class:`Estimates`, e.g. ``lambda e: e.fixef["x"] / e.sigma``. It is differentiated numerically.
    level : 1, or a grouping factor: all rows of a level change weight together.

    Returns
    -------
    Series by row label or level. Cost: 2 k passes over the rows for k covariance parameters.
    """
    need_gaussian(fit, "derivatives in the weights")
    u = units(fit, level)
    beta, theta, log_sigma = _row_derivatives(fit.working)
    d_beta, d_par, d_log_sigma = _gradient(fit, _as_function(fit, function))
    values = beta @ d_beta + theta @ d_par + log_sigma * d_log_sigma
    if u.is_rows or u.codes is None:
        return by_row(fit, values, "local_influence")
    return pd.Series(np.bincount(u.codes, values, len(u)), index=u.labels, name="local_influence")


def _as_function(fit: Fit, function: str | Callable[[Estimates], float]) -> Callable[[Estimates], float]:
    if callable(function):
        return function
    if function in fit.design.x_names:
        return lambda e: e.fixef[function]
    if function in component_names(fit):
        return lambda e: e.varcomp[function]
    known = ", ".join([*fit.design.x_names, *component_names(fit)])
    raise DataError(f"{function!r} is neither a fixed effect nor a variance component of the model: {known}")


def _pass(fit: LinearEstimates, par: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Factor, d f / d omega (n,), u (n,) and whitened rows (p, n) at a point."""
    kernel = fit.kernel
    factor = fit.criterion_fn.factor(par)
    white, v = whitened_rows(kernel, factor, factor.profile)[0], 1.0 - factor.quadratic()
    a, u = white[:-1], white[-1] * np.sqrt(factor.profile.rss)
    lost = v - np.einsum("in,in->n", a, a) if factor.like.reml else v
    return factor, factor.profile.per_rss * u * u - lost, u, a


def _row_derivatives(fit: LinearEstimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, p) d beta, (n, k) d par and (n,) d log sigma in the weights of the rows."""
    par, k = np.array(fit.par), len(fit.par)
    kernel, known = fit.kernel, fit.state.like.sigma
    factor, _, u, a = _pass(fit, par)
    prof, p = factor.profile, kernel.A.p
    half = np.linalg.solve(kernel.A.R, prof.LS_inv[:p, :p].T) if p else np.zeros((0, 0))
    beta = (half @ (a * u)).T
    log_rss = u * u / prof.rss
    d_par = np.zeros((len(u), k))
    if k:
        if fit.covariance.bounds is not None:
            raise UnsupportedError(
                "local influence needs covariance parameters without limits (us or diag terms)"
            )
        d_par, d_beta, d_log_rss = _through_theta(fit, par)
        beta = beta + d_par @ d_beta
        log_rss = log_rss + d_par @ d_log_rss
    return beta, d_par, 0.5 * log_rss if known is None else np.zeros(len(u))


def _through_theta(fit: LinearEstimates, par: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, k) d par / d omega, (k, p) d beta / d par, (k,) d log rss / d par, by central differences."""
    k, kernel = len(par), fit.kernel
    H = fit.criterion_fn.derivatives(par, fit.state)[1]
    h = STEP * np.sqrt(2.0 / np.maximum(np.abs(np.diag(H)), 1e-12))
    gradients, slopes, d_beta, d_log_rss = [], [], [], []
    for j in range(k):
        up, down = (_pass(fit, par + s * h[j] * np.eye(k)[j]) for s in (1.0, -1.0))
        g = [
            fit.criterion_fn.derivatives(par + s * h[j] * np.eye(k)[j], f[0])[0]
            for s, f in ((1, up), (-1, down))
        ]
        gradients.append((g[0] - g[1]) / (2 * h[j]))
        slopes.append((up[1] - down[1]) / (2 * h[j]))
        d_beta.append((estimates(kernel.A, up[0])[0] - estimates(kernel.A, down[0])[0]) / (2 * h[j]))
        d_log_rss.append(np.log(up[0].profile.rss / down[0].profile.rss) / (2 * h[j]))
    exact = np.array(gradients)
    d_par = -np.linalg.solve(0.5 * (exact + exact.T), np.array(slopes)).T
    return d_par, np.array(d_beta), np.array(d_log_rss)


def _gradient(fit: Fit, function: Callable[[Estimates], float]) -> tuple[np.ndarray, np.ndarray, float]:
    """Derivatives of the function in beta (p,), par (k,) and log sigma, by central differences."""
    beta, par, sigma = np.array(fit.beta), np.array(fit.par), fit.sigma
    cov = fit.covariance
    x_names, theta_names, names = list(fit.design.x_names), list(fit.theta.index), component_names(fit)

    def at(b: np.ndarray, t: np.ndarray, s: float) -> float:
        parts = components(fit, t[None], np.array([s]))[0]
        theta = pd.Series(cov.theta(t), index=theta_names)
        return float(
            function(Estimates(pd.Series(b, index=x_names), theta, s, pd.Series(parts, index=names)))
        )

    h_beta = 1e-5 * np.maximum(fit.se.to_numpy(), 1e-300)
    h_par = 1e-5 * np.maximum(np.abs(par), 1.0)
    eye_b, eye_t = np.diag(h_beta), np.diag(h_par)
    d_beta = [(at(beta + e, par, sigma) - at(beta - e, par, sigma)) / (2 * e.sum()) for e in eye_b]
    d_par = [(at(beta, par + e, sigma) - at(beta, par - e, sigma)) / (2 * e.sum()) for e in eye_t]
    up, down = at(beta, par, sigma * np.exp(1e-5)), at(beta, par, sigma * np.exp(-1e-5))
    return np.array(d_beta), np.array(d_par), (up - down) / 2e-5
