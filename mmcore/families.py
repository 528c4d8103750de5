"""Families: how the variance of a response depends on its mean, its deviance and its log-likelihood.

A :class:`Family` with its link is a description; :meth:`Family.bind` joins it with a response and gives the
:class:`Conditional` whose derivatives in the linear predictor every algorithm here is made of. With w the
prior weights, V the variance function and mu' = dmu/deta,
    deviance D = sum w d(y, mu),   score s = -D'/2 = w (y - mu) mu' / V,   weight W = w mu'^2 / V (Fisher),
    dW = dW/deta,                  H = -ds/deta = W - w (y - mu) (mu'' / V - mu'^2 V' / V^2) (observed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log, pi
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from scipy.special import digamma, expit, gammaln, kl_div, xlog1py, xlogy

from .errors import DataError, UnsupportedError
from .links import LINKS, Link, link_named

__all__ = [
    "Binomial", "Conditional", "Family", "Gamma", "Gaussian", "InverseGaussian", "NegativeBinomial",
    "Poisson", "Quasi", "QuasiBinomial", "QuasiPoisson", "Working", "family_named",
]  # fmt: skip

LOG_2PI = log(2.0 * pi)
TINY = np.finfo(float).tiny
CLOSE = 0.25  # relative distance of y and mu below which their divergence is a series
NEARLY_WHOLE = 1e-3  # R's glm: a count further than this from a whole number is not a count


class Working:
    """The conditional distribution at one linear predictor: what a step of iterated least squares needs."""

    __slots__ = ("D", "V", "W", "eta", "m1", "m2", "mu", "s")

    def __init__(self, eta, mu, D, s, W, m1=None, m2=None, V=None) -> None:
        self.eta = eta  # (n,)
        self.mu = mu  # (n,) means
        self.D = D  # deviance; inf where the mean is outside the family's domain
        self.s = s  # (n,) -dD/deta / 2
        self.W = W  # (n,) Fisher weights
        self.m1 = m1  # (n,) dmu/deta
        self.m2 = m2  # (n,) d2mu/deta2
        self.V = V  # (n,) variance function


@dataclass(frozen=True)
class Family:
    """Description of a conditional distribution: a variance function, a link and what is known of the
    dispersion.
    """

    link: Link

    name = ""  # R's name
    links: ClassVar[tuple[str, ...]] = ()  # allowed, the default first
    dispersion_known = True  # the dispersion is one, not estimated
    canonical = ""  # the link for which Fisher and observed weights are the same
    likelihood = True  # whether there is one (quasi families have none)

    def __post_init__(self) -> None:
        if self.link.name not in self.links:
            allowed = ", ".join(map(repr, self.links))
            raise UnsupportedError(f"family {self.name} has no link {self.link.name!r}: use one of {allowed}")

    @property
    def is_canonical(self) -> bool:
        """Whether the link is the canonical one."""
        return self.link.name == self.canonical

    @property
    def is_restricted(self) -> bool:
        """Whether some linear predictors give means outside the domain of the family."""
        name = self.link.name
        return not (self.link.bounded or (name == "log" and self.name not in ("binomial", "quasibinomial")))

    def label(self) -> str:
        """``binomial (logit)``."""
        return f"{self.name} ({self.link.name})"

    def variance(self, mu: np.ndarray) -> np.ndarray:
        """V(mu)."""
        raise NotImplementedError

    def variance_slope(self, mu: np.ndarray) -> np.ndarray:
        """dV / dmu."""
        raise NotImplementedError

    def unit_deviance(self, y: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """d(y, mu), weights left out; zero at mu = y."""
        raise NotImplementedError

    def start(self, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Means to start from, inside the domain; R's `mustart`."""
        raise NotImplementedError

    def check(self, y: np.ndarray, label: str) -> None:
        """Raise DataError when a response is outside the domain."""

    def valid(self, eta: np.ndarray, mu: np.ndarray) -> bool:
        """Whether every mean is in the domain of the family."""
        return self.link.valid(eta) and bool(np.isfinite(mu).all())

    def minus2loglik(
        self, y: np.ndarray, w: np.ndarray, trials: np.ndarray | None, mu: np.ndarray, D: float
    ) -> float:
        """-2 log-likelihood with all constants; the dispersion, if unknown, is D / sum(w) as in R's `aic`."""
        raise NotImplementedError

    def of_deviance(self, D: float, w: np.ndarray) -> tuple[float, float]:
        """h(D) and h'(D): -2 log-likelihood up to a constant as a function of the deviance."""
        return D, 1.0

    def not_counts(self, y: np.ndarray, w: np.ndarray) -> np.ndarray | None:
        """Mask of the rows whose response is not a whole number where the likelihood needs one."""
        return None

    def simulate(
        self, mu: np.ndarray, w: np.ndarray, dispersion: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Responses drawn at the means ``mu`` (..., n), on the scale of y (proportions for a binomial)."""
        raise UnsupportedError(f"family {self.name} has no likelihood to simulate from")

    def bind(
        self, y: np.ndarray, w: np.ndarray | None = None, trials: np.ndarray | None = None
    ) -> Conditional:
        """The family at a response (n,) with prior weights (n,) and, for cbind(), numbers of trials."""
        return Conditional(self, y, np.ones(len(y)) if w is None else w, trials)


class Conditional:
    """A family bound to a response."""

    def __init__(self, family: Family, y: np.ndarray, w: np.ndarray, trials: np.ndarray | None) -> None:
        self.family, self.y, self.w, self.trials = family, y, w, trials

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.y)

    def at(self, eta: np.ndarray) -> Working:
        """Means, deviance, score and weights at a linear predictor (n,)."""
        family, y, w = self.family, self.y, self.w
        mu = family.link.mu(eta)
        if not family.valid(eta, mu):
            return Working(eta, mu, np.inf, None, None)
        m1, m2 = family.link.slopes(eta, mu)
        V = family.variance(mu)
        ratio = w * m1 / V
        return Working(
            eta, mu, float(w @ family.unit_deviance(y, mu)), ratio * (y - mu), ratio * m1, m1, m2, V
        )

    def terms(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Deviance of every row and scores, for linear predictors (r, n); infinite outside the domain."""
        family = self.family
        mu = family.link.mu(eta)
        m1 = family.link.slopes(eta, mu)[0]
        D = self.w * family.unit_deviance(self.y, mu)
        return np.where(np.isfinite(D), D, np.inf), self.w * m1 / family.variance(mu) * (self.y - mu)

    def curvature(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        """dW and the observed weights H, (n,) each."""
        bend = (at.m2 * at.V - at.m1 * at.m1 * self.family.variance_slope(at.mu)) / (at.V * at.V)
        dW = self.w * at.m1 * (2.0 * bend + at.m1 * at.m1 * self.family.variance_slope(at.mu) / (at.V * at.V))
        if self.family.is_canonical:
            return dW, at.W
        return dW, at.W - self.w * (self.y - at.mu) * bend

    def residuals(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        """(n,) y - mu and (n,) V(mu)."""
        return self.y - at.mu, self.family.variance(at.mu)

    def deviance_terms(self, at: Working) -> np.ndarray:
        """(n,) w d(y, mu), never negative."""
        return np.maximum(self.w * self.family.unit_deviance(self.y, at.mu), 0.0)

    def minus2loglik(self, at: Working) -> float:
        """-2 log-likelihood with constants."""
        return self.family.minus2loglik(self.y, self.w, self.trials, at.mu, at.D)


# --- Gaussian -----------------------------------------------------------------------------------------------


class Gaussian(Family):
    """Constant variance."""

    name = "gaussian"
    links = ("identity", "log", "inverse")
    dispersion_known = False
    canonical = "identity"

    def variance(self, mu):
        return np.ones_like(mu)

    def variance_slope(self, mu):
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


# --- binomial -----------------------------------------------------------------------------------------------


class Binomial(Family):
    """Proportions of successes; the prior weights are the numbers of trials."""

    name = "binomial"
    links = ("logit", "probit", "cloglog", "cauchit", "log", "identity")
    canonical = "logit"

    def variance(self, mu):
        return mu * (1.0 - mu)

    def variance_slope(self, mu):
        return 1.0 - 2.0 * mu

    def unit_deviance(self, y, mu):
        return _binomial_deviance(y, mu, 1.0 - mu)

    def start(self, y, w):
        return (w * y + 0.5) / (w + 1.0)

    def check(self, y, label):
        rule = (
            "must lie between 0 and 1 for a binomial family (counts are written cbind(successes, failures))"
        )
        _refuse((y < 0) | (y > 1), y, label, rule)

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
    return 2.0 * (_divergence(y, mu, mu - y) + _divergence(1.0 - y, complement, y - mu))


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


# --- counts -------------------------------------------------------------------------------------------------


class Poisson(Family):
    """Counts; V = mu."""

    name = "poisson"
    links = ("log", "identity", "sqrt")
    canonical = "log"

    def variance(self, mu):
        return mu

    def variance_slope(self, mu):
        return np.ones_like(mu)

    def unit_deviance(self, y, mu):
        return 2.0 * _divergence(y, mu, mu - y)

    def start(self, y, w):
        return y + 0.1

    def check(self, y, label):
        _refuse(y < 0, y, label, f"must not be negative for a {self.name} family")

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

    def curvature(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        return (at.W, at.W) if at.m1 is None else super().curvature(at)


@dataclass(frozen=True)
class NegativeBinomial(Family):
    """Overdispersed counts; V = mu + mu^2 / theta. ``theta=None``: to be estimated."""

    theta: float | None = None

    name = "negative.binomial"
    links = ("log", "sqrt", "identity")

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

    def unit_deviance(self, y, mu):
        theta, difference = self.size, mu - y
        return 2.0 * (_divergence(y, mu, difference) - _divergence(y + theta, mu + theta, difference))

    def start(self, y, w):
        return y + (y == 0) / 6.0

    def check(self, y, label):
        _refuse(y < 0, y, label, "must not be negative for a negative binomial family")

    def valid(self, eta, mu):
        return self.link.valid(eta) and bool(((mu > 0) & (mu < np.inf)).all())

    def minus2loglik(self, y, w, trials, mu, D):
        theta = self.size
        terms = (
            (y + theta) * np.log(mu + theta) - xlogy(y, mu) + gammaln(y + 1.0)
            - theta * log(theta) + gammaln(theta) - gammaln(y + theta)
        )  # fmt: skip
        return 2.0 * float(w @ terms)

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


# --- positive responses -----------------------------------------------------------------------------------


class Gamma(Family):
    """Positive responses with constant coefficient of variation; V = mu^2."""

    name = "Gamma"
    links = ("inverse", "log", "identity")
    dispersion_known = False
    canonical = "inverse"

    def variance(self, mu):
        return mu * mu

    def variance_slope(self, mu):
        return 2.0 * mu

    def unit_deviance(self, y, mu):
        return 2.0 * _divergence(mu, y, y - mu) / mu

    def start(self, y, w):
        return y

    def check(self, y, label):
        _refuse(y <= 0, y, label, "must be positive for a Gamma family")

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

    def variance(self, mu):
        return mu**3

    def variance_slope(self, mu):
        return 3.0 * mu * mu

    def unit_deviance(self, y, mu):
        return (y - mu) ** 2 / (y * mu * mu)

    def start(self, y, w):
        return y

    def check(self, y, label):
        _refuse(y <= 0, y, label, "must be positive for an inverse Gaussian family")

    def valid(self, eta, mu):
        return bool(((mu > 0) & (mu < np.inf)).all()) and self.link.valid(eta)

    def minus2loglik(self, y, w, trials, mu, D):
        return self.of_deviance(D, w)[0] + 3.0 * float(w @ np.log(y))

    def of_deviance(self, D, w):
        N = float(w.sum())
        return N * (log(D / N) + LOG_2PI + 1.0), N / D

    def simulate(self, mu, w, dispersion, rng):
        return rng.wald(mu, np.broadcast_to(w / dispersion, mu.shape))


# --- quasi families ---------------------------------------------------------------------------------------


class QuasiBinomial(Binomial):
    """The binomial's moments with an estimated dispersion; no likelihood."""

    name = "quasibinomial"
    dispersion_known = False
    likelihood = False

    def not_counts(self, y, w):
        return None

    def simulate(self, mu, w, dispersion, rng):
        return Family.simulate(self, mu, w, dispersion, rng)


class QuasiPoisson(Poisson):
    """The Poisson's moments with an estimated dispersion; no likelihood."""

    name = "quasipoisson"
    dispersion_known = False
    likelihood = False

    def not_counts(self, y, w):
        return None

    def simulate(self, mu, w, dispersion, rng):
        return Family.simulate(self, mu, w, dispersion, rng)


_MODELS: Mapping[str, type[Family]] = MappingProxyType(
    {"constant": Gaussian, "mu": Poisson, "mu(1-mu)": Binomial, "mu^2": Gamma, "mu^3": InverseGaussian}
)


@dataclass(frozen=True)
class Quasi(Family):
    """A variance function and any link; no likelihood."""

    variance_name: str = "constant"  # constant | mu | mu(1-mu) | mu^2 | mu^3

    name = "quasi"
    links = tuple(LINKS)
    dispersion_known = False
    likelihood = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance_name not in _MODELS:
            raise UnsupportedError(
                f"quasi variance {self.variance_name!r} is not one of {', '.join(map(repr, _MODELS))}"
            )

    @property
    def _model(self) -> Family:
        model = _MODELS[self.variance_name]
        return model(link_named(model.links[0]))

    @property
    def is_canonical(self) -> bool:
        return self.link.name == self._model.canonical

    def variance(self, mu):
        return self._model.variance(mu)

    def variance_slope(self, mu):
        return self._model.variance_slope(mu)

    def unit_deviance(self, y, mu):
        return self._model.unit_deviance(y, mu)

    def start(self, y, w):
        if self.variance_name == "mu(1-mu)":
            return np.clip(y, 0.001, 0.999)
        return y + 0.1 * (y == 0) if self.variance_name != "constant" else y

    def check(self, y, label):
        self._model.check(y, label)

    def valid(self, eta, mu):
        if not self.link.valid(eta):
            return False
        if self.variance_name == "constant":
            return bool(np.isfinite(mu).all())
        top = 1.0 if self.variance_name == "mu(1-mu)" else np.inf
        return bool(((mu > 0) & (mu < top)).all())


def _divergence(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """a log(a / b) - (a - b), which is b where a is zero, with all digits also where the two are close.

    ``difference`` is b - a: of complements and of sums it is known better than by subtraction.
    """
    with np.errstate(all="ignore"):
        out = kl_div(a, b)
        change = difference / a
        close = np.abs(change) < CLOSE
        if close.any():
            out[close] = np.broadcast_to(a, out.shape)[close] * _less_log1p(change[close])
    return out


def _less_log1p(d: np.ndarray) -> np.ndarray:
    """d - log(1 + d) for |d| < CLOSE, by the series of log((1 + s) / (1 - s)) = 2 (s + s^3 / 3 + ...)."""
    s = d / (2.0 + d)
    square = s * s
    tail = np.zeros_like(d)
    for k in (19, 17, 15, 13, 11, 9, 7, 5, 3):
        tail = (tail + 1.0 / k) * square
    return s * (d - 2.0 * tail)


def _refuse(bad: np.ndarray, y: np.ndarray, label: str, rule: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"the response {label} {rule}: {int(bad.sum())} value(s) do not, the first is {y[row]:g} "
            f"(row {row + 1} of those used)"
        )


# --- by name ----------------------------------------------------------------------------------------------

_FAMILIES: Mapping[str, type[Family]] = MappingProxyType(
    {
        "gaussian": Gaussian, "binomial": Binomial, "poisson": Poisson, "gamma": Gamma,
        "inverse.gaussian": InverseGaussian, "negative.binomial": NegativeBinomial,
        "quasibinomial": QuasiBinomial, "quasipoisson": QuasiPoisson, "quasi": Quasi,
    }
)  # fmt: skip
_ALIASES = MappingProxyType(
    {
        "normal": "gaussian", "bernoulli": "binomial", "inverse_gaussian": "inverse.gaussian",
        "inversegaussian": "inverse.gaussian", "negative_binomial": "negative.binomial",
        "negbin": "negative.binomial", "nbinom": "negative.binomial", "nbinom2": "negative.binomial",
    }
)  # fmt: skip


def family_named(family: str | Family, link: str | None = None, **options: Any) -> Family:
    """The family of a name (R's, in any case) with a link (default: R's), or a family as it is.

    ``options``: ``theta`` for ``"negative.binomial"``, ``variance_name`` for ``"quasi"``.
    Raises UnsupportedError listing the names, or the links of the family, that exist.
    """
    if isinstance(family, Family):
        return family if link is None or link == family.link.name else replace(family, link=link_named(link))
    key = str(family).lower()
    made = _FAMILIES.get(_ALIASES.get(key, key))
    if made is None:
        names = ", ".join(repr(kind.name) for kind in _FAMILIES.values())
        raise UnsupportedError(f"family={family!r} is not one of {names}")
    return made(link_named(link or made.links[0]), **options)
