"""broom's three verbs with its column names: one row per term, per model, per observation."""

from __future__ import annotations

from collections.abc import Sequence

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
from .lmm.lm import LinearFit, is_lm
from .results.fit import Fit

__all__ = ["augment", "glance", "tidy"]


def tidy(
    fit: Fit,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    *,
    conf_int: bool = False,
    conf_level: float = 0.95,
) -> pd.DataFrame:
    """One row per term: broom's tidy, broom.mixed's for models with random effects.

    Mixed models: ``effect`` (fixed, ran_pars, ran_vals, ran_coefs), ``group``, ``term``, ``estimate``,
    ``std.error``, ``statistic``. ``ran_pars`` are standard deviations ``sd__x``, correlations ``cor__x.y``
    and ``sd__Observation``; ``ran_vals`` conditional modes, ``ran_coefs`` fixed plus modes, both with a
    column ``level``. Models without random effects: ``term``, ``estimate``, ``std.error``, ``statistic``,
    ``p.value``. ``conf_int`` adds Wald limits ``conf.low``, ``conf.high`` to fixed effects and modes: t
    with the residual degrees of freedom for ``lm`` and models with an estimated dispersion and no random
    effects, normal otherwise.
    """
    wanted = (effects,) if isinstance(effects, str) else tuple(effects)
    parts = {"fixed": _fixed, "ran_pars": _ran_pars, "ran_vals": _ran_vals, "ran_coefs": _ran_coefs}
    unknown = [e for e in wanted if e not in parts]
    if unknown:
        raise UnsupportedError(f"effects={unknown[0]!r} is not one of {', '.join(map(repr, parts))}")
    if not fit.design.terms:
        return _limits(fit, _with_p(fit, _fixed(fit)), conf_int, conf_level)
    tables = [parts[e](fit) for e in wanted]
    table = pd.concat([t for t in tables if len(t)], ignore_index=True)
    order = ["effect", "group", "level", "term", "estimate", "std.error", "statistic"]
    table = table[[c for c in order if c in table.columns]]
    return _limits(fit, table, conf_int, conf_level)


def _fixed(fit: Fit) -> pd.DataFrame:
    estimate, se = np.array(fit.beta), fit.se.to_numpy()
    mixed = {"effect": "fixed", "group": None} if fit.design.terms else {}
    columns = {
        "term": list(fit.design.x_names),
        "estimate": estimate,
        "std.error": se,
        "statistic": estimate / se,
    }
    return pd.DataFrame(mixed | columns)


def _uses_t(fit: Fit) -> bool:
    """Whether the dispersion is estimated: a model without random effects then has t statistics."""
    return not (fit.family is not None and fit.family.dispersion_known)


def _df_residual(fit: Fit) -> int:
    return fit.nobs - fit.design.p if not fit.design.terms else fit.nobs - fit.df


def _with_p(fit: Fit, table: pd.DataFrame) -> pd.DataFrame:
    size = table["statistic"].abs()
    tail = stats.t.sf(size, _df_residual(fit)) if _uses_t(fit) else stats.norm.sf(size)
    return table.assign(**{"p.value": 2.0 * tail})


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


def _limits(fit: Fit, table: pd.DataFrame, wanted: bool, level: float) -> pd.DataFrame:
    if not wanted:
        return table
    t = not fit.design.terms and _uses_t(fit)
    q = 0.5 + level / 2
    width = (stats.t.ppf(q, _df_residual(fit)) if t else stats.norm.ppf(q)) * table["std.error"]
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
