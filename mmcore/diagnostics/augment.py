"""HLMdiag's tables: influence measures and residuals beside the model frame, by row or by group."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ..design.frame import frame_columns
from ..errors import warn
from ..results.argument import of_fit
from ..results.fit import Fit
from ..results.workspace import Marginal, marginal, need_gaussian
from .deletion.case_delete import case_delete
from .influence.one_step import one_step
from .leverage import checked_types, row_leverage
from .refitted import measure
from .residuals.residuals import check_standardize, ls_name, ls_values, resid_marginal, row_fits
from .residuals.separate import separate_fits
from .units import Units, check_level, level_codes, pad, units

__all__ = ["hlm_augment", "hlm_influence", "hlm_resid", "model_frame", "side_by_side"]

T = TypeVar("T")
MEASURES = ("cooksd", "mdffits", "covtrace", "covratio")


@measure
def hlm_influence(
    fit: Fit,
    level: Hashable = 1,
    *,
    approx: bool = True,
    delete: Any = None,
    leverage: str | Sequence[str] = ("overall",),
) -> pd.DataFrame:
    """All influence measures in one table: a row per observation or per level of a grouping factor.

    Parameters
    ----------
    level : 1 for rows, or the name of a grouping factor (nested or crossed).
    approx : one-step measures at the full fit's theta and sigma (default), or full refits, which add the
    relative
        changes of the variance components (``rvc.sigma2``, ``rvc.D11``, ...).
    delete : one set, or a mapping of names to sets: a row per set, without frame and leverage.
    leverage : which of ``overall``, ``fixef``, ``ranef``, ``ranef.uc`` to add; always of the full fit.

    Returns
    -------
    DataFrame by row label: ``id`` (1, 2, ...; ``.id`` if the data have a column ``id``), the model frame,
    ``cooksd``, ``mdffits``, ``covtrace``, ``covratio``, the ``rvc.*``, ``leverage.*``. For groups, by level
    in order of first appearance, without frame. With ``na_action="exclude"`` rows left out are there as
    NaN. A measure whose name is a variable of the data gets a leading dot (``.cooksd``). HLMdiag's hlm_influence,
    every measure aligned by label.
    """
    types, u = checked_types(leverage), units(fit, level, delete)
    ws = marginal(fit)
    measures = _measures(ws, u) if approx else case_delete(fit, level, delete=delete).measure_values()
    if delete is not None:
        return pd.DataFrame(measures, index=u.labels)
    lev = _leverage_columns(ws, u, types)
    if not u.is_rows:
        return pd.DataFrame(measures | lev, index=u.labels)
    if len(pad(fit, ws.v)[0]) > fit.design.n:
        return _with_missing_rows(fit, measures | lev)
    columns = frame_columns(fit.design.source, fit.design.rows, fit.design.index)
    ids = free_names({"id": np.arange(1, fit.design.n + 1)}, columns)
    # every array is new: no one else's to be written to
    found = ids | columns | free_names(measures | lev, columns)
    return pd.DataFrame(found, index=fit.design.index, copy=False)


def _with_missing_rows(fit: Fit, measures: dict[str, np.ndarray]) -> pd.DataFrame:
    """The table with the rows that the fit excludes as missing."""
    frame = model_frame(fit)
    ids = free_names({"id": np.arange(1, len(frame) + 1)}, frame.columns)
    parts = [pd.DataFrame(ids, index=frame.index), frame, _padded(fit, measures, frame.index)]
    return side_by_side(*parts)


def free_names(columns: Mapping[str, T], taken: Collection[str]) -> dict[str, T]:
    """The columns by name; one whose name is a variable of the data gets a leading dot: ``cooksd`` -> ``.cooksd``."""
    out: dict[str, T] = {}
    for name, values in columns.items():
        while name in taken:
            name = f".{name}"
        out[name] = values
    return out


def side_by_side(ids: pd.DataFrame, frame: pd.DataFrame, *computed: pd.DataFrame) -> pd.DataFrame:
    """Row numbers, the model frame and what was computed; variables keep their names."""
    tables = [ids, frame]
    for table in computed:
        taken = {str(name) for other in tables for name in other.columns}
        tables.append(table.set_axis(list(free_names(dict.fromkeys(table.columns), taken)), axis=1))
    return pd.concat(tables, axis=1)


def _measures(ws: Marginal, u: Units) -> dict[str, np.ndarray]:
    step = one_step(ws, u)
    return {name: getattr(step, name) for name in MEASURES}


def _leverage_columns(ws: Marginal, u: Units, types: tuple[str, ...]) -> dict[str, np.ndarray]:
    values = dict(zip(types, row_leverage(ws, types).T, strict=True))
    if u.is_rows:
        return {f"leverage.{t}": values[t] for t in types}
    assert u.codes is not None  # sets have no leverage
    size = np.bincount(u.codes, minlength=len(u))
    return {f"leverage.{t}": np.bincount(u.codes, values[t], len(u)) / size for t in types}


def model_frame(fit: Fit) -> pd.DataFrame:
    """The model frame; with ``na_action="exclude"`` the rows left out are there as missing."""
    design, frame = fit.design, fit.design.frame()
    if design.na_action != "exclude" or design.rows is None:
        return frame
    positions = np.full(design.n_input, -1, dtype=np.intp)
    positions[design.rows] = np.arange(design.n)
    out = frame.reset_index(drop=True).reindex(positions)
    out.index = design.source.index
    return out


def _padded(fit: Fit, columns: dict[str, np.ndarray], index: pd.Index) -> pd.DataFrame:
    """Columns (n,) by row; ``index`` is that of the frame, which spares the comparison of labels."""
    values = pad(fit, np.column_stack(list(columns.values())))[0]
    return pd.DataFrame(values, index=index, columns=list(columns))


@of_fit
def hlm_resid(
    fit: Fit, level: Hashable = 1, *, standardize: bool | str = False, include_ls: bool = True
) -> pd.DataFrame:
    """Residuals of rows, or of groups, beside their data.

    ``level=1``: ``.id`` (row label), the model frame, then ``.resid`` and ``.fitted`` (conditional),
    ``.ls.resid`` and ``.ls.fitted`` (least squares within the levels of the factor with most levels),
    ``.mar.resid`` and ``.mar.fitted`` (marginal). ``standardize=True``: ``.std.resid`` = sqrt(w) e / sigma,
    ``.std.ls.resid`` (internally studentized within the group), ``.chol.mar.resid`` = L^-1 r. ``"semi"``:
    only least squares changes, r / sqrt(1 - h).

    ``level="g"``: one row per level in order of first appearance: variables of the fixed part that are
    constant within levels, ``.ranef.<effect>`` (conditional modes), ``.ls.<effect>``: the level's least-
    squares coefficient less the unweighted mean over levels (for a factor nested in another: over the
    levels of its parent). ``standardize=True``: modes over the square root of their *conditional* variance,
    as HLMdiag does for lmer (``.std.ranef.*``); least-squares deviations over their standard deviation
    (``.std.ls.*``).

    A column whose name is a variable of the data gets another leading dot (``..resid``); the variable keeps its name.

    HLMdiag's hlm_resid for any model; see :func:`ls_residuals` for what differs in the least-squares part.
    """
    check_level(fit, level)
    check_standardize(standardize)
    need_gaussian(fit, "the tables of residuals")
    if level == 1:
        return _row_residuals(fit, standardize, include_ls)
    return _group_residuals(fit, str(level), standardize, include_ls)


def _row_residuals(fit: Fit, standardize: bool | str, include_ls: bool) -> pd.DataFrame:
    std = standardize is True
    columns = {
        ".std.resid" if std else ".resid": fit.residual_values("pearson" if std else "response", std),
        ".fitted": fit.fitted_values,
    }
    if include_ls:
        fits = row_fits(fit)
        columns |= {ls_name(standardize): ls_values(fits, standardize), ".ls.fitted": fits.fitted}
    frame = model_frame(fit)
    table = _padded(fit, {k: np.asarray(v, float) for k, v in columns.items()}, frame.index)
    table[".chol.mar.resid" if std else ".mar.resid"] = resid_marginal(fit, "cholesky" if std else "raw")
    table[".mar.fitted"] = pad(fit, fit.fitted_marginal)[0]
    ids = pd.DataFrame(free_names({".id": frame.index}, frame.columns), index=frame.index)
    return side_by_side(ids, frame, table)


def clean(name: str) -> str:
    """``(Intercept)`` -> ``intercept``, ``standLRT`` -> ``stand_lrt``, ``I(Days^2)`` -> ``i_days_2``."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^0-9a-zA-Z]+", "_", spaced).strip("_").lower()


