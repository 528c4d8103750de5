"""Distributions of the response and their link functions."""

from .continuous import Gamma, Gaussian, InverseGaussian
from .counts import Binomial, NegativeBinomial, Poisson
from .family import Conditional, Family, Working
from .names import family_named
from .quasi import Quasi, QuasiBinomial, QuasiPoisson

__all__ = [
    "Binomial",
    "Conditional",
    "Family",
    "Gamma",
    "Gaussian",
    "InverseGaussian",
    "NegativeBinomial",
    "Poisson",
    "Quasi",
    "QuasiBinomial",
    "QuasiPoisson",
    "Working",
    "family_named",
]
