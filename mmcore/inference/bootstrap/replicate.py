"""Estimates from many resampled data sets: in step where the model allows it, one after the other elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...design.build import Design
from ...errors import MixedModelError
from ...glmm.fit import fit_generalized, is_generalized
from ...kernels.criterion import Criterion
from ...lmm.criterion import charted
from ...lmm.fit import fit_design
from ...lmm.lm import LinearFit, fit_linear, is_lm
from ...optimize.control import Control
from ...optimize.newton import minimize
from ...results.fit import Fit
from ..intervals.parameters import Parameter, parameters, values
from .many import Fitted, can_fit_many, fit_many
from .resample import of_clusters, parametric, residual
from .rows import with_response

__all__ = ["BLOCK", "Block", "Plan", "Replicates", "run", "statistic_of", "without_cluster"]

BLOCK = 128  # replicates that share a seed
FLAT = 1e-8  # smallest eigenvalue of a singular relative covariance, in units of the largest or 1

Statistic = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What every replicate does."""

    fit: Fit
    type: str  # parametric | residual | cluster
    codes: np.ndarray | None  # (n,) cluster of each row
    statistic: Statistic | None  # of a fit, in the place of its parameters


@dataclass(frozen=True, slots=True)
class Block:
    """Replicates first ... first + size - 1, drawn from one seed."""

    plan: Plan
    first: int
    size: int
    seed: np.random.SeedSequence


@dataclass(frozen=True, slots=True)
class Replicates:
    """Results of B replicates."""

    values: np.ndarray  # (B, k) NaN where there is none
    converged: np.ndarray  # (B,) bool
    singular: np.ndarray  # (B,) bool
    failures: dict[int, str]  # position -> what went wrong

    @staticmethod
    def empty(B: int, k: int) -> Replicates:
        """Nothing yet."""
        return Replicates(np.full((B, k), np.nan), np.zeros(B, bool), np.zeros(B, bool), {})


def run(blocks: list[Block]) -> Replicates:
    """All replicates of some blocks of one plan."""
    plan, sizes = blocks[0].plan, [b.size for b in blocks]
    if plan.type == "cluster":
        picks = np.concatenate([_picked(b) for b in blocks])
        return _one_by_one(plan, len(picks), lambda i: _of_picked(plan, picks[i]))
    draw = parametric if plan.type == "parametric" else residual
    Y = np.concatenate([draw(plan.fit, b.size, np.random.default_rng(b.seed)) for b in blocks])
    fit = plan.fit
    if plan.statistic is None and is_lm(fit):
        return _least_squares(fit, Y)
    if plan.statistic is None and fit.family is None and fit.design.terms and fit.residual is None:
        return _linear_mixed(fit, Y)
    return _one_by_one(plan, sum(sizes), lambda i: _refitted(fit, fit.design.with_response(Y[i])))


# --- linear mixed models --------------------------------------------------------------------------------------------


def _linear_mixed(fit: Fit, Y: np.ndarray) -> Replicates:
    """The parameters of a linear mixed model for each response."""
    every, offset = parameters(fit), fit.design.offset
    Y = Y if offset is None else Y - offset
    out, left = Replicates.empty(len(Y), len(every)), np.ones(len(Y), bool)
    if can_fit_many(fit.working.criterion_fn):
        found = fit_many(fit.working.criterion_fn, fit.par, Y)
        _store(fit, every, found, out)
        left = ~found.done
    work = charted(fit.working.criterion_fn)[0]
    start = work.covariance.from_standard(fit.par)
    for i in np.flatnonzero(left):
        try:
            _careful(work, start, every, Y[i], out, int(i))
        except MixedModelError as error:
            out.failures[int(i)] = str(error)
    return out


def _store(fit: Fit, every: tuple[Parameter, ...], found: Fitted, out: Replicates) -> None:
    """Parameters of fits made in step."""
    cov, size = fit.working.covariance, np.maximum(1.0, np.trace(found.Sigma, axis1=1, axis2=2))
    C = cov.frames[0]
    Sigma = found.sigma[:, None, None] ** 2 * (C @ found.Sigma @ C.T)
    sd = np.sqrt(np.diagonal(Sigma, axis1=1, axis2=2))
    rows = dict(zip(cov.blocks[0], cov.rows[0], strict=True))
    for k, which in enumerate(every):
        if which.kind == "beta":
            out.values[:, k] = found.beta[:, which.i]
        elif which.kind == "sigma":
            out.values[:, k] = found.sigma
        else:
            i, j = rows[which.term].start + which.i, rows[which.term].start + which.j
            if which.kind == "sd":
                out.values[:, k] = sd[:, i]
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                out.values[:, k] = np.clip(Sigma[:, i, j] / (sd[:, i] * sd[:, j]), -1.0, 1.0)
    out.converged[:] = found.done
    out.singular[:] = np.linalg.eigvalsh(found.Sigma)[:, 0] <= FLAT * size
    out.values[~found.done] = np.nan


