"""The criterion of a linear mixed model, its gradient and its Hessian in ball arithmetic.

    y = offset + X beta + Z b + e,   V = W^-1 + Z Sigma Z' (relative to sigma^2),   Sigma = diag(B_t B_t')

Everything depends on the data through G = Z'WZ and its neighbours, formed once. With Q = (I + G Sigma)^-1,
Z'V^-1 [Z X y] = Q [G, Z'WX, Z'Wy]: no factor of Sigma is inverted, so Sigma may be singular.

A term of k effects and rank r has Sigma_t = B B' with B (k, r) of full column rank; the r(2k - r + 1)/2 free
entries of B are the parameters. Full rank: B is lme4's Lambda. The effects are put in an order in which B's
leading rows are independent, so that every covariance of rank r near this one is reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import arb, arb_mat

from mmcore.covariance.triangle import cholesky_psd
from mmcore.design.build import Design
from parity.exact.balls import (
    Ball,
    Matrix,
    column,
    diagonal,
    inverse,
    log_determinant,
    matrix,
    scaled_rows,
    symmetric,
    trace_of_product,
    zeros,
)

STRUCTURES = ("us", "diag")


class NotCertifiable(ValueError):
    """The model is outside what is certified here; the message says what about it."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Where the covariance of one random term lives: its rank, and which entries of B are free."""

    levels: int
    effects: int  # k
    order: tuple[int, ...]  # (k,) effects, those of the independent rows of B first
    rank: int  # r
    start: int  # first row of the term among the q random effects

    @property
    def free(self) -> tuple[tuple[int, int], ...]:
        """(effect, column) of each parameter, column by column: lme4's order where the rank is full."""
        return tuple((self.order[i], j) for j in range(self.rank) for i in range(j, self.effects))

    def factor(self, par: Sequence[Ball]) -> Matrix:
        """B (k, r)."""
        B = arb_mat(self.effects, self.rank)
        for (i, j), value in zip(self.free, par, strict=True):
            B[i, j] = value
        return B

    def rows(self, level: int) -> range:
        """Positions of a level's effects among the q random effects."""
        first = self.start + level * self.effects
        return range(first, first + self.effects)


@dataclass(frozen=True)
class Products:
    """The data of a model as exact doubles, and the products that the criterion needs."""

    design: Design
    reml: bool

    def __post_init__(self) -> None:
        strange = [t.structure for t in self.design.terms if t.structure != "us" and t.n_effects > 1]
        if strange:
            raise NotCertifiable(f"only unstructured covariances are certified, not {', '.join(strange)}")

    @property
    def n(self) -> int:
        """Rows."""
        return self.design.n

    @property
    def p(self) -> int:
        """Fixed effects."""
        return self.design.p

    @property
    def nu(self) -> int:
        """Denominator of sigma^2: n - p (REML) or n."""
        return self.n - self.p if self.reml else self.n

    @cached_property
    def weights(self) -> list[Ball]:
        """(n,) prior weights."""
        w = self.design.weights
        return [arb(1)] * self.n if w is None else [arb(float(x)) for x in w]

    @cached_property
    def y(self) -> Matrix:
        """(n, 1) response less offset."""
        offset = self.design.offset
        y = matrix(self.design.y)
        return y if offset is None else y - matrix(offset)

    @cached_property
    def X(self) -> Matrix:
        """(n, p)."""
        return matrix(self.design.X) if self.p else zeros(self.n, 0)

    @cached_property
    def Z(self) -> Matrix:
        """(n, q) in lme4's order: term by term, level by level, effects fastest."""
        return matrix(self.design.Z().toarray())

    @cached_property
    def ZtW(self) -> Matrix:
        """(q, n)."""
        return scaled_rows(self.Z, self.weights).transpose()

    @cached_property
    def ZtWZ(self) -> Matrix:
        """(q, q)."""
        return self.ZtW * self.Z

    @cached_property
    def right(self) -> Matrix:
        """(q, p + 1) Z'W [X, y]."""
        return self.ZtW * self._Xy

    @cached_property
    def corner(self) -> Matrix:
        """(p + 1, p + 1) [X, y]'W [X, y]."""
        return scaled_rows(self._Xy, self.weights).transpose() * self._Xy

    @cached_property
    def _Xy(self) -> Matrix:
        p, X, y = self.p, self.X.entries(), self.y.entries()
        rows = [[*X[p * i : p * i + p], y[i]] for i in range(self.n)]
        return arb_mat(self.n, p + 1, [value for row in rows for value in row])

    @cached_property
    def log_weights(self) -> Ball:
        """Sum of log weights."""
        return sum((w.log() for w in self.weights), arb(0))


