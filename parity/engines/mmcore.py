"""mmcore as an engine: one function per quantity, from a `Fit` to labelled values, through mmcore's public
names."""

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

import mmcore as mm
from parity.case import Case, CaseError, frame
from parity.quantities import X_MATRIX_LIMIT
from parity.results import Missing, Results, Value, scalar

# `warnings.catch_warnings` changes the state of the whole process: one fit at a time, also among threads.
_ONE_AT_A_TIME = threading.Lock()


class MmcoreEngine:
    """Fits with `lmer` or `lm`, or evaluates with `fit_at`, and reads the quantities off the fit."""

    name = "mmcore"
    version = mm.__version__
    capabilities = frozenset(
        {"lm", "lmm", "weights", "offset", "contrasts", "at_theta", "optimum", "all_quantities"}
    )

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case at mmcore's own optimum, or at `theta`."""
        with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = self._run(case, quantities, theta)
        said = tuple(dict.fromkeys(str(w.message) for w in caught))
        return Results(self.name, self.version, warnings=said, **results)

    def _run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None) -> dict[str, Any]:
        try:
            fit = _fit(case, theta)
        except CaseError as error:
            return {"status": "error", "message": str(error)}
        except mm.UnsupportedError as error:
            return {"status": "unsupported", "message": str(error)}
        except mm.MixedModelError as error:
            return {"status": "refused", "message": f"{type(error).__name__}: {error}"}
        values: dict[str, Value] = {}
        missing: dict[str, Missing] = {}
        for name in quantities:
            outcome = _evaluate(name, fit)
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


def _fit(case: Case, theta: np.ndarray | None) -> Any:
    data = frame(case)
    options: dict[str, Any] = {
        "weights": case.weights,
        "offset": case.offset,
        "contrasts": case.contrasts or None,
    }
    if case.family != "gaussian":
        raise mm.UnsupportedError(f"family {case.family}")
    if theta is not None:
        return mm.fit_at(case.formula, data, theta, reml=case.reml, **options)
    if "|" not in case.formula:
        return mm.lm(case.formula, data, **options)
    return mm.lmer(case.formula, data, reml=case.reml, **options)


def _evaluate(name: str, fit: Any) -> Value | Missing:
    function = QUANTITIES.get(name)
    if function is None:
        return Missing("unsupported", f"mmcore has no {name}")
    try:
        return function(fit)
    except _Skipped as why:
        return Missing("skipped", str(why))
    except mm.MixedModelError as error:
        return Missing("undefined", str(error))
    except Exception as error:  # the barrier: one measure that fails must not cost the others
        return Missing("error", f"{type(error).__name__}: {error}")


class _Skipped(Exception):
    """The quantity is left out for its size."""


# --- labels -----------------------------------------------------------------------------------------------


def _rows(fit: Any) -> tuple[str, ...]:
    return tuple(str(label) for label in fit.design.index)


def _by_row(fit: Any, values: Any) -> Value:
    return Value(_rows(fit), np.asarray(values, dtype=np.float64))


