"""The Laplace approximation of a generalised linear mixed model and its exact gradient in (beta, theta).

    F(beta, theta) = h(D) + |u|^2 + log |Lambda'Z'WZ Lambda + I|       at the conditional modes,
where h(D) is -2 log-likelihood as a function of the deviance (D itself where the dispersion is known), as in
lme4. With t = dW o leverage, r = Z's, c = Z't + 2 (1 - h') r and a = (I + A_H Sigma)^-1 c over the observed
weights H,
    dF/dSigma = sum over levels of  Z'V^-1Z - r r' + (a r' + r a') / 2,
    dF/dbeta  = X' (-2 h' s + t - H o Z N_H c),
exact for every link: derivatives of the modes enter through one more solve. The form in Sigma holds where a
variance is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.blocks import BlockCovariance
from ..families.family import Conditional
from ..kernels.weighted.system import Blocks, System
from .pirls import Modes, find_joint_modes, find_modes, rows_product

FAR_OFF = 3.0  # times the penalised deviance of the point before: a guess of the modes above that may be none

__all__ = ["Laplace", "Point"]


@dataclass(frozen=True, slots=True)
class Point:
    """The objective at one (gamma, par)."""

    x: np.ndarray  # (p + n_par,): coefficients of the basis of X, then covariance parameters
    f: float  # F without the constants of the data
    modes: Modes
    extra: object = None  # what an objective keeps for its gradient


class Laplace:
    """F over x = (gamma, par): gamma are coefficients of an orthonormal basis of X, par those of the
    covariance.
    """

    name = "Laplace"

    def __init__(
        self,
        family: Conditional,
        Q: np.ndarray,
        offset: np.ndarray | float,
        system: System,
        covariance: BlockCovariance,
    ) -> None:
        self.family, self.Q, self.system, self.covariance = family, Q, system, covariance
        self.offset = np.zeros(family.n) + offset
        self.p = len(Q)
        self.evaluations = 0
        self.iterations = 0
        self.n_random = sum(block.K * block.L for block in system.blocks)
        self._scalar = all(block.K == 1 for block in system.blocks)
        self._last: Point | None = None  # where the next search for modes starts

    def predictor(self, x: np.ndarray) -> np.ndarray:
        """(n,) offset + X beta."""
        return self.offset + x[: self.p] @ self.Q

    def modes(self, x: np.ndarray, tolerance: float) -> Modes:
        """Conditional modes at x."""
        Sigma = self.covariance.sigma(x[self.p :])
        self.evaluations += 1
        with np.errstate(all="ignore"):
            v, most = self._guess(x, Sigma), np.inf
            if self._last is not None:
                most = FAR_OFF * (1.0 + self._last.modes.at.D + self._last.modes.penalty)
            modes = find_modes(self.system, self.family, self.predictor(x), Sigma, v, tolerance, most)
        self.iterations += modes.iterations
        return modes

    def _guess(self, x: np.ndarray, Sigma: list[np.ndarray]) -> Blocks | None:
        """v at x, to first order: dv = -(I + A_H Sigma)^-1 Z'H (X dbeta + Z dSigma v)."""
        last = self._last
        if last is None:
            return None
        change = x - last.x
        if not change.any():
            return last.modes.v
        old = self.covariance.sigma(last.x[self.p :])
        moved = [np.matmul(S - S0, v) for S, S0, v in zip(Sigma, old, last.modes.v, strict=True)]
        H = last.modes.at.W if last.modes.H is None else last.modes.H
        shift = H * (change[: self.p] @ self.Q + self.system.times(moved))
        dv, _ = last.modes.newton.solve(self.system.cross(shift[None]))
        return [v - d for v, d in zip(last.modes.v, dv, strict=True)]

    def at(self, x: np.ndarray, tolerance: float = 1e-18) -> Point:
        """The objective at x."""
        modes = self.modes(x, tolerance)
        h = self.family.family.of_deviance(modes.at.D, self.family.w)[0]
        return Point(x, h + modes.penalty + modes.factor.logdet, modes)

    def keep(self, point: Point) -> None:
        """Start the next search for modes from those of ``point``."""
        self._last = point

    def gradient(self, point: Point) -> np.ndarray:
        """(p + n_par,) gradient at a point."""
        modes, system = point.modes, self.system
        at = modes.at
        slope = self.family.family.of_deviance(at.D, self.family.w)[1]
        dW, H = self._curvature(modes)
        t = dW * modes.factor.leverage()
        r = system.cross(at.s[None])
        c = system.cross(t[None])
        if slope != 1.0:
            c = [x + 2.0 * (1.0 - slope) * y for x, y in zip(c, r, strict=True)]
        a, Nc = modes.newton.solve(c)
        beta = self.Q @ (t - 2.0 * slope * at.s - H * system.times(Nc))
        return np.concatenate([beta, self._of_sigma(point.x[self.p :], modes, r, a)])

    def _curvature(self, modes: Modes) -> tuple[np.ndarray, np.ndarray]:
        if modes.dW is not None and modes.H is not None:
            return modes.dW, modes.H
        return self.family.curvature(modes.at)

    def _of_sigma(self, par: np.ndarray, modes: Modes, r: Blocks, a: Blocks) -> np.ndarray:
        """Chain rule from Sigma to the covariance parameters."""
        E, traces = self.covariance.jacobian(par), modes.factor.trace()
        # The same without matrices of one cell, which is what small models spend their time on.
        if self._scalar:
            slopes = [
                e.item() * (W.item() + float(np.vdot(x, y - x)))
                for e, W, x, y in zip(E, traces, r, a, strict=True)
            ]
            return self.covariance.in_par_order(np.array(slopes))
        G = [W - _outer(x, x) + _symmetric(x, y) for W, x, y in zip(traces, r, a, strict=True)]
        g = [Eb.reshape(len(Eb), -1) @ Gb.ravel() for Eb, Gb in zip(E, G, strict=True)]
        return self.covariance.in_par_order(np.concatenate(g)) if g else np.zeros(0)

    def expected_hessian(self, point: Point) -> np.ndarray:
        """Expected second derivatives of the working linear model: block diagonal, where an optimiser starts.

        2 h' Q'V^-1Q for gamma, and per block sum over levels of tr(E_k W E_l W), W = Z'V^-1Z, for par.
        """
        p, n_par = self.p, len(point.x) - self.p
        out = np.zeros((p + n_par, p + n_par))
        if p:
            slope = self.family.family.of_deviance(point.modes.at.D, self.family.w)[1]
            out[:p, :p] = 2.0 * slope * self.working_information(point.modes)
        E = self.covariance.jacobian(point.x[p:])
        H = np.zeros((n_par, n_par))
        at = 0
        for Eb, W in zip(E, point.modes.factor.information(), strict=True):
            k = len(Eb)
            H[at : at + k, at : at + k] = _pair_traces(Eb, W)
            at += k
        out[p:, p:] = self.covariance.in_par_order(H)
        return out

    def working_information(self, modes: Modes) -> np.ndarray:
        """(p, p) Q'V^-1Q of the working linear model."""
        W = modes.at.W
        QW = self.Q * W
        cross = self.system.cross(QW)
        _, NC = modes.factor.solve(cross)
        out = QW @ self.Q.T - rows_product(cross, NC)
        return 0.5 * (out + out.T)


