"""The random part under changing weights: factors of Sigma^-1 + Z'WZ for one factor, a nested chain, crossed
factors.

What the kernels do once for a linear model happens here at every step of a generalised one, because the
weights move. A *system* holds what does not depend on the weights (codes, flat positions, columns); ``at(w,
Sigma)`` gives a factor with, for A = Z'WZ, T = I + A Sigma and N = (Sigma^-1 + A)^-1 = Sigma T^-1,
    logdet     log |T| = log |Lambda'A Lambda + I|
    solve(g)   T^-1 g and N g, for g a list of (r, K, L) per block
    leverage() z_i' N z_i of every row
    trace()    sum over levels of the diagonal blocks of A - A N A = Z'V^-1Z, (K, K) per block
No inverse of Sigma is taken, so a singular Sigma is an ordinary point.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Protocol

import numpy as np

from ...errors import FitError
from .. import small
from ..products import Block

__all__ = ["System", "WeightedFactor"]

Blocks = list[np.ndarray]  # per block (r, K, L)
INDEFINITE = "the penalised weights of the random effects are not positive definite at these parameters"


class WeightedFactor(Protocol):
    """What every shape offers at given weights and Sigma."""

    logdet: float

    def solve(self, g: Blocks) -> tuple[Blocks, Blocks]: ...

    def leverage(self) -> np.ndarray: ...

    def trace(self) -> list[np.ndarray]: ...

    def levels(self) -> list[np.ndarray]: ...

    def information(self) -> list[np.ndarray]: ...


class System:
    """Codes and columns of the random terms; subclasses know the shape."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self.plain = [
            b.K == 1 and bool((b.columns == 1.0).all()) for b in self.blocks
        ]  # random intercepts only

    def cross(self, rows: np.ndarray) -> Blocks:
        """Z' v for every row v of ``rows`` (r, n): per block (r, K, L)."""
        out: Blocks = []
        for block, plain in zip(self.blocks, self.plain, strict=True):
            if plain and len(rows) == 1:
                out.append(np.bincount(block.codes, rows[0], block.L).reshape(1, 1, -1))
                continue
            part = np.empty((len(rows), block.K, block.L))
            for i, row in enumerate(rows):
                for a in range(block.K):
                    part[i, a] = np.bincount(block.codes, row if plain else row * block.columns[a], block.L)
            out.append(part)
        return out

    def times(self, b: Blocks) -> np.ndarray:
        """Z b (n,) for b of one row per block, (1, K, L)."""
        total: np.ndarray | None = None
        for block, plain, part in zip(self.blocks, self.plain, b, strict=True):
            for a in range(block.K):
                values = part[0, a][block.codes]
                if not plain:
                    values *= block.columns[a]
                total = values if total is None else total + values
        assert total is not None
        return total

    def at(self, w: np.ndarray, Sigma: list[np.ndarray]) -> WeightedFactor:
        """The factor at weights (n,) and a relative covariance (K, K) per block."""
        raise NotImplementedError

    def _gram(self, j: int, w: np.ndarray) -> np.ndarray:
        """(K, K, L) Z_j'W Z_j of each level."""
        block = self.blocks[j]
        if self.plain[j]:
            return np.bincount(block.codes, w, block.L).reshape(1, 1, -1)
        out = np.empty((block.K, block.K, block.L))
        for a in range(block.K):
            weighted = w * block.columns[a]
            for b in range(a + 1):
                out[a, b] = out[b, a] = np.bincount(block.codes, weighted * block.columns[b], block.L)
        return out


def scaled_inverse(D: np.ndarray, Sigma: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """log |T|, T^-1 and N = Sigma T^-1, per level, for T = I + D Sigma."""
    k = len(Sigma)
    if k == 1:
        variance = float(Sigma[0, 0])
        T = 1.0 + variance * D
        logdet = float(np.log(T).sum())
        if not isfinite(logdet):
            raise FitError(INDEFINITE)
        T_inv = 1.0 / T
        return logdet, T_inv, variance * T_inv
    try:
        logdet, T_inv = small.determinant_and_inverse(small.shrink(D, Sigma))
    except np.linalg.LinAlgError:  # exactly singular, where rounding or a blind step would have it
        raise FitError(INDEFINITE) from None
    if not isfinite(logdet):
        raise FitError(INDEFINITE)
    N = np.matmul(Sigma, T_inv.reshape(k, -1)).reshape(k, k, -1)
    return logdet, T_inv, 0.5 * (N + N.transpose(1, 0, 2))


def level_quadratic(N: np.ndarray, block: Block, plain: bool) -> np.ndarray:
    """(n,) z_i' N_level(i) z_i."""
    if plain:
        return N[0, 0][block.codes]
    out = np.zeros(len(block.codes))
    for a in range(block.K):
        for b in range(a + 1):
            twice = 1.0 if a == b else 2.0
            out += twice * block.columns[a] * block.columns[b] * N[a, b][block.codes]
    return out


def level_product(B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(r, s, L): B (r, k, L) times C (k, s, L), level by level."""
    if B.shape[1] == 1:
        return B * C if B.shape[0] == 1 or C.shape[1] == 1 else B[:, :1] * C[:1]
    return np.ascontiguousarray(np.matmul(B.transpose(2, 0, 1), C.transpose(2, 0, 1)).transpose(1, 2, 0))


def transposed(B: np.ndarray) -> np.ndarray:
    return B.transpose(1, 0, 2)


# --- one grouping factor ----------------------------------------------------------------------------------


# --- a chain of nested factors ----------------------------------------------------------------------------


# --- crossed factors --------------------------------------------------------------------------------------