def _careful(
    work: Criterion, start: np.ndarray, every: tuple[Parameter, ...], y: np.ndarray, out: Replicates, i: int
) -> None:
    """One response through the optimizer of a single fit."""
    kernel = with_response(work.kernel, y)
    found = minimize(
        Criterion(kernel, work.covariance, work.like), start, work.covariance.scale_index(), Control()
    )
    profile, p, known = found.factor.profile, kernel.A.p, work.like.sigma
    gamma = np.linalg.solve(profile.LS[:p, :p].T, profile.LS[p, :p]) if p else np.zeros(0)
    sigma = float(np.sqrt(profile.rss / profile.nu)) if known is None else known
    covariance = found.objective.covariance
    out.values[i] = values(every, covariance.Lambda(found.par), sigma, kernel.A.beta(gamma))
    out.converged[i] = found.status.ok
    roots = covariance.sigma(found.par)
    out.singular[i] = any(np.linalg.eigvalsh(S)[0] <= FLAT * max(1.0, float(np.trace(S))) for S in roots)


def _least_squares(fit: LinearFit, Y: np.ndarray) -> Replicates:
    """The coefficients and sigma of a linear model for each response: one projection for all."""
    A, design = fit.kernel.A, fit.design
    Y = Y if design.offset is None else Y - design.offset
    Y = Y if A.sqrt_w is None else Y * A.sqrt_w
    Q = A.M[: A.p]
    gamma = Y @ Q.T
    rss = np.square(Y - gamma @ Q).sum(axis=1)
    out = Replicates.empty(len(Y), A.p + 1)
    out.values[:, 0] = np.sqrt(rss / fit.df_resid) if fit.df_resid > 0 else np.nan
    if A.p:
        out.values[:, 1:] = np.linalg.solve(A.R, gamma.T).T
    out.converged[:] = True
    return out


# --- any model ------------------------------------------------------------------------------------------------------


def _one_by_one(plan: Plan, B: int, refit: Callable[[int], Fit]) -> Replicates:
    every = parameters(plan.fit)
    names = [p.name for p in every] if plan.statistic is None else list(statistic_of(plan, plan.fit))
    out = Replicates.empty(B, len(names))
    for i in range(B):
        try:
            fit = refit(i)
            out.converged[i] = fit.converged
            if plan.statistic is not None:
                out.values[i] = list(statistic_of(plan, fit).values())
            else:
                out.values[i] = values(
                    every, fit.factors_of_sigma if fit.design.terms else (), fit.sigma, fit.beta
                )
            out.singular[i] = bool(fit.design.terms) and fit.is_singular
        except MixedModelError as error:
            out.failures[i] = str(error)
    return out


def statistic_of(plan: Plan, fit: Fit) -> dict[str, float]:
    """The statistic of a fit by name."""
    assert plan.statistic is not None
    found = plan.statistic(fit)
    if isinstance(found, pd.Series | Mapping):
        return {str(name): float(value) for name, value in found.items()}
    return {f"t{i + 1}": float(value) for i, value in enumerate(np.atleast_1d(np.asarray(found, float)))}


def _refitted(fit: Fit, design: Design) -> Fit:
    """The model of ``fit`` on another design, started at its estimates."""
    if is_lm(fit):
        return fit_linear(design)
    if is_generalized(fit):
        start = {"theta": fit.theta.to_numpy(), "beta": fit.beta} if fit.is_mixed else None
        return fit_generalized(design, fit.family, nagq=fit.solution.nagq, start=start, quiet=True)
    return fit_design(design, reml=fit.reml, start=fit.theta.to_numpy(), sigma=fit.state.like.sigma)


def _picked(block: Block) -> np.ndarray:
    """(B, L) clusters drawn with replacement."""
    assert block.plan.codes is not None
    L = int(block.plan.codes.max()) + 1
    return np.random.default_rng(block.seed).integers(0, L, size=(block.size, L))


def _of_picked(plan: Plan, picked: np.ndarray) -> Fit:
    assert plan.codes is not None
    return _refitted(plan.fit, of_clusters(plan.fit.design, plan.codes, picked))


def without_cluster(plan: Plan, codes: np.ndarray) -> Replicates:
    """The results without each cluster in turn: a jackknife."""
    L = int(codes.max()) + 1
    return _one_by_one(
        plan,
        L,
        lambda i: _refitted(plan.fit, of_clusters(plan.fit.design, codes, np.delete(np.arange(L), i))),
    )
