"""The same model by several optimizers from several starts: do they agree? (lme4's allFit)"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.optimize

from ..errors import FitError, UnsupportedError
from ..optimize.control import Control
from ..results.fit import Fit, LinearEstimates
from .fit import fit_design

__all__ = ["METHODS", "all_fit"]

METHODS = ("newton", "L-BFGS-B", "BFGS", "Nelder-Mead", "COBYQA")
STARTS = (1.0, 0.2, 3.0)  # multiples of the identity that Lambda starts from


def all_fit(fit: Fit, methods: Sequence[str] = METHODS, starts: Sequence[float] = STARTS) -> pd.DataFrame:
    """One row per method and start, best criterion first.

    Columns: ``method``, ``start`` (Lambda = start * identity), ``criterion``, ``excess`` above the best of all rows
    and of the fit itself, ``covariance_distance`` (largest difference of Lambda Lambda' from the fit's, relative to
    its largest entry or 1), ``evaluations`` of the criterion, ``seconds``, ``converged``. Practically equal criteria
    mean that a convergence warning was a false alarm; a lower criterion than the fit's, that the fit is not optimal.

    ``newton`` is this package's own optimizer, without its restarts; the others are SciPy's, the first two with the
    analytic gradient. For linear mixed models; raises UnsupportedError otherwise. Cost: the fits, one after another.
    """
    if fit.family is not None or not len(fit.par):
        raise UnsupportedError("all_fit needs a linear mixed model with covariance parameters")
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        raise UnsupportedError(
            f"all_fit does not know the method {unknown[0]!r}; it has {', '.join(METHODS)}"
        )
    rows = [_one(fit.working, method, start) for method in methods for start in starts]
    table = pd.DataFrame(rows)
    best = min(float(table["criterion"].min()), fit.criterion)
    table.insert(3, "excess", table["criterion"] - best)
    return table.sort_values("criterion", kind="stable", ignore_index=True)


def _one(fit: LinearEstimates, method: str, start: float) -> dict[str, object]:
    begin = time.perf_counter()
    theta, criterion, evaluations, converged = (_newton if method == "newton" else _scipy)(fit, method, start)
    return {
        "method": method,
        "start": start,
        "criterion": criterion,
        "covariance_distance": _distance(fit, theta),
        "evaluations": evaluations,
        "seconds": time.perf_counter() - begin,
        "converged": converged,
    }


def _identity(fit: Fit, start: float) -> np.ndarray:
    """Parameters of Lambda = start * identity, as far as the structures allow it."""
    par = np.zeros(len(fit.par))
    par[fit.covariance.scale_index()] = start
    return par


def _newton(fit: LinearEstimates, method: str, start: float) -> tuple[np.ndarray, float, int, bool]:

    theta = fit.covariance.theta(_identity(fit, start))
    control = Control(restarts=False)
    found = fit_design(fit.design, reml=fit.reml, start=theta, sigma=fit.state.like.sigma, control=control)
    return found.par, found.criterion, found.optinfo.evaluations, found.converged


def _scipy(fit: LinearEstimates, method: str, start: float) -> tuple[np.ndarray, float, int, bool]:
    fn = fit.criterion_fn

    def value(par: np.ndarray) -> float:
        try:
            return fn.factor(par).profile.f
        except FitError:
            return np.inf

    def with_gradient(par: np.ndarray) -> tuple[float, np.ndarray]:
        factor = fn.factor(par)
        return factor.profile.f, fn.derivatives(par, factor)[0]

    gradient = method in ("L-BFGS-B", "BFGS")
    tight = {
        "L-BFGS-B": {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 1000},
        "BFGS": {"gtol": 1e-6, "maxiter": 1000},
        "Nelder-Mead": {"xatol": 1e-8, "fatol": 1e-10, "maxfev": 20_000, "adaptive": True},
        "COBYQA": {"final_tr_radius": 1e-9, "maxfev": 2000},
    }
    found = scipy.optimize.minimize(
        with_gradient if gradient else value, _identity(fit, start), jac=gradient or None, method=method,
        options=tight[method],
    )  # fmt: skip
    return found.x, float(found.fun), int(found.nfev), bool(found.success)


def _distance(fit: Fit, par: np.ndarray) -> float:
    """Largest difference of Lambda Lambda' from the fit's, relative to its largest entry or 1."""
    ours = fit.covariance.Lambda(par)
    pairs = [(a @ a.T, b @ b.T) for a, b in zip(ours, fit.Lambda, strict=True)]
    size = max(1.0, max(float(np.abs(b).max()) for _, b in pairs))
    return max(float(np.abs(a - b).max()) for a, b in pairs) / size
