"""Where to start: relative covariances by the method of moments.

With r the least-squares residual, P = I - QQ' its projection and Z_c the columns of one effect, for any weights w
    E sum_l w_l (Z_cl'r)^2 = sum_d tau_d sum_l w_l |Z_cl'P Z_d|^2 + sigma^2 sum_l w_l Z_cl'P Z_cl,
    E r'r                  = sum_d tau_d tr(Z_d'P Z_d)             + sigma^2 (n - p),
when effects are independent. Weights (1 + rho Z_cl'Z_cl)^-2, rho = tau_c / sigma^2 from the round before, keep
large levels from drowning the others (MINQUE, Rao 1971, with the factors taken one by one). Products that exist
already are all that is needed; in balanced data the solution is the REML estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dgesv

from ..kernels import Kernel

__all__ = ["start_covariance"]

ROUNDS = 2
FIRST = 0.3  # relative variance of the first round's weights
COLUMNS = 12  # of Q that P accounts for: enough for a start
LEAST, MOST = 0.03, 100.0  # limits of a start in units of sigma: at zero every direction looks stationary
LEAST_NOISE = 0.01  # below this share of the residual variance the estimate of sigma^2 is not trusted
MOST_CORRELATED = 0.9
NEGATIVE = 0.4  # start of a component whose moment estimate is not positive


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the equations need of one effect c of a block of L levels."""

    size: np.ndarray  # (L,) Z_cl'Z_cl
    noise: np.ndarray  # (L,) Z_cl'P Z_cl
    squares: np.ndarray  # (q, L) |Z_cl'P Z_d|^2 for every effect d of the model
    score: np.ndarray  # (L,) (Z_cl'r)^2


def start_covariance(kernel: Kernel, sigma: float | None = None) -> list[np.ndarray]:
    """Per block (K, K) relative covariance of the effects in the frame of the products, positive definite."""
    rows = _rows(kernel)
    if not rows:
        return []
    n, rss = kernel.A.n - min(kernel.A.p, COLUMNS), float(kernel.A.A[-1, -1])
    noise_row = np.array([r.noise.sum() for r in rows] + [n])
    relative = np.full(len(rows), FIRST)
    for _ in range(ROUNDS):
        tau = _solve(rows, relative, noise_row, rss, sigma)
        if tau[-1] < LEAST_NOISE * rss / n:
            tau = _solve(rows, relative, noise_row, rss, _within(kernel) ** 0.5)
        relative = tau[:-1] / tau[-1]
    sd = np.sqrt(relative)
    sd = np.where(sd > 0, np.clip(sd, LEAST, MOST), NEGATIVE)
    each = np.split(np.arange(len(rows)), np.cumsum([b.K for b in kernel.A.blocks])[:-1])
    grams, scores = kernel.level_grams(), kernel.random_products()
    return [
        np.outer(sd[at], sd[at]) * _correlations(gram, ZM[-1], relative[at], tau[-1])
        for at, gram, ZM in zip(each, grams, scores, strict=True)
    ]


def _correlations(gram: np.ndarray, e: np.ndarray, relative: np.ndarray, noise: float) -> np.ndarray:
    """(K, K) from E e_a e_b = sigma^2 D_ab + sum_c tau_c D_ac D_cb + tau_ab (D_aa D_bb + D_ab^2) by level."""
    K = len(relative)
    R = np.eye(K)
    for a in range(K):
        for b in range(a):
            if relative[a] * relative[b] == 0.0:
                continue
            w = 1.0 / ((1.0 + relative[a] * gram[a, a]) * (1.0 + relative[b] * gram[b, b]))
            known = gram[a, b] + sum(relative[c] * gram[a, c] * gram[c, b] for c in range(K))
            over = (w @ (gram[a, a] * gram[b, b] + np.square(gram[a, b]))) * (
                relative[a] * relative[b]
            ) ** 0.5
            if over == 0.0:  # no level has both effects: the data say nothing about their correlation
                continue
            R[a, b] = R[b, a] = (w @ (e[a] * e[b] / noise - known)) / over
    limit = MOST_CORRELATED / max(1.0, K - 1.0)  # keeps R positive definite
    return np.where(np.eye(K) > 0, 1.0, np.clip(R, -limit, limit))


def _solve(
    rows: list[_Rows], relative: np.ndarray, noise_row: np.ndarray, rss: float, sigma: float | None
) -> np.ndarray:
    """(q + 1,) variances, sigma^2 last."""
    q = len(rows)
    system, right = np.empty((q + 1, q + 1)), np.empty(q + 1)
    system[q], right[q] = noise_row, rss
    for c, (row, rho) in enumerate(zip(rows, relative, strict=True)):
        w = 1.0 / (1.0 + rho * row.size)
        w *= w
        system[c, :q], system[c, q], right[c] = row.squares @ w, row.noise @ w, row.score @ w
    if sigma is None:
        return _nonnegative(system, right)
    return np.append(_nonnegative(system[:q, :q], right[:q] - system[:q, q] * sigma**2), sigma**2)


def _rows(kernel: Kernel) -> list[_Rows]:
    products, grams = kernel.random_products(), kernel.level_grams()
    p = min(kernel.A.p, COLUMNS)
    A = [ZM[:p] for ZM in products]  # Z_j'Q
    spans = [
        [a @ a.T for a in Aj.transpose(1, 0, 2)] for Aj in A
    ]  # per effect sum over levels of A A', (p, p)
    between = kernel.cross_moments(A)
    out = []
    for j, (gram, ZM) in enumerate(zip(grams, products, strict=True)):
        for a in range(len(gram)):
            own = A[j][:, a]
            squares = []
            for k in range(len(grams)):
                if k == j:
                    dots = (own[:, None] * A[j]).sum(axis=0)  # (K, L)
                    part = gram[a] * (gram[a] - 2.0 * dots)
                else:
                    part = between[j, k][0][a] - 2.0 * between[j, k][1][a]
                squares += [
                    row + ((span @ own) * own).sum(axis=0) for row, span in zip(part, spans[k], strict=True)
                ]
            size = gram[a, a]
            out.append(
                _Rows(size, size - np.square(own).sum(axis=0), np.array(squares), np.square(ZM[-1, a]))
            )
    return out


def _within(kernel: Kernel) -> float:
    """Mean square of the least-squares residual within the levels of the first block, at least a hundredth of it."""
    gram, ZM = kernel.level_grams()[0], kernel.random_products()[0][-1]
    total = float(kernel.A.A[-1, -1])
    D = gram.transpose(2, 0, 1)
    ridge = 1e-8 * D.trace(axis1=1, axis2=2)[:, None, None] * np.eye(len(gram)) + 1e-300 * np.eye(len(gram))
    explained = float(np.sum(ZM.T * np.linalg.solve(D + ridge, ZM.T[:, :, None])[:, :, 0]))
    return max(
        (total - explained) / max(kernel.A.n - gram.shape[2] * len(gram), 1), 0.01 * total / kernel.A.n
    )


def _nonnegative(system: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution with negative components put on zero, one sweep after another."""
    use = np.arange(len(right))
    out = np.zeros(len(right))
    while len(use):
        part, info = dgesv(system[use[:, None], use], right[use])[2:]
        if info:
            return out
        if part.min() >= 0:
            out[use] = part
            return out
        use = use[part >= 0]
    return out
