"""Deletion of every row at once: each criterion f_(i) is the full one plus a smooth correction, expanded at
theta.

With v = diag V^-1, P_ii and (Py)_i of the full model at theta, for an unknown sigma and nu' = nu - 1,
    f_(i)(theta) = f(theta) + c_i(theta) + constant,
    c_i = log d_i - log rss + nu' log(1 - t_i),  t_i = (Py)_i^2 / (P_ii rss),  d_i = P_ii (REML) or v_i (ML),
exactly. One pass over the rows gives all corrections at a theta; a few passes around the optimum, shared by
all rows, give their first and second derivatives. With f's gradient expanded to second order from exact
gradients at the same points, Newton finds every optimum with an error of third order in its distance from
theta.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ...kernels.criterion import estimates
from ...kernels.whitened import whitened_rows
from ...results.fit import Fit
from .refit import UNDETERMINED, Refits, canonical, take

__all__ = ["can_expand", "expanded_refits"]

NODE = 0.006  # distance of the points from the base, in conditional standard errors of theta
NEWTON_STEPS = 6
TOLERANCE = 1e-6  # estimated error of theta up to which an expansion is good enough
WORTH = 8  # rows that another center must serve to be cheaper than refits one by one
MOST_CENTERS = 40
AT_OPTIMUM = 1e-3  # Newton decrement above which theta is not an optimum worth expanding at


@dataclass(frozen=True, slots=True)
class Point:
    """What a pass at one theta gives."""

    f: float
    gradient: np.ndarray  # (k,) of f
    log_rss: float
    beta: np.ndarray  # (p,)
    cov: np.ndarray  # (p, p) (X'V^-1X)^-1
    c: np.ndarray  # (r,) correction of the rows, NaN where the others do not determine beta
    t: np.ndarray  # (r,)
    delta: np.ndarray  # (r, p) beta - beta_(i)
    root: np.ndarray  # (r, p) with cov_(i) = cov + root root'


def _point(fit: Fit, par: np.ndarray, at: np.ndarray) -> Point:
    kernel, full = fit.kernel, fit.working.criterion_fn
    factor = full.factor(par)
    gradient = full.derivatives(par, factor)[0] if len(par) else par
    A, prof, p, like = kernel.A, factor.profile, kernel.A.p, factor.like
    white, v = whitened_rows(kernel, factor, prof)[0][:, at], 1.0 - factor.quadratic()[at]
    a, u = white[:p], white[p] * np.sqrt(prof.rss)
    P = v - np.einsum("in,in->n", a, a)
    P = np.where(UNDETERMINED * v < P, P, np.nan)
    t = u * u / (P * prof.rss)
    log_d = np.log(P if like.reml else v)
    if like.sigma is None:
        c = log_d - np.log(prof.rss) + (prof.nu - 1) * np.log1p(-t)
    else:
        c = log_d - t * prof.rss / like.sigma**2
    beta, cov, _ = estimates(A, factor)
    rows = (np.linalg.solve(A.R, prof.LS_inv[:p, :p].T) @ a).T if p else np.zeros((len(v), 0))
    return Point(
        prof.f,
        gradient,
        float(np.log(prof.rss)),
        beta,
        cov,
        c,
        t,
        rows * (u / P)[:, None],
        rows / np.sqrt(P)[:, None],
    )


class Stencil:
    """Central differences on the points base, base +- h_k, base +- (h_k, h_m), for the rows ``at``."""

    def __init__(self, fit: Fit, base: np.ndarray, h: np.ndarray, at: np.ndarray) -> None:
        self.base, self.h, self.k, self.at = base, h, len(h), at
        steps = np.diag(h)
        self.center = _point(fit, base, at)
        self.plus = [_point(fit, base + e, at) for e in steps]
        self.minus = [_point(fit, base - e, at) for e in steps]
        self.pairs = {
            (i, j): (_point(fit, base + steps[i] + steps[j], at), _point(fit, base - steps[i] - steps[j], at))
            for i, j in combinations(range(self.k), 2)
        }

    def first(self, name: str) -> np.ndarray:
        """(k, ...) derivatives of a field of the points."""
        values = [
            (getattr(a, name) - getattr(b, name)) / (2 * h)
            for a, b, h in zip(self.plus, self.minus, self.h, strict=True)
        ]
        return np.array(values).reshape(self.k, *np.shape(getattr(self.center, name)))

    def second(self, name: str) -> np.ndarray:
        """(k, k, ...) second derivatives."""
        zero = np.asarray(getattr(self.center, name))
        out = np.zeros((self.k, self.k, *zero.shape))
        sums = [
            getattr(a, name) + getattr(b, name) - 2 * zero for a, b in zip(self.plus, self.minus, strict=True)
        ]
        for i in range(self.k):
            out[i, i] = sums[i] / self.h[i] ** 2
        for (i, j), (a, b) in self.pairs.items():
            both = getattr(a, name) + getattr(b, name) - 2 * zero
            out[i, j] = out[j, i] = (both - sums[i] - sums[j]) / (2 * self.h[i] * self.h[j])
        return out


def can_expand(fit: Fit) -> bool:
    """Whether theta is an interior point of its parameters' range and an optimum, and sigma can do without a row."""
    if fit.state.like.sigma is None and fit.state.profile.nu <= 1:
        return False
    if not len(fit.par):
        return True
    if fit.covariance.bounds is not None:
        return False
    g, H = fit.working.criterion_fn.derivatives(fit.par, fit.state)
    values, vectors = np.linalg.eigh(H)
    return bool(values[0] > 0 and np.sum((vectors.T @ g) ** 2 / values) < AT_OPTIMUM)


