"""One grouping factor: the levels are independent."""

from __future__ import annotations

import numpy as np

from .. import small
from .system import Blocks, System, level_product, level_quadratic, scaled_inverse

__all__ = ["OneFactorSystem", "OneFactorWeighted"]


class OneFactorSystem(System):
    """Block diagonal: cost O(n K^2 + L K^3)."""

    def at(self, w: np.ndarray, Sigma: list[np.ndarray]) -> OneFactorWeighted:
        return OneFactorWeighted(self, self._gram(0, w), Sigma[0])


class OneFactorWeighted:
    """One K x K problem per level."""

    def __init__(self, system: OneFactorSystem, D: np.ndarray, Sigma: np.ndarray) -> None:
        self.system, self.D, self.Sigma = system, D, Sigma
        self.logdet, self.T_inv, self.N = scaled_inverse(D, Sigma)

    def solve(self, g: Blocks) -> tuple[Blocks, Blocks]:
        if len(self.Sigma) == 1:
            return [self.T_inv[0] * g[0]], [self.N[0] * g[0]]
        return [small.left(self.T_inv, g[0])], [small.left(self.N, g[0])]

    def leverage(self) -> np.ndarray:
        return level_quadratic(self.N, self.system.blocks[0], self.system.plain[0])

    def trace(self) -> list[np.ndarray]:
        K = len(self.Sigma)
        if K == 1:
            return [np.array([[float(self.T_inv[0, 0] @ self.D[0, 0])]])]
        total = level_product(self.T_inv, self.D).sum(axis=2)
        return [0.5 * (total + total.T)]

    def levels(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of N."""
        return [self.N]

    def information(self) -> list[np.ndarray]:
        """(K, K, L) diagonal blocks of Z'V^-1Z."""
        return [level_product(self.T_inv, self.D)]
