"""Grouping factors: codes and levels of `g` and of `a:b`, in lme4's order, never the full cross."""

from collections.abc import Sequence

import numpy as np

from .columns import Factor, compress, drop_unused, sorted_codes

_TABLE_CELLS_PER_ROW = 4  # up to this size a table over all combinations is cheaper than hashing


def grouping_factor(factors: Sequence[Factor]) -> Factor:
    """The factor whose levels are the combinations of `factors` that occur, the first varying slowest.

    One factor: its levels that occur. Several: labels joined by ':', sorted by the codes of the first, then
    the second, ... R equivalent: the `flist` entry that lme4 makes. Cost O(n) plus a sort of the levels that
    occur.
    """
    parts = [drop_unused(Factor(f.codes, f.levels)) for f in factors]
    if len(parts) == 1:
        return parts[0]
    codes = parts[0].codes.astype(np.int64)
    positions = [np.arange(len(parts[0].levels))]
    for part in parts[1:]:
        size = len(part.levels)
        codes, used = _renumber(codes * size + part.codes, len(positions[0]) * size, len(codes))
        positions = [p[used // size] for p in positions] + [used % size]
    return _merge_equal(Factor(codes.astype(np.intp, copy=False), _joined(parts, positions)))


def _renumber(cells: np.ndarray, size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    if size <= _TABLE_CELLS_PER_ROW * n + 1000:
        return compress(cells, size)
    return sorted_codes(cells)


def _joined(parts: Sequence[Factor], positions: Sequence[np.ndarray]) -> tuple[str, ...]:
    columns = [np.array(f.levels, dtype=object)[p].tolist() for f, p in zip(parts, positions, strict=True)]
    return tuple(map(":".join, zip(*columns, strict=True)))


def _merge_equal(factor: Factor) -> Factor:
    """Combinations whose labels coincide ("a:b" with "c", "a" with "b:c") are one level, as in lme4."""
    distinct = {level: i for i, level in enumerate(dict.fromkeys(factor.levels))}
    if len(distinct) == len(factor.levels):
        return factor
    lookup = np.array([distinct[level] for level in factor.levels], dtype=np.intp)
    return Factor(lookup[factor.codes], tuple(distinct))
