"""The likelihood of a linear mixed model with one parameter held at a value, the others free.

Every constraint is linear once coordinates are chosen for it. An unstructured covariance is parametrised by the
Cholesky factor L of the effects in an order that puts the held ones first: then
    a correlation  v: L_21 = v r, L_22 = sqrt(1 - v^2) r, r free,
    a standard deviation  v: L_11 = v / sigma, with log sigma free,
    a standard deviation  0 (the effect last): the last row of L is zero.
sigma = v is the criterion of a known residual standard deviation. A fixed effect v leaves the model of the other
columns of X for the response y - v x_j, with rows of the products combined and none computed anew.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from ..covariance import BlockCovariance, Compound, Structure, Unstructured
from ..criterion import Criterion
from ..errors import FitError
from ..kernels import Factor, Kernel, Likelihood
from ..optimize import Control, minimize
from .parameters import Parameter, values
from .rows import combined

__all__ = ["HeldLinear", "Minimum", "settle"]

CLOSE = 1e-7  # decrement at which what is left of the criterion is half of it, to rounding
MOST_NEWTON = 8
NO_SCALES = np.zeros(0, np.intp)


class Minimum:
    """The lowest point with the parameter held."""

    __slots__ = ("f", "psi")

    def __init__(self, f: float, psi: np.ndarray) -> None:
        self.f = f  # the criterion, twice the negative log-likelihood
        self.psi = psi  # (n_free,) the free coordinates there


class Linear:
    """A criterion over psi, where par = base + B psi."""

    def __init__(self, criterion: Criterion, base: np.ndarray, B: np.ndarray) -> None:
        self.criterion, self.base, self.B = criterion, base, B
        self.covariance = criterion.covariance
        self.exact, self.n_random = criterion.exact, criterion.n_random

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Limits of the parameters that are free as they are."""
        limits = self.criterion.bounds
        if limits is None:
            return None
        own = [np.flatnonzero(column) for column in self.B.T]
        alone = [int(i[0]) if len(i) == 1 and self.B[i[0], c] == 1.0 else -1 for c, i in enumerate(own)]
        low = np.array([limits[0][i] if i >= 0 else -np.inf for i in alone])
        high = np.array([limits[1][i] if i >= 0 else np.inf for i in alone])
        return low, high

    def par(self, psi: np.ndarray) -> np.ndarray:
        """(n_par,) covariance parameters."""
        return self.base + self.B @ psi

    def factor(self, psi: np.ndarray) -> Factor:
        """The model there."""
        return self.criterion.factor(self.par(psi))

    def derivatives(self, psi: np.ndarray, factor: Factor) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and second-order matrix in psi."""
        g, H = self.criterion.derivatives(self.par(psi), factor)
        return self.B.T @ g, self.B.T @ H @ self.B

    def rechart(self, psi: np.ndarray) -> None:
        """The coordinates belong to the constraint."""
        return None

    def sigma(self, psi: np.ndarray, factor: Factor) -> float:
        """Residual standard deviation."""
        known = factor.like.sigma
        return float(np.sqrt(factor.profile.rss / factor.profile.nu)) if known is None else known


class Scaled(Linear):
    """A standard deviation held at v: psi = (s, other parameters), par_i = v exp(-s), sigma = exp(s).

    With G(par, s) the criterion at a given sigma, n terms 2 s and rss exp(-2 s) of it depend on s alone or on rss;
    the chain rule through par_i does the rest.
    """

    def __init__(self, criterion: Criterion, i: int, v: float) -> None:
        n = criterion.covariance.n_par
        B = np.eye(n)
        B[i, i] = 0.0
        super().__init__(criterion, np.zeros(n), np.delete(B, i, axis=1))
        self.i, self.v = i, v

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Those of the other parameters."""
        limits = super().bounds
        return None if limits is None else (np.append(-np.inf, limits[0]), np.append(np.inf, limits[1]))

    def par(self, psi: np.ndarray) -> np.ndarray:
        """(n_par,) covariance parameters."""
        par = self.B @ psi[1:]
        par[self.i] = self.v * np.exp(-psi[0])
        return par

    def factor(self, psi: np.ndarray) -> Factor:
        """The model there."""
        if not abs(psi[0]) < 300.0:
            raise FitError("the residual standard deviation runs off to zero or infinity")
        like = replace(self.criterion.like, sigma=float(np.exp(psi[0])))
        return Criterion(self.criterion.kernel, self.covariance, like).factor(self.par(psi))

    def derivatives(self, psi: np.ndarray, factor: Factor) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and second-order matrix in psi."""
        par, prof, i = self.par(psi), factor.profile, self.i
        g, H = self.criterion.derivatives(par, factor)
        share = prof.rss * prof.per_rss
        g_s, H_ss = 2.0 * prof.nu - 2.0 * share, 4.0 * share
        H_s = -2.0 * self._of_rss(par, factor, g)  # d2 G / ds dpar
        rho, m = par[i], len(psi)
        out, second = np.empty(m), np.empty((m, m))
        out[0], out[1:] = g_s - rho * g[i], self.B.T @ g
        second[0, 0] = H_ss - 2.0 * rho * H_s[i] + rho * rho * H[i, i] + rho * g[i]
        second[0, 1:] = second[1:, 0] = self.B.T @ (H_s - rho * H[i])
        second[1:, 1:] = self.B.T @ H @ self.B
        return out, second

    def _of_rss(self, par: np.ndarray, factor: Factor, g: np.ndarray) -> np.ndarray:
        """(n_par,) gradient of rss / sigma^2: what a doubled weight of rss adds to the gradient."""
        twice = copy(factor)
        twice.profile = replace(factor.profile, per_rss=2.0 * factor.profile.per_rss)
        return self.criterion.derivatives(par, twice)[0] - g


def settle(objective: Any, start: np.ndarray) -> Minimum:
    """The minimum of a constrained objective from ``start``: Newton where second-order matrices are Hessians and the
    start is good, the careful optimizer otherwise. Raises FitError where the model breaks down at the start."""
    if objective.exact and objective.bounds is None:
        found = _newton(objective, start)
        if found is not None:
            return found
    found = minimize(objective, start, NO_SCALES, Control(decrement=1e-11, restarts=False))
    return Minimum(found.f, found.par)


def _newton(objective: Any, psi: np.ndarray) -> Minimum | None:
    """A few undamped steps; None if the criterion is not convex on the way or does not fall."""
    last = np.inf
    for _ in range(MOST_NEWTON):
        try:
            factor = objective.factor(psi)
        except FitError:
            return None
        f = factor.profile.f
        if not f <= last + 1e-11 * (1.0 + abs(f)):
            return None
        if not len(psi):
            return Minimum(f, psi)
        g, H = objective.derivatives(psi, factor)
        C, info = dpotrf(H, lower=1)
        if info:
            return None
        step = dpotrs(C, g, lower=1)[0]
        decrement = float(g @ step)
        if decrement < CLOSE:
            return Minimum(f - 0.5 * decrement, psi - step)
        last, psi = f, psi - step
    return None


class HeldLinear:
    """One parameter of a linear mixed model: the criterion as a function of its value, all others re-optimized.

    ``at(v)`` is the objective in the free coordinates psi; ``start`` are those of the optimum.
    """

    def __init__(self, ml: Criterion, par: np.ndarray, sigma: float, beta: np.ndarray, which: Parameter) -> None:
        self.ml, self.which, self.sigma = ml, which, sigma
        self.kernel: Kernel = ml.kernel
        cov, t, i, j = ml.covariance, which.term, which.i, which.j
        order = {"sd": (i,), "cor": (j, i), "rho": ()}.get(which.kind)
        self.covariance = cov.charted() if order is None else _ordered(cov, t, order)
        self.first = 0 if t < 0 else sum(s.n_par for s in cov.structures[:t])
        self.optimum = self.covariance.from_standard(par)
        self.domain = _domain(which, self.covariance)
        make: dict[str, Callable[[], None]] = {
            "sd": self._hold_sd, "cor": self._hold_cor, "rho": self._hold_rho, "sigma": self._hold_sigma,
            "beta": lambda: self._hold_beta(beta),
        }  # fmt: skip
        make[which.kind]()

    def minimum(self, v: float, start: np.ndarray) -> Minimum:
        """The lowest criterion with the parameter at v."""
        if v == 0.0 and self.which.kind == "sd":
            zero = self._without()
            return settle(zero, zero.B.T @ _ordered_last(self.ml, self.which).from_standard(self._standard(start, v)))
        return settle(self.at(v), start)

    def estimates(self, v: float, psi: np.ndarray, every: list[Parameter]) -> np.ndarray:
        """(len(every),) all parameters at a minimum."""
        if v == 0.0 and self.which.kind == "sd":
            objective: Linear = self._without()
        else:
            objective = self.at(v)
        factor = objective.factor(psi)
        LS, p = factor.profile.LS, objective.criterion.kernel.A.p
        gamma = np.linalg.solve(LS[:p, :p].T, LS[p, :p]) if p else np.zeros(0)
        Lambda = objective.covariance.Lambda(objective.par(psi))
        return values(every, Lambda, objective.sigma(psi, factor), self._beta(v, gamma))

    # ---- one way to hold each kind --------------------------------------------------------------------------

    def _criterion(self) -> Criterion:
        return Criterion(self.kernel, self.covariance, self.ml.like)

    def _beta(self, v: float, gamma: np.ndarray) -> np.ndarray:
        return self.ml.kernel.A.beta(gamma)

    def _hold_sigma(self) -> None:
        n = self.covariance.n_par
        B, zero = np.eye(n), np.zeros(n)
        self.start = self.optimum
        self.at: Callable[[float], Linear] = lambda v: Linear(
            Criterion(self.kernel, self.covariance, replace(self.ml.like, sigma=v)), zero, B
        )

    def _hold_sd(self) -> None:
        i = self.first + (0 if isinstance(self._structure, Unstructured) else self.which.i)
        if self.ml.like.sigma is None:
            self.start = np.append(np.log(self.sigma), np.delete(self.optimum, i))
            self.at = lambda v: Scaled(self._criterion(), i, v)
            return
        self.start = np.delete(self.optimum, i)
        B = np.delete(np.eye(self.covariance.n_par), i, axis=1)
        unit = np.eye(self.covariance.n_par)[i] / self.sigma
        self.at = lambda v: Linear(self._criterion(), v * unit, B)

    def _hold_cor(self) -> None:
        k, first = self._structure.k, self.first
        below, pivot = first + 1, first + k  # L_21 and L_22
        B = np.delete(np.eye(self.covariance.n_par), pivot, axis=1)
        size = float(np.hypot(self.optimum[below], self.optimum[pivot]))
        self.start = np.delete(self.optimum, pivot)
        self.start[below] = size
        zero = np.zeros(len(B))

        def at(v: float) -> Linear:
            own = B.copy()
            own[below, below], own[pivot, below] = v, np.sqrt(max(1.0 - v * v, 0.0))
            return Linear(self._criterion(), zero, own)

        self.at = at

    def _hold_rho(self) -> None:
        i = self.first + self._structure.n_par - 1
        B = np.delete(np.eye(self.covariance.n_par), i, axis=1)
        unit = np.eye(self.covariance.n_par)[i]
        self.start = np.delete(self.optimum, i)
        self.at = lambda v: Linear(self._criterion(), v * unit, B)

    def _hold_beta(self, beta: np.ndarray) -> None:
        A, p = self.kernel.A, self.kernel.A.p
        h = np.linalg.solve(A.R.T, np.eye(p)[self.which.i])  # beta_j = h'gamma
        size = float(np.linalg.norm(h))
        complete = np.linalg.qr(np.column_stack([h, np.eye(p)]))[0]
        N = complete[:, 1:p].T  # (p - 1, p) orthonormal, N h = 0
        ols = float(h @ A.gamma0)
        T = np.zeros((p, p + 1))
        T[:-1, :p], T[-1, p] = N, 1.0
        n = self.covariance.n_par
        B, zero = np.eye(n), np.zeros(n)
        self.start = self.optimum

        def at(v: float) -> Linear:
            own = T.copy()
            own[-1, :p] = (ols - v) / size**2 * h
            return Linear(Criterion(combined(self.kernel, own), self.covariance, self.ml.like), zero, B)

        def of_gamma(v: float, gamma: np.ndarray) -> np.ndarray:
            total = v / size**2 * h + N.T @ (N @ A.gamma0 + gamma)
            return np.linalg.solve(A.R, total)

        self.at, self._beta = at, of_gamma  # type: ignore[method-assign]

    # ---- a standard deviation of zero -----------------------------------------------------------------------

    @property
    def _structure(self) -> Structure:
        return self.covariance.structures[self.which.term]

    def _standard(self, psi: np.ndarray, v: float) -> np.ndarray:
        """Standard covariance parameters of psi, from a small v in the place of zero."""
        near = v or 1e-3 * self.sigma
        return self.covariance.to_standard(self.at(near).par(psi))

    def _without(self) -> Linear:
        """The model without the effect whose standard deviation is held: its row of the factor is zero."""
        covariance = _ordered_last(self.ml, self.which)
        structure = covariance.structures[self.which.term]
        keep = np.ones(covariance.n_par, bool)
        if isinstance(structure, Unstructured):
            k = structure.k
            last = np.cumsum(np.arange(k, 0, -1)) - 1  # L_kj ends the jth column of the triangle
            keep[self.first + last] = False
        else:
            keep[self.first + self.which.i] = False
        B = np.eye(covariance.n_par)[:, keep]
        return Linear(Criterion(self.kernel, covariance, self.ml.like), np.zeros(len(B)), B)


def _ordered(cov: BlockCovariance, t: int, first: tuple[int, ...]) -> BlockCovariance:
    """Charts in which the factor of term t has the effects ``first`` first; other terms in those of the products."""
    out = list(cov.charted().structures)
    structure = cov.structures[t]
    out[t] = structure
    if isinstance(structure, Unstructured):
        order = [*first, *(e for e in range(structure.k) if e not in first)]
        P = np.eye(structure.k)[:, order]
        out[t] = Unstructured(structure.k, P if structure.frame is None else np.linalg.solve(structure.frame, P), structure.frame)
    return BlockCovariance(cov.blocks, out)


def _ordered_last(ml: Criterion, which: Parameter) -> BlockCovariance:
    """Charts with the held effect last."""
    k = ml.covariance.structures[which.term].k
    return _ordered(ml.covariance, which.term, tuple(e for e in range(k) if e != which.i))


def _domain(which: Parameter, covariance: BlockCovariance) -> tuple[float, float]:
    """Limits of the parameter itself."""
    if which.kind == "cor":
        return -1.0, 1.0
    if which.kind == "rho":
        structure = covariance.structures[which.term]
        assert isinstance(structure, Compound) and structure.bounds is not None
        return float(structure.bounds[0][-1]), float(structure.bounds[1][-1])
    return (-np.inf if which.kind == "beta" else 0.0), np.inf
