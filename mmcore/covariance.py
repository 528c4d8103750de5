"""Relative covariance of the random effects: parameters -> Sigma, with the derivatives a Newton step needs.

A *structure* describes one random-effects term with k effects. Its parameters ``par`` are what the
optimizer moves; ``theta`` are the entries of the lower Cholesky factor Lambda that lme4 reports.
For ``us`` and heterogeneous ``diag`` the two are the same (Bates et al. 2015, eq. 4: Sigma = Lambda Lambda').

Terms on the same grouping factor are one *block*: their Sigma is block diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["BlockCovariance", "Compound", "Diagonal", "Structure", "Unstructured", "cholesky_psd", "structure_for"]

START = 0.55  # relative sd to start from: at 1 a capped Newton step can land exactly on theta = 0


def cholesky_psd(Sigma: np.ndarray) -> np.ndarray:
    """Lower factor of a positive semi-definite matrix; a zero pivot gives a zero column."""
    k = len(Sigma)
    L = np.zeros((k, k))
    A = np.array(Sigma, float)
    for j in range(k):
        pivot = A[j, j]
        if pivot > 1e-14 * max(Sigma[j, j], 1e-300):
            L[j:, j] = A[j:, j] / np.sqrt(pivot)
            A[j:, j:] -= np.outer(L[j:, j], L[j:, j])
    return L


def _theta_names(effects: Sequence[str]) -> list[str]:
    """lme4's labels of the lower triangle, column by column: ``a``, ``b.a``, ``b``."""
    k = len(effects)
    return [
        effects[i] if i == j else f"{effects[i]}.{effects[j]}"
        for j in range(k)
        for i in range(j, k)
    ]


class Structure:
    """One term's covariance structure of k effects; subclasses say how Sigma depends on ``par``."""

    k: int
    n_par: int

    def start(self) -> np.ndarray:
        """Parameters of START * identity."""
        raise NotImplementedError

    def sigma(self, par: np.ndarray) -> np.ndarray:
        """(k, k) covariance relative to the residual variance."""
        raise NotImplementedError

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        """(n_par, k, k) with dSigma / dpar."""
        raise NotImplementedError

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        """(n_par, n_par) with <G, d2Sigma / dpar dpar'>: the part of the Hessian a gradient G brings."""
        raise NotImplementedError

    def canonical(self, par: np.ndarray) -> np.ndarray:
        """The representative with non-negative diagonal among parameters of the same Sigma."""
        raise NotImplementedError

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        """Parameters of the Cholesky entries lme4 reports."""
        raise NotImplementedError

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        """(k, k) lower triangular with Lambda Lambda' = Sigma."""
        return cholesky_psd(self.sigma(par))

    def theta(self, par: np.ndarray) -> np.ndarray:
        """Entries of Lambda in lme4's order, structural zeros left out."""
        L = self.Lambda(par)
        return np.concatenate([L[j:, j] for j in range(self.k)])

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        """lme4's names of ``theta``, without the group prefix."""
        return _theta_names(effects)

    def scales(self, par: np.ndarray) -> np.ndarray:
        """The parameters that are zero exactly when the structure is singular (diagonal of Lambda)."""
        return np.diag(self.Lambda(par))


