"""Conditional modes of a generalized linear mixed model by penalized iteratively reweighted least squares.

For fixed effects and Sigma given, the modes b minimize D(eta) + |u|^2 with eta = offset + X beta + Z b and b
= Lambda u (Bates et al. 2015 for the linear case). The step is Newton's, with observed weights where they
make the penalized problem definite and Fisher's weights elsewhere. |u|^2 = v'b, where b = Sigma v and v =
Z's at the mode: no factor of Sigma is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FitError
from ..families.family import Conditional, Working
from ..kernels.weighted.system import INDEFINITE, Blocks, System, WeightedFactor
from .irls import FAIR, shorter, solve_information

__all__ = ["JointModes", "Modes", "find_joint_modes", "find_modes", "rows_product"]

MAX_ITERATIONS = 200
HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Modes:
    """The modes at one Sigma and the curvature there."""

    b: Blocks  # per block (1, K, L)
    v: Blocks  # per block (1, K, L), b = Sigma v
    at: Working  # the family at the modes
    factor: WeightedFactor  # its logdet enters the approximation: with Fisher weights, or observed ones if asked for
    newton: WeightedFactor  # with observed weights: implicit derivatives of the modes
    dW: (
        np.ndarray | None
    )  # (n,) derivative of the Fisher weights; None for a canonical link until it is asked for
    H: np.ndarray | None  # (n,) observed weights; None: the Fisher weights
    penalty: float  # |u|^2
    decrement: float  # how far the penalized deviance is above its minimum
    iterations: int


def dot(x: Blocks, y: Blocks) -> float:
    """Sum over blocks of the products of all entries."""
    total = float(np.vdot(x[0], y[0]))
    for a, b in zip(x[1:], y[1:], strict=True):
        total += float(np.vdot(a, b))
    return total


def moved(x: Blocks, step: Blocks, size: float) -> Blocks:
    """x + size * step."""
    return [a + size * b for a, b in zip(x, step, strict=True)]


def _start(
    system: System,
    fixed: np.ndarray,
    Sigma: list[np.ndarray],
    v: Blocks | None,
    family: Conditional,
    most: float,
):
    """(v, b, working) at the start; b = 0 where the given start is outside the domain, or is so far off that its
    penalized deviance is above ``most`` and that of b = 0.
    """
    value = np.inf
    if v is not None:
        b = [np.matmul(S, x) for S, x in zip(Sigma, v, strict=True)]
        given = family.at(fixed + system.times(b))
        value = given.D + dot(v, b)
        if np.isfinite(value) and value <= most:
            return v, b, given
    zero = [np.zeros((1, blk.K, blk.L)) for blk in system.blocks]
    at = family.at(fixed)
    if np.isfinite(value) and value <= at.D:
        return v, b, given
    if not np.isfinite(at.D):
        raise FitError(
            f"the fixed effects give means outside the domain of {family.family.label()}; "
            "another link (log, logit) cannot leave its domain"
        )
    return zero, zero, at


def find_modes(
    system: System,
    family: Conditional,
    fixed: np.ndarray,
    Sigma: list[np.ndarray],
    v: Blocks | None = None,
    tolerance: float = 1e-18,
    most: float = np.inf,
    observed: bool = False,
) -> Modes:
    """Modes at the linear predictor ``fixed`` = offset + X beta and the relative covariance Sigma.

    ``v`` is a start (that of another Sigma will do); b = 0 is tried beside it where its penalized deviance is above
    ``most``. Stops when the Newton decrement is below ``tolerance``,
    in units of deviance, or at rounding. ``observed``: the determinant is to have the observed weights. Raises FitError
    when no step lowers the penalized deviance, or the observed weights are indefinite at the modes.
    """
    canonical = family.family.is_canonical
    v, b, at = _start(system, fixed, Sigma, v, family, most)
    penalty, previous = dot(v, b), np.inf
    enough = (
        tolerance**0.5
    )  # Newton's method squares the decrement: after a step from here no check is needed
    for iteration in range(1, MAX_ITERATIONS + 1):
        dW, H = (None, None) if canonical else family.curvature(at)
        newton, definite = _newton_factor(system, at, H, Sigma)
        if previous < enough and definite:
            factor = _determinant(system, at, Sigma, newton, canonical, definite, observed)
            return Modes(b, v, at, factor, newton, dW, H, penalty, previous * previous, iteration)
        g = [z - x for z, x in zip(system.cross(at.s[None]), v, strict=True)]
        dv, db = newton.solve(g)
        decrement = dot(g, db)
        if decrement < 0.0 and definite:  # observed weights that are indefinite in several directions
            newton, definite = system.at(at.W, Sigma), False
            dv, db = newton.solve(g)
            decrement = dot(g, db)
        if not np.isfinite(decrement):
            raise FitError("the conditional modes diverged: the weights of the working model are not finite")
        stuck = decrement > 0.25 * previous and decrement < 1e-12 * (1.0 + abs(at.D))
        if decrement <= tolerance or stuck:
            factor = _determinant(system, at, Sigma, newton, canonical, definite, observed)
            return Modes(b, v, at, factor, newton, dW, H, penalty, decrement, iteration)
        previous = decrement
        v, b, at, penalty = _descend(system, family, fixed, (v, b, at, penalty), (dv, db), decrement)
    raise FitError(
        f"the conditional modes were not found in {MAX_ITERATIONS} iterations (decrement {decrement:.2g})"
    )


def _newton_factor(
    system: System, at: Working, H: np.ndarray | None, Sigma: list[np.ndarray]
) -> tuple[WeightedFactor, bool]:
    """The factor with observed weights (None: Fisher's are the observed ones), and True; or with Fisher's, and False,
    where the observed ones are indefinite.
    """
    if H is None:
        return system.at(at.W, Sigma), True
    try:
        return system.at(H, Sigma), True
    except FitError:
        return system.at(at.W, Sigma), False


def _determinant(
    system: System,
    at: Working,
    Sigma: list[np.ndarray],
    newton: WeightedFactor,
    canonical: bool,
    definite: bool,
    observed: bool,
) -> WeightedFactor:
    """The factor whose determinant the approximation takes."""
    if canonical:
        return newton
    if observed and not definite:
        raise FitError(INDEFINITE)
    return newton if observed or not definite else system.at(at.W, Sigma)


Place = tuple[Blocks, Blocks, Working, float]  # v, b, the family there, |u|^2


def _descend(
    system: System,
    family: Conditional,
    fixed: np.ndarray,
    here: Place,
    step: tuple[Blocks, Blocks],
    decrement: float,
) -> Place:
    """The first of the step and shorter ones that lowers the penalized deviance by a fair part of its slope."""
    v, b, at, penalty = here
    value, size = at.D + penalty, 1.0
    noise = 1e-12 * (1.0 + abs(value)) + family.rounding(at)
    for _ in range(HALVINGS):
        v1, b1 = moved(v, step[0], size), moved(b, step[1], size)
        at1 = family.at(fixed + system.times(b1))
        penalty1 = dot(v1, b1)
        if value - FAIR * 2.0 * size * decrement + noise >= at1.D + penalty1:
            return v1, b1, at1, penalty1
        size *= shorter(at1.D + penalty1 - value, -2.0 * size * decrement)
    raise FitError(
        f"no step along the Newton direction lowers the penalized deviance {value:.6g} "
        f"(decrement {decrement:.2g}); {_advice(family)}"
    )


def _advice(family: Conditional) -> str:
    if not family.family.is_restricted:
        return "check the scale of the covariates and look for extreme responses"
    return (
        f"the means are at the edge of the domain of {family.family.label()}: use a link that cannot leave it "
        "(log, logit)"
    )


# --- modes of the fixed and the random effects together ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class JointModes:
    """Coefficients of the basis and modes that minimize D + |u|^2 together (lme4's nAGQ = 0)."""

    gamma: np.ndarray  # (p,)
    modes: Modes
    XVX: np.ndarray  # (p, p) Q'V^-1Q with the observed weights


def find_joint_modes(
    system: System,
    family: Conditional,
    Q: np.ndarray,
    offset: np.ndarray,
    Sigma: list[np.ndarray],
    start: tuple[np.ndarray, Blocks | None],
    tolerance: float = 1e-18,
    observed: bool = False,
) -> JointModes:
    """The same for beta and b together; ``Q`` (p, n) holds the rows of the basis of X, ``start`` gamma and v."""
    gamma, v0 = start
    canonical = family.family.is_canonical
    v, b, at = _start(system, offset + gamma @ Q, Sigma, v0, family, np.inf)
    penalty, previous = dot(v, b), np.inf
    for iteration in range(1, MAX_ITERATIONS + 1):
        dW, H = family.curvature(at)
        newton, definite = _newton_factor(system, at, H, Sigma)
        H = H if definite else at.W
        g = [z - x for z, x in zip(system.cross(at.s[None]), v, strict=True)]
        cross = system.cross(H * Q)
        _, NC = newton.solve(cross)
        XVX = (Q * H) @ Q.T - rows_product(cross, NC)
        dv0, db0 = newton.solve(g)
        right = Q @ at.s - np.array(
            [sum(np.vdot(c[i], d) for c, d in zip(cross, db0, strict=True)) for i in range(len(Q))]
        )
        dgamma = solve_information(XVX, right) if len(Q) else np.zeros(0)
        combined = [np.tensordot(dgamma, c, 1)[None] for c in cross]
        dv1, db1 = newton.solve(combined)
        dv = [x - y for x, y in zip(dv0, dv1, strict=True)]
        db = [x - y for x, y in zip(db0, db1, strict=True)]
        decrement = dot(g, db0) + float(right @ dgamma)
        stuck = decrement > 0.25 * previous and decrement < 1e-12 * (1.0 + abs(at.D))
        if decrement <= tolerance or stuck:
            factor = _determinant(system, at, Sigma, newton, canonical, definite, observed)
            return JointModes(
                gamma, Modes(b, v, at, factor, newton, dW, H, penalty, decrement, iteration), XVX
            )
        previous = decrement
        size, value = 1.0, at.D + penalty
        noise = 1e-12 * (1.0 + abs(value)) + family.rounding(at)
        for _ in range(HALVINGS):
            v1, b1, gamma1 = moved(v, dv, size), moved(b, db, size), gamma + size * dgamma
            at1 = family.at(offset + gamma1 @ Q + system.times(b1))
            value1 = at1.D + dot(v1, b1)
            if value - FAIR * 2.0 * size * decrement + noise >= value1:
                break
            size *= shorter(value1 - value, -2.0 * size * decrement)
        else:
            raise FitError(
                f"no step lowers the penalized deviance {value:.6g} of fixed and random effects together; "
                f"{_advice(family)}"
            )
        v, b, gamma, at, penalty = v1, b1, gamma1, at1, dot(v1, b1)
    raise FitError(f"fixed and random effects were not found together in {MAX_ITERATIONS} iterations")


def rows_product(x: Blocks, y: Blocks) -> np.ndarray:
    """(r, r) sums over blocks of x_i y_j."""
    total = np.zeros((len(x[0]), len(y[0])))
    if total.size:
        for a, b in zip(x, y, strict=True):
            total += a.reshape(len(a), -1) @ np.ascontiguousarray(b).reshape(len(b), -1).T
    return total
