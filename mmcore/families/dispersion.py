"""The density of a response whose dispersion phi is a parameter: -2 log f(y) = w d(y, mu) / phi + c(w / phi) + k(y).

Gaussian, Gamma and inverse Gaussian responses have this form, with d the unit deviance and w the prior weight, which
divides the dispersion. The mean stands in d alone and the dispersion in d / phi + c, so the family at the weights
w / phi has the derivatives in the linear predictor, and this file those in log(phi).
"""

from __future__ import annotations

from math import exp, log

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from ..errors import UnsupportedError
from .continuous import Gamma, Gaussian, InverseGaussian
from .family import EPS, LOG_2PI, Conditional, Working

__all__ = ["Dispersion"]

# Shapes above this take the asymptotic series of the gamma function: it has ten digits more than a difference.
LARGE_SHAPE = 20.0
NEWTON_STEPS = 100


class Dispersion:
    """The dispersion of a response as a parameter, beside the family bound to it."""

    def __init__(self, conditional: Conditional, log_phi: float = 0.0) -> None:
        """``log_phi``: a guess. Values relative to the normalizer there do not depend on the unit of y."""
        if not isinstance(conditional.family, Gaussian | Gamma | InverseGaussian):
            raise UnsupportedError(f"{conditional.family.label()} has no density with a dispersion")
        self.conditional = conditional
        used = conditional.w > 0
        self.n = int(used.sum())  # rows of positive weight
        self.weights, self.counts = np.unique(conditional.w[used], return_counts=True)
        power = {Gaussian: 0.0, Gamma: 2.0, InverseGaussian: 3.0}[type(conditional.family)]
        self.constant = power * float(np.log(conditional.y[used]).sum()) if power else 0.0  # sum of k(y)
        self.reference = self.normalizer(log_phi)[0]
        self._scaled: tuple[float, Conditional] = (0.0, conditional)

    def at(self, log_phi: float) -> Conditional:
        """The family at the weights w / phi: its deviance is D / phi."""
        if self._scaled[0] != log_phi:
            c = self.conditional
            self._scaled = (log_phi, c.family.bind(c.y, c.w * exp(-log_phi), c.trials))
        return self._scaled[1]

    def normalizer(self, log_phi: float) -> tuple[float, float, float]:
        """Sum of c(w / phi), its derivative in log(phi), and the expected information about log(phi), times two."""
        if not isinstance(self.conditional.family, Gamma):
            value = self.n * (LOG_2PI + log_phi) - float(self.counts @ np.log(self.weights))
            return value, float(self.n), float(self.n)
        found = _of_shape(self.weights * exp(-log_phi))
        value, slope, information = (float(self.counts @ x) for x in found)
        return value, slope, information

    def slopes(self, log_phi: float, at: Working, H: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Derivatives in log(phi) at a fixed linear predictor: of -2 log-likelihood, observed weights H, scores.

        ``at`` and ``H`` (n,) are those of the family at the weights w / phi.
        """
        return self.normalizer(log_phi)[1] - at.D, -H, -at.s

    def minus2loglik(self, log_phi: float, D: float) -> float:
        """-2 log-likelihood with every constant, D the deviance without the dispersion."""
        return D * exp(-log_phi) + self.normalizer(log_phi)[0] + self.constant

    def estimate(self, D: float) -> float:
        """log(phi) of maximum likelihood at a deviance D > 0; -inf where D is zero."""
        if D <= 0.0:
            return -np.inf
        log_phi = log(D / self.n)
        if not isinstance(self.conditional.family, Gamma):
            return log_phi
        for _ in range(NEWTON_STEPS):
            _, slope, information = self.normalizer(log_phi)
            step = (D * exp(-log_phi) - slope) / information
            log_phi += min(max(step, -2.0), 2.0)
            if abs(step) < 4.0 * EPS * (1.0 + abs(log_phi)):
                break
        return log_phi


def _of_shape(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """c(a) = 2 (log Gamma(a) - a log a + a) of a Gamma response, -a c'(a), and 2 a^2 (psi'(a) - 1 / a)."""
    small = np.minimum(a, LARGE_SHAPE)
    value = 2.0 * (gammaln(small) - small * np.log(small) + small)
    slope = 2.0 * small * (np.log(small) - digamma(small))
    information = 2.0 * small * (small * polygamma(1, small) - 1.0)
    large = a > LARGE_SHAPE
    if large.any():
        x = a[large]
        q = 1.0 / (x * x)
        series = (1 / 12 + q * (-1 / 360 + q * (1 / 1260 - q / 1680))) / x
        value[large] = LOG_2PI - np.log(x) + 2.0 * series
        slope[large] = 1.0 + 2.0 * (1 / 12 + q * (-1 / 120 + q * (1 / 252 - q * (1 / 240 - q / 132)))) / x
        information[large] = 1.0 + 2.0 * (1 / 6 + q * (-1 / 30 + q / 42)) / x
    return value, slope, information