@dataclass(frozen=True)
class Point:
    """The model at one value (or in a box) of the free parameters: enclosures of all that depends on them."""

    data: Products
    charts: tuple[Chart, ...]
    par: tuple[Ball, ...]

    @cached_property
    def factors(self) -> tuple[Matrix, ...]:
        """B of each term."""
        out, at = [], 0
        for chart in self.charts:
            size = len(chart.free)
            out.append(chart.factor(self.par[at : at + size]))
            at += size
        return tuple(out)

    @cached_property
    def sigmas(self) -> tuple[Matrix, ...]:
        """(k, k) relative covariance of each term."""
        return tuple(B * B.transpose() if B.ncols() else zeros(B.nrows(), B.nrows()) for B in self.factors)

    @cached_property
    def Sigma(self) -> Matrix:
        """(q, q) relative covariance of all random effects."""
        return self._repeated(self.sigmas)

    def _repeated(self, blocks: Sequence[Matrix | None]) -> Matrix:
        q = self.data.design.q
        out = zeros(q, q)
        for chart, block in zip(self.charts, blocks, strict=True):
            if block is None:
                continue
            for level in range(chart.levels):
                rows = chart.rows(level)
                for i, a in enumerate(rows):
                    for j, b in enumerate(rows):
                        out[a, b] = block[i, j]
        return out

    # ---- pieces of V^-1 ---------------------------------------------------------------------------------

    @cached_property
    def _I_plus_GSigma(self) -> Matrix:
        q = self.data.design.q
        return self.data.ZtWZ * self.Sigma + diagonal([arb(1)] * q)

    @cached_property
    def Q(self) -> Matrix:
        """(q, q) (I + G Sigma)^-1."""
        return inverse(self._I_plus_GSigma, "I + Z'WZ Sigma")

    @cached_property
    def T(self) -> Matrix:
        """(q, q) Z'V^-1Z."""
        return symmetric(self.Q * self.data.ZtWZ)

    @cached_property
    def T_right(self) -> Matrix:
        """(q, p + 1) Z'V^-1 [X, y]."""
        return self.Q * self.data.right

    @cached_property
    def S(self) -> Matrix:
        """(p + 1, p + 1) [X, y]'V^-1 [X, y]."""
        return symmetric(self.data.corner - self.data.right.transpose() * (self.Sigma * self.T_right))

    @cached_property
    def XtVX(self) -> Matrix:
        """(p, p) X'V^-1X."""
        p = self.data.p
        return arb_mat(p, p, [self.S[i, j] for i in range(p) for j in range(p)])

    @cached_property
    def C(self) -> Matrix:
        """(p, p) (X'V^-1X)^-1; sigma^2 times this is the covariance of beta."""
        return symmetric(inverse(self.XtVX, "X'V^-1X"))

    @cached_property
    def beta(self) -> Matrix:
        """(p, 1)."""
        p = self.data.p
        return self.C * column([self.S[i, p] for i in range(p)])

    @cached_property
    def rss(self) -> Ball:
        """y'Py."""
        p = self.data.p
        explained = sum((self.S[p, i] * self.beta[i, 0] for i in range(p)), arb(0))
        return self.S[p, p] - explained

    @cached_property
    def s(self) -> Matrix:
        """(q, 1) Z'Py."""
        p, q = self.data.p, self.data.design.q
        y = column([self.T_right[i, p] for i in range(q)])
        return y - self._TX * self.beta if p else y

    @cached_property
    def _TX(self) -> Matrix:
        p, q = self.data.p, self.data.design.q
        return arb_mat(q, p, [self.T_right[i, j] for i in range(q) for j in range(p)])

    @cached_property
    def ZtPZ(self) -> Matrix:
        """(q, q) Z'PZ."""
        return symmetric(self.T - self._TX * self.C * self._TX.transpose()) if self.data.p else self.T

    # ---- criterion and derivatives ------------------------------------------------------------------------

    @cached_property
    def sigma2(self) -> Ball:
        """Residual variance."""
        return self.rss / self.data.nu

    @cached_property
    def criterion(self) -> Ball:
        """-2 log-likelihood or the REML criterion (Bates et al. 2015, eqs. 34, 41)."""
        nu = self.data.nu
        f = log_determinant(self._I_plus_GSigma, "I + Z'WZ Sigma") - self.data.log_weights
        f += nu * (1 + (2 * arb.pi() * self.sigma2).log())
        return f + log_determinant(self.XtVX, "X'V^-1X") if self.data.reml else f

    @cached_property
    def _selected(self) -> Matrix:
        return self.ZtPZ if self.data.reml else self.T

    @cached_property
    def score(self) -> tuple[Matrix, ...]:
        """Per term, (k, k) derivative of the criterion with respect to Sigma_t, summed over its levels."""
        per_rss = 1 / self.sigma2
        blocks = []
        for chart in self.charts:
            k = chart.effects
            total = arb_mat(k, k)
            for level in range(chart.levels):
                rows = chart.rows(level)
                for i, a in enumerate(rows):
                    for j, b in enumerate(rows):
                        total[i, j] += self._selected[a, b] - per_rss * self.s[a, 0] * self.s[b, 0]
            blocks.append(symmetric(total))
        return tuple(blocks)

    @cached_property
    def gradient(self) -> Matrix:
        """(d, 1): 2 (score B) at the free entries."""
        values = []
        for chart, B, score in zip(self.charts, self.factors, self.score, strict=True):
            product = score * B if chart.rank else None
            values += [2 * product[i, j] for i, j in chart.free]  # type: ignore[index]
        return column(values)

    @cached_property
    def _directions(self) -> list[Matrix]:
        """(q, q) dSigma / dpar of each parameter."""
        out = []
        for t, (chart, B) in enumerate(zip(self.charts, self.factors, strict=True)):
            for i, j in chart.free:
                E = arb_mat(chart.effects, chart.effects)
                for h in range(chart.effects):
                    E[i, h] += B[h, j]
                    E[h, i] += B[h, j]
                blocks: list[Matrix | None] = [None] * len(self.charts)
                blocks[t] = E
                out.append(self._repeated(blocks))
        return out

    @cached_property
    def hessian(self) -> Matrix:
        """(d, d) second derivatives of the criterion in the free parameters."""
        E = self._directions
        d = len(E)
        TE = [self._selected * Ea for Ea in E]
        v = [Ea * self.s for Ea in E]
        first = [(self.s.transpose() * va)[0, 0] for va in v]
        Pv = [self.ZtPZ * va for va in v]
        per_rss = 1 / self.sigma2
        H = arb_mat(d, d)
        for a in range(d):
            for b in range(a + 1):
                value = -trace_of_product(TE[a], TE[b].transpose())
                value += 2 * per_rss * (v[a].transpose() * Pv[b])[0, 0]
                value -= per_rss / self.rss * first[a] * first[b]
                H[a, b] = H[b, a] = value
        return H + self._bend()

    def _bend(self) -> Matrix:
        """<score, d2Sigma / dpar dpar'>: twice the score where two parameters share a column of B."""
        entries = [(t, i, j) for t, chart in enumerate(self.charts) for i, j in chart.free]
        out = arb_mat(len(entries), len(entries))
        for a, (t, i, j) in enumerate(entries):
            for b, (u, h, m) in enumerate(entries):
                if t == u and j == m:
                    out[a, b] = 2 * self.score[t][i, h]
        return out