class JointLaplace(Laplace):
    """lme4's nAGQ = 0: F over par alone, beta at the joint mode of D + |u|^2 (not where F is smallest)."""

    name = "Laplace, fixed effects at the joint mode"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.p_joint, self.p = self.p, 0
        self._gamma = np.zeros(self.p_joint)

    def at(self, x: np.ndarray, tolerance: float = 1e-18) -> Point:
        self.evaluations += 1
        Sigma = self.covariance.sigma(x)
        start = (self._gamma, self._v())
        with np.errstate(all="ignore"):
            joint = find_joint_modes(self.system, self.family, self.Q, self.offset, Sigma, start, tolerance)
        self.iterations += joint.modes.iterations
        h = self.family.family.of_deviance(joint.modes.at.D, self.family.w)[0]
        return Point(x, h + joint.modes.penalty + joint.modes.factor.logdet, joint.modes, joint)

    def start_at(self, gamma: np.ndarray) -> None:
        """Coefficients to start the first search from."""
        self._gamma = gamma

    def _v(self) -> Blocks | None:
        return None if self._last is None else self._last.modes.v

    def keep(self, point: Point) -> None:
        super().keep(point)
        self._gamma = point.extra.gamma  # type: ignore[attr-defined]

    def gradient(self, point: Point) -> np.ndarray:
        modes, system, joint = point.modes, self.system, point.extra
        at = modes.at
        slope = self.family.family.of_deviance(at.D, self.family.w)[1]
        dW, H = self._curvature(modes)
        t = dW * modes.factor.leverage()
        r = system.cross(at.s[None])
        c = system.cross(t[None])
        if slope != 1.0:
            c = [x + 2.0 * (1.0 - slope) * y for x, y in zip(c, r, strict=True)]
        if self.p_joint:
            _, Nc = modes.newton.solve(c)
            of_gamma = self.Q @ (t - H * system.times(Nc))
            k = np.linalg.solve(joint.XVX, of_gamma)  # type: ignore[attr-defined]
            c = [x - y for x, y in zip(c, system.cross((H * (k @ self.Q))[None]), strict=True)]
        a, _ = modes.newton.solve(c)
        return self._of_sigma(point.x, modes, r, a)


def _outer(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(K, K) sum over levels of x_l y_l' for (1, K, L) arrays."""
    return x[0] @ y[0].T


def _symmetric(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    xy = _outer(x, y)
    return 0.5 * (xy + xy.T)


def _pair_traces(E: np.ndarray, W: np.ndarray) -> np.ndarray:
    """(k, k) sum over levels of tr(E_a W_l E_b W_l), E (k, K, K), W (K, K, L)."""
    if W.shape[0] == 1:
        return np.outer(E[:, 0, 0], E[:, 0, 0]) * float(W[0, 0] @ W[0, 0])
    by_level = W.transpose(2, 0, 1)
    EW = np.einsum("aij,ljk->alik", E, by_level)
    return np.einsum("alik,blki->ab", EW, EW)
