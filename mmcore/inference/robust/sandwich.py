"""Adjusted scores of the clusters: the meat of a robust covariance, and its degrees of freedom.

With bread M = (X'WX)^-1, working covariance Phi of the rows and S_i = block i of (I - H) Phi (I - H)', H = X M X'W,
the robust covariance is M (sum_i s_i s_i') M with scores s_i = X_i'W_i A_i e_i and

    CR0  A_i = I        CR2  A_i S_i A_i = Phi_i, A_i symmetric        CR3  A_i = (I - H_ii)^-1

(Bell and McCaffrey 2002; Pustejovsky and Tipton 2018). Each cluster is whitened by Phi_i = D'D: with U = D^-T X_i,
U_w = D W_i X_i and e = D^-T e_i the score is H'e, H = T'U_w, and T depends on U, U_w, M and K = D D' alone. Where
W = Phi^-1, as in every mixed and generalised model, U_w is U.

A rotation of the rows of a cluster whose noise variances are equal changes nothing, so such a cluster is replaced by
the triangle of the QR decomposition of its columns [X_i, Z_i, e_i]: as many rows as columns, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import FitError
from .clusters import Clusters

__all__ = ["RandomPart", "Scores", "Whitened", "cluster_scores", "satterthwaite_df"]

NO_SHARE = 1e-12  # part of a direction's working variance left to the residuals, below which it is none
BATCH = 2_000_000  # numbers in one stacked array


@dataclass(frozen=True, slots=True)
class RandomPart:
    """A random term, its columns over the standard deviation of the noise and times Lambda."""

    codes: np.ndarray  # (n,) level of each row
    columns: np.ndarray  # (n, k)
    n_levels: int


@dataclass(frozen=True, slots=True)
class Whitened:
    """The rows of a model over the standard deviation of their noise: Phi = I + Z Z' where there are random terms."""

    X: np.ndarray  # (n, p) such that coefficients are R^-1 times those of X
    WX: np.ndarray | None  # (n, p) weights times X if they are not the inverse of Phi; then there is no Z
    e: np.ndarray  # (n,) residuals
    noise: np.ndarray | None  # (n,) noise variances of the rows before, None if equal
    terms: tuple[RandomPart, ...]
    half: np.ndarray  # (p, p), M = (X'WX)^-1 = half'half
    R: np.ndarray  # (p, p)

    @property
    def M(self) -> np.ndarray:
        """(p, p) bread."""
        return self.half.T @ self.half

    @property
    def omega(self) -> np.ndarray:
        """(p, p) half X'W Phi W X half': the identity unless the weights are not the inverse of Phi."""
        if self.WX is None:
            return np.eye(len(self.half))
        return self.half @ (self.WX.T @ self.WX) @ self.half.T


@dataclass(frozen=True, slots=True)
class Scores:
    """What the clusters contribute, in the coefficients of ``Whitened.X``."""

    s: np.ndarray  # (m, p) scores H'e
    HH: np.ndarray  # (m, p, p) H'H
    XH: np.ndarray  # (m, p, p) U'H
    WH: np.ndarray  # (m, p, p) U_w'H; XH itself where W is the inverse of Phi


@dataclass(frozen=True, slots=True)
class _Stack:
    """Clusters of similar size, padded to one: rows of zeros, which add nothing."""

    members: np.ndarray  # (G,) cluster numbers
    U: np.ndarray  # (G, r, p)
    Uw: np.ndarray  # (G, r, p)
    e: np.ndarray  # (G, r)
    K: np.ndarray | None  # (G, r, r) D D', None for the identity


def cluster_scores(rows: Whitened, clusters: Clusters, kind: str) -> Scores:
    """Scores with the adjustment ``kind``: ``"CR0"``, ``"CR2"`` or ``"CR3"``."""
    m, p = clusters.m, rows.X.shape[1]
    s, HH, XH = np.empty((m, p)), np.empty((m, p, p)), np.empty((m, p, p))
    WH = XH if rows.WX is None else np.empty((m, p, p))
    for stack in _stacks(rows, clusters, kind == "CR2"):
        H = _adjusted(rows, clusters, stack, kind)
        Ht, at = H.transpose(0, 2, 1), stack.members
        s[at] = (Ht @ stack.e[:, :, None])[:, :, 0]
        HH[at] = Ht @ H
        XH[at] = stack.U.transpose(0, 2, 1) @ H
        if rows.WX is not None:
            WH[at] = stack.Uw.transpose(0, 2, 1) @ H
    return Scores(s, HH, XH, WH)


# --- adjustments ------------------------------------------------------------------------------------------


def _adjusted(rows: Whitened, clusters: Clusters, stack: _Stack, kind: str) -> np.ndarray:
    """(G, r, p) H = T'U_w."""
    if kind == "CR0":
        return stack.Uw
    if kind == "CR3":
        return _jackknifed(rows, clusters, stack)
    return _bias_reduced(rows, stack)


