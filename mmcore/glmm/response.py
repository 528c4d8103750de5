"""The response of a generalised model: numbers, truth values, a factor or cbind(successes, failures)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..design.build import Design
from ..design.columns import Column, Factor, Matrix, as_numbers
from ..errors import DataError, MixedModelWarning
from ..families.counts import Binomial
from ..families.family import Conditional, Family
from ..families.quasi import Quasi

__all__ = ["bind_design", "reader", "with_trials"]


def _of_proportions(family: Family) -> bool:
    return isinstance(family, Binomial) or (isinstance(family, Quasi) and family.variance_name == "mu(1-mu)")


def reader(family: Family) -> Callable[[Column, str], np.ndarray]:
    """How a design reads the response column of this family: y (n,) as numbers.

    Binomial: a factor is failure at its first level and success at the others; cbind(successes, failures) is
    the proportion of successes (0 where there are no trials), see :func:`with_trials`.
    """
    if not _of_proportions(family):
        return as_numbers

    def read(column: Column, label: str) -> np.ndarray:
        if isinstance(column, Factor):
            _refuse_labels(column, label)
            return (column.codes != 0).astype(float)
        if isinstance(column, Matrix):
            counts = _counts(column, label)
            total = counts.sum(axis=1)
            return counts[:, 0] / np.where(total > 0, total, 1.0)
        return as_numbers(column, label)

    return read


def _refuse_labels(column: Factor, label: str) -> None:
    """Text is a success or a failure only if there are two labels; a Categorical says what its first level is."""
    if column.text and len(column.levels) != 2:
        shown = ", ".join(map(repr, column.levels[:3])) + (", ..." if len(column.levels) > 3 else "")
        raise DataError(
            f"{label} is text with {len(column.levels)} labels ({shown}); a binomial response has two. Give 0 and 1, "
            "or a Categorical whose first category is the failure"
        )


def _counts(column: Matrix, label: str) -> np.ndarray:
    if column.values.shape[1] != 2:
        raise DataError(
            f"{label} must be cbind(successes, failures), but it has {column.values.shape[1]} columns"
        )
    if (column.values < 0).any():
        row = int(np.argmax((column.values < 0).any(axis=1)))
        raise DataError(f"{label} has negative counts, first in row {row + 1} of those used")
    return column.values


def with_trials(design: Design, family: Family) -> Design:
    """The design with numbers of trials of cbind() as (part of the) prior weights."""
    trials = _trials(design)
    if trials is None or not _of_proportions(family):
        return design
    return replace(design, weights=trials if design.weights is None else design.weights * trials)


def _trials(design: Design) -> np.ndarray | None:
    """(n,) numbers of trials where the response is a cbind(), else None."""
    column = next(iter(design.source.variables.values()))
    if not isinstance(column, Matrix):
        return None
    total = column.values.sum(axis=1)
    return total if design.rows is None else total[design.rows]


def bind_design(design: Design, family: Family, quiet: bool = False) -> Conditional:
    """The family at the response of a design.

    Raises DataError for a response outside the family's domain. Warns, unless ``quiet``, when counts are not
    whole numbers: the estimates are those of the estimating equations, the likelihood does not exist.
    """
    label = str(next(iter(design.source.variables)))
    family.check(design.y, label)
    weights = np.ones(design.n) if design.weights is None else design.weights
    if not quiet:
        _warn_not_counts(family, design, weights, label)
    return family.bind(design.y, weights, _trials(design) if _of_proportions(family) else None)


def _warn_not_counts(family: Family, design: Design, weights: np.ndarray, label: str) -> None:
    broken = family.not_counts(design.y, weights)
    if broken is None or not broken.any():
        return
    what = "numbers of successes (weight times proportion)" if _of_proportions(family) else "counts"
    first = int(np.argmax(broken))
    warnings.warn(
        f"the response {label} holds {what} that are not whole in {int(broken.sum())} of {design.n} rows, "
        f"first in row {design.index[first]!r} ({design.y[first]:g}): estimates are still those of the score "
        "equations",
        MixedModelWarning,
        stacklevel=4,
    )
