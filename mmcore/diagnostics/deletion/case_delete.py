"""Exact deletion: every unit taken out and the whole model estimated again, theta and sigma included."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from ...covariance.structure import SINGULAR
from ...errors import ConvergenceWarning, MixedModelWarning, warn
from ...glmm.residual import require_residual
from ...kernels.batched import PairProducts
from ...kernels.one_factor import OneFactor
from ...lmm.lm import is_lm
from ...results.argument import of_fit
from ...results.fit import Fit
from ...results.progress import Progress, spread
from ...results.workspace import need_fixed
from ..refitted import Refitted, measure
from ..units import Units, groups_of, pad, units
from ..varcomp import component_names, components, full_components
from .batched import batched_refits, can_batch
from .expansion import TOLERANCE, can_expand, expanded_refits
from .refit import Refits, refit_sets, stack

__all__ = ["CaseDeletion", "LmeInfluence", "case_delete", "influence", "rvc"]

EACH = 400  # rows up to which a model that cannot be batched is refitted for each of them
CHECKED = 20  # rows that moved most among expanded ones: refitted, and the others judged by them
BATCH_WORK = 2e9  # rows x levels x effects^2 up to which every row gets its own Newton steps
PAIRS_BYTES = 5e8
REFIT_ERROR = 1e-7  # of theta in iterated refits: what expansions cannot be blamed for


@of_fit
def case_delete(
    fit: Fit, level: Hashable = 1, *, delete: Any = None, progress: bool = False, executor: Any = None
) -> CaseDeletion:
    """Refit the model without each row, each level of a grouping factor, or the sets given; fully converged.

    Criterion (REML or ML), weights, offset and coding are those of the fit; HLMdiag's case_delete refits by
    REML without weights whatever the fit was, and not at all for crossed factors.

    Parameters
    ----------
    level, delete : as for :func:`cooks_distance`.
    progress : show a bar on standard error.
    executor : where refits that are made one by one run: None, the name of a joblib backend, a
    joblib.Parallel, a
        Dask client, or an object with ``submit`` or ``map``.

    Returns
    -------
    CaseDeletion: estimates by unit, and the measures that follow from them.

    How
    ---
    One grouping factor: Newton with exact Hessians, batched over deletions. Rows of other models:
    expansions of all deletion criteria around shared values of theta, with an estimate of the error of
    theta; rows above 1e-6 and the 20 that move most are refitted one by one, and the error estimates are
    raised by what these show. Groups and sets: downdated products and a warm start. Units in trouble are
    given to the optimizer of the fit.
    """
    require_residual(fit, "is no scale for the changes")
    u = units(fit, level, delete)
    show = Progress(len(u), progress)
    result = CaseDeletion(fit, u, _refits(fit, u, show, executor))
    _warn(result)
    return result


def _refits(fit: Fit, u: Units, show: Progress, executor: Any) -> Refits:
    if fit.family is not None:
        return _one_by_one(fit, u.rows(), None, show, executor)
    kernel = fit.kernel
    if can_batch(fit, u) and isinstance(kernel, OneFactor) and _affordable(kernel, len(u)):
        expand = u.is_rows and can_expand(fit)
        start = expanded_refits(fit, centers=0).par if expand else np.repeat(fit.par[None], len(u), axis=0)
        start = np.where(np.isfinite(start) & (np.array(fit.par) != 0), start, fit.par)
        return batched_refits(fit, u, start, show)
    if u.is_rows and can_expand(fit) and (len(u) > EACH or not len(fit.par)):
        return _checked(fit, u, expanded_refits(fit), show, executor)
    return _one_by_one(fit, u.rows(), None, show, executor)


def _affordable(kernel: OneFactor, U: int) -> bool:
    work = U * kernel.block.L * kernel.block.K**2
    return work < BATCH_WORK and PairProducts.nbytes(kernel) < PAIRS_BYTES


def _one_by_one(
    fit: Fit, sets: list[np.ndarray], start: np.ndarray | None, show: Progress, executor: Any
) -> Refits:
    """Refits of sets in tasks of a few each."""
    size = 1 if executor is None else max(1, len(sets) // 64)
    spans = [slice(i, i + size) for i in range(0, len(sets), size)]
    tasks = [(sets[s], None if start is None else start[s]) for s in spans]
    return stack(spread(partial(_task, fit), tasks, executor, lambda task: show(len(task[0]))))


def _task(fit: Fit, task: tuple[list[np.ndarray], np.ndarray | None]) -> Refits:
    return refit_sets(fit, *task)


def _checked(fit: Fit, u: Units, out: Refits, show: Progress, executor: Any) -> Refits:
    """Expanded refits, those that are inaccurate or moved most replaced by iterated ones."""
    rows = u.rows()
    bad = np.flatnonzero(~(out.error <= TOLERANCE))
    if len(fit.par):
        moved = np.where(np.isfinite(out.error), np.abs(out.par - fit.par).max(axis=1), np.inf)
        bad = np.union1d(bad, np.argsort(-moved)[:CHECKED])
    show(len(u) - len(bad))
    while len(bad):
        said = out.error[bad]
        exact = _one_by_one(fit, [rows[i] for i in bad], out.par[bad], show, executor)
        seen = np.abs(exact.par - out.par[bad]).max(axis=1, initial=0.0)
        out.put(bad, exact)
        judged = said <= TOLERANCE
        ratio = float((seen[judged] / np.maximum(said[judged], REFIT_ERROR)).max(initial=0.0))
        if not ratio > 1.0:
            break
        out.error[:] = out.error * ratio
        bad = np.flatnonzero(out.error > TOLERANCE)
        show.total += len(bad)
    return out


@dataclass(frozen=True)
class CaseDeletion(Refitted):
    """Estimates without each unit, and how they differ from those of all rows.

    Everything is labelled by the units of ``level``: rows by label, levels by name in order of first
    appearance. With one anonymous set there is one row, labelled ``deleted``.
    """

    fit: Fit  # of all rows
    units: Units
    refits: Refits  # arrays, units first

    @property
    def level(self) -> Hashable:
        """1 if rows were left out, or the name of the grouping factor."""
        return self.units.level

    def _series(self, values: np.ndarray, name: str) -> pd.Series:
        values, index = self._labelled(values)
        return pd.Series(values, index=index, name=name)

    def _frame(self, values: np.ndarray, columns: list[str]) -> pd.DataFrame:
        values, index = self._labelled(values)
        return pd.DataFrame(values, index=index, columns=columns)

    def _labelled(self, values: np.ndarray) -> tuple[np.ndarray, pd.Index]:
        return pad(self.fit, values) if self.units.is_rows else (values, self.units.labels)

    @property
    def fixef(self) -> pd.DataFrame:
        """Fixed effects: units x coefficients; NaN where the rows left do not determine one."""
        return self._frame(self.refits.beta, list(self.fit.design.x_names))

    @property
    def vcov(self) -> np.ndarray:
        """(U, p, p) covariance of the fixed effects, sigma^2 of the refit included; units in order."""
        return self.refits.cov * self.refits.sigma[:, None, None] ** 2

    @property
    def theta(self) -> pd.DataFrame:
        """Covariance parameters in lme4's order: units x theta."""
        cov = self.fit.covariance
        par = self.refits.par
        values = par if cov.bounds is None else np.array([cov.theta(x) for x in par]).reshape(len(par), -1)
        return self._frame(values, list(self.fit.theta.index))

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviation."""
        return self._series(self.refits.sigma, "sigma")

    @property
    def criterion(self) -> pd.Series:
        """REML criterion or -2 log-likelihood of the rows left, as the fit's own ``criterion``."""
        values = _lm_criterion(self) if is_lm(self.fit) else self.refits.f
        return self._series(values, "criterion")

    @property
    def varcomp(self) -> pd.DataFrame:
        """Variance components as :func:`varcomp` names them: units x components."""
        return self._frame(
            components(self.fit, self.refits.par, self.refits.sigma), component_names(self.fit)
        )

    @cached_property
    def status(self) -> pd.DataFrame:
        """What to know about each refit.

        ``converged``; ``singular``: a variance is zero or a correlation +-1; ``determined``: the rows left
        determine all fixed effects; ``lost``: levels of *other* factors that are gone with the unit, as
        ``factor: level, ...``, and factors left with one level; ``theta_error``: estimated error of theta
        where it was expanded rather than iterated, else 0.
        """
        values = {
            "converged": self.refits.converged,
            "singular": self._singular(),
            "determined": self.refits.determined,
            "lost": _lost_levels(self.fit, self.units),
            "theta_error": self.refits.error,
        }
        table = pd.DataFrame(values, index=self.units.labels)
        return table.reindex(self._labelled(np.empty(len(table)))[1]) if self.units.is_rows else table

    def _singular(self) -> np.ndarray:
        cov, par = self.fit.covariance, self.refits.par
        if cov.bounds is None:
            scales = par[:, cov.scale_index()]
            return (np.abs(scales) < SINGULAR).any(axis=1)
        return np.array([any(np.abs(np.diag(L)).min() < SINGULAR for L in cov.Lambda(x)) for x in par])

    # ---- measures -----------------------------------------------------------------------------------------

    @property
    def _delta(self) -> np.ndarray:
        return self.fit.beta - self.refits.beta

    @property
    def _full_vcov(self) -> np.ndarray:
        need_fixed(self.fit.design.p)
        return self.fit.vcov.to_numpy()

    def measure_values(self) -> dict[str, np.ndarray]:
        """(U,) values of every measure, in the names of the columns of :func:`mmcore.hlm_influence`."""
        change = self._relative_change()
        values = {
            "cooksd": self._cooksd(), "mdffits": self._mdffits(), "covtrace": self._covtrace(),
            "covratio": self._covratio(),
        }  # fmt: skip
        return values | {f"rvc.{name}": change[:, i] for i, name in enumerate(component_names(self.fit))}

    def measures(self) -> pd.DataFrame:
        """All measures beside each other: units x measures."""
        values = self.measure_values()
        return self._frame(np.column_stack(list(values.values())), list(values))

    def value(self, name: str) -> Any:
        """The measure that the public function ``name`` gives."""
        found = getattr(self, "measures" if name == "hlm_influence" else name)
        return found() if callable(found) else found

    def dfbeta(self) -> Any:
        """Full minus deleted fixed effects, as R's dfbeta for ``lm``; lme4's influence() has the other
        sign.
        """
        return self.units.frame(self._delta, self.fit.design.x_names)

    def dfbetas(self) -> Any:
        """:meth:`dfbeta` over the standard errors of the refit."""
        se = np.sqrt(np.diagonal(self.vcov, axis1=1, axis2=2))
        return self.units.frame(self._delta / se, self.fit.design.x_names)

    def cooks_distance(self) -> Any:
        """(b - b_(i))' C^-1 (b - b_(i)) / p with C = vcov of the full fit."""
        return self.units.series(self._cooksd(), "cooksd")

    def mdffits(self) -> Any:
        """(b - b_(i))' C_(i)^-1 (b - b_(i)) / p with C_(i) = vcov of the refit."""
        return self.units.series(self._mdffits(), "mdffits")

    def covtrace(self) -> Any:
        """|tr(C^-1 C_(i)) - p|."""
        return self.units.series(self._covtrace(), "covtrace")

    def covratio(self) -> Any:
        """det C_(i) / det C; below 1 where the refit is more precise."""
        return self.units.series(self._covratio(), "covratio")

    def rvc(self) -> Any:
        """Relative variance change: component of the refit over that of the full fit, minus 1.

        A component that is zero in the full fit gives infinity, or NaN if it stays zero.
        """
        return self.units.frame(self._relative_change(), component_names(self.fit))

    def _cooksd(self) -> np.ndarray:
        C, d = self._full_vcov, self._delta
        return (d * np.linalg.solve(C, d.T).T).sum(axis=1) / len(C)

    def _mdffits(self) -> np.ndarray:
        need_fixed(self.fit.design.p)
        d, good = self._delta, self._good
        out = np.full(len(d), np.nan)
        scaled = np.linalg.solve(self.vcov[good], d[good][:, :, None])[:, :, 0]
        out[good] = (d[good] * scaled).sum(axis=1) / d.shape[1]
        return out

    def _covtrace(self) -> np.ndarray:
        C = self._full_vcov
        return np.abs(np.einsum("ij,uji->u", np.linalg.inv(C), self.vcov) - len(C))

    def _covratio(self) -> np.ndarray:
        half = np.linalg.inv(np.linalg.cholesky(self._full_vcov))
        out = np.full(len(self.units), np.nan)
        out[self._good] = np.linalg.det(half @ self.vcov[self._good] @ half.T)
        return out

    def _relative_change(self) -> np.ndarray:
        full = full_components(self.fit)
        with np.errstate(divide="ignore", invalid="ignore"):
            return components(self.fit, self.refits.par, self.refits.sigma) / full - 1.0

    @property
    def _good(self) -> np.ndarray:
        return np.isfinite(self.vcov).all(axis=(1, 2))


