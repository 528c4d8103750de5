"""Pictures of a profile: to be folded into ``plots``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import chi2, norm

from ..errors import DataError, UnsupportedError
from ..inference.intervals.profile import LikelihoodProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_profile", "plot_profile_pairs"]

BLUE, ORANGE, GREY = "#1f5a94", "#c8501e", "#8a8f98"
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
COLUMNS = 3


def plot_profile(
    profile: LikelihoodProfile, parm: str | Sequence[str] | None = None, *, absolute: bool = False
) -> Figure:
    """zeta against the value of each parameter, with the intervals at 50, 80, 90, 95 and 99 percent.

    A straight line: the Wald interval is right. A bend: it is not symmetric. A line that ends early has met the end
    of the domain. ``absolute`` draws |zeta|, where intervals are horizontal bars. lme4's xyplot(profile).
    """
    names = _chosen(profile, parm)
    rows = -(-len(names) // COLUMNS)
    columns = min(len(names), COLUMNS)
    figure, axes = _subplots(rows, columns, 3.1 * columns, 2.7 * rows)
    for ax, name in zip(axes.ravel(), names, strict=False):
        _curve(ax, profile, name, absolute)
    for ax in axes.ravel()[len(names) :]:
        ax.set_visible(False)
    figure.supylabel("|zeta|" if absolute else "zeta", fontsize=10)
    return figure


def _curve(ax: Axes, profile: LikelihoodProfile, name: str, absolute: bool) -> None:
    points = profile[name]
    v, zeta = points[name].to_numpy(float), points[".zeta"].to_numpy(float)
    size = np.abs if absolute else np.asarray
    ax.axhline(0.0, color=GREY, lw=0.8)
    inverse = PchipInterpolator(zeta, v) if (np.diff(zeta) > 0).all() else None
    for level in LEVELS:
        q = float(norm.ppf(0.5 + level / 2))
        ends = [z for z in (-q, q) if inverse is not None and zeta[0] <= z <= zeta[-1]]
        at = [float(inverse(z)) for z in ends] if inverse is not None else []
        if absolute and len(at) == 2:
            ax.plot(at, [q, q], color=ORANGE, lw=0.8)
        ax.vlines(at, 0.0, size(np.array(ends)), color=ORANGE, lw=0.8)
    grid = np.linspace(v[0], v[-1], 200)
    ax.plot(grid, size(PchipInterpolator(v, zeta)(grid)), color=BLUE, lw=1.5)
    ax.plot(v, size(zeta), "o", ms=3, color=BLUE)
    ax.set_title(name, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def plot_profile_pairs(profile: LikelihoodProfile, parm: Sequence[str] | None = None) -> Figure:
    """Pairs of parameters: how each moves the other, and regions at 50, 80, 90, 95 and 99 percent.

    Below the diagonal in units of the parameters, above it in zeta. Blue: the best row parameter at each value of the
    column's; orange: the other way round. Regions are interpolated from these traces as in Bates and Watts (1988,
    section 6.1), not computed on a grid. lme4's splom(profile).
    """
    names = _chosen(profile, parm)
    if len(names) < 2:
        raise DataError(f"pairs need two profiled parameters at least; there is {', '.join(names)}")
    k = len(names)
    figure, axes = _subplots(k, k, 1.9 * k, 1.7 * k)
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            ax = axes[i, j]
            if i == j:
                ax.text(0.5, 0.5, row.replace("|", "|\n"), ha="center", va="center", fontsize=8)
                ax.set_axis_off()
                continue
            _pair(ax, profile, column, row, scaled=j > i)
            ax.tick_params(labelsize=6)
    return figure


def _pair(ax: Axes, profile: LikelihoodProfile, x: str, y: str, scaled: bool) -> None:
    """Traces and regions of two parameters; ``scaled``: in zeta."""
    to_x, to_y = _inverse(profile, x, scaled), _inverse(profile, y, scaled)
    angles = _trace_angles(profile, x, y), _trace_angles(profile, y, x)
    for level in LEVELS:
        c = float(np.sqrt(chi2.ppf(level, 2)))
        zx, zy = _region(angles, c)
        ax.plot(to_x(zx), to_y(zy), color=GREY, lw=0.8)
    for of, color in ((x, BLUE), (y, ORANGE)):
        points = profile[of]
        a, b = points[x].to_numpy(float), points[y].to_numpy(float)
        if scaled:
            a, b = _zeta_of(profile, x)(a), _zeta_of(profile, y)(b)
        ax.plot(a, b, color=color, lw=1.2)


def _zeta_of(profile: LikelihoodProfile, name: str) -> PchipInterpolator:
    points = profile[name]
    return PchipInterpolator(points[name], points[".zeta"])


def _inverse(profile: LikelihoodProfile, name: str, scaled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """zeta -> value of a parameter, NaN beyond the profile; or zeta itself."""
    if scaled:
        return np.asarray
    points = profile[name]
    return PchipInterpolator(points[".zeta"], points[name], extrapolate=False)


def _trace_angles(profile: LikelihoodProfile, held: str, other: str) -> PchipInterpolator:
    """At zeta of the held parameter: the cosine-like ratio zeta of the other over zeta of the held."""
    points = profile[held]
    z = points[".zeta"].to_numpy(float)
    follows = _zeta_of(profile, other)(points[other].to_numpy(float))
    use = np.abs(z) > 1e-6
    return PchipInterpolator(z[use], np.clip(follows[use] / z[use], -0.999, 0.999))


def _region(angles: tuple[PchipInterpolator, PchipInterpolator], c: float) -> tuple[np.ndarray, np.ndarray]:
    """(m,) zetas of the two parameters around the region of radius c.

    The region touches zeta_x = +-c where y follows x, and zeta_y = +-c where x follows y. With zeta_x = c cos t and
    zeta_y = c cos(t + d), the phase difference d is known at these four points and periodic in between.
    """
    of_x, of_y = angles
    t, d = [], []
    for side in (1.0, -1.0):
        z = side * c
        t.append(0.0 if side > 0 else np.pi)
        d.append(np.arccos(float(np.clip(of_x(z), -0.999, 0.999))))
        phase = np.arccos(float(np.clip(of_y(z), -0.999, 0.999)))
        t.append((-phase if side > 0 else np.pi - phase) % (2 * np.pi))
        d.append(phase)
    order = np.argsort(t)
    ts, ds = np.array(t)[order], np.array(d)[order]
    around = np.linspace(0.0, 2.0 * np.pi, 181)
    ts, ds = np.concatenate([ts - 2 * np.pi, ts, ts + 2 * np.pi]), np.tile(ds, 3)
    keep = np.concatenate([[True], np.diff(ts) > 1e-9])
    delta = PchipInterpolator(ts[keep], ds[keep])(around)
    return c * np.cos(around), c * np.cos(around + delta)


def _chosen(profile: LikelihoodProfile, parm: str | Sequence[str] | None) -> list[str]:
    names = profile.parameters if parm is None else [parm] if isinstance(parm, str) else list(parm)
    for name in names:
        profile[name]
    if not names:
        raise DataError("nothing was profiled")
    return names


def _subplots(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:  # pragma: no cover - matplotlib is an extra
        raise UnsupportedError("plots need matplotlib: install the 'plots' extra") from error
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
