"""New responses from a fitted model: y* = X beta + offset + Z b* + e*."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .fit import Fit

__all__ = ["simulate"]


def simulate(
    fit: Fit, nsim: int = 1, rng: np.random.Generator | int | None = None, *, use_u: bool = False
) -> pd.DataFrame:
    """(n, nsim) responses in columns ``sim_1`` ... , by row label.

    ``use_u=False`` draws new random effects b* ~ N(0, sigma^2 Lambda Lambda') for every simulation (lme4's default);
    True keeps the conditional modes. Residuals have variance sigma^2 / w (and the ratios of ``varident``), or the
    family's distribution for generalised models. ``rng``: a NumPy generator or a seed.
    """
    fit.require_rows("simulate")
    generator = np.random.default_rng(rng)
    design = fit.design
    marginal = design.X @ fit.beta if design.offset is None else design.X @ fit.beta + design.offset
    eta = np.repeat(marginal[:, None], nsim, axis=1)
    for t, term in enumerate(design.terms):
        L, k = len(term.levels), len(term.effects)
        for s in range(nsim):
            b = fit.b[t] if use_u else fit.random_scale * generator.normal(size=(L, k)) @ fit.Lambda[t].T
            eta[:, s] += np.einsum("ij,ij->i", term.columns, b[term.codes])
    values = _responses(fit, eta, generator)
    return pd.DataFrame(values, index=design.index, columns=[f"sim_{s + 1}" for s in range(nsim)])


def _responses(fit: Fit, eta: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    w = fit.design.weights
    family: Any = fit.family
    if family is None:
        sd = fit.sigma if w is None else fit.sigma / np.sqrt(w)[:, None]
        return eta + sd * generator.normal(size=eta.shape)
    weights = np.ones(len(eta)) if w is None else w
    dispersion: float = getattr(fit, "dispersion", 1.0)
    columns = [family.simulate(family.link.mu(column), weights, dispersion, generator) for column in eta.T]
    return np.column_stack(columns)