def expanded_refits(fit: Fit, centers: int = MOST_CENTERS) -> Refits:
    """Refits without each row, from expansions; ``error`` estimates that of ``par``.

    The first expansion is at the full fit's theta. Rows that move too far from it for TOLERANCE are expanded
    again around centers among them, as long as a center serves enough rows to be worth its passes.
    The error is infinite where Newton on the expansion fails, and where the others do not determine beta.
    Cost: 1 + k + k^2 passes over the rows per center, for k parameters.
    """
    k, n = len(fit.par), fit.design.n
    H = fit.working.criterion_fn.derivatives(fit.par, fit.state)[1] if k else np.zeros((0, 0))
    se = np.sqrt(2.0 / np.abs(np.diag(H)))
    h = NODE * np.minimum(se, np.maximum(np.abs(fit.par), 0.1))
    out = _around(fit, np.array(fit.par), h, se, np.arange(n))
    base = np.repeat(fit.par[None], n, axis=0)
    for _ in range(centers if k else 0):
        chosen = _next_center(out, base, se)
        if chosen is None:
            break
        center, served = chosen
        again = _around(fit, center, h, se, served)
        better = again.error < out.error[served]
        if not better.any():
            break
        out.put(served[better], take(again, better))
        base[served[better]] = center
    return out


