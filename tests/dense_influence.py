"""Residuals, leverage and deletion by n x n matrices: generalised least squares on the rows that are left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import mmcore as mm
from tests.oracles import dense_gls, dense_V, response


@dataclass(frozen=True)
class Dense:
    """Absolute (sigma^2 included) matrices of a fit."""

    fit: mm.Fit
    V: np.ndarray
    Vinv: np.ndarray
    C: np.ndarray
    P: np.ndarray
    G: np.ndarray  # Z Lambda Lambda' Z'
    r: np.ndarray
    beta: np.ndarray


def dense(fit: mm.Fit) -> Dense:
    """All matrices."""
    d, s2 = fit.design, fit.sigma**2
    Sigmas = [L @ L.T for L in fit.Lambda]
    V, Vinv, C, beta, r = dense_gls(d, Sigmas)
    G = V - np.diag(np.ones(d.n) if d.weights is None else 1 / d.weights)
    P = Vinv - Vinv @ d.X @ C @ d.X.T @ Vinv
    return Dense(fit, s2 * V, Vinv / s2, s2 * C, P / s2, G, r, beta)


def deletion(fit: mm.Fit, rows: np.ndarray) -> dict[str, float | np.ndarray]:
    """One-step measures of one set, by fitting the other rows with the same V."""
    d, s2 = fit.design, fit.sigma**2
    V = s2 * dense_V(d, [L @ L.T for L in fit.Lambda])
    keep = np.setdiff1d(np.arange(d.n), rows)
    X, y = d.X, response(d)

    def gls(at):
        Vinv = np.linalg.inv(V[np.ix_(at, at)])
        C = np.linalg.inv(X[at].T @ Vinv @ X[at])
        return C @ X[at].T @ Vinv @ y[at], C

    beta, C = gls(np.arange(d.n))
    beta_A, C_A = gls(keep)
    delta = beta - beta_A
    return {
        "cooksd": delta @ np.linalg.solve(C, delta) / d.p,
        "mdffits": delta @ np.linalg.solve(C_A, delta) / d.p,
        "covtrace": abs(np.trace(np.linalg.solve(C, C_A)) - d.p),
        "covratio": np.linalg.det(C_A) / np.linalg.det(C),
        "delta": delta,
    }


def deletions(fit: mm.Fit, sets: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The same for many sets."""
    each = [deletion(fit, rows) for rows in sets]
    return {k: np.array([e[k] for e in each]) for k in each[0]}


def sets_of(fit: mm.Fit, level) -> tuple[list, list[np.ndarray]]:
    """Labels and rows of every unit: levels in order of first appearance."""
    if level == 1:
        return list(fit.design.index), [np.array([i]) for i in range(fit.design.n)]
    term = next(t for t in fit.design.terms if t.group == level)
    codes = list(dict.fromkeys(term.codes.tolist()))
    return [term.levels[code] for code in codes], [np.flatnonzero(term.codes == code) for code in codes]


def levels_of(fit: mm.Fit) -> list:
    """1 and every grouping factor."""
    return [1, *dict.fromkeys(t.group for t in fit.design.terms)]
