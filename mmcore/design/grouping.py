"""Grouping factors: codes and levels of `g` and of `a:b`, in lme4's order, never the full cross."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .columns import Factor, compress, drop_unused, level_labels, sorted_codes

_TABLE_CELLS_PER_ROW = 4  # up to this size a table over all combinations is cheaper than hashing


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a grouping factor: as the user had them, and as R writes them.

    A level of `a:b` is a pair. Two pairs may have the same text ("p:q" with "z", "p" with "q:z"): labels are for print
    and for comparison with R, pairs are told apart by their parts.
    """

    values: (
        np.ndarray
    )  # (L,) object array in the user's types: int, float, date, str; tuples for several factors
    labels: np.ndarray  # (L,) object array of str: R's text, that of several factors joined by ':'
    parts: tuple[np.ndarray, ...]  # per factor (L,) object array of str: R's text of its level

    def __len__(self) -> int:
        return len(self.values)

    def take(self, positions: np.ndarray) -> "Levels":
        """The levels at `positions`, an integer or boolean array."""
        parts = tuple(part[positions] for part in self.parts)
        return Levels(self.values[positions], self.labels[positions], parts)

    def keys(self) -> list[tuple[str, ...]]:
        """The text of each level, one entry per factor: no two levels share a key."""
        return list(zip(*(part.tolist() for part in self.parts), strict=True))


def level_text(level: object) -> str:
    """R's text of one level as results carry it: 308 is "308", the pair ("A", "b") is "A:b"."""
    return ":".join(level_labels(level if isinstance(level, tuple) else (level,)))


def text_levels(labels: Sequence[str]) -> Levels:
    """Levels of one factor that have no value but their text."""
    text = _objects(labels)
    return Levels(text, text, (text,))


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
    return codes.astype(np.intp, copy=False), _levels(parts, positions)


def _levels(parts: Sequence[Factor], positions: Sequence[np.ndarray]) -> Levels:
    texts = tuple(_objects(f.levels)[p] for f, p in zip(parts, positions, strict=True))
    values = [
        text if f.values is None else f.values[p] for f, p, text in zip(parts, positions, texts, strict=True)
    ]
    if len(parts) == 1:
        return Levels(values[0], texts[0], texts)
    joined = _objects(list(map(":".join, zip(*(t.tolist() for t in texts), strict=True))))
    return Levels(_objects(list(zip(*(v.tolist() for v in values), strict=True))), joined, texts)


def _objects(items: Sequence[object]) -> np.ndarray:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def _renumber(cells: np.ndarray, size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    if size <= _TABLE_CELLS_PER_ROW * n + 1000:
        return compress(cells, size)
    return sorted_codes(cells)
