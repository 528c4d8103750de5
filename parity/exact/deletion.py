"""Deletion refits of a proved fit, each proved in its turn: the model without a row, or without a level."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from mmcore.errors import MixedModelError
from parity.exact.balls import Ball, NotEnclosed, diagonal_of, inverse
from parity.exact.lmm import Point
from parity.exact.measures import Dense, Labelled, covariances, varcomp
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
    """What the refits say: their estimates, and how far beta, its covariance and the variances moved.

    With b_i, C_i, v_i of refit i, each with its own sigma: Cook's distance d'C^-1 d / p, MDFFITS
    d'C_i^-1 d / p, COVTRACE |tr(C^-1 C_i) - p|, COVRATIO det C_i / det C, d = b - b_i; RVC v_i / v - 1; and
    lme4's: -d, -d over the standard errors of the refit, (K - p) / (K p) d'C^-1 d with K levels, v_i - v.
    """
    at = fit.at
    p, names, components = at.data.p, list(at.data.design.x_names), varcomp(at)
    pairs = [f"{a}|{b}" for a in names for b in names]
    families = Counter(_family(refit.unit) for refit in found)
    shrink = {family: arb(K - p) / K for family, K in families.items()}
    own: dict[str, tuple[Sequence[str], Callable[[Point], list[Ball]]]] = {
        "deletion_criterion": ([""], lambda m: [m.criterion]),
        "deletion_sigma": ([""], lambda m: [m.sigma2.sqrt()]),
        "deletion_fixef": (names, lambda m: m.beta.entries()),
        "deletion_vcov_fixef": (pairs, lambda m: (m.C * m.sigma2).entries()),
        "deletion_lambda_crossprod": (covariances(at)[0], lambda m: covariances(m)[1]),
        "deletion_varcomp": (components[0], lambda m: varcomp(m)[1]),
        "cooks_distance_refit": ([""], lambda m: [_cooks_distance(at, m)]),
        "mdffits_refit": ([""], lambda m: [_mdffits(at, m)]),
        "covtrace_refit": ([""], lambda m: [_covtrace(at, m)]),
        "covratio_refit": ([""], lambda m: [_covratio(at, m)]),
        "rvc": (components[0], lambda m: [_ratio(v, w) - 1 for v, w in _components(at, m)]),
        "dfbeta_lme4": (names, lambda m: _moved(at, m)),
        "dfbetas_lme4": (names, lambda m: _moved_in_errors(at, m)),
        "dfbeta_varcomp_lme4": (components[0], lambda m: [v - w for v, w in _components(at, m)]),
    }
    out = {name: _collect(found, parts, read) for name, (parts, read) in own.items()}
    units, distances = out["cooks_distance_refit"]
    shrunk = [D * shrink[_family(unit)] for unit, D in zip(units, distances, strict=True)]
    out["cooks_distance_influence_lme4"] = units, shrunk
    return {f"{name}{suffix}": value for name, value in out.items()}


def _family(unit: str) -> str:
    """The grouping factor of a unit, "" for rows: lme4's influence() deletes one family at a time."""
    return unit.partition("|")[0] if "|" in unit else ""


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


def _components(full: Point, refit: Point) -> list[tuple[Ball, Ball]]:
    """Variance components of the refit and of the full fit."""
    return list(zip(varcomp(refit)[1], varcomp(full)[1], strict=True))


def _ratio(v: Ball, w: Ball) -> Ball:
    return v / w if w > 0 or w < 0 else arb("nan")


def _moved(full: Point, refit: Point) -> list[Ball]:
    """Deleted minus full."""
    return (refit.beta - full.beta).entries() if _same_columns(full, refit) else []


def _moved_in_errors(full: Point, refit: Point) -> list[Ball]:
    errors = [(x * refit.sigma2).sqrt() for x in diagonal_of(refit.C)]
    return [d / e for d, e in zip(_moved(full, refit), errors, strict=False)]
