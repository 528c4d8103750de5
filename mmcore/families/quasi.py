"""Quasi families: a variance function without a distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..errors import UnsupportedError
from .continuous import Gamma, Gaussian, InverseGaussian
from .counts import Binomial, Poisson
from .family import Family, domain_of_probability
from .links import LINKS, link_named

__all__ = ["Quasi", "QuasiBinomial", "QuasiPoisson"]


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

    def variance_bend(self, mu):
        return self._model.variance_bend(mu)

    def unit_deviance(self, y, mu):
        return self._model.unit_deviance(y, mu)

    def start(self, y, w):
        if self.variance_name == "mu(1-mu)":
            return np.clip(y, 0.001, 0.999)
        return y + 0.1 * (y == 0) if self.variance_name != "constant" else y

    def check(self, y, label):
        self._model.check(y, label)

    @property
    def positive(self):  # type: ignore[override]
        return self.variance_name != "constant"

    def domain(self):
        if self.variance_name != "mu(1-mu)":
            return super().domain()
        return domain_of_probability(self.link)

    def valid(self, eta, mu):
        if not self.link.valid(eta):
            return False
        if self.variance_name == "constant":
            return bool(np.isfinite(mu).all())
        top = 1.0 if self.variance_name == "mu(1-mu)" else np.inf
        return bool(((mu > 0) & (mu < top)).all())
