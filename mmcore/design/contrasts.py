"""Contrast matrices of a factor: R's contr.treatment, sum, helmert, poly, SAS and MASS's contr.sdif."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ..errors import DataError, DesignError

KINDS = ("treatment", "sum", "helmert", "poly", "SAS", "sdif")
_POLY_NAMES = (".L", ".Q", ".C")
_MOST_POLY_LEVELS = 95


def contrast_matrix(kind: object, levels: Sequence[str], label: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(matrix (L, m), names (m,) of its columns) for the factor called `label`.

    `kind` is one of KINDS with or without `contr.` in front, or a matrix with a row per level (array or
    DataFrame).
    Raises DesignError for a factor of one level, DataError for an unknown kind or a matrix of another height.
    """
    count = len(levels)
    if count < 2:
        only = f"one level ({levels[0]!r})" if levels else "no level"
        raise DesignError(f"factor {label} has {only} in the rows used: contrasts need two or more; drop it")
    if not isinstance(kind, str):
        return _given(kind, count, label)
    name = kind.removeprefix("contr.")
    if name not in KINDS:
        raise DataError(f"unknown contrast {kind!r} for {label}; known are {', '.join(KINDS)}, or a matrix")
    return _MAKERS[name](count, tuple(levels))


def _given(matrix: object, count: int, label: str) -> tuple[np.ndarray, tuple[str, ...]]:
    names = tuple(map(str, matrix.columns)) if isinstance(matrix, pd.DataFrame) else None
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"contrasts of {label} are a {type(matrix).__name__}: give one of {', '.join(KINDS)}, or a matrix of "
            f"numbers with {count} rows"
        ) from None
    if not np.isfinite(values).all():
        raise DataError(f"the contrast matrix of {label} has missing or infinite values")
    if values.ndim != 2 or len(values) != count or not 0 < values.shape[1] < count:
        raise DataError(
            f"the contrast matrix of {label} has shape {values.shape}; it needs {count} rows, one per level, "
            f"and 1 to {count - 1} columns"
        )
    return values, names or _numbered(values.shape[1])


def _numbered(m: int) -> tuple[str, ...]:
    return tuple(str(j + 1) for j in range(m))


def _treatment(count: int, levels: tuple[str, ...]):
    return np.eye(count)[:, 1:], levels[1:]


def _sas(count: int, levels: tuple[str, ...]):
    return np.eye(count)[:, :-1], levels[:-1]


def _sum(count: int, levels: tuple[str, ...]):
    matrix = np.eye(count)[:, :-1]
    matrix[-1] = -1.0
    return matrix, _numbered(count - 1)


def _helmert(count: int, levels: tuple[str, ...]):
    j = np.arange(1, count)
    row = np.arange(count)[:, None]
    return np.where(row < j, -1.0, np.where(row == j, j, 0.0)), _numbered(count - 1)


def _sdif(count: int, levels: tuple[str, ...]):
    j = np.arange(1, count)
    below = np.arange(count)[:, None] >= j
    names = tuple(f"{b}-{a}" for a, b in pairwise(levels))
    return np.where(below, j, j - count) / count, names


def _poly(count: int, levels: tuple[str, ...]):
    if count > _MOST_POLY_LEVELS:
        raise DesignError(f"polynomial contrasts are not accurate for {count} levels: choose other contrasts")
    scores = np.arange(1.0, count + 1)
    Q, R = np.linalg.qr(np.vander(scores - scores.mean(), count, increasing=True))
    names = tuple(_POLY_NAMES[j - 1] if j <= 3 else f"^{j}" for j in range(1, count))
    return (Q * np.sign(R.diagonal()))[:, 1:], names


_MAKERS = {
    "treatment": _treatment,
    "SAS": _sas,
    "sum": _sum,
    "helmert": _helmert,
    "sdif": _sdif,
    "poly": _poly,
}
