"""Distributions of continuous responses: Gaussian, Gamma, inverse Gaussian."""

from __future__ import annotations

from math import log

import numpy as np
from scipy.special import digamma, gammaln

from .family import LOG_2PI, Family, divergence, refuse

__all__ = ["Gamma", "Gaussian", "InverseGaussian"]


class Gaussian(Family):
    """Constant variance."""

    name = "gaussian"
    links = ("identity", "log", "inverse")
    dispersion_known = False
    canonical = "identity"
    convex = ("identity",)

    def variance(self, mu):
        return np.ones_like(mu)

    def variance_slope(self, mu):
        return np.zeros_like(mu)

    def variance_bend(self, mu):
        return np.zeros_like(mu)

    def unit_deviance(self, y, mu):
        return (y - mu) ** 2

    def start(self, y, w):
        if self.link.name == "identity":
            return y
        # R refuses log(y) of y <= 0 here; a mean is positive all the same
        floor = 0.01 * float(np.abs(y).mean()) or 0.01
        return np.maximum(y, floor) if self.link.name == "log" else np.where(np.abs(y) < floor, floor, y)

    def minus2loglik(self, y, w, trials, mu, D):
        used = w > 0
        n = int(used.sum())
        return n * (log(D / n) + LOG_2PI + 1.0) - float(np.log(w[used]).sum())

    def of_deviance(self, D, w):
        n = int((w > 0).sum())
        return n * (log(D / n) + LOG_2PI + 1.0), n / D

    def simulate(self, mu, w, dispersion, rng):
        return mu + rng.standard_normal(mu.shape) * np.sqrt(dispersion / w)


class Gamma(Family):
    """Positive responses with constant coefficient of variation; V = mu^2."""

    name = "Gamma"
    links = ("inverse", "log", "identity")
    dispersion_known = False
    canonical = "inverse"
    convex = ("inverse", "log")
    positive = True

    def variance(self, mu):
        return mu * mu

    def variance_slope(self, mu):
        return 2.0 * mu

    def variance_bend(self, mu):
        return np.full_like(mu, 2.0)

    def unit_deviance(self, y, mu):
        return 2.0 * divergence(mu, y, y - mu) / mu

    def start(self, y, w):
        return y

    def check(self, y, label):
        refuse(y <= 0, y, label, "must be positive for a Gamma family")

    def valid(self, eta, mu):
        return bool(((mu > 0) & (mu < np.inf)).all())

    def minus2loglik(self, y, w, trials, mu, D):
        return self.of_deviance(D, w)[0] + 2.0 * float(w @ np.log(y))

    def of_deviance(self, D, w):
        N = float(w.sum())
        shape = N / D
        value = -2.0 * N * (shape * log(shape) - float(gammaln(shape)) - shape - 0.5)
        return value, 2.0 * shape * shape * (log(shape) - float(digamma(shape)))

    def simulate(self, mu, w, dispersion, rng):
        shape = w / dispersion
        return rng.gamma(np.broadcast_to(shape, mu.shape), mu / shape)


class InverseGaussian(Family):
    """Positive responses; V = mu^3."""

    name = "inverse.gaussian"
    links = ("1/mu^2", "inverse", "log", "identity")
    dispersion_known = False
    canonical = "1/mu^2"
    convex = ("1/mu^2", "inverse")
    positive = True

    def variance(self, mu):
        return mu**3

    def variance_slope(self, mu):
        return 3.0 * mu * mu

    def variance_bend(self, mu):
        return 6.0 * mu

    def unit_deviance(self, y, mu):
        return (y - mu) ** 2 / (y * mu * mu)

    def start(self, y, w):
        return y

    def check(self, y, label):
        refuse(y <= 0, y, label, "must be positive for an inverse Gaussian family")

    def valid(self, eta, mu):
        return bool(((mu > 0) & (mu < np.inf)).all()) and self.link.valid(eta)

    def minus2loglik(self, y, w, trials, mu, D):
        return self.of_deviance(D, w)[0] + 3.0 * float(w @ np.log(y))

    def of_deviance(self, D, w):
        N = float(w.sum())
        return N * (log(D / N) + LOG_2PI + 1.0), N / D

    def simulate(self, mu, w, dispersion, rng):
        return rng.wald(mu, np.broadcast_to(w / dispersion, mu.shape))
