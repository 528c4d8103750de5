"""Estimated marginal means: the model at a reference grid, averaged over what is not named, and contrasts of these."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ...errors import DataError, MixedModelWarning, UnsupportedError
from ...formula.parse import column_names
from ...formula.syntax import format_number
from ...results.fit import Fit
from ..df.precision import Precision, precision_of
from .adjust import ADJUSTMENTS, adjusted, critical
from .grid import Grid, nestings, reference_grid

__all__ = ["MarginalMeans", "Means", "contrasts", "emmeans"]

IN_PARENTHESES = re.compile(r"[-+/*]")  # in a level: it would read as an operator of a contrast


@dataclass(frozen=True)
class Means:
    """Linear functions of the fixed effects, one per combination of levels."""

    fit: Fit
    precision: Precision
    names: tuple[str, ...]  # of the variables
    cells: tuple[tuple[Any, ...], ...]  # (k,) level of each variable
    by: tuple[str, ...]  # variables within whose levels comparisons are made
    L: np.ndarray  # (k, p)
    constant: np.ndarray  # (k,) mean offset
    undefined: np.ndarray  # (k,) not estimable
    full: np.ndarray  # (k, all columns) L with the aliased columns
    grid: Grid
    level: float

    def families(self) -> dict[tuple[Any, ...], np.ndarray]:
        """Cells by their levels of ``by``."""
        at = [self.names.index(name) for name in self.by]
        out: dict[tuple[Any, ...], list[int]] = {}
        for i, cell in enumerate(self.cells):
            out.setdefault(tuple(cell[j] for j in at), []).append(i)
        return {key: np.array(rows) for key, rows in out.items()}

    def labels(self) -> list[str]:
        """(k,) names in contrasts: levels, with the variable's name before numbers, in parentheses if they read as
        operators.
        """
        inner = [j for j, name in enumerate(self.names) if name not in self.by]
        numeric = [all(_is_number(cell[j]) for cell in self.cells) for j in range(len(self.names))]
        texts = []
        for cell in self.cells:
            parts = [(self.names[j] if numeric[j] else "") + _shown(cell[j]) for j in inner]
            text = " ".join(parts)
            texts.append(f"({text})" if IN_PARENTHESES.search(text) else text)
        return texts


class MarginalMeans(pd.DataFrame):
    """A table of estimated marginal means, with ``pairs`` and ``contrast``; what is cut from it is a plain frame."""

    _metadata: ClassVar[list[str]] = ["means"]  # what pandas carries over copies
    means: Means

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def pairs(self, adjust: str = "tukey", level: float | None = None) -> pd.DataFrame:
        """All pairwise differences, earlier less later; see :func:`contrasts`."""
        return contrasts(self, "pairwise", adjust=adjust, level=level)

    def contrast(
        self,
        method: str | Mapping[str, Any] = "pairwise",
        adjust: str | None = None,
        level: float | None = None,
    ) -> pd.DataFrame:
        """Contrasts of the means; see :func:`contrasts`."""
        return contrasts(self, method, adjust=adjust, level=level)


def emmeans(
    fit: Fit,
    specs: str | Sequence[str],
    *,
    ddf: str | None = None,
    at: Mapping[str, Any] | None = None,
    by: str | Sequence[str] | None = None,
    type: str = "link",
    level: float = 0.95,
    vcov: Any = None,
    data: Any = None,
) -> MarginalMeans:
    """Estimated marginal means: predictions of the fixed part, averaged with equal weights over a reference grid.

    Parameters
    ----------
    fit : any fit; random effects are at zero.
    specs : variables whose levels get a mean each: ``"recipe"``, ``"recipe:temp"``, ``["recipe", "temp"]``; or
        ``"recipe | temp"`` to compare recipes within each temp. ``"1"``: one overall mean.
    ddf : degrees of freedom of a linear mixed model: ``"kenward-roger"`` (the default for REML), ``"satterthwaite"``
        (for maximum likelihood) or ``"asymptotic"``. Other models have their residual degrees of freedom, or infinite.
    at : variable -> value or values, in place of all levels of a factor, or of the mean of a covariate.
    by : variables within whose levels ``pairs`` compares.
    type : ``"link"``, or ``"response"``: means and limits of a generalized model through the inverse link.
    level : of the confidence limits.
    vcov : (p, p) covariance in place of the model's, such as ``vcov_robust(fit)``.
    data : the data of the fit; needed for covariates that stand only inside functions, such as x of ``log(x)``.

    Returns
    -------
    MarginalMeans
        A DataFrame, rows by level (the first variable fastest), columns ``emmean SE df lower.CL upper.CL``; NaN where
        an empty cell leaves a mean undefined. ``.pairs(adjust="tukey")`` and ``.contrast(...)`` compare.

    Raises
    ------
    DataError
        For an unknown variable, level or method.
    UnsupportedError
        Where ``ddf`` does not exist for the model.

    Warns
    -----
    MixedModelWarning
        If a mean is over the levels of a variable that it interacts with, or over a factor nested in another.

    Notes
    -----
    R: ``emmeans::emmeans``. Covariates are at their mean, those of two values at both, as there; the offset at its
    mean. Not the means of the data, nor those weighted by how often combinations occur.

    References
    ----------
    Searle, S. R., Speed, F. M. and Milliken, G. A. (1980). Population marginal means in the linear model. The American
    Statistician 34, 216-221.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.margins.emmeans import emmeans
    >>> fit = mm.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", mm.load_dataset("cake"))
    >>> means = emmeans(fit, "recipe")
    >>> print(means.round(3).to_string(index_names=False))
       emmean     SE    df  lower.CL  upper.CL
    A  33.122  1.737  42.0    29.617    36.627
    B  31.644  1.737  42.0    28.139    35.150
    C  31.600  1.737  42.0    28.095    35.105
    >>> print(means.pairs().round(3).to_string(index_names=False))
           estimate     SE    df  t.ratio  p.value
    A - B     1.478  2.456  42.0    0.602     0.82
    A - C     1.522  2.456  42.0    0.620     0.81
    B - C     0.044  2.456  42.0    0.018     1.00
    """
    if type not in ("link", "response"):
        raise DataError(f"type={type!r} is not 'link' or 'response'")
    if not fit.design.p:
        raise UnsupportedError("the model has no fixed effects: there are no means to estimate")
    names, inner = _read_specs(specs, by)
    grid = reference_grid(fit.design, at, data)
    for name in names:
        grid.variable(name)
    _warn_of_meaning(grid, names)
    means = _averaged(fit, grid, names, inner, precision_of(fit, ddf, vcov), level)
    frame = MarginalMeans(_table(means, type), index=_index(means.cells, means.names))
    frame.means = means
    return frame


def _read_specs(
    specs: str | Sequence[str], by: str | Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All variables, and those to compare within."""
    inside = [by] if isinstance(by, str) else list(by or ())
    if isinstance(specs, str):
        left, _, right = specs.strip().lstrip("~").partition("|")
        wanted, more = ([x.strip().strip("`") for x in re.split(r"[*:+]", part)] for part in (left, right))
        inside = [name for name in more if name] + inside
    else:
        wanted = list(specs)
    names = [name for name in dict.fromkeys([*wanted, *inside]) if name not in ("", "1")]
    return tuple(names), tuple(dict.fromkeys(inside))


