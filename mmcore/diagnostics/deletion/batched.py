"""Many one-factor models at once that share all levels of the factor but one: exact Newton refits.

Deleting a row or a level changes the products of one level only. Arrays carry the deletions as leading axis B
and the levels as last, (B, r, K, L); the algebra per level is that of :mod:`mmcore.kernels.one_factor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...kernels.batched import BatchedFactor, Deletions, PairProducts, QuadraticCovariance
from ...kernels.one_factor import OneFactor
from ...results.fit import Fit
from ..units import Units
from .refit import UNDETERMINED, Refits, canonical, refit_sets, stack

__all__ = ["batched_refits", "can_batch"]

CACHE = 2_000_000  # bytes of products per chunk: what stays in the second-level cache
DECREMENT = 1e-9  # a Newton step that promises less is the last: what it leaves is of its square
MOST_STEPS = 12
BOUNDARY = 2e-3  # a relative standard deviation below this, but not zero, is left to the careful optimizer


def can_batch(fit: Fit, u: Units) -> bool:
    """Whether the units are rows or levels of a one-factor model whose Sigma is quadratic in its
    parameters.
    """
    one = isinstance(fit.kernel, OneFactor) and u.codes is not None
    return one and fit.covariance.bounds is None


def deletions(fit: Fit, u: Units) -> Deletions:
    """What every unit leaves of its level and of the totals."""
    kernel = fit.kernel
    assert isinstance(kernel, OneFactor) and u.codes is not None  # can_batch
    A, block, rows = kernel.A, kernel.block, u.rows()
    log_w = np.zeros(A.n) if A.sqrt_w is None else 2.0 * np.log(A.sqrt_w)
    if u.is_rows:
        own = np.concatenate([block.columns, A.M])  # (K + m, n)
        level = block.codes
        left = kernel.U[:, :, level] - own[:, None] * block.columns[None]
        gram = A.M[:, None] * A.M[None]
        return Deletions(
            rows,
            level,
            np.ascontiguousarray(left.transpose(2, 0, 1)),
            A.A - gram.transpose(2, 0, 1),
            np.full(len(u), A.n - 1),
            A.sum_log_w - log_w,
        )
    level = np.array([block.codes[r[0]] for r in rows])
    grams = np.array([A.M[:, r] @ A.M[:, r].T for r in rows])
    size = np.array([len(r) for r in rows])
    left_log = A.sum_log_w - np.bincount(u.codes, log_w, len(u))
    shape = (len(u), *kernel.U.shape[:2])
    return Deletions(rows, level, np.zeros(shape), A.A - grams, A.n - size, left_log)


def batched_refits(fit: Fit, u: Units, start: np.ndarray, done: Callable[[int], None]) -> Refits:
    """Refits of every unit from ``start`` (U, n_par): Newton with exact Hessians, all units of a chunk in
    step.

    A unit whose Hessian is not positive definite, whose criterion rises, that ends near the boundary or
    leaves X short of rank is handed to the careful optimizer. Cost O(U L K^2 (K + p)) per step, 1 to 4
    steps.
    """
    kernel, d = fit.kernel, deletions(fit, u)
    assert isinstance(kernel, OneFactor)  # can_batch
    cov, pairs = QuadraticCovariance(fit.covariance), PairProducts(kernel)
    out = []
    for at in _chunks(len(u), kernel.block.K**4 * kernel.block.L * 8):
        out.append(_newton(fit, pairs, cov, d.take(at), start[at]))
        done(len(at))
    return stack(out)


def _chunks(U: int, nbytes: int) -> Iterator[np.ndarray]:
    size = max(1, min(512, CACHE // max(nbytes, 1)))
    for begin in range(0, U, size):
        yield np.arange(begin, min(begin + size, U))


def _newton(
    fit: Fit, pairs: PairProducts, cov: QuadraticCovariance, d: Deletions, start: np.ndarray
) -> Refits:
    """Newton for one chunk."""
    out, par = _empty(fit, len(start)), start.copy()
    careful = _short_of_rank(fit, d)
    scales = fit.covariance.scale_index()
    active, last = np.flatnonzero(~careful), np.full(len(par), np.inf)
    for _ in range(MOST_STEPS):
        if not len(active):
            break
        try:
            factor = BatchedFactor(pairs, fit.state.like, d.take(active), cov.sigma(par[active]))
        except np.linalg.LinAlgError:
            break
        step, decrement, lost = _steps(factor, cov, par[active], last[active])
        last[active] = factor.f
        par[active[~lost]] -= step[~lost]
        careful[active[lost]] = True
        active = active[~lost & (decrement > DECREMENT)]
    careful[active] = True
    scale = np.abs(par[:, scales])
    # exactly zero is where Newton leaves a vanished scale whose curvature is positive; close to it asks for care
    careful |= ((scale < BOUNDARY) & (scale > 0)).any(axis=1)
    _store(fit, out, pairs, cov, d, par, np.flatnonzero(~careful))
    rest = np.flatnonzero(careful)
    if len(rest):
        out.put(rest, refit_sets(fit, [d.rows[i] for i in rest]))
    return out


def _steps(
    factor: BatchedFactor, cov: QuadraticCovariance, par: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newton steps (B, n_par), their decrements (B,), and which units are beyond plain Newton."""
    E = cov.jacobian(par)
    G, H = factor.derivatives(E)
    g = np.einsum("btij,bij->bt", E, G)
    H = H + cov.curvature(G)
    least = np.linalg.eigvalsh(H)[:, 0]
    noise = 1e-12 * (1.0 + np.abs(factor.f))
    lost = (least <= 1e-8 * np.abs(H).max(axis=(1, 2))) | (factor.f > last + noise)
    H[lost] = np.eye(H.shape[1])
    step = np.linalg.solve(H, g[:, :, None])[:, :, 0]
    return step, (step * g).sum(axis=1), lost