def _jackknifed(rows: Whitened, clusters: Clusters, stack: _Stack) -> np.ndarray:
    """H = (I - U_w M U')^-1 U_w, which is U_w (I - M U'U_w)^-1."""
    half, p = rows.half, rows.X.shape[1]
    share = half @ (stack.U.transpose(0, 2, 1) @ stack.Uw) @ half.T
    left = np.eye(p) - (share + share.transpose(0, 2, 1)) / 2
    values, vectors = np.linalg.eigh(left)
    alone = values.min(axis=1, initial=1.0) <= NO_SHARE
    if alone.any():
        label = clusters.labels[stack.members[int(np.argmax(alone))]]
        raise FitError(
            f"CR3 does not exist: without cluster {label!r} the fixed effects cannot be estimated. Use CR2, which "
            "leaves such directions out, or drop what only this cluster determines"
        )
    inverse = (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
    return stack.Uw @ half.T @ inverse @ np.linalg.inv(half).T


def _bias_reduced(rows: Whitened, stack: _Stack) -> np.ndarray:
    """H = T'U_w with T = (K S K)^(+1/2) K, S the covariance of the whitened residuals."""
    values, vectors = np.linalg.eigh(_residual_covariance(rows, stack))
    kept = values > NO_SHARE
    roots = np.sqrt(np.where(kept, values, 1.0))
    if stack.K is None:
        inverse = (vectors * np.where(kept, 1.0 / roots, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
        return inverse @ stack.Uw
    # K S K = F F'; its root by singular values of F keeps the digits that squares would lose.
    F = stack.K @ (vectors * np.where(kept, roots, 0.0)[:, None, :])
    left, sizes, _ = np.linalg.svd(F)
    ranked = np.arange(sizes.shape[1]) < kept.sum(axis=1)[:, None]
    inverse = np.where(ranked, 1.0 / np.where(ranked, sizes, 1.0), 0.0)
    return stack.K @ ((left * inverse[:, None, :]) @ (left.transpose(0, 2, 1) @ stack.Uw))


def _residual_covariance(rows: Whitened, stack: _Stack) -> np.ndarray:
    """(G, r, r) block of (I - H)(I - H)' in whitened rows."""
    eye, U = np.eye(stack.U.shape[1]), stack.U @ rows.half.T
    if rows.WX is None:
        return eye - U @ U.transpose(0, 2, 1)
    cross = U @ (stack.Uw @ rows.half.T).transpose(0, 2, 1)
    return eye - cross - cross.transpose(0, 2, 1) + U @ rows.omega @ U.transpose(0, 2, 1)


# --- degrees of freedom -----------------------------------------------------------------------------------


def satterthwaite_df(rows: Whitened, scores: Scores, C: np.ndarray) -> np.ndarray:
    """(q,) degrees of freedom of the contrasts C (q, p) of the coefficients of ``rows.X``.

    The robust variance of a contrast is a quadratic form of the residuals with eigenvalues those of P (m, m), of which
    E = tr P and Var = 2 tr P^2 under the working model; df = (tr P)^2 / tr P^2. P is diagonal but for a matrix of rank
    2 p at most and is not formed. NaN where the clusters say nothing of the contrast.
    """
    return np.array([_satterthwaite(rows, scores, c) for c in C])


def _satterthwaite(rows: Whitened, scores: Scores, c: np.ndarray) -> float:
    t = rows.M @ c
    d = np.einsum("a,mab,b->m", t, scores.HH, t)
    F, J = _low_rank(rows, scores, t)
    own = np.einsum("ma,ab,mb->m", F, J, F)
    trace, v = float((d + own).sum()), rows.half @ c
    if trace <= NO_SHARE * float(v @ rows.omega @ v):  # against the variance of the estimate
        return np.nan
    FFJ = F.T @ F @ J
    squares = float((d * (d + 2.0 * own)).sum() + np.einsum("ab,ba->", FFJ, FFJ))
    return trace**2 / squares


def _low_rank(rows: Whitened, scores: Scores, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F and J with P = diag(d) + F J F'."""
    alpha = (scores.XH @ t) @ rows.half.T
    p = alpha.shape[1]
    if rows.WX is None:
        return alpha, -np.eye(p)
    beta = (scores.WH @ t) @ rows.half.T
    J = np.block([[rows.omega, -np.eye(p)], [-np.eye(p), np.zeros((p, p))]])
    return np.hstack([alpha, beta]), J


# --- clusters as stacks of equal shape --------------------------------------------------------------------


def _stacks(rows: Whitened, clusters: Clusters, by_noise: bool) -> Iterator[_Stack]:
    """All clusters; ``by_noise`` if the adjustment depends on the noise of each row (CR2)."""
    widths, homes = _columns_of_clusters(rows, clusters)
    sizes = np.bincount(clusters.codes, minlength=clusters.m)
    noise = rows.noise if by_noise else None
    width = widths + rows.X.shape[1] * (1 if rows.WX is None else 2) + 1
    rotated = (sizes > width) & _equal_within(noise, clusters)
    height = np.where(rotated, np.maximum(sizes, width), sizes)
    order = np.argsort(clusters.codes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for members in _batches(rotated, height, width):
        taken = np.concatenate([order[starts[j] : starts[j] + sizes[j]] for j in members])
        g = np.repeat(np.arange(len(members)), sizes[members])
        position = np.concatenate([np.arange(sizes[j]) for j in members])
        shape = (len(members), int(height[members].max()))
        padded = _padded(rows, taken, (g, position), shape, int(widths[members].max()), homes)
        own = None if noise is None or rotated[members[0]] else noise[taken]
        yield _whitened_stack(rows, members, padded, bool(rotated[members[0]]), own, (g, position))


def _columns_of_clusters(rows: Whitened, clusters: Clusters) -> tuple[np.ndarray, list[np.ndarray]]:
    """(m,) columns of Z in each cluster, and per term (n,) the first column of each row within its cluster."""
    widths, homes = np.zeros(clusters.m, dtype=np.intp), []
    for term in rows.terms:
        cluster = np.full(term.n_levels, -1, dtype=np.intp)
        cluster[term.codes] = clusters.codes
        order = np.argsort(cluster, kind="stable")
        present = order[cluster[order] >= 0]
        levels = np.bincount(cluster[present], minlength=clusters.m)
        local = np.zeros(term.n_levels, dtype=np.intp)
        local[present] = np.arange(len(present)) - np.repeat(np.cumsum(levels) - levels, levels)
        k = term.columns.shape[1]
        homes.append(widths[clusters.codes] + k * local[term.codes])
        widths = widths + k * levels
    return widths, homes


def _equal_within(noise: np.ndarray | None, clusters: Clusters) -> np.ndarray:
    """(m,) whether the noise variances are equal within each cluster."""
    if noise is None:
        return np.ones(clusters.m, dtype=bool)
    one = np.empty(clusters.m)
    one[clusters.codes] = noise
    return np.bincount(clusters.codes, one[clusters.codes] != noise, clusters.m) == 0


def _batches(rotated: np.ndarray, height: np.ndarray, width: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of clusters of like shape, few enough to be stacked."""
    shapes = np.stack([rotated, np.ceil(2 * np.log2(height)), np.ceil(2 * np.log2(width))], axis=1)
    kinds, of = np.unique(shapes, axis=0, return_inverse=True)
    of = of.ravel()
    for kind in range(len(kinds)):
        members = np.flatnonzero(of == kind)
        most = int(height[members].max()) * max(int(height[members].max()), int(width[members].max()))
        pieces = -(-len(members) // max(BATCH // most, 1))
        yield from np.array_split(members, pieces)


def _padded(
    rows: Whitened,
    taken: np.ndarray,
    at: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    width: int,
    homes: Sequence[np.ndarray],
) -> np.ndarray:
    """(G, N, p [+ p] + width + 1) columns [X, WX, Z, e] of each cluster."""
    parts = [rows.X] if rows.WX is None else [rows.X, rows.WX]
    fixed = sum(part.shape[1] for part in parts)
    out = np.zeros((*shape, fixed + width + 1))
    for i, part in enumerate(parts):
        p = part.shape[1]
        out[(*at, slice(i * p, (i + 1) * p))] = part[taken]
    for term, home in zip(rows.terms, homes, strict=True):
        for a in range(term.columns.shape[1]):
            out[at[0], at[1], fixed + home[taken] + a] = term.columns[taken, a]
    out[at[0], at[1], -1] = rows.e[taken]
    return out


def _whitened_stack(
    rows: Whitened,
    members: np.ndarray,
    columns: np.ndarray,
    rotated: bool,
    noise: np.ndarray | None,
    at: tuple[np.ndarray, np.ndarray],
) -> _Stack:
    if rotated:
        columns = np.asarray(np.linalg.qr(columns, mode="r"))
    p = rows.X.shape[1]
    fixed = p if rows.WX is None else 2 * p
    Z, plain = columns[:, :, fixed:-1], np.delete(columns, np.s_[fixed:-1], axis=2)
    variances = None
    if noise is not None:
        variances = np.ones(columns.shape[:2])
        variances[at] = noise
    if not Z.shape[2]:
        K = None if variances is None else variances[:, :, None] * np.eye(columns.shape[1])
    else:
        L = np.linalg.cholesky(np.eye(columns.shape[1]) + Z @ Z.transpose(0, 2, 1))
        plain = np.linalg.solve(L, plain)
        Lt = L.transpose(0, 2, 1)
        K = Lt @ L if variances is None else (Lt * variances[:, None, :]) @ L
    U = plain[:, :, :p]
    return _Stack(members, U, U if rows.WX is None else plain[:, :, p : 2 * p], plain[:, :, -1], K)
