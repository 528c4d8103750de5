"""Link functions: eta = g(mu), its inverse and the first two derivatives of the inverse.

Means of a probability come with their complement 1 - mu, computed without subtraction, so that nothing is
lost where mu is close to one. Arguments are clipped only where the result would not be a double.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from ..errors import UnsupportedError

__all__ = ["LINKS", "Link", "link_named"]

Pair = tuple[np.ndarray, np.ndarray]
_INV_SQRT_2PI = 0.3989422804014327


class Link:
    """One link function; arrays of any shape in and out."""

    name: str
    bounded = False  # the mean is a probability for every eta

    def eta(self, mu: np.ndarray) -> np.ndarray:
        """g(mu)."""
        raise NotImplementedError

    def mu(self, eta: np.ndarray) -> np.ndarray:
        """The inverse link."""
        raise NotImplementedError

    def complement(self, eta: np.ndarray) -> np.ndarray:
        """1 - mu."""
        return 1.0 - self.mu(eta)

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        """dmu / deta and d2mu / deta2; ``mu`` is the mean at ``eta``."""
        raise NotImplementedError

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """d3mu / deta3."""
        raise NotImplementedError

    def valid(self, eta: np.ndarray) -> bool:
        """Whether every eta is in the domain of the inverse link."""
        return True

    def __repr__(self) -> str:
        return f"Link({self.name!r})"

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return link_named, (self.name,)


class Identity(Link):
    """eta = mu."""

    name = "identity"

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return np.array(mu, float)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return eta

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        return np.ones_like(eta), np.zeros_like(eta)

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return np.zeros_like(eta)


class Log(Link):
    """eta = log mu."""

    name = "log"

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return np.log(mu)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return np.exp(eta)

    def complement(self, eta: np.ndarray) -> np.ndarray:
        return -np.expm1(eta)

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        return mu, mu

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return mu


class Logit(Link):
    """eta = log(mu / (1 - mu))."""

    name = "logit"
    bounded = True

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return logit(mu)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return expit(np.clip(eta, -700.0, 700.0))

    def complement(self, eta: np.ndarray) -> np.ndarray:
        return expit(np.clip(-eta, -700.0, 700.0))

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        c = self.complement(eta)
        m1 = mu * c
        return m1, m1 * (c - mu)

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        c = self.complement(eta)
        m1 = mu * c
        return m1 * ((c - mu) ** 2 - 2.0 * m1)


class Probit(Link):
    """eta = the standard normal quantile of mu."""

    name = "probit"
    bounded = True
    _FAR = 37.0  # the distribution function is still a normal double

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return ndtri(mu)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return ndtr(np.clip(eta, -self._FAR, self._FAR))

    def complement(self, eta: np.ndarray) -> np.ndarray:
        return ndtr(np.clip(-eta, -self._FAR, self._FAR))

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        eta = np.clip(eta, -self._FAR, self._FAR)
        m1 = _INV_SQRT_2PI * np.exp(-0.5 * eta * eta)
        return m1, -eta * m1

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        eta = np.clip(eta, -self._FAR, self._FAR)
        return (eta * eta - 1.0) * _INV_SQRT_2PI * np.exp(-0.5 * eta * eta)


class Cloglog(Link):
    """eta = log(-log(1 - mu))."""

    name = "cloglog"
    bounded = True

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return np.log(-np.log1p(-mu))

    def _rate(self, eta: np.ndarray) -> np.ndarray:
        return np.exp(np.clip(eta, -690.0, 6.5))  # exp(-exp(6.5)) = 1e-289

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return -np.expm1(-self._rate(eta))

    def complement(self, eta: np.ndarray) -> np.ndarray:
        return np.exp(-self._rate(eta))

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        rate = self._rate(eta)
        m1 = rate * np.exp(-rate)
        return m1, m1 * (1.0 - rate)

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        rate = self._rate(eta)
        return rate * np.exp(-rate) * ((1.0 - rate) ** 2 - rate)


class Cauchit(Link):
    """eta = tan(pi (mu - 1/2)): the quantile of a Cauchy distribution."""

    name = "cauchit"
    bounded = True

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return -1.0 / np.tan(np.pi * np.asarray(mu))

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return _cauchy(eta)

    def complement(self, eta: np.ndarray) -> np.ndarray:
        return _cauchy(-eta)

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        spread = 1.0 + eta * eta
        m1 = 1.0 / (np.pi * spread)
        return m1, -2.0 * eta * m1 / spread

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        spread = 1.0 + eta * eta
        return (6.0 * eta * eta - 2.0) / (np.pi * spread**3)


def _cauchy(x: np.ndarray) -> np.ndarray:
    """Distribution function of the Cauchy distribution, accurate in both tails."""
    far = np.minimum(x, -1.0)
    return np.where(x < -1.0, np.arctan(-1.0 / far) / np.pi, 0.5 + np.arctan(x) / np.pi)


class Inverse(Link):
    """eta = 1 / mu."""

    name = "inverse"

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return 1.0 / np.asarray(mu, float)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return 1.0 / eta

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        m1 = -mu * mu
        return m1, -2.0 * m1 * mu

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return -6.0 * mu**4

    def valid(self, eta: np.ndarray) -> bool:
        return bool((eta != 0).all())


class Sqrt(Link):
    """eta = sqrt(mu); a negative eta is allowed, as in lme4, and means eta^2 too."""

    name = "sqrt"

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return np.sqrt(mu)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return eta * eta

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        return 2.0 * eta, np.full_like(eta, 2.0)

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return np.zeros_like(eta)

    def valid(self, eta: np.ndarray) -> bool:
        return bool((eta != 0).all())


class InverseSquare(Link):
    """eta = 1 / mu^2."""

    name = "1/mu^2"

    def eta(self, mu: np.ndarray) -> np.ndarray:
        return 1.0 / np.square(mu)

    def mu(self, eta: np.ndarray) -> np.ndarray:
        return 1.0 / np.sqrt(eta)

    def slopes(self, eta: np.ndarray, mu: np.ndarray) -> Pair:
        m1 = -0.5 * mu / eta
        return m1, -1.5 * m1 / eta

    def third(self, eta: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return -1.875 * mu / eta**3

    def valid(self, eta: np.ndarray) -> bool:
        return bool((eta > 0).all())


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        link.name: link
        for link in (
            Identity(), Log(), Logit(), Probit(), Cloglog(), Cauchit(), Inverse(), Sqrt(), InverseSquare()
        )
    }
)  # fmt: skip


def link_named(name: str) -> Link:
    """The link of a name, R's spelling.

    Raises UnsupportedError listing the names that exist.
    """
    if name not in LINKS:
        raise UnsupportedError(f"link={name!r} is not one of {', '.join(map(repr, LINKS))}")
    return LINKS[name]
