"""Relative covariance of the random effects: parameters -> Sigma, with the derivatives a Newton step needs.

A *structure* describes one random-effects term with k effects. Its parameters ``par`` are what the optimizer
moves; ``theta`` are the entries of the lower Cholesky factor Lambda that lme4 reports. For ``us`` and
``diag`` the two are the same (Bates et al. 2015, eq. 4: Sigma = Lambda Lambda'); for ``cs`` and ``ar1`` the
parameters are standard deviations relative to sigma and a correlation.

The products of a model may stand in other coordinates than its effects: columns Z C of a *frame* C, with
effects b = C b~. ``sigma``, ``jacobian`` and ``curvature`` are those of b~; ``Lambda`` and ``theta`` are of
b.

A *chart* P (k, k) lets ``us`` and ``diag`` parametrise Cov(b~) = P L L' P'. The model is the same for every
P; a good one makes the effects comparable in size and puts those that vanish last, where a triangular factor
can let them go in a straight line. The *standard* parameters, those of theta, have P = C^-1.

Terms on the same grouping factor are one *block*: their Sigma is block diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, product

import numpy as np
from scipy.linalg.lapack import dgeqrf, dtrtri

from .errors import DataError

__all__ = [
    "BlockCovariance",
    "Compound",
    "Diagonal",
    "Structure",
    "Unstructured",
    "cholesky_psd",
    "structure_for",
]

START = 0.55  # relative sd to start from: at 1 a capped Newton step can land exactly on theta = 0
LARGE = 2.0  # relative sd of a second start
WIDE = 2.0  # scattered starts have their standard deviations within START exp(+-WIDE)
CROSS = 4.0  # and the others of a triangle within this many of the middle one of these
WIDE_ALONE = 6.0  # of a single parameter, where weights over decades put optima far apart
SCATTERED = 8  # such starts; fewer of two parameters
FILLED = 0.3  # of the largest standard deviation: where those that are zero start once more
FILLED_AT = (1.0, 4.0)  # with the parameters multiplied by this
NEARLY_SINGULAR = 0.1  # relative pivot in the chart below which a second optimum is looked for
SINGULAR = 1e-4  # lme4's isSingular: a diagonal entry of Lambda below this
PIVOT_RATIO = 6.0  # an effect with this many times the remaining variance of an earlier one goes before it


def cholesky_psd(Sigma: np.ndarray) -> np.ndarray:
    """Lower factor of a positive semi-definite matrix; a zero pivot gives a zero column."""
    k = len(Sigma)
    L = np.zeros((k, k))
    A = np.array(Sigma, float)
    for j in range(k):
        pivot = A[j, j]
        if pivot > 1e-14 * max(Sigma[j, j], 1e-300):
            L[j:, j] = A[j:, j] / np.sqrt(pivot)
            A[j:, j:] -= np.outer(L[j:, j], L[j:, j])
    return L


def lower_factor(A: np.ndarray) -> np.ndarray:
    """Lower triangular L with L L' = A A', from A itself: forming A A' would lose half the digits."""
    if len(A) == 1:
        return np.abs(A)
    return dgeqrf(A.T)[0].T * _lower(len(A))


@lru_cache(maxsize=32)
def _lower(k: int) -> np.ndarray:
    return np.tri(k)


def _triangle_names(effects: Sequence[str]) -> list[str]:
    """lme4's labels of the lower triangle, column by column: ``a``, ``b.a``, ``b``."""
    k = len(effects)
    return [effects[i] if i == j else f"{effects[i]}.{effects[j]}" for j in range(k) for i in range(j, k)]


def _triangle(L: np.ndarray) -> np.ndarray:
    """Entries of the lower triangle, column by column."""
    return np.concatenate([L[j:, j] for j in range(len(L))])


