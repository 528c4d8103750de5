"""Residual standard deviations that differ between groups: Var(e_i) = sigma^2 ratio_g(i)^2 / w_i.

The ratios enter as weights, w_i / ratio^2, so the kernels need to know nothing of them. The criterion is profiled
over theta at given log-ratios delta and minimised over delta with its exact gradient: by the envelope theorem
    df/ddelta_g = 2 sum_{i in g} [ P_ii - (nu / rss) (V^-1 r)_i^2 ]     (P_ii is (V^-1)_ii for ML)
in rows scaled by the square roots of the weights. Pinheiro & Bates 2000, section 5.2 (varIdent).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.optimize

from ..design.build import Design
from ..design.columns import as_factor, from_series
from ..errors import DataError, FitError, FormulaError
from ..kernels.whitened import whitened_rows
from ..results.groups import ResidualGroups

__all__ = ["fit_varident", "residual_groups"]

_SYNTAX = re.compile(r"\s*varident\(\s*(?:`(?P<quoted>[^`]+)`|(?P<plain>[A-Za-z.][\w.]*))\s*\)\s*")


def residual_groups(text: str, data: Any, design: Design) -> ResidualGroups:
    """Read ``varident(g)`` and the levels of ``g`` in the rows of the design, all ratios 1.

    Raises FormulaError for other text, DataError when ``g`` is no column, has missing values in rows that are
    used, or a single level.
    """
    match = _SYNTAX.fullmatch(text)
    if match is None:
        raise FormulaError(
            "a residual structure is written varident(g), with g a column of the data", text, 0
        )
    name = match["quoted"] or match["plain"]
    if name not in data.columns:
        raise DataError(
            f"residual={text!r}: the data have no column {name!r}; columns: {', '.join(map(str, data.columns))}"
        )
    factor = as_factor(from_series(data[name], name), name)
    codes = factor.codes if design.rows is None else factor.codes[design.rows]
    if (codes < 0).any():
        raise DataError(
            f"residual={text!r}: {name!r} is missing in {int((codes < 0).sum())} of the rows used; drop them"
        )
    present, codes = np.unique(codes, return_inverse=True)
    if len(present) < 2:
        raise DataError(
            f"residual={text!r}: {name!r} has a single level in the rows used, so there is nothing to compare"
        )
    levels = tuple(str(factor.levels[i]) for i in present)
    return ResidualGroups(name, levels, codes, np.ones(len(present)))


# design, theta to start from (or None) -> a Fit, which stands to the right of this file
FitDesign = Callable[[Design, Any], Any]


def fit_varident(
    design: Design, groups: ResidualGroups, fit: FitDesign, reml: bool
) -> tuple[Any, ResidualGroups]:
    """The fit at the best ratios, and the groups with these; the first level is the reference.

    ``fit`` finds theta for a design at its weights. Cost: 5-15 such fits from warm starts, each with its own
    cross-products, O(n). Raises FitError when a ratio runs off to zero or infinity.
    """
    search = _Search(design, groups, fit, reml)
    start = _moment_start(search)
    options = {"gtol": 1e-8 * design.n, "maxiter": 200}
    found = scipy.optimize.minimize(search, start, jac=True, method="BFGS", options=options)
    if np.abs(found.x).max() > 12:
        worst = groups.levels[1 + int(np.abs(found.x).argmax())]
        raise FitError(
            f"the residual standard deviation of {groups.group} = {worst!r} runs off to a boundary"
        )
    search(found.x)
    return search.last, replace(groups, ratio=np.exp(np.append(0.0, found.x)))


class _Search:
    """f(delta) and its gradient, delta the log-ratios; each model starts from the theta of the last."""

    def __init__(self, design: Design, groups: ResidualGroups, fit: FitDesign, reml: bool) -> None:
        self.design, self.groups, self.fit, self.reml = design, groups, fit, reml
        self.prior = np.ones(design.n) if design.weights is None else design.weights
        self.last: Any = None

    def __call__(self, delta: np.ndarray) -> tuple[float, np.ndarray]:
        scale = np.exp(-2.0 * np.append(0.0, delta))
        design = replace(self.design, weights=self.prior * scale[self.groups.codes])
        self.last = self.fit(design, None if self.last is None else self.last.theta)
        return self.last.criterion, self._gradient(self.last)

    def _gradient(self, fit: Any) -> np.ndarray:
        profile, white = fit.state.profile, _white(fit)
        each = 1.0 - fit.state.quadratic() - profile.per_rss * profile.rss * white[-1] ** 2
        if self.reml:
            each -= np.sum(white[:-1] ** 2, axis=0)
        return 2.0 * np.bincount(self.groups.codes, each, len(self.groups.levels))[1:]


def _white(fit: Any) -> np.ndarray:
    """(m, n) whitened rows; the last one is r'V^-1 / sqrt(rss)."""
    return whitened_rows(fit.criterion_fn.kernel, fit.state, fit.state.profile)[0]


def _moment_start(search: _Search) -> np.ndarray:
    """(L - 1,) log-ratios from the spread of the residuals at equal variances."""
    search(np.zeros(len(search.groups.levels) - 1))
    codes, L = search.groups.codes, len(search.groups.levels)
    squares = np.bincount(codes, _white(search.last)[-1] ** 2, L) / np.bincount(codes, minlength=L)
    spread = np.log(squares)
    return 0.5 * (spread[1:] - spread[0])
