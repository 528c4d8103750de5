"""Kenward & Roger's and other formulas as they are printed, with n x n matrices: oracles of the structured algebra."""

from __future__ import annotations

import numpy as np

from tests.oracles import dense_V, dense_Z


def directions(A, Sigma, identity: bool = False) -> np.ndarray:
    """(n, n) sum of Z_b (I x Sigma_b) Z_b' over the blocks of cross-products, plus the identity."""
    V = np.eye(A.n) if identity else np.zeros((A.n, A.n))
    for block, S in zip(A.blocks, Sigma, strict=True):
        Z = np.zeros((A.n, block.K * block.L))
        for a in range(block.K):
            Z[np.arange(A.n), block.codes * block.K + a] = block.columns[a]
        V += Z @ np.kron(np.eye(block.L), S) @ Z.T
    return V


def model(fit) -> tuple[np.ndarray, np.ndarray]:
    """V relative to sigma^2 and X."""
    return dense_V(fit.design, [L @ L.T for L in fit.Lambda]), fit.design.X


def components(design) -> list[np.ndarray]:
    """G_i of a variance that is linear in its parameters: entries of every Sigma, then the residual variance."""
    out = []
    for term in design.terms:
        Z, k = dense_Z(term), len(term.effects)
        pairs = [(i, j) for j in range(k) for i in range(j, k)]
        if term.structure == "diag":
            pairs = [(i, i) for i in range(k)]
        units = []
        for i, j in pairs:
            E = np.zeros((k, k))
            E[i, j] = E[j, i] = 1.0
            units.append(E)
        if term.structure == "cs" and term.homogeneous:
            units = [np.eye(k), np.ones((k, k)) - np.eye(k)]
        out += [Z @ np.kron(np.eye(len(term.levels)), E) @ Z.T for E in units]
    out.append(np.eye(design.n) if design.weights is None else np.diag(1.0 / design.weights))
    return out


def kenward_roger(fit, L: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Adjusted covariance, scaled F of L beta = 0, df and scale: Kenward & Roger (1997), section 2 and 3."""
    V, X = model(fit)
    V = fit.sigma**2 * V
    G, Vi = components(fit.design), np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ Vi @ X)
    P = [-X.T @ Vi @ g @ Vi @ X for g in G]
    Q = [[X.T @ Vi @ g @ Vi @ h @ Vi @ X for h in G] for g in G]
    r = len(G)
    info = np.empty((r, r))
    for i in range(r):
        for j in range(r):
            info[i, j] = 0.5 * (
                np.trace(Vi @ G[i] @ Vi @ G[j])
                - 2 * np.trace(Phi @ Q[i][j])
                + np.trace(Phi @ P[i] @ Phi @ P[j])
            )
    W = np.linalg.inv(info)
    total = sum(W[i, j] * (Q[i][j] - P[i] @ Phi @ P[j]) for i in range(r) for j in range(r))
    adjusted = Phi + 2 * Phi @ total @ Phi
    Theta = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    A = [Theta @ Phi @ p @ Phi for p in P]
    A1 = sum(W[i, j] * np.trace(A[i]) * np.trace(A[j]) for i in range(r) for j in range(r))
    A2 = sum(W[i, j] * np.trace(A[i] @ A[j]) for i in range(r) for j in range(r))
    q = len(L)
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c1, c2, c3 = (x / (3 * q + 2 * (1 - g)) for x in (g, q - g, q + 2 - g))
    E = 1 / (1 - A2 / q)
    variance = 2 / q * (1 + c1 * B) / ((1 - c2 * B) ** 2 * (1 - c3 * B))
    rho = variance / (2 * E**2)
    m = 4 + (q + 2) / (q * rho - 1)
    scale = m / (E * (m - 2))
    value = L @ fit.beta
    F = scale / q * value @ np.linalg.solve(L @ adjusted @ L.T, value)
    return adjusted, float(F), float(m), float(scale)
