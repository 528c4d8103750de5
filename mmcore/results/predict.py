"""Prediction: X beta + Z b + offset on the rows of the fit or on new ones, with standard errors.

The standard error is that of the conditional mean given theta: with N = (Sigma^-1 + Z'WZ)^-1, C = (X'V^-1X)^-1 and
a row (x, z),  Var = sigma^2 (z'Nz + d'C d),  d = x - X'WZ N z: the joint covariance of (beta-hat, b-hat - b) that
Henderson's equations give. Without random effects it is sigma^2 x'Cx. The uncertainty of theta is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..design.align import shown
from ..design.build import NewRows
from ..errors import DataError, FormulaError, UnsupportedError
from ..formula.parse import parse
from .fit import Fit

__all__ = ["predict"]

CHUNK = 512  # rows whose random-effects covariance is solved for at a time


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows to predict, in the columns of the design; wanted terms only."""

    X: np.ndarray  # (m, p)
    terms: tuple[int, ...]  # positions of the wanted terms in the design
    codes: tuple[np.ndarray, ...]  # per wanted term (m,), -1 for a level the model does not know
    columns: tuple[np.ndarray, ...]  # per wanted term (m, k), zero where the effect is not wanted
    offset: np.ndarray | None  # (m,)
    index: pd.Index
    missing: np.ndarray  # (m,) rows whose group is missing


def predict(
    fit: Fit,
    newdata: Any = None,
    *,
    re_form: str | bool | None = None,
    type: str = "link",
    allow_new_levels: bool = False,
    se_fit: bool = False,
    offset: Any = None,
) -> pd.Series | pd.DataFrame:
    """Predicted values by row label: a Series, or a DataFrame with columns ``fit`` and ``se_fit``.

    newdata: rows to predict (the response may be absent); None for the rows of the fit, padded with NaN where
        ``na_action="exclude"`` left rows out. A missing predictor gives NaN.
    re_form: None for all random effects; ``"~0"``, ``"NA"`` or False for none; a one-sided formula such as
        ``"~ (1 | g)"`` for those it names.
    type: ``link`` (the linear predictor) or ``response`` (its mean; the same for linear models).
    allow_new_levels: levels the model does not know, and missing ones, get b = 0 (their variance enters ``se_fit``)
        instead of a DataError that names them.
    se_fit: also standard errors of the conditional mean, theta taken as known; on the scale of ``type``.
    offset: replaces the offset argument of the fit for newdata.

    Equals lme4's predict.merMod (also its se.fit, in versions that have it). Cost O(rows) and, for ``se_fit``,
    one solve per chunk of 512 rows.
    """
    if type not in ("link", "response"):
        raise UnsupportedError(f"predict(type={type!r}) is not one of 'link', 'response'")
    if newdata is None:
        fit.require_rows("predict without newdata")
    wanted = _wanted_terms(fit, re_form)
    new = newdata is not None
    rows = _new_rows(fit, newdata, wanted, offset, allow_new_levels) if new else _training_rows(fit, wanted)
    eta = rows.X @ fit.beta
    for t, codes, columns in zip(rows.terms, rows.codes, rows.columns, strict=True):
        eta += np.where(codes >= 0, np.einsum("ij,ij->i", columns, fit.b[t][codes]), 0.0)
    if rows.offset is not None:
        eta = eta + rows.offset
    eta = np.where(rows.missing, np.nan, eta)
    mean, slope = _mean(fit, eta, type)
    values = pd.Series(mean, index=rows.index, name="fit")
    if not se_fit:
        return _padded(fit, values) if newdata is None else values
    se = pd.Series(np.where(rows.missing, np.nan, np.sqrt(_variance(fit, rows))) * slope, index=rows.index)
    frame = pd.DataFrame({"fit": values, "se_fit": se})
    return _padded(fit, frame) if newdata is None else frame


def _mean(fit: Fit, eta: np.ndarray, type: str) -> tuple[np.ndarray, np.ndarray | float]:
    """Values on the scale asked for, and |d value / d eta|."""
    link = getattr(fit.family, "link", None)
    if type == "link" or link is None:
        return eta, 1.0
    mu = link.mu(eta)
    return mu, np.abs(link.slopes(eta, mu)[0])


def _wanted_terms(fit: Fit, re_form: str | bool | None) -> list[tuple[int, np.ndarray]]:
    """Positions of the wanted terms, and which of their effects (k,) are wanted."""
    design = fit.design
    if re_form is None:
        return [(t, np.ones(len(term.effects), bool)) for t, term in enumerate(design.terms)]
    if re_form is False or (isinstance(re_form, str) and re_form.replace(" ", "") in ("~0", "NA", "~1")):
        return []
    if not isinstance(re_form, str):
        raise FormulaError(f"re_form is None, '~0' or a formula such as '~ (1 | g)', not {re_form!r}")
    found = []
    for bar in parse(re_form).bars:
        labels = ({()} if bar.intercept else set()) | set(bar.terms)
        match = [t for t, own in enumerate(design.bars) if own.group == bar.group and labels <= _labels(own)]
        if not match:
            known = ", ".join(own.to_r() for own in design.bars)
            raise FormulaError(
                f"re_form asks for {bar.to_r()}, which the model does not have; it has {known}", re_form
            )
        found.append((match[0], _effects(design, match[0], labels)))
    return found


