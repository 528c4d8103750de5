"""Iteratively reweighted least squares: a generalized linear model, the case of no random effects.

Every step is Newton's, with observed weights, or Fisher's scoring step, and is shortened until the deviance falls
by a fair part of what the slope promises. A start is taken from the response, from the mean, or from any
coefficients whose means lie in the domain of the family: the one with the smallest deviance is tried first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.optimize import linprog

from ..errors import FitError
from ..families.continuous import Gamma
from ..families.counts import Poisson
from ..families.family import Conditional, Family, Working

__all__ = ["FAIR", "Irls", "first_place", "irls", "null_deviance", "shorter", "solve_information"]

MAX_ITERATIONS = 200
HALVINGS = 60
TOLERANCE = 1e-20  # of the decrement, relative to the deviance
SCORING = 3  # iterations of Fisher scoring before Newton's method
FAIR = 0.1  # part of the fall of the deviance that the slope promises which a step has to bring
SHORT = 4  # halvings after which a Newton step gives way to a scoring step
EPS = float(np.finfo(float).eps)
ROUGH = 1e-6  # tolerance of a model that only gives a start
STAND_INS: Mapping[str, type[Family]] = MappingProxyType(
    {"log": Gamma, "identity": Poisson, "inverse": Gamma}
)
KNOWN = 0.1  # added to the deviance as its scale where the dispersion is known: one unit is then one unit

Place = tuple[np.ndarray, Working]  # coefficients (p,) and the family at them


@dataclass(frozen=True, slots=True)
class Irls:
    """Where the iteration ended."""

    gamma: np.ndarray  # (p,) coefficients of the basis
    at: Working
    iterations: int
    converged: bool  # the score is zero to rounding, in standard errors
    decrement: float  # score' B^-1 score: the squared distance from the maximum, in units of deviance
    at_edge: bool = False  # some means are at the edge of the domain, and the likelihood rises up to there


def irls(
    family: Conditional,
    Q: np.ndarray,
    offset: np.ndarray | float = 0.0,
    start: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> Irls:
    """Maximum (quasi-)likelihood coefficients of the orthonormal basis Q (p, n).

    Fisher scoring to begin with, then Newton's method where the observed weights allow it: with a link that is not
    canonical scoring alone converges slowly. The deviance never rises. ``start`` are coefficients (p,), used if
    their means are in the domain. Where the deviance may have several minima, or a run does not converge, runs from
    the other starts follow; the converged one with the smallest deviance is returned, or the best of the others with
    ``converged`` False.
    Stops when the decrement is below ``tolerance`` of the deviance or at rounding. With p = 0 the means are those
    of the offset. Cost O(n p^2) per iteration.

    Raises FitError if no coefficients give means inside the domain of the family.
    """
    offset = np.zeros(family.n) + offset
    if not len(Q):
        at = family.at(offset)
        if not np.isfinite(at.D):
            raise FitError(f"the offset gives means outside the domain of {family.family.label()}")
        return Irls(np.zeros(0), at, 0, True, 0.0)
    best: Irls | None = None
    convex = family.family.link.name in family.family.convex
    for place in _starts(family, Q, offset, start):
        found = _run(family, Q, offset, place, tolerance)
        if best is None or _better(family, found, best):
            best = found
        if best.converged and (convex or start is not None):
            break
    if best is None:
        raise FitError(
            f"no coefficients give means inside the domain of {family.family.label()} to start from: "
            "use a link that cannot leave it (log, logit), or look at the offset"
        )
    return best


def _better(family: Conditional, found: Irls, best: Irls) -> bool:
    if found.converged is not best.converged:
        return found.converged
    return best.at.D - family.rounding(best.at) > found.at.D


def first_place(family: Conditional, Q: np.ndarray, offset: np.ndarray | float) -> np.ndarray | None:
    """Coefficients of the best start: where the model itself has no finite estimates."""
    places = list(_starts(family, Q, np.zeros(family.n) + offset, None))
    return min(places, key=lambda place: place[1].D)[0] if places else None


def null_deviance(family: Conditional, offset: np.ndarray | None, intercept: bool) -> float:
    """Deviance of the model with the offset and, if there is one, an intercept only, as R's glm reports it."""
    if not intercept:
        eta = np.zeros(family.n) if offset is None else offset
        return float(family.deviance_terms(family.at(eta)).sum())
    if offset is None:
        mean = np.full(family.n, np.average(family.y, weights=family.w))
        return float(family.w @ family.family.unit_deviance(family.y, mean))
    with np.errstate(all="ignore"):
        found = irls(family, np.full((1, family.n), family.n**-0.5), offset)
    return float(family.deviance_terms(found.at).sum())