class Structure:
    """One term's covariance structure of k effects; subclasses say how Sigma depends on ``par``."""

    k: int
    n_par: int
    n_theta: int
    bounds: tuple[np.ndarray, np.ndarray] | None = None  # lower and upper limits of ``par``
    frame: np.ndarray | None = None  # (k, k) C with b = C b~; None for the identity
    lower_root = True  # whether ``root`` is lower triangular

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        """Parameters to start from: near the (k, k) covariance ``relative`` in the chart, or some usual ones."""
        raise NotImplementedError

    def sigma(self, par: np.ndarray) -> np.ndarray:
        """(k, k) covariance of b~ relative to the residual variance."""
        raise NotImplementedError

    def root(self, par: np.ndarray) -> np.ndarray:
        """(k, k) A with A A' = Sigma."""
        return cholesky_psd(self.sigma(par))

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        """(n_par, k, k) with dSigma / dpar."""
        raise NotImplementedError

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        """(n_par, n_par) with <G, d2Sigma / dpar dpar'>: the part of the Hessian a gradient G brings."""
        raise NotImplementedError

    def framed(self, C: np.ndarray) -> Structure:
        """The structure, with standard parameters, of a term whose products are in the frame C."""
        raise NotImplementedError

    def charted(self, P: np.ndarray | None) -> Structure:
        """The same structure in the chart P (None: the identity); those without a free scale stay as they are."""
        return self

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        """Parameters in this chart of those without a chart."""
        return np.array(par, float)

    def to_standard(self, par: np.ndarray) -> np.ndarray:
        """Parameters without a chart, canonical, of those in this chart."""
        return self.canonical(par)

    def rechart(self, par: np.ndarray) -> tuple[Structure, np.ndarray] | None:
        """A better chart and the parameters in it, or None if this one will do."""
        return None

    def alternatives(self, par: np.ndarray) -> list[np.ndarray]:
        """Parameters to start from where another optimum than ``par`` may hide; none if there is no sign of
        one."""
        return []

    def scattered(self, u: np.ndarray, wide: float = WIDE) -> np.ndarray:
        """Parameters anywhere within reason, from (n_par,) numbers between 0 and 1."""
        par = np.zeros(self.n_par)
        par[self.scale_index] = START * np.exp(wide * (2.0 * u[self.scale_index] - 1.0))
        return par

    def vanished(self, par: np.ndarray) -> np.ndarray:
        """Parameters of a term without variance."""
        out = par.copy()
        out[self.scale_index] = 0.0
        return out

    def canonical(self, par: np.ndarray) -> np.ndarray:
        """The representative with non-negative diagonal among parameters of the same Sigma."""
        raise NotImplementedError

    def is_unique(self, par: np.ndarray) -> bool:
        """Whether no other canonical parameters nearby have the same Sigma."""
        return True

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        """(k, k) lower triangular with Lambda Lambda' the relative covariance of b."""
        raise NotImplementedError

    def theta(self, par: np.ndarray) -> np.ndarray:
        """(n_theta,) the entries of Lambda that lme4 keeps, in its order."""
        raise NotImplementedError

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        """Parameters of the Cholesky entries lme4 reports."""
        raise NotImplementedError

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        """(n_theta,) lme4's names of ``theta``, without the group prefix."""
        raise NotImplementedError

    def par_names(self, effects: Sequence[str]) -> list[str]:
        """(n_par,) lme4's names of the parameters without a chart, without the group prefix."""
        return self.theta_names(effects)

    @property
    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` of the scales: Sigma is singular when one of them is zero."""
        raise NotImplementedError


@lru_cache(maxsize=32)
def _triangle_tensors(k: int) -> tuple[np.ndarray, ...]:
    """Rows, columns, positions of the diagonal, (n_par, k, k, k^2) constants of the Jacobian, same-column
    mask."""
    cols = [(i, j) for j in range(k) for i in range(j, k)]
    row, col = np.array([i for i, _ in cols]), np.array([j for _, j in cols])
    # dSigma_ab / dpar_t = base[t, a, b] vec(Lambda): constant, so the Jacobian is one product
    base = np.zeros((len(cols), k, k, k, k))
    for t, (r, c) in enumerate(cols):
        for a in range(k):
            base[t, r, a, a, c] += 1.0
            base[t, a, r, a, c] += 1.0
    same_column = 2.0 * (col[:, None] == col[None, :])
    return row, col, np.flatnonzero(row == col), base.reshape(len(cols), k, k, k * k), same_column


class Unstructured(Structure):
    """Any positive semi-definite Sigma; par = lower triangle of L by columns, Cov(b~) = P L L' P' in the
    chart P."""

    def __init__(self, k: int, chart: np.ndarray | None = None, frame: np.ndarray | None = None) -> None:
        self.k, self.n_par = k, k * (k + 1) // 2
        self.n_theta = self.n_par
        self.chart, self.frame = chart, frame
        self.standard = chart is None and frame is None
        self.lower_root = chart is None or not np.triu(chart, 1).any()
        self._row, self._col, self._diag, base, self._same_column = _triangle_tensors(k)
        if chart is not None and k > 1:
            base = np.matmul(chart, np.matmul(chart, base.reshape(self.n_par, k, k**3)).reshape(-1, k, k**2))
        self._base = base.reshape(self.n_par * k * k, k * k)

    def framed(self, C: np.ndarray) -> Unstructured:
        out = Unstructured(self.k, dtrtri(C, lower=0)[0], C)
        out.standard = True
        return out

    def charted(self, P: np.ndarray | None) -> Unstructured:
        return self if P is None and self.frame is None else Unstructured(self.k, P, self.frame)

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        if relative is not None:
            return cholesky_psd(relative)[self._row, self._col]
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
        return (self._base @ self._factor(par).ravel()).reshape(self.n_par, self.k, self.k)

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
        return Unstructured(k, chart[:, order], self.frame), factor[self._row, self._col]

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
            out.append(near[self._row, self._col])
        return out

    def vanished(self, par: np.ndarray) -> np.ndarray:
        return np.zeros(self.n_par)

    def scattered(self, u: np.ndarray, wide: float = WIDE) -> np.ndarray:
        par, below = super().scattered(u, wide), self._row != self._col
        par[below] = CROSS * np.median(par[self._diag]) * (2.0 * u[below] - 1.0)
        return par

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        if self.standard:
            return np.array(par, float)
        half = self._factor(par)
        for matrix in (self.frame, self.chart):
            half = half if matrix is None else np.linalg.solve(matrix, half)
        return cholesky_psd(half @ half.T)[self._row, self._col]

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
        return _triangle_names(effects)

    @property
    def scale_index(self) -> np.ndarray:
        return self._diag


class Diagonal(Structure):
    """Uncorrelated effects: one standard deviation each, or one for all (homogeneous).

    par = standard deviations in units of ``unit`` (n_par,).
    """

    def __init__(
        self, k: int, homogeneous: bool, unit: np.ndarray | None = None, frame: np.ndarray | None = None
    ) -> None:
        self.k, self.homogeneous, self.frame = k, homogeneous, frame
        self.n_par = self.n_theta = 1 if homogeneous else k
        self._unit = np.ones(self.n_par) if unit is None else unit
        share = (np.ones((1, k)) if homogeneous else np.eye(k)) * self._unit[:, None]
        self._raw = share  # sd of b = par @ _raw, of b~ = par @ _J
        self._J = share if frame is None else share / frame.diagonal()

    def framed(self, C: np.ndarray) -> Diagonal:
        return Diagonal(self.k, self.homogeneous, None, C)

    def charted(self, P: np.ndarray | None) -> Diagonal:
        C = np.eye(self.k) if self.frame is None else self.frame
        C = C if P is None else C @ P
        unit = np.sqrt(np.square(C).sum(axis=1))
        unit = unit.mean(keepdims=True) if self.homogeneous else unit
        return Diagonal(self.k, self.homogeneous, unit, self.frame)

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        if relative is None:
            return np.full(self.n_par, START)
        sd = np.sqrt(relative.diagonal())
        return sd.mean(keepdims=True) if self.homogeneous else sd

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        return np.diag(par @ self._raw)

    def sigma(self, par: np.ndarray) -> np.ndarray:
        return np.diag((par @ self._J) ** 2)

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        return np.array([np.diag(2.0 * value * row * row) for value, row in zip(par, self._J, strict=True)])

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        return np.diag(2.0 * (np.square(self._J) @ np.diag(G)))

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        return par / self._unit

    def to_standard(self, par: np.ndarray) -> np.ndarray:
        return np.abs(par) * self._unit

    def canonical(self, par: np.ndarray) -> np.ndarray:
        return np.abs(par)

    def theta(self, par: np.ndarray) -> np.ndarray:
        return par * self._unit

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        return theta / self._unit

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        return ["*"] if self.homogeneous else list(effects)

    @property
    def scale_index(self) -> np.ndarray:
        return np.arange(self.n_par)


class Compound(Structure):
    """Compound symmetry (``cs``) or first-order autoregression (``ar1``).

    par = standard deviations relative to sigma (one if homogeneous), then the correlation rho: Sigma_ij =
    sd_i sd_j rho^t, t = 1 for i != j (cs) or |i - j| (ar1). Standard deviations are not negative and rho is
    within the interval in which Sigma is positive semi-definite: [-1/(k-1), 1] for cs, [-1, 1] for ar1.
    """

    def __init__(self, k: int, kind: str, homogeneous: bool, frame: np.ndarray | None = None) -> None:
        self.k, self.kind, self.homogeneous, self.frame = k, kind, homogeneous, frame
        self.n_sd = 1 if homogeneous else k
        self.n_par = self.n_sd + 1
        self.n_theta = 2 * k - 1 if homogeneous else k * (k + 1) // 2
        self._raw = np.ones((1, k)) if homogeneous else np.eye(k)  # sd of b = par[:-1] @ _raw, of b~ with _J
        self._J = self._raw if frame is None else self._raw / frame.diagonal()
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        self._power = lag if kind == "ar1" else (lag > 0).astype(int)
        lower = np.append(np.zeros(self.n_sd), -1.0 if kind == "ar1" else -1.0 / (k - 1))
        self._limits = self.bounds = (lower, np.append(np.full(self.n_sd, np.inf), 1.0))

    def framed(self, C: np.ndarray) -> Compound:
        return Compound(self.k, self.kind, self.homogeneous, C)

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        if relative is None:
            return np.append(np.full(self.n_sd, START), 0.1)
        sd = np.sqrt(relative.diagonal()) * (1.0 if self.frame is None else self.frame.diagonal())
        pairs = relative.diagonal(1) / np.sqrt(relative.diagonal()[1:] * relative.diagonal()[:-1])
        rho = float(np.clip(pairs.mean(), 0.5 * self._limits[0][-1], 0.9))
        return np.append(sd.mean() if self.homogeneous else sd, rho)

    def scattered(self, u: np.ndarray, wide: float = WIDE) -> np.ndarray:
        par, (lower, upper) = super().scattered(u, wide), self._limits
        par[-1] = lower[-1] + u[-1] * (upper[-1] - lower[-1])
        return par

    def _correlations(self, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Correlation matrix and its first two derivatives in rho."""
        t = self._power
        powers = np.concatenate(
            [[0.0, 0.0], float(rho) ** np.arange(t.max() + 1)]
        )  # 0, 0, 1, rho, rho^2, ...
        return powers[t + 2], t * powers[t + 1], t * (t - 1) * powers[t]

    def sigma(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        return np.outer(sd, sd) * self._correlations(par[-1])[0]

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        return (par[:-1] @ self._raw)[:, None] * cholesky_psd(self._correlations(par[-1])[0])

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        R, R1, _ = self._correlations(par[-1])
        rows = [(np.outer(e, sd) + np.outer(sd, e)) * R for e in self._J]
        return np.array([*rows, np.outer(sd, sd) * R1])

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        R, R1, R2 = self._correlations(par[-1])
        H = np.empty((self.n_par, self.n_par))
        H[:-1, :-1] = 2.0 * self._J @ (G * R) @ self._J.T
        H[:-1, -1] = H[-1, :-1] = 2.0 * (self._J @ ((G * R1) @ sd))
        H[-1, -1] = np.sum(G * np.outer(sd, sd) * R2)
        return H

    def canonical(self, par: np.ndarray) -> np.ndarray:
        return np.clip(par, *self._limits)

    def theta(self, par: np.ndarray) -> np.ndarray:
        L = self.Lambda(par)
        if not self.homogeneous:
            return _triangle(L)
        if self.kind == "ar1":  # Toeplitz after the first column
            return np.concatenate([L[:, 0], L[1:, 1]])
        below = np.append(L.diagonal(-1), 0.0)  # constant below the diagonal
        return np.column_stack([L.diagonal(), below]).ravel()[:-1]

    def _expand(self, theta: np.ndarray) -> np.ndarray:
        """(k, k) Lambda of the entries that lme4 keeps."""
        k, L = self.k, np.zeros((self.k, self.k))
        for j in range(k):
            if not self.homogeneous:
                start = j * k - j * (j - 1) // 2
                L[j:, j] = theta[start : start + k - j]
            elif self.kind == "ar1":
                L[j:, j] = theta[:k] if j == 0 else theta[k : 2 * k - j]
            else:
                L[j, j] = theta[2 * j]
                L[j + 1 :, j] = theta[2 * j + 1] if j < k - 1 else 0.0
        return L

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        L = self._expand(np.asarray(theta, float))
        Sigma = L @ L.T
        sd = np.sqrt(np.diag(Sigma))
        pairs = [(i, i + 1) for i in range(self.k - 1) if sd[i] > 0 and sd[i + 1] > 0]
        i, j = pairs[0] if pairs else (0, 0)
        rho = Sigma[i, j] / (sd[i] * sd[j]) if pairs else 0.0
        par = np.append(sd[: self.n_sd], np.clip(rho, self._limits[0][-1], 1.0))
        again = self.Lambda(par)
        if np.abs(again @ again.T - Sigma).max() > 1e-6 * max(1e-300, Sigma.max()):
            raise DataError(
                f"theta {theta!r} is not the Cholesky factor of a covariance of the form {self.kind}"
            )
        return par

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        if not self.homogeneous:
            return _triangle_names(effects)
        if self.kind == "ar1":
            first = [effects[0], *(f"{e}.{effects[0]}" for e in effects[1:])]
            return [*first, effects[1], *(f"{e}.{effects[1]}" for e in effects[2:])]
        return [name for e in effects for name in (e, f"*.{e}")][:-1]

    def par_names(self, effects: Sequence[str]) -> list[str]:
        return [*(["*"] if self.homogeneous else effects), "rho"]

    @property
    def scale_index(self) -> np.ndarray:
        return np.arange(self.n_sd)


def structure_for(kind: str, k: int, homogeneous: bool) -> Structure:
    """The structure a term asks for; with one effect all of them are a single standard deviation."""
    if k == 1 or kind == "us":
        return Unstructured(k)
    if kind == "diag":
        return Diagonal(k, homogeneous)
    return Compound(k, kind, homogeneous)


class BlockCovariance:
    """The structures of all blocks of a model; ``par`` is ordered term by term as in lme4's theta."""

    def __init__(self, blocks: Sequence[Sequence[int]], structures: Sequence[Structure]) -> None:
        """``blocks[b]`` lists the terms of block b; ``structures[t]`` belongs to term t."""
        self.structures = tuple(structures)
        ends = list(accumulate(s.n_par for s in structures))
        self._par = [slice(e - s.n_par, e) for s, e in zip(structures, ends, strict=True)]
        self.n_par = ends[-1] if ends else 0
        self.n_theta = sum(s.n_theta for s in structures)
        self.blocks = tuple(tuple(b) for b in blocks)
        sizes = [[structures[t].k for t in b] for b in self.blocks]
        self.rows = [[slice(sum(s[:i]), sum(s[: i + 1])) for i in range(len(s))] for s in sizes]
        self.K = tuple(sum(s) for s in sizes)
        # position in par of every parameter of a block, in the order of the block's own derivative array
        index = [[i for t in b for i in range(self._par[t].start, self._par[t].stop)] for b in self.blocks]
        self.index = tuple(np.array(i, dtype=np.intp) for i in index)
        order = [i for block in index for i in block]
        self._inverse_order = None if order == list(range(len(order))) else np.argsort(order)

    def _each(self, method: str, par: np.ndarray) -> list[np.ndarray]:
        return [getattr(s, method)(par[at]) for s, at in zip(self.structures, self._par, strict=True)]

    def start(self, relative: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Parameters to start from; ``relative[b]`` (K_b, K_b) is a positive definite covariance in the chart."""
        if relative is None:
            return _joined([s.start() for s in self.structures])
        out = [np.zeros(0)] * len(self.structures)
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                out[t] = self.structures[t].start(relative[b][rows, rows])
        return _joined(out)

    def charted(self, charts: Sequence[np.ndarray] | None = None) -> BlockCovariance:
        """The same structures in charts, one (K, K) block-diagonal matrix per block; None: the identity."""
        out = list(self.structures)
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                out[t] = out[t].charted(None if charts is None else charts[b][rows, rows])
        return BlockCovariance(self.blocks, out)

    def rechart(self, par: np.ndarray) -> tuple[BlockCovariance, np.ndarray] | None:
        """Better charts and the parameters in them, or None."""
        found = self._each("rechart", par)
        if not any(found):
            return None
        pairs = [f or (s, p) for f, s, p in zip(found, self.structures, self.split(par), strict=True)]
        return BlockCovariance(self.blocks, [s for s, _ in pairs]), _joined([p for _, p in pairs])

    def alternatives(self, par: np.ndarray) -> list[np.ndarray]:
        """Other starts: all effects large if one is nearly absent, then one term changed at a time."""
        scales = np.abs(par[self.scale_index()])
        nearly = len(scales) > 1 and scales.min() < NEARLY_SINGULAR * max(scales.max(), START)
        out = [self.start([LARGE**2 * np.eye(K) for K in self.K])] if nearly else []
        for structure, at in zip(self.structures, self._par, strict=True):
            for piece in structure.alternatives(par[at]):
                out.append(par.copy())
                out[-1][at] = piece
        return out

    def scattered(self) -> list[np.ndarray]:
        """A few starts spread over all parameters evenly: multiples of 1/g, 1/g^2 ... without their whole parts, where
        g^(n + 1) = g + 1 (for one parameter the golden ratio)."""
        n, g = sum(s.n_par for s in self.structures), 2.0
        for _ in range(50):
            g = (1.0 + g) ** (1.0 / (n + 1))
        steps = g ** -np.arange(1.0, n + 1)
        count, wide = (SCATTERED, WIDE_ALONE) if n == 1 else (min(SCATTERED, 2 + 2 * n), WIDE)
        points = [(0.5 + k * steps) % 1.0 for k in range(1, count + 1)]
        return [
            _joined([s.scattered(u[at], wide) for s, at in zip(self.structures, self._par, strict=True)])
            for u in points
        ]

    def vanished(self, par: np.ndarray) -> list[np.ndarray]:
        """``par`` with one term gone at a time."""
        pieces = self.split(par)
        gone = [s.vanished(piece) for s, piece in zip(self.structures, pieces, strict=True)]
        return [_joined([*pieces[:t], gone[t], *pieces[t + 1 :]]) for t in range(len(pieces))]

    def filled(self, par: np.ndarray) -> list[np.ndarray]:
        """Starts off the scales that are zero, and farther off; a Sigma of full rank may fit better there.

        Straight up from zero the criterion rises: the other scales have to grow with them.
        """
        index = self.scale_index()
        zero = index[par[index] == 0.0]
        if not 0 < len(zero) < len(index):
            return []
        out = []
        for by in FILLED_AT:
            out.append(by * par)
            out[-1][zero] = FILLED * np.abs(out[-1][index]).max()
        return out

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(n_par,) lower and upper limits, None if nothing is limited."""
        if all(s.bounds is None for s in self.structures):
            return None
        free = [s.bounds or (np.full(s.n_par, -np.inf), np.full(s.n_par, np.inf)) for s in self.structures]
        return _joined([lo for lo, _ in free]), _joined([hi for _, hi in free])

    def split(self, par: np.ndarray) -> list[np.ndarray]:
        """``par`` cut into one piece per term."""
        return [par[s] for s in self._par]

    def sigma(self, par: np.ndarray) -> list[np.ndarray]:
        """(K, K) relative covariance of b~ per block."""
        return self._block_diagonal(par, lambda structure, piece: structure.sigma(piece))

    def roots(self, par: np.ndarray) -> list[np.ndarray]:
        """(K, K) lower L per block with L L' = ``sigma``, where possible not by way of it.

        Triangular, because with large effects that are nearly alike I + L'Z'ZL is well scaled then, and only then.
        """
        return self._block_diagonal(
            par, lambda s, piece: s.root(piece) if s.lower_root else lower_factor(s.root(piece))
        )

    def _block_diagonal(
        self, par: np.ndarray, of: Callable[[Structure, np.ndarray], np.ndarray]
    ) -> list[np.ndarray]:
        out = []
        for b, terms in enumerate(self.blocks):
            if len(terms) == 1:
                out.append(of(self.structures[terms[0]], par[self._par[terms[0]]]))
                continue
            matrix = np.zeros((self.K[b], self.K[b]))
            for t, rows in zip(terms, self.rows[b], strict=True):
                matrix[rows, rows] = of(self.structures[t], par[self._par[t]])
            out.append(matrix)
        return out

    def jacobian(self, par: np.ndarray) -> list[np.ndarray]:
        """(n_par_b, K, K) per block, parameters in the order of ``index[b]``."""
        out = []
        for b, terms in enumerate(self.blocks):
            if len(terms) == 1:
                out.append(self.structures[terms[0]].jacobian(par[self._par[terms[0]]]))
                continue
            E = np.zeros((len(self.index[b]), self.K[b], self.K[b]))
            at = 0
            for t, rows in zip(terms, self.rows[b], strict=True):
                part = self.structures[t].jacobian(par[self._par[t]])
                E[at : at + len(part), rows, rows] = part
                at += len(part)
            out.append(E)
        return out

    def in_par_order(self, values: np.ndarray) -> np.ndarray:
        """A vector or square matrix from the order of the blocks to the order of ``par``."""
        o = self._inverse_order
        if o is None:
            return values
        return values[o] if values.ndim == 1 else values[np.ix_(o, o)]

    def curvature(self, par: np.ndarray, G: Sequence[np.ndarray]) -> np.ndarray:
        """(n_par, n_par) block diagonal: <G_b, d2Sigma_b>."""
        H = np.zeros((self.n_par, self.n_par))
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                s = self._par[t]
                H[s, s] = self.structures[t].curvature(par[s], G[b][rows, rows])
        return H

    def canonical(self, par: np.ndarray) -> np.ndarray:
        """The representative with non-negative scales."""
        return _joined(self._each("canonical", par))

    def is_unique(self, par: np.ndarray) -> bool:
        """Whether no other canonical parameters nearby have the same Sigma."""
        return all(self._each("is_unique", par))

    def to_standard(self, par: np.ndarray) -> np.ndarray:
        """Canonical parameters without charts."""
        return _joined(self._each("to_standard", par))

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        """Parameters in the charts of those without."""
        return _joined(self._each("from_standard", par))

    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` whose zero makes the model singular."""
        return _joined(
            [s.start + t.scale_index for s, t in zip(self._par, self.structures, strict=True)], np.intp
        )

    @property
    def frames(self) -> list[np.ndarray]:
        """(K, K) frame C per block, b = C b~, block diagonal by term."""
        out = []
        for b, terms in enumerate(self.blocks):
            C = np.eye(self.K[b])
            for t, rows in zip(terms, self.rows[b], strict=True):
                if self.structures[t].frame is not None:
                    C[rows, rows] = self.structures[t].frame
            out.append(C)
        return out

    def Lambda(self, par: np.ndarray) -> tuple[np.ndarray, ...]:
        """(k, k) lower factor per term."""
        return tuple(self._each("Lambda", par))

    def theta(self, par: np.ndarray) -> np.ndarray:
        """(n_theta,) Cholesky entries in lme4's order."""
        return _joined(self._each("theta", par))

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        """Parameters from lme4's theta, term by term."""
        ends = np.cumsum([s.n_theta for s in self.structures])[:-1]
        pieces = np.split(np.asarray(theta, float), ends)
        return _joined([s.from_theta(piece) for s, piece in zip(self.structures, pieces, strict=True)])


def _joined(pieces: Sequence[np.ndarray], dtype: type = float) -> np.ndarray:
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=dtype)
