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

from ..errors import FitError
from .parameters import Parameter
from .settle import Minimum

__all__ = ["Curve", "Held", "Node"]

MOST_STEPS = 60  # points per limit
NEAR = 1e-5  # distance in zeta from which the interpolation is the answer
APART = 2e-3  # distance in zeta of points that are interpolated together
POINTS = 6
FIRST_Z = 0.35  # where the first point beside the optimum is wanted
REACH = 4.0  # a step goes at most to this many times the distance of the farthest point


class Held(Protocol):
    """A model with one parameter held."""

    domain: tuple[float, float]
    start: np.ndarray  # free coordinates at the optimum

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
        try:
            found = self.held.minimum(v, self._psi(v))
        except FitError:
            return Node(v, side * np.inf, self.held.start)
        rise = (found.f - self.f) / self.scale
        node = Node(v, side * float(np.sqrt(max(rise, 0.0))), found.psi)
        if on_boundary:
            self.ends[v] = node
        else:
            self.nodes.append(node)
        return node

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
                return node if np.isfinite(node.zeta) else Node(near, zeta, self.held.start)
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
        reach = max([side * (n.v - self.estimate) for n in self.nodes if np.sign(n.zeta) == side] + [self.step])
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
            if np.isfinite(node.zeta) and all(abs(node.zeta - o.zeta) > APART for o in out):
                out.append(node)
            if len(out) == POINTS:
                break
        return out

    def _interpolated(self, zeta: float) -> float:
        known = self._known([abs(n.zeta - zeta) for n in self.nodes])
        return float(_weights([n.zeta for n in known], zeta) @ [n.v for n in known])

    def _psi(self, v: float) -> np.ndarray:
        """Free coordinates predicted at v."""
        known = self._known([abs(n.v - v) for n in self.nodes])
        if len({n.v for n in known}) < len(known):
            return known[0].psi
        return _weights([n.v for n in known], v) @ np.array([n.psi for n in known])

    def _at(self, zeta: float, node: Node) -> Node:
        """The point at exactly ``zeta``, close to a node."""
        v = self._interpolated(zeta)
        low, high = self.held.domain
        return Node(v, zeta, self._psi(v)) if low < v < high else node


def _weights(x: list[float], at: float) -> np.ndarray:
    """Lagrange's weights of interpolation."""
    X = np.array(x)
    D = X[:, None] - X[None, :]
    np.fill_diagonal(D, 1.0)
    above = np.repeat(at - X[None, :], len(X), axis=0)
    np.fill_diagonal(above, 1.0)
    return np.prod(above / D, axis=1)
