"""Groups one by one: separate linear models, and their coefficients against the shrunken ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...design.build import Design, build
from ...errors import DataError, DesignError, UnsupportedError
from ...results.argument import of_fit
from ...results.fit import Fit
from ...results.workspace import need_gaussian
from ..units import check_level, level_codes
from .separate import SeparateFits, separate_fits

__all__ = ["LmList", "compare_eb_ls", "lm_list"]


@dataclass(frozen=True, slots=True)
class LmList:
    """Separate least-squares fits of one formula in every group."""

    fits: SeparateFits
    labels: pd.Index  # (G,) groups in the order of their levels
    x_names: tuple[str, ...]

    @property
    def coef(self) -> pd.DataFrame:
        """Groups x coefficients; NaN for those a group's rows do not determine."""
        return pd.DataFrame(self.fits.coef, index=self.labels, columns=list(self.x_names))

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviation of each group; NaN without degrees of freedom."""
        return pd.Series(self.fits.s, index=self.labels, name="sigma")

    @property
    def pooled_sigma(self) -> float:
        """sqrt(sum of RSS / sum of degrees of freedom)."""
        return float(np.sqrt(self.fits.rss.sum() / self.fits.df.sum()))

    @property
    def df(self) -> pd.Series:
        """Residual degrees of freedom of each group."""
        return pd.Series(self.fits.df, index=self.labels, name="df")

    def se(self, pool: bool = True) -> pd.DataFrame:
        """Standard errors, from the pooled residual variance or each group's own."""
        half = np.sqrt(np.diagonal(self.fits.gram_inv, axis1=1, axis2=2))
        scale = self.pooled_sigma if pool else self.fits.s[:, None]
        return pd.DataFrame(half * scale, index=self.labels, columns=list(self.x_names))

    def confint(self, level: float = 0.95, pool: bool = True) -> dict[str, pd.DataFrame]:
        """Per coefficient, groups x (lower, upper): estimate -+ t se, t on the pooled or the group's own
        df.
        """
        df = np.full(len(self.labels), self.fits.df.sum()) if pool else self.fits.df
        with np.errstate(invalid="ignore"):
            t = stats.t.ppf(0.5 + level / 2, np.where(df > 0, df, np.nan))
        width = self.se(pool).mul(t, axis=0)
        return {
            name: pd.DataFrame(
                {"lower": self.coef[name] - width[name], "upper": self.coef[name] + width[name]}
            )
            for name in self.x_names
        }


def lm_list(
    formula: str | Fit,
    data: Any = None,
    group: str | None = None,
    *,
    weights: Any = None,
    contrasts: Mapping[str, str] | None = None,
) -> LmList:
    """A separate linear model in every level of ``group``: lme4's lmList.

    ``formula`` is the fixed part (``"y ~ x"``) with ``data`` and the name of the grouping column, or a fit,
    whose fixed part is used in the levels of ``group`` (default: its factor with most levels).

    A coefficient that a group's rows do not determine is NaN and the others are as if its column were not
    there: a factor that has one level in a group drops out of that group's model, which lmList refuses and
    HLMdiag's adjust_lmList provides. Columns are coded once, on all rows.
    """
    if isinstance(formula, Fit):
        return _of_fit(formula, group)
    if group is None or data is None:
        raise DataError("lm_list needs data and the name of the grouping column, or a fit")
    if "|" in formula:
        raise UnsupportedError(f"{formula!r} has random terms: give the fixed part, and the group by name")
    if group not in data.columns:
        raise DataError(f"group={group!r} is not a column of the data")
    complete = data[data[group].notna()]
    design = build(formula, complete, weights=weights, contrasts=contrasts)
    rows = complete[group] if design.rows is None else complete[group].iloc[design.rows]
    return _fit_groups(design, rows)


def _of_fit(fit: Fit, group: str | None) -> LmList:
    need_gaussian(fit, "separate least-squares fits")
    if not fit.design.terms:
        raise UnsupportedError("the model has no grouping factor: give a formula, data and group=")
    level = fit.design.terms[0].group if group is None else group
    check_level(fit, level)
    term = next(t for t in fit.design.terms if t.group == level)
    fits = separate_fits(fit.design, term.codes, len(term.levels))
    return LmList(fits, term.index, fit.design.x_names)


def _fit_groups(design: Design, group: pd.Series) -> LmList:
    codes, levels = pd.factorize(group, sort=True)
    if len(levels) < 1:
        raise DesignError(f"{group.name} has no level left in the rows used")
    fits = separate_fits(design, codes, len(levels))
    return LmList(fits, pd.Index(levels, name=group.name), design.x_names)


@of_fit
def compare_eb_ls(fit: Fit, group: str | None = None, *, identify: float = 0.0) -> pd.DataFrame:
    """Coefficients of each group: shrunken (empirical Bayes) beside least squares of the group's rows alone.

    Columns: ``effect``; ``eb`` = fixed effect + conditional mode; ``ls`` = separate least-squares estimate;
    ``residual`` = ls - eb; ``unusual``: among the round(identify x groups) largest residuals in absolute
    value of the effect. Indexed by level, one block of levels per random effect that has a fixed
    counterpart. Points off the line ls = eb are groups that borrow most from the others. ``plot_eb_ls``
    draws it; HLMdiag's compare_eb_ls.

    Like is compared with like. A covariate that is constant within a group cannot be told from the intercept by the
    group's own rows: least squares then estimates intercept + slope x covariate, and ``eb`` is that sum too. HLMdiag
    leaves the slope's part out of ``eb``. The same holds for any column that others span within the group.
    """
    separate = _of_fit(fit, group)
    level = str(separate.labels.name)
    labels, _ = level_codes(fit, level)
    eb, ls = _identified(fit, separate, level).loc[labels], separate.coef.loc[labels]
    blocks = []
    for effect in fit.ranef[level].columns:
        if effect not in ls.columns:
            continue
        block = pd.DataFrame({"effect": effect, "eb": eb[effect], "ls": ls[effect]}, index=labels)
        block["residual"] = block.ls - block.eb
        rank = block.residual.abs().rank(ascending=False, method="first")
        block["unusual"] = rank <= round(identify * len(labels))
        blocks.append(block)
    if not blocks:
        raise UnsupportedError(
            f"no random effect of {level} has a fixed effect of the same name to compare with"
        )
    return pd.concat(blocks)


def _identified(fit: Fit, separate: LmList, level: str) -> pd.DataFrame:
    """The shrunken coefficients in the terms of each group's own model: what its rows cannot tell apart is added."""
    whole = fit.coef()[level].loc[separate.labels, list(separate.x_names)]
    values = whole.to_numpy()
    return whole + np.einsum("gkj,gj->gk", separate.fits.alias, values)