def _warn_of_meaning(grid: Grid, names: Sequence[str]) -> None:
    moving = {v.name for v in grid.variables}
    for term in grid.design.formula.terms:
        inside = {name for variable in term for name in column_names(variable)} & moving
        others = inside - set(names)
        if inside & set(names) and others:
            warnings.warn(
                MixedModelWarning(
                    f"means of {', '.join(sorted(inside & set(names)))} are over {', '.join(sorted(others))}, with "
                    "which the model has an interaction: they may mislead. Name both, or hold one by at="
                ),
                stacklevel=3,
            )
            break
    for nested, outer in nestings(grid.variables):
        warnings.warn(
            MixedModelWarning(f"{nested} is nested in {outer}: only combinations that occur are in the grid"),
            stacklevel=3,
        )


def _averaged(
    fit: Fit, grid: Grid, names: tuple[str, ...], by: tuple[str, ...], precision: Precision, level: float
) -> Means:
    points = (
        np.stack([grid.points(name) for name in names], axis=1)
        if names
        else np.zeros((len(grid.index), 0), int)
    )
    distinct, of = np.unique(points[:, ::-1], axis=0, return_inverse=True)  # the first variable fastest
    of = of.ravel()
    weights = np.zeros((len(distinct), len(points)))
    weights[of, np.arange(len(points))] = 1.0
    full = (weights / weights.sum(axis=1, keepdims=True)) @ grid.full_rows
    cells = tuple(
        tuple(grid.variable(name).points[i] for name, i in zip(names, row[::-1], strict=True))
        for row in distinct
    )
    L = full[:, [fit.design.coding.names.index(name) for name in fit.design.x_names]]
    offset = 0.0 if fit.design.offset is None else float(fit.design.offset.mean())
    return Means(
        fit,
        precision,
        names,
        cells,
        by,
        L,
        np.full(len(L), offset),
        grid.not_estimable(full),
        full,
        grid,
        level,
    )


