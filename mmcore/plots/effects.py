"""A picture of marginal means or predictive margins: points, or lines along a covariate, with their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError

__all__ = ["plot_effects"]

ESTIMATES = ("emmean", "margin", "AME", "estimate")


def plot_effects(grid: pd.DataFrame, x: str | None = None, *, ax: Any = None) -> Any:
    """Draw a table of means or margins over one of its variables, a line for each combination of the others.

    Parameters
    ----------
    grid : what ``emmeans``, ``margins`` or ``predictive_margins`` returned: levels in the index, ``lower.CL`` and
        ``upper.CL`` in the columns.
    x : the variable along the axis; None: the first. Numbers get a band around a line, levels get points with bars.
    ax : matplotlib Axes; None: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        If the table has no such variable, or no limits.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.plots.effects import plot_effects
    >>> from mmcore.inference.margins.margins import predictive_margins
    >>> fit = mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy"))
    >>> ax = plot_effects(predictive_margins(fit, {"Days": [0, 3, 6, 9]}))  # doctest: +SKIP
    """
    from matplotlib import pyplot as plt

    what = next((name for name in ESTIMATES if name in grid.columns), None)
    if what is None or "lower.CL" not in grid.columns:
        raise DataError("plot_effects draws tables of emmeans or margins, with columns lower.CL and upper.CL")
    table = grid.rename_axis(index=[name or "effect" for name in grid.index.names])
    names = list(table.index.names)
    if x is not None and x not in names:
        raise DataError(f"x={x!r} is not a variable of the table, which has {', '.join(map(str, names))}")
    x = x or str(names[0])
    flat = table.reset_index()
    others = [name for name in names if name != x]
    axes = plt.subplots()[1] if ax is None else ax
    for key, part in flat.groupby(others, sort=False) if others else [((), flat)]:
        _line(axes, part, x, what, ", ".join(map(str, key)))
    axes.set_xlabel(x)
    axes.set_ylabel(what)
    if others:
        axes.legend(title=", ".join(map(str, others)))
    return axes


def _line(axes: Any, part: pd.DataFrame, x: str, what: str, label: str) -> None:
    """One combination of the other variables."""
    centre = part[what].to_numpy()
    low, high = part["lower.CL"].to_numpy(), part["upper.CL"].to_numpy()
    if pd.api.types.is_numeric_dtype(part[x]):
        order = np.argsort(part[x].to_numpy())
        at = part[x].to_numpy()[order]
        (line,) = axes.plot(at, centre[order], label=label)
        axes.fill_between(at, low[order], high[order], alpha=0.2, color=line.get_color())
        return
    bars = np.maximum(np.stack([centre - low, high - centre]), 0.0)
    axes.errorbar(part[x].astype(str), centre, yerr=bars, fmt="o", capsize=3, label=label)
