"""``lmer`` and ``fit_at``: from a formula and data to a fitted linear mixed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..design.build import build
from ..errors import UnsupportedError
from ..optimize.control import Control
from .fit import LinearMixedFit, fit_data, fit_design_at, fit_partitions, warned
from .partitions import chunked_products, is_chunked

__all__ = ["fit_at", "lmer"]


def lmer(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str] | None = None,
    na_action: str = "omit",
    start: Sequence[float] | None = None,
    sigma: float | None = None,
    residual: str | None = None,
    control: Control | None = None,
) -> LinearMixedFit:
    """Fit a linear mixed model, y = X beta + Z b + e, by REML or maximum likelihood.

    Not for non-Gaussian responses, nor for models without a random term (use ``lm``).

    Parameters
    ----------
    formula : lme4's language, e.g. ``"Reaction ~ Days + (Days | Subject)"``; parsed, never evaluated as code.
    data : DataFrame with the columns of the formula; or partitions, for data larger than memory: a path to a
        Parquet file, a list of DataFrames or a function that returns an iterator of them, a Dask DataFrame. The
        estimates are the same; what needs the rows (fitted values, influence) is then not available.
    reml : REML criterion (default) or the likelihood.
    weights : prior weights, (n,) or a column name: Var(e_i) = sigma^2 / w_i.
    offset : added to the linear predictor, (n,) or a column name.
    contrasts : coding per factor, e.g. ``{"g": "sum"}``; default treatment, polynomial for ordered factors.
    na_action : ``omit``, ``exclude`` (results padded with NaN) or ``fail``.
    start : theta to start from, in lme4's order.
    sigma : residual standard deviation if it is known.
    residual : ``"varident(g)"`` gives each level of the column ``g`` its own residual standard deviation
        (nlme's varIdent, Stata's residuals(independent, by(g))); ``fit.residual`` has the ratios to the first
        level, whose standard deviation ``fit.sigma`` is.

    Returns
    -------
    LinearMixedFit

    Raises
    ------
    FormulaError, DataError, DesignError, UnsupportedError: what is wrong, with the name or place.

    Cost: products O(n), then 3-10 evaluations whose cost does not depend on n. Equals lme4::lmer (R) at its
    optimum; the criterion is never worse by more than 1e-9 relative.
    """
    if is_chunked(data):
        if residual is not None or na_action != "omit":
            raise UnsupportedError("partitioned data are fitted with na_action='omit' and without residual=")
        chunked, products = chunked_products(
            formula, data, weights=weights, offset=offset, contrasts=contrasts
        )
        return warned(fit_partitions(chunked, products, reml=reml, start=start, sigma=sigma, control=control))
    return warned(
        fit_data(
            formula, data, reml=reml, weights=weights, offset=offset, contrasts=contrasts, na_action=na_action,
            start=start, sigma=sigma, residual=residual, control=control,
        )
    )  # fmt: skip


def fit_at(
    formula: str,
    data: Any,
    theta: Sequence[float] | np.ndarray,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str] | None = None,
    na_action: str = "omit",
    sigma: float | None = None,
) -> LinearMixedFit:
    """The model at a given theta, nothing optimized: what a comparison at fixed theta and a profile stand on.

    ``theta`` in lme4's order (``fit.theta``). Equals mkMerMod after evaluating lme4's deviance function at
    theta.
    """
    design = build(
        formula, data, weights=weights, offset=offset, contrasts=contrasts, na_action=na_action,
        allow_saturated=sigma is not None,
    )  # fmt: skip
    return fit_design_at(design, theta, reml=reml, sigma=sigma)