# --- starts -------------------------------------------------------------------------------------------------


def _starts(
    family: Conditional, Q: np.ndarray, offset: np.ndarray, start: np.ndarray | None
) -> Iterator[Place]:
    """Starts inside the domain: the given one, then from the response and from the mean, the lower deviance first.

    Coefficients found by linear programming come last, and only if no other start is inside.
    """
    places = []
    if start is not None:
        places = _inside(family, Q, offset, start)
        yield from places
    simple = family.family.is_canonical and not family.family.is_restricted
    convex = family.family.link.name in family.family.convex
    from_y = _inside(family, Q, offset, _from_response(family, Q, offset))
    if simple and from_y:
        yield from from_y
    from_mean = _inside(family, Q, offset, _from_mean(family, Q, offset))
    others = from_mean if simple else from_y + from_mean
    if not convex:
        others = others + _inside(family, Q, offset, _from_stand_in(family, Q, offset))
    yield from sorted(others, key=lambda place: place[1].D)
    if not (places or from_y or from_mean):
        yield from _inside(family, Q, offset, _feasible(family, Q, offset))


def _inside(family: Conditional, Q: np.ndarray, offset: np.ndarray, gamma: np.ndarray | None) -> list[Place]:
    if gamma is None:
        return []
    at = family.at(offset + gamma @ Q)
    return [(gamma, at)] if np.isfinite(at.D) else []


