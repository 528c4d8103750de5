"""mmcore as an engine: one function per quantity, from a `Fit` to labelled values, through mmcore's public
names."""

import threading
import warnings
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

import mmcore as mm
from mmcore.diagnostics.influence import glm
from parity.engines.mmcore.fits import fit_case
from parity.engines.mmcore.labels import (
    covariance_labels,
    first_terms,
    joined_value,
    label_pairs,
    matrix_value,
    row_and_coef_values,
    row_labels,
    row_values,
    series_value,
)
from parity.engines.mmcore.refits import OF_REFITS, Work
from parity.schema.case import Case, CaseError, Kind
from parity.schema.quantities import REGISTRY, X_MATRIX_LIMIT
from parity.schema.results import Missing, Results, Value, scalar

# `warnings.catch_warnings` changes the state of the whole process: one fit at a time, also among threads.
_ONE_AT_A_TIME = threading.Lock()


class MmcoreEngine:
    """Fits with `lm`, `glm`, `lmer` or `glmer`, or evaluates with `fit_at`, and reads the quantities off the
    fit."""

    name = "mmcore"
    version = mm.__version__
    capabilities = frozenset(
        {
            "lm",
            "glm",
            "lmm",
            "glmm",
            "weights",
            "offset",
            "contrasts",
            "at_theta",
            "optimum",
            "all_quantities",
        }
    )

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case at mmcore's own optimum, or at `theta` (with beta: see `Engine.run`)."""
        with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = self._run(case, quantities, theta)
        said = tuple(dict.fromkeys(str(w.message) for w in caught))
        return Results(self.name, self.version, warnings=said, **results)

    def _run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None) -> dict[str, Any]:
        try:
            fit = fit_case(case, theta)
        except CaseError as error:
            return {"status": "error", "message": str(error)}
        except mm.MixedModelError as error:
            return {"status": "refused", "message": f"{type(error).__name__}: {error}"}
        values: dict[str, Value] = {}
        missing: dict[str, Missing] = {}
        work = Work(fit)
        for name in quantities:
            outcome = _evaluate(name, case.kind, work)
            if isinstance(outcome, Value):
                values[name] = outcome
            else:
                missing[name] = outcome
        converged = bool(fit.converged) if theta is None else None
        return {
            "values": values, "missing": missing, "singular": bool(fit.is_singular), "converged": converged
        }  # fmt: skip


def engine() -> MmcoreEngine:
    """The engine."""
    return MmcoreEngine()


def _evaluate(name: str, kind: Kind, work: Work) -> Value | Missing:
    function = QUANTITIES.get(name)
    if function is None or kind not in REGISTRY[name].kinds:
        return Missing("unsupported", f"mmcore has no {name} for a model of this kind")
    try:
        return function(work)
    except _Skipped as why:
        return Missing("skipped", str(why))
    except mm.MixedModelError as error:
        return Missing("undefined", str(error))
    except Exception as error:  # the barrier: one measure that fails must not cost the others
        return Missing("error", f"{type(error).__name__}: {error}")


class _Skipped(Exception):
    """The quantity is left out for its size."""


# --- labels -----------------------------------------------------------------------------------------------


# --- design -----------------------------------------------------------------------------------------------


def _x_matrix(fit: Any) -> Value:
    X = fit.design.X
    if X.size > X_MATRIX_LIMIT:
        raise _Skipped(f"X has {X.size} cells; see x_column_moments")
    labels = [f"{row}|{column}" for row in row_labels(fit) for column in fit.design.x_names]
    return Value(tuple(labels), np.ravel(X))


def _x_column_moments(fit: Any) -> Value:
    X, y = fit.design.X, fit.design.y
    moments = np.stack([X.sum(axis=0), (X**2).sum(axis=0), X.T @ y])
    names = ("sum", "sumsq", "dot_y")
    labels = [f"{column}|{moment}" for column in fit.design.x_names for moment in names]
    return Value(tuple(labels), np.ravel(moments.T))


def _z_rows(fit: Any) -> Value:
    return joined_value(
        [
            ([f"{group}|{row}" for row in row_labels(fit)], term.codes)
            for group, term in first_terms(fit).items()
        ]
    )


# --- estimates --------------------------------------------------------------------------------------------


def _lambda_crossprod(fit: Any) -> Value:
    return joined_value(list(zip(covariance_labels(fit), (L @ L.T for L in fit.Lambda), strict=True)))


def _varcorr(fit: Any) -> Value:
    absolute = [term.cov for term in fit.varcorr.values()]
    residual = (["Residual"], fit.sigma**2)
    return joined_value([*zip(covariance_labels(fit), absolute, strict=True), residual])


def _vcov(fit: Any) -> Any:
    """The covariance in which theta is taken as known: of a generalised mixed model not the default one."""
    return fit.vcov if fit.family is None else fit.vcov_rx


def _standard_errors(vcov: Any) -> Value:
    return Value(tuple(vcov.index), np.sqrt(np.diag(vcov.to_numpy())))