def _lm_criterion(case: CaseDeletion) -> np.ndarray:
    """(U,) -2 log-likelihood of linear models at the ML variance."""
    design, p = case.fit.design, case.fit.design.p
    w = np.ones(design.n) if design.weights is None else design.weights
    gone = case.units.rows()
    counted = np.array([(w[r] > 0).sum() for r in gone])
    log_w = np.log(w, where=w > 0, out=np.zeros(design.n))
    n = int((w > 0).sum()) - counted
    rss = case.refits.sigma**2 * (n - p)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            n * (1.0 + np.log(2 * np.pi * rss / n)) - log_w.sum() + np.array([log_w[r].sum() for r in gone])
        )


def _lost_levels(fit: Fit, u: Units) -> np.ndarray:
    """(U,) text per unit: levels of other factors that have all their rows in it, factors left with one
    level.
    """
    out = np.full(len(u), "", dtype=object)
    unit = _unit_of_row(fit, u)
    if unit is None:
        for i, rows in enumerate(u.rows()):  # overlapping sets: one at a time
            out[i] = _lost_levels(fit, Units(fit, u.level, u.labels[[i]], None, (rows,)))[0]
        return out
    for group in groups_of(fit):
        term = next(t for t in fit.design.terms if t.group == group)
        owner = np.full(len(term.levels), -1)
        owner[term.codes] = unit
        whole = np.ones(len(term.levels), dtype=bool)
        np.logical_and.at(whole, term.codes, unit == owner[term.codes])
        gone = np.flatnonzero(whole & (owner >= 0))
        if not (group == u.level and u.codes is not None):
            for k in gone:
                out[owner[k]] = _with_level(out[owner[k]], group, str(term.labels[k]))
        left = len(term.levels) - np.bincount(owner[gone], minlength=len(u))
        for lone in np.flatnonzero(left < 2):
            out[lone] = (f"{out[lone]}; " if out[lone] else "") + f"{group} has one level left"
    return out


