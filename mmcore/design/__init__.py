"""From a formula and data to a :class:`Design`: y, X, the random terms, weights, offset and labels."""

from .build import Design, NewRows, build
from .random import RandomTerm

__all__ = ["Design", "NewRows", "RandomTerm", "build"]