def _ranef(fit: Any) -> Value:
    return joined_value(
        [
            (
                [f"{group}|{level}|{effect}" for level in table.index for effect in table.columns],
                table.to_numpy(),
            )
            for group, table in fit.ranef.items()
        ]
    )


def _condvar(fit: Any) -> Value:
    return joined_value(
        [
            ([f"{t.group}|{level}|{pair}" for level in t.levels for pair in label_pairs(t.effects)], blocks)
            for t, blocks in zip(fit.design.terms, fit.condvar.values(), strict=True)
        ]
    )


# --- diagnostics ------------------------------------------------------------------------------------------


def _level_wise(fit: Any, measure: Callable[[Any, str], Any]) -> Value:
    """A measure of every level of every grouping factor."""
    parts = []
    for group in first_terms(fit):
        series = measure(fit, group)
        parts.append(([f"{group}|{level}" for level in series.index], series.to_numpy(dtype=np.float64)))
    return joined_value(parts)


def _influence(function: str, **options: Any) -> dict[str, Callable[[Any], Value]]:
    """`NAME_marginal` by row and `NAME_marginal_group` by level, from the mmcore function NAME."""

    def by_row(fit: Any) -> Value:
        return row_values(fit, getattr(mm, function)(fit, **options))

    def by_level(fit: Any) -> Value:
        return _level_wise(fit, lambda fit, group: getattr(mm, function)(fit, group, **options))

    return {f"{function}_marginal": by_row, f"{function}_marginal_group": by_level}


def _leverage(part: str) -> dict[str, Callable[[Any], Value]]:
    name = f"leverage_{part}"
    column = part.replace("_", ".")

    def by_row(fit: Any) -> Value:
        return row_values(fit, mm.leverage(fit)[column])

    def by_level(fit: Any) -> Value:
        return _level_wise(fit, lambda fit, group: mm.leverage(fit, group)[column])

    return {name: by_row, f"{name}_group": by_level}


# --- residuals of groups ----------------------------------------------------------------------------------


def _by_effect(fit: Any, columns: Callable[[str, list[str]], Any]) -> Value:
    """Values of every level and effect: `columns(group, effects)` is a table by level."""
    parts = []
    for group in first_terms(fit):
        effects = [e for term in fit.design.terms if term.group == group for e in term.effects]
        names, table = columns(group, effects)
        if names:
            labels = [f"{group}|{level}|{effect}" for level in table.index for effect in names]
            parts.append((labels, table.to_numpy(dtype=np.float64)))
    if not parts:
        raise mm.UnsupportedError("no random effect has a fixed effect of its name")
    return joined_value(parts)


def _columns(table: Any, start: str) -> Any:
    return table[[name for name in table.columns if str(name).startswith(start)]]


def _ranef_std(fit: Any) -> Value:
    def columns(group: str, effects: list[str]) -> Any:
        table = mm.hlm_resid(fit, group, standardize=True, include_ls=False)
        return effects, _columns(table, ".std.ranef.")

    return _by_effect(fit, columns)


