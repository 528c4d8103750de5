"""Labels of mmcore's results: by row, by level and effect, by pair of coefficients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmcore.design.grouping import level_text
from parity.schema.results import Value

__all__ = [
    "covariance_labels",
    "first_terms",
    "joined_value",
    "label_pairs",
    "level_labels",
    "matrix_value",
    "row_and_coef_values",
    "row_labels",
    "row_values",
    "series_value",
]


def row_labels(fit: Any) -> tuple[str, ...]:
    return tuple(str(label) for label in fit.design.index)


def row_values(fit: Any, values: Any) -> Value:
    return Value(row_labels(fit), np.asarray(values, dtype=np.float64))


def level_labels(index: Iterable[object]) -> list[str]:
    """R's text of the levels of a grouping factor."""
    return [level_text(level) for level in index]


def label_pairs(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [f"{a}|{b}" for a in names for b in names]


def first_terms(fit: Any) -> dict[str, Any]:
    """Grouping factor -> the first of its terms."""
    terms: dict[str, Any] = {}
    for term in fit.design.terms:
        terms.setdefault(term.group, term)
    return terms


def joined_value(parts: Sequence[tuple[Sequence[str], Any]]) -> Value:
    labels = [label for names, _ in parts for label in names]
    values = [np.ravel(numbers) for _, numbers in parts]
    return Value(tuple(labels), np.concatenate(values) if values else np.empty(0))


def series_value(series: Any) -> Value:
    return Value(tuple(str(label) for label in series.index), series.to_numpy(dtype=np.float64))


def covariance_labels(fit: Any) -> list[list[str]]:
    return [[f"{term.group}|{pair}" for pair in label_pairs(term.effects)] for term in fit.design.terms]


def matrix_value(table: Any) -> Value:
    return Value(tuple(label_pairs(table.index)), np.ravel(table.to_numpy()))


def row_and_coef_values(fit: Any, table: Any) -> Value:
    labels = [f"{row}|{column}" for row in row_labels(fit) for column in table.columns]
    return Value(tuple(labels), np.ravel(table.to_numpy()))
