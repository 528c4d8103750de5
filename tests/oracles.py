"""Dense definitions, n x n and slow on purpose: what the structured algebra must equal."""

from __future__ import annotations

import numpy as np


def dense_Z(term) -> np.ndarray:
    """(n, L k) model matrix of one random term, level-major, effects fastest."""
    n, k = term.columns.shape
    Z = np.zeros((n, len(term.levels) * k))
    for a in range(k):
        Z[np.arange(n), term.codes * k + a] = term.columns[:, a]
    return Z


def dense_V(design, Sigmas) -> np.ndarray:
    """(n, n) V = W^-1 + sum_j Z_j (I x Sigma_j) Z_j', relative to sigma^2."""
    V = np.diag(np.ones(design.n) if design.weights is None else 1.0 / design.weights)
    for term, Sigma in zip(design.terms, Sigmas, strict=True):
        Z = dense_Z(term)
        V += Z @ np.kron(np.eye(len(term.levels)), Sigma) @ Z.T
    return V


def response(design) -> np.ndarray:
    """(n,) y - offset."""
    return design.y if design.offset is None else design.y - design.offset


def dense_gls(design, Sigmas):
    """V, V^-1, (X'V^-1X)^-1, beta and the residual y - X beta."""
    V = dense_V(design, Sigmas)
    Vinv = np.linalg.inv(V)
    X, y = design.X, response(design)
    C = np.linalg.inv(X.T @ Vinv @ X) if design.p else np.zeros((0, 0))
    beta = C @ (X.T @ (Vinv @ y))
    return V, Vinv, C, beta, y - X @ beta


def dense_criterion(design, Sigmas, reml: bool, sigma: float | None = None) -> float:
    """-2 log (restricted) likelihood, beta (and sigma unless given) profiled out."""
    V, Vinv, _, _, r = dense_gls(design, Sigmas)
    rss = r @ Vinv @ r
    nu = design.n - design.p if reml else design.n
    f = np.linalg.slogdet(V)[1]
    if reml and design.p:
        f += np.linalg.slogdet(design.X.T @ Vinv @ design.X)[1]
    if sigma is None:
        return f + nu * (1 + np.log(2 * np.pi * rss / nu))
    return f + nu * np.log(2 * np.pi * sigma**2) + rss / sigma**2


def exact_criterion(design, Lambdas, reml: bool, digits: int = 60) -> float:
    """``dense_criterion`` in interval arithmetic of that many digits; Lambdas are lower factors per term."""
    import flint

    flint.ctx.dps = digits
    Z = [flint.arb_mat(dense_Z(t).tolist()) for t in design.terms]
    V = flint.arb_mat(design.n, design.n)
    for i in range(design.n):
        V[i, i] = 1 if design.weights is None else 1 / flint.arb(float(design.weights[i]))
    for z, term, L in zip(Z, design.terms, Lambdas, strict=True):
        half = z * flint.arb_mat(np.kron(np.eye(len(term.levels)), L).tolist())
        V += half * half.transpose()
    X, y = flint.arb_mat(design.X.tolist()), flint.arb_mat(response(design)[:, None].tolist())
    VX, Vy = V.solve(X), V.solve(y)
    gram = X.transpose() * VX
    beta = gram.solve(X.transpose() * Vy)
    r = y - X * beta
    rss = (r.transpose() * V.solve(r))[0, 0]
    nu = design.n - design.p if reml else design.n
    f = V.det().log() + nu * (1 + (2 * flint.arb.pi() * rss / nu).log())
    return float(f + gram.det().log() if reml else f)
