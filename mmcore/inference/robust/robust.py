"""Covariances of fixed effects that do not trust the model's: by cluster (CR0 to CR3) or by row (HC0 to HC4)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import DataError, FitError, MixedModelWarning, UnsupportedError
from ...glmm.fit import GeneralizedFit, is_generalized
from ...lmm.lm import is_lm
from ...results.fit import Fit
from .clusters import Clusters, clusters_of
from .sandwich import RandomPart, Scores, Whitened, cluster_scores, satterthwaite_df

__all__ = ["coef_test", "vcov_robust"]

BY_CLUSTER = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")
BY_ROW = ("HC0", "HC1", "HC2", "HC3", "HC4")
TESTS = ("satterthwaite", "naive-t", "naive-tp", "z")
NO_RESIDUAL = 1e-12  # of one minus the leverage of a row


def vcov_robust(fit: Fit, type: str = "CR2", cluster: Any = None) -> pd.DataFrame:
    """Robust covariance of the fixed effects, right when the model's covariance of the rows is not.

    Parameters
    ----------
    fit : a linear mixed model, linear model or generalized linear model.
    type : by cluster ``CR0`` (no correction), ``CR1`` (m / (m - 1)), ``CR1p`` (m / (m - p)), ``CR1S`` (Stata's
        m (n - 1) / ((m - 1)(n - p))), ``CR2`` (unbiased if the model holds) or ``CR3`` (about the jackknife), for m
        clusters, n rows and p fixed effects; NaN with a warning where a factor divides by zero or less. By row
        ``HC0`` to ``HC4``, for models without random effects.
    cluster : rows of one cluster may be dependent in any way, those of different ones are independent. The name of a
        grouping factor or of a variable of the model, or values row by row (array, or Series with row labels). None:
        the coarsest grouping factor of a mixed model. Not for ``HC``.

    Returns
    -------
    DataFrame
        (p, p), rows and columns by coefficient, unit of ``fit.vcov``.

    Raises
    ------
    DataError
        For an unknown ``type`` or ``cluster``, missing values in it, or a single cluster.
    UnsupportedError
        For a generalized linear *mixed* model, clusters that cut a grouping factor, and models without fixed effects.
    FitError
        If the correction does not exist: CR3 or HC2 to HC4 where one cluster or row alone determines a coefficient.

    Notes
    -----
    R: ``clubSandwich::vcovCR`` and, for HC, ``sandwich::vcovHC``. The working model of CR2 is that of the fit: V of a
    mixed model, weights included (clubSandwich refuses those); equal variances for ``lm``, also with weights; the
    variance function for ``glm``. Directions that one cluster alone determines do not count in CR2. CR2 of a model
    with unequal weights, or of a ``glm``, takes an eigendecomposition of the size of each cluster; all else is linear
    in the number of rows.

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with multi-stage
    samples. Survey Methodology 28, 169-181.
    Pustejovsky, J. E. and Tipton, E. (2018). Small-sample methods for cluster-robust variance estimation and
    hypothesis testing in fixed effects models. Journal of Business & Economic Statistics 36, 672-683.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.robust.robust import vcov_robust
    >>> fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    >>> vcov_robust(fit, "CR2", cluster="Subject").round(4)
                 (Intercept)    Days
    (Intercept)      46.5746 -1.4511
    Days             -1.4511  2.3895
    """
    if type in BY_ROW:
        return _labelled(fit, _by_row(fit, type, cluster))
    return _labelled(fit, _by_cluster(fit, type, cluster).vcov)


def coef_test(
    fit: Fit, type: str = "CR2", cluster: Any = None, *, test: str = "satterthwaite"
) -> pd.DataFrame:
    """Tests of each fixed effect with a robust standard error.

    Parameters
    ----------
    fit, type, cluster : as in :func:`vcov_robust`.
    test : degrees of freedom of t. ``satterthwaite``: those of the robust variance, if the model's covariance holds;
        ``naive-t``: clusters less one (Stata, statsmodels); ``naive-tp``: clusters less fixed effects; ``z``: infinite.
        By row (``HC``) there are ``z`` and the residual degrees of freedom, n - p, for all others (lm), infinite (glm
        of known dispersion).

    Returns
    -------
    DataFrame
        By coefficient: ``beta``, ``SE``, ``tstat``, ``df``, ``p`` (two-sided). ``df`` and ``p`` are NaN where the
        clusters say nothing of a coefficient.

    Raises
    ------
    DataError, UnsupportedError, FitError
        As :func:`vcov_robust`.

    Notes
    -----
    R: ``clubSandwich::coef_test``; for HC ``lmtest::coeftest``. Not Satterthwaite's degrees of freedom of the model's
    own standard errors: see ``summary(ddf="satterthwaite")`` for those.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.robust.robust import coef_test
    >>> fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    >>> coef_test(fit, "CR2", cluster="Subject").round(3)
                    beta     SE   tstat    df    p
    (Intercept)  251.405  6.825  36.838  17.0  0.0
    Days          10.467  1.546   6.771  17.0  0.0
    """
    if test not in TESTS:
        raise DataError(f"test={test!r} is not one of {', '.join(TESTS)}")
    if type in BY_ROW:
        V = _by_row(fit, type, cluster)
        df = np.full(len(V), _residual_df(fit, test))
    else:
        found = _by_cluster(fit, type, cluster)
        V, df = found.vcov, found.df(test)
    se = np.sqrt(V.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = fit.beta / se
    p = 2.0 * stats.t.sf(np.abs(ratio), df)
    table = {"beta": fit.beta, "SE": se, "tstat": ratio, "df": df, "p": p}
    return pd.DataFrame(table, index=list(fit.design.x_names))


def _labelled(fit: Fit, V: np.ndarray) -> pd.DataFrame:
    names = list(fit.design.x_names)
    return pd.DataFrame(V, index=names, columns=names)


# --- by cluster -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Robust:
    """A cluster-robust covariance and what it was made of."""

    rows: Whitened
    scores: Scores
    m: int  # clusters
    correction: float  # factor of the meat

    @property
    def vcov(self) -> np.ndarray:
        """(p, p) correction R^-1 M (sum of s s') M R^-T."""
        bread = np.linalg.solve(self.rows.R, self.rows.M)
        half = self.scores.s @ bread.T
        return self.correction * half.T @ half

    def df(self, test: str) -> np.ndarray:
        """(p,) degrees of freedom of the coefficients."""
        p = self.rows.X.shape[1]
        if test == "satterthwaite":
            return satterthwaite_df(self.rows, self.scores, np.linalg.inv(self.rows.R))
        known = float({"naive-t": self.m - 1, "naive-tp": self.m - p, "z": np.inf}[test])
        if known <= 0:
            known = _undefined(
                f"test={test!r} has {known:g} degrees of freedom: {self.m} clusters, {p} coefficients"
            )
        return np.full(p, known)


def _by_cluster(fit: Fit, type: str, cluster: Any) -> _Robust:
    if type not in BY_CLUSTER:
        raise DataError(f"type={type!r} is not one of {', '.join(BY_CLUSTER + BY_ROW)}")
    _refuse_without_meaning(fit)
    clusters = clusters_of(fit, cluster)
    rows, used = whitened_rows(fit)
    if used is not None:
        clusters = clusters.take(used)
    kind = type if type in ("CR2", "CR3") else "CR0"
    factor = _correction(type, clusters, *rows.X.shape)
    return _Robust(rows, cluster_scores(rows, clusters, kind), clusters.m, factor)


def _refuse_without_meaning(fit: Fit) -> None:
    fit.require_rows("a robust covariance")
    if is_generalized(fit) and fit.is_mixed:
        raise UnsupportedError(
            "a robust covariance of a generalized linear mixed model is not implemented: its scores are not linear "
            "in the response. Use glm with the same fixed effects and cluster=, or the bootstrap"
        )
    if not fit.design.p:
        raise UnsupportedError("the model has no fixed effects: there is no covariance to estimate")


def _correction(type: str, clusters: Clusters, n: int, p: int) -> float:
    m = clusters.m
    if m < 2:
        raise DataError(
            "only one cluster has rows of positive weight: a robust covariance needs at least two"
        )
    factors = {
        "CR1": (m, m - 1),
        "CR1p": (m, m - p),
        "CR1S": (m * (n - 1), (m - 1) * (n - p)),
    }
    up, down = factors.get(type, (1, 1))
    if down > 0:
        return up / down
    return _undefined(f"{type} divides by {down} for {m} clusters, {n} rows and {p} fixed effects: use CR2")


def _undefined(message: str) -> float:
    """NaN, and the warning that says why."""
    warnings.warn(MixedModelWarning(message), stacklevel=5)
    return np.nan


# --- the rows of each kind of model -----------------------------------------------------------------------


def whitened_rows(fit: Fit) -> tuple[Whitened, np.ndarray | None]:
    """The rows of positive weight over their noise, and their positions (None: all)."""
    if is_generalized(fit):
        return _of_generalized(fit)
    return _of_linear(fit) if is_lm(fit) or not fit.design.terms else (_of_mixed(fit), None)


def _of_mixed(fit: Fit) -> Whitened:
    A, w = fit.kernel.A, fit.design.weights
    terms = []
    for term, L in zip(fit.design.terms, fit.Lambda, strict=True):
        columns = term.columns @ L
        if A.sqrt_w is not None:
            columns = columns * A.sqrt_w[:, None]
        terms.append(RandomPart(term.codes, columns, term.n_levels))
    e = fit.working.residual_marginal if A.sqrt_w is None else fit.working.residual_marginal * A.sqrt_w
    half = fit.working.profile.LS_inv[: A.p, : A.p]
    return Whitened(A.M[: A.p].T, None, e, None if w is None else 1.0 / w, tuple(terms), half, A.R)


def _of_linear(fit: Fit) -> tuple[Whitened, np.ndarray | None]:
    """Working model of equal variances; weights are weights of the estimate, not inverse variances."""
    A, w = fit.kernel.A, fit.design.weights
    Q, e, eye = A.M[: A.p].T, fit.working.residual_marginal, np.eye(A.p)
    if w is None or A.sqrt_w is None:
        return Whitened(Q, None, e, None, (), eye, A.R), None
    used = np.flatnonzero(w > 0)
    root = A.sqrt_w[used, None]
    return Whitened(Q[used] / root, Q[used] * root, e[used], None, (), eye, A.R), used


def _of_generalized(fit: GeneralizedFit) -> tuple[Whitened, np.ndarray | None]:
    """Working model of the variance function: noise V(mu) / w."""
    A, w = fit.kernel.A, fit.solution.conditional.w
    used = np.flatnonzero((w > 0) & (fit.solution.at.W > 0))
    noise = fit.family.variance(fit.solution.at.mu[used]) / w[used]
    e = fit.residual_values("pearson")[used]
    return Whitened(A.M[: A.p].T[used], None, e, noise, (), np.eye(A.p), A.R), used


# --- by row -----------------------------------------------------------------------------------------------


def _by_row(fit: Fit, type: str, cluster: Any) -> np.ndarray:
    """(p, p) R^-1 (sum of omega_i s_i s_i') R^-T, s_i the score of a row."""
    if cluster is not None:
        raise DataError(
            f"{type} takes every row as independent and has no cluster; use CR0 to CR3 with cluster="
        )
    if fit.design.terms:
        raise UnsupportedError(
            f"{type} is for lm and glm: rows of a mixed model depend on each other. Use CR2"
        )
    _refuse_without_meaning(fit)
    rows, used = whitened_rows(fit)
    weighted = rows.X if rows.WX is None else rows.WX
    h = np.einsum("ij,ij->i", rows.X, weighted)
    scale = np.sqrt(_omega(fit, type, h, used))
    half = np.linalg.solve(rows.R, (weighted * (rows.e * scale)[:, None]).T)
    return half @ half.T


def _omega(fit: Fit, type: str, h: np.ndarray, used: np.ndarray | None) -> np.ndarray:
    """(n,) factor of the squared residual of each row, h its leverage."""
    n, p = len(h), fit.design.p
    if type == "HC0":
        return np.ones(n)
    if type == "HC1":
        return np.full(
            n, n / (n - p) if n > p else _undefined(f"HC1 divides by {n - p}: {n} rows, {p} coefficients")
        )
    if (1.0 - h).min() <= NO_RESIDUAL:
        row = int(np.argmax(h))
        label = fit.design.index[row if used is None else used[row]]
        raise FitError(
            f"{type} does not exist: row {label!r} has leverage one. Use HC0 or HC1, or drop what only this row "
            "determines"
        )
    power = {"HC2": 1.0, "HC3": 2.0}.get(type)
    return (1.0 - h) ** -(np.minimum(4.0, n * h / p) if power is None else power)


def _residual_df(fit: Fit, test: str) -> float:
    known = is_generalized(fit) and fit.family.dispersion_known
    if test == "z" or known:
        return np.inf
    return float(fit.nobs - fit.design.p)
