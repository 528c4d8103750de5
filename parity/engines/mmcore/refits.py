"""Quantities of mmcore that need refits without each unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import mmcore as mm
from mmcore.design.grouping import level_text
from parity.engines.mmcore.labels import first_terms, joined_value, label_pairs
from parity.schema.results import Value

__all__ = ["OF_REFITS", "Work"]


class Work:
    """A fit, and the refits that several quantities share."""

    def __init__(self, fit: Any) -> None:
        self.fit = fit
        self._deletions: dict[Any, Any] = {}

    def deletion(self, level: Any) -> Any:
        """Estimates without each unit of a level, with lme4's measures."""
        if level not in self._deletions:
            self._deletions[level] = mm.influence(self.fit, None if level == 1 else level)
        return self._deletions[level]


def _refits(name: str, read: Callable[[Any], Any]) -> dict[str, Callable[[Work], Value]]:
    """`NAME` by row and `NAME_group` by level: `read` takes what is known of one level's refits and gives a
    Series by unit or a DataFrame by unit."""

    def by_row(work: Work) -> Value:
        return joined_value([_unit_values("", read(work.deletion(1)), str)])

    def by_level(work: Work) -> Value:
        groups = first_terms(work.fit)
        return joined_value(
            [_unit_values(f"{group}|", read(work.deletion(group)), level_text) for group in groups]
        )

    return {name: by_row, f"{name}_group": by_level}


def _unit_values(prefix: str, found: Any, text: Callable[[object], str]) -> tuple[list[str], np.ndarray]:
    units = [f"{prefix}{text(label)}" for label in found.index]
    if found.ndim == 1:
        return units, found.to_numpy(dtype=np.float64)
    return [f"{unit}|{column}" for unit in units for column in found.columns], found.to_numpy(dtype=float)


def _deleted_vcov(influence: Any) -> Any:
    deletion = influence.deletion
    labels = label_pairs(deletion.fixef.columns)
    return pd.DataFrame(deletion.vcov.reshape(len(deletion.vcov), len(labels)), deletion.fixef.index, labels)


def _deleted_crossprod(influence: Any) -> Any:
    """Lambda Lambda' of each refit, from theta: lower factors term by term, column by column."""
    columns: dict[str, np.ndarray] = {}
    theta, start = influence.deletion.theta, 0
    for term in influence.deletion.fit.design.terms:
        k = len(term.effects)
        if k > 1 and term.structure != "us":
            raise mm.UnsupportedError(f"theta of structure {term.structure}")
        L = np.zeros((len(theta), k, k))
        column, row = np.triu_indices(k)
        size = len(row)
        L[:, row, column] = theta.to_numpy()[:, start : start + size]
        start += size
        Sigma = (L @ L.transpose(0, 2, 1)).reshape(len(theta), -1)
        labels = (f"{term.group}|{pair}" for pair in label_pairs(term.effects))
        columns |= dict(zip(labels, Sigma.T, strict=True))
    return pd.DataFrame(columns, index=theta.index)


OF_REFITS: dict[str, Callable[[Work], Value]] = {
    **_refits("deletion_criterion", lambda i: i.deletion.criterion),
    **_refits("deletion_sigma", lambda i: i.deletion.sigma),
    **_refits("deletion_fixef", lambda i: i.deletion.fixef),
    **_refits("deletion_vcov_fixef", _deleted_vcov),
    **_refits("deletion_lambda_crossprod", _deleted_crossprod),
    **_refits("deletion_varcomp", lambda i: i.deletion.varcomp),
    **_refits("cooks_distance_refit", lambda i: i.deletion.cooks_distance()),
    **_refits("mdffits_refit", lambda i: i.deletion.mdffits()),
    **_refits("covtrace_refit", lambda i: i.deletion.covtrace()),
    **_refits("covratio_refit", lambda i: i.deletion.covratio()),
    **_refits("rvc", lambda i: i.deletion.rvc()),
    **_refits("dfbeta_lme4", lambda i: i.dfbeta),
    **_refits("dfbetas_lme4", lambda i: i.dfbetas),
    **_refits("cooks_distance_influence_lme4", lambda i: i.cooks_distance),
    **_refits("dfbeta_varcomp_lme4", lambda i: i.varcomp),
}
