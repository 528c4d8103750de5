"""The deletion measures by name, in one step or from refits: Cook's distance, MDFFITS, COVTRACE, COVRATIO."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from ..errors import UnsupportedError
from ..results.fit import Fit
from ..results.workspace import marginal
from .deletion.case_delete import case_delete
from .influence.one_step import one_step, plugin_cooks_distance
from .refitted import measure
from .units import by_row, units

__all__ = ["cooks_distance", "covratio", "covtrace", "mdffits"]


def _measure(fit: Fit, level: Hashable, delete: Any, name: str) -> Any:
    u = units(fit, level, delete)
    return u.series(getattr(one_step(marginal(fit), u), name), name)


@measure
def cooks_distance(
    fit: Fit, level: Hashable = 1, *, kind: str = "marginal", delete: Any = None, include_attr: bool = False
) -> Any:
    """Cook's distance: how far deletion moves the estimates, in one of three definitions that are not
    comparable.

    ``kind="marginal"`` (default): D_A = (b - b_(A))' C^-1 (b - b_(A)) / p, C = vcov(b), at the full fit's
    theta and sigma. HLMdiag's one-step cooks.distance; for ``lm`` it is R's cooks.distance. Not lme4's.
    ``kind="plugin"``: (r_i / (1 - h_i))^2 h_i / (sigma^2 p) with the Pearson residual r and h = hatvalues:
    the change of the *conditional* fitted values. lme4's cooks.distance.merMod; rows only.
    ``kind="refit"``: the marginal formula with b_(A) from a refit in which theta and sigma are estimated
    anew; C is still the full fit's. HLMdiag's on a case_delete; (K - p) / K times it is lme4's
    cooks.distance(influence()).

    Parameters
    ----------
    level : 1 for rows, or the name of a grouping factor.
    delete : one set (row labels, level labels or a mask of rows), a list of sets, or a mapping of names to sets.
    include_attr : also return the p elements of b - b_(A) (full minus deleted) as columns.

    Returns
    -------
    Series by row or level label (levels in order of first appearance), a float for one set, or a DataFrame
    with ``include_attr``. NaN with a warning where the remaining rows do not determine b.

    Cost: O(n p^2) for rows and for levels of one factor or of a nested chain; no n x n matrix.
    """
    if kind == "plugin":
        return _plugin(fit, level, delete)
    if kind == "refit":
        return _refit(fit, level, delete, "cooks_distance")
    if kind != "marginal":
        raise UnsupportedError(f"kind={kind!r} is not one of 'marginal', 'plugin', 'refit'")
    return _with_delta(fit, level, delete, "cooksd", include_attr)


@measure
def mdffits(
    fit: Fit, level: Hashable = 1, *, refit: bool = False, delete: Any = None, include_attr: bool = False
) -> Any:
    """MDFFITS: (b - b_(A))' C_(A)^-1 (b - b_(A)) / p with the covariance of the *deleted* data, C_(A).

    One step (default): theta and sigma of the full fit; HLMdiag's mdffits. ``refit=True``: b_(A) and C_(A)
    of a full refit. At most Cook's distance in one step. Returns and costs as :func:`cooks_distance`.
    """
    if refit:
        return _refit(fit, level, delete, "mdffits")
    return _with_delta(fit, level, delete, "mdffits", include_attr)


@measure
def covtrace(fit: Fit, level: Hashable = 1, *, refit: bool = False, delete: Any = None) -> Any:
    """COVTRACE: |tr(C^-1 C_(A)) - p|, 0 where deletion does not change the precision of the fixed effects.

    One step (default): sigma is the full fit's, so deletion can only lose precision. ``refit=True``: both
    covariances as estimated. HLMdiag's covtrace.
    """
    return _refit(fit, level, delete, "covtrace") if refit else _measure(fit, level, delete, "covtrace")


@measure
def covratio(fit: Fit, level: Hashable = 1, *, refit: bool = False, delete: Any = None) -> Any:
    """COVRATIO: det C_(A) / det C, 1 where deletion does not change the precision of the fixed effects.

    One step (default): at least 1, because sigma is kept; HLMdiag's covratio. R's ``stats::covratio`` of an lm or glm
    estimates sigma anew without the row: that is :func:`mmcore.glm_covratio`, and for ``lm`` also ``refit=True``.
    """
    return _refit(fit, level, delete, "covratio") if refit else _measure(fit, level, delete, "covratio")


def _with_delta(fit: Fit, level: Hashable, delete: Any, name: str, include_attr: bool) -> Any:
    u = units(fit, level, delete)
    step = one_step(marginal(fit), u)
    values = getattr(step, name)
    if not include_attr:
        return u.series(values, name)
    return u.frame(np.column_stack([values, step.delta]), [name, *fit.design.x_names])


def _plugin(fit: Fit, level: Hashable, delete: Any) -> pd.Series:
    if level != 1 or delete is not None:
        raise UnsupportedError(
            "kind='plugin' is defined for single rows (level=1) only; use kind='marginal' for groups and sets"
        )
    return by_row(fit, plugin_cooks_distance(fit), "cooksd")


def _refit(fit: Fit, level: Hashable, delete: Any, name: str) -> Any:
    return getattr(case_delete(fit, level, delete=delete), name)()
