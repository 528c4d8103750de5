"""Families: how the variance of a response depends on its mean, its deviance and its log-likelihood.

A :class:`Family` with its link is a description; :meth:`Family.bind` joins it with a response and gives the
:class:`Conditional` whose derivatives in the linear predictor every algorithm here is made of. With w the
prior weights, V the variance function and mu' = dmu/deta,
    deviance D = sum w d(y, mu),   score s = -D'/2 = w (y - mu) mu' / V,   weight W = w mu'^2 / V (Fisher),
    dW = dW/deta,                  H = -ds/deta = W - w (y - mu) (mu'' / V - mu'^2 V' / V^2) (observed).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import ClassVar

import numpy as np
from scipy.special import kl_div

from ..errors import DataError, UnsupportedError
from .links import Link

__all__ = ["Conditional", "Family", "Working", "domain_of_probability"]  # fmt: skip

LOG_2PI = log(2.0 * pi)
EPS = float(np.finfo(float).eps)
TINY = np.finfo(float).tiny
EDGE = 1e-3  # squared distance from the edge, in squared standard errors, that counts as none
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
    convex: ClassVar[tuple[str, ...]] = ()  # links with a single minimum of the deviance
    canonical = ""  # the link for which Fisher and observed weights are the same
    positive = False  # whether means must be positive
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

    def variance_bend(self, mu: np.ndarray) -> np.ndarray:
        """d2V / dmu2."""
        raise NotImplementedError

    def unit_deviance(self, y: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """d(y, mu), weights left out; zero at mu = y."""
        raise NotImplementedError

    def start(self, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Means to start from, inside the domain; R's `mustart`."""
        raise NotImplementedError

    def check(self, y: np.ndarray, label: str) -> None:
        """Raise DataError when a response is outside the domain."""

    def domain(self) -> tuple[float, float]:
        """Open interval of the linear predictors whose means are in the domain of the family.

        With the square-root link a negative linear predictor has a mean as well: no interval.
        """
        bounded = self.is_restricted and self.positive and self.link.name != "sqrt"
        return (0.0, np.inf) if bounded else (-np.inf, np.inf)

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


def domain_of_probability(link: Link) -> tuple[float, float]:
    """Open interval of the linear predictors whose means lie between zero and one."""
    if link.bounded:
        return -np.inf, np.inf
    return (-np.inf, 0.0) if link.name == "log" else (0.0, 1.0)


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
        """Deviance of every row and scores, for linear predictors (r, n); infinite and zero outside the domain."""
        family = self.family
        low, high = family.domain()
        mu = family.link.mu(eta)
        m1 = family.link.slopes(eta, mu)[0]
        D = self.w * family.unit_deviance(self.y, mu)
        inside = np.isfinite(D) & (eta > low) & (eta < high)
        score = self.w * m1 / family.variance(mu) * (self.y - mu)
        return np.where(inside, D, np.inf), np.where(inside, score, 0.0)

    def curvature(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        """dW and the observed weights H, (n,) each."""
        ratio = at.m1 / at.V
        turn = ratio * ratio * self.family.variance_slope(at.mu)
        bend = at.m2 / at.V - turn  # d(mu' / V) / deta
        dW = self.w * at.m1 * (2.0 * bend + turn)
        if self.family.is_canonical:
            return dW, at.W
        return dW, at.W - self.w * (self.y - at.mu) * bend

    def rounding(self, at: Working) -> float:
        """How much of the deviance D may be rounding: eta, y and mu are known to units in their last place."""
        size = np.abs(at.mu) + np.abs(self.y)
        spread = self.w * size / at.V
        score = np.abs(at.s) @ np.abs(at.eta) + np.abs(self.y - at.mu) @ spread
        curve = at.W @ (at.eta * at.eta) + spread @ size
        bound = float(8.0 * EPS * abs(at.D) + 4.0 * EPS * score + 8.0 * EPS * EPS * curve)
        return bound if np.isfinite(bound) else 1e-10 * abs(at.D)

    def observed_slope(self, at: Working) -> np.ndarray:
        """(n,) dH/deta, H the observed weights."""
        family, link = self.family, self.family.link
        slope = family.variance_slope(at.mu)
        ratio, curve = at.m1 / at.V, at.m2 / at.V
        bend = curve - ratio * ratio * slope  # d(mu' / V) / deta, and its derivative:
        turn = link.third(at.eta, at.mu) / at.V - ratio * slope * (curve + 2.0 * bend)
        turn -= ratio * ratio * at.m1 * family.variance_bend(at.mu)
        return self.w * (at.m2 * ratio + 2.0 * at.m1 * bend - (self.y - at.mu) * turn)

    def at_edge(self, at: Working) -> np.ndarray:
        """(n,) mask of the rows whose linear predictors are at the edge of the domain, in units of the standard error
        that the row alone would give.
        """
        low, high = self.family.domain()
        distance = np.minimum(at.eta - low, high - at.eta)
        phi = 1.0 if self.family.dispersion_known else at.D / self.n
        with np.errstate(all="ignore"):
            return np.isfinite(distance) & (self.w > 0) & (at.W * distance * distance < EDGE * phi)

    def residuals(self, at: Working) -> tuple[np.ndarray, np.ndarray]:
        """(n,) y - mu and (n,) V(mu)."""
        return self.y - at.mu, self.family.variance(at.mu)

    def deviance_terms(self, at: Working) -> np.ndarray:
        """(n,) w d(y, mu), never negative."""
        return np.maximum(self.w * self.family.unit_deviance(self.y, at.mu), 0.0)

    def minus2loglik(self, at: Working) -> float:
        """-2 log-likelihood with constants."""
        return self.family.minus2loglik(self.y, self.w, self.trials, at.mu, at.D)


def divergence(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> np.ndarray:
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


def refuse(bad: np.ndarray, y: np.ndarray, label: str, rule: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"the response {label} {rule}: {int(bad.sum())} value(s) do not, the first is {y[row]:g} "
            f"(row {row + 1} of those used)"
        )
