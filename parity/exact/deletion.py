"""Deletion refits of a proved fit, each proved in its turn: the model without a row, or without a level."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from mmcore.errors import MixedModelError
from parity.exact.balls import Ball, NotEnclosed, diagonal_of, inverse
from parity.exact.lmm import Point
from parity.exact.measures import Dense, Labelled, theta
from parity.exact.prove import ProvedFit, prove


@dataclass(frozen=True, slots=True)
class Refit:
    """The model without one unit; `found` is None where it cannot be fitted or not be proved."""

    unit: str
    found: ProvedFit | None
    trouble: str = ""


def refits(fit: ProvedFit, units: Mapping[str, Sequence[int]], digits: int) -> tuple[Refit, ...]:
    """One proved refit per unit, with the criterion of the whole fit (REML or ML)."""
    return tuple(_refit(fit, unit, rows, digits) for unit, rows in units.items())


def _refit(fit: ProvedFit, unit: str, rows: Sequence[int], digits: int) -> Refit:
    data = fit.at.data
    keep = np.ones(data.n, dtype=bool)
    keep[list(rows)] = False
    try:
        return Refit(unit, prove(data.design.take(keep), reml=data.reml, digits=digits))
    except (MixedModelError, NotEnclosed) as error:
        return Refit(unit, None, f"{type(error).__name__}: {error}")


def row_units(dense: Dense) -> dict[str, list[int]]:
    """Every row by itself."""
    return {label: [i] for i, label in enumerate(dense.rows)}


def deletion_measures(fit: ProvedFit, found: Sequence[Refit], suffix: str) -> dict[str, Labelled]:
    """What the refits say: their estimates, and how far beta and its covariance moved.

    Cook's distance d'C^-1 d / p, MDFFITS d'C_i^-1 d / p, COVTRACE |tr(C^-1 C_i) - p|, COVRATIO det C_i / det
    C with d = beta - beta_i, C and C_i the covariances of beta, each with its own sigma."""
    at = fit.at
    names = list(at.data.design.x_names)
    pairs = [f"{a}|{b}" for a in names for b in names]
    out: dict[str, Labelled] = {
        "deletion_criterion": _collect(found, [""], lambda m: [m.criterion]),
        "deletion_sigma": _collect(found, [""], lambda m: [m.sigma2.sqrt()]),
        "deletion_theta": _collect(found, theta(at)[0], lambda m: theta(m)[1]),
        "deletion_fixef": _collect(found, names, lambda m: m.beta.entries()),
        "deletion_vcov_fixef": _collect(found, pairs, lambda m: (m.C * m.sigma2).entries()),
    }
    for name, measure in _REFIT.items():
        out[name] = _collect(found, [""], lambda m, measure=measure: [measure(at, m)])  # type: ignore[misc]
    return {f"{name}{suffix}": value for name, value in out.items()}


def _collect(found: Sequence[Refit], parts: Sequence[str], read: Callable[[Point], list[Ball]]) -> Labelled:
    labels: list[str] = []
    values: list[Ball] = []
    for refit in found:
        labels += [f"{refit.unit}|{part}" if part else refit.unit for part in parts]
        numbers = [] if refit.found is None else read(refit.found.at)
        values += numbers if len(numbers) == len(parts) else [arb("nan")] * len(parts)
    return labels, values


def _same_columns(a: Point, b: Point) -> bool:
    return a.data.design.x_names == b.data.design.x_names


def _cooks_distance(full: Point, refit: Point) -> Ball:
    if not _same_columns(full, refit):
        return arb("nan")
    d = full.beta - refit.beta
    return (d.transpose() * full.XtVX * d)[0, 0] / (full.sigma2 * full.data.p)


def _mdffits(full: Point, refit: Point) -> Ball:
    if not _same_columns(full, refit):
        return arb("nan")
    d = full.beta - refit.beta
    return (d.transpose() * refit.XtVX * d)[0, 0] / (refit.sigma2 * full.data.p)


def _covtrace(full: Point, refit: Point) -> Ball:
    if not _same_columns(full, refit):
        return arb("nan")
    trace = sum(diagonal_of(full.XtVX * refit.C), arb(0)) * refit.sigma2 / full.sigma2
    return abs(trace - full.data.p)


def _covratio(full: Point, refit: Point) -> Ball:
    if not _same_columns(full, refit):
        return arb("nan")
    ratio = (refit.sigma2 / full.sigma2) ** full.data.p
    return ratio * inverse(refit.XtVX, "X'V^-1X").det() * full.XtVX.det()


_REFIT: dict[str, Callable[[Point, Point], Ball]] = {
    "cooks_distance_refit": _cooks_distance,
    "mdffits_refit": _mdffits,
    "covtrace_refit": _covtrace,
    "covratio_refit": _covratio,
}