class Unstructured(Structure):
    """Any positive semi-definite Sigma; par = theta = lower triangle of Lambda by columns."""

    def __init__(self, k: int) -> None:
        self.k, self.n_par = k, k * (k + 1) // 2
        cols = [(i, j) for j in range(k) for i in range(j, k)]
        self._row = np.array([i for i, _ in cols])
        self._col = np.array([j for _, j in cols])
        self._diag = np.flatnonzero(self._row == self._col)
        # dSigma_ab / dpar_t = B[t, a, b, :] vec(Lambda): constant, so the Jacobian is one product
        base = np.zeros((self.n_par, k, k, k, k))
        for t, (r, c) in enumerate(cols):
            for a in range(k):
                base[t, r, a, a, c] += 1.0
                base[t, a, r, a, c] += 1.0
        self._base = base.reshape(self.n_par * k * k, k * k)
        self._same_column = 2.0 * (self._col[:, None] == self._col[None, :])

    def start(self) -> np.ndarray:
        return START * (self._row == self._col)

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        L = np.zeros((self.k, self.k))
        L[self._row, self._col] = par
        return L

    def sigma(self, par: np.ndarray) -> np.ndarray:
        if self.k == 1:
            return np.array([[par[0] * par[0]]])
        L = self.Lambda(par)
        return L @ L.T

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        if self.k == 1:
            return np.array([[[2.0 * par[0]]]])
        return (self._base @ self.Lambda(par).ravel()).reshape(self.n_par, self.k, self.k)

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        return self._same_column * G[self._row[:, None], self._row[None, :]]

    def canonical(self, par: np.ndarray) -> np.ndarray:
        sign = np.where(par[self._diag] < 0, -1.0, 1.0)
        return par * sign[self._col] + 0.0

    def theta(self, par: np.ndarray) -> np.ndarray:
        return np.array(par, float)

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        return np.array(theta, float)

    def scales(self, par: np.ndarray) -> np.ndarray:
        return par[self._diag]

    @property
    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` of the diagonal of Lambda."""
        return self._diag


class Diagonal(Structure):
    """Uncorrelated effects: one standard deviation each, or one for all (homogeneous)."""

    def __init__(self, k: int, homogeneous: bool) -> None:
        self.k, self.homogeneous = k, homogeneous
        self.n_par = 1 if homogeneous else k
        self._J = np.ones((1, k)) if homogeneous else np.eye(k)

    def start(self) -> np.ndarray:
        return np.full(self.n_par, START)

    def Lambda(self, par: np.ndarray) -> np.ndarray:
        return np.diag(par @ self._J)

    def sigma(self, par: np.ndarray) -> np.ndarray:
        return np.diag((par @ self._J) ** 2)

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        return np.array([np.diag(2.0 * value * row) for value, row in zip(par, self._J, strict=True)])

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        return np.diag(2.0 * (self._J @ np.diag(G)))

    def canonical(self, par: np.ndarray) -> np.ndarray:
        return np.abs(par)

    def theta(self, par: np.ndarray) -> np.ndarray:
        return np.array(par, float)

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        return np.array(theta, float)

    def theta_names(self, effects: Sequence[str]) -> list[str]:
        return list(effects[: self.n_par])

    def scales(self, par: np.ndarray) -> np.ndarray:
        return par @ self._J

    @property
    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` of the diagonal of Lambda."""
        return np.arange(self.n_par)


class Compound(Structure):
    """Compound symmetry (``cs``) or first-order autoregression (``ar1``): standard deviations and one correlation.

    The correlation is moved on an unbounded scale, rho = lo + (hi - lo) / (1 + exp(-x)), where (lo, hi) is the
    interval in which Sigma is positive semi-definite: (-1/(k-1), 1) for cs, (-1, 1) for ar1.
    """

    def __init__(self, k: int, kind: str, homogeneous: bool) -> None:
        self.k, self.kind, self.homogeneous = k, kind, homogeneous
        self.n_sd = 1 if homogeneous else k
        self.n_par = self.n_sd + 1
        self._J = np.ones((1, k)) if homogeneous else np.eye(k)
        self._lo = -1.0 if kind == "ar1" or k == 1 else -1.0 / (k - 1)
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        self._power = lag if kind == "ar1" else (lag > 0).astype(int)

    def start(self) -> np.ndarray:
        return np.append(np.full(self.n_sd, START), self._inverse_link(0.05))

    def _inverse_link(self, rho: float) -> float:
        share = (rho - self._lo) / (1.0 - self._lo)
        share = min(max(share, 1e-12), 1 - 1e-12)
        return float(np.log(share / (1 - share)))

    def correlation(self, par: np.ndarray) -> tuple[float, float, float]:
        """rho and its first two derivatives in the unbounded parameter."""
        share = 1.0 / (1.0 + np.exp(-np.clip(par[-1], -40, 40)))
        width = 1.0 - self._lo
        first = width * share * (1 - share)
        return self._lo + width * share, first, first * (1 - 2 * share)

    def _correlations(self, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Correlation matrix and its first two derivatives in rho."""
        t = self._power
        R = np.where(t == 0, 1.0, np.power(rho, t, where=t > 0, out=np.ones(t.shape)))
        R1 = np.where(t > 0, t * np.power(rho, np.maximum(t - 1, 0)), 0.0)
        R2 = np.where(t > 1, t * (t - 1) * np.power(rho, np.maximum(t - 2, 0)), 0.0)
        return R, R1, R2

    def sigma(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        return np.outer(sd, sd) * self._correlations(self.correlation(par)[0])[0]

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        rho, first, _ = self.correlation(par)
        R, R1, _ = self._correlations(rho)
        rows = [(np.outer(e, sd) + np.outer(sd, e)) * R for e in self._J]
        return np.array([*rows, np.outer(sd, sd) * R1 * first])

    def curvature(self, par: np.ndarray, G: np.ndarray) -> np.ndarray:
        sd = par[:-1] @ self._J
        rho, first, second = self.correlation(par)
        R, R1, R2 = self._correlations(rho)
        H = np.empty((self.n_par, self.n_par))
        H[:-1, :-1] = 2.0 * self._J @ (G * R) @ self._J.T
        H[:-1, -1] = H[-1, :-1] = 2.0 * first * (self._J @ ((G * R1) @ sd))
        H[-1, -1] = np.sum(G * np.outer(sd, sd) * (R2 * first**2 + R1 * second))
        return H

    def canonical(self, par: np.ndarray) -> np.ndarray:
        sd = par[:-1]
        # a common sign is free; a single negative sd is a different correlation pattern and stays as it is
        return np.append(np.abs(sd) if (sd <= 0).all() or self.homogeneous else sd, par[-1])

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        L = np.zeros((self.k, self.k))
        L[np.triu_indices(self.k)] = 0.0
        position = 0
        for j in range(self.k):
            L[j:, j] = theta[position : position + self.k - j]
            position += self.k - j
        Sigma = L @ L.T
        sd = np.sqrt(np.diag(Sigma))
        rho = Sigma[1, 0] / (sd[0] * sd[1]) if self.k > 1 and sd[0] * sd[1] > 0 else 0.0
        return np.append(sd[: self.n_sd], self._inverse_link(float(rho)))

    @property
    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` of the standard deviations."""
        return np.arange(self.n_sd)


def structure_for(kind: str, k: int, homogeneous: bool) -> Structure:
    """The structure a term asks for; with one effect all of them are a single standard deviation."""
    if k == 1 or kind == "us":
        return Unstructured(k)
    if kind == "diag":
        return Diagonal(k, homogeneous)
    return Compound(k, kind, homogeneous)


def _joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """One vector; empty for a model without random effects."""
    return np.concatenate(pieces) if len(pieces) else np.zeros(0)


class BlockCovariance:
    """The structures of all blocks of a model; ``par`` is ordered term by term as in lme4's theta."""

    def __init__(self, blocks: Sequence[Sequence[int]], structures: Sequence[Structure]) -> None:
        """``blocks[b]`` lists the terms of block b; ``structures[t]`` belongs to term t."""
        self.structures = tuple(structures)
        ends = np.cumsum([s.n_par for s in structures])
        self._par = [slice(int(e - s.n_par), int(e)) for s, e in zip(structures, ends, strict=True)]
        self.n_par = int(ends[-1]) if len(ends) else 0
        self.blocks = tuple(tuple(b) for b in blocks)
        sizes = [[structures[t].k for t in b] for b in self.blocks]
        self._rows = [
            [slice(sum(s[:i]), sum(s[: i + 1])) for i in range(len(s))] for s in sizes
        ]
        self.K = tuple(sum(s) for s in sizes)
        # position in par of every parameter of a block, in the order of the block's own derivative array
        self.index = tuple(
            np.concatenate([np.arange(self._par[t].start, self._par[t].stop) for t in b])
            for b in self.blocks
        )
        order = np.concatenate(self.index) if self.index else np.zeros(0, dtype=np.intp)
        self._inverse_order = None if (np.diff(order) == 1).all() else np.argsort(order)

    def start(self) -> np.ndarray:
        return _joined([s.start() for s in self.structures])

    def split(self, par: np.ndarray) -> list[np.ndarray]:
        """``par`` cut into one piece per term."""
        return [par[s] for s in self._par]

    def sigma(self, par: np.ndarray) -> list[np.ndarray]:
        """(K, K) relative covariance per block."""
        out = []
        for b, terms in enumerate(self.blocks):
            if len(terms) == 1:
                out.append(self.structures[terms[0]].sigma(par[self._par[terms[0]]]))
                continue
            Sigma = np.zeros((self.K[b], self.K[b]))
            for t, rows in zip(terms, self._rows[b], strict=True):
                Sigma[rows, rows] = self.structures[t].sigma(par[self._par[t]])
            out.append(Sigma)
        return out

    def jacobian(self, par: np.ndarray) -> list[np.ndarray]:
        """(n_par_b, K, K) per block, parameters in the order of ``index[b]``."""
        out = []
        for b, terms in enumerate(self.blocks):
            if len(terms) == 1:
                out.append(self.structures[terms[0]].jacobian(par[self._par[terms[0]]]))
                continue
            E = np.zeros((len(self.index[b]), self.K[b], self.K[b]))
            at = 0
            for t, rows in zip(terms, self._rows[b], strict=True):
                part = self.structures[t].jacobian(par[self._par[t]])
                E[at : at + len(part), rows, rows] = part
                at += len(part)
            out.append(E)
        return out

    def in_par_order(self, values: np.ndarray) -> np.ndarray:
        """A vector or square matrix from the order of the blocks to the order of ``par``."""
        o = self._inverse_order
        if o is None:
            return values
        return values[o] if values.ndim == 1 else values[np.ix_(o, o)]

    def curvature(self, par: np.ndarray, G: Sequence[np.ndarray]) -> np.ndarray:
        """(n_par, n_par) block diagonal: <G_b, d2Sigma_b>."""
        H = np.zeros((self.n_par, self.n_par))
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self._rows[b], strict=True):
                s = self._par[t]
                H[s, s] = self.structures[t].curvature(par[s], G[b][rows, rows])
        return H

    def canonical(self, par: np.ndarray) -> np.ndarray:
        return _joined(
            [s.canonical(p) for s, p in zip(self.structures, self.split(par), strict=True)]
        )

    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` whose zero makes the model singular."""
        return _joined(
            [s.start + t.scale_index for s, t in zip(self._par, self.structures, strict=True)]
        )

    def Lambda(self, par: np.ndarray) -> tuple[np.ndarray, ...]:
        """(k, k) lower factor per term."""
        return tuple(s.Lambda(p) for s, p in zip(self.structures, self.split(par), strict=True))

    def theta(self, par: np.ndarray) -> np.ndarray:
        return _joined([s.theta(p) for s, p in zip(self.structures, self.split(par), strict=True)])

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        """Parameters from lme4's theta, term by term."""
        pieces, at = [], 0
        for s in self.structures:
            size = len(s.theta(s.start()))
            pieces.append(s.from_theta(theta[at : at + size]))
            at += size
        return _joined(pieces)

    @property
    def n_theta(self) -> int:
        return sum(len(s.theta(s.start())) for s in self.structures)
