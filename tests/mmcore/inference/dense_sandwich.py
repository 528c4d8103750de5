"""The literal definition of a cluster-robust covariance, n x n: what the structured algebra must equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOTHING = 1e-10  # relative eigenvalue that is zero


@dataclass(frozen=True)
class Dense:
    """X (n, p), weights W (n, n), working covariance Phi (n, n), residuals e (n,), clusters as lists of rows."""

    X: np.ndarray
    W: np.ndarray
    Phi: np.ndarray
    e: np.ndarray
    sets: list[np.ndarray]

    def adjustments(self, kind: str) -> list[np.ndarray]:
        """A_i of each cluster."""
        M = np.linalg.inv(self.X.T @ self.W @ self.X)
        H = self.X @ M @ self.X.T @ self.W
        left = np.eye(len(H)) - H
        S = left @ self.Phi @ left.T
        if kind == "CR2":
            return [_balance(self.Phi[np.ix_(i, i)], S[np.ix_(i, i)]) for i in self.sets]
        if kind == "CR3":
            return [np.linalg.inv(left[np.ix_(i, i)]) for i in self.sets]
        return [np.eye(len(i)) for i in self.sets]

    def vcov_and_df(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Robust covariance without a factor, and Satterthwaite df of each coefficient."""
        n, p = self.X.shape
        M = np.linalg.inv(self.X.T @ self.W @ self.X)
        left = np.eye(n) - self.X @ M @ self.X.T @ self.W
        V, G = np.zeros((p, p)), []
        for i, A in zip(self.sets, self.adjustments(kind), strict=True):
            g = (
                M @ self.X[i].T @ self.W[np.ix_(i, i)] @ A
                if self.diagonal
                else M @ (self.W @ self.X)[i].T @ A
            )
            s = g @ self.e[i]
            V += np.outer(s, s)
            G.append(g @ left[i])
        df = []
        for j in range(p):
            rows = np.array([g[j] for g in G])
            P = rows @ self.Phi @ rows.T
            df.append(np.trace(P) ** 2 / np.sum(P**2))
        return V, np.array(df)

    @property
    def diagonal(self) -> bool:
        """Whether the weights have no entry off the diagonal."""
        return bool(np.count_nonzero(self.W - np.diag(self.W.diagonal())) == 0)


def _balance(Phi: np.ndarray, S: np.ndarray) -> np.ndarray:
    """The symmetric A with A S A = Phi: D'(D S D')^(+1/2) D for Phi = D'D."""
    D = np.linalg.cholesky(Phi).T
    values, vectors = np.linalg.eigh(D @ S @ D.T)
    root = np.where(values > NOTHING * values.max(), 1.0 / np.sqrt(np.abs(values)), 0.0)
    return D.T @ (vectors * root) @ vectors.T @ D