def _labels(bar: Any) -> set[Any]:
    return ({()} if bar.intercept else set()) | set(bar.terms)


def _effects(design: Any, t: int, labels: set[Any]) -> np.ndarray:
    """(k,) whether each effect of term t belongs to one of the labels."""
    bar, coding = design.bars[t], design.random_codings[t]
    names = [(), *bar.terms]
    return np.array([names[a] in labels for a in coding.assign])


def _training_rows(fit: Fit, wanted: Sequence[tuple[int, np.ndarray]]) -> _Rows:
    d = fit.design
    return _Rows(
        d.X, tuple(t for t, _ in wanted), tuple(d.terms[t].codes for t, _ in wanted),
        tuple(d.terms[t].columns * keep for t, keep in wanted), d.offset, d.index, np.zeros(d.n, bool),
    )  # fmt: skip


def _new_rows(
    fit: Fit, newdata: Any, wanted: Sequence[tuple[int, np.ndarray]], offset: Any, allow_new_levels: bool
) -> _Rows:
    terms = tuple(t for t, _ in wanted)
    found = fit.design.new(newdata, terms=terms, offset=offset)
    missing = np.isnan(found.X).any(axis=1)
    if not allow_new_levels:
        _refuse_new_levels(fit, terms, found, missing)
    columns = tuple(c * keep for c, (_, keep) in zip(found.columns, wanted, strict=True))
    return _Rows(found.X, terms, found.codes, columns, found.offset, found.index, missing)


def _refuse_new_levels(fit: Fit, terms: Sequence[int], found: NewRows, missing: np.ndarray) -> None:
    """Raise for rows whose level the model does not know, or is missing."""
    way = "Pass allow_new_levels=True to predict with a random effect of zero"
    for t, unknown, absent in zip(terms, found.new_levels, found.absent, strict=True):
        group = fit.design.bars[t].group
        if unknown:
            listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise DataError(f"{group} has levels that the model does not know: {listed}. {way}")
        rows = found.index[absent & ~missing]
        if len(rows):
            listed = ", ".join(map(shown, rows[:5])) + (", ..." if len(rows) > 5 else "")
            raise DataError(f"{group} is missing in {len(rows)} row(s) of newdata: {listed}. {way}")


def _variance(fit: Fit, rows: _Rows) -> np.ndarray:
    """(m,) variance of the predicted conditional mean."""
    scale, C = fit.sigma**2, fit.XtVinvX_inv
    if not rows.terms:
        return scale * np.einsum("ij,jk,ik->i", rows.X, C, rows.X)
    kernel = fit.kernel
    sqrt_w = kernel.A.sqrt_w
    Xs = fit.design.X if sqrt_w is None else fit.design.X * sqrt_w[:, None]
    ZX = [block.products(Xs.T) for block in kernel.A.blocks]  # (p, K, L) = X'WZ
    out = np.empty(len(rows.X))
    for start in range(0, len(out), CHUNK):
        part = slice(start, start + CHUNK)
        z, extra = _indicator_rows(fit, rows, part)
        Nz = fit.state.solve_random(z)
        quadratic = sum(np.einsum("rkl,rkl->r", a, b) for a, b in zip(z, Nz, strict=True))
        d = rows.X[part] - sum(np.einsum("pkl,rkl->rp", a, b) for a, b in zip(ZX, Nz, strict=True))
        out[part] = scale * (quadratic + extra + np.einsum("ij,jk,ik->i", d, C, d))
    return out


def _indicator_rows(fit: Fit, rows: _Rows, part: slice) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of Z per block (r, K, L) in the kernel's coordinates, and z'Sigma z of levels that are new."""
    blocks = fit.kernel.A.blocks
    r = len(rows.X[part])
    z = [np.zeros((r, block.K, block.L)) for block in blocks]
    extra, row = np.zeros(r), np.arange(r)
    for t, codes, columns in zip(rows.terms, rows.codes, rows.columns, strict=True):
        b, at = _place(fit, t)
        known = codes[part] >= 0
        z[b][row[known], at : at + columns.shape[1], codes[part][known]] = columns[part][known]
        half = columns[part] @ fit.working.Lambda[t]
        extra += np.where(known, 0.0, np.einsum("ij,ij->i", half, half))
    for block, values in zip(blocks, z, strict=True):
        if block.frame is not None:
            values[:] = np.einsum("rkl,kj->rjl", values, block.frame)
    return z, extra


def _place(fit: Fit, t: int) -> tuple[int, int]:
    """Block of a term, and the position of its first effect in it."""
    for b, block in enumerate(fit.kernel.A.blocks):
        if t in block.terms:
            before = block.terms[: block.terms.index(t)]
            return b, sum(len(fit.design.terms[s].effects) for s in before)
    raise AssertionError(f"term {t} is in no block")


def _padded(fit: Fit, values: Any) -> Any:
    """NaN at the rows that na_action="exclude" left out."""
    d = fit.design
    if d.na_action != "exclude" or d.rows is None:
        return values
    full = np.full((d.n_input, *np.shape(values)[1:]), np.nan)
    full[d.rows] = np.asarray(values)
    if isinstance(values, pd.DataFrame):
        return pd.DataFrame(full, index=d.source.index, columns=values.columns)
    return pd.Series(full, index=d.source.index, name=values.name)