def _next_center(out: Refits, base: np.ndarray, se: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The optimum of an inaccurate row around which most others would become accurate, and these rows."""
    open_ = np.flatnonzero(np.isfinite(out.error) & (out.error > TOLERANCE))
    if len(open_) < WORTH:
        return None
    z, moved = out.par[open_] / se, np.abs((out.par - base)[open_] / se).max(axis=1)
    reach = 0.7 * moved * np.cbrt(TOLERANCE / out.error[open_])  # errors are of third order in the distance
    tries = open_[:: max(1, len(open_) // 200)]
    counts = [(np.abs(z - out.par[i] / se).max(axis=1) < reach).sum() for i in tries]
    center = out.par[tries[int(np.argmax(counts))]]
    if max(counts) < WORTH:
        return None
    return center, open_[np.abs(z - center / se).max(axis=1) < reach]


def _around(fit: Fit, base: np.ndarray, h: np.ndarray, se: np.ndarray, at: np.ndarray) -> Refits:
    s = Stencil(fit, base, h, at)
    return _estimates(fit, s, *_optima(s, se, len(at)))


def _optima(s: Stencil, se: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) displacements of the optima and (n,) estimates of their errors."""
    k = s.k
    if not k:
        return np.zeros((n, 0)), np.where(np.isnan(s.center.c), np.inf, 0.0)
    g, H, T = s.center.gradient, s.first("gradient"), s.second("gradient")
    H = 0.5 * (H + H.T)
    c1, c2 = s.first("c").T, np.moveaxis(s.second("c"), 2, 0)
    linear = -np.linalg.solve(H, (g + c1).T).T
    delta, J = linear.copy(), np.empty((n, k, k))
    for _ in range(NEWTON_STEPS):
        Td = np.einsum("klm,nk->nlm", T, delta)  # T[k, l, m]: second derivative in k, l of the gradient's m
        bend = np.einsum("nlm,nl->nm", Td, delta)
        F = g + delta @ H + 0.5 * bend + c1 + np.einsum("nkl,nl->nk", c2, delta)
        J = H + 0.5 * (Td + Td.transpose(0, 2, 1)) + c2
        J = np.where(np.isfinite(J), J, np.eye(k))
        delta = delta - np.linalg.solve(J, F[:, :, None])[:, :, 0]
    least = np.linalg.eigvalsh(J)[:, 0]
    curl = float(np.abs(np.linalg.solve(H, T.reshape(k * k, k).T)).max(initial=0.0) * se.max())
    size, second = np.abs(delta / se).max(axis=1), np.abs((delta - linear) / se).max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (second**2 / np.maximum(size, 1e-300) + size * (curl * size) ** 2) * se.max()
    bad = ~np.isfinite(error) | (least <= 0) | (size > 1.0)
    return delta, np.where(bad, np.inf, error)


def _estimates(fit: Fit, s: Stencil, delta: np.ndarray, error: np.ndarray) -> Refits:
    A, like, nu, center = fit.kernel.A, fit.state.like, fit.state.profile.nu, s.center
    log_w = 0.0 if A.sqrt_w is None else 2.0 * np.log(A.sqrt_w[s.at])
    c = center.c + _own(delta, s.first("c"), s.second("c"))
    shift = _shared(delta, center.gradient, s.first("gradient"))
    shift = shift + np.einsum("klm,nk,nl,nm->n", s.second("gradient"), delta, delta, delta) / 6.0
    f = center.f + c + shift + log_w + _constant(nu, like.sigma)
    beta = center.beta + _shared(delta, s.first("beta"), s.second("beta"))
    beta = beta - center.delta - _own(delta, s.first("delta"), s.second("delta"))
    root = center.root + _own(delta, s.first("root"), s.second("root"))
    C = center.cov + _shared(delta, s.first("cov"), s.second("cov")) + root[:, :, None] * root[:, None]
    if like.sigma is None:
        log_rss = center.log_rss + _shared(delta, s.first("log_rss"), s.second("log_rss"))
        t = center.t + _own(delta, s.first("t"), s.second("t"))
        with np.errstate(invalid="ignore"):
            sigma = np.sqrt(np.exp(log_rss) * (1.0 - t) / (nu - 1))
    else:
        sigma = np.full(len(delta), like.sigma)
    return Refits(
        canonical(fit, s.base + delta), f, beta, C, sigma, np.isfinite(error), ~np.isnan(center.c), error
    )


def _constant(nu: int, sigma: float | None) -> float:
    """f_(i) - f - c_i."""
    if sigma is not None:
        return -float(np.log(2 * np.pi * sigma**2))
    return float((nu - 1) * (1 + np.log(2 * np.pi / (nu - 1))) - nu * (1 + np.log(2 * np.pi / nu)))


def _own(delta: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, ...) increments of n functions with derivatives (k, n, ...) and (k, k, n, ...)."""
    bent = first + 0.5 * np.einsum("kln...,nl->kn...", second, delta)
    return np.einsum("kn...,nk->n...", bent, delta)


def _shared(delta: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, ...) increments of one function with derivatives (k, ...) and (k, k, ...)."""
    return np.tensordot(delta, first, 1) + 0.5 * np.einsum("nk,nl,kl...->n...", delta, delta, second)