def _group_residuals(fit: Fit, group: str, standardize: bool | str, include_ls: bool) -> pd.DataFrame:
    labels, codes = level_codes(fit, group)
    modes = _modes(fit, group)
    std = standardize is True
    columns = {
        f".std.ranef.{clean(e)}" if std else f".ranef.{clean(e)}": b / sd if std else b
        for e, (b, sd) in modes.items()
    }
    if include_ls:
        columns |= _ls_deviations(fit, group, codes, len(labels), list(modes), std)
    table = pd.DataFrame(columns, index=labels)
    return side_by_side(pd.DataFrame(index=table.index), _constants(fit, codes, table.index), table)


def _modes(fit: Fit, group: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Effect -> conditional modes and standard deviations, levels in order of first appearance."""
    labels, _ = level_codes(fit, group)
    out = {}
    for term, b, cov in zip(fit.design.terms, fit.b, fit.condvar.values(), strict=True):
        if term.group != group:
            continue
        order = term.index.get_indexer(labels)
        for k, effect in enumerate(term.effects):
            out[effect] = b[order, k], np.sqrt(cov[order, k, k])
    return out


def _ls_deviations(
    fit: Fit, group: str, codes: np.ndarray, L: int, effects: list[str], std: bool
) -> dict[str, np.ndarray]:
    """Within-level coefficients less their mean over levels (of the same parent)."""
    coef = separate_fits(fit.design, codes, L).coef
    parent = _parent(fit, group, codes, L)
    absent = [e for e in effects if e not in fit.design.x_names]
    if absent:
        warn(f"{', '.join(absent)} vary by {group} but are not in the fixed part: no least-squares residual")
    out = {}
    for effect in (e for e in effects if e in fit.design.x_names):
        value = coef[:, fit.design.x_names.index(effect)]
        there = np.isfinite(value)
        number = np.bincount(parent[there], minlength=parent.max() + 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(parent[there], value[there], parent.max() + 1) / number
        deviation = value - mean[parent]
        name = f".std.ls.{clean(effect)}" if std else f".ls.{clean(effect)}"
        out[name] = deviation / np.std(deviation[there], ddof=1) if std and there.sum() > 1 else deviation
    return out


def _parent(fit: Fit, group: str, codes: np.ndarray, L: int) -> np.ndarray:
    """(L,) level of the smallest factor that holds each level of ``group``; zeros if none does."""
    best, size = np.zeros(L, dtype=np.intp), L
    for term in fit.design.terms:
        if term.group == group or len(term.levels) >= L:
            continue
        parent = np.zeros(L, dtype=np.intp)
        parent[codes] = term.codes
        if np.array_equal(parent[codes], term.codes) and (len(term.levels) < size or not best.any()):
            if not best.any() or len(term.levels) > best.max() + 1:
                best = parent
            size = len(term.levels)
    return best


def _constants(fit: Fit, codes: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Variables of the model frame that are constant within every level, the grouping factors' own
    included.
    """
    frame = fit.design.frame()
    first = np.zeros(len(index), dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    keep = []
    for name in frame.columns[1:]:
        at, _ = pd.factorize(frame[name])
        if np.array_equal(at, at[first][codes]):
            keep.append(name)
    out = frame.iloc[first][keep]
    out.index = index
    return out


@of_fit
def hlm_augment(fit: Fit, level: Hashable = 1, *, include_ls: bool = True) -> pd.DataFrame:
    """:func:`hlm_resid` and the one-step measures with overall leverage of :func:`hlm_influence`, side by
    side.

    Joined by label; a variable of the data keeps its name, a measure of the same name gets a leading dot. HLMdiag's
    hlm_augment for any model, rows or groups.
    """
    ws, u = marginal(fit), units(fit, level)
    residuals = hlm_resid(fit, level, include_ls=include_ls)
    measures = _measures(ws, u) | _leverage_columns(ws, u, ("overall",))
    table = _padded(fit, measures, residuals.index) if u.is_rows else pd.DataFrame(measures, index=u.labels)
    return side_by_side(pd.DataFrame(index=residuals.index), residuals, table)
