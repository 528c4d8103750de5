"""Adaptive Gauss-Hermite quadrature for one scalar random effect per level, with its exact gradient.

For level l with mode u_l, curvature M_l = 1 + theta^2 A_l, s_l = M_l^-1/2 and nodes z_k of the normal density n:
    F = c(phi) - 2 sum_l log { s_l sum_k w_k / n(z_k) / sqrt(2 pi) exp(-d_l(u_l + z_k s_l) / 2) },
d_l(u) = sum of the level's deviances at eta = X beta + theta u z + u^2, divided by the dispersion phi, if any.
One node is the Laplace approximation. Without a dispersion the saturated model has F = 0 apart from its random effects:
lme4's convention, which leaves out what the data alone contribute.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log, pi

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from ..covariance.blocks import BlockCovariance
from ..errors import UnsupportedError
from ..families.dispersion import Dispersion
from ..families.family import Conditional
from ..kernels.weighted.system import System
from .laplace import Laplace, Point

__all__ = ["MAX_NODES", "AdaptiveGaussHermite", "nodes_and_weights"]

MAX_NODES = 100


@cache
def nodes_and_weights(k: int) -> tuple[np.ndarray, np.ndarray]:
    """(k,) nodes of the standard normal density and log(weight / density(node)) - log sqrt(2 pi).

    Raises UnsupportedError outside 1..100.
    """
    if not 1 <= k <= MAX_NODES:
        raise UnsupportedError(
            f"nagq={k}: the number of quadrature points is between 1 (Laplace) and {MAX_NODES}"
        )
    z, w = hermegauss(k)
    z = 0.5 * (z - z[::-1])  # symmetric to the last bit
    w = 0.5 * (w + w[::-1])
    return z, np.log(w) - 0.5 * log(2.0 * pi) + 0.5 * z * z


@dataclass(frozen=True, slots=True)
class _Nodes:
    """What the gradient needs of an evaluation; k nodes, L levels."""

    u: np.ndarray  # (k, L) node positions
    eta: np.ndarray  # (k, n)
    share: np.ndarray  # (k, L) weight of each node, sums to one
    mode: np.ndarray  # (L,) u_l
    s: np.ndarray  # (L,) s_l
    theta: float


class AdaptiveGaussHermite(Laplace):
    """The objective; refuses models other than one scalar term, and lme4's criterion of models with a dispersion."""

    name = "adaptive Gauss-Hermite"

    def __init__(
        self,
        family: Conditional,
        Q: np.ndarray,
        offset: np.ndarray | float,
        system: System,
        covariance: BlockCovariance,
        dispersion: Dispersion | None = None,
        *,
        n_nodes: int,
    ) -> None:
        super().__init__(family, Q, offset, system, covariance, dispersion)
        blocks = self.system.blocks
        if len(blocks) != 1 or blocks[0].K != 1:
            terms = ", ".join(f"{b.group} ({b.K} effect{'s' * (b.K > 1)})" for b in blocks)
            raise UnsupportedError(
                "nagq > 1 needs exactly one random-effects term with one effect per level; this model "
                f"has {terms}. Use nagq=1 (Laplace)"
            )
        if not self.family.family.dispersion_known and dispersion is None:
            raise UnsupportedError(
                f"nagq > 1 is not defined for {self.family.family.label()} with criterion='lme4': quadrature needs "
                "a density, and that criterion has none. Leave criterion out, or use nagq=1 (Laplace)"
            )
        self.z, self.log_w = nodes_and_weights(n_nodes)
        self._unit = float(
            covariance.to_standard(np.ones(1))[0]
        )  # theta of a coordinate of one: that of the chart

    def at(self, x: np.ndarray, tolerance: float = 1e-18) -> Point:
        modes = self.modes(x, tolerance)
        block = self.system.blocks[0]
        theta = self._unit * float(x[self.p])
        mode = theta * modes.v[0][0, 0]  # b = theta^2 v, u = b / theta
        s = modes.factor.T_inv[0, 0] ** 0.5  # type: ignore[attr-defined]
        u = mode + self.z[:, None] * s
        fixed = modes.at.eta - self._column((theta * mode)[block.codes])
        eta = fixed + self._column((theta * u)[:, block.codes])
        with np.errstate(all="ignore"):
            d = self._by_level(self.conditional(x).terms(eta)[0]) + u * u
        term = self.log_w[:, None] - 0.5 * d
        top = term.max(axis=0)
        share = np.exp(term - top)
        total = share.sum(axis=0)
        f = -2.0 * float((np.log(s) + np.log(total) + top).sum())
        if self.dispersion is not None:
            f += self.dispersion.normalizer(self.log_phi(x))[0] - self.dispersion.reference
        return Point(x, f, modes, _Nodes(u, eta, share / total, mode, s, theta))

    def _column(self, rows: np.ndarray) -> np.ndarray:
        """Rows (..., n) times the column of Z."""
        return rows if self.system.plain[0] else rows * self.system.blocks[0].columns[0]

    def _by_level(self, rows: np.ndarray) -> np.ndarray:
        """(k, L) sums over levels of (k, n)."""
        block = self.system.blocks[0]
        return np.array([np.bincount(block.codes, row, block.L) for row in rows])

    def _level_sums(self, row: np.ndarray) -> np.ndarray:
        """(L,) Z'row."""
        return self.system.cross(row[None])[0][0, 0]

    def gradient(self, point: Point) -> np.ndarray:
        modes, x = point.modes, point.x
        at, codes = modes.at, self.system.blocks[0].codes
        nodes: _Nodes = point.extra  # type: ignore[assignment]
        theta, u, s, mode = nodes.theta, nodes.u, nodes.s, nodes.mode
        with np.errstate(all="ignore"):
            D, scores = self.conditional(x).terms(nodes.eta)
        zs = self._by_level(self._column(scores))  # (k, L)
        pull = nodes.share * (2.0 * u - 2.0 * theta * zs)
        alpha = pull.sum(axis=0)  # dF / dmode at fixed s
        gamma = (pull * self.z[:, None]).sum(axis=0) - 2.0 / s  # dF / ds
        dC, H = self.curvature(x, modes)
        weight = gamma * (-0.5 * s**3)  # dF / dM
        A = modes.factor.D[0, 0]  # type: ignore[attr-defined]
        # row by row: dF/deta through the curvature, and through the mode
        squares = 1.0 if self.system.plain[0] else self.system.blocks[0].columns[0] ** 2
        through_M = (weight * theta**2)[codes] * dC * squares
        mean_score = (nodes.share[:, codes] * scores).sum(axis=0)
        alpha = alpha + theta * self._level_sums(through_M)
        A_H = A if self.observed else self._level_sums(self._column(H))
        implicit = alpha / (1.0 + theta**2 * A_H)  # dF / d(right-hand side of the mode equation)
        of_eta = -2.0 * mean_score + through_M - H * self._column((theta * implicit)[codes])
        r = self._level_sums(at.s)
        of_theta = (
            -2.0 * float((nodes.share * zs * u).sum())
            + float((weight * 2.0 * theta * A).sum())
            + float(mode @ self._level_sums(through_M))
            + float(implicit @ (r - theta * A_H * mode))
        )
        if self.dispersion is None:
            return np.concatenate([self.Q @ of_eta, [self._unit * of_theta]])
        fitted = np.where(nodes.share > 0.0, nodes.share * self._by_level(D), 0.0).sum()
        through = theta**2 * float(weight @ A) + theta * float(implicit @ r)
        of_phi = self.dispersion.normalizer(self.log_phi(x))[1] - fitted - through
        return np.concatenate([self.Q @ of_eta, [of_phi, self._unit * of_theta]])
