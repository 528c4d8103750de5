"""broom's three verbs with its column names: one row per term, per model, per observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from .diagnostics.augment import model_frame
from .diagnostics.leverage import hatvalues
from .diagnostics.measures import cooks_distance
from .diagnostics.residuals.residuals import rstudent
from .diagnostics.units import pad
from .errors import UnsupportedError
from .glmm.fit import is_generalized
from .inference.df.denominators import coefficient_table
from .inference.intervals.level import tails
from .lmm.lm import LinearFit, is_lm
from .results.coefficients import Ddf, usual_ddf
from .results.fit import Fit

__all__ = ["augment", "glance", "tidy"]


def tidy(
    fit: Fit,
    effects: str | Sequence[str] | None = None,
    *,
    ddf: Ddf | Literal["default"] = "default",
    vcov: Any = None,
    conf_int: bool = False,
    conf_level: float = 0.95,
) -> pd.DataFrame:
    """One row per term: broom's tidy, broom.mixed's for models with random effects.

    Parameters
    ----------
    fit : Fit
        Any fitted model.
    effects : str or sequence of str, optional
        For mixed models: ``fixed``; ``ran_pars`` (standard deviations ``sd__x``, correlations ``cor__x.y`` and
        ``sd__Observation``); ``ran_vals`` (conditional modes); ``ran_coefs`` (fixed effects plus modes). The last two
        have a column ``level``. By default fixed effects and ``ran_pars``; fixed effects alone if ``ddf`` is given.
    ddf : {"satterthwaite", "kenward-roger", "residual", "asymptotic"} or None, optional
        Degrees of freedom of the fixed effects. By default Satterthwaite's for linear mixed models (none for
        ``fit_at`` and fits that did not converge); residual ones for
        ``lm`` and models with an estimated dispersion; none (normal) otherwise. None: no degrees of freedom and no
        p-values. If given, rows are labelled by coefficient.
    vcov : (p, p) array or DataFrame, optional
        Takes the place of the model's covariance of the fixed effects, such as ``mm.vcov_robust(fit)``.
    conf_int : bool
        Add Wald limits ``conf.low`` and ``conf.high``, by the same degrees of freedom.
    conf_level : float
        Level of these, between 0 and 1.

    Returns
    -------
    DataFrame
        Mixed models: ``effect``, ``group``, ``term``, ``estimate``, ``std.error``, ``statistic``, ``df``,
        ``p.value``. Others: without the first two.

    Raises
    ------
    UnsupportedError
        For an unknown effect, or degrees of freedom that the model does not have.
    DataError
        For an unknown ``ddf`` or a level that is not between 0 and 1.

    Examples
    --------
    >>> import mmcore as mm
    >>> fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    >>> mm.tidy(fit, ddf="satterthwaite")[["estimate", "std.error", "df"]].round(3)
                 estimate  std.error    df
    (Intercept)   251.405      6.825  17.0
    Days           10.467      1.546  17.0
    """
    tails(conf_level)
    given = ddf != "default"
    if effects is None:
        effects = ("fixed",) if given or not fit.design.terms else ("fixed", "ran_pars")
    wanted = (effects,) if isinstance(effects, str) else tuple(effects)
    unknown = [e for e in wanted if e not in EFFECTS]
    if unknown:
        raise UnsupportedError(f"effects={unknown[0]!r} is not one of {', '.join(map(repr, EFFECTS))}")
    parts = [_part(fit, e, ddf, vcov) for e in (wanted if fit.design.terms else ("fixed",))]
    table = pd.concat([t for t in parts if len(t)], ignore_index=True)
    table = table[[c for c in COLUMNS if c in table.columns]]
    if given and wanted == ("fixed",):
        table.index = pd.Index(table["term"].to_list())
    return _with_limits(table, conf_level) if conf_int else table


EFFECTS = ("fixed", "ran_pars", "ran_vals", "ran_coefs")
COLUMNS = ("effect", "group", "level", "term", "estimate", "std.error", "statistic", "df", "p.value")


def _part(fit: Fit, effect: str, ddf: Ddf | Literal["default"], vcov: Any) -> pd.DataFrame:
    if effect == "fixed":
        return _fixed(fit, ddf, vcov)
    return {"ran_pars": _ran_pars, "ran_vals": _ran_vals, "ran_coefs": _ran_coefs}[effect](fit)


def _fixed(fit: Fit, ddf: Ddf | Literal["default"], vcov: Any) -> pd.DataFrame:
    try:
        table = coefficient_table(fit, usual_ddf(fit) if ddf == "default" else ddf, vcov)
    except UnsupportedError:
        if ddf != "default":
            raise
        table = coefficient_table(fit, None, vcov)
    table.insert(0, "term", table.index)
    if fit.design.terms:
        table = table.assign(effect="fixed", group=None)
    if not fit.design.terms and ddf == "default":  # broom has no column of degrees of freedom there
        table = table.drop(columns="df")
    return table.reset_index(drop=True)


def _uses_t(fit: Fit) -> bool:
    """Whether the dispersion is estimated: a model without random effects then has t statistics."""
    return not (fit.family is not None and fit.family.dispersion_known)


def _df_residual(fit: Fit) -> int:
    return fit.nobs - fit.design.p if not fit.design.terms else fit.nobs - fit.df


def _ran_pars(fit: Fit) -> pd.DataFrame:
    rows = []
    for name, term in fit.varcorr.items():
        k = len(term.effects)
        corr = term.correlation
        rows += [(name, f"sd__{e}", term.sd[i]) for i, e in enumerate(term.effects)]
        pairs = [(i, j) for j in range(k) for i in range(j + 1, k)]
        rows += [(name, f"cor__{term.effects[j]}.{term.effects[i]}", corr[i, j]) for i, j in pairs]
    if _uses_t(fit):
        rows.append(("Residual", "sd__Observation", fit.sigma))
    table = pd.DataFrame(rows, columns=["group", "term", "estimate"])
    return table.assign(effect="ran_pars")


def _ran_vals(fit: Fit) -> pd.DataFrame:
    blocks = []
    for term, b, cov in zip(fit.design.terms, fit.b, fit.condvar.values(), strict=True):
        for k, effect in enumerate(term.effects):
            columns = {"group": term.group, "level": list(term.levels), "term": effect, "estimate": b[:, k]}
            blocks.append(pd.DataFrame(columns | {"std.error": np.sqrt(cov[:, k, k])}))
    return pd.concat(blocks, ignore_index=True).assign(effect="ran_vals")


def _ran_coefs(fit: Fit) -> pd.DataFrame:
    blocks = []
    for group, table in fit.coef().items():
        for name in table.columns:
            columns = {
                "group": group,
                "level": list(table.index),
                "term": name,
                "estimate": table[name].to_numpy(),
            }
            blocks.append(pd.DataFrame(columns))
    return pd.concat(blocks, ignore_index=True).assign(effect="ran_coefs")


def _with_limits(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Wald limits by the degrees of freedom of each row; normal where there are none."""
    df = table["df"].to_numpy(float) if "df" in table else np.full(len(table), np.inf)
    df = np.where(np.isnan(df), np.inf, df)
    width = stats.t.ppf(tails(level)[1], df) * table["std.error"]
    return table.assign(**{"conf.low": table.estimate - width, "conf.high": table.estimate + width})


