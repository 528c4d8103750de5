"""Grouping factors: codes and levels of `g` and of `a:b`, in lme4's order, never the full cross."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .columns import Factor, compress, drop_unused, sorted_codes

_TABLE_CELLS_PER_ROW = 4  # up to this size a table over all combinations is cheaper than hashing


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a grouping factor: as R writes them, and as the user had them.

    A level of `a:b` is a pair. Two pairs may have the same text ("p:q" with "z", "p" with "q:z"), so the text is for
    print only; pairs are told apart.
    """

    labels: tuple[np.ndarray, ...]  # per factor (L,) object array of str
    values: tuple[np.ndarray, ...]  # per factor (L,) in the user's type: numbers, dates, text

    def __len__(self) -> int:
        return len(self.labels[0])

    def take(self, positions: np.ndarray) -> "Levels":
        """The levels at `positions`, an integer or boolean array."""
        return Levels(tuple(a[positions] for a in self.labels), tuple(a[positions] for a in self.values))

    def text(self) -> np.ndarray:
        """(L,) object array of str: R's labels, those of several factors joined by ':'."""
        if len(self.labels) == 1:
            return self.labels[0]
        out = np.empty(len(self), dtype=object)
        out[:] = list(map(":".join, self.keys()))
        return out

    def keys(self) -> list[tuple[str, ...]]:
        """The text of each level, one entry per factor: no two levels share a key."""
        return list(zip(*(a.tolist() for a in self.labels), strict=True))

    def index(self, names: Sequence[str]) -> pd.Index:
        """The levels in the user's types: an Index, or a MultiIndex with a level for each factor in `names`."""
        if len(self.values) == 1:
            return pd.Index(self.values[0], name=names[0])
        return pd.MultiIndex.from_arrays(list(self.values), names=list(names))


def grouping_factor(factors: Sequence[Factor]) -> tuple[np.ndarray, Levels]:
    """Codes (n,) and levels of the combinations of `factors` that occur, the first varying slowest.

    One factor: its levels that occur. Several: sorted by the codes of the first, then the second, ... R equivalent: the
    `flist` entry that lme4 makes, which merges levels of the same text. Cost O(n) plus a sort of the levels that occur.
    """
    parts = [drop_unused(Factor(f.codes, f.levels, values=f.values)) for f in factors]
    codes = parts[0].codes
    positions = [np.arange(len(parts[0].levels))]
    for part in parts[1:]:
        size = len(part.levels)
        cells = codes.astype(np.int64) * size + part.codes
        codes, used = _renumber(cells, len(positions[0]) * size, len(codes))
        positions = [p[used // size] for p in positions] + [used % size]
    pairs = [(part.typed(), p) for part, p in zip(parts, positions, strict=True)]
    labels = tuple(np.array(part.levels, dtype=object)[p] for part, p in zip(parts, positions, strict=True))
    return codes.astype(np.intp, copy=False), Levels(labels, tuple(values[p] for values, p in pairs))


def _renumber(cells: np.ndarray, size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    if size <= _TABLE_CELLS_PER_ROW * n + 1000:
        return compress(cells, size)
    return sorted_codes(cells)
