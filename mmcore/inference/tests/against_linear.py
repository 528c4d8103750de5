"""The likelihood-ratio test of a mixed model against the linear model without its random effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import UnsupportedError
from ...glmm.fit import fit_generalized, is_generalized
from ...lmm.fit import fit_design, fit_design_at
from ...results.fit import Fit
from ..df.kenward_roger import component_covariance

__all__ = ["MIXTURE", "lrt_vs_linear", "orthant_weights"]

MIXTURE = "Pr(>Chisq), mixture"


def lrt_vs_linear(fit: Fit) -> pd.DataFrame:
    """Test all random effects of a mixed model at once.

    Parameters
    ----------
    fit : a mixed model; the model without random effects is fitted by the same criterion (REML or ML).

    Returns
    -------
    DataFrame
        Rows ``linear`` and ``mixed``; columns ``npar``, ``logLik``, ``Chisq``, ``Df``, ``Pr(>Chisq)`` (naive: with Df
        degrees of freedom, which is conservative, as Stata says) and ``Pr(>Chisq), mixture``.

    Raises
    ------
    UnsupportedError
        For models without random effects, fits from partitions, by quadrature, and ``residual="varident(...)"``.

    Notes
    -----
    Variances are not negative, so under the null Chisq is zero with positive probability and its distribution is a
    mixture of chi-squared ones (Self & Liang 1987). For one variance it is half of one with 1 degree of freedom. For
    two or three uncorrelated variances of a linear model the weights come from the information at the null; with
    correlations or more variances the mixture is NaN: the naive p-value is an upper bound. Stata: the line "LR test
    vs. linear model" of ``mixed``, with ``chibar2(01)`` for one variance.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.tests.against_linear import lrt_vs_linear
    >>> fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"))
    >>> lrt_vs_linear(fit).loc["mixed"].round(4).to_dict()
    {'npar': 3.0, 'logLik': -159.8271, 'Chisq': 6.369, 'Df': 1.0, 'Pr(>Chisq)': 0.0116, 'Pr(>Chisq), mixture': 0.0058}
    """
    linear = _without_random(fit)
    loglik = np.array([linear.loglik, fit.loglik])
    chisq, df = max(0.0, 2.0 * float(loglik[1] - loglik[0])), fit.df - linear.df
    columns = {
        "npar": [linear.df, fit.df],
        "logLik": loglik,
        "Chisq": [np.nan, chisq],
        "Df": [np.nan, float(df)],
        "Pr(>Chisq)": [np.nan, float(stats.chi2.sf(chisq, df))],
        MIXTURE: [np.nan, _mixture(fit, chisq)],
    }
    return pd.DataFrame(columns, index=["linear", "mixed"])


def _without_random(fit: Fit) -> Fit:
    if not fit.design.terms:
        raise UnsupportedError("lrt_vs_linear needs a model with random effects (mm.lmer, mm.glmer)")
    if fit.residual is not None:
        raise UnsupportedError(
            "lrt_vs_linear does not refit residual='varident(...)'; compare fits with mm.anova"
        )
    fit.require_rows("lrt_vs_linear")
    design = replace(
        fit.design, terms=(), bars=(), random_codings=(), formula=replace(fit.design.formula, bars=())
    )
    if is_generalized(fit):
        if (fit.nagq or 1) > 1:
            raise UnsupportedError(
                "a likelihood by quadrature leaves out a constant that a glm keeps: use nagq=1"
            )
        return fit_generalized(design, fit.family, quiet=True)
    return fit_design(design, reml=fit.reml, sigma=fit.state.like.sigma)


def _mixture(fit: Fit, chisq: float) -> float:
    """p-value of the mixture, NaN where its weights are not known."""
    variances = [
        k
        for term in fit.design.terms
        for k in [_variances(term.structure, len(term.effects), term.homogeneous)]
    ]
    total = sum(variances)
    if any(k == 0 for k in variances) or total > 3:
        return np.nan
    if total == 1:
        weights = np.array([0.5, 0.5])
    elif is_generalized(fit):
        return np.nan
    else:
        null = fit_design_at(fit.design, np.zeros(len(fit.theta)), reml=True, sigma=fit.state.like.sigma)
        weights = orthant_weights(component_covariance(null)[:total, :total])
    return float(sum(w * (stats.chi2.sf(chisq, j) if j else chisq <= 0.0) for j, w in enumerate(weights)))


def _variances(structure: str, k: int, homogeneous: bool) -> int:
    """Number of uncorrelated variances of a term; 0 if there are correlations."""
    if k == 1:
        return 1
    return (1 if homogeneous else k) if structure == "diag" else 0


def orthant_weights(covariance: np.ndarray) -> np.ndarray:
    """(r + 1,) probabilities that 0, 1, ..., r of r <= 3 variances are positive, estimates being normal at zero.

    Of an orthant of two: 1/4 + asin(rho) / 2 pi; of three (2 pi - sum acos(rho_ij)) / 4 pi (Kudo 1963).
    """
    top, bottom = _orthant(covariance), _orthant(np.linalg.inv(covariance))
    if len(covariance) == 2:
        return np.array([bottom, 0.5, top])
    return np.array([bottom, 0.5 - top, 0.5 - bottom, top])


def _orthant(covariance: np.ndarray) -> float:
    size = np.sqrt(covariance.diagonal())
    rho = (covariance / size / size[:, None])[np.triu_indices(len(size), 1)]
    if len(size) == 2:
        return 0.25 + float(np.arcsin(rho[0])) / (2.0 * np.pi)
    return 0.5 - float(np.arccos(rho).sum()) / (4.0 * np.pi)
