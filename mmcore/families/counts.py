"""Distributions of counts and proportions: binomial, Poisson, negative binomial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import numpy as np
from scipy.special import digamma, expit, gammaln, xlog1py, xlogy

from ..errors import DataError, UnsupportedError
from .family import (
    EPS,
    NEARLY_WHOLE,
    TINY,
    Conditional,
    Family,
    Working,
    divergence,
    domain_of_probability,
    refuse,
)

__all__ = ["Binomial", "NegativeBinomial", "Poisson"]


class Binomial(Family):
    """Proportions of successes; the prior weights are the numbers of trials."""

    name = "binomial"
    links = ("logit", "probit", "cloglog", "cauchit", "log", "identity")
    canonical = "logit"
    convex = ("logit", "probit", "cloglog", "log", "identity")

    def variance(self, mu):
        return mu * (1.0 - mu)

    def variance_slope(self, mu):
        return 1.0 - 2.0 * mu

    def variance_bend(self, mu):
        return np.full_like(mu, -2.0)

    def unit_deviance(self, y, mu):
        return _binomial_deviance(y, mu, 1.0 - mu)

    def start(self, y, w):
        return (w * y + 0.5) / (w + 1.0)

    def check(self, y, label):
        rule = (
            "must lie between 0 and 1 for a binomial family (counts are written cbind(successes, failures))"
        )
        refuse((y < 0) | (y > 1), y, label, rule)

    def domain(self):
        return domain_of_probability(self.link)

    def valid(self, eta, mu):
        return self.link.bounded or bool(((mu > 0) & (mu < 1)).all())

    def minus2loglik(self, y, w, trials, mu, D):
        m = np.rint(w if trials is None else trials)
        k = np.rint((w if trials is None else trials) * y)
        used = m > 0
        m, k, mu, share = m[used], k[used], mu[used], (w[used] / m[used])
        loglik = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1) + xlogy(k, mu) + xlog1py(m - k, -mu)
        return -2.0 * float(share @ loglik)

    def not_counts(self, y, w):
        return np.abs(w * y - np.rint(w * y)) > NEARLY_WHOLE

    def simulate(self, mu, w, dispersion, rng):
        trials = np.rint(w).astype(np.int64)
        if (np.abs(w - trials) > NEARLY_WHOLE).any():
            raise UnsupportedError(
                "a binomial response is simulated with whole numbers of trials as weights only"
            )
        return rng.binomial(trials, mu) / np.maximum(trials, 1)

    def bind(self, y, w=None, trials=None):
        return _BinomialConditional(self, y, np.ones(len(y)) if w is None else w, trials)


def _binomial_deviance(y: np.ndarray, mu: np.ndarray, complement: np.ndarray) -> np.ndarray:
    return 2.0 * (divergence(y, mu, mu - y) + divergence(1.0 - y, complement, y - mu))


class _BinomialConditional(Conditional):
    """Works with mu and 1 - mu apart, and for the logit with eta itself."""

    def __init__(self, family: Family, y: np.ndarray, w: np.ndarray, trials: np.ndarray | None) -> None:
        super().__init__(family, y, w, trials)
        self.wy = w * y
        self.saturated = (
            2.0 * w * (xlogy(y, y) + xlogy(1.0 - y, 1.0 - y))
        )  # (n,) deviance is this minus 2 log-lik
        self.sum_saturated = float(self.saturated.sum())

    def at(self, eta: np.ndarray) -> Working:
        link = self.family.link
        if link.name == "logit":
            mu = expit(eta)
            W = self.w * mu
            s = self.wy - W
            W = W - W * mu
            D = 2.0 * float(self.w @ np.logaddexp(0.0, eta) - self.wy @ eta) + self.sum_saturated
            return Working(eta, mu, D, s, W)
        mu = link.mu(eta)
        if not self.family.valid(eta, mu):
            return Working(eta, mu, np.inf, None, None)
        c = link.complement(eta)
        m1, m2 = link.slopes(eta, mu)
        V = mu * c
        ratio = m1 / V
        D = self.sum_saturated - 2.0 * float(self.wy @ _log(mu) + (self.w - self.wy) @ _log(c))
        return Working(
            eta, mu, D, ratio * (self.wy * c - (self.w - self.wy) * mu), self.w * ratio * m1, m1, m2, V
        )

    def terms(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        link = self.family.link
        if link.name == "logit":
            D = 2.0 * (self.w * np.logaddexp(0.0, eta) - self.wy * eta) + self.saturated
            return D, self.wy - self.w * expit(eta)
        mu, c = link.mu(eta), link.complement(eta)
        D = self.saturated - 2.0 * (self.wy * _log(mu) + (self.w - self.wy) * _log(c))
        inside = link.bounded or ((mu > 0) & (mu < 1))
        m1 = link.slopes(eta, mu)[0]
        return np.where(inside, D, np.inf), m1 * (self.wy * c - (self.w - self.wy) * mu) / (mu * c)

    def curvature(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        if at.m1 is None:
            return at.W * (1.0 - 2.0 * at.mu), at.W
        c = self.family.link.complement(at.eta)
        q1 = at.m1 / at.V
        bend = at.m2 / at.V - q1 * q1 * (c - at.mu)  # d(mu' / V) / deta
        dW = self.w * (bend * at.m1 + q1 * at.m2)
        return dW, at.W - (self.wy * c - (self.w - self.wy) * at.mu) * bend

    def rounding(self, at: Working) -> float:
        # D is a difference of sums, and the sums round
        sums = abs(self.sum_saturated) + abs(at.D) + float(self.w @ np.abs(at.eta))
        return (
            8.0 * EPS * sums if at.m1 is None else super().rounding(at) + 8.0 * EPS * abs(self.sum_saturated)
        )

    def residuals(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        c = self.family.link.complement(at.eta)  # 1 - mu would be zero where mu rounds to one
        return self.y * c - (1.0 - self.y) * at.mu, at.mu * c

    def deviance_terms(self, at: Working) -> np.ndarray:
        return np.maximum(
            self.w * _binomial_deviance(self.y, at.mu, self.family.link.complement(at.eta)), 0.0
        )

    def minus2loglik(self, at: Working) -> float:
        broken = self.family.not_counts(self.y, self.w)
        if broken is None or not broken.any():
            trials = self.w if self.trials is None else self.trials
            used = trials > 0
            m, k, share = trials[used], (trials * self.y)[used], self.w[used] / trials[used]
            binomials = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1)
            return at.D - self.sum_saturated - 2.0 * float(share @ binomials)
        return super().minus2loglik(at)


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, TINY))


class Poisson(Family):
    """Counts; V = mu."""

    name = "poisson"
    links = ("log", "identity", "sqrt")
    canonical = "log"
    convex = ("log", "identity", "sqrt")
    positive = True

    def variance(self, mu):
        return mu

    def variance_slope(self, mu):
        return np.ones_like(mu)

    def variance_bend(self, mu):
        return np.zeros_like(mu)

    def unit_deviance(self, y, mu):
        return 2.0 * divergence(y, mu, mu - y)

    def start(self, y, w):
        return y + 0.1

    def check(self, y, label):
        refuse(y < 0, y, label, f"must not be negative for a {self.name} family")

    def valid(self, eta, mu):
        return self.link.valid(eta) and bool(((mu > 0) & (mu < np.inf)).all())

    def minus2loglik(self, y, w, trials, mu, D):
        return 2.0 * float(w @ (mu - xlogy(y, mu) + gammaln(y + 1.0)))

    def not_counts(self, y, w):
        return np.abs(y - np.rint(y)) > 1e-7 * np.maximum(1.0, y)

    def simulate(self, mu, w, dispersion, rng):
        if (w != 1).any():
            raise UnsupportedError(
                "a Poisson response with prior weights has no distribution to simulate from"
            )
        return rng.poisson(mu).astype(float)

    def bind(self, y, w=None, trials=None):
        return _PoissonConditional(self, y, np.ones(len(y)) if w is None else w, trials)


class _PoissonConditional(Conditional):
    """A shortcut for the log link: mu is its own derivative and variance."""

    def __init__(self, family: Family, y: np.ndarray, w: np.ndarray, trials: np.ndarray | None) -> None:
        super().__init__(family, y, w, trials)
        self.wy = w * y
        self.saturated = 2.0 * w * (xlogy(y, y) - y)
        self.sum_saturated = float(self.saturated.sum())

    def at(self, eta: np.ndarray) -> Working:
        if self.family.link.name != "log":
            return super().at(eta)
        mu = np.exp(eta)
        W = self.w * mu
        D = self.sum_saturated + 2.0 * float(W.sum() - self.wy @ eta)
        return Working(eta, mu, D if np.isfinite(D) else np.inf, self.wy - W, W)

    def terms(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.family.link.name != "log":
            return super().terms(eta)
        W = self.w * np.exp(eta)
        return self.saturated + 2.0 * (W - self.wy * eta), self.wy - W

    def rounding(self, at: Working) -> float:
        if at.m1 is not None:
            return super().rounding(at)
        # D is a difference of sums, and the sums round
        sums = abs(self.sum_saturated) + float(at.W.sum() + (self.wy + at.W) @ np.abs(at.eta))
        return 8.0 * EPS * sums

    def curvature(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        return (at.W, at.W) if at.m1 is None else super().curvature(at)


@dataclass(frozen=True)
class NegativeBinomial(Family):
    """Overdispersed counts; V = mu + mu^2 / theta. ``theta=None``: to be estimated."""

    theta: float | None = None

    name = "negative.binomial"
    links = ("log", "sqrt", "identity")
    convex = ("log",)
    positive = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.theta is not None and not 0 < self.theta < np.inf:
            raise DataError(
                f"the size theta of a negative binomial must be positive and finite, got {self.theta}"
            )

    def label(self) -> str:
        theta = "" if self.theta is None else f"{self.theta:.4g}"
        return f"Negative Binomial({theta}) ({self.link.name})"

    def with_theta(self, theta: float) -> NegativeBinomial:
        """The same family at a size."""
        return replace(self, theta=float(theta))

    @property
    def size(self) -> float:
        """theta, which must be known by now."""
        if self.theta is None:
            raise UnsupportedError("theta of this negative binomial family is still to be estimated")
        return self.theta

    def variance(self, mu):
        return mu + mu * mu / self.size

    def variance_slope(self, mu):
        return 1.0 + 2.0 * mu / self.size

    def variance_bend(self, mu):
        return np.full_like(mu, 2.0 / self.size)

    def unit_deviance(self, y, mu):
        theta, difference = self.size, mu - y
        return 2.0 * (divergence(y, mu, difference) - divergence(y + theta, mu + theta, difference))

    def start(self, y, w):
        return y + (y == 0) / 6.0

    def check(self, y, label):
        refuse(y < 0, y, label, "must not be negative for a negative binomial family")

    def valid(self, eta, mu):
        return self.link.valid(eta) and bool(((mu > 0) & (mu < np.inf)).all())

    def minus2loglik(self, y, w, trials, mu, D):
        theta = self.size
        terms = (
            (y + theta) * np.log(mu + theta) - xlogy(y, mu) + gammaln(y + 1.0)
            - theta * log(theta) + gammaln(theta) - gammaln(y + theta)
        )  # fmt: skip
        return 2.0 * float(w @ terms)

    def bind(self, y, w=None, trials=None):
        return _NegativeBinomialConditional(self, y, np.ones(len(y)) if w is None else w, trials)

    def size_slopes(self, y: np.ndarray, w: np.ndarray, at: Working) -> tuple[float, np.ndarray, np.ndarray]:
        """Derivatives in log(theta) of -2 log-likelihood, of the weights W and of the scores s, at fixed
        eta.
        """
        theta, mu = self.size, at.mu
        inner = (
            np.log((mu + theta) / theta)
            + (y + theta) / (mu + theta)
            - 1.0
            + digamma(theta)
            - digamma(y + theta)
        )
        share = mu * mu / (theta * (mu + mu * mu / theta))  # -dlog V / dlog theta
        return 2.0 * theta * float(w @ inner), at.W * share, at.s * share

    def not_counts(self, y, w):
        return np.abs(y - np.rint(y)) > 1e-7 * np.maximum(1.0, y)

    def simulate(self, mu, w, dispersion, rng):
        if (w != 1).any():
            raise UnsupportedError(
                "a negative binomial response with prior weights has no distribution to simulate from"
            )
        return rng.poisson(mu * rng.gamma(self.size, 1.0 / self.size, mu.shape)).astype(float)


class _NegativeBinomialConditional(Conditional):
    """Knows that its deviance is a difference."""

    def rounding(self, at: Working) -> float:
        difference = self.y - at.mu
        parts = 8.0 * EPS * float(self.w @ (difference * difference / np.maximum(at.mu, EPS)))
        return super().rounding(at) + min(parts, 1e-6 * abs(at.D))
