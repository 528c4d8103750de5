"""Where to start: relative standard deviations by the method of moments.

With r the least-squares residual of y and columns Z_c of the random-effects matrix (one per block and
effect), E |Z_c'r|^2 = sum_d tau_d ||Z_c'Z_d||_F^2 + sigma^2 ||Z_c||_F^2 and E r'r = sum_d tau_d ||Z_d||_F^2 +
n sigma^2 when effects are independent and the fixed part is ignored (MINQUE with weights zero). These linear
equations cost one pass over products that exist already, and land close enough to spare a Newton run about
three evaluations.
"""

from __future__ import annotations

import numpy as np

from .kernels import Kernel

__all__ = ["start_sd"]

LEAST, MOST = 0.1, 100.0  # limits of a start in units of sigma: at zero every direction looks stationary
LEAST_NOISE = 0.01  # below this share of the residual variance the estimate of sigma^2 is not trusted
NEGATIVE = 0.4  # start of a component whose moment estimate is not positive


def start_sd(kernel: Kernel, sigma: float | None = None) -> list[np.ndarray]:
    """Per block (K,) relative standard deviations of the effects in the frame of the products."""
    grams = kernel.level_grams()
    at = np.concatenate([[0], np.cumsum([len(g) for g in grams])])
    q = int(at[-1])
    system, right = np.zeros((q + 1, q + 1)), np.zeros(q + 1)
    for b, (gram, ZM) in enumerate(zip(grams, kernel.random_products(), strict=True)):
        s = slice(at[b], at[b + 1])
        system[s, s] = np.square(gram).sum(axis=2)
        system[s, q] = system[q, s] = gram.sum(axis=2).diagonal()
        right[s] = np.square(ZM[-1]).sum(axis=1)
    for (j, i), norms in kernel.cross_norms().items():
        system[at[j] : at[j + 1], at[i] : at[i + 1]] = norms
        system[at[i] : at[i + 1], at[j] : at[j + 1]] = norms.T
    system[q, q], right[q] = kernel.A.n, kernel.A.A[-1, -1]
    tau = _nonnegative(system, right)
    if sigma is not None or tau[q] < LEAST_NOISE * right[q] / kernel.A.n:
        tau[q] = sigma**2 if sigma is not None else _within(kernel)
        tau[:q] = _nonnegative(system[:q, :q], right[:q] - system[:q, q] * tau[q])
    relative = np.sqrt(tau[:q] / tau[q])
    relative = np.where(relative > 0, np.clip(relative, LEAST, MOST), NEGATIVE)
    return [relative[at[b] : at[b + 1]] for b in range(len(grams))]


def _within(kernel: Kernel) -> float:
    """Mean square of the least-squares residual within the levels of the first block, at least a hundredth of
    it."""
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
    use = np.ones(len(right), dtype=bool)
    out = np.zeros(len(right))
    while use.any():
        try:
            part = np.linalg.solve(system[np.ix_(use, use)], right[use])
        except np.linalg.LinAlgError:
            return out
        if (part >= 0).all():
            out[use] = part
            return out
        use[np.flatnonzero(use)[part < 0]] = False
    return out
