"""The likelihood of a generalized model, linear or mixed, with one parameter held at a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...covariance.blocks import BlockCovariance
from ...glmm.agq import AdaptiveGaussHermite
from ...glmm.fit import GeneralizedFit
from ...glmm.irls import irls
from ...glmm.laplace import Laplace, Point
from ...kernels.basis import orthonormal_basis
from .constraint import Constraint, constrained, domain, without
from .parameters import Parameter, values
from .settle import Minimum, free_bounds, settle

__all__ = ["HeldGeneralized", "HeldMixed"]

SMALL = 1e-3  # standard deviation from which the covariance without the effect is read


class HeldGeneralized:
    """One coefficient of a model without random effects: the deviance as a function of its value."""

    domain = (-np.inf, np.inf)
    open_ended = True

    def __init__(self, fit: GeneralizedFit, which: Parameter) -> None:
        self.fit, self.j = fit, which.i
        design = fit.design
        self.column = design.X[:, self.j]
        self.Q, self.R = orthonormal_basis(np.ascontiguousarray(np.delete(design.X, self.j, axis=1).T))
        self.start = self.R @ np.delete(fit.beta, self.j)
        self.offset = np.zeros(design.n) if design.offset is None else design.offset

    def minimum(self, v: float, start: np.ndarray) -> Minimum:
        """The lowest deviance with the coefficient at v."""
        conditional = self.fit.solution.conditional
        with np.errstate(all="ignore"):
            found = irls(conditional, self.Q, self.offset + v * self.column, start)
            return Minimum(float(conditional.deviance_terms(found.at).sum()), found.gamma)

    def estimates(self, v: float, psi: np.ndarray, every: Sequence[Parameter]) -> np.ndarray:
        """(len(every),) coefficients, with the dispersion that the profile takes as known."""
        others = np.linalg.solve(self.R, psi) if len(psi) else psi
        return values(every, (), self.fit.sigma, np.insert(others, self.j, v))


@dataclass(frozen=True, slots=True)
class _Value:
    f: float


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """A point, with its value where the optimizer looks for it."""

    point: Point
    profile: _Value


class _Affine:
    """The approximated likelihood over psi, where (gamma, par) = base + B psi."""

    exact = False

    def __init__(self, objective: Laplace, base: np.ndarray, B: np.ndarray) -> None:
        self.objective, self.base, self.B = objective, base, B
        self.covariance, self.n_random = objective.covariance, objective.n_random
        limits, p = objective.covariance.bounds, objective.p
        if limits is not None:
            limits = np.append(np.full(p, -np.inf), limits[0]), np.append(np.full(p, np.inf), limits[1])
        self.bounds = free_bounds(limits, B)

    def factor(self, psi: np.ndarray) -> _Evaluated:
        """The model there."""
        with np.errstate(all="ignore"):
            point = self.objective.at(self.base + self.B @ psi)
        return _Evaluated(point, _Value(point.f))

    def derivatives(self, psi: np.ndarray, factor: _Evaluated) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and expected second derivatives in psi; modes are looked for from here on."""
        self.objective.keep(factor.point)
        with np.errstate(all="ignore"):
            g, H = self.objective.gradient(factor.point), self.objective.expected_hessian(factor.point)
        return self.B.T @ g, self.B.T @ H @ self.B

    def rechart(self, psi: np.ndarray) -> None:
        """The coordinates belong to the constraint."""

    def scattered(self, psi: np.ndarray) -> list[np.ndarray]:
        """Starts all over the covariance parameters, from the same coefficients."""
        p, own = self.objective.p, np.flatnonzero(self.B[: self.objective.p].any(axis=0))
        starts = [self.B[p:].T @ par for par in self.covariance.scattered()]
        for start in starts:
            start[own] = psi[own]
        return starts


class HeldMixed:
    """One parameter of a generalized mixed model; the dispersion is known, so standard deviations are absolute."""

    open_ended = True

    def __init__(self, fit: GeneralizedFit, which: Parameter) -> None:
        solution = fit.solution
        assert solution.objective is not None
        self.fit, self.which, self.made = fit, which, solution.objective
        self.domain = domain(solution.covariance, which)
        self.constraint = constrained(solution.covariance, fit.par, which, 1.0)
        self.objective = _in(self.made, self.constraint.covariance)
        self.G, self.unit = self._coefficients()
        self.start = np.concatenate([self.G.T @ solution.gamma, self.constraint.start])

    def minimum(self, v: float, start: np.ndarray) -> Minimum:
        """The lowest criterion with the parameter at v."""
        if v == 0.0 and self.which.kind == "sd":
            m = self.G.shape[1]
            base, B = self.constraint.at(SMALL)
            own = self._without(self.constraint.covariance.to_standard(base + B @ start[m:]))
            return settle(self._at(own, v), np.concatenate([start[:m], own.start]))
        return settle(self._at(self.constraint, v), start)

    def estimates(self, v: float, psi: np.ndarray, every: Sequence[Parameter]) -> np.ndarray:
        """(len(every),) all parameters at a minimum."""
        zero = v == 0.0 and self.which.kind == "sd"
        own = self._without(np.zeros(self.fit.solution.covariance.n_par)) if zero else self.constraint
        m = self.G.shape[1]
        base, B = own.at(v)
        gamma = v * self.unit + self.G @ psi[:m]
        beta = np.linalg.solve(self.fit.solution.R, gamma) if len(gamma) else gamma
        out = values(every, own.covariance.Lambda(base + B @ psi[m:]), 1.0, beta)
        out[[w == self.which for w in every]] = v
        return out

    def _without(self, par: np.ndarray) -> Constraint:
        return without(self.fit.solution.covariance, par, self.which)

    def _coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """gamma = v unit + G a."""
        R = self.fit.solution.R
        p = len(R)
        if self.which.kind != "beta":
            return np.eye(p), np.zeros(p)
        h = np.linalg.solve(R.T, np.eye(p)[self.which.i])
        return np.linalg.qr(np.column_stack([h, np.eye(p)]))[0][:, 1:p], h / float(h @ h)

    def _at(self, constraint: Constraint, v: float) -> _Affine:
        base, B = constraint.at(v)
        p, m = self.G.shape
        joint = np.zeros((p + B.shape[0], m + B.shape[1]))
        joint[:p, :m], joint[p:, m:] = self.G, B
        objective = self.objective if constraint is self.constraint else _in(self.made, constraint.covariance)
        return _Affine(objective, np.concatenate([v * self.unit, base]), joint)


def _in(objective: Laplace, covariance: BlockCovariance) -> Laplace:
    """The same objective in other coordinates of the covariance."""
    args: tuple[Any, ...] = (objective.family, objective.Q, objective.offset, objective.system, covariance)
    if isinstance(objective, AdaptiveGaussHermite):
        return AdaptiveGaussHermite(*args, n_nodes=len(objective.z))
    return type(objective)(*args)
