"""The parameters that intervals are about, as lme4 names them: standard deviations, correlations, sigma, beta."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...covariance.blocks import BlockCovariance
from ...covariance.compound import Compound
from ...covariance.diagonal import Diagonal
from ...covariance.structure import Structure
from ...errors import DataError
from ...glmm.fit import is_generalized
from ...results.fit import Fit

__all__ = ["Parameter", "chosen", "has_sigma", "parameters", "require_fit", "structures_of", "values"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter on the scale of the response."""

    name: str  # sd_(Intercept)|Subject, cor_Days.(Intercept)|Subject, sigma, or a coefficient's name
    kind: str  # sd | cor | rho (of cs and ar1) | sigma | beta
    term: int = -1  # position in design.terms
    i: int = 0  # effect, or row of a correlation; position of a coefficient
    j: int = 0  # column of a correlation


def require_fit(fit: Any, verb: str) -> None:
    """Raise DataError unless ``fit`` is a fitted model."""
    if not isinstance(fit, Fit):
        raise DataError(
            f"{verb} needs a fitted model (of mm.lm, mm.glm, mm.lmer or mm.glmer), not {type(fit).__name__}"
        )


def has_sigma(fit: Fit) -> bool:
    """Whether the residual standard deviation is a parameter: not if it is given, nor without a dispersion."""
    if is_generalized(fit):
        return not fit.family.dispersion_known
    return fit.state.like.sigma is None


def structures_of(fit: Fit) -> BlockCovariance:
    """The covariance structures of the random terms."""
    return fit.solution.covariance if is_generalized(fit) else fit.working.covariance


def parameters(fit: Fit) -> tuple[Parameter, ...]:
    """All parameters of a fit in lme4's order: the random terms', sigma, the fixed effects."""
    out: list[Parameter] = []
    if fit.design.terms:
        pairs = zip(structures_of(fit).structures, fit.design.terms, strict=True)
        for t, (structure, term) in enumerate(pairs):
            out += _of_term(structure, term.effects, term.group, t)
    if has_sigma(fit):
        out.append(Parameter("sigma", "sigma"))
    return (*out, *(Parameter(name, "beta", i=i) for i, name in enumerate(fit.design.x_names)))


def _of_term(structure: Structure, effects: Sequence[str], group: str, t: int) -> list[Parameter]:
    """Lower triangle column by column for an unstructured covariance; else standard deviations, then rho."""
    if isinstance(structure, Diagonal | Compound):
        names = ["*"] if structure.homogeneous else effects
        out = [Parameter(f"sd_{e}|{group}", "sd", t, i) for i, e in enumerate(names)]
        rho = [Parameter(f"cor_rho|{group}", "rho", t, 1, 0)] if isinstance(structure, Compound) else []
        return out + rho
    out = []
    for j, column in enumerate(effects):
        out.append(Parameter(f"sd_{column}|{group}", "sd", t, j))
        out += [
            Parameter(f"cor_{effects[i]}.{column}|{group}", "cor", t, i, j)
            for i in range(j + 1, len(effects))
        ]
    return out


def values(
    wanted: Sequence[Parameter], Lambda: Sequence[np.ndarray], sigma: float, beta: np.ndarray
) -> np.ndarray:
    """(len(wanted),) the parameters at relative factors, sigma and fixed effects; NaN for the correlation of an effect
    without variance."""
    return np.array([_value(w, Lambda, sigma, beta) for w in wanted])


def _value(w: Parameter, Lambda: Sequence[np.ndarray], sigma: float, beta: np.ndarray) -> float:
    if w.kind == "beta":
        return float(beta[w.i])
    if w.kind == "sigma":
        return sigma
    L = Lambda[w.term]
    sd = np.sqrt(np.square(L).sum(axis=1))
    if w.kind == "sd":
        return float(sigma * sd[w.i])
    i, j = w.i, w.j
    if w.kind == "rho":  # of the first neighbors that have a variance
        i = next((a + 1 for a in range(len(sd) - 1) if sd[a] * sd[a + 1] > 0), 1)
        j = i - 1
    size = sd[i] * sd[j]
    return float(np.clip(L[i] @ L[j] / size, -1.0, 1.0)) if size > 0 else np.nan


def chosen(every: Sequence[Parameter], parm: Any, what: str = "parameter") -> list[Parameter]:
    """The parameters asked for by name; ``theta_`` are all of the covariance (sigma included), ``beta_`` the
    coefficients, None all."""
    if parm is None:
        return list(every)
    if not isinstance(parm, Iterable):
        raise DataError(
            f"parm: give names of parameters, not {parm!r}; there are {', '.join(p.name for p in every)}"
        )
    names = [parm] if isinstance(parm, str) else list(parm)
    by_name, out = {p.name: p for p in every}, []
    for name in names:
        if name in by_name:
            out.append(by_name[name])
        elif name in ("theta_", "beta_"):
            out += [p for p in every if (p.kind == "beta") == (name == "beta_")]
        else:
            raise DataError(f"parm: no {what} is named {name!r}; there are {', '.join(by_name)}")
    return out
