"""No random effects: V = I, so the Schur complement is the cross-product itself (an ordinary linear
model)."""

from __future__ import annotations

import numpy as np

from .products import CrossProducts
from .profile import Likelihood, profile

__all__ = ["Fixed"]


class Fixed:
    """Products of a linear model."""

    exact = True
    by_roots = False

    def __init__(self, A: CrossProducts) -> None:
        self.A = A

    def at(
        self, Sigma: list[np.ndarray], like: Likelihood, roots: list[np.ndarray] | None = None
    ) -> FixedFactor:
        """The only factor there is."""
        return FixedFactor(self, like)

    def random_products(self) -> list[np.ndarray]:
        """No blocks."""
        return []

    def level_grams(self) -> list[np.ndarray]:
        """No blocks."""
        return []

    def cross_moments(self, A: list[np.ndarray]) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """No pairs of blocks."""
        return {}


class FixedFactor:
    """V = I and the criterion."""

    def __init__(self, kernel: Fixed, like: Likelihood) -> None:
        self.kernel, self.like = kernel, like
        self.S = kernel.A.A
        self.profile = profile(self.S, 0.0, kernel.A, like)

    def derivatives(self, E: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Nothing to differentiate."""
        return [], np.zeros((0, 0))

    def solve_random(self, R: list[np.ndarray]) -> list[np.ndarray]:
        """No random effects."""
        return []

    def conditional(self) -> list[np.ndarray]:
        """No random effects."""
        return []

    def quadratic(self) -> np.ndarray:
        """(n,) zeros."""
        return np.zeros(self.kernel.A.n)
