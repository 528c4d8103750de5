"""Starting values of a generalized mixed model: fixed effects, charts and standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..covariance.blocks import BlockCovariance
from ..errors import DataError
from ..families.family import Conditional, Working
from ..lmm.fit import checked_theta
from .irls import irls
from .problem import START_RANGE, Problem

__all__ = ["checked_beta", "start_fixed", "start_point"]


def start_point(
    setup: Problem, conditional: Conditional, start: Any
) -> tuple[BlockCovariance, np.ndarray, np.ndarray]:
    """Charted covariance, gamma and par to start from."""
    theta, beta = _given(setup, start)
    if beta is None:
        gamma, at = start_fixed(setup, conditional)
    else:
        gamma = setup.R @ beta
        at = conditional.at(np.zeros(conditional.n) + setup.offset + gamma @ setup.Q)
        if not np.isfinite(at.D):
            raise DataError(f"the given start has means outside the domain of {conditional.family.label()}")
    charts = _charts(setup, conditional, at)
    covariance = setup.covariance.charted(charts)
    if theta is None:
        par = _scaled_start(covariance, _moments(setup, conditional, at, charts))
    else:
        par = covariance.from_standard(setup.covariance.from_theta(theta))
    return covariance, gamma, par


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
    return found.gamma, found.at


def _charts(setup: Problem, conditional: Conditional, at: Working) -> list[np.ndarray]:
    """Diagonal charts in which a standard deviation of order one changes the means by a sizeable part."""
    if not conditional.family.dispersion_known:
        scale = float(
            (conditional.w.mean() / max(at.W.mean(), 1e-300)) ** 0.5
        )  # a residual standard deviation
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


def _moments(
    setup: Problem, conditional: Conditional, at: Working, charts: list[np.ndarray]
) -> list[np.ndarray]:
    """Standard deviations (K,) per block, in the chart, from moments of the scores of the fixed model.

    With r = z's and A = z'Wz of a level, E r^2 = A + A^2 variance, other effects left out of account.
    """
    phi = 1.0 if conditional.family.dispersion_known else at.D / conditional.n
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
