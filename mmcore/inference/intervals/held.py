"""The likelihood of a linear mixed model with one parameter held at a value, the others free.

Covariance parameters are held by :mod:`.constraint`, sigma by the criterion of a known residual standard deviation.
A standard deviation is v = sigma L_11: with log sigma free, L_11 = v / sigma follows. A fixed effect v leaves the model
of the other columns of X for the response y - v x_j, with the rows of the products combined and none computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from ...errors import FitError
from ...kernels import Factor
from ...kernels.criterion import Criterion
from ..bootstrap.rows import combined
from .constraint import Constraint, constrained, domain, without
from .parameters import Parameter, values
from .settle import Minimum, free_bounds, settle

__all__ = ["HeldLinear", "of_rss"]

SMALL = 1e-3  # standard deviation, in units of sigma, from which the covariance without the effect is read
MOST_LOG_SIGMA = 20.0  # sigma stays within exp(+-20) of its estimate


class Linear:
    """A criterion over psi, where par = base + B psi."""

    def __init__(self, criterion: Criterion, base: np.ndarray, B: np.ndarray) -> None:
        self.criterion, self.base, self.B = criterion, base, B
        self.covariance = criterion.covariance
        self.exact, self.n_random = criterion.exact, criterion.n_random
        self.bounds = free_bounds(criterion.bounds, B)

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

    def scattered(self, psi: np.ndarray) -> list[np.ndarray]:
        """Starts all over the covariance parameters."""
        return [self.B.T @ par for par in self.covariance.scattered()]


class Scaled(Linear):
    """A standard deviation held at v: psi = (s, other parameters), par_i = v exp(-s), sigma = exp(s).

    Of the criterion at a given sigma, nu terms 2 s and rss exp(-2 s) depend on s; the chain rule through par_i does the
    rest.
    """

    def __init__(
        self, criterion: Criterion, base: np.ndarray, B: np.ndarray, i: int, v: float, sigma: float
    ) -> None:
        """``sigma``: the estimate."""
        super().__init__(criterion, base, B)
        self.i, self.v, self.center = i, v, float(np.log(sigma))
        if self.bounds is not None:
            self.bounds = np.append(-np.inf, self.bounds[0]), np.append(np.inf, self.bounds[1])

    def scattered(self, psi: np.ndarray) -> list[np.ndarray]:
        """Starts all over the other covariance parameters, from the same sigma."""
        return [np.append(psi[0], other) for other in super().scattered(psi)]

    def par(self, psi: np.ndarray) -> np.ndarray:
        """(n_par,) covariance parameters."""
        par = self.B @ psi[1:]
        par[self.i] = self.v * np.exp(-psi[0])
        return par

    def factor(self, psi: np.ndarray) -> Factor:
        """The model there."""
        if not abs(psi[0] - self.center) < MOST_LOG_SIGMA:
            raise FitError("the residual standard deviation runs off to zero or infinity")
        like = replace(self.criterion.like, sigma=float(np.exp(psi[0])))
        return Criterion(self.criterion.kernel, self.covariance, like).factor(self.par(psi))

    def derivatives(self, psi: np.ndarray, factor: Factor) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and second-order matrix in psi."""
        par, prof, i = self.par(psi), factor.profile, self.i
        g, H = self.criterion.derivatives(par, factor)
        share = prof.rss * prof.per_rss
        H_s = -2.0 * of_rss(self.criterion, par, factor, g)  # second derivative in s and par
        rho, m = par[i], len(psi)
        out, second = np.empty(m), np.empty((m, m))
        out[0], out[1:] = 2.0 * prof.nu - 2.0 * share - rho * g[i], self.B.T @ g
        second[0, 0] = 4.0 * share - 2.0 * rho * H_s[i] + rho * rho * H[i, i] + rho * g[i]
        second[0, 1:] = second[1:, 0] = self.B.T @ (H_s - rho * H[i])
        second[1:, 1:] = self.B.T @ H @ self.B
        return out, second


def of_rss(criterion: Criterion, par: np.ndarray, factor: Factor, g: np.ndarray) -> np.ndarray:
    """(n_par,) gradient of rss times its weight in the criterion: what twice the weight adds to the gradient g."""
    twice = copy(factor)
    twice.profile = replace(factor.profile, per_rss=2.0 * factor.profile.per_rss)
    return criterion.derivatives(par, twice)[0] - g


