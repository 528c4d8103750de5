"""Second-order quantities of a linear mixed model along directions of its covariance.

Along V_k = Z E_k Z', with G = LS^-1 [Q r]'V^-1 the whitened rows of the fixed effects' basis and of the residual,
    P_k = G V_k G',    Q_kl = G V_k V^-1 V_l G',    T_kl = tr(V^-1 V_k V^-1 V_l).
These give the derivatives of vcov, the exact Hessian of the criterion and its expectation; no n x n matrix is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...kernels import Factor, small
from ...kernels.dense import DenseFactor
from ...kernels.one_factor import OneFactorFactor
from ...kernels.products import Block
from ...kernels.whitened import whitened_rows, without_random
from ...results.fit import Fit
from .traces import traces

__all__ = ["SecondOrder", "along_parameters", "exact_hessian", "second_order"]


@dataclass(frozen=True, slots=True)
class SecondOrder:
    """P, Q and T along r directions; fixed effects in the coordinates where (X'V^-1X)^-1 is the identity."""

    P: (
        np.ndarray
    )  # (r, m, m), m = p + 1; the last row and column are of the residual, of length sqrt(per_rss) e
    Q: np.ndarray  # (r, r, m, m)
    T: np.ndarray  # (r, r)
    p: int  # fixed effects

    def expected(self, reml: bool = True) -> np.ndarray:
        """(r, r) tr(P V_k P V_l), P = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1; with V^-1 for P unless ``reml``."""
        if not reml:
            return self.T
        p = self.p
        P, Q = self.P[:, :p, :p], self.Q[:, :, :p, :p]
        return self.T - 2.0 * np.einsum("klii->kl", Q) + np.einsum("kij,lji->kl", P, P)

    def residual(self) -> np.ndarray:
        """(r, r) per_rss r'V^-1 V_k P V_l V^-1 r."""
        p = self.p
        return self.Q[:, :, p, p] - self.P[:, p, :p] @ self.P[:, p, :p].T


def second_order(fit: Fit, E: Sequence[np.ndarray]) -> SecondOrder:
    """P, Q and T of a fit along ``E``: per block of the kernel (r_b, K, K) symmetric directions of Sigma.

    Cost: O(L) for one factor, O(n) per direction and fixed effect otherwise, and that of ``traces``.
    """
    kernel, factor, prof = fit.kernel, fit.state, fit.working.profile
    m = kernel.A.m
    white = whitened_rows(kernel, factor, prof)[0]
    white[-1] *= (prof.per_rss * prof.rss) ** 0.5
    blocks = kernel.A.blocks
    owner = [j for j, each in enumerate(E) for _ in each]
    S = [b.products(white) for b in blocks]  # (m, K, L) G Z
    phi = [np.matmul(Ek, S[j]) for j, each in enumerate(E) for Ek in each]
    P = np.array([f.reshape(m, -1) @ S[j].reshape(m, -1).T for j, f in zip(owner, phi, strict=True)])
    return SecondOrder(
        P.reshape(-1, m, m), _quadratic(factor, blocks, owner, phi, m), traces(factor, E), m - 1
    )


def _quadratic(
    factor: Factor, blocks: Sequence[Block], owner: Sequence[int], phi: Sequence[np.ndarray], m: int
) -> np.ndarray:
    """(r, r, m, m) phi_k W phi_l', W = Z'V^-1Z, for phi_k (m, K, L) in the block ``owner[k]``."""
    r = len(phi)
    if not r:
        return np.zeros((0, 0, m, m))
    if isinstance(factor, OneFactorFactor):
        stacked = np.concatenate(list(phi))
        flat = stacked.reshape(r * m, -1) @ small.left(factor.W, stacked).reshape(r * m, -1).T
        return flat.reshape(r, m, r, m).transpose(0, 2, 1, 3)
    if isinstance(factor, DenseFactor):
        q, starts = factor.kernel.q, factor.kernel.starts
        placed = np.zeros((r, m, q))
        for k, j in enumerate(owner):
            placed[k, :, starts[j] : starts[j + 1]] = phi[k].transpose(0, 2, 1).reshape(m, -1)
        rows = placed.reshape(r * m, q)
        return (rows @ factor.inner[:q, :q] @ rows.T).reshape(r, m, r, m).transpose(0, 2, 1, 3)
    return _quadratic_of_rows(factor, blocks, owner, phi, m)


def _quadratic_of_rows(
    factor: Factor, blocks: Sequence[Block], owner: Sequence[int], phi: Sequence[np.ndarray], m: int
) -> np.ndarray:
    """The same by way of the rows: V^-1 Z phi', one direction at a time."""
    out = np.empty((len(phi), len(phi), m, m))
    for k, j in enumerate(owner):
        rows = sum(column * phi[k][:, a, blocks[j].codes] for a, column in enumerate(blocks[j].columns))
        random = factor.solve_random([b.products(rows) for b in blocks])
        solved = without_random(rows, blocks, random)
        back = [b.products(solved).reshape(m, -1) for b in blocks]
        for h in range(len(phi)):
            out[k, h] = back[owner[h]] @ phi[h].reshape(m, -1).T
    return out


def along_parameters(fit: Fit) -> SecondOrder:
    """P, Q and T along the derivatives of Sigma by the parameters ``fit.par``, in their order."""
    cov = fit.working.covariance
    found = second_order(fit, cov.jacobian(fit.par))
    order = cov.in_par_order(np.arange(cov.n_par))
    pairs = np.ix_(order, order)
    return SecondOrder(found.P[order], found.Q[pairs], found.T[pairs], found.p)


def exact_hessian(fit: Fit, second: SecondOrder) -> np.ndarray:
    """(n_par, n_par) Hessian of ``fit.criterion`` in ``fit.par``, sigma profiled out unless it is known.

    H_kl = -tr(P V_k P V_l) + 2 per_rss r'V^-1V_k P V_lV^-1r - q_k q_l curl / per_rss^2 + <G, d2Sigma>: the optimizer's
    second-order matrix is the average of this and its expectation where a kernel has not all traces.
    """
    criterion, prof = fit.working.criterion_fn, fit.working.profile
    G = fit.state.derivatives(criterion.covariance.jacobian(fit.par))[0]
    q = second.P[:, second.p, second.p]
    H = 2.0 * second.residual() - second.expected(fit.state.like.reml)
    H -= (prof.curl / prof.per_rss**2) * np.outer(q, q)
    return H + criterion.covariance.curvature(fit.par, G)
