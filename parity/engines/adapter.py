"""From what any mixed-model program reports to labelled values: for engines that are handed a design as
columns.

An adapter fits `y ~ 0 + x0 + x1 + ... ` with random terms given as columns, and so compares the program's
arithmetic and optimiser; how it reads formulas is not compared."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcore.design.build import Design, build
from mmcore.design.random import RandomTerm
from mmcore.errors import RankWarning
from mmcore.families.names import family_named
from mmcore.glmm.response import reader, with_trials
from parity.schema.case import Case, frame
from parity.schema.results import Missing, Value, scalar


class Unsupported(Exception):
    """The program does not do this kind of model; the message says what about it."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """A linear mixed model as a program reports it, in the order of the design. None: not reported."""

    criterion: float  # REML criterion or -2 log-likelihood
    beta: np.ndarray  # (p,)
    vcov: np.ndarray  # (p, p)
    sigma: float
    covariances: tuple[np.ndarray, ...]  # per term (k, k), absolute
    modes: tuple[np.ndarray, ...] | None = None  # per term (L, k)
    fitted: np.ndarray | None = None  # (n,) conditional
    residuals: np.ndarray | None = None  # (n,) y - fitted
    converged: bool | None = None
    rows: Mapping[str, np.ndarray] | None = None  # further quantities by row, (n,) each
    family: str = "gaussian"  # of others, vcov is by the Hessian in all parameters, and sigma is one


# Quantities that `values` gives when modes and fitted values are reported.
QUANTITIES = frozenset(
    {
        "n_obs", "p_fixed", "q_random", "criterion", "loglik", "aic", "bic", "df", "sigma", "fixef",
        "se_fixef", "vcov_fixef", "theta", "lambda_crossprod", "varcorr", "ranef", "fitted", "resid_response",
    }
)  # fmt: skip


def design_of(case: Case) -> Design:
    """The design of a case, by mmcore's reading of the formula.

    Of a generalised model y holds means of a row (proportions for a binomial), and the weights are numbers of trials
    where there are any.
    """
    options: dict[str, Any] = {
        "weights": case.weights,
        "offset": case.offset,
        "contrasts": case.contrasts or None,
    }
    family = family_named(case.family, case.link) if case.kind in ("glm", "glmm") else None
    if family is not None:
        options |= {"allow_saturated": True, "response": reader(family)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # which columns are left shows in the names
        design = build(case.formula, frame(case), **options)
    return design if family is None else with_trials(design, family)


def columns_of(design: Design) -> dict[str, np.ndarray]:
    """The design as columns of a data frame: y, x0.., and per random term t: g{t} and z{t}_0.."""
    columns: dict[str, np.ndarray] = {"y": design.y}
    columns |= {f"x{j}": design.X[:, j] for j in range(design.p)}
    for t, term in enumerate(design.terms):
        columns[f"g{t}"] = np.array([level_name(code) for code in term.codes])
        columns |= {f"z{t}_{k}": term.columns[:, k] for k in range(term.n_effects)}
    return columns


def level_name(code: int) -> str:
    """A label whose alphabetical order is the order of the levels."""
    return f"L{code:06d}"


def fixed_formula(design: Design) -> str:
    """`y ~ 0 + x0 + x1`."""
    return "y ~ 0 + " + " + ".join(f"x{j}" for j in range(design.p))


def random_terms(design: Design) -> list[str]:
    """`(1 + z0_1 | g0)` per term, `(0 + z1_0 | g1)` for a term without an intercept."""
    out = []
    for t, term in enumerate(design.terms):
        intercept = has_intercept(term)
        columns = [f"z{t}_{k}" for k in range(intercept, term.n_effects)]
        out.append(f"({' + '.join([str(int(intercept)), *columns])} | g{t})")
    return out


def has_intercept(term: RandomTerm) -> bool:
    """Whether the first effect of a term is a column of ones."""
    return bool((term.columns[:, 0] == 1.0).all())


def need_fixed_and_unstructured(design: Design) -> None:
    """Raise `Unsupported` for designs that columns alone do not describe."""
    if not design.p:
        raise Unsupported("a model without fixed effects")
    other = [t.structure for t in design.terms if t.structure != "us" and t.n_effects > 1]
    if other:
        raise Unsupported(f"covariance structure {', '.join(other)}")


def values(design: Design, found: Estimates) -> dict[str, Value]:
    """All quantities that follow from estimates, labelled."""
    names, rows = design.x_names, tuple(str(label) for label in design.index)
    parameters = sum(t.n_effects * (t.n_effects + 1) // 2 for t in design.terms)
    generalised = found.family != "gaussian"
    df = design.p + parameters + (found.family not in ("binomial", "poisson"))
    suffix = "_hessian" if generalised else ""
    out = {
        "n_obs": scalar(design.n), "p_fixed": scalar(design.p), "q_random": scalar(design.q),
        "df": scalar(df),
        "criterion": scalar(found.criterion), "loglik": scalar(-found.criterion / 2),
        "aic": scalar(found.criterion + 2 * df), "bic": scalar(found.criterion + np.log(design.n) * df),
        "sigma": scalar(found.sigma), "fixef": Value(names, found.beta),
        f"se_fixef{suffix}": Value(names, np.sqrt(np.diag(found.vcov))),
        f"vcov_fixef{suffix}": Value(tuple(_pairs(names)), np.ravel(found.vcov)),
        **_covariances(design.terms, found),
    }  # fmt: skip
    if found.modes is not None:
        parts = [
            ([f"{t.group}|{level}|{effect}" for level in t.labels for effect in t.effects], np.ravel(b))
            for t, b in zip(design.terms, found.modes, strict=True)
        ]
        out["ranef"] = _joined(parts)
    by_row: dict[str, np.ndarray | None] = dict(found.rows or {})
    by_row |= {"fitted": found.fitted, "resid_response": found.residuals}
    out |= {name: Value(rows, np.asarray(v, float)) for name, v in by_row.items() if v is not None}
    return out


def answer(
    quantities: Sequence[str], found: Mapping[str, Value], claims: frozenset[str]
) -> tuple[dict[str, Value], dict[str, Missing]]:
    """Values and missing parts of a result: what was asked for and claimed, and nothing else."""
    values = {name: found[name] for name in quantities if name in found and name in claims}
    missing = {name: Missing("unsupported", "not offered") for name in quantities if name not in values}
    return values, missing


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The keyword arguments of a `Results`: what `work` gives, or the status of what it raises."""
    from mmcore.errors import MixedModelError

    try:
        return work()
    except Unsupported as error:
        return {"status": "unsupported", "message": str(error)}
    except MixedModelError as error:
        return {"status": "refused", "message": f"{type(error).__name__}: {error}"}
    except Exception as error:  # the barrier: the library is code of others
        return {"status": "error", "message": f"{type(error).__name__}: {error}"}