class HeldLinear:
    """One parameter of a linear mixed model: the criterion as a function of its value, all others re-optimized."""

    open_ended = False

    def __init__(self, ml: Criterion, par: np.ndarray, sigma: float, which: Parameter) -> None:
        """``ml``: the likelihood, in standard parameters; ``par`` and ``sigma`` where it is largest."""
        self.ml, self.which, self.sigma = ml, which, sigma
        self.domain = domain(ml.covariance, which)
        self.constraint = constrained(ml.covariance, par, which, sigma)
        self.scaled = which.kind == "sd" and ml.like.sigma is None
        self.start = self.constraint.start
        if self.scaled:
            self.start = np.append(np.log(sigma), self.start)
        self._criterion, self._beta = self._parts()

    def minimum(self, v: float, start: np.ndarray) -> Minimum:
        """The lowest criterion with the parameter at v; ``start`` are free coordinates of a value nearby."""
        if v == 0.0 and self.which.kind == "sd":
            near = self.at(SMALL * self.sigma)
            own = self._without(near.covariance.to_standard(near.par(start)))
            return settle(self._objective(own, v), own.start)
        return settle(self.at(v), start)

    def estimates(self, v: float, psi: np.ndarray, every: Sequence[Parameter]) -> np.ndarray:
        """(len(every),) all parameters at a minimum."""
        zero = v == 0.0 and self.which.kind == "sd"
        objective = (
            self._objective(self._without(np.zeros(self.ml.covariance.n_par)), v) if zero else self.at(v)
        )
        factor = objective.factor(psi)
        profile, p = factor.profile, objective.criterion.kernel.A.p
        gamma = np.linalg.solve(profile.LS[:p, :p].T, profile.LS[p, :p]) if p else np.zeros(0)
        sigma = float(np.sqrt(profile.rss / profile.nu)) if factor.like.sigma is None else factor.like.sigma
        Lambda = objective.covariance.Lambda(objective.par(psi))
        out = values(every, Lambda, sigma, self._beta(v, gamma))
        out[[w == self.which for w in every]] = v
        return out

    def at(self, v: float) -> Linear:
        """The objective with the parameter at v, not zero if that is a standard deviation."""
        if self.scaled:
            assert self.constraint.index is not None
            made, own = self._made(self.constraint, v), self.constraint
            return Scaled(made, *own.at(v), self.constraint.index, v, self.sigma)
        return self._objective(self.constraint, v)

    def _objective(self, constraint: Constraint, v: float) -> Linear:
        return Linear(self._made(constraint, v), *constraint.at(v))

    def _made(self, constraint: Constraint, v: float) -> Criterion:
        made = self._criterion(v)
        return Criterion(made.kernel, constraint.covariance, made.like)

    def _without(self, par: np.ndarray) -> Constraint:
        return without(self.ml.covariance, par, self.which)

    def _parts(self) -> tuple[Callable[[float], Criterion], Callable[[float, np.ndarray], np.ndarray]]:
        """The criterion at v, in some coordinates, and beta from what it adds to its first coefficients."""
        ml = self.ml
        if self.which.kind == "sigma":
            return lambda v: Criterion(ml.kernel, ml.covariance, replace(ml.like, sigma=v)), self._all_beta
        if self.which.kind == "beta":
            return _held_coefficient(ml, self.which.i)
        return lambda v: ml, self._all_beta

    def _all_beta(self, v: float, gamma: np.ndarray) -> np.ndarray:
        return self.ml.kernel.A.beta(gamma)


def _held_coefficient(
    ml: Criterion, j: int
) -> tuple[Callable[[float], Criterion], Callable[[float, np.ndarray], np.ndarray]]:
    """With beta_j = h'gamma and N orthonormal to h: rows N Q, and r + (h'gamma_0 - v) / |h|^2 h'Q for the response."""
    A, p = ml.kernel.A, ml.kernel.A.p
    h = np.linalg.solve(A.R.T, np.eye(p)[j])
    N = np.linalg.qr(np.column_stack([h, np.eye(p)]))[0][:, 1:p].T
    h2, T = float(h @ h), np.zeros((p, p + 1))
    T[:-1, :p], T[-1, p] = N, 1.0

    def criterion(v: float) -> Criterion:
        own = T.copy()
        own[-1, :p] = (h @ A.gamma0 - v) / h2 * h
        return Criterion(combined(ml.kernel, own), ml.covariance, ml.like)

    def beta(v: float, gamma: np.ndarray) -> np.ndarray:
        return np.linalg.solve(A.R, v / h2 * h + N.T @ (N @ A.gamma0 + gamma))

    return criterion, beta
