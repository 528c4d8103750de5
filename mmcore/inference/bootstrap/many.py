"""One design, many responses: linear mixed models with one grouping factor fitted in step, exact Newton.

Z'Z, Z'X and X'X are the same for every response; Z'y, X'y and y'y change. With C_l = Z_l'M per level, everything that
the criterion and its derivatives need is a function of the sums P_g = sum C_l (x) C_l over the levels with equal Z'Z:
a balanced design has one such sum, whatever its number of levels. Arrays carry the responses as leading axis B, groups
of levels as second axis G. The algebra per level is that of :mod:`mmcore.kernels.one_factor`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...covariance.blocks import BlockCovariance
from ...kernels.criterion import Criterion
from ...kernels.one_factor import OneFactor
from ...kernels.profile import LOG_2PI
from ...optimize.newton import FEW, SHARP
from .smallmatrix import cholesky, determinant_and_inverse, lower_inverse, solve_definite

__all__ = ["Fitted", "can_fit_many", "fit_many"]

DECREMENT = 1e-9  # a step that promises less is the last: what it leaves is of its square
MOST_STEPS = 40
ZERO = 2e-3  # a scale below this is tried at exactly zero
MEMORY = 32_000_000  # bytes of products per chunk


@dataclass(frozen=True, slots=True)
class Fitted:
    """Estimates of B models."""

    Sigma: np.ndarray  # (B, K, K) relative covariance in the frame of the products
    sigma: np.ndarray  # (B,)
    beta: np.ndarray  # (B, p)
    f: np.ndarray  # (B,) criterion
    done: np.ndarray  # (B,) bool: found with certainty; the others are for the careful optimizer


def can_fit_many(criterion: Criterion) -> bool:
    """Whether the model has one grouping factor and a Sigma that is quadratic in its parameters (us, diag)."""
    return isinstance(criterion.kernel, OneFactor) and criterion.bounds is None


def fit_many(criterion: Criterion, par: np.ndarray, Y: np.ndarray) -> Fitted:
    """Fit the model of ``criterion`` to each row of Y (B, n), offset subtracted; ``par``: parameters to start from.

    Responses whose optimum is not sharp are fitted from several starts, as in a single fit.
    """
    model = _Model(criterion)
    size = max(16, MEMORY // model.nbytes)
    parts = [_fit(model, model.bind(Y[at : at + size]), par) for at in range(0, len(Y), size)]
    return Fitted(
        *(np.concatenate([getattr(x, name) for x in parts]) for name in Fitted.__dataclass_fields__)
    )


class _Model:
    """What all responses share."""

    def __init__(self, criterion: Criterion) -> None:
        kernel = criterion.kernel
        assert isinstance(kernel, OneFactor)  # can_fit_many
        self.kernel, self.like = kernel, criterion.like
        self.cov: BlockCovariance = criterion.covariance.charted()
        self.from_standard = self.cov.from_standard
        # dSigma / dpar is linear in par, so its values at the unit vectors are all there is to know
        self.tensor = np.stack([self.cov.jacobian(e)[0] for e in np.eye(self.cov.n_par)])  # (t, s, K, K)
        K, A = kernel.block.K, kernel.A
        D = kernel.U[:K].reshape(K * K, -1).T
        same, group, self.count = np.unique(D, axis=0, return_inverse=True, return_counts=True)
        self.D = same.reshape(-1, K, K)
        self.order = np.argsort(group.ravel(), kind="stable")
        self.starts = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        self.C = np.ascontiguousarray(kernel.U[K:, :, self.order])  # (m, K, L), groups together
        self.nu = A.n - A.p if self.like.reml else A.n

    @property
    def nbytes(self) -> int:
        """Memory of the products of one response."""
        m, K, L = self.C.shape
        return 8 * (2 * m * m * K * K * len(self.D) + 3 * K * K * L + self.kernel.A.n)

    def bind(self, Y: np.ndarray) -> _Bound:
        """The products of responses Y (B, n)."""
        A, block = self.kernel.A, self.kernel.block
        Y = Y if A.sqrt_w is None else Y * A.sqrt_w
        Q, p = A.M[: A.p], A.p
        gamma0 = Y @ Q.T
        R = Y - gamma0 @ Q
        again = R @ Q.T
        R, gamma0 = R - again @ Q, gamma0 + again
        rss = np.einsum("bn,bn->b", R, R)
        Cy = block.products(R)[:, :, self.order]  # (B, K, L)
        B, K = Cy.shape[:2]
        P = np.empty((B, len(self.D), K, K, p + 1, p + 1))
        x = self.C[:p]
        P[..., :p, :p] = self._sums(x[:, None, :, None] * x[None, :, None]).transpose(4, 2, 3, 0, 1)
        for a in range(K):
            for c in range(K):
                P[:, :, a, c, p, p] = self._sums(Cy[:, a] * Cy[:, c])
                for i in range(p):
                    P[:, :, a, c, i, p] = P[:, :, c, a, p, i] = self._sums(x[i, a] * Cy[:, c])
        return _Bound(self, P, rss, gamma0)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the levels of each group."""
        if len(self.starts) == values.shape[-1]:
            return values
        return np.add.reduceat(values, self.starts, axis=-1)

    def jacobian(self, par: np.ndarray) -> np.ndarray:
        """(B, n_par, K, K)."""
        return np.tensordot(par, self.tensor, ([1], [0]))

    def sharp(self, par: np.ndarray, H: np.ndarray) -> np.ndarray:
        """(B,) whether no other optimum is expected: see :func:`mmcore.optimize.is_sharp`."""
        scales, least = self.cov.scale_index(), SHARP[par.shape[1] > 2]
        out = np.zeros(len(par), bool)
        L, ok = cholesky(H)
        half = lower_inverse(L[ok])
        variance = np.square(half).sum(axis=1)[:, scales]
        out[ok] = (0.5 * np.square(par[ok][:, scales]) > least * variance).all(axis=1)
        return out


