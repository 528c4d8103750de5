"""The shape of Z: whether grouping factors are nested in one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .products import Block, CrossProducts

__all__ = ["ancestors", "chain", "nesting"]


def chain(blocks: Sequence[Block]) -> dict[tuple[int, int], np.ndarray] | None:
    """Ancestor maps of every pair if each factor is nested in all later ones."""
    parents = {}
    for j, inner in enumerate(blocks):
        for i in range(j + 1, len(blocks)):
            found = ancestors(inner, blocks[i]) if inner.L >= blocks[i].L else None
            if found is None:
                return None
            parents[j, i] = found
    return parents


def nesting(A: CrossProducts) -> dict | None:
    """Ancestor maps of every pair of factors if each is nested in all later ones, else None."""
    parents = {}
    for j, inner in enumerate(A.blocks):
        for i in range(j + 1, len(A.blocks)):
            parent = ancestors(inner, A.blocks[i]) if inner.L >= A.blocks[i].L else None
            if parent is None:
                return None
            parents[j, i] = parent
    return parents


def ancestors(inner: Block, outer: Block) -> np.ndarray | None:
    """(L_inner,) level of ``outer`` that holds each level of ``inner``, or None if not nested."""
    parent = np.zeros(inner.L, dtype=np.intp)
    parent[inner.codes] = outer.codes
    return parent if np.array_equal(parent[inner.codes], outer.codes) else None
