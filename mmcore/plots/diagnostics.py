"""Pictures of a fit: each function draws on an Axes and returns it. matplotlib is imported when one is
called.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from ..diagnostics.augment import hlm_influence
from ..diagnostics.influence.coefficients import dfbetas
from ..diagnostics.residuals.lm_list import compare_eb_ls
from ..diagnostics.residuals.residuals import resid_conditional
from ..diagnostics.units import check_level
from ..errors import DataError, UnsupportedError
from ..results.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "dotplot_diag",
    "influence_cutoffs",
    "plot_dfbetas",
    "plot_eb_ls",
    "plot_influence",
    "plot_qq",
    "plot_ranef",
    "plot_resid",
]

BLUE, ORANGE, GREY = "#1f5a94", "#c8501e", "#8a8f98"
ONE_SIDED = ("cooks.distance", "mdffits", "covtrace", "leverage")
TWO_SIDED = ("covratio", "rvc")
ALIASES = {"cooksd": "cooks.distance", "cooks_distance": "cooks.distance"}
LABELS = 5  # extreme points that get a name


def _axes(ax: Axes | None, width: float = 6.4, height: float = 4.2) -> Axes:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:  # pragma: no cover - matplotlib is an extra
        raise UnsupportedError("plots need matplotlib: install the 'plots' extra") from error
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _finish(ax: Axes, title: str, xlabel: str, ylabel: str) -> Axes:
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _name_points(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[Any]) -> None:
    """Names beside points, in the order given; one that would lie on another is left out."""
    ax.margins(x=0.09, y=0.07)
    ax.autoscale_view()
    placed: list[np.ndarray] = []
    for a, b, name in zip(x, y, names, strict=True):
        at = ax.transData.transform((float(a), float(b)))
        if any(abs(at[0] - p[0]) < 26 and abs(at[1] - p[1]) < 10 for p in placed):
            continue
        placed.append(at)
        ax.annotate(str(name), (a, b), xytext=(5, 3), textcoords="offset points", fontsize=8, color=ORANGE)


# ---- residuals
# --------------------------------------------------------------------------------------------------


def plot_resid(fit: Fit, type: str = "pearson", *, ax: Axes | None = None, smooth: bool = True) -> Axes:
    """Conditional residuals against conditional fitted values, with a running median.

    Look for a curve (a missing term) and for a fan (variance that grows with the mean). ``type`` as in
    :func:`resid_conditional`.
    """
    ax = _axes(ax)
    x, y = fit.fitted_values, resid_conditional(fit, type).dropna().to_numpy()
    ax.axhline(0.0, color=GREY, lw=1)
    ax.plot(x, y, "o", ms=4, mfc="none", mec=BLUE, alpha=_alpha(len(x)))
    if smooth and len(x) >= 20:
        ax.plot(*_running_median(x, y), color=ORANGE, lw=1.8, label="running median")
        ax.legend(frameon=False, fontsize=8)
    return _finish(
        ax, "Residuals and fitted values", "conditional fitted value", f"conditional residual, {type}"
    )


def _alpha(n: int) -> float:
    return float(np.clip(200.0 / max(n, 1), 0.15, 0.9))


def _running_median(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians of about 15 slices of equal size, overlapping by half."""
    order = np.argsort(x)
    size = max(len(x) // 8, 5)
    begins = np.arange(0, len(x) - size + 1, max(size // 2, 1))
    slices = [order[b : b + size] for b in begins]
    return np.array([np.median(x[s]) for s in slices]), np.array([np.median(y[s]) for s in slices])


def plot_qq(
    fit: Fit, level: Hashable = 1, *, effect: str | None = None, ax: Axes | None = None, band: bool = True
) -> Axes:
    """Normal quantile plot of studentized conditional residuals, or of the conditional modes of a group's
    effect.

    The line goes through the quartiles; the band is the pointwise 95 % range of normal order statistics.
    Modes are shrunken and mixed with errors, so they look more normal than the effects are: see
    :func:`rotate_ranef`.
    """
    check_level(fit, level)
    ax = _axes(ax)
    if level == 1:
        values = resid_conditional(fit, "studentized").dropna()
        title, name = "Normal Q-Q: conditional residuals", "studentized residual"
    else:
        table = fit.ranef[str(level)]
        effect = table.columns[0] if effect is None else effect
        if effect not in table.columns:
            raise DataError(f"{effect!r} is not a random effect of {level}: {', '.join(table.columns)}")
        values, title, name = table[effect], f"Normal Q-Q: {effect} by {level}", "conditional mode"
    _draw_qq(ax, values, band)
    return _finish(ax, title, "normal quantile", name)


def _draw_qq(ax: Axes, values: pd.Series, band: bool) -> None:
    ordered = values.sort_values()
    n = len(ordered)
    theory = stats.norm.ppf((np.arange(1, n + 1) - 0.5) / n)
    slope = (np.quantile(ordered, 0.75) - np.quantile(ordered, 0.25)) / (2 * stats.norm.ppf(0.75))
    middle = (np.quantile(ordered, 0.75) + np.quantile(ordered, 0.25)) / 2
    if band:
        rank = np.arange(1, n + 1)
        low, high = (stats.norm.ppf(stats.beta.ppf(q, rank, n + 1 - rank)) for q in (0.025, 0.975))
        ax.fill_between(theory, middle + slope * low, middle + slope * high, color=GREY, alpha=0.2, lw=0)
        y = ordered.to_numpy()
        out = (y < middle + slope * low) | (y > middle + slope * high)
        at = np.flatnonzero(out)[np.argsort(-np.abs(y[out] - middle))][:LABELS]
        _name_points(ax, theory[at], y[at], ordered.index[at])
    ax.plot(theory, middle + slope * theory, color=ORANGE, lw=1.2)
    ax.plot(theory, ordered, "o", ms=4, mfc="none", mec=BLUE, alpha=_alpha(n))


# ---- influence
# --------------------------------------------------------------------------------------------------


def influence_cutoffs(values: pd.Series | np.ndarray, name: str) -> tuple[float, float]:
    """Limits beyond which a measure is extreme: quartile -+ 3 interquartile ranges (HLMdiag's internal
    cutoff).

    ``name``: ``cooks.distance``, ``mdffits``, ``covtrace``, ``leverage`` have an upper limit only (the
    lower is -infinity); ``covratio`` and ``rvc`` have both. Quantiles by linear interpolation, as R's type
    7.
    """
    kind = _kind(name)
    x = np.asarray(values, float)
    q1, q3 = np.quantile(x[np.isfinite(x)], [0.25, 0.75])
    upper = float(q3 + 3 * (q3 - q1))
    return (-np.inf, upper) if kind in ONE_SIDED else (float(q1 - 3 * (q3 - q1)), upper)


def _kind(name: str) -> str:
    kind = ALIASES.get(name, name.split(".")[0] if name.split(".")[0] in ("leverage", "rvc") else name)
    if kind not in ONE_SIDED + TWO_SIDED:
        raise UnsupportedError(f"name={name!r} is not one of {', '.join(ONE_SIDED + TWO_SIDED)}")
    return kind


def dotplot_diag(
    values: pd.Series | np.ndarray,
    cutoff: str | float | tuple[float, float] | None = "internal",
    name: str = "cooks.distance",
    *,
    modify: bool | str = False,
    ax: Axes | None = None,
) -> Axes:
    """Sorted values of an influence measure, extreme ones marked and named.

    Parameters
    ----------
    values : a measure by unit, e.g. of :func:`cooks_distance`; NaN is left out.
    cutoff : ``"internal"`` (:func:`influence_cutoffs`), an upper limit, (lower, upper), or None for no
    limits.
    name : which measure: decides whether low values are extreme too.
    modify : ``"dotplot"`` or ``"boxplot"``: all units within the limits become one row at the bottom, as
    points or
        as a box plot, so that many units stay readable.

    HLMdiag's dotplot_diag; low extremes are named too, and only extremes are.
    """
    kind = _kind(name)
    if modify not in (False, "dotplot", "boxplot"):
        raise UnsupportedError(f"modify={modify!r} is not one of False, 'dotplot', 'boxplot'")
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values, float))
    series = series.dropna().sort_values()
    if not len(series):
        raise DataError("there is no value to plot")
    low, high = _limits(series, cutoff, name)
    if modify and cutoff is None:
        raise UnsupportedError("a modified dot plot needs a cutoff")
    extreme = ((series < low) | (series > high)).to_numpy()
    ax = _axes(ax, height=max(3.2, min(9.0, 0.9 + 0.13 * (extreme.sum() + 3 if modify else len(series)))))
    y = np.arange(1.0, len(series) + 1)
    if modify:
        y = np.where(extreme, np.cumsum(extreme) + (series < low).to_numpy() * 0.0, 0.0)
    x = series.to_numpy()
    inner = ~extreme
    if modify == "boxplot":
        ax.boxplot(
            x[inner], positions=[0.0], orientation="horizontal", widths=0.6, sym="", manage_ticks=False
        )
    else:
        ax.plot(x[inner], y[inner], "o", ms=4, mfc="none", mec=BLUE, alpha=0.8)
    ax.plot(x[extreme], y[extreme], "o", ms=5, color=ORANGE)
    for limit in (low, high):
        if np.isfinite(limit):
            ax.axvline(limit, color=GREY, ls="--", lw=1)
    _name_extremes(ax, series, x, y, extreme)
    ax.set_yticks([0.0] if modify else [], ["within the limits"] if modify else [])
    return _finish(ax, _title(kind), kind, "" if modify else f"units in order (n = {len(series)})")


def _limits(series: pd.Series, cutoff: Any, name: str) -> tuple[float, float]:
    if cutoff is None:
        return -np.inf, np.inf
    if isinstance(cutoff, str):
        if cutoff != "internal":
            raise UnsupportedError(f"cutoff={cutoff!r} is not a number, a pair of numbers or 'internal'")
        return influence_cutoffs(series, name)
    if np.ndim(cutoff) == 0:
        return -np.inf, float(cutoff)
    low, high = cutoff
    return float(low), float(high)


def _name_extremes(ax: Axes, series: pd.Series, x: np.ndarray, y: np.ndarray, extreme: np.ndarray) -> None:
    high = [i for i in np.flatnonzero(extreme)[::-1] if i >= len(x) // 2][:LABELS]
    low = [i for i in np.flatnonzero(extreme) if i < len(x) // 2][:LABELS]
    at = np.array(high + low, dtype=int)
    _name_points(ax, x[at], y[at], series.index[at])


def _title(kind: str) -> str:
    return {
        "cooks.distance": "Cook's distance",
        "mdffits": "MDFFITS",
        "covtrace": "COVTRACE",
        "covratio": "COVRATIO",
        "leverage": "Leverage",
        "rvc": "Relative variance change",
    }[kind]


def plot_influence(fit: Fit, level: Hashable = 1, *, ax: Axes | None = None, label: int = LABELS) -> Axes:
    """Cook's distance against overall leverage, the area of a point in proportion to COVRATIO - 1.

    The ``label`` largest distances are named. A unit far right can move the estimates, one far up does.
    One-step measures at the full fit's theta.
    """
    table = hlm_influence(fit, level).dropna(subset=["cooksd"])
    ax = _axes(ax)
    x, y = table["leverage.overall"].to_numpy(), table["cooksd"].to_numpy()
    excess = np.clip(table["covratio"].to_numpy() - 1.0, 0.0, None)
    size = 10.0 + 110.0 * excess / max(float(excess.max()), 1e-300)
    ax.scatter(x, y, s=size, facecolors="none", edgecolors=BLUE, alpha=_alpha(len(x)) ** 0.5)
    limit = influence_cutoffs(y, "cooks.distance")[1]
    ax.axhline(limit, color=GREY, ls="--", lw=1, label="upper quartile + 3 interquartile ranges")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    at = np.argsort(-y)[:label]
    _name_points(ax, x[at], y[at], table.index[at])
    ax.set_ylim(bottom=0.0)
    what = "rows" if level == 1 else f"levels of {level}"
    return _finish(ax, f"Influence of {what}", "leverage", "Cook's distance")


def plot_dfbetas(fit: Fit, level: Hashable = 1, *, ax: Axes | None = None, label: int = LABELS) -> Axes:
    """One-step DFBETAS, a strip per coefficient, with lines at -+2 / sqrt(number of units); the largest are
    named.
    """
    table = dfbetas(fit, level).dropna()
    ax = _axes(ax, height=1.6 + 0.7 * table.shape[1])
    limit = 2.0 / np.sqrt(len(table))
    for row, name in enumerate(table.columns):
        values = table[name].to_numpy()
        outside = np.abs(values) > limit
        spread = 0.28 * np.sin(np.arange(len(values)) * 2.399963)  # golden angle: spread without randomness
        y = row + spread
        ax.plot(values[~outside], y[~outside], "o", ms=3, color=BLUE, alpha=_alpha(len(values)))
        ax.plot(values[outside], y[outside], "o", ms=4, color=ORANGE)
        at = np.argsort(-np.abs(values))[:label]
        at = at[outside[at]]
        _name_points(ax, values[at], y[at], table.index[at])
    for x in (-limit, limit):
        ax.axvline(x, color=GREY, ls="--", lw=1)
    ax.axvline(0.0, color=GREY, lw=1)
    ax.set_yticks(range(table.shape[1]), list(table.columns))
    ax.invert_yaxis()
    return _finish(ax, "DFBETAS", "full minus deleted, in standard errors", "")


# ---- random effects
# ---------------------------------------------------------------------------------------------


def plot_ranef(
    fit: Fit, group: str | None = None, *, effect: str | None = None, ax: Axes | None = None
) -> Axes:
    """Conditional modes of one effect with 95 % intervals, sorted: the caterpillar plot.

    Intervals are mode -+ 1.96 conditional standard deviations (fixed effects and variances taken as known).
    """
    if not fit.design.terms:
        raise UnsupportedError("the model has no random effects to plot")
    level = fit.design.terms[0].group if group is None else group
    check_level(fit, level)
    term, b, cov, k = _modes(fit, level, effect)
    names = list(term.effects)
    order = np.argsort(b[:, k])
    x, half = b[order, k], 1.96 * np.sqrt(cov[order, k, k])
    ax = _axes(ax, height=max(3.0, min(10.0, 1.0 + 0.16 * len(x))))
    y = np.arange(len(x))
    away = np.abs(x) > half
    ax.axvline(0.0, color=GREY, lw=1)
    ax.hlines(y, x - half, x + half, color=np.where(away, ORANGE, BLUE), lw=1.2)
    ax.scatter(x, y, s=14, color=np.where(away, ORANGE, BLUE), zorder=3)
    if len(x) <= 60:
        ax.set_yticks(y, [str(v) for v in term.levels[order]], fontsize=8)
    else:
        ax.set_yticks([])
    return _finish(ax, f"{names[k]} by {level}", "conditional mode and 95 % interval", "")


def _modes(fit: Fit, level: str, effect: str | None) -> tuple[Any, np.ndarray, np.ndarray, int]:
    """The term that has an effect of a factor, its modes and their covariances, and the effect's position."""
    for term, b, cov in zip(fit.design.terms, fit.b, fit.condvar.values(), strict=True):
        names = list(term.effects)
        if term.group == level and (effect is None or effect in names):
            return term, b, cov, 0 if effect is None else names.index(effect)
    raise DataError(f"{effect!r} is not a random effect of {level}")


def plot_eb_ls(
    fit: Fit,
    group: str | None = None,
    *,
    effect: str | None = None,
    identify: float = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """Least-squares coefficient of each group against the shrunken one, with the line of no shrinkage.

    The share ``identify`` of groups that is shrunken most is named. See :func:`compare_eb_ls`.
    """
    table = compare_eb_ls(fit, group, identify=identify)
    effect = table.effect.iloc[0] if effect is None else effect
    own = table[table.effect == effect].dropna()
    if not len(own):
        raise DataError(f"{effect!r} has no least-squares counterpart: {', '.join(table.effect.unique())}")
    ax = _axes(ax, 5.2, 4.8)
    ax.plot(own.eb, own.ls, "o", ms=5, mfc="none", mec=BLUE, alpha=0.8)
    ends = np.array([own.eb.min(), own.eb.max()])
    ax.plot(ends, ends, color=GREY, lw=1, ls="--", label="no shrinkage")
    marked = own[own.unusual]
    _name_points(ax, marked.eb.to_numpy(), marked.ls.to_numpy(), marked.index)
    ax.legend(frameon=False, fontsize=8)
    return _finish(ax, f"{effect} by {table.index.name}", "empirical Bayes", "least squares")