@dataclass(frozen=True, slots=True)
class _Bound:
    """A model and the products of B responses."""

    model: _Model
    P: np.ndarray  # (B, G, K, K, m, m): sums over the levels of a group of C[i, a] C[j, b]
    rss: np.ndarray  # (B,) residual sum of squares of least squares
    gamma0: np.ndarray  # (B, p)

    def take(self, at: np.ndarray) -> _Bound:
        """Some of the responses, repeats allowed."""
        return _Bound(self.model, self.P[at], self.rss[at], self.gamma0[at])


class _Factor:
    """The profiled criterion of B responses, each at its own parameters."""

    def __init__(self, bound: _Bound, par: np.ndarray) -> None:
        model = bound.model
        A, p = model.kernel.A, model.kernel.A.p
        self.bound, self.par, self.E = bound, par, model.jacobian(par)
        self.Sigma = 0.5 * np.einsum("bt,btij->bij", par, self.E)
        T = np.matmul(model.D, self.Sigma[:, None])
        for a in range(T.shape[2]):
            T[:, :, a, a] += 1.0
        logdet, self.T_inv = determinant_and_inverse(T)
        X = np.matmul(self.Sigma[:, None], self.T_inv)
        B, G, K = self.T_inv.shape[:3]
        taken = np.matmul(X.reshape(B, 1, -1), bound.P.reshape(B, G * K * K, -1)).reshape(B, p + 1, p + 1)
        S = -0.5 * (taken + taken.transpose(0, 2, 1))
        S[:, range(p), range(p)] += 1.0
        S[:, p, p] += bound.rss
        self.LS, self.ok = cholesky(S)
        diagonal = np.diagonal(self.LS, axis1=1, axis2=2)
        self.left = diagonal[:, p] ** 2
        f = logdet @ model.count - A.sum_log_w
        with np.errstate(invalid="ignore", divide="ignore"):
            if model.like.reml and p:
                f = f + 2.0 * np.log(diagonal[:, :p]).sum(axis=1) + A.logdet_R
            if model.like.sigma is None:
                self.per_rss, self.curl = model.nu / self.left, model.nu / self.left**2
                f = f + model.nu * (1.0 + LOG_2PI + np.log(self.left / model.nu))
            else:
                self.per_rss, self.curl = np.full(B, model.like.sigma**-2), np.zeros(B)
                f = f + model.nu * (LOG_2PI + 2.0 * np.log(model.like.sigma)) + self.left * self.per_rss
        self.f = np.where(self.ok & np.isfinite(f), f, np.inf)

    def derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, n_par) gradient and (B, n_par, n_par) Hessian; Om, Gram and Pt as in the kernel of one model."""
        model, T_inv, P = self.bound.model, self.T_inv, self.bound.P
        B, G, K, _, m, _ = P.shape
        p = m - 1
        half = lower_inverse(self.LS)
        half[:, p] *= np.sqrt(self.per_rss * self.left)[:, None]
        # R R' summed over each group and whitened: V[a, b] = half (T^-1 P T^-T)[a, b] half'
        V = np.matmul(T_inv, P.reshape(B, G, K, -1)).reshape(B, G, K, K, m * m)
        V = np.matmul(T_inv[:, :, None], V).reshape(B, G, K, K, m, m)
        Gram = np.matmul(
            half[:, None, None], np.matmul(V.sum(axis=1), half.transpose(0, 2, 1)[:, None, None])
        )
        rows = half if model.like.reml else half[:, p:]
        square = np.matmul(rows.transpose(0, 2, 1), rows).reshape(B, 1, m * m, 1)
        outer = np.matmul(V.reshape(B, G, K * K, m * m), square).reshape(B, G, K, K)
        W = np.matmul(T_inv, model.D)
        whole = model.count[:, None, None] * W
        grad = (whole - outer).sum(axis=1)
        Ek = self.E.reshape(B, -1, K * K)
        g = np.matmul(Ek, grad.reshape(B, K * K, 1))[:, :, 0]
        second = (2.0 * outer - whole).reshape(B, G, K * K)
        Qm = np.matmul(W.reshape(B, G, K * K).transpose(0, 2, 1), second).reshape(B, K, K, K, K)
        H = np.matmul(
            np.matmul(Ek, Qm.transpose(0, 4, 1, 2, 3).reshape(B, K * K, K * K)), Ek.transpose(0, 2, 1)
        )
        Pt = np.matmul(Ek, Gram.reshape(B, K * K, m * m))
        Om = np.full((B, m, m), float(model.like.reml))
        Om[:, p, :] = Om[:, :, p] = 1.0
        Om[:, p, p] = self.curl / self.per_rss**2
        H -= np.matmul(Pt * Om.reshape(B, 1, -1), Pt.transpose(0, 2, 1))
        H += np.tensordot(grad, model.tensor, ([1, 2], [2, 3]))
        return g, 0.5 * (H + H.transpose(0, 2, 1))

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """sigma (B,) and beta (B, p)."""
        model, A, p = self.bound.model, self.bound.model.kernel.A, self.bound.model.kernel.A.p
        known = model.like.sigma
        sigma = np.sqrt(self.left / model.nu) if known is None else np.full(len(self.f), known)
        if not p:
            return sigma, np.zeros((len(sigma), 0))
        inverse = lower_inverse(self.LS[:, :p, :p])
        gamma = np.matmul(self.LS[:, p, None, :p], inverse)[:, 0]
        return sigma, np.linalg.solve(A.R, (self.bound.gamma0 + gamma).T).T


@dataclass(slots=True)
class _Runs:
    """Where B Newton runs ended."""

    par: np.ndarray  # (B, n_par)
    f: np.ndarray  # (B,)
    converged: np.ndarray  # (B,) bool
    sharp: np.ndarray  # (B,) bool


def _fit(model: _Model, bound: _Bound, par: np.ndarray) -> Fitted:
    B = len(bound.rss)
    with np.errstate(all="ignore"):
        best = _newton(bound, np.repeat(model.from_standard(par)[None], B, axis=0))
        n_random = model.kernel.block.K * model.kernel.block.L
        if n_random <= FEW:
            doubtful = np.flatnonzero(~(best.converged & best.sharp))
        else:
            doubtful = np.flatnonzero(~best.converged)
        _elsewhere(model, bound, best, doubtful)
        factor = _Factor(bound, best.par)
        sigma, beta = factor.estimates()
    return Fitted(factor.Sigma, sigma, beta, factor.f, best.converged)


def _elsewhere(model: _Model, bound: _Bound, best: _Runs, at: np.ndarray) -> None:
    """Run the responses ``at`` again from starts all over the parameters; keep the lowest point."""
    if not len(at):
        return
    starts = model.cov.scattered()
    many = bound.take(np.repeat(at, len(starts)))
    runs = _newton(many, np.tile(np.array(starts), (len(at), 1)))
    f = np.where(runs.converged, runs.f, np.inf).reshape(len(at), -1)
    pick = f.argmin(axis=1)
    chosen = np.arange(len(at)) * f.shape[1] + pick
    old = np.where(best.converged[at], best.f[at], np.inf)
    better = f.min(axis=1) < old - 1e-9 * (1.0 + np.abs(f.min(axis=1)))
    for name in ("par", "f", "converged"):
        getattr(best, name)[at[better]] = getattr(runs, name)[chosen[better]]


def _newton(bound: _Bound, start: np.ndarray) -> _Runs:
    """Newton from ``start`` (B, n_par), every response at its own pace."""
    B, scales = len(start), bound.model.cov.scale_index()
    runs = _Runs(start.copy(), np.full(B, np.inf), np.zeros(B, bool), np.zeros(B, bool))
    at, trial = np.arange(B), start.copy()  # responses still moving, and where they are to be evaluated
    step, last = np.zeros_like(start), np.zeros(B, bool)
    own = bound
    for _ in range(MOST_STEPS):
        factor = _Factor(own, trial)
        rose = ~(factor.f <= runs.f[at] + 1e-13 * (1.0 + np.abs(factor.f)))
        fell = ~rose
        runs.par[at[fell]], runs.f[at[fell]] = trial[fell], factor.f[fell]
        runs.converged[at[last]] = True  # the last step is taken where the criterion does not rise
        g, H = factor.derivatives()
        new, decrement, convex = _step(g, H, trial)
        step[fell] = new[fell]
        step[rose] *= 0.4
        close = fell & convex & (decrement < DECREMENT)
        if last.any() or close.any():
            runs.sharp[at[close]] = bound.model.sharp(trial[close], H[close])
        stay = ~last
        lost = ~np.isfinite(runs.f[at]) | (rose & (np.abs(step).max(axis=1) < 1e-9))
        stay &= ~lost
        at, step, last = at[stay], step[stay], close[stay]
        if not len(at):
            break
        own = own.take(stay) if not stay.all() else own
        trial = runs.par[at] + step
    _snap(bound, runs, scales)
    return runs


def _step(g: np.ndarray, H: np.ndarray, par: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newton's step (along |H| where H is not positive definite), shortened; its decrement; whether H is definite."""
    step, decrement, convex = solve_definite(H, g)
    step = -step
    bad = np.flatnonzero(~convex)
    if len(bad):
        finite = np.isfinite(H[bad]).all(axis=(1, 2))
        step[bad[~finite]], bad = 0.0, bad[finite]
        values, vectors = np.linalg.eigh(H[bad])
        size = np.abs(values)
        size = np.maximum(size, 1e-7 * np.maximum(size.max(axis=1, keepdims=True), 1e-12))
        along = np.einsum("bij,bi->bj", vectors, g[bad])
        step[bad] = -np.einsum("bij,bj->bi", vectors, along / size)
        # off a saddle, where the gradient is no guide
        saddle = np.square(along / np.sqrt(size)).sum(axis=1) < DECREMENT
        step[bad[saddle]] = 0.1 * vectors[saddle, :, 0]
    cap = np.maximum(0.2, 0.77 * np.abs(par).max(axis=1))
    longest = np.abs(step).max(axis=1)
    return step * np.minimum(1.0, cap / np.maximum(longest, 1e-300))[:, None], decrement, convex


def _snap(bound: _Bound, runs: _Runs, scales: np.ndarray) -> None:
    """Put scales that vanish exactly on zero where the criterion does not mind."""
    small = (np.abs(runs.par[:, scales]) < ZERO).any(axis=1) & runs.converged
    at = np.flatnonzero(small)
    if not len(at):
        return
    par = runs.par[at]
    part = par[:, scales]
    part[np.abs(part) < ZERO] = 0.0
    par[:, scales] = part
    f = _Factor(bound.take(at), par).f
    fine = f <= runs.f[at] + 1e-10 * (1.0 + np.abs(f))
    runs.par[at[fine]], runs.f[at[fine]] = par[fine], f[fine]