def _from_response(family: Conditional, Q: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """One least-squares step from the family's starting means, as R's glm makes it."""
    at = family.at(family.family.link.eta(family.family.start(family.y, family.w)))
    if at.s is None:
        return None
    QW = Q * at.W
    return solve_information(QW @ Q.T, QW @ (at.eta - offset) + Q @ at.s)


def _from_mean(family: Conditional, Q: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The constant mean, projected on the columns of the model."""
    mu = family.family.start(family.y, family.w)
    level = float(np.average(mu, weights=np.maximum(family.w, 1e-300)))
    return Q @ (family.family.link.eta(np.full(family.n, level)) - offset)


def _from_stand_in(family: Conditional, Q: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """Coefficients of a model with the same means and a deviance that has a single minimum."""
    link, y = family.family.link, np.maximum(family.y, 0.0)
    if link.name not in STAND_INS or not y.any():
        return None
    stand_in = STAND_INS[link.name](link).bind(np.maximum(y, 1e-3 * y.mean()), family.w)
    try:
        return irls(stand_in, Q, offset, tolerance=ROUGH).gamma
    except FitError:
        return None


def _feasible(family: Conditional, Q: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """Coefficients whose linear predictors lie as far inside the domain as possible: a linear program."""
    low, high = family.family.domain()
    mu = family.family.start(family.y, family.w)
    reach = float(
        np.abs(family.family.link.eta(np.array([np.average(mu)]))).item()
    )  # a margin in units of eta
    rows, limits = [], []
    if np.isfinite(low):
        rows.append(np.column_stack([-Q.T, np.ones(family.n)]))
        limits.append(offset - low)
    if np.isfinite(high):
        rows.append(np.column_stack([Q.T, np.ones(family.n)]))
        limits.append(high - offset)
    if not rows or not np.isfinite(reach):
        return None
    cost = np.append(np.zeros(len(Q)), -1.0)
    free = [(None, None)] * len(Q) + [(0.0, reach)]
    found = linprog(cost, np.vstack(rows), np.concatenate(limits), bounds=free)
    return found.x[:-1] if found.status == 0 and found.x[-1] > 0.0 else None


# --- one run ------------------------------------------------------------------------------------------------


def _run(family: Conditional, Q: np.ndarray, offset: np.ndarray, place: Place, tolerance: float) -> Irls:
    (gamma, at), previous = place, np.inf
    for iteration in range(1, MAX_ITERATIONS + 1):
        step, decrement, newton = _step(family, Q, at, iteration > SCORING)
        scale = abs(at.D) + (KNOWN if family.family.dispersion_known else 0.0)
        noise = family.rounding(at)
        stuck = decrement > 0.25 * previous and decrement <= 8.0 * noise
        done = decrement <= max(tolerance * scale, 0.01 * EPS * noise) or stuck
        moved = _search(family, Q, offset, (gamma, at), step, decrement, noise, SHORT if newton else HALVINGS)
        if moved is None and newton and not done:
            step, decrement, _ = _step(family, Q, at, False)
            moved = _search(family, Q, offset, (gamma, at), step, decrement, noise, HALVINGS)
            done = decrement <= max(tolerance * scale, 0.01 * EPS * noise)
        if moved is None or done:
            # a step that is known is taken: what it leaves is of second order
            done = done or decrement <= 8.0 * noise
            gamma, at = moved or (gamma, at)
            if done and decrement > tolerance * scale:
                gamma, at = _polished(family, Q, offset, (gamma, at))
            inside = done and _stationary(family, Q, at)
            return Irls(
                gamma, at, iteration, inside, decrement, not inside and bool(family.at_edge(at).any())
            )
        previous = decrement
        gamma, at = moved
    return Irls(gamma, at, MAX_ITERATIONS, False, decrement, bool(family.at_edge(at).any()))


def _step(family: Conditional, Q: np.ndarray, at: Working, newton: bool) -> tuple[np.ndarray, float, bool]:
    """Newton's step (observed weights), or the scoring step where that is not downhill; its decrement; which it is."""
    score = Q @ at.s
    if newton and not family.family.is_canonical:
        factor, info = dpotrf((Q * family.curvature(at)[1]) @ Q.T, lower=1)
        if not info:
            step = dpotrs(factor, score, lower=1)[0]
            return step, float(score @ step), True
    step = solve_information((Q * at.W) @ Q.T, score)
    return step, float(score @ step), False


def solve_information(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A^-1 b for an information matrix A; the shortest least-squares solution where A is singular."""
    factor, info = dpotrf(A, lower=1)
    if not info:
        return dpotrs(factor, b, lower=1)[0]
    if not np.isfinite(A).all():
        return np.zeros_like(b)
    return np.linalg.lstsq(A, b, rcond=None)[0]


def _search(
    family: Conditional,
    Q: np.ndarray,
    offset: np.ndarray,
    place: Place,
    step: np.ndarray,
    decrement: float,
    noise: float,
    halvings: int,
) -> Place | None:
    """The first of the step and shorter ones that lowers the deviance by a fair part of its slope; None if there is
    none.
    """
    gamma, at = place
    size, slope = 1.0, -2.0 * decrement
    for _ in range(halvings):
        if size < 1.0 and -size * slope < EPS * noise:
            return None
        there = gamma + size * step
        found = family.at(offset + there @ Q)
        if at.D + FAIR * size * slope + noise >= found.D:
            return there, found
        size *= shorter(found.D - at.D, size * slope)
    return None


def shorter(rise: float, slope: float) -> float:
    """Factor for the next trial step: where a parabola through the slope and the value has its minimum."""
    if not np.isfinite(rise):
        return 0.5
    return min(max(-0.5 * slope / (rise - slope), 0.1), 0.5)


def _polished(family: Conditional, Q: np.ndarray, offset: np.ndarray, place: Place) -> Place:
    """Steps that the rounding of the deviance hides, as long as each brings the score nearer to zero.

    Where groups with large means swamp the deviance, the coefficients of the others are known from the score alone.
    """
    step, decrement, _ = _step(family, Q, place[1], True)
    for _ in range(MAX_ITERATIONS):
        gamma = place[0] + step
        at = family.at(offset + gamma @ Q)
        if at.s is None:
            return place
        step, left, _ = _step(family, Q, at, True)
        if not 0.0 <= left < 0.9 * decrement:
            return place
        place, decrement = (gamma, at), left
    return place


def _stationary(family: Conditional, Q: np.ndarray, at: Working) -> bool:
    """Whether the score is zero in standard errors, by the observed and by the expected information.

    Where means run to the edge of the domain one of the two says "zero" on a slope that goes on: the expected
    information grows without end at a finite edge, and the observed vanishes with the score at an infinite one.
    """
    if family.family.is_canonical:
        return True
    if dpotrf((Q * at.W) @ Q.T, lower=1)[1]:
        return False
    _, observed, newton = _step(family, Q, at, True)
    _, expected, _ = _step(family, Q, at, False)
    scale = abs(at.D) + (KNOWN if family.family.dispersion_known else 0.0)
    enough = 1e-6 * scale + 1e3 * family.rounding(at)
    return expected <= enough and (observed <= enough if newton else not family.at_edge(at).any())
