"""From a start in double precision to a proved optimum: Newton at many digits, then a proof in a box.

The proof has three parts. A Krawczyk test on the box x +- r shows that the gradient has exactly one zero in
it. The Hessian over the whole box is positive definite, by a Cholesky factorisation in ball arithmetic: the
zero is a minimum. On the boundary (a term of rank r < k) the criterion must rise into the interior: its
derivative in Sigma_t, restricted to the directions that B does not reach, is positive definite (strict
complementarity). Together these are sufficient for a strict local minimum of the criterion over all positive
semi-definite covariances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flint import arb, arb_mat, ctx

from parity.exact.balls import Ball, Matrix, NotEnclosed, cholesky, column, identity, inverse, middle

ITERATIONS = 25


class Evaluated(Protocol):
    """A criterion with derivatives at one point or box."""

    @property
    def criterion(self) -> Ball: ...
    @property
    def gradient(self) -> Matrix: ...
    @property
    def hessian(self) -> Matrix: ...


Objective = Callable[[Sequence[Ball]], Evaluated]


@dataclass(frozen=True, slots=True)
class Proof:
    """A box with exactly one stationary point in it, which is a minimum, and how that was shown."""

    par: tuple[Ball, ...]  # (d,) enclosure of the minimiser
    radius: Ball  # half-width of the box of the test
    unique_within: float  # largest half-width tried on which the same test holds
    least_pivot: Ball  # smallest pivot of the Cholesky factor of the Hessian over the box
    gradient: Ball  # bound of the gradient at the midpoint
    rises: tuple[tuple[float, Ball], ...]  # (step, lower bound of the rise) to the nearest neighbours
    iterations: int  # of Newton


def proved_minimum(
    objective: Objective, start: Sequence[Ball], digits: int, *, evidence: bool = True
) -> Proof:
    """The minimiser near `start`, enclosed to `digits` digits or more.

    `evidence`: also how far uniqueness holds and how the criterion rises, which is most of the work.

    Raises
    ------
    NotEnclosed
        if Newton does not settle or one of the statements cannot be proved at this precision.
    """
    if not start:
        return Proof((), arb(0), float("inf"), arb("inf"), arb(0), (), 0)
    centre, iterations = _newton(objective, [arb(x).mid() for x in start])
    radius = arb(10) ** -digits
    box = krawczyk(objective, centre, radius)
    if box is None:
        raise NotEnclosed(f"no unique stationary point is proved within 1e-{digits} at {ctx.prec} bits")
    L = cholesky(objective(box).hessian, "the Hessian at the optimum")
    return Proof(
        par=tuple(box),
        radius=radius,
        unique_within=_widest(objective, centre, digits) if evidence else 10.0**-digits,
        least_pivot=min((L[i, i] for i in range(L.nrows())), key=lambda x: float(x.mid())),
        gradient=_largest(objective(centre).gradient),
        rises=_rises(objective, box) if evidence else (),
        iterations=iterations,
    )


def krawczyk(objective: Objective, centre: Sequence[Ball], radius: Ball) -> list[Ball] | None:
    """An enclosure of the only zero of the gradient within `radius` of `centre`; None if it is not proved.

    K = m - Y g(m) + (I - Y H(X)) (X - m) lies in the interior of X, where Y is an approximate inverse of
    H(m): then g has exactly one zero in X, and it is in K."""
    m = column(centre)
    d = m.nrows()
    deviation = [arb(0, radius)] * d
    box = [m[i, 0] + deviation[i] for i in range(d)]
    at_centre = objective(centre)
    Y = middle(inverse(middle(at_centre.hessian), "the Hessian"))
    try:
        H = objective(box).hessian
    except NotEnclosed:
        return None
    K = m - Y * at_centre.gradient + (identity(d) - Y * H) * column(deviation)
    inside = all(box[i].contains_interior(K[i, 0]) for i in range(d))
    return [K[i, 0] for i in range(d)] if inside else None


def _newton(objective: Objective, x: list[Ball]) -> tuple[list[Ball], int]:
    """Midpoints of Newton's iterates until the step is lost in the rounding of this precision."""
    d = len(x)
    tiny = arb(2) ** (-ctx.prec // 2)
    for iteration in range(1, ITERATIONS + 1):
        at = objective(x)
        step = middle(inverse(middle(at.hessian), "the Hessian") * middle(at.gradient))
        x = [(x[i] - step[i, 0]).mid() for i in range(d)]
        size = max(abs(float(step[i, 0])) for i in range(d))
        if not size < 1e3:
            break
        if all(abs(step[i, 0]) < tiny * (1 + abs(x[i])) for i in range(d)):
            return x, iteration
    raise NotEnclosed(f"Newton's method does not settle in {ITERATIONS} steps from this start")


def _widest(objective: Objective, centre: Sequence[Ball], digits: int) -> float:
    """The largest power of ten, at most 0.1, as radius of a box on which uniqueness is proved."""
    for exponent in range(1, digits):
        if krawczyk(objective, centre, arb(10) ** -exponent) is not None:
            return 10.0**-exponent
    return 10.0**-digits


def _largest(values: Matrix) -> Ball:
    return max((abs(x).upper() for x in values.entries()), key=float)


def _rises(objective: Objective, box: Sequence[Ball]) -> tuple[tuple[float, Ball], ...]:
    """How much the criterion is proved to rise, at least, at steps of 1e-3 and 0.1 along each parameter."""
    here = objective(box).criterion
    out = []
    for step in (1e-3, 1e-1):
        there = [
            objective([x + sign * arb(step) * (i == j) for j, x in enumerate(box)]).criterion - here
            for i in range(len(box))
            for sign in (-1, 1)
        ]
        out.append((step, min((rise.lower() for rise in there), key=float)))
    return tuple(out)


def complementarity(score: Matrix, B: Matrix, order: Sequence[int]) -> Ball | None:
    """Least pivot of N' score N, N a basis of the directions that B (k, r) does not reach; None if r = k.

    Raises
    ------
    NotEnclosed
        if the restricted score is not proved positive definite: the criterion may fall into the interior.
    """
    k, r = B.nrows(), B.ncols()
    if r == k:
        return None
    leading, rest = list(order[:r]), list(order[r:])
    N = arb_mat(k, k - r)
    for j, i in enumerate(rest):
        N[i, j] = arb(1)
    if r:
        top = arb_mat(r, r, [B[i, j] for i in leading for j in range(r)])
        low = arb_mat(k - r, r, [B[i, j] for i in rest for j in range(r)])
        X = inverse(top.transpose(), "the leading rows of B") * low.transpose()
        for a, i in enumerate(leading):
            for j in range(k - r):
                N[i, j] = -X[a, j]
    L = cholesky(N.transpose() * score * N, "the criterion's slope into the interior")
    return min((L[i, i] ** 2 for i in range(k - r)), key=lambda x: float(x.mid()))
