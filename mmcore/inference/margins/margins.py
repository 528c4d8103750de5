"""Average marginal effects and predictive margins, with standard errors by the delta method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...design.columns import Column, Factor
from ...errors import DataError, UnsupportedError
from ...glmm.fit import is_generalized
from ...results.fit import Fit
from ..df.precision import Precision, precision_of
from .grid import Variable, kept_columns, model_rows, reference_grid, variables_of

__all__ = ["margins", "predictive_margins"]

STEP = 1e-3  # of a numerical derivative, in standard deviations of the covariate
WEIGHTS = ((1, 8 / 12), (2, -1 / 12))  # of the five-point rule: its error is of the order of STEP^4


def margins(
    fit: Fit,
    variables: str | Sequence[str] | None = None,
    *,
    at: Mapping[str, Any] | None = None,
    type: str = "response",
    ddf: str | None = None,
    level: float = 0.95,
    vcov: Any = None,
    data: Any = None,
) -> pd.DataFrame:
    """Average marginal effects: how the mean response changes with each variable, averaged over the rows of the fit.

    Parameters
    ----------
    fit : any fit; random effects are at zero.
    variables : those wanted; None for all of the fixed part.
    at : variable -> value or values at which it is held in every row; effects are given at each combination.
    type : ``"response"`` (the mean) or ``"link"`` (the linear predictor).
    ddf, vcov, data : as in :func:`mmcore.inference.emmeans.emmeans`; without ``ddf`` tests are normal for models whose
        mean is not linear in the coefficients, and for mixed models.
    level : of the limits.

    Returns
    -------
    DataFrame
        Rows by variable: a covariate's mean derivative; for a factor the mean difference of each level from the first,
        under names such as ``recipeB``. Columns ``AME SE statistic df p.value lower.CL upper.CL``; with ``at`` its
        values are index levels.

    Raises
    ------
    DataError
        For unknown variables, levels or values.

    Notes
    -----
    R: ``margins::margins`` and Stata's ``margins, dydx(*)``. Rows count equally, whatever their weights. Of a mixed
    model these are effects at random effects of zero, not averaged over their distribution. The delta method takes the
    rows as fixed. Derivatives are by a five-point rule in the columns of X, exact for polynomials up to degree four.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.margins.margins import margins
    >>> fit = mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy"))
    >>> margins(fit).round(3)[["AME", "SE", "df"]]
             AME     SE     df
    Days  10.467  1.238  178.0
    """
    known = variables_of(fit.design, data)
    wanted = _wanted(known, variables)
    precision = _precision(fit, ddf, vcov, type)
    keys, parts = _held(fit, at, data), []
    for cell in keys:
        base = _columns(known, cell)
        rows = [row for v in wanted for row in _effects(fit, v, base, known, type)]
        parts.append(_frame("AME", [r[0] for r in rows], np.array([r[1:] for r in rows]), precision, level))
    return _stacked(keys, parts)


def predictive_margins(
    fit: Fit,
    at: Mapping[str, Any] | None = None,
    *,
    type: str = "response",
    ddf: str | None = None,
    level: float = 0.95,
    vcov: Any = None,
    data: Any = None,
) -> pd.DataFrame:
    """Predictive margins: the mean of the fitted means of all rows, with some variables held at given values.

    Parameters
    ----------
    fit, type, ddf, level, vcov, data : as in :func:`margins`.
    at : variable -> value or values; every combination gets a margin. None: as observed.

    Returns
    -------
    DataFrame
        Rows by the values of ``at``, columns ``margin SE statistic df p.value lower.CL upper.CL``.

    Raises
    ------
    DataError
        For unknown variables, levels or values.

    Notes
    -----
    Stata's ``margins, at()``. Averages over the rows as they are, while ``emmeans`` gives all combinations of the other
    factors equal weight. Offsets are those of the rows.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.margins.margins import predictive_margins
    >>> fit = mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy"))
    >>> table = predictive_margins(fit, {"Days": [0, 9]}).round(2)
    >>> print(table[["margin", "SE"]].to_string(index_names=False))
         margin    SE
    0.0  251.41  6.61
    9.0  345.61  6.61
    """
    known = variables_of(fit.design, data)
    precision = _precision(fit, ddf, vcov, type)
    keys, parts = _held(fit, at, data), []
    for cell in keys:
        value, slope = _mean(fit, _rows(fit, _columns(known, cell), known), type)
        parts.append(_frame("margin", ["margin"], np.append(value, slope)[None], precision, level))
    if not at:
        return parts[0]
    table = pd.concat(parts)
    table.index = _index(keys)
    return table


# --- values and their derivatives by beta -----------------------------------------------------------------


def _mean(fit: Fit, X: np.ndarray, type: str) -> tuple[float, np.ndarray]:
    """Mean over the rows of X (n, p), and its gradient (p,) by beta."""
    mu, slope, _ = _response(fit, X, type)
    return float(mu.mean()), (slope[:, None] * X).mean(axis=0)


def _response(fit: Fit, X: np.ndarray, type: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, its first and second derivative by the linear predictor, (n,) each."""
    eta = X @ fit.beta
    if fit.design.offset is not None:
        eta = eta + fit.design.offset
    link = getattr(fit.family, "link", None)
    if type == "link" or link is None:
        return eta, np.ones(len(eta)), np.zeros(len(eta))
    mu = link.mu(eta)
    first, second = link.slopes(eta, mu)[:2]
    return mu, first, second


