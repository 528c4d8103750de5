"""Deletion units: single rows, levels of a grouping factor, or sets of rows that the caller names."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..results.fit import Fit
from .sets import is_list_of_sets, rows_of

__all__ = ["Units", "by_row", "check_level", "groups_of", "level_codes", "pad", "units"]


@dataclass(frozen=True, slots=True)
class Units:
    """A family of sets of rows, one per deletion."""

    fit: Fit
    level: Hashable  # 1 for rows, else the grouping factor
    labels: pd.Index  # (U,) row labels, level labels in order of first appearance, or names of sets
    codes: np.ndarray | None  # (n,) unit of every row if the units partition the rows, else None
    sets: tuple[np.ndarray, ...] | None  # positions of the rows of each unit when they do not
    scalar: bool = False  # True for one anonymous set: results are numbers, not Series

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_rows(self) -> bool:
        """True if every unit is one row, in row order."""
        return self.level == 1 and self.codes is not None

    def rows(self) -> list[np.ndarray]:
        """Positions of the rows of each unit, increasing."""
        if self.sets is not None:
            return list(self.sets)
        assert self.codes is not None  # one of the two is there
        order = np.argsort(self.codes, kind="stable")
        ends = np.cumsum(np.bincount(self.codes, minlength=len(self)))
        return np.split(order, ends[:-1])

    def sizes(self) -> np.ndarray:
        """(U,) rows per unit."""
        if self.codes is not None:
            return np.bincount(self.codes, minlength=len(self))
        return np.array([len(rows) for rows in self.rows()])

    def series(self, values: np.ndarray, name: str) -> Any:
        """(U,) values with the labels of the units; a float for one anonymous set."""
        if self.scalar:
            return float(values[0])
        if self.is_rows:
            return by_row(self.fit, values, name)
        return pd.Series(values, index=self.labels, name=name)

    def frame(self, values: np.ndarray, columns: Iterable[str]) -> Any:
        """(U, k) values with the labels of the units; a Series for one anonymous set."""
        names = list(columns)
        if self.scalar:
            return pd.Series(values[0], index=names)
        values, index = pad(self.fit, values) if self.is_rows else (values, self.labels)
        return pd.DataFrame(values, index=index, columns=names)


def groups_of(fit: Fit) -> list[str]:
    """Names of the grouping factors, in the order of the terms."""
    return list(dict.fromkeys(t.group for t in fit.design.terms))


def check_level(fit: Fit, level: Any) -> None:
    """Raise unless ``level`` is 1 or a grouping factor of the model."""
    known = groups_of(fit)
    if isinstance(level, int | float | np.number) and not isinstance(level, bool) and level == 1:
        return
    if not isinstance(level, str) or level not in known:
        listed = ", ".join(repr(g) for g in known)
        instead = (
            f"1 (rows) or one of the grouping factors {listed}"
            if known
            else "1 (rows): the model has no groups"
        )
        raise DataError(f"level={level!r} is not a level of this model; use {instead}")


def level_codes(fit: Fit, level: Hashable) -> tuple[pd.Index, np.ndarray]:
    """Labels of the levels of a factor in order of first appearance, and the (n,) position of each row in
    them.
    """
    term = next(t for t in fit.design.terms if t.group == level)
    present, first = np.unique(term.codes, return_index=True)
    order = present[np.argsort(first)]
    position = np.empty(len(term.levels), dtype=np.intp)
    position[order] = np.arange(len(order))
    return term.index[order], position[term.codes]


def units(fit: Fit, level: Hashable = 1, delete: Any = None) -> Units:
    """The deletions asked for.

    ``delete`` None: every unit of the level. Otherwise one set, a list of sets, or a mapping of names to sets. A set
    is row labels for level 1, level labels for a grouping factor, or a boolean mask of the rows: aligned by its index
    if it has one, else by position among all rows of the data or the rows used.
    """
    fit.require_rows("deletion")
    check_level(fit, level)
    if delete is not None:
        return _named_sets(fit, level, delete)
    if level == 1:
        return Units(fit, 1, fit.design.index, np.arange(fit.design.n), None)
    labels, codes = level_codes(fit, level)
    return Units(fit, level, labels, codes, None)


def _named_sets(fit: Fit, level: Hashable, delete: Any) -> Units:
    """One unit for each set that the caller names."""
    if is_list_of_sets(delete):
        delete = dict(enumerate(delete))
    one = not isinstance(delete, Mapping)
    named = {"deleted": delete} if one else delete
    if not named:
        raise DataError("delete is an empty mapping: name at least one set, such as {'first': [0, 1]}")
    levels = None if level == 1 else level_codes(fit, level)
    sets = tuple(rows_of(fit.design, wanted, levels) for wanted in named.values())
    return Units(fit, level, pd.Index(list(named), name="set", tupleize_cols=False), None, sets, one)


def by_row(fit: Fit, values: np.ndarray, name: str) -> pd.Series:
    """(n,) values by row label; with ``na_action="exclude"`` NaN at the rows left out."""
    full, index = pad(fit, values)
    return pd.Series(full, index=index, name=name)


def pad(fit: Fit, values: np.ndarray) -> tuple[np.ndarray, pd.Index]:
    """(n, ...) values and row labels, extended by NaN to the rows of the input if the fit excludes missing
    ones.
    """
    design = fit.design
    if design.na_action != "exclude" or design.rows is None:
        return values, design.index
    full = np.full((design.n_input, *values.shape[1:]), np.nan)
    full[design.rows] = values
    return full, design.source.index