def charts_at(design: Design, Lambda: Sequence[np.ndarray], tolerance: float) -> tuple[Chart, ...]:
    """The charts of a point given by its factors; a variance of Zb below `tolerance` of the residual's is zero."""
    pivots = []
    for term, L in zip(design.terms, Lambda, strict=True):
        size = np.sqrt(
            np.mean(term.columns**2, axis=0)
        )  # makes the judgement free of the units of the columns
        half = size[:, None] * np.asarray(L)
        pivots.append(_pivots(half @ half.T, tolerance))
    return _charts(design, pivots)


def _charts(design: Design, pivots: Sequence[tuple[tuple[int, ...], int]]) -> tuple[Chart, ...]:
    charts, start = [], 0
    for term, (order, rank) in zip(design.terms, pivots, strict=True):
        charts.append(Chart(term.n_levels, term.n_effects, order, rank, start))
        start += term.q
    return tuple(charts)


def at_theta(design: Design, reml: bool, theta: np.ndarray) -> Point:
    """The model at lme4's theta, taken as exact doubles; zeros on the diagonal of Lambda are allowed."""
    return Point(Products(design, reml), full_charts(design), tuple(arb(float(x)) for x in theta))


def lower_factors(at: Point) -> list[Ball]:
    """lme4's theta in double precision, for singular terms whose lower factor is not unique."""
    out: list[Ball] = []
    for Sigma in at.sigmas:
        k = Sigma.nrows()
        L = cholesky_psd(np.array([[float(Sigma[i, j]) for j in range(k)] for i in range(k)]))
        out += [arb(float(x)) for j in range(k) for x in L[j:, j]]
    return out


