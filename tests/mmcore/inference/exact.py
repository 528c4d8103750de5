"""Satterthwaite's degrees of freedom in 60-digit arithmetic, straight from their definition: one grouping factor.

The deviance of lmerTest in (theta, sigma) and vcov are evaluated as functions and differenced with a step of 1e-18, so
nothing here is shared with the derivatives under test.
"""

from __future__ import annotations

import flint
import numpy as np

STEP = "1e-18"


def _matrix(A: np.ndarray) -> flint.arb_mat:
    return flint.arb_mat([[flint.arb(float(x)) for x in row] for row in np.atleast_2d(A)])


class ExactModel:
    """Products of a design with one term, exact; weights are square roots of what ``design.weights`` holds."""

    def __init__(self, design, reml: bool) -> None:
        flint.ctx.dps = 60
        (term,) = design.terms
        y = design.y if design.offset is None else design.y - design.offset
        self.n, self.p, self.k, self.reml = design.n, design.p, term.columns.shape[1], reml
        w = np.ones(design.n) if design.weights is None else design.weights
        M, Z = np.column_stack([design.X, y]), term.columns
        self.log_w = sum((flint.arb(float(x)).log() for x in w), flint.arb(0))
        self.MM, self.levels = flint.arb_mat(self.p + 1, self.p + 1), []
        for level in range(len(term.levels)):
            at = np.flatnonzero(term.codes == level)
            m, z = _matrix(M[at]), _matrix(Z[at])
            W = flint.arb_mat(len(at), len(at))
            for i, row in enumerate(at):
                W[i, i] = flint.arb(float(w[row]))
            self.MM += m.transpose() * W * m
            self.levels.append((z.transpose() * W * z, z.transpose() * W * m))

    def at(self, theta: list, sigma) -> tuple:
        """lmerTest's deviance at (theta, sigma), and vcov."""
        L = flint.arb_mat(self.k, self.k)
        entries = iter(theta)
        for j in range(self.k):
            for i in range(j, self.k):
                L[i, j] = next(entries)
        unit = flint.arb_mat([[flint.arb(int(i == j)) for j in range(self.k)] for i in range(self.k)])
        S, logdet = flint.arb_mat(self.MM), flint.arb(0)
        for D, R in self.levels:
            inner = unit + L.transpose() * D * L
            logdet += inner.det().log()
            LR = L.transpose() * R
            S -= LR.transpose() * inner.inv() * LR
        p = self.p
        XX = flint.arb_mat([[S[i, j] for j in range(p)] for i in range(p)])
        Xy = flint.arb_mat([[S[i, p]] for i in range(p)])
        C = XX.inv()
        rss = S[p, p] - (Xy.transpose() * C * Xy)[0, 0]
        nu = self.n - p if self.reml else self.n
        deviance = logdet - self.log_w + rss / sigma**2 + nu * (2 * flint.arb.pi() * sigma**2).log()
        if self.reml:
            deviance += XX.det().log()
        return deviance, C * (sigma**2)

    def satterthwaite(self, theta: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """vcov (p, p), its Jacobian (r, p, p) and twice the inverse Hessian (r, r), as floats of exact numbers."""
        h, base = flint.arb(STEP), [*(flint.arb(float(t)) for t in theta), flint.arb(float(sigma))]
        r = len(base)

        def moved(*steps: tuple[int, int]) -> tuple:
            point = list(base)
            for index, sign in steps:
                point[index] += sign * h
            return self.at(point[:-1], point[-1])

        f0, vcov = moved()
        plus, minus = [moved((i, 1)) for i in range(r)], [moved((i, -1)) for i in range(r)]
        H = flint.arb_mat(r, r)
        for i in range(r):
            H[i, i] = (plus[i][0] - 2 * f0 + minus[i][0]) / h**2
            for j in range(i):
                cross = moved((i, 1), (j, 1))[0] - moved((i, 1), (j, -1))[0]
                cross -= moved((i, -1), (j, 1))[0] - moved((i, -1), (j, -1))[0]
                H[i, j] = H[j, i] = cross / (4 * h**2)
        jacobian = [(a[1] - b[1]) * (1 / (2 * h)) for a, b in zip(plus, minus, strict=True)]
        return _floats(vcov), np.array([_floats(J) for J in jacobian]), 2.0 * _floats(H.inv())


def _floats(A: flint.arb_mat) -> np.ndarray:
    return np.array([[float(A[i, j].mid()) for j in range(A.ncols())] for i in range(A.nrows())])
