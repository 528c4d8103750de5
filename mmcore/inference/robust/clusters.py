"""Which rows belong together: the clusters of a robust covariance, named, or given row by row."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataError, UnsupportedError
from ...results.fit import Fit

__all__ = ["Clusters", "clusters_of"]

SHOWN = 5  # names listed in an error


@dataclass(frozen=True, slots=True)
class Clusters:
    """A partition of the rows of a fit."""

    codes: np.ndarray  # (n,) cluster of each row
    labels: np.ndarray  # (m,) what the user calls them, in order of first appearance

    @property
    def m(self) -> int:
        """Number of clusters."""
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Clusters:
        """The clusters of some of the rows; those left without a row are gone."""
        return _partition(self.labels[self.codes[rows]])

    def rows(self) -> list[np.ndarray]:
        """Positions of the rows of each cluster, increasing."""
        order = np.argsort(self.codes, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.codes, minlength=self.m))[:-1])


def clusters_of(fit: Fit, cluster: Any) -> Clusters:
    """The clusters of the rows of ``fit``.

    Parameters
    ----------
    fit : any fit that keeps its rows.
    cluster : the name of a grouping factor or of a variable of the model frame; values row by row, for the rows of
        the data or for those used; or a Series with row labels. None: the coarsest grouping factor of a mixed model.

    Raises
    ------
    DataError
        For an unknown name, a wrong length, missing values, or a single cluster.
    UnsupportedError
        When a grouping factor of the model is not nested in the clusters: their rows are then dependent across
        clusters by the model's own account.
    """
    codes, values = _given(fit, cluster)
    found = _numbered(codes, values)
    if found.m < 2:
        raise DataError(
            f"{_named(cluster)} has the single value {found.labels[0]!r}: a robust covariance compares clusters and "
            "needs at least two, better thirty"
        )
    refuse_crossed(fit, found, cluster)
    return found


def _given(fit: Fit, cluster: Any) -> tuple[np.ndarray | None, Any]:
    """Codes and labels of a grouping factor, or None and the values of each row."""
    if cluster is None:
        cluster = _coarsest(fit)
    if isinstance(cluster, Hashable) and not isinstance(cluster, tuple):
        for term in fit.design.terms:
            if term.group == cluster:
                return term.codes, term.levels
        return None, _column(fit, cluster)
    return None, _of_rows(fit, cluster)


def _coarsest(fit: Fit) -> str:
    if not fit.design.terms:
        raise DataError("cluster is needed: the name of a variable of the model, or values row by row")
    return min(fit.design.terms, key=lambda term: term.n_levels).group


def _column(fit: Fit, name: Hashable) -> pd.Series:
    frame = fit.design.frame()
    if name not in frame.columns:
        groups = list(dict.fromkeys(term.group for term in fit.design.terms))
        known = list(dict.fromkeys([*groups, *map(str, frame.columns)]))
        raise DataError(
            f"cluster={name!r} is not a grouping factor or variable of the model, which has {', '.join(known)}. For "
            f"another column pass its values: cluster=data[{name!r}]"
        )
    return frame[name]


def _of_rows(fit: Fit, values: Any) -> pd.Series:
    """One value per row used, from values for all rows of the data or for those used."""
    design = fit.design
    if isinstance(values, pd.Series) and values.index.is_unique and design.index.is_unique:
        return _by_label(design.index, values)
    series = pd.Series(values if isinstance(values, pd.Series | pd.Categorical) else _vector(values))
    if len(series) == design.n_input:
        return series if design.rows is None else series.iloc[design.rows]
    if len(series) != design.n:
        raise DataError(
            f"cluster has {len(series)} values; the data have {design.n_input} rows, of which the fit uses {design.n}"
        )
    return series


def _vector(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"cluster must be one value per row; it has shape {array.shape}")
    return array


def _by_label(index: pd.Index, values: pd.Series) -> pd.Series:
    at = values.index.get_indexer(index)
    if (at < 0).any():
        missing = ", ".join(repr(label) for label in index[at < 0][:SHOWN])
        raise DataError(
            f"cluster has no value for {int((at < 0).sum())} of the rows used, such as {missing}: its index must "
            "hold the row labels of the data. Pass an array to match rows by position"
        )
    return values.iloc[at]


def _numbered(codes: np.ndarray | None, values: Any) -> Clusters:
    if codes is not None:
        return _partition(np.asarray(values, dtype=object)[codes])
    missing = pd.isna(values).to_numpy()
    if missing.any():
        row = values.index[int(np.argmax(missing))]
        raise DataError(
            f"cluster is missing in {int(missing.sum())} of the rows used, first in row {row!r}: give these rows a "
            "cluster, or drop them before the fit"
        )
    return _partition(values)


def _partition(values: Any) -> Clusters:
    codes, labels = pd.factorize(values)
    return Clusters(codes.astype(np.intp), np.asarray(labels, dtype=object))


def _named(cluster: Any) -> str:
    return f"cluster {cluster!r}" if isinstance(cluster, str) else "cluster"


def refuse_crossed(fit: Fit, clusters: Clusters, cluster: Any = None) -> None:
    """Raise UnsupportedError if a grouping factor has a level in two clusters."""
    for term in fit.design.terms:
        home = np.zeros(term.n_levels, dtype=np.intp)
        home[term.codes] = clusters.codes
        astray = np.flatnonzero(home[term.codes] != clusters.codes)
        if not len(astray):
            continue
        row = astray[0]
        level = term.levels[term.codes[row]]
        pair = [clusters.labels[k] for k in (clusters.codes[row], home[term.codes[row]])]
        raise UnsupportedError(
            f"{_named(cluster)} cuts the grouping factor {term.group}: its level {level!r} has rows in clusters "
            f"{pair[0]!r} and {pair[1]!r}, which the model makes dependent, while a robust covariance takes clusters "
            "as independent. Use a cluster that contains whole levels of every grouping factor, or leave the term out"
        )
