"""Information criteria beyond ``fit.aic`` and ``fit.bic``, and how many parameters a model has."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...covariance.compound import Compound
from ...covariance.unstructured import Unstructured
from ...results.fit import Fit

__all__ = ["aicc", "parameter_counts"]


def aicc(fit: Fit) -> float:
    """AIC corrected for small samples: AIC + 2 k (k + 1) / (n - k - 1), k = ``fit.df``, n rows.

    Infinite where n is not above k + 1. R: ``MuMIn::AICc``; like ``fit.aic`` it is of the restricted likelihood for
    fits by REML. Hurvich & Tsai (1989) derived it for linear models with independent rows.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.tests.information import aicc
    >>> fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"), reml=False)
    >>> round(aicc(fit) - fit.aic, 4)
    0.4855
    """
    k, n = fit.df, fit.nobs
    return fit.aic + 2.0 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf


def parameter_counts(fit: Fit) -> pd.Series:
    """Numbers of parameters as Stata's ``mixed`` stores them in e().

    ``k`` all, ``k_f`` fixed effects, ``k_r`` of the random part, of which ``k_rs`` standard deviations (the residual
    one included) and ``k_rc`` correlations. ``k`` equals ``fit.df``.
    """
    correlations = 0
    for structure in fit.working.covariance.structures if fit.design.terms else ():
        if isinstance(structure, Compound):
            correlations += 1
        elif isinstance(structure, Unstructured):
            correlations += structure.k * (structure.k - 1) // 2
    k, p = fit.df, fit.design.p
    counts = {"k": k, "k_f": p, "k_r": k - p, "k_rs": k - p - correlations, "k_rc": correlations}
    return pd.Series(counts, name="parameters")
