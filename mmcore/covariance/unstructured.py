"""``us``: any covariance matrix, by the entries of its Cholesky factor (Bates et al. 2015, eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.linalg.lapack import dtrtri

from .structure import SINGULAR, START, WIDE, Structure
from .triangle import TENSORS, cholesky_psd, triangle_names, triangle_tensors

__all__ = ["CROSS", "LARGE", "NEARLY_SINGULAR", "PIVOT_RATIO", "Unstructured"]

LARGE = 2.0  # relative sd of a second start


CROSS = 4.0  # and the others of a triangle within this many of the middle one of these


NEARLY_SINGULAR = 0.1  # relative pivot in the chart below which a second optimum is looked for


PIVOT_RATIO = 6.0  # an effect with this many times the remaining variance of an earlier one goes before it


class Unstructured(Structure):
    """Any positive semi-definite Sigma; par = lower triangle of L by columns, Cov(b~) = P L L' P' in the
    chart P."""

    def __init__(
        self,
        k: int,
        chart: np.ndarray | None = None,
        frame: np.ndarray | None = None,
        together: np.ndarray | None = None,
    ) -> None:
        self.k, self.n_par = k, k * (k + 1) // 2
        self.together = together  # (k, k) in the order of the chart; False: the entry of L is held at zero
        self.n_theta = self.n_par
        self.chart, self.frame = chart, frame
        self.standard = chart is None and frame is None
        self.lower_root = chart is None or not np.triu(chart, 1).any()
        self._row, self._col, self._diag, base, self._same_column = triangle_tensors(k)
        if chart is not None and 1 < k <= TENSORS:
            base = np.matmul(chart, np.matmul(chart, base.reshape(self.n_par, k, k**3)).reshape(-1, k, k**2))
        self._base = base.reshape(self.n_par * k * k, k * k) if k <= TENSORS else base
        self._apart = None if together is None else ~together[self._row, self._col]
        if self._apart is not None:
            limit = np.where(self._apart, 0.0, np.inf)
            self.bounds = (-limit, limit)

    def framed(self, C: np.ndarray) -> Unstructured:
        out = Unstructured(self.k, dtrtri(C, lower=0)[0], C)
        out.standard = True
        return out

    def charted(self, P: np.ndarray | None) -> Unstructured:
        return self if P is None and self.frame is None else Unstructured(self.k, P, self.frame)

    def separated(self, together: np.ndarray) -> Unstructured:
        return self if together.all() else Unstructured(self.k, self.chart, self.frame, together)

    def _held(self, par: np.ndarray) -> np.ndarray:
        """``par`` with the entries that are held put on zero."""
        return par if self._apart is None else np.where(self._apart, 0.0, par)

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        if relative is not None:
            return self._held(cholesky_psd(relative)[self._row, self._col])
        par = np.zeros(self.n_par)
        par[self._diag] = START
        return par

    def _factor(self, par: np.ndarray) -> np.ndarray:
        L = np.zeros((self.k, self.k))
        L[self._row, self._col] = par
        return L

    def root(self, par: np.ndarray) -> np.ndarray:
        """(k, k) P L."""
        L = self._factor(par)
        return L if self.chart is None else self.chart @ L

    def sigma(self, par: np.ndarray) -> np.ndarray:
        if self.k == 1:
            c = 1.0 if self.chart is None else float(self.chart[0, 0])
            return np.array([[(c * par[0]) ** 2]])
        half = self.root(par)
        return half @ half.T

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        if self.k == 1:
            c = 1.0 if self.chart is None else float(self.chart[0, 0])
            return np.array([[[2.0 * c * c * par[0]]]])
        if self.k > TENSORS:
            return self._direct_jacobian(par)
        return (self._base @ self._factor(par).ravel()).reshape(self.n_par, self.k, self.k)

    def _direct_jacobian(self, par: np.ndarray) -> np.ndarray:
        """dSigma = P e_r (P L e_c)' and its transpose for the entry of L in row r and column c."""
        P, half = np.eye(self.k) if self.chart is None else self.chart, self.root(par)
        E = P.T[self._row][:, :, None] * half.T[self._col][:, None, :]
        return E + E.transpose(0, 2, 1)

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        if self.chart is not None:
            G = self.chart.T @ G @ self.chart
        return self._same_column * G[self._row[:, None], self._row[None, :]]

    def rechart(self, par: np.ndarray) -> tuple[Structure, np.ndarray] | None:
        """The largest remaining variance first: then the factor of a singular Sigma ends in zero columns.

        In another order Sigma = [[a^2, ab], [ab, b^2 + c^2]] with small a is a ridge: b^2 + c^2 is well
        known, b is not, and steps along the circle are small.
        """
        k = self.k
        if k == 1 or (k == 2 and par[1] ** 2 + par[2] ** 2 <= PIVOT_RATIO * par[0] ** 2):
            return None
        L = self._factor(par)
        remaining = np.cumsum(np.square(L)[:, ::-1], axis=1)[
            :, ::-1
        ]  # variance of row i not yet explained at j
        if (np.tril(remaining).max(axis=0) <= PIVOT_RATIO * remaining.diagonal()).all():
            return None
        A, order = L @ L.T, np.arange(k)
        rest = A.copy()
        for j in range(k):
            best = j + int(np.argmax(rest.diagonal()[j:]))
            order[[j, best]] = order[[best, j]]
            rest[[j, best]] = rest[[best, j]]
            rest[:, [j, best]] = rest[:, [best, j]]
            if rest[j, j] > 0:
                rest[j + 1 :, j + 1 :] -= np.outer(rest[j + 1 :, j], rest[j, j + 1 :]) / rest[j, j]
        if (order == np.arange(k)).all():
            return None
        chart = np.eye(k) if self.chart is None else self.chart
        factor = cholesky_psd(A[np.ix_(order, order)])
        together = None if self.together is None else self.together[np.ix_(order, order)]
        moved = Unstructured(k, chart[:, order], self.frame, together)
        return moved, moved._held(factor[self._row, self._col])

    def alternatives(self, par: np.ndarray) -> list[np.ndarray]:
        """Of a nearly singular Sigma: the correlations reversed, and nearly rank-one matrices of every sign
        pattern."""
        k = self.k
        size = np.abs(par[self._diag])
        if not 1 < k <= 4 or size.min() > NEARLY_SINGULAR * size.max():
            return []
        out = [np.where(self._row == self._col, par, -par)]
        for signs in product((1.0, -1.0), repeat=k - 1):
            v = np.array([1.0, *signs])
            near = cholesky_psd(LARGE**2 * (0.9 * np.outer(v, v) + 0.1 * np.eye(k)))
            out.append(self._held(near[self._row, self._col]))
        return out

    def vanished(self, par: np.ndarray) -> np.ndarray:
        return np.zeros(self.n_par)

    def scattered(self, u: np.ndarray, wide: float = WIDE) -> np.ndarray:
        par, below = super().scattered(u, wide), self._row != self._col
        par[below] = CROSS * np.median(par[self._diag]) * (2.0 * u[below] - 1.0)
        return self._held(par)

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        if self.standard:
            return self._held(np.array(par, float))
        half = self._factor(par)
        for matrix in (self.frame, self.chart):
            half = half if matrix is None else np.linalg.solve(matrix, half)
        return self._held(cholesky_psd(half @ half.T)[self._row, self._col])

    def to_standard(self, par: np.ndarray) -> np.ndarray:
        return self.canonical(par) if self.standard else self.Lambda(par)[self._row, self._col]

    def canonical(self, par: np.ndarray) -> np.ndarray:
        sign = np.where(par[self._diag] < 0, -1.0, 1.0)
        return par * sign[self._col] + 0.0

    def is_unique(self, par: np.ndarray) -> bool:
        """No, where something stands behind a zero pivot: there columns can be turned into each other."""
        L = np.abs(self._factor(par))
        return all(L[j:, j:].max() < SINGULAR for j in np.flatnonzero(L.diagonal() < SINGULAR))

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        if self.standard:
            return self._factor(par)
        half = self.root(par)
        half = half if self.frame is None else self.frame @ half
        return cholesky_psd(half @ half.T)

    def theta(self, par: np.ndarray) -> np.ndarray:
        return np.array(par, float) if self.standard else self.to_standard(par)

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        return self.from_standard(theta)

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        return triangle_names(effects)

    @property
    def scale_index(self) -> np.ndarray:
        return self._diag
