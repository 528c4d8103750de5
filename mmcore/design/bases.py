"""Bases that depend on the data they were made from: orthogonal polynomials, splines, scaling.

Each basis is a frozen dataclass: `fit` takes what it needs from the training column, `columns` evaluates it
anywhere. That is what makes a prediction use the training basis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from ..errors import DataError


@dataclass(frozen=True, slots=True)
class Poly:
    """Orthonormal polynomials of degree 1..k over the training points (R's `poly`)."""

    alpha: np.ndarray  # (k,) centres of the three-term recursion
    norm2: np.ndarray  # (k + 2,) squared norms of the monic polynomials, preceded by 1

    @staticmethod
    def fit(x: np.ndarray, degree: int) -> "Poly":
        """The basis that is orthonormal over the points x (n,)."""
        if degree < 1:
            raise DataError(f"poly() needs a degree of at least 1, not {degree}")
        if np.isnan(x).any():
            raise DataError("poly() cannot be made from a column with missing values: drop these rows first")
        if degree >= len(np.unique(x)):
            raise DataError(f"poly() of degree {degree} needs more than {len(np.unique(x))} distinct values")
        centre = x.mean()
        Q, R = np.linalg.qr(np.vander(x - centre, degree + 1, increasing=True))
        monic = Q * R.diagonal()
        norm2 = (monic**2).sum(axis=0)
        alpha = ((x - centre) @ monic**2 / norm2 + centre)[:degree]
        return Poly(alpha, np.concatenate(([1.0], norm2)))

    def columns(self, x: np.ndarray) -> np.ndarray:
        """(m, k) values at x by the recursion P[i+1] = (x - alpha[i]) P[i] - norm2[i+1]/norm2[i] P[i-1]."""
        previous, current = np.zeros_like(x), np.ones_like(x)
        columns = []
        for i, alpha in enumerate(self.alpha):
            following = (x - alpha) * current - self.norm2[i + 1] / self.norm2[i] * previous
            previous, current = current, following
            columns.append(current / np.sqrt(self.norm2[i + 2]))
        return np.column_stack(columns)


@dataclass(frozen=True, slots=True)
class Spline:
    """B-spline basis with boundary knots (R's `splines::bs`), or its natural subspace (`splines::ns`)."""

    knots: np.ndarray  # (m + 2 order,) with repeated boundary knots
    degree: int
    intercept: bool
    transform: np.ndarray | None  # ns: (m', k) null space of the second derivatives at the boundary

    @staticmethod
    def fit(
        x: np.ndarray,
        df: int | None,
        knots: Sequence[float] | None,
        degree: int,
        intercept: bool,
        boundary: Sequence[float] | None,
        natural: bool,
    ) -> "Spline":
        """Knots as R chooses them: at equally spaced quantiles (type 7) of the x inside the boundary."""
        x = x[~np.isnan(x)]
        if degree < 1:
            raise DataError(f"a spline needs a degree of at least 1, not {degree}")
        if not len(x):
            raise DataError("a spline cannot be made from a column without values")
        low, high = (x.min(), x.max()) if boundary is None else sorted(boundary)
        interior = np.sort(np.asarray([] if knots is None else knots, dtype=np.float64))
        if df is not None and knots is None:
            count = max(0, df - 1 - intercept if natural else df - degree - intercept)
            inside = x[(x >= low) & (x <= high)]
            interior = np.quantile(inside, np.arange(1, count + 1) / (count + 1))
        full = np.concatenate((np.repeat(low, degree + 1), interior, np.repeat(high, degree + 1)))
        full.sort()
        transform = _natural_transform(full, intercept) if natural else None
        return Spline(full, degree, intercept, transform)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """(m, k) values; beyond the boundary the end polynomials go on (natural: straight lines)."""
        low, high = self.knots[0], self.knots[-1]
        if self.transform is None:
            return self._raw(x)[:, 0 if self.intercept else 1 :]
        basis = self._raw(np.clip(x, low, high))
        for end, outside in ((low, x < low), (high, x > high)):
            if outside.any():
                slope = self._raw(np.array([end]), derivative=1)
                basis[outside] += (x[outside] - end)[:, None] * slope
        return basis[:, 0 if self.intercept else 1 :] @ self.transform

    def _raw(self, x: np.ndarray, derivative: int = 0) -> np.ndarray:
        return _design(self.knots, self.degree, x, derivative)


def _design(knots: np.ndarray, degree: int, x: np.ndarray, derivative: int = 0) -> np.ndarray:
    size = len(knots) - degree - 1
    return BSpline(knots, np.eye(size), degree, extrapolate=True)(x, nu=derivative)


def _natural_transform(knots: np.ndarray, intercept: bool) -> np.ndarray:
    curvature = _design(knots, 3, knots[[0, -1]], derivative=2)[:, 0 if intercept else 1 :]
    return np.linalg.qr(curvature.T, mode="complete")[0][:, 2:]


@dataclass(frozen=True, slots=True)
class Scale:
    """Centre and scale of a column (R's `scale`); None where the step was switched off."""

    center: float | None
    spread: float | None

    @staticmethod
    def fit(x: np.ndarray, center: bool | float, scale: bool | float) -> "Scale":
        """Mean and standard deviation of the non-missing x; root mean square when it is not centred."""
        present = x[~np.isnan(x)]
        middle = (present.mean() if center is True else float(center)) if center is not False else None
        if scale is False:
            return Scale(middle, None)
        if scale is not True:
            return Scale(middle, float(scale))
        centred = present if middle is None else present - middle
        return Scale(middle, float(np.sqrt((centred**2).sum() / max(1, len(centred) - 1))))

    def columns(self, x: np.ndarray) -> np.ndarray:
        """(m,) scaled values."""
        if self.center is not None:
            x = x - self.center
        return x if self.spread is None else x / self.spread