def _pairs(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [f"{a}|{b}" for a in names for b in names]


def _groups(fit: Any) -> dict[str, Any]:
    """Grouping factor -> the first of its terms."""
    terms: dict[str, Any] = {}
    for term in fit.design.terms:
        terms.setdefault(term.group, term)
    return terms


def _joined(parts: Sequence[tuple[Sequence[str], Any]]) -> Value:
    labels = [label for names, _ in parts for label in names]
    values = [np.ravel(numbers) for _, numbers in parts]
    return Value(tuple(labels), np.concatenate(values) if values else np.empty(0))


# --- design -----------------------------------------------------------------------------------------------


def _x_matrix(fit: Any) -> Value:
    X = fit.design.X
    if X.size > X_MATRIX_LIMIT:
        raise _Skipped(f"X has {X.size} cells; see x_column_moments")
    labels = [f"{row}|{column}" for row in _rows(fit) for column in fit.design.x_names]
    return Value(tuple(labels), np.ravel(X))


def _x_column_moments(fit: Any) -> Value:
    X, y = fit.design.X, fit.design.y
    moments = np.stack([X.sum(axis=0), (X**2).sum(axis=0), X.T @ y])
    names = ("sum", "sumsq", "dot_y")
    labels = [f"{column}|{moment}" for column in fit.design.x_names for moment in names]
    return Value(tuple(labels), np.ravel(moments.T))


def _z_rows(fit: Any) -> Value:
    return _joined(
        [([f"{group}|{row}" for row in _rows(fit)], term.codes) for group, term in _groups(fit).items()]
    )


# --- estimates --------------------------------------------------------------------------------------------


def _series(series: Any) -> Value:
    return Value(tuple(str(label) for label in series.index), series.to_numpy(dtype=np.float64))


def _covariances(fit: Any, scale: float) -> list[tuple[list[str], np.ndarray]]:
    return [
        ([f"{term.group}|{pair}" for pair in _pairs(term.effects)], scale * (L @ L.T))
        for term, L in zip(fit.design.terms, fit.Lambda, strict=True)
    ]


def _vcov(fit: Any) -> Value:
    return Value(tuple(_pairs(fit.vcov.index)), np.ravel(fit.vcov.to_numpy()))


def _ranef(fit: Any) -> Value:
    return _joined(
        [
            (
                [f"{group}|{level}|{effect}" for level in table.index for effect in table.columns],
                table.to_numpy(),
            )
            for group, table in fit.ranef.items()
        ]
    )


def _condvar(fit: Any) -> Value:
    return _joined(
        [
            ([f"{t.group}|{level}|{pair}" for level in t.levels for pair in _pairs(t.effects)], blocks)
            for t, blocks in zip(fit.design.terms, fit.condvar.values(), strict=True)
        ]
    )


# --- diagnostics ------------------------------------------------------------------------------------------


def _level_wise(fit: Any, measure: Callable[[Any, str], Any]) -> Value:
    """A measure of every level of every grouping factor."""
    parts = []
    for group in _groups(fit):
        series = measure(fit, group)
        parts.append(([f"{group}|{level}" for level in series.index], series.to_numpy(dtype=np.float64)))
    return _joined(parts)


def _influence(function: str, **options: Any) -> dict[str, Callable[[Any], Value]]:
    """`NAME_marginal` by row and `NAME_marginal_group` by level, from the mmcore function NAME."""

    def by_row(fit: Any) -> Value:
        return _by_row(fit, getattr(mm, function)(fit, **options))

    def by_level(fit: Any) -> Value:
        return _level_wise(fit, lambda fit, group: getattr(mm, function)(fit, group, **options))

    return {f"{function}_marginal": by_row, f"{function}_marginal_group": by_level}


def _leverage(part: str) -> dict[str, Callable[[Any], Value]]:
    name = f"leverage_{part}"
    column = part.replace("_", ".")

    def by_row(fit: Any) -> Value:
        return _by_row(fit, mm.leverage(fit)[column])

    def by_level(fit: Any) -> Value:
        return _level_wise(fit, lambda fit, group: mm.leverage(fit, group)[column])

    return {name: by_row, f"{name}_group": by_level}


QUANTITIES: MappingProxyType[str, Callable[[Any], Value]] = MappingProxyType(
    {
        "n_obs": lambda fit: scalar(fit.nobs),
        "p_fixed": lambda fit: scalar(fit.design.p),
        "q_random": lambda fit: scalar(fit.design.q),
        "y_response": lambda fit: _by_row(fit, fit.design.y),
        "x_matrix": _x_matrix,
        "x_column_moments": _x_column_moments,
        "z_rows": _z_rows,
        "criterion": lambda fit: scalar(fit.criterion),
        "loglik": lambda fit: scalar(fit.loglik),
        "aic": lambda fit: scalar(fit.aic),
        "bic": lambda fit: scalar(fit.bic),
        "df": lambda fit: scalar(fit.df),
        "sigma": lambda fit: scalar(fit.sigma),
        "fixef": lambda fit: _series(fit.fixef),
        "se_fixef": lambda fit: _series(fit.se),
        "vcov_fixef": _vcov,
        "theta": lambda fit: _series(fit.theta),
        "lambda_crossprod": lambda fit: _joined(_covariances(fit, 1.0)),
        "varcorr": lambda fit: _joined([*_covariances(fit, fit.sigma**2), (["Residual"], fit.sigma**2)]),
        "ranef": _ranef,
        "condvar": _condvar,
        "fitted": lambda fit: _by_row(fit, fit.fitted),
        "resid_response": lambda fit: _by_row(fit, fit.resid()),
        "resid_pearson": lambda fit: _by_row(fit, fit.resid("pearson")),
        "resid_scaled": lambda fit: _by_row(fit, fit.resid("pearson", scaled=True)),
        "rstudent_lme4": lambda fit: _by_row(fit, mm.rstudent(fit)),
        "resid_conditional_studentized": lambda fit: _by_row(fit, mm.resid_conditional(fit, "studentized")),
        "fitted_marginal": lambda fit: _by_row(fit, fit.fitted_marginal),
        "resid_marginal": lambda fit: _by_row(fit, mm.resid_marginal(fit)),
        "resid_marginal_pearson": lambda fit: _by_row(fit, mm.resid_marginal(fit, "pearson")),
        "resid_marginal_studentized": lambda fit: _by_row(fit, mm.resid_marginal(fit, "studentized")),
        "resid_marginal_cholesky": lambda fit: _by_row(fit, mm.resid_marginal(fit, "cholesky")),
        "fitted_ls": lambda fit: _by_row(fit, mm.ls_residuals(fit)[".ls.fitted"]),
        "resid_ls": lambda fit: _by_row(fit, mm.ls_residuals(fit)[".ls.resid"]),
        "hatvalues": lambda fit: _by_row(fit, mm.hatvalues(fit)),
        **_leverage("overall"),
        **_leverage("fixef"),
        **_leverage("ranef"),
        **_leverage("ranef_uc"),
        "cooks_distance_plugin": lambda fit: _by_row(fit, mm.cooks_distance(fit, kind="plugin")),
        **_influence("cooks_distance", kind="marginal"),
        **_influence("mdffits"),
        **_influence("covtrace"),
        **_influence("covratio"),
    }
)
