"""Starting values of a generalized mixed model: fixed effects, charts and standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..covariance.blocks import BlockCovariance
from ..errors import DataError, FitError
from ..families.dispersion import Dispersion
from ..families.family import Conditional, Working
from ..kernels.identified import linked_effects, present_in
from ..lmm.fit import checked_theta
from .irls import first_place, irls
from .problem import START_RANGE, Problem

__all__ = ["Start", "checked_beta", "start_dispersion", "start_fixed", "start_point"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where the optimizer begins."""

    covariance: BlockCovariance  # with the charts of its coordinates
    gamma: np.ndarray  # (p,)
    par: np.ndarray  # (n_par,) in these charts
    dispersion: Dispersion | None = None  # where phi is a parameter of the criterion
    log_phi: float = 0.0


def start_point(setup: Problem, conditional: Conditional, start: Any) -> Start:
    """Starting values: those given in ``start``, the others from the model without random effects."""
    theta, beta = _given(setup, start)
    if beta is None:
        gamma, at = start_fixed(setup, conditional)
    else:
        gamma = setup.R @ beta
        at = conditional.at(np.zeros(conditional.n) + setup.offset + gamma @ setup.Q)
        if not np.isfinite(at.D):
            raise DataError(f"the given start has means outside the domain of {conditional.family.label()}")
    dispersion, log_phi, phi = None, 0.0, 1.0
    if setup.is_joint(conditional.family):
        log_phi = start_dispersion(conditional, at)
        dispersion = Dispersion(conditional, log_phi)
        conditional = dispersion.at(log_phi)
        at = conditional.at(at.eta)
    elif not conditional.family.dispersion_known:
        phi = at.D / conditional.n
    charts = _charts(setup, conditional, at, dispersion is not None)
    linked = [linked_effects(present_in(block)) for block in setup.blocks]
    covariance = setup.covariance.charted(charts).separated(linked)
    if theta is None:
        par = _scaled_start(covariance, _moments(setup, at, charts, phi))
    else:
        par = covariance.from_standard(setup.covariance.from_theta(theta))
    return Start(covariance, gamma, par, dispersion, log_phi)


def start_dispersion(conditional: Conditional, at: Working) -> float:
    """log(phi) of the model without random effects.

    FitError where that model leaves no residual: the likelihood has no maximum then.
    """
    if not 4.0 * conditional.rounding(at) < at.D:
        raise FitError(
            "the fixed effects alone explain the response exactly, up to rounding: no dispersion is left to estimate, "
            "and the likelihood has no maximum. Leave out fixed effects, or use mm.glm"
        )
    return Dispersion(conditional).estimate(at.D)


def _given(setup: Problem, start: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    if start is None:
        return None, None
    parts = dict(start) if isinstance(start, Mapping) else {"theta": start}
    unknown = set(parts) - {"theta", "beta", "fixef"}
    if unknown:
        raise DataError(
            f"start has the unknown entries {', '.join(sorted(map(str, unknown)))}; use theta and beta"
        )
    beta = parts.get("beta", parts.get("fixef"))
    theta = parts.get("theta")
    values = None if theta is None else checked_theta(theta, setup.covariance)
    return values, checked_beta(setup, beta)


def checked_beta(setup: Problem, beta: Any) -> np.ndarray | None:
    if beta is None:
        return None
    values, p = np.asarray(beta, float).ravel(), len(setup.Q)
    if len(values) != p or not np.isfinite(values).all():
        raise DataError(f"beta needs {p} finite values for this model, got {len(values)}: {values!r}")
    return values


def start_fixed(setup: Problem, conditional: Conditional) -> tuple[np.ndarray, Working]:
    """Coefficients of the model without random effects: a start, so a rough one will do."""
    found = irls(conditional, setup.Q, setup.offset, tolerance=1e-3)
    if found.converged or not len(setup.Q):
        return found.gamma, found.at
    first = first_place(conditional, setup.Q, setup.offset)  # not at the end of a run to infinity
    if first is None:
        return found.gamma, found.at
    return first, conditional.at(np.zeros(conditional.n) + setup.offset + first @ setup.Q)


def _charts(setup: Problem, conditional: Conditional, at: Working, joint: bool) -> list[np.ndarray]:
    """Diagonal charts in which a standard deviation of order one changes the means by a sizeable part."""
    if joint:
        scale = max(float(at.W.mean()), 1e-300) ** -0.5  # a residual standard deviation on the scale of eta
    elif not conditional.family.dispersion_known:
        scale = float((conditional.w.mean() / max(at.W.mean(), 1e-300)) ** 0.5)  # the same, relative to sigma
    elif conditional.family.link.bounded or conditional.family.link.name == "log":
        scale = 1.0
    else:
        scale = float(np.median(np.abs(at.mu / at.m1)))
    charts = []
    for block in setup.blocks:
        size = np.sqrt(np.square(block.columns).mean(axis=1))
        charts.append(np.diag(scale / np.where(size > 0, size, 1.0)))
    return charts


def _scaled_start(covariance: BlockCovariance, sd: list[np.ndarray]) -> np.ndarray:
    """The structures' start with the standard deviations (K,) of each block as its scales."""
    by_term = [np.empty(0)] * len(covariance.structures)
    for b, terms in enumerate(covariance.blocks):
        for t, rows in zip(terms, covariance.rows[b], strict=True):
            by_term[t] = sd[b][rows]
    par = covariance.start()
    par[covariance.scale_index()] = np.concatenate(
        [
            values if len(values) == len(s.scale_index) else np.full(len(s.scale_index), values.mean())
            for s, values in zip(covariance.structures, by_term, strict=True)
        ]
    )
    return par


def _moments(setup: Problem, at: Working, charts: list[np.ndarray], phi: float) -> list[np.ndarray]:
    """Standard deviations (K,) per block, in the chart, from moments of the scores of the fixed model.

    With r = z's and A = z'Wz of a level, E r^2 / phi = A + A^2 variance, other effects left out of account.
    """
    out = []
    for block, C in zip(setup.blocks, charts, strict=True):
        sd = np.empty(block.K)
        for a, z in enumerate(block.columns):
            r = np.bincount(block.codes, z * at.s, block.L)
            A = np.bincount(block.codes, z * z * at.W, block.L)
            excess = float((r @ r / phi - A.sum()) / max(A @ A, 1e-300))
            sd[a] = np.sqrt(max(excess, 0.0)) / C[a, a]
        out.append(np.clip(sd, *START_RANGE))
    return out
