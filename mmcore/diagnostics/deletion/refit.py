"""Refits without some rows: everything estimated anew, from downdated products and a warm start."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...design.build import Design
from ...design.rank import independent_columns
from ...errors import DataError, DesignError, FitError
from ...kernels.criterion import Criterion, estimates
from ...kernels.downdate import without
from ...optimize.control import Control
from ...optimize.newton import minimize
from ...results.fit import Fit

__all__ = ["Refits", "canonical", "refit_set", "refit_sets", "stack", "take"]

UNDETERMINED = 1e-10  # smallest eigenvalue of S S_full^-1 below which the rows left do not determine beta
CONTROL = Control(decrement=1e-13)


@dataclass(frozen=True, slots=True)
class Refits:
    """Estimates of U refits; arrays have U as their first axis."""

    par: np.ndarray  # (U, n_par) covariance parameters
    f: np.ndarray  # (U,) criterion
    beta: np.ndarray  # (U, p) NaN for coefficients that the rows left do not determine
    cov: np.ndarray  # (U, p, p) (X'V^-1X)^-1, relative to sigma^2
    sigma: np.ndarray  # (U,)
    converged: np.ndarray  # (U,) bool
    determined: np.ndarray  # (U,) bool: X has full rank on the rows left
    error: np.ndarray  # (U,) estimated error of par: 0 for iterated refits

    def put(self, at: np.ndarray, other: Refits) -> None:
        """Overwrite the units ``at`` by those of another family."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[at] = getattr(other, name)


def stack(parts: list[Refits]) -> Refits:
    """Families one after the other."""
    return Refits(
        *(np.concatenate([getattr(x, name) for x in parts]) for name in Refits.__dataclass_fields__)
    )


def take(refits: Refits, at: np.ndarray) -> Refits:
    """Some of the units."""
    return Refits(*(getattr(refits, name)[at] for name in Refits.__dataclass_fields__))


def canonical(fit: Fit, par: np.ndarray) -> np.ndarray:
    """(U, n_par) parameters with the signs that theta has."""
    cov, out = fit.covariance, par.copy()
    for i in np.flatnonzero((par[:, cov.scale_index()] < 0).any(axis=1)):
        out[i] = cov.canonical(par[i])
    return out


def refit_set(fit: Fit, gone: np.ndarray, start: np.ndarray | None = None) -> Refits:
    """One refit without the rows ``gone``, warm-started at ``start`` or the full fit's parameters."""
    if fit.family is not None:
        return _on_fewer_columns(fit, gone)
    full = fit.working.criterion_fn
    kernel = without(full.kernel, gone)
    criterion = Criterion(kernel, full.covariance, full.like)
    if not _determined(fit, criterion):
        return _on_fewer_columns(fit, gone)
    start = np.array(fit.par) if start is None or not np.isfinite(start).all() else start
    try:
        optimum = minimize(criterion, start, full.covariance.scale_index(), CONTROL)
    except FitError:
        return _failed(fit)
    beta, cov, sigma = estimates(kernel.A, optimum.factor)
    par = optimum.objective.covariance.to_standard(optimum.par)
    return _single(par, optimum.f, beta, cov, sigma, optimum.status.ok, True)


def refit_sets(fit: Fit, sets: list[np.ndarray], start: np.ndarray | None = None) -> Refits:
    """Refits of several sets, one after the other; ``start`` (U, n_par) are parameters to start from."""
    return stack([refit_set(fit, rows, None if start is None else start[i]) for i, rows in enumerate(sets)])


def _single(par, f, beta, cov, sigma, converged, determined) -> Refits:
    return Refits(
        par[None], np.array([f]), beta[None], cov[None], np.array([sigma]),
        np.array([converged]), np.array([determined]), np.zeros(1),
    )  # fmt: skip


def _determined(fit: Fit, criterion: Criterion) -> bool:
    """Whether the rows left determine beta."""
    p = criterion.kernel.A.p
    if not p:
        return True
    try:
        S = criterion.factor(fit.par).S[:p, :p]
    except FitError:
        return False
    LS_inv = fit.state.profile.LS_inv[:p, :p]
    return bool(np.linalg.eigvalsh(LS_inv @ S @ LS_inv.T)[0] > UNDETERMINED)


def _failed(fit: Fit) -> Refits:
    p, k = fit.design.p, fit.covariance.n_par
    nan = np.full((p, p), np.nan)
    return _single(np.full(k, np.nan), np.nan, nan[0] if p else np.zeros(0), nan, np.nan, False, True)


def _on_fewer_columns(fit: Fit, gone: np.ndarray) -> Refits:
    """The refit on the columns of X that the rows left determine; the other coefficients are NaN.

    Columns are taken in order, each unless earlier ones span it, as R drops them.
    """
    smaller, columns = _smaller(fit.design, gone)
    try:
        other = fit.fit_to(smaller)
        cov = other.vcov_values / other.sigma**2
    except (FitError, DesignError, DataError):
        return _failed(fit)
    return _spread(fit, other, columns, cov)


def _smaller(design: Design, gone: np.ndarray) -> tuple[Design, np.ndarray]:
    """The design without some rows, on the columns of X that the others determine; positions of these
    columns.

    Coding and levels stay; levels without rows are harmless.
    """
    keep = np.setdiff1d(np.arange(design.n), gone)
    columns = independent_columns(design.X[keep])
    smaller = replace(
        design,
        y=design.y[keep],
        X=design.X[np.ix_(keep, columns)],
        x_names=tuple(design.x_names[j] for j in columns),
        terms=tuple(replace(t, codes=t.codes[keep], columns=t.columns[keep]) for t in design.terms),
        weights=None if design.weights is None else design.weights[keep],
        offset=None if design.offset is None else design.offset[keep],
        index=design.index[keep],
        rows=keep if design.rows is None else design.rows[keep],
    )
    return smaller, columns


def _spread(fit: Fit, other: Fit, columns: np.ndarray, cov: np.ndarray) -> Refits:
    """The estimates of a fit on some columns, NaN for the others."""
    p = fit.design.p
    beta, full = np.full(p, np.nan), np.full((p, p), np.nan)
    beta[columns] = other.beta
    full[np.ix_(columns, columns)] = cov
    # components multiply by sigma^2: theta of a generalized model is relative to another scale
    par = np.array(other.par if fit.family is None else other.theta * (other.random_scale / other.sigma))
    return _single(par, other.criterion, beta, full, other.sigma, other.converged, len(columns) == p)