def _index(cells: Sequence[tuple[Any, ...]], names: Sequence[str]) -> pd.Index:
    if not names:
        return pd.Index(["overall"])
    if len(names) == 1:
        return pd.Index([cell[0] for cell in cells], name=names[0])
    return pd.MultiIndex.from_tuples(cells, names=list(names))


def _table(means: Means, type: str) -> dict[str, np.ndarray]:
    estimate, se, df = _estimates(means, means.L, means.constant, means.undefined)
    wide = critical("none", means.level, df, 1, 1) * se
    low, high = estimate - wide, estimate + wide
    link = getattr(means.fit.family, "link", None)
    if type == "response" and link is not None:
        mu = link.mu(estimate)
        se = np.abs(link.slopes(estimate, mu)[0]) * se
        ends = np.stack([link.mu(low), link.mu(high)])
        estimate, low, high = mu, ends.min(axis=0), ends.max(axis=0)
    return {"emmean": estimate, "SE": se, "df": df, "lower.CL": low, "upper.CL": high}


def _estimates(
    means: Means, L: np.ndarray, constant: np.ndarray, undefined: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates, standard errors and degrees of freedom of linear functions; NaN for those not defined."""
    values = [L @ means.fit.beta + constant, means.precision.se(L), means.precision.df(L)]
    estimate, se, df = (np.where(undefined, np.nan, v) for v in values)
    return estimate, se, df


# --- contrasts --------------------------------------------------------------------------------------------


def contrasts(
    means: MarginalMeans,
    method: str | Mapping[str, Any] = "pairwise",
    *,
    adjust: str | None = None,
    level: float | None = None,
) -> pd.DataFrame:
    """Contrasts of estimated marginal means, on the scale of the linear predictor.

    Parameters
    ----------
    means : what :func:`emmeans` returned.
    method : ``"pairwise"`` (earlier less later), ``"revpairwise"``, ``"trt.vs.ctrl"`` (against the first),
        ``"eff"`` (against their mean), ``"poly"`` (orthogonal polynomials in integers), ``"consec"`` (later less the
        one before); or a mapping of names to weights, one per mean.
    adjust : ``"tukey"`` (for pairs; their default), ``"holm"``, ``"bonferroni"``, ``"sidak"``, ``"fdr"`` or ``"none"``
        (the default of other contrasts). Families are the levels of ``by``.
    level : also give limits ``lower.CL`` and ``upper.CL`` that hold together at this level.

    Returns
    -------
    DataFrame
        Rows by contrast (and levels of ``by``), columns ``estimate SE df t.ratio p.value``.

    Raises
    ------
    DataError
        For an unknown method or adjustment, or weights of a wrong length.

    Notes
    -----
    R: ``emmeans::contrast`` and ``pairs``. With infinite df ``t.ratio`` is R's z.ratio. Tukey's p-values are exact to
    about 12 digits, R's ``ptukey`` to 8, and to 3 with two degrees of freedom.
    """
    if not isinstance(means, MarginalMeans):
        raise DataError(f"contrasts takes what emmeans returned, not a {means.__class__.__name__}")
    core = means.means
    pairwise = method in ("pairwise", "revpairwise") if isinstance(method, str) else False
    adjust = adjust or ("tukey" if pairwise else "none")
    if adjust not in ADJUSTMENTS or (adjust == "tukey" and not pairwise):
        usable = [a for a in ADJUSTMENTS if pairwise or a != "tukey"]
        raise DataError(f"adjust={adjust!r} is not one of {', '.join(usable)}, which suit these contrasts")
    labels, parts = core.labels(), []
    for key, rows in core.families().items():
        C, names = _weights(method, [labels[i] for i in rows])
        table = _compared(core, C, rows, adjust, level)
        table.index = _index([(name, *key) for name in names], ["contrast", *core.by])
        parts.append(table)
    return pd.concat(parts)


def _compared(core: Means, C: np.ndarray, rows: np.ndarray, adjust: str, level: float | None) -> pd.DataFrame:
    full = C @ core.full[rows]
    undefined = core.grid.not_estimable(full)
    estimate, se, df = _estimates(core, C @ core.L[rows], C @ core.constant[rows], undefined)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = estimate / se
    p = adjusted(adjust, ratio, df, len(rows))
    table = pd.DataFrame({"estimate": estimate, "SE": se, "df": df, "t.ratio": ratio, "p.value": p})
    if level is not None:
        wide = critical(adjust, level, df, len(rows), len(C)) * se
        table = table.assign(**{"lower.CL": estimate - wide, "upper.CL": estimate + wide})
    return table


def _weights(method: str | Mapping[str, Any], labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """(r, k) contrast weights and their names."""
    k, eye = len(labels), np.eye(len(labels))
    if not isinstance(method, str):
        return _given(method, k)
    if method in ("pairwise", "revpairwise"):
        pairs = list(combinations(range(k), 2))
        if method == "revpairwise":
            pairs = [(j, i) for j in range(k) for i in range(j)]
        C = np.array([eye[i] - eye[j] for i, j in pairs]).reshape(-1, k)
        return C, [f"{labels[i]} - {labels[j]}" for i, j in pairs]
    if method == "trt.vs.ctrl":
        return eye[1:] - eye[0], [f"{label} - {labels[0]}" for label in labels[1:]]
    if method == "consec":
        return eye[1:] - eye[:-1], [f"{b} - {a}" for a, b in pairwise(labels)]
    if method == "eff":
        return eye - 1.0 / k, [f"{label} effect" for label in labels]
    if method == "poly":
        return _polynomial(k)
    raise DataError(
        f"method={method!r} is not one of pairwise, revpairwise, trt.vs.ctrl, consec, eff, poly, nor a mapping of "
        "names to weights"
    )


def _polynomial(k: int) -> tuple[np.ndarray, list[str]]:
    """Orthogonal polynomials, scaled to the smallest integers where there are such (up to 1e4)."""
    x = np.arange(k) - (k - 1) / 2.0
    Q = np.linalg.qr(np.vander(x, min(k, 5), increasing=True))[0].T[1:]
    rows = []
    for q in Q:
        q = np.where(np.abs(q) < 1e-10, 0.0, q) * np.sign(q[-1])
        unit = q / np.abs(q[q != 0]).min()
        scales = [s for s in range(1, 200) if np.allclose(unit * s, np.round(unit * s), atol=1e-7)]
        rows.append(np.round(unit * scales[0]) if scales else q)
    names = ["linear", "quadratic", "cubic", "quartic"]
    return np.array(rows).reshape(-1, k), names[: len(rows)]


def _given(method: Mapping[str, Any], k: int) -> tuple[np.ndarray, list[str]]:
    rows = []
    for name, weights in method.items():
        values = np.asarray(weights, float)
        if values.shape != (k,):
            raise DataError(f"contrast {name!r} has weights of shape {values.shape} for {k} means")
        rows.append(values)
    return np.array(rows).reshape(-1, k), list(method)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
    return True


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else format_number(float(value))
