"""The profile of one parameter: zeta, the signed root of the rise of the criterion, as a function of its value.

zeta is nearly a straight line of the value, and so are the free coordinates. Points that are known predict the next
one by inverse interpolation, value and coordinates alike; a bracket keeps the prediction honest. Every search ends
after a number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import FitError
from .parameters import Parameter
from .settle import Minimum

__all__ = ["Curve", "Held", "Node"]

MOST_STEPS = 60  # points per limit
NEAR = 1e-5  # distance in zeta from which the interpolation is the answer
APART = 2e-3  # distance in zeta of points that are interpolated together
POINTS = 6
UNEXPECTED = 0.3  # relative difference of a point from its prediction at which other starts are tried
FIRST_Z = 0.35  # where the first point beside the optimum is wanted
REACH = 4.0  # a step goes at most to this many times the distance of the farthest point


class Held(Protocol):
    """A model with one parameter held."""

    domain: tuple[float, float]
    start: np.ndarray  # free coordinates at the optimum
    open_ended: bool  # whether the model can end where the likelihood is still finite: means at the edge of a family's

    def minimum(self, v: float, start: np.ndarray) -> Minimum: ...

    def estimates(self, v: float, psi: np.ndarray, every: Sequence[Parameter]) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A point of the curve."""

    v: float  # value of the parameter
    zeta: float
    psi: np.ndarray  # free coordinates; of another kind on the boundary of the domain


class Curve:
    """zeta(v) of one parameter, and its inverse."""

    def __init__(
        self, held: Held, estimate: float, f: float, step: float, scale: float = 1.0, far: float = 1e9
    ) -> None:
        """``f``: the criterion at the optimum; ``step``: a guess of a standard error; ``scale`` divides rises; a
        profile that is still below after ``far`` steps is flat."""
        self.held, self.estimate, self.f, self.step, self.scale = held, estimate, f, step, scale
        self.far = far
        self.nodes = [Node(estimate, 0.0, held.start)]
        self.ends: dict[float, Node] = {}

    def node(self, v: float) -> Node:
        """The point at v, remembered; zeta is infinite where the model breaks down."""
        low, high = self.held.domain
        on_boundary = v in (low, high)
        if on_boundary and v in self.ends:
            return self.ends[v]
        side = 1.0 if v > self.estimate or v >= high else -1.0
        predicted, psi = self._predicted(v)
        node = self._settled(v, side, psi)
        if not abs(node.zeta - predicted) < UNEXPECTED * (1.0 + abs(predicted)):
            near = min(self.nodes, key=lambda n: abs(n.v - v))
            tried = [node, *(self._settled(v, side, start) for start in (near.psi, self.held.start))]
            node = min(tried, key=lambda n: abs(n.zeta))
        if on_boundary:
            self.ends[v] = node
        else:
            self.nodes.append(node)
        return node

    def _settled(self, v: float, side: float, start: np.ndarray) -> Node:
        """The point at v that is found from a start."""
        try:
            found = self.held.minimum(v, start)
        except FitError:
            return Node(v, side * np.inf, self.held.start)
        rise = (found.f - self.f) / self.scale
        return Node(v, side * float(np.sqrt(max(rise, 0.0))), found.psi)

    def limit(self, zeta: float) -> Node:
        """The point where the curve has the value ``zeta``, or the end of the domain if that comes first (its own zeta
        says which); v is infinite if the curve stays below for ever."""
        side, end = np.sign(zeta), self.held.domain[zeta > 0]
        near, far = self.estimate, np.nan
        if not (self.held.domain[0] < self.estimate < self.held.domain[1]) and near == end:
            return Node(end, 0.0, self.held.start)
        for _ in range(MOST_STEPS):
            v = self._next(zeta, near, far, end)
            if not np.isfinite(v):
                return Node(side * np.inf, 0.0, self.held.start)
            node = self.node(v)
            if abs(node.zeta - zeta) < NEAR:
                return self._at(zeta, node)
            if side * node.zeta < abs(zeta):
                if v == end:
                    return node
                near = v
            else:
                far = v
            if np.isfinite(far) and abs(far - near) <= 1e-12 * max(abs(far), abs(near)):
                if self.held.open_ended:
                    return Node(near, zeta, self._predicted(near)[1])
                break
        raise FitError(
            f"the profile has no point with zeta = {zeta:.4g} after {MOST_STEPS} steps: the criterion jumps between "
            f"{near:.6g} and {far:.6g}, where the model has several optima. Use method='boot', or a simpler model"
        )

    def _next(self, zeta: float, near: float, far: float, end: float) -> float:
        """The next value to try."""
        side = np.sign(zeta)
        if len(self.nodes) == 1:
            v = self.estimate + side * FIRST_Z * self.step
            return v if side * (end - v) > 0 else 0.5 * (self.estimate + end)
        v = self._interpolated(zeta)
        if np.isfinite(far):
            inside = min(near, far) < v < max(near, far)
            return v if inside and v != near and v != far else 0.5 * (near + far)
        reach = max(side * (near - self.estimate), self.step)
        if reach > self.far * self.step:
            return float(side * np.inf)
        ahead = side * (v - self.estimate)
        if not side * (near - self.estimate) < ahead < REACH * reach:
            ahead = REACH * reach
        v = self.estimate + side * ahead
        return v if side * (end - v) > 0 else end

    # ---- interpolation ------------------------------------------------------------------------------------------

    def _known(self, distance: list[float]) -> list[Node]:
        """The nearest nodes whose zeta differ."""
        out: list[Node] = []
        for i in np.argsort(distance, kind="stable"):
            node = self.nodes[i]
            if np.isinf(distance[i]):
                break
            if np.isfinite(node.zeta) and all(abs(node.zeta - o.zeta) > APART for o in out):
                out.append(node)
            if len(out) == POINTS:
                break
        return out

    def _interpolated(self, zeta: float) -> float:
        known = self._known([abs(n.zeta - zeta) for n in self.nodes])
        return float(_weights([n.zeta for n in known], zeta) @ [n.v for n in known])

    def _predicted(self, v: float) -> tuple[float, np.ndarray]:
        """zeta and free coordinates expected at v, from the points on its side of the optimum."""
        side = np.sign(v - self.estimate)
        known = self._known(
            [abs(n.v - v) if side * (n.v - self.estimate) >= 0 else np.inf for n in self.nodes]
        )
        if len({n.v for n in known}) < len(known) or len(known) < 2:
            return (v - self.estimate) / self.step, known[0].psi
        weights = _weights([n.v for n in known], v)
        return float(weights @ [n.zeta for n in known]), weights @ np.array([n.psi for n in known])

    def _at(self, zeta: float, node: Node) -> Node:
        """The point at exactly ``zeta``, close to a node."""
        v = self._interpolated(zeta)
        low, high = self.held.domain
        return Node(v, zeta, self._predicted(v)[1]) if low < v < high else node


def _weights(x: list[float], at: float) -> np.ndarray:
    """Lagrange's weights of interpolation."""
    X = np.array(x)
    D = X[:, None] - X[None, :]
    np.fill_diagonal(D, 1.0)
    above = np.repeat(at - X[None, :], len(X), axis=0)
    np.fill_diagonal(above, 1.0)
    return np.prod(above / D, axis=1)
