"""Wald tests of linear hypotheses about the fixed effects, by name, text or matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataError
from ...results.fit import Fit
from ..df.denominators import denominator, two_sided
from .hypothesis_text import parse_hypotheses

__all__ = ["WaldTest", "wald_test"]

CONSISTENT = 1e-8  # relative size of what right sides may ask of rows that repeat others


@dataclass(frozen=True, slots=True)
class WaldTest:
    """The hypotheses one by one, and all together."""

    contrasts: pd.DataFrame  # a row per hypothesis: estimate, rhs, std.error, statistic, df, p.value
    joint: pd.Series  # NumDF, DenDF, F value, Pr(>F); with infinite DenDF F times NumDF is chi-squared
    L: pd.DataFrame  # (q, p)

    def __repr__(self) -> str:
        F = self.joint
        head = f"F({F['NumDF']:g}, {F['DenDF']:.5g}) = {F['F value']:.5g}, p = {F['Pr(>F)']:.4g}"
        return f"{self.contrasts.to_string()}\n{head}"


def wald_test(
    fit: Fit,
    L: Any,
    rhs: float | Sequence[float] | None = None,
    *,
    ddf: str | None = "satterthwaite",
) -> WaldTest:
    """Test L beta = rhs.

    Parameters
    ----------
    fit : a linear or generalised model, with or without random effects.
    L : text such as ``"Days = 10, x - z = 0"`` or a list of such texts; a mapping of labels to texts, or to mappings of
        coefficients to weights; a DataFrame with coefficients as columns (absent ones count zero); or an array (q, p)
        or (p,) in the order of ``fit.fixef``.
    rhs : right sides of a matrix or mapping; default 0. Text has its own.
    ddf : ``"satterthwaite"``, ``"kenward-roger"``, ``"residual"`` or ``"asymptotic"`` (also None). Models without
        random effects have residual degrees of freedom, generalised ones with known dispersion infinite ones.

    Returns
    -------
    WaldTest
        ``contrasts``, a row per hypothesis: ``estimate`` (of L beta), ``rhs``, ``std.error``, ``statistic``, ``df``,
        ``p.value``; ``joint``: ``NumDF`` (the rank of L), ``DenDF``, ``F value``, ``Pr(>F)``.

    Raises
    ------
    FormulaError
        For text that is not understood, with the place.
    DataError
        For names that are no coefficients, shapes that do not fit, and right sides that contradict each other.

    Notes
    -----
    R: ``lmerTest::contest(fit, L, rhs=, joint=)``, ``pbkrtest::KRmodcomp``, ``car::linearHypothesis``. With
    Satterthwaite the joint df depend on the scale of the rows.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.tests.wald import wald_test
    >>> fit = mm.lmer("score ~ Machine + (1 | Worker/Machine)", mm.load_dataset("Machines"))
    >>> test = wald_test(fit, "MachineB = 8, MachineC - MachineB = 0")
    >>> test.contrasts.round(3)
                             estimate  rhs  std.error  statistic    df  p.value
    MachineB = 8                7.967  8.0      2.177     -0.015  10.0    0.988
    MachineC - MachineB = 0     5.950  0.0      2.177      2.733  10.0    0.021
    >>> test.joint.round(3).to_dict()
    {'NumDF': 2.0, 'DenDF': 10.0, 'F value': 4.952, 'Pr(>F)': 0.032}
    """
    labels, rows, right = _rows(fit, L, rhs)
    names = list(fit.design.x_names)
    _refuse_contradiction(rows, right, labels)
    method = denominator(fit, ddf)
    estimate = rows @ fit.beta
    se = np.sqrt(np.einsum("qi,ij,qj->q", rows, method.vcov, rows))
    df = np.array([method.df(row) for row in rows])
    statistic = (estimate - right) / se
    contrasts = pd.DataFrame(
        {
            "estimate": estimate,
            "rhs": right,
            "std.error": se,
            "statistic": statistic,
            "df": df,
            "p.value": two_sided(statistic, df),
        },
        index=labels,
    )
    F = method.f_test(rows, estimate - right)
    joint = {"NumDF": float(F.num_df), "DenDF": F.den_df, "F value": F.statistic, "Pr(>F)": F.p_value}
    return WaldTest(
        contrasts, pd.Series(joint, name="joint"), pd.DataFrame(rows, index=labels, columns=names)
    )


def _rows(fit: Fit, L: Any, rhs: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = list(fit.design.x_names)
    if isinstance(L, str) or (isinstance(L, list | tuple) and L and all(isinstance(x, str) for x in L)):
        if rhs is not None:
            raise DataError(
                "hypotheses as text have their right side in them: write 'Days = 10', without rhs="
            )
        parts = [parse_hypotheses(text, names) for text in ([L] if isinstance(L, str) else L)]
        labels = [label for part in parts for label in part[0]]
        return labels, np.vstack([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
    if isinstance(L, Mapping):
        return _of_mapping(L, names, rhs)
    if isinstance(L, pd.DataFrame):
        weights = [{str(k): v for k, v in row.items()} for row in L.to_dict("records")]
        return _with_rhs([str(i) for i in L.index], np.array([_row(w, names) for w in weights]), rhs)
    try:
        rows = np.atleast_2d(np.asarray(L, float))
    except (TypeError, ValueError):
        raise DataError(f"L is neither text, a mapping, a DataFrame nor a matrix of numbers: {L!r}") from None
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows) or not np.isfinite(rows).all():
        known = ", ".join(names) or "none"
        raise DataError(f"L has shape {np.shape(L)}; it needs one finite column per coefficient: {known}")
    return _with_rhs([f"L{i}" for i in range(1, len(rows) + 1)], rows, rhs)


def _of_mapping(L: Mapping[Any, Any], names: list[str], rhs: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    labels, rows, right = [], [], []
    for label, each in L.items():
        if isinstance(each, str):
            _, several, values = parse_hypotheses(each, names)
            if len(several) != 1:
                raise DataError(f"{label!r} names {len(several)} hypotheses; give each its own label")
            row, value = several[0], float(values[0])
        elif isinstance(each, Mapping):
            row, value = _row(each, names), 0.0
        else:
            raise DataError(f"{label!r}: give a text, or a mapping of coefficients to weights, not {each!r}")
        labels.append(str(label))
        rows.append(row)
        right.append(value)
    if not rows:
        raise DataError("there is no hypothesis to test: L is empty")
    if rhs is None:
        return labels, np.array(rows), np.array(right)
    return _with_rhs(labels, np.array(rows), rhs)


def _row(weights: Mapping[str, float], names: list[str]) -> np.ndarray:
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise DataError(
            f"no coefficient is named {', '.join(map(repr, unknown))}; there are {', '.join(names)}"
        )
    return np.array([float(weights.get(name, 0.0)) for name in names])


def _with_rhs(labels: list[str], rows: np.ndarray, rhs: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    right = np.zeros(len(rows)) if rhs is None else np.asarray(rhs, float).ravel()
    if right.size == 1:
        right = np.full(len(rows), right[0])
    if len(right) != len(rows) or not np.isfinite(right).all():
        raise DataError(f"rhs needs {len(rows)} finite values, one per hypothesis, got {rhs!r}")
    return labels, rows, right


def _refuse_contradiction(L: np.ndarray, rhs: np.ndarray, labels: Sequence[str]) -> None:
    zero = ~L.any(axis=1)
    if zero.any():
        raise DataError(
            f"hypothesis {labels[int(np.argmax(zero))]!r} has only zeros: it involves no coefficient"
        )
    left, size, _ = np.linalg.svd(L)
    rank = int((size > 1e-8 * size.max()).sum())
    if np.abs(left[:, rank:].T @ rhs).max(initial=0.0) > CONSISTENT * max(1e-300, np.abs(rhs).max()):
        raise DataError(
            "the hypotheses contradict each other: rows of L repeat others with another right side"
        )
