"""The Laplace approximation of a generalized linear mixed model and its exact gradient.

Where the dispersion phi is known, with W the Fisher weights, as in lme4,
    F(beta, theta) = D + |u|^2 + log |Lambda'Z'WZ Lambda + I|       at the conditional modes.
Where it is not, it is a parameter like the others. D is the deviance at the weights w / phi, H the observed weights:
    F(beta, phi, theta) = D + c(phi) + |u|^2 + log |Lambda'Z'HZ Lambda + I|,
-2 log of the Laplace approximation of the density of y. With Q the weights in the determinant (W or H), t = dQ/deta o
leverage, r = Z's, c = Z't and a = (I + A_H Sigma)^-1 c,
    dF/dSigma    = sum over levels of  Z'V^-1Z - r r' + (a r' + r a') / 2,
    dF/dbeta     = X' (-2 s + t - H o Z N_H c),
    dF/dlog(phi) = c'(phi) - D - leverage'H - s'Z N_H c,
exact for every link: derivatives of the modes enter through one more solve. The form in Sigma holds where a variance
is zero. lme4's criterion of models with a dispersion (``criterion="lme4"``) is
    F(beta, theta) = h(D) + |u|^2 + log |Lambda'Z'WZ Lambda + I|
with the dispersion held at one while the modes are found, and h(D) -2 log-likelihood as a function of the deviance.
It is not the likelihood of any parameters; c = Z't + 2 (1 - h') r and -2 h' s take the places of c and -2 s in its
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.blocks import BlockCovariance
from ..families.dispersion import Dispersion
from ..families.family import Conditional
from ..kernels.weighted.system import Blocks, System, WeightedFactor
from .irls import solve_information
from .pirls import Modes, find_joint_modes, find_modes, rows_product

FAR_OFF = 3.0  # times the penalised deviance of the point before: a guess of the modes above that may be none

__all__ = ["Laplace", "Point"]


@dataclass(frozen=True, slots=True)
class Point:
    """The objective at one (gamma, par)."""

    x: np.ndarray  # coefficients of the basis of X, log(phi) where it is a parameter, covariance parameters
    f: float  # F without the constants of the data
    modes: Modes
    extra: object = None  # what an objective keeps for its gradient


class Laplace:
    """F over x = (gamma, log phi, par): gamma are coefficients of an orthonormal basis of X, par of the covariance.

    log phi is a coordinate where ``dispersion`` is given, and the criterion is then the likelihood of all parameters.
    """

    name = "Laplace"

    def __init__(
        self,
        family: Conditional,
        Q: np.ndarray,
        offset: np.ndarray | float,
        system: System,
        covariance: BlockCovariance,
        dispersion: Dispersion | None = None,
    ) -> None:
        self.family, self.Q, self.system, self.covariance = family, Q, system, covariance
        self.dispersion = dispersion
        self.offset = np.zeros(family.n) + offset
        self.p_fixed = len(Q)  # leading coordinates that are coefficients
        self.p = self.p_fixed + (
            dispersion is not None
        )  # leading coordinates that are not covariance parameters
        self.evaluations = 0
        self.iterations = 0
        self.n_random = sum(block.K * block.L for block in system.blocks)
        self._scalar = all(block.K == 1 for block in system.blocks)
        self._last: Point | None = None  # where the next search for modes starts

    def predictor(self, x: np.ndarray) -> np.ndarray:
        """(n,) offset + X beta."""
        return self.offset + x[: self.p_fixed] @ self.Q

    def log_phi(self, x: np.ndarray) -> float:
        """The coordinate of the dispersion; 0 where it is known."""
        return 0.0 if self.dispersion is None else float(x[self.p - 1])

    def conditional(self, x: np.ndarray) -> Conditional:
        """The family at the dispersion of x."""
        return self.family if self.dispersion is None else self.dispersion.at(self.log_phi(x))

    def modes(self, x: np.ndarray, tolerance: float) -> Modes:
        """Conditional modes at x."""
        Sigma = self.covariance.sigma(x[self.p :])
        self.evaluations += 1
        with np.errstate(all="ignore"):
            v, most = self._guess(x, Sigma), np.inf
            if self._last is not None:
                most = FAR_OFF * (1.0 + self._last.modes.at.D + self._last.modes.penalty)
            modes = find_modes(
                self.system, self.conditional(x), self.predictor(x), Sigma, v, tolerance, most, self.observed
            )
        self.iterations += modes.iterations
        return modes

    @property
    def observed(self) -> bool:
        """Whether the determinant has the observed weights, not Fisher's."""
        return self.dispersion is not None

    def _guess(self, x: np.ndarray, Sigma: list[np.ndarray]) -> Blocks | None:
        """v at x, to first order: dv = -(I + A_H Sigma)^-1 Z'(H (X dbeta + Z dSigma v) + s dlog(phi))."""
        last = self._last
        if last is None:
            return None
        change = x - last.x
        if not change.any():
            return last.modes.v
        old = self.covariance.sigma(last.x[self.p :])
        moved = [np.matmul(S - S0, v) for S, S0, v in zip(Sigma, old, last.modes.v, strict=True)]
        H = last.modes.at.W if last.modes.H is None else last.modes.H
        shift = H * (change[: self.p_fixed] @ self.Q + self.system.times(moved))
        if self.dispersion is not None:
            shift += change[self.p - 1] * last.modes.at.s
        dv, _ = last.modes.newton.solve(self.system.cross(shift[None]))
        return [v - d for v, d in zip(last.modes.v, dv, strict=True)]

    def at(self, x: np.ndarray, tolerance: float = 1e-18) -> Point:
        """The objective at x."""
        modes = self.modes(x, tolerance)
        return Point(x, self.given_modes(x, modes) + modes.penalty + modes.factor.logdet, modes)

    def given_modes(self, x: np.ndarray, modes: Modes) -> float:
        """-2 log-likelihood of y given the modes, without constants of the data."""
        if self.dispersion is None:
            return self.family.family.of_deviance(modes.at.D, self.family.w)[0]
        return modes.at.D + self.dispersion.normalizer(self.log_phi(x))[0] - self.dispersion.reference

    def keep(self, point: Point) -> None:
        """Start the next search for modes from those of ``point``."""
        self._last = point

    def gradient(self, point: Point) -> np.ndarray:
        """Gradient at a point."""
        modes, system, x = point.modes, self.system, point.x
        at, slope = modes.at, self._slope(modes)
        leverage = modes.factor.leverage()
        dC, H = self.curvature(x, modes)
        t, r = dC * leverage, system.cross(at.s[None])
        a, Nc = modes.newton.solve(self._pull(t, r, slope))
        through_modes = system.times(Nc)
        beta = self.Q @ (t - 2.0 * slope * at.s - H * through_modes)
        return np.concatenate(
            [
                beta,
                self._of_dispersion(x, modes, H, leverage, through_modes),
                self._of_sigma(x[self.p :], modes, r, a),
            ]
        )

    def _slope(self, modes: Modes) -> float:
        """h'(D) of lme4's criterion; one where the criterion is a likelihood."""
        if self.dispersion is not None:
            return 1.0
        return self.family.family.of_deviance(modes.at.D, self.family.w)[1]

    def _pull(self, t: np.ndarray, r: Blocks, slope: float) -> Blocks:
        """c: half the derivative of F in the modes."""
        c = self.system.cross(t[None])
        if slope != 1.0:
            c = [x + 2.0 * (1.0 - slope) * y for x, y in zip(c, r, strict=True)]
        return c

    def _of_dispersion(
        self, x: np.ndarray, modes: Modes, H: np.ndarray, leverage: np.ndarray, through_modes: np.ndarray
    ) -> np.ndarray:
        """(1,) derivative in log(phi), or (0,)."""
        if self.dispersion is None:
            return np.zeros(0)
        direct, dH, ds = self.dispersion.slopes(self.log_phi(x), modes.at, H)
        return np.array([direct + leverage @ dH + through_modes @ ds])

    def curvature(self, x: np.ndarray, modes: Modes) -> tuple[np.ndarray, np.ndarray]:
        """(n,) derivative in eta of the weights in the determinant, and the observed weights."""
        conditional = self.conditional(x)
        if modes.dW is not None and modes.H is not None:
            dW, H = modes.dW, modes.H
        else:
            dW, H = conditional.curvature(modes.at)
        return (conditional.observed_slope(modes.at) if self.observed else dW), H

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
        """Expected second derivatives of the working linear model: block diagonal, where an optimizer starts.

        2 h' Q'V^-1Q for gamma, the information of the family about log(phi), and per block sum over levels of
        tr(E_k W E_l W), W = Z'V^-1Z, for par.
        """
        p, n_par, modes = self.p, len(point.x) - self.p, point.modes
        out = np.zeros((p + n_par, p + n_par))
        fisher = self._fisher(point)
        if self.p_fixed:
            information = self._information(modes.at.W, fisher)
            out[: self.p_fixed, : self.p_fixed] = 2.0 * self._slope(modes) * information
        if self.dispersion is not None:
            out[p - 1, p - 1] = self.dispersion.normalizer(self.log_phi(point.x))[2]
        E = self.covariance.jacobian(point.x[p:])
        H = np.zeros((n_par, n_par))
        at = 0
        for Eb, W in zip(E, fisher.information(), strict=True):
            k = len(Eb)
            H[at : at + k, at : at + k] = _pair_traces(Eb, W)
            at += k
        out[p:, p:] = self.covariance.in_par_order(H)
        return out

    def _fisher(self, point: Point) -> WeightedFactor:
        """The factor with Fisher's weights, which is positive definite everywhere."""
        if not self.observed or self.family.family.is_canonical:
            return point.modes.factor
        return self.system.at(point.modes.at.W, self.covariance.sigma(point.x[self.p :]))

    def working_information(self, point: Point) -> np.ndarray:
        """(p, p) Q'V^-1Q of the working linear model, V = W^-1 + Z Sigma Z'."""
        return self._information(point.modes.at.W, self._fisher(point))

    def _information(self, W: np.ndarray, factor: WeightedFactor) -> np.ndarray:
        QW = self.Q * W
        cross = self.system.cross(QW)
        _, NC = factor.solve(cross)
        out = QW @ self.Q.T - rows_product(cross, NC)
        return 0.5 * (out + out.T)


