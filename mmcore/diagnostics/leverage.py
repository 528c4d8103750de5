"""Leverage: diagonals of the matrices that map y to fitted values, split into fixed and random parts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from ..errors import UnsupportedError
from ..results.argument import of_fit
from ..results.fit import Fit
from ..results.workspace import Marginal, marginal, mean_rows
from .units import by_row, check_level, level_codes, pad

__all__ = ["TYPES", "hatvalues", "leverage", "row_leverage"]

TYPES = ("overall", "fixef", "ranef", "ranef.uc")


@of_fit
def leverage(fit: Fit, level: Hashable = 1) -> pd.DataFrame:
    """Leverage of every row, or its mean over every level of a grouping factor.

    Columns (no unit), with V the marginal covariance, H1 = X (X'V^-1X)^-1 X'V^-1:
    ``fixef``     diag H1; sums to p.
    ``ranef``     diag of H2 = ZDZ'V^-1 (I - H1) (Demidenko & Stukel 2005); not free of X.
    ``overall``   fixef + ranef = diag of the matrix from y to the conditional fitted values; lme4's
    hatvalues.
    ``ranef.uc``  diag of ZDZ' / sigma^2 (Nobre & Singer 2011): the part that does not involve X. Not
    bounded by 1.

    HLMdiag's leverage; weights enter as Var(e) = sigma^2 / w (HLMdiag leaves them out of V), crossed
    factors are allowed. Rows are labelled as in the data; levels by name, in order of first appearance.
    Cost O(n).
    """
    check_level(fit, level)
    values = row_leverage(marginal(fit))
    if level == 1:
        full, index = pad(fit, values)
        return pd.DataFrame(full, index=index, columns=list(TYPES))
    labels, codes = level_codes(fit, level)
    size = np.bincount(codes, minlength=len(labels))
    means = np.column_stack([np.bincount(codes, column, len(labels)) / size for column in values.T])
    return pd.DataFrame(means, index=labels, columns=list(TYPES))


def row_leverage(ws: Marginal, types: Sequence[str] = TYPES) -> np.ndarray:
    """(n, len(types)) the leverages asked for."""
    overall = 1.0 - (ws.v - ws.h)
    values = {"overall": overall}
    if "fixef" in types or "ranef" in types:
        half = mean_rows(ws.fit)
        values["fixef"] = np.einsum("in,in->n", half, ws.white[: ws.p])
        values["ranef"] = overall - values["fixef"]
    if "ranef.uc" in types:
        values["ranef.uc"] = random_variance(ws.fit)
    return np.column_stack([values[t] for t in types])


def random_variance(fit: Fit) -> np.ndarray:
    """(n,) diagonal of Z Lambda Lambda' Z', relative to sigma^2."""
    out = np.zeros(fit.design.n)
    for term, Lambda in zip(fit.design.terms, fit.Lambda, strict=True):
        out += np.square(term.columns @ Lambda).sum(axis=1)
    return out


def checked_types(types: str | Sequence[str]) -> tuple[str, ...]:
    """The leverage types asked for, validated."""
    names = (types,) if isinstance(types, str) else tuple(types)
    unknown = [t for t in names if t not in TYPES]
    if unknown:
        raise UnsupportedError(f"leverage={unknown[0]!r} is not one of {', '.join(map(repr, TYPES))}")
    return names


@of_fit
def hatvalues(fit: Fit) -> pd.Series:
    """Diagonal of the matrix from y to the conditional fitted values: lme4's hatvalues, R's for ``lm``.

    Equal to ``leverage(fit)["overall"]``; sums to the trace of that matrix, between p and p + q.
    """
    ws = marginal(fit)
    return by_row(fit, 1.0 - (ws.v - ws.h), "hat")
