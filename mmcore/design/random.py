"""Bars + variables -> random terms: codes of the grouping factor and the model matrix of the left side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from ..formula.parse import Bar
from ..formula.syntax import Expr, deparse
from .columns import Column, as_factor, drop_unused
from .grouping import Levels, grouping_factor
from .matrix import Coding, make_coding
from .memory import at_most

FEW_EFFECTS = 20  # of a term of which no size is asked


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term: row i has the effects `columns[i]` of level `codes[i]`."""

    group: str  # lme4's name of the factor: "Subject", "cask:batch"
    grouping: Levels  # (L,) R's level order, only levels that occur
    codes: np.ndarray  # (n,) intp in 0..L-1
    effects: tuple[str, ...]  # (k,) R's column names of the left side
    columns: np.ndarray  # (n, k) float64, model matrix of the left side
    structure: str  # us | diag | cs | ar1; a single effect is always us
    homogeneous: bool  # one variance for all effects

    @property
    def levels(self) -> np.ndarray:
        """(L,) object array of the levels as the user had them: int, float, date, str; tuples for a group a:b."""
        return self.grouping.values

    @property
    def labels(self) -> np.ndarray:
        """(L,) object array of str: R's text of the levels, such as "b:a"."""
        return self.grouping.labels

    @property
    def index(self) -> pd.Index:
        """(L,) `levels` as an Index with the name of the group."""
        return pd.Index(self.grouping.values.tolist(), name=self.group, tupleize_cols=False)

    @property
    def n_levels(self) -> int:
        """L, the number of levels."""
        return len(self.grouping)

    @property
    def n_effects(self) -> int:
        """k, the number of effects per level."""
        return len(self.effects)

    @property
    def q(self) -> int:
        """L k, the number of random effects of this term."""
        return len(self.grouping) * len(self.effects)

    def n_present(self) -> int:
        """Random effects whose column of Z is not zero: a factor's effect is absent from levels without it."""
        there = [np.bincount(self.codes, column != 0, self.n_levels) > 0 for column in self.columns.T]
        return int(np.sum(there))

    def Z(self) -> sparse.csr_array:
        """Columns of Z of this term (n, q): level after level, effects fastest."""
        n, k = self.columns.shape
        columns = (self.codes[:, None] * k + np.arange(k)).ravel()
        return sparse.csr_array(
            (self.columns.ravel(), columns, np.arange(0, n * k + 1, k)), shape=(n, self.q)
        )

    def take(self, rows: np.ndarray) -> "RandomTerm":
        """The term on a subset of the rows (positions), without the levels that no longer occur."""
        codes, grouping = self.codes[rows], self.grouping
        counts = np.bincount(codes, minlength=len(grouping))
        if not counts.all():
            used = counts > 0
            codes, grouping = (np.cumsum(used) - 1)[codes], grouping.take(used)
        return replace(self, codes=codes, grouping=grouping, columns=self.columns[rows])


@dataclass(frozen=True, slots=True)
class CodedTerm:
    """A random term with what it was made from."""

    term: RandomTerm
    coding: Coding  # of the left side
    bar: Bar


def make_terms(
    bars: Sequence[Bar],
    variables: Mapping[str, Column],
    n: int,
    known: Mapping[tuple, tuple[Coding, np.ndarray]],
) -> tuple[CodedTerm, ...]:
    """The random terms of `bars` in order of appearance; equal groups and left sides share their arrays.

    variables: label -> column, unused levels dropped. known: (intercept, terms) -> coding and matrix of left
    sides that exist already. Factors of a left side always get default contrasts, as in lme4.
    """
    groups: dict[tuple[Expr, ...], tuple[np.ndarray, Levels]] = {}
    sides = dict(known)
    made = []
    for bar in bars:
        if bar.made_of not in groups:
            groups[bar.made_of] = _group(bar.made_of, variables)
        key = (bar.intercept, bar.terms)
        side = sides.get(key)
        if side is None or not side[0].variables.keys().isdisjoint(map(deparse, bar.made_of)):
            side = _left_side(bar, variables, n)
            sides.setdefault(key, side)
        made.append(CodedTerm(_random_term(bar, groups[bar.made_of], side), side[0], bar))
    return tuple(made)


def lme4_order(terms: tuple[CodedTerm, ...]) -> tuple[CodedTerm, ...]:
    """Decreasing number of levels; when anything has to move, lme4 also reverses the order of ties."""
    sizes = [item.term.n_levels for item in terms]
    if sizes == sorted(sizes, reverse=True):
        return terms
    return tuple(sorted(terms, key=lambda item: item.term.n_levels)[::-1])


def _group(factors: tuple[Expr, ...], variables: Mapping[str, Column]) -> tuple[np.ndarray, Levels]:
    return grouping_factor([as_factor(variables[deparse(factor)], deparse(factor)) for factor in factors])


def _left_side(bar: Bar, variables: Mapping[str, Column], n: int) -> tuple[Coding, np.ndarray]:
    used = {deparse(v): variables[deparse(v)] for term in bar.terms for v in term}
    for factor in bar.made_of:
        # A variable that is also the group counts as a factor on the left side, as in lme4.
        label = deparse(factor)
        if label in used:
            used[label] = drop_unused(as_factor(used[label], label))
    coding = make_coding(bar.terms, bar.intercept, used, group=bar.group)
    _refuse_large(bar, len(coding.names), n)
    return coding, coding.matrix(used, n)


def _refuse_large(bar: Bar, k: int, n: int) -> None:
    """Raise if the covariance of k effects has too many parameters: derivatives hold (k, k) for each of them."""
    if k <= FEW_EFFECTS:
        return
    parameters = k * (k + 1) // 2 if bar.structure == "us" else k + 1
    size = 8.0 * (3.0 * parameters * k**2 + 4.0 * parameters**2 + 4.0 * n * k)
    inner = ":".join([bar.group, *map(deparse, bar.terms[-1])])
    at_most(
        size,
        f"({bar.left} | {bar.group}) has {k:,} effects in each level of {bar.group} and {parameters:,} covariance "
        "parameters",
        f"Write (1 | {bar.group}) + (1 | {inner}), which has two",
    )


def _random_term(bar: Bar, group: tuple[np.ndarray, Levels], side: tuple[Coding, np.ndarray]) -> RandomTerm:
    codes, levels = group
    coding, columns = side
    structure = bar.structure if len(coding.names) > 1 else "us"
    return RandomTerm(bar.group, levels, codes, coding.names, columns, structure, bool(bar.homogeneous))