def glance(fit: Fit) -> pd.DataFrame:
    """One row per model, with broom's columns.

    Mixed models: ``nobs``, ``sigma``, ``logLik``, ``AIC``, ``BIC``, ``REMLcrit`` or ``deviance`` (-2 log-
    likelihood), ``df.residual`` (rows less all parameters). ``lm``: ``r.squared``, ``adj.r.squared``,
    ``sigma``, ``statistic``, ``p.value``, ``df``, ``logLik``, ``AIC``, ``BIC``, ``deviance``,
    ``df.residual``, ``nobs``. ``glm``: ``null.deviance``, ``df.null``, ``logLik``, ``AIC``, ``BIC``,
    ``deviance``, ``df.residual``, ``nobs``.
    """
    likelihood = {"logLik": fit.loglik, "AIC": fit.aic, "BIC": fit.bic}
    last = {"df.residual": _df_residual(fit)}
    if fit.design.terms:
        name = "REMLcrit" if fit.reml else "deviance"
        row = {"nobs": fit.nobs, "sigma": fit.sigma} | likelihood | {name: fit.criterion} | last
    elif is_lm(fit):
        row = _lm_row(fit) | likelihood | {"deviance": fit.deviance} | last | {"nobs": fit.nobs}
    elif is_generalized(fit):
        null = {"null.deviance": fit.null_deviance, "df.null": fit.nobs - int(fit.design.formula.intercept)}
        row = null | likelihood | {"deviance": fit.deviance} | last | {"nobs": fit.nobs}
    else:
        raise UnsupportedError(f"glance has no row for {type(fit).__name__}")
    return pd.DataFrame([row])


def _lm_row(fit: LinearFit) -> dict[str, float]:
    row: dict[str, float] = {
        "r.squared": fit.r_squared, "adj.r.squared": fit.adj_r_squared, "sigma": fit.sigma,
        "statistic": np.nan, "p.value": np.nan, "df": np.nan,
    }  # fmt: skip
    if fit.design.p > int(fit.design.formula.intercept):
        value, top, bottom = fit.fstatistic
        row |= {"statistic": value, "p.value": float(stats.f.sf(value, top, bottom)), "df": top}
    return row


def augment(fit: Fit) -> pd.DataFrame:
    """One row per observation: the model frame, then columns that start with a dot.

    ``.fitted`` (conditional), ``.resid`` (response), ``.hat``, ``.cooksd`` (lme4's plug-in Cook's distance,
    which for ``lm`` is Cook's distance) and ``.std.resid`` (internally studentized); mixed models also
    ``.fixed`` (X beta + offset). HLMdiag's table, with its own Cook's distance, is :func:`hlm_augment`.
    """
    frame = model_frame(fit)
    columns = {
        ".fitted": fit.fitted_values, ".resid": fit.residual_values("response"),
    }  # fmt: skip
    if fit.design.terms:
        columns[".fixed"] = fit.fitted_marginal
    values, index = pad(fit, np.column_stack([np.asarray(c, float) for c in columns.values()]))
    table = pd.DataFrame(values, index=index, columns=list(columns))
    table[".hat"] = hatvalues(fit)
    table[".cooksd"] = cooks_distance(fit, kind="plugin")
    table[".std.resid"] = rstudent(fit) if fit.design.terms else _standardized(fit)
    return pd.concat([frame, table], axis=1)


def _standardized(fit: Fit) -> pd.Series:
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = pd.Series(fit.residual_values("pearson"), index=fit.design.index)
        return pearson / (fit.sigma * np.sqrt(1.0 - hatvalues(fit).reindex(pearson.index)))