def _ranef_std_marginal(fit: Any) -> Value:
    """Modes over the standard deviation that the model gives them."""

    def columns(group: str, effects: list[str]) -> Any:
        variances = [
            np.diag(L @ L.T)
            for term, L in zip(fit.design.terms, fit.Lambda, strict=True)
            if term.group == group
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            return effects, fit.ranef[group] / (fit.sigma * np.sqrt(np.concatenate(variances)))

    return _by_effect(fit, columns)


def _ls_part(fit: Any, standardize: bool) -> Value:
    def columns(group: str, effects: list[str]) -> Any:
        table = mm.hlm_resid(fit, group, standardize=standardize)
        start = ".std.ls." if standardize else ".ls."
        return [e for e in effects if e in fit.design.x_names], _columns(table, start)

    return _by_effect(fit, columns)


def _eb_against_ls(fit: Any) -> Value:
    ls, modes = _ls_part(fit, False), _ranef(fit)
    at = dict(zip(modes.labels, modes.values.tolist(), strict=True))
    return Value(ls.labels, ls.values - np.array([at[label] for label in ls.labels]))


# --- generalised models -----------------------------------------------------------------------------------


def _one_step(fit: Any) -> Any:
    return glm.glm_dfbeta(fit, "pearson") if glm.is_glm(fit) else mm.dfbeta(fit)


def _size(fit: Any) -> Value:
    if not fit.solution.size_estimated:
        raise mm.UnsupportedError("only an estimated negative binomial size is a quantity")
    return scalar(fit.size)


_GENERALISED: dict[str, Callable[[Any], Value]] = {
    "prior_weights": lambda fit: row_values(fit, fit.solution.conditional.w),
    "deviance": lambda fit: scalar(fit.deviance),
    "null_deviance": lambda fit: scalar(fit.null_deviance),
    "penalty": lambda fit: scalar(fit.solution.point.modes.penalty),
    "log_determinant": lambda fit: scalar(fit.solution.point.modes.factor.logdet),
    "dispersion_pearson": lambda fit: scalar(fit.dispersion_pearson),
    "size": _size,
    "se_fixef_hessian": lambda fit: _standard_errors(fit.vcov_hessian),
    "vcov_fixef_hessian": lambda fit: matrix_value(fit.vcov_hessian),
    "eta": lambda fit: row_values(fit, fit.eta),
    "working_weights": lambda fit: row_values(fit, fit.solution.at.W),
    "resid_deviance": lambda fit: row_values(fit, fit.resid("deviance")),
    "resid_working": lambda fit: row_values(fit, fit.resid("working")),
    "rstandard_pearson": lambda fit: row_values(fit, glm.rstandard(fit, "pearson")),
    "rstandard_deviance": lambda fit: row_values(fit, glm.rstandard(fit, "deviance")),
    "rstudent_glm": lambda fit: row_values(fit, mm.rstudent(fit)),
    "dfbeta_one_step": lambda fit: row_and_coef_values(fit, _one_step(fit)),
    "dfbeta_r": lambda fit: row_and_coef_values(fit, mm.dfbeta(fit)),
    "dfbetas_r": lambda fit: row_and_coef_values(fit, mm.dfbetas(fit)),
    "dffits_r": lambda fit: row_values(fit, mm.dffits(fit)),
}


# --- refits -----------------------------------------------------------------------------------------------


_OF_FIT: dict[str, Callable[[Any], Value]] = {
    "n_obs": lambda fit: scalar(fit.nobs),
    "p_fixed": lambda fit: scalar(fit.design.p),
    "q_random": lambda fit: scalar(fit.design.q),
    "y_response": lambda fit: row_values(fit, fit.design.y),
    "x_matrix": _x_matrix,
    "x_column_moments": _x_column_moments,
    "z_rows": _z_rows,
    "criterion": lambda fit: scalar(fit.criterion),
    "loglik": lambda fit: scalar(fit.loglik),
    "aic": lambda fit: scalar(fit.aic),
    "bic": lambda fit: scalar(fit.bic),
    "df": lambda fit: scalar(fit.df),
    "sigma": lambda fit: scalar(fit.sigma),
    "fixef": lambda fit: series_value(fit.fixef),
    "se_fixef": lambda fit: _standard_errors(_vcov(fit)),
    "vcov_fixef": lambda fit: matrix_value(_vcov(fit)),
    "theta": lambda fit: series_value(fit.theta),
    "lambda_crossprod": _lambda_crossprod,
    "varcorr": _varcorr,
    "ranef": _ranef,
    "condvar": _condvar,
    "varcomp": lambda fit: series_value(mm.varcomp(fit)),
    "ranef_std_lme4": _ranef_std,
    "ranef_std_nlme": _ranef_std_marginal,
    "ranef_ls": lambda fit: _ls_part(fit, False),
    "ranef_ls_std": lambda fit: _ls_part(fit, True),
    "compare_eb_ls": _eb_against_ls,
    "fitted": lambda fit: row_values(fit, fit.fitted),
    "resid_response": lambda fit: row_values(fit, fit.resid()),
    "resid_pearson": lambda fit: row_values(fit, fit.resid("pearson")),
    "resid_scaled": lambda fit: row_values(fit, fit.resid("pearson", scaled=True)),
    "rstudent_lme4": lambda fit: row_values(fit, mm.rstudent(fit)),
    "resid_conditional_studentized": lambda fit: row_values(fit, mm.resid_conditional(fit, "studentized")),
    "fitted_marginal": lambda fit: row_values(fit, fit.fitted_marginal),
    "resid_marginal": lambda fit: row_values(fit, mm.resid_marginal(fit)),
    "resid_marginal_pearson": lambda fit: row_values(fit, mm.resid_marginal(fit, "pearson")),
    "resid_marginal_studentized": lambda fit: row_values(fit, mm.resid_marginal(fit, "studentized")),
    "resid_marginal_cholesky": lambda fit: row_values(fit, mm.resid_marginal(fit, "cholesky")),
    "fitted_ls": lambda fit: row_values(fit, mm.ls_residuals(fit)[".ls.fitted"]),
    "resid_ls": lambda fit: row_values(fit, mm.ls_residuals(fit)[".ls.resid"]),
    "hatvalues": lambda fit: row_values(fit, mm.hatvalues(fit)),
    **_leverage("overall"),
    **_leverage("fixef"),
    **_leverage("ranef"),
    **_leverage("ranef_uc"),
    "cooks_distance_plugin": lambda fit: row_values(fit, mm.cooks_distance(fit, kind="plugin")),
    **_influence("cooks_distance", kind="marginal"),
    **_influence("mdffits"),
    **_influence("covtrace"),
    **_influence("covratio"),
    **_GENERALISED,
}


def _of_fit(function: Callable[[Any], Value]) -> Callable[[Work], Value]:
    return lambda work: function(work.fit)


QUANTITIES: MappingProxyType[str, Callable[[Work], Value]] = MappingProxyType(
    {name: _of_fit(function) for name, function in _OF_FIT.items()} | OF_REFITS
)
