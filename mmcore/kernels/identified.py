"""Which covariance parameters are in the likelihood.

V depends on the covariance of two effects only through levels that have both, and the REML criterion does not depend
on effects whose columns are combinations of the columns of X.
"""

from __future__ import annotations

import numpy as np

from .products import Block

__all__ = ["free_directions", "in_span", "linked_effects", "present", "present_in"]

FLAT = 1e-10  # relative size below which a direction of Sigma changes no element of V but by rounding
MOST_EFFECTS = 30  # of a term whose directions are counted: the work grows with the fourth power


def present(gram: np.ndarray) -> np.ndarray:
    """(K, L) whether an effect has a column that is not zero in a level, from Z'Z by level (K, K, L)."""
    return np.einsum("kkl->kl", gram) > 0.0


def present_in(block: Block) -> np.ndarray:
    """(K, L) the same from the columns of a block."""
    return np.array([np.bincount(block.codes, column != 0.0, block.L) > 0 for column in block.columns])


def linked_effects(there: np.ndarray) -> np.ndarray:
    """(K, K) whether two effects meet in a level, or are linked by others that do; ``there`` is (K, L).

    The covariance of two effects that are not linked is in no element of V: any value has the same likelihood, and
    zero leaves Sigma positive semi-definite. Effects that do not meet but are linked by others are limited by these.
    """
    if len(there) == 1:
        return np.ones((1, 1), dtype=bool)
    counts = there.astype(float)
    reached = (counts @ counts.T > 0) | np.eye(len(there), dtype=bool)
    while not reached.all():
        further = reached @ reached
        if (further == reached).all():
            break
        reached = further
    return reached


def free_directions(gram: np.ndarray) -> int:
    """Dimension of the symmetric S (k, k) with Z_l S Z_l' = 0 in every level l; ``gram`` is Z'Z by level (k, k, L).

    Sum over levels of |Z_l S Z_l'|^2 = tr(D S D S), D = Z_l'Z_l, is a quadratic form in S: its zeros are counted.
    """
    k = len(gram)
    if k == 1 or k > MOST_EFFECTS:
        return 0
    scale = np.sqrt(np.einsum("kkl->k", gram))
    scale[scale == 0.0] = 1.0
    D = (gram / scale[:, None, None] / scale[:, None]).reshape(k * k, -1)
    form = (D @ D.T).reshape(k, k, k, k).transpose(0, 2, 1, 3)  # [(a, b), (c, d)] = sum_l D_ac D_bd
    row, col = np.tril_indices(k)
    whole = form[row, col] + form[col, row]  # S_ab = S_ba
    reduced = whole[:, row, col] + whole[:, col, row]
    size = np.sqrt(reduced.diagonal())
    size = np.where(size > 0, size, 1.0)
    values = np.linalg.eigvalsh(reduced / size / size[:, None])
    return int((values < FLAT).sum())


def in_span(gram: np.ndarray, products: np.ndarray, p: int) -> np.ndarray:
    """(K,) whether all columns of an effect are combinations of those of X.

    ``gram`` (K, K, L) is Z'Z by level, ``products`` (m, K, L) are Z'M, whose first p rows belong to the basis of X.
    """
    size = np.einsum("kkl->k", gram)
    left = size - np.square(products[:p]).sum(axis=(0, 2))
    return (size > 0) & (left <= FLAT * size)
