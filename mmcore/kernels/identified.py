"""What of the random effects' covariance is in the likelihood: a covariance needs a level that has both effects."""

from __future__ import annotations

import numpy as np

__all__ = ["linked_effects", "present"]


def present(gram: np.ndarray) -> np.ndarray:
    """(K, L) whether an effect has a column that is not zero in a level, from Z'Z by level (K, K, L)."""
    return np.einsum("kkl->kl", gram) > 0.0


def linked_effects(there: np.ndarray) -> np.ndarray:
    """(K, K) whether two effects meet in a level, or are linked by others that do; ``there`` is (K, L).

    The covariance of two effects that are not linked is in no element of V: any value has the same likelihood, and
    zero leaves Sigma positive semi-definite. One of effects that are linked by others only is limited by them.
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
