"""Terms + evaluated variables -> model matrix, coded as R's `model.matrix` codes it.

A factor F in a term T is coded by its contrasts when T without F is empty or is contained in an earlier term,
by one indicator per level otherwise; without an intercept the first factor of the first term that has one
gets indicators. `Coding` remembers levels, contrasts and names, so that new data get the same columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..formula.algebra import Term
from ..formula.syntax import deparse
from .columns import Column, Factor, Matrix, align_levels, as_numbers
from .contrasts import contrast_matrix
from .memory import at_most

FEW = 200  # columns of a term of which no size is asked
COPIES = 4  # of X that a fit holds at once
NAME = 150.0  # bytes of the name of a column


@dataclass(frozen=True, slots=True)
class FactorCoding:
    """How a factor becomes columns."""

    label: str
    levels: tuple[str, ...]  # (L,)
    contrasts: np.ndarray  # (L, m)
    names: tuple[str, ...]  # (m,) suffixes of the contrast columns

    def block(self, column: Column, full: bool) -> np.ndarray:
        """(n, L) indicators when `full`, else (n, m) contrasts. Raises DataError for levels that are new."""
        if not isinstance(column, Factor):
            raise DataError(
                f"{self.label} was a factor with levels {', '.join(self.levels)}; now it holds numbers"
            )
        codes = align_levels(column, self.levels).codes
        if len(codes) and codes.max() >= len(self.levels):
            new = sorted(set(column.levels) - set(self.levels))
            raise DataError(f"{self.label} has levels that the model does not know: {', '.join(new)}")
        block = (np.eye(len(self.levels)) if full else self.contrasts)[codes]
        if len(codes) and codes.min() < 0:
            block[codes < 0] = np.nan
        return block

    def suffixes(self, full: bool) -> tuple[str, ...]:
        return self.levels if full else self.names


@dataclass(frozen=True, slots=True)
class NumberCoding:
    """How a numeric variable becomes columns: as they are."""

    label: str
    names: tuple[str, ...]  # ("",) for a vector

    def block(self, column: Column, full: bool) -> np.ndarray:
        """(n, k) values."""
        if isinstance(column, Factor):
            raise DataError(f"{self.label} was numeric; now it is a factor")
        return column.values if isinstance(column, Matrix) else as_numbers(column, self.label)[:, None]

    def suffixes(self, full: bool) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True, slots=True)
class Coding:
    """Everything that turns variables into the columns of a model matrix."""

    intercept: bool
    variables: Mapping[str, FactorCoding | NumberCoding]
    terms: tuple[tuple[tuple[str, bool], ...], ...]  # per term: (variable, full indicators?)
    names: tuple[str, ...]  # (p,) R's column names
    assign: tuple[int, ...]  # (p,) term of each column, 0 for the intercept

    def matrix(self, columns: Mapping[str, Column], n: int) -> np.ndarray:
        """Model matrix (n, p) of the variables in `columns`, keyed by label. Cost O(n p)."""
        X = np.empty((n, len(self.names)))
        start = 0
        if self.intercept:
            X[:, 0] = 1.0
            start = 1
        for term in self.terms:
            block = self._block(term, columns)
            stop = start + block.shape[1]
            X[:, start:stop] = block
            start = stop
        return X

    def _block(self, term: Sequence[tuple[str, bool]], columns: Mapping[str, Column]) -> np.ndarray:
        label, full = term[0]
        block = self.variables[label].block(columns[label], full)
        for label, full in term[1:]:
            other = self.variables[label].block(columns[label], full)
            # The first variable of a term varies fastest.
            block = (other[:, :, None] * block[:, None, :]).reshape(len(block), -1)
        return block

    @property
    def factors(self) -> tuple[FactorCoding, ...]:
        """Codings of the factors."""
        return tuple(v for v in self.variables.values() if isinstance(v, FactorCoding))


def make_coding(
    terms: Sequence[Term],
    intercept: bool,
    columns: Mapping[str, Column],
    contrasts: Mapping[str, object] | None = None,
    group: str | None = None,
) -> Coding:
    """Coding of `terms` for the variables in `columns` (keyed by label, unused levels already dropped).

    `contrasts`: variable label -> kind or matrix, see `contrast_matrix`; the default is treatment, polynomial
    for ordered factors. `group`: the grouping factor if this is the left side of a random term. Raises DesignError for
    a term whose columns would not fit in memory, before any are made. R equivalent:
    `model.matrix(terms, frame, contrasts.arg)`.
    """
    labels = [tuple(deparse(v) for v in term) for term in terms]
    for label in dict.fromkeys(label for term in labels for label in term):
        column = columns[label]
        if isinstance(column, Factor) and column.too_large:
            as_numbers(column, label)  # raises: a covariate that is kept as a factor only to keep its digits
    _refuse_large(labels, columns, group)
    variables: dict[str, FactorCoding | NumberCoding] = {}
    for label in dict.fromkeys(label for term in labels for label in term):
        variables[label] = _variable_coding(label, columns[label], contrasts)
    coded = _indicator_pattern(labels, intercept, variables)
    names: list[str] = ["(Intercept)"] if intercept else []
    assign = [0] if intercept else []
    for position, term in enumerate(coded, 1):
        new = _term_names(term, variables)
        names += new
        assign += [position] * len(new)
    return Coding(intercept, variables, coded, tuple(names), tuple(assign))


def _width(column: Column) -> int:
    """Columns that a variable has at most."""
    if isinstance(column, Factor):
        return len(column.levels)
    return column.values.shape[1] if isinstance(column, Matrix) else 1


def _refuse_large(
    labels: Sequence[tuple[str, ...]], columns: Mapping[str, Column], group: str | None
) -> None:
    for term in labels:
        widths = [_width(columns[label]) for label in term]
        count = math.prod(widths)
        if count <= FEW:
            continue
        n = _rows(columns[term[0]])
        sides = " x ".join(f"{width:,}" for width in widths)
        name, shape = ":".join(term), f" ({sides})" if len(widths) > 1 else ""
        size = 8.0 * COPIES * n * count + NAME * count + 8.0 * sum(w * w for w in widths if w > FEW)
        if group is None:
            what = f"the fixed term {name} has {count:,} columns{shape} for {n:,} rows"
            instead = f"Write (1 | {name}) for a variance of its levels, or group them more coarsely"
        else:
            what = f"({name} | {group}) has {count:,} effects{shape} in each level of {group}"
            instead = (
                f"Write (1 | {group}) + (1 | {group}:{name}), which has one variance for the levels of {name}"
            )
        at_most(size, what, instead)


def _rows(column: Column) -> int:
    if isinstance(column, Factor):
        return len(column.codes)
    return len(column.values if isinstance(column, Matrix) else column)


def _variable_coding(
    label: str, column: Column, contrasts: Mapping[str, object] | None
) -> FactorCoding | NumberCoding:
    if isinstance(column, Matrix):
        return NumberCoding(label, column.names if len(column.names) > 1 else ("",))
    if not isinstance(column, Factor):
        return NumberCoding(label, ("",))
    kind: object = "contr.poly" if column.ordered else "contr.treatment"
    if column.contrasts is not None:
        kind = column.contrasts
    if contrasts is not None and label in contrasts:
        kind = contrasts[label]
    matrix, names = contrast_matrix(kind, column.levels, label)
    return FactorCoding(label, column.levels, matrix, names)


def _indicator_pattern(
    labels: Sequence[tuple[str, ...]], intercept: bool, variables: Mapping[str, FactorCoding | NumberCoding]
) -> tuple[tuple[tuple[str, bool], ...], ...]:
    earlier: list[frozenset[str]] = []
    pattern: list[list[tuple[str, bool]]] = []
    for term in labels:
        whole = frozenset(term)
        pattern.append([(v, len(term) > 1 and not _has_margin(whole - {v}, earlier)) for v in term])
        earlier.append(whole)
    if not intercept:
        _indicators_for_first_factor(pattern, variables)
    return tuple(tuple(term) for term in pattern)


def _has_margin(margin: frozenset[str], earlier: Sequence[frozenset[str]]) -> bool:
    return any(margin <= term for term in earlier)


def _indicators_for_first_factor(
    pattern: list[list[tuple[str, bool]]], variables: Mapping[str, object]
) -> None:
    for term in pattern:
        for position, (label, _) in enumerate(term):
            if isinstance(variables[label], FactorCoding):
                term[position] = (label, True)
                return


def _term_names(
    term: Sequence[tuple[str, bool]], variables: Mapping[str, FactorCoding | NumberCoding]
) -> list[str]:
    label, full = term[0]
    names = [label + suffix for suffix in variables[label].suffixes(full)]
    for label, full in term[1:]:
        suffixes = variables[label].suffixes(full)
        names = [f"{name}:{label}{suffix}" for suffix in suffixes for name in names]
    return names
