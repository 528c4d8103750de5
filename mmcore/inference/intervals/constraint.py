"""Covariance parameters with one standard deviation or correlation held: par = base(v) + B(v) psi.

Every constraint is linear once coordinates are chosen for it. An unstructured covariance is parametrized by the
Cholesky factor L of the effects in an order that puts the held ones first: then
    a correlation v:         L_21 = v r, L_22 = sqrt(1 - v^2) r, with r free,
    a standard deviation v:  L_11 = v / sigma,
    one of zero:             the effect comes last, and the last row of L is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...covariance.blocks import BlockCovariance
from ...covariance.compound import Compound
from ...covariance.unstructured import Unstructured
from .parameters import Parameter

__all__ = ["Constraint", "constrained", "domain", "without"]

Affine = tuple[np.ndarray, np.ndarray]  # base (n_par,) and B (n_par, n_free)


@dataclass(frozen=True, slots=True)
class Constraint:
    """Coordinates psi of the covariance parameters that are left free."""

    covariance: BlockCovariance  # structures in the charts of the constraint
    at: Callable[[float], Affine]
    start: np.ndarray  # (n_free,) psi of the parameters it was made from
    index: int | None = None  # position of the held standard deviation in par


def constrained(cov: BlockCovariance, par: np.ndarray, which: Parameter, sigma: float) -> Constraint:
    """Hold ``which`` in the covariance parameters ``par`` (standard); sigma and coefficients leave all of them free."""
    if which.kind in ("sigma", "beta"):
        charted = cov.charted()
        identity = np.zeros(charted.n_par), np.eye(charted.n_par)
        return Constraint(charted, lambda v: identity, charted.from_standard(par))
    if which.kind == "cor":
        return _cor(cov, par, which)
    first = _first(cov, which)
    if which.kind == "rho":
        ordered = _ordered(cov, which.term, ())
        return _entry(ordered, par, first + cov.structures[which.term].n_par - 1, 1.0)
    ordered = _ordered(cov, which.term, (which.i,))
    own = 0 if isinstance(cov.structures[which.term], Unstructured) else which.i
    return _entry(ordered, par, first + own, 1.0 / sigma)


def _entry(cov: BlockCovariance, par: np.ndarray, i: int, unit: float) -> Constraint:
    """par_i = v unit, the others free."""
    B = np.delete(np.eye(cov.n_par), i, axis=1)
    base = np.zeros(cov.n_par)

    def at(v: float) -> Affine:
        held = base.copy()
        held[i] = v * unit
        return held, B

    return Constraint(cov, at, np.delete(cov.from_standard(par), i), i)


def _cor(cov: BlockCovariance, par: np.ndarray, which: Parameter) -> Constraint:
    ordered = _ordered(cov, which.term, (which.j, which.i))
    first = _first(cov, which)
    below, pivot = first + 1, first + cov.structures[which.term].k  # L_21 and L_22
    B, zero, here = (
        np.delete(np.eye(cov.n_par), pivot, axis=1),
        np.zeros(cov.n_par),
        ordered.from_standard(par),
    )
    start = np.delete(here, pivot)
    start[below] = np.hypot(here[below], here[pivot])

    def at(v: float) -> Affine:
        own = B.copy()
        own[below, below], own[pivot, below] = v, np.sqrt(max(1.0 - v * v, 0.0))
        return zero, own

    return Constraint(ordered, at, start)


def without(cov: BlockCovariance, par: np.ndarray, which: Parameter) -> Constraint:
    """The effect whose standard deviation is ``which`` left out, for a standard deviation of zero."""
    structure, first = cov.structures[which.term], _first(cov, which)
    ordered = _ordered(cov, which.term, [e for e in range(structure.k) if e != which.i])
    keep = np.ones(cov.n_par, bool)
    if isinstance(structure, Unstructured):
        keep[first + np.cumsum(np.arange(structure.k, 0, -1)) - 1] = False  # L_kj ends the jth column
    else:
        keep[first + which.i] = False
    affine = np.zeros(cov.n_par), np.eye(cov.n_par)[:, keep]
    return Constraint(ordered, lambda v: affine, ordered.from_standard(par)[keep])


def domain(cov: BlockCovariance, which: Parameter) -> tuple[float, float]:
    """Limits of the parameter itself."""
    if which.kind == "cor":
        return -1.0, 1.0
    if which.kind == "rho":
        structure = cov.structures[which.term]
        assert isinstance(structure, Compound) and structure.bounds is not None
        return float(structure.bounds[0][-1]), float(structure.bounds[1][-1])
    return (-np.inf if which.kind == "beta" else 0.0), np.inf


def _first(cov: BlockCovariance, which: Parameter) -> int:
    """Position in par of the first parameter of the term."""
    return sum(s.n_par for s in cov.structures[: which.term])


def _ordered(cov: BlockCovariance, t: int, first: Sequence[int]) -> BlockCovariance:
    """Charts in which the factor of term t has the effects ``first`` first; other terms in those of the products."""
    out = list(cov.charted().structures)
    structure = cov.structures[t]
    out[t] = structure
    if isinstance(structure, Unstructured):
        k, C = structure.k, structure.frame
        P = np.eye(k)[:, [*first, *(e for e in range(k) if e not in first)]]
        out[t] = Unstructured(k, P if C is None else np.linalg.solve(C, P), C)
    return BlockCovariance(cov.blocks, out)
