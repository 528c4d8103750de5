"""``cs`` and ``ar1``: standard deviations and one correlation parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .structure import START, WIDE, Structure
from .triangle import cholesky_psd, triangle_entries, triangle_names

__all__ = ["Compound"]


class Compound(Structure):
    """Compound symmetry (``cs``) or first-order autoregression (``ar1``).

    par = standard deviations relative to sigma (one if homogeneous), then the correlation rho: Sigma_ij =
    sd_i sd_j rho^t, t = 1 for i != j (cs) or |i - j| (ar1). Standard deviations are not negative and rho is
    within the interval in which Sigma is positive semi-definite: [-1/(k-1), 1] for cs, [-1, 1] for ar1.
    """

    def __init__(self, k: int, kind: str, homogeneous: bool, frame: np.ndarray | None = None) -> None:
        self.k, self.kind, self.homogeneous, self.frame = k, kind, homogeneous, frame
        self.n_sd = 1 if homogeneous else k
        self.n_par = self.n_sd + 1
        self.n_theta = 2 * k - 1 if homogeneous else k * (k + 1) // 2
        self._raw = np.ones((1, k)) if homogeneous else np.eye(k)  # sd of b = par[:-1] @ _raw, of b~ with _J
        self._J = self._raw if frame is None else self._raw / frame.diagonal()
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        self._power = lag if kind == "ar1" else (lag > 0).astype(int)
        lower = np.append(np.zeros(self.n_sd), -1.0 if kind == "ar1" else -1.0 / (k - 1))
        self._limits = self.bounds = (lower, np.append(np.full(self.n_sd, np.inf), 1.0))

    def framed(self, C: np.ndarray) -> Compound:
        return Compound(self.k, self.kind, self.homogeneous, C)

    def separated(self, together: np.ndarray) -> Compound:
        """With a correlation of zero if no two effects meet; else rho is in the likelihood, by other pairs."""
        if together.sum() > self.k:
            return self
        out = Compound(self.k, self.kind, self.homogeneous, self.frame)
        for limits in out.bounds or ():
            limits[-1] = 0.0
        return out

    def start(self, relative: np.ndarray | None = None) -> np.ndarray:
        if relative is None:
            return np.append(np.full(self.n_sd, START), min(0.1, self._limits[1][-1]))
        sd = np.sqrt(relative.diagonal()) * (1.0 if self.frame is None else self.frame.diagonal())
        pairs = relative.diagonal(1) / np.sqrt(relative.diagonal()[1:] * relative.diagonal()[:-1])
        rho = float(np.clip(pairs.mean(), 0.5 * self._limits[0][-1], min(0.9, self._limits[1][-1])))
        return np.append(sd.mean() if self.homogeneous else sd, rho)

    def scattered(self, u: np.ndarray, wide: float = WIDE) -> np.ndarray:
        par, (lower, upper) = super().scattered(u, wide), self._limits
        par[-1] = lower[-1] + u[-1] * (upper[-1] - lower[-1])
        return par

    def _correlations(self, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Correlation matrix and its first two derivatives in rho."""
        t = self._power
        powers = np.concatenate(
            [[0.0, 0.0], float(rho) ** np.arange(t.max() + 1)]
        )  # 0, 0, 1, rho, rho^2, ...
        return powers[t + 2], t * powers[t + 1], t * (t - 1) * powers[t]

    def sigma(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        return np.outer(sd, sd) * self._correlations(par[-1])[0]

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        return (par[:-1] @ self._raw)[:, None] * cholesky_psd(self._correlations(par[-1])[0])

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        R, R1, _ = self._correlations(par[-1])
        rows = [(np.outer(e, sd) + np.outer(sd, e)) * R for e in self._J]
        return np.array([*rows, np.outer(sd, sd) * R1])

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        R, R1, R2 = self._correlations(par[-1])
        H = np.empty((self.n_par, self.n_par))
        H[:-1, :-1] = 2.0 * self._J @ (G * R) @ self._J.T
        H[:-1, -1] = H[-1, :-1] = 2.0 * (self._J @ ((G * R1) @ sd))
        H[-1, -1] = np.sum(G * np.outer(sd, sd) * R2)
        return H

    def canonical(self, par: np.ndarray) -> np.ndarray:
        return np.clip(par, *self._limits)

    def theta(self, par: np.ndarray) -> np.ndarray:
        L = self.Lambda(par)
        if not self.homogeneous:
            return triangle_entries(L)
        if self.kind == "ar1":  # Toeplitz after the first column
            return np.concatenate([L[:, 0], L[1:, 1]])
        below = np.append(L.diagonal(-1), 0.0)  # constant below the diagonal
        return np.column_stack([L.diagonal(), below]).ravel()[:-1]

    def _expand(self, theta: np.ndarray) -> np.ndarray:
        """(k, k) Lambda of the entries that lme4 keeps."""
        k, L = self.k, np.zeros((self.k, self.k))
        for j in range(k):
            if not self.homogeneous:
                start = j * k - j * (j - 1) // 2
                L[j:, j] = theta[start : start + k - j]
            elif self.kind == "ar1":
                L[j:, j] = theta[:k] if j == 0 else theta[k : 2 * k - j]
            else:
                L[j, j] = theta[2 * j]
                L[j + 1 :, j] = theta[2 * j + 1] if j < k - 1 else 0.0
        return L

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        L = self._expand(np.asarray(theta, float))
        Sigma = L @ L.T
        sd = np.sqrt(np.diag(Sigma))
        pairs = [(i, i + 1) for i in range(self.k - 1) if sd[i] > 0 and sd[i + 1] > 0]
        i, j = pairs[0] if pairs else (0, 0)
        rho = Sigma[i, j] / (sd[i] * sd[j]) if pairs else 0.0
        par = np.append(sd[: self.n_sd], np.clip(rho, self._limits[0][-1], 1.0))
        again = self.Lambda(par)
        if np.abs(again @ again.T - Sigma).max() > 1e-6 * max(1e-300, Sigma.max()):
            raise DataError(
                f"theta {theta!r} is not the Cholesky factor of a covariance of the form {self.kind}"
            )
        return par

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        if not self.homogeneous:
            return triangle_names(effects)
        if self.kind == "ar1":
            first = [effects[0], *(f"{e}.{effects[0]}" for e in effects[1:])]
            return [*first, effects[1], *(f"{e}.{effects[1]}" for e in effects[2:])]
        return [name for e in effects for name in (e, f"*.{e}")][:-1]

    def par_names(self, effects: Sequence[str]) -> list[str]:
        return [*(["*"] if self.homogeneous else effects), "rho"]

    @property
    def scale_index(self) -> np.ndarray:
        return np.arange(self.n_sd)