def full_charts(design: Design) -> tuple[Chart, ...]:
    """The charts in which the parameters are lme4's theta."""
    return _charts(design, [(tuple(range(term.n_effects)), term.n_effects) for term in design.terms])


def _pivots(Sigma: np.ndarray, tolerance: float) -> tuple[tuple[int, ...], int]:
    """Order of the effects, and rank. The order is the identity where the leading rows are independent."""
    k = len(Sigma)
    rest, left, chosen = Sigma.copy(), list(range(k)), []
    while left:
        usable = [i for i in left if rest[i, i] > tolerance]
        if not usable:
            break
        i = usable[0]
        rest = rest - np.outer(rest[:, i], rest[i]) / rest[i, i]
        chosen.append(i)
        left.remove(i)
    return (*chosen, *left), len(chosen)


def parameters(charts: Sequence[Chart], Lambda: Sequence[np.ndarray]) -> tuple[Ball, ...]:
    """The free parameters nearest to factors in double precision."""
    out: list[Ball] = []
    for chart, L in zip(charts, Lambda, strict=True):
        if chart.rank == chart.effects:
            out += [arb(float(L[i, j])) for i, j in chart.free]
            continue
        order = list(chart.order)
        Sigma = (np.asarray(L) @ np.asarray(L).T)[np.ix_(order, order)]
        B = np.zeros((chart.effects, chart.rank))
        for j in range(chart.rank):
            B[j:, j] = Sigma[j:, j] / np.sqrt(
                max(Sigma[j, j], np.finfo(float).tiny)
            )  # rounding may leave nothing
            Sigma = Sigma - np.outer(B[:, j], B[:, j])
        out += [arb(float(B[i, j])) for j in range(chart.rank) for i in range(j, chart.effects)]
    return tuple(out)