def _covariances(terms: Sequence[RandomTerm], found: Estimates) -> dict[str, Value]:
    variance = found.sigma**2
    labels = [[f"{t.group}|{pair}" for pair in _pairs(t.effects)] for t in terms]
    absolute = [np.ravel(c) for c in found.covariances]
    theta = [
        ([f"{t.group}.{name}" for name in _theta_names(t.effects)], _lower(np.asarray(c) / variance))
        for t, c in zip(terms, found.covariances, strict=True)
    ]
    return {
        "lambda_crossprod": _joined([(n, c / variance) for n, c in zip(labels, absolute, strict=True)]),
        "varcorr": _joined([*zip(labels, absolute, strict=True), (["Residual"], np.array([variance]))]),
        "theta": _joined(theta),
    }


def _lower(Sigma: np.ndarray) -> np.ndarray:
    """Column by column, the lower factor of a positive semi-definite matrix."""
    from mmcore.covariance.triangle import cholesky_psd

    L = cholesky_psd(Sigma)
    return np.concatenate([L[j:, j] for j in range(len(L))])


def _theta_names(effects: Sequence[str]) -> list[str]:
    k = len(effects)
    return [effects[i] if i == j else f"{effects[i]}.{effects[j]}" for j in range(k) for i in range(j, k)]


def _pairs(names: Sequence[str]) -> list[str]:
    return [f"{a}|{b}" for a in names for b in names]


def _joined(parts: Sequence[tuple[Sequence[str], np.ndarray]]) -> Value:
    labels = tuple(label for names, _ in parts for label in names)
    return Value(labels, np.concatenate([v for _, v in parts]) if parts else np.empty(0))
