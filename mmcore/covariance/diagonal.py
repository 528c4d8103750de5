"""``diag``: uncorrelated effects, by their standard deviations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .structure import START, Structure

__all__ = ["Diagonal"]


class Diagonal(Structure):
    """Uncorrelated effects: one standard deviation each, or one for all (homogeneous).

    par = standard deviations in units of ``unit`` (n_par,).
    """

    def __init__(
        self, k: int, homogeneous: bool, unit: np.ndarray | None = None, frame: np.ndarray | None = None
    ) -> None:
        self.k, self.homogeneous, self.frame = k, homogeneous, frame
        self.n_par = self.n_theta = 1 if homogeneous else k
        self._unit = np.ones(self.n_par) if unit is None else unit
        share = (np.ones((1, k)) if homogeneous else np.eye(k)) * self._unit[:, None]
        self._raw = share  # sd of b = par @ _raw, of b~ = par @ _J
        self._J = share if frame is None else share / frame.diagonal()

    def framed(self, C: np.ndarray) -> Diagonal:
        return Diagonal(self.k, self.homogeneous, None, C)

    def charted(self, P: np.ndarray | None) -> Diagonal:
        C = np.eye(self.k) if self.frame is None else self.frame
        C = C if P is None else C @ P
        unit = np.sqrt(np.square(C).sum(axis=1))
        unit = unit.mean(keepdims=True) if self.homogeneous else unit
        return Diagonal(self.k, self.homogeneous, unit, self.frame)

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        if relative is None:
            return np.full(self.n_par, START)
        sd = np.sqrt(relative.diagonal())
        return sd.mean(keepdims=True) if self.homogeneous else sd

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        return np.diag(par @ self._raw)

    def sigma(self, par: np.ndarray) -> np.ndarray:
        return np.diag((par @ self._J) ** 2)

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        return np.array([np.diag(2.0 * value * row * row) for value, row in zip(par, self._J, strict=True)])

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        return np.diag(2.0 * (np.square(self._J) @ np.diag(G)))

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        return par / self._unit

    def to_standard(self, par: np.ndarray) -> np.ndarray:
        return np.abs(par) * self._unit

    def canonical(self, par: np.ndarray) -> np.ndarray:
        return np.abs(par)

    def theta(self, par: np.ndarray) -> np.ndarray:
        return par * self._unit

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        return theta / self._unit

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        return ["*"] if self.homogeneous else list(effects)

    @property
    def scale_index(self) -> np.ndarray:
        return np.arange(self.n_par)