def _effects(
    fit: Fit, variable: Variable, base: Mapping[str, Column], known: Sequence[Variable], type: str
) -> list[tuple[str, Any]]:
    """Name, effect and gradient (p,), flat, of each effect of a variable."""
    if variable.is_factor:
        return _differences(fit, variable, base, known, type)
    X = _rows(fit, base, known)
    x = np.asarray(base[variable.name], float)
    spread = float(np.std(np.asarray(variable.column, float)))
    h = STEP * (spread if spread > 0 else 1.0)
    dX = np.zeros_like(X)
    for k, weight in WEIGHTS:
        up, down = (_rows(fit, {**base, variable.name: x + s * k * h}, known) for s in (1, -1))
        dX += weight / h * (up - down)
    _, first, second = _response(fit, X, type)
    slope = dX @ fit.beta
    gradient = ((second * slope)[:, None] * X + first[:, None] * dX).mean(axis=0)
    return [(variable.name, float((first * slope).mean()), *gradient)]


def _differences(
    fit: Fit, variable: Variable, base: Mapping[str, Column], known: Sequence[Variable], type: str
) -> list[tuple[str, Any]]:
    found = []
    for i in range(len(variable.points)):
        column = variable.chosen(np.full(fit.design.n, i))
        found.append(_mean(fit, _rows(fit, {**base, variable.name: column}, known), type))
    (first, gradient), names = found[0], [f"{variable.name}{point}" for point in variable.points]
    return [(name, v - first, *(g - gradient)) for name, (v, g) in zip(names[1:], found[1:], strict=True)]


def _rows(fit: Fit, columns: Mapping[str, Column], known: Sequence[Variable]) -> np.ndarray:
    return kept_columns(fit.design, model_rows(fit.design, columns, known, fit.design.n))


def _columns(known: Sequence[Variable], cell: Mapping[str, Variable]) -> dict[str, Column]:
    """The variables row by row, those of ``cell`` held at its one point."""
    out: dict[str, Column] = {}
    for v in known:
        column = v.column
        n = len(column.codes) if isinstance(column, Factor) else len(np.asarray(column))
        out[v.name] = cell[v.name].chosen(np.zeros(n, dtype=np.intp)) if v.name in cell else column
    return out


def _held(fit: Fit, at: Mapping[str, Any] | None, data: Any) -> list[dict[str, Variable]]:
    """Every combination of the values of ``at``, as variables of one point."""
    if not at:
        return [{}]
    grid = reference_grid(fit.design, at, data)
    held = [grid.variable(name) for name in at]
    singles = [[Variable(v.name, v.column, (point,), v.hidden) for point in v.points] for v in held]
    return [{v.name: v for v in cell} for cell in product(*singles)]


def _wanted(known: Sequence[Variable], variables: str | Sequence[str] | None) -> list[Variable]:
    if variables is None:
        return list(known)
    names = [variables] if isinstance(variables, str) else list(variables)
    by_name = {v.name: v for v in known}
    for name in names:
        if name not in by_name:
            raise DataError(
                f"{name!r} is not a variable of the fixed part of the model: {', '.join(by_name) or 'none'}"
            )
    return [by_name[name] for name in names]


def _precision(fit: Fit, ddf: str | None, vcov: Any, type: str) -> Precision:
    fit.require_rows("margins")
    if type not in ("response", "link"):
        raise DataError(f"type={type!r} is not 'response' or 'link'")
    if not fit.design.p:
        raise UnsupportedError("the model has no fixed effects: there are no margins")
    normal = is_generalized(fit) or bool(fit.design.terms)
    return precision_of(fit, ddf or ("asymptotic" if normal else None), vcov)


# --- tables -----------------------------------------------------------------------------------------------


def _frame(
    what: str, names: list[str], values: np.ndarray, precision: Precision, level: float
) -> pd.DataFrame:
    """A table of values (r, 1 + p): estimate and gradient."""
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    values = values.reshape(len(names), -1).astype(float)
    estimate, gradient = values[:, 0], values[:, 1:]
    se, df = precision.se(gradient), precision.df(gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = estimate / se
    wide = stats.t.isf((1.0 - level) / 2.0, df) * se
    table = {"SE": se, "statistic": ratio, "df": df, "p.value": 2.0 * stats.t.sf(np.abs(ratio), df)}
    limits = {"lower.CL": estimate - wide, "upper.CL": estimate + wide}
    return pd.DataFrame({what: estimate, **table, **limits}, index=names)


def _stacked(keys: Sequence[Mapping[str, Variable]], parts: list[pd.DataFrame]) -> pd.DataFrame:
    if len(keys) == 1 and not keys[0]:
        return parts[0]
    table = pd.concat(parts)
    names = list(keys[0])
    tuples = [
        (*(cell[name].points[0] for name in names), row)
        for cell, part in zip(keys, parts, strict=True)
        for row in part.index
    ]
    table.index = pd.MultiIndex.from_tuples(tuples, names=[*names, "variable"])
    return table


def _index(keys: Sequence[Mapping[str, Variable]]) -> pd.Index:
    names = list(keys[0])
    if len(names) == 1:
        return pd.Index([cell[names[0]].points[0] for cell in keys], name=names[0])
    return pd.MultiIndex.from_tuples(
        [tuple(cell[name].points[0] for name in names) for cell in keys], names=names
    )