def _unit_of_row(fit: Fit, u: Units) -> np.ndarray | None:
    """(n,) unit that holds each row, -1 for none; None if sets overlap."""
    if u.codes is not None:
        return u.codes
    out = np.full(fit.design.n, -1)
    for i, rows in enumerate(u.rows()):
        if (out[rows] >= 0).any():
            return None
        out[rows] = i
    return out


def _with_level(text: str, group: str, level: str) -> str:
    if f"{group}: " in text:
        return f"{text}, {level}"
    return f"{text}; {group}: {level}" if text else f"{group}: {level}"


def _warn(result: CaseDeletion) -> None:
    """One warning per kind of trouble."""
    r, labels = result.refits, result.units.labels
    for there, kind, what in [
        (~r.converged, ConvergenceWarning, "did not converge"),
        (~r.determined, MixedModelWarning, "do not determine all fixed effects: those coefficients are NaN"),
    ]:
        if there.any():
            names = ", ".join(map(str, labels[there][:5])) + (", ..." if there.sum() > 5 else "")
            warn(f"{int(there.sum())} of {len(labels)} refits {what} (without {names}); see .status", kind)


@measure
def rvc(fit: Fit, level: Hashable = 1, *, delete: Any = None) -> Any:
    """Relative change of the variance components on deletion, from full refits: component_(i) / component -
    1.

    Columns ``sigma2``, ``D11``, ... as :func:`varcomp` names them. A positive value means that the
    component grows without the unit. HLMdiag's rvc; for the criterion of the fit (HLMdiag: always REML),
    crossed factors too.
    """
    return case_delete(fit, level, delete=delete).rvc()


