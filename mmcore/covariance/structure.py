"""What a covariance structure of one random-effects term is: parameters -> Sigma, with derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .triangle import cholesky_psd

__all__ = ["SINGULAR", "START", "WIDE", "Structure"]

START = 0.55  # relative sd to start from: at 1 a capped Newton step can land exactly on theta = 0


WIDE = 2.0  # scattered starts have their standard deviations within START exp(+-WIDE)


SINGULAR = 1e-4  # lme4's isSingular: a diagonal entry of Lambda below this


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

    def separated(self, together: np.ndarray) -> Structure:
        """The structure for a search, with covariances that are not in the likelihood held at zero.

        ``together`` (k, k) is true for two effects that are linked by levels that have both (see
        `mmcore.kernels.identified.linked`).
        """
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