class JointLaplace(Laplace):
    """lme4's nAGQ = 0: F over (log phi, par) alone, beta at the joint mode of D + |u|^2 (not where F is smallest)."""

    name = "Laplace, fixed effects at the joint mode"

    def __init__(
        self,
        family: Conditional,
        Q: np.ndarray,
        offset: np.ndarray | float,
        system: System,
        covariance: BlockCovariance,
        dispersion: Dispersion | None = None,
    ) -> None:
        super().__init__(family, Q, offset, system, covariance, dispersion)
        self.p_fixed, self.p = 0, self.p - self.p_fixed
        self._gamma = np.zeros(len(Q))

    def at(self, x: np.ndarray, tolerance: float = 1e-18) -> Point:
        self.evaluations += 1
        Sigma = self.covariance.sigma(x[self.p :])
        start = (self._gamma, None if self._last is None else self._last.modes.v)
        with np.errstate(all="ignore"):
            joint = find_joint_modes(
                self.system, self.conditional(x), self.Q, self.offset, Sigma, start, tolerance, self.observed
            )
        modes = joint.modes
        self.iterations += modes.iterations
        return Point(x, self.given_modes(x, modes) + modes.penalty + modes.factor.logdet, modes, joint)

    def start_at(self, gamma: np.ndarray) -> None:
        """Coefficients to start the first search from."""
        self._gamma = gamma

    def keep(self, point: Point) -> None:
        super().keep(point)
        self._gamma = point.extra.gamma  # type: ignore[attr-defined]

    def gradient(self, point: Point) -> np.ndarray:
        modes, system, joint, x = point.modes, self.system, point.extra, point.x
        leverage = modes.factor.leverage()
        dC, H = self.curvature(x, modes)
        t, r = dC * leverage, system.cross(modes.at.s[None])
        c = self._pull(t, r, self._slope(modes))
        if len(self.Q):
            _, Nc = modes.newton.solve(c)
            of_gamma = self.Q @ (t - H * system.times(Nc))
            k = solve_information(joint.XVX, of_gamma)  # type: ignore[attr-defined]
            c = [a - b for a, b in zip(c, system.cross((H * (k @ self.Q))[None]), strict=True)]
        a, Nc = modes.newton.solve(c)
        of_dispersion = self._of_dispersion(x, modes, H, leverage, system.times(Nc))
        if self.dispersion is not None and len(self.Q):
            of_dispersion -= k @ (self.Q @ modes.at.s)  # zero at the joint mode
        return np.concatenate([of_dispersion, self._of_sigma(x[self.p :], modes, r, a)])


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