_OF_LME4 = ("dfbeta", "dfbetas", "cooks_distance", "varcomp")


@dataclass(frozen=True)
class LmeInfluence(Refitted):
    """What lme4's influence() keeps: refits without each unit, in lme4's signs and scales."""

    deletion: CaseDeletion

    @property
    def level(self) -> Hashable:
        """1 if rows were left out, or the name of the grouping factor."""
        return self.deletion.level

    def value(self, name: str) -> Any:
        """The measure that the public function ``name`` gives: lme4's where lme4 has one."""
        return getattr(self, name) if name in _OF_LME4 else self.deletion.value(name)

    @property
    def dfbeta(self) -> pd.DataFrame:
        """*Deleted minus full* fixed effects: the opposite sign of ``lm``'s and HLMdiag's."""
        return -self.deletion.dfbeta()

    @property
    def dfbetas(self) -> pd.DataFrame:
        """``dfbeta`` over the standard errors of the *refit*."""
        return -self.deletion.dfbetas()

    @property
    def cooks_distance(self) -> pd.Series:
        """(K - p) / (K p) d'C^-1 d for K units, C = vcov of the full fit."""
        K, p = len(self.deletion.units), self.deletion.fit.design.p
        return self.deletion.cooks_distance() * (K - p) / K

    @property
    def varcomp(self) -> pd.DataFrame:
        """*Deleted minus full* variance components, named as :func:`varcomp` does."""
        d = self.deletion
        full = full_components(d.fit)
        values = components(d.fit, d.refits.par, d.refits.sigma) - full
        return d.units.frame(values, component_names(d.fit))


@of_fit
def influence(
    fit: Fit, groups: str | None = None, *, progress: bool = False, executor: Any = None
) -> LmeInfluence:
    """lme4's influence(): exact refits without each row, or each level of ``groups``, fully converged.

    Fields: ``dfbeta`` and ``varcomp`` (deleted minus full), ``dfbetas``, ``cooks_distance``; ``deletion``
    has the estimates. Not HLMdiag's measures, whose signs and scales differ: see :func:`case_delete`.
    """
    return LmeInfluence(
        case_delete(fit, 1 if groups is None else groups, progress=progress, executor=executor)
    )