def _store(
    fit: Fit,
    out: Refits,
    pairs: PairProducts,
    cov: QuadraticCovariance,
    d: Deletions,
    par: np.ndarray,
    at: np.ndarray,
) -> None:
    """Estimates of the units that converged, at their parameters."""
    if not len(at):
        return
    factor = BatchedFactor(pairs, fit.state.like, d.take(at), cov.sigma(par[at]))
    beta, C, sigma = factor.estimates()
    signs = canonical(fit, par[at])
    yes = np.ones(len(at), bool)
    out.put(at, Refits(signs, factor.f, beta, C, sigma, yes, yes, np.zeros(len(at))))


def _empty(fit: Fit, B: int) -> Refits:
    k, p = len(fit.par), fit.design.p
    shapes = [(B, k), (B,), (B, p), (B, p, p), (B,)]
    par, f, beta, cov, sigma = (np.full(s, np.nan) for s in shapes)
    return Refits(par, f, beta, cov, sigma, np.zeros(B, bool), np.ones(B, bool), np.zeros(B))


def _short_of_rank(fit: Fit, d: Deletions) -> np.ndarray:
    """(B,) whether the rows left do not determine beta, at the full fit's Sigma."""
    kernel, p = fit.kernel, fit.design.p
    assert isinstance(kernel, OneFactor)  # can_batch
    if not p:
        return np.zeros(len(d.level), dtype=bool)
    Sigma = fit.covariance.sigma(fit.par)[0]
    K, U_old = kernel.block.K, kernel.U[:, :, d.level].transpose(2, 0, 1)

    def part(U: np.ndarray) -> np.ndarray:
        T = np.matmul(U[:, :K], Sigma) + np.eye(K)
        R = np.linalg.solve(T, U[:, K:].transpose(0, 2, 1))
        return np.matmul(U[:, K:], np.matmul(Sigma, R))

    S = fit.state.S + (d.A - kernel.A.A) + part(U_old) - part(d.U)
    LS_inv = fit.state.profile.LS_inv[:p, :p]
    return np.linalg.eigvalsh(LS_inv @ S[:, :p, :p] @ LS_inv.T)[:, 0] < UNDETERMINED
