"""Generalised linear models in ball arithmetic: the proved maximum of the likelihood and what follows from it; of mixed
models the rows at given parameters.

Means are functions of the linear predictor, both tails apart: a probability within eps of one has a complement with all
its digits, where R holds it eps away.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from flint import arb
from scipy.linalg import block_diag
from scipy.optimize import linprog

from mmcore.design.build import Design
from mmcore.families.names import family_named
from mmcore.glmm.fit import fit_generalized, fit_generalized_at
from parity.exact.balls import (
    Ball,
    Matrix,
    NotEnclosed,
    column,
    diagonal,
    identity,
    inverse,
    matrix,
    precision,
)
from parity.exact.lmm import NotCertifiable
from parity.exact.newton import proved_minimum
from parity.schema.verdicts import NO_MAXIMUM

BITS = 400
SEPARATED = (
    1e-6  # sum of the signed predictors along a direction of size one, beyond the tolerance of the program
)
ONE = arb(1)
BY_COEFFICIENT = ("dfbeta_one_step", "dfbeta_r", "dfbetas_r")

Labelled = tuple[list[str], list[Ball]]


@dataclass(frozen=True, slots=True)
class Mean:
    """One row's mean at its linear predictor: mu, its complement where it is a probability, and two derivatives."""

    mu: Ball
    c: Ball  # 1 - mu
    m1: Ball
    m2: Ball


def _logit(eta: Ball) -> Mean:
    mu, c = ONE / (ONE + (-eta).exp()), ONE / (ONE + eta.exp())
    return Mean(mu, c, mu * c, mu * c * (c - mu))


def _probit(eta: Ball) -> Mean:
    root = arb(2).sqrt()
    density = (-eta * eta / 2).exp() / (2 * arb.pi()).sqrt()
    return Mean((-eta / root).erfc() / 2, (eta / root).erfc() / 2, density, -eta * density)


def _cloglog(eta: Ball) -> Mean:
    rate = eta.exp()
    c = (-rate).exp()
    return Mean(-(-rate).expm1(), c, rate * c, rate * c * (ONE - rate))


def _log(eta: Ball) -> Mean:
    mu = eta.exp()
    return Mean(mu, ONE - mu, mu, mu)


LINKS: Mapping[str, Callable[[Ball], Mean]] = MappingProxyType(
    {"logit": _logit, "probit": _probit, "cloglog": _cloglog, "log": _log}
)


@dataclass(frozen=True, slots=True)
class Row:
    """y - mu, variance function, its derivative, and deviance of a row of weight one."""

    raw: Ball
    V: Ball
    slope: Ball
    deviance: Ball


def _binomial(y: Ball, m: Mean) -> Row:
    deviance = _ylog(y, m.mu) + _ylog(ONE - y, m.c)
    return Row(y * m.c - (ONE - y) * m.mu, m.mu * m.c, m.c - m.mu, 2 * deviance)


def _poisson(y: Ball, m: Mean) -> Row:
    return Row(y - m.mu, m.mu, ONE, 2 * (_ylog(y, m.mu) - (y - m.mu)))


def _gamma(y: Ball, m: Mean) -> Row:
    return Row(y - m.mu, m.mu * m.mu, 2 * m.mu, 2 * ((y - m.mu) / m.mu - (y / m.mu).log()))


def _ylog(y: Ball, mu: Ball) -> Ball:
    return arb(0) if y == 0 else y * (y / mu).log()


FAMILIES: Mapping[str, Callable[[Ball, Mean], Row]] = MappingProxyType(
    {"binomial": _binomial, "poisson": _poisson, "Gamma": _gamma}
)


class Data:
    """Design, family and link of a model, in exact doubles.

    Raises
    ------
    NotCertifiable
        for families and links other than those above.
    """

    def __init__(self, design: Design, family: str, link: str) -> None:
        if family not in FAMILIES or link not in LINKS:
            raise NotCertifiable(f"a {family} model with link {link} is not proved here")
        self.design, self.row, self.mean = design, FAMILIES[family], LINKS[link]
        self.known = family != "Gamma"
        self.X = matrix(design.X)
        self.y = [arb(float(v)) for v in design.y]
        self.w = [ONE] * design.n if design.weights is None else [arb(float(v)) for v in design.weights]
        self.offset = [arb(0)] * design.n if design.offset is None else [arb(float(v)) for v in design.offset]
        self.penalised = False

    def given(self, beta: np.ndarray, Lambda: Sequence[np.ndarray]) -> "Data":
        """The random effects u at beta and Lambda: columns Z Lambda, and |u|^2 beside the deviance."""
        out = copy(self)
        blocks = [np.kron(np.eye(len(t.levels)), L) for t, L in zip(self.design.terms, Lambda, strict=True)]
        Xb = (self.X * matrix(beta)).entries() if self.design.p else [arb(0)] * self.design.n
        out.X = matrix(self.design.Z().toarray()) * matrix(block_diag(*blocks))
        out.offset = [a + b for a, b in zip(self.offset, Xb, strict=True)]
        out.penalised = True
        return out


class Point:
    """The deviance, half of it, with derivatives in the coefficients, and the rows: an objective of `newton.py`."""

    def __init__(self, data: Data, beta: Sequence[Ball]) -> None:
        self.data, self.beta = data, list(beta)
        Xb = (data.X * column(self.beta)).entries()
        self.eta = [a + o for a, o in zip(Xb, data.offset, strict=True)]
        self.means = [data.mean(eta) for eta in self.eta]
        self.rows = [data.row(y, m) for y, m in zip(data.y, self.means, strict=True)]

    @property
    def criterion(self) -> Ball:
        """Half the deviance, and of the penalty."""
        return (self.deviance + sum((u * u for u in self._penalised), arb(0))) / 2

    @cached_property
    def deviance(self) -> Ball:
        """Of all rows."""
        return sum((w * r.deviance for w, r in zip(self.data.w, self.rows, strict=True)), arb(0))

    @property
    def _penalised(self) -> list[Ball]:
        return self.beta if self.data.penalised else [arb(0)] * len(self.beta)

    @property
    def gradient(self) -> Matrix:
        """(p, 1)."""
        score = [w * r.raw * m.m1 / r.V for w, r, m in self._all()]
        return column(self._penalised) - self.data.X.transpose() * column(score)

    @property
    def hessian(self) -> Matrix:
        """(p, p) X' diag(observed weights) X."""
        H = [
            w * (m.m1 * m.m1 / r.V - r.raw * (m.m2 * r.V - m.m1 * m.m1 * r.slope) / (r.V * r.V))
            for w, r, m in self._all()
        ]
        found = self.data.X.transpose() * diagonal(H) * self.data.X
        return found + identity(len(self.beta)) if self.data.penalised else found

    def _all(self) -> Any:
        return zip(self.data.w, self.rows, self.means, strict=True)

    # ---- what is compared ---------------------------------------------------------------------------------

    @cached_property
    def W(self) -> list[Ball]:
        """Fisher weights."""
        return [w * m.m1 * m.m1 / r.V for w, r, m in self._all()]

    @cached_property
    def unscaled(self) -> Matrix:
        """(X'WX)^-1."""
        return inverse(self.data.X.transpose() * diagonal(self.W) * self.data.X, "X'WX")

    @cached_property
    def hat(self) -> list[Ball]:
        """Leverages."""
        X = self.data.X
        XC = X * self.unscaled
        p = range(X.ncols())
        return [W * sum((XC[i, k] * X[i, k] for k in p), arb(0)) for i, W in enumerate(self.W)]

    @cached_property
    def pearson(self) -> list[Ball]:
        """Pearson residuals."""
        return [r.raw * (w / r.V).sqrt() for w, r, _ in self._all()]

    @property
    def df_resid(self) -> int:
        """Rows of positive weight less the number of coefficients."""
        return sum(w != 0 for w in self.data.w) - self.data.X.ncols()

    @cached_property
    def dispersion_pearson(self) -> Ball:
        """The sum of squared Pearson residuals over n - p."""
        return sum((r * r for r in self.pearson), arb(0)) / self.df_resid

    @property
    def phi(self) -> Ball:
        """The dispersion."""
        return ONE if self.data.known else self.dispersion_pearson

    @cached_property
    def deviance_residuals(self) -> list[Ball]:
        """Signed roots."""
        terms = ((w * r.deviance, r.raw) for w, r, _ in self._all())
        return [d.sqrt() if not raw < 0 else -d.sqrt() for d, raw in terms]

    def sigma_deleted(self) -> list[Ball]:
        """sigma_i as R's lm.influence has it: of the deviance residuals, less what row i adds to their squares."""
        d, left = self.deviance_residuals, self.df_resid - 1
        return [((self.deviance - x * x / (1 - h)) / left).sqrt() for x, h in zip(d, self.hat, strict=True)]

    def one_step(self, residuals: Sequence[Ball]) -> Matrix:
        """(n, p) rows (X'WX)^-1 x_i sqrt(W_i) r_i / (1 - h_i)."""
        pulled = [W.sqrt() * r / (1 - h) for W, r, h in zip(self.W, residuals, self.hat, strict=True)]
        return diagonal(pulled) * self.data.X * self.unscaled


def _standardised(values: list[Ball], at: Point) -> list[Ball]:
    return [v / (at.phi * (1 - h)).sqrt() for v, h in zip(values, at.hat, strict=True)]


def _influence(at: Point) -> dict[str, list[Ball]]:
    """R's measures of the deletion of a row, values row by row (times coefficients)."""
    d, r, h, sigma = at.deviance_residuals, at.pearson, at.hat, at.sigma_deleted()
    rows, p = range(len(h)), range(at.data.X.ncols())
    of_deviance, of_pearson = at.one_step(d), at.one_step(r)
    width = [at.unscaled[k, k].sqrt() for k in p]
    student = [(d[i] * d[i] + h[i] * r[i] * r[i] / (1 - h[i])).sqrt() for i in rows]
    return {
        "dfbeta_one_step": of_pearson.entries(),
        "dfbeta_r": of_deviance.entries(),
        "dfbetas_r": [of_deviance[i, k] / (sigma[i] * width[k]) for i in rows for k in p],
        "dffits_r": [d[i] * h[i].sqrt() / (sigma[i] * (1 - h[i])) for i in rows],
        "rstudent_glm": [
            (-s if d[i] < 0 else s) / (1 if at.data.known else sigma[i]) for i, s in enumerate(student)
        ],
    }


def _of_rows(at: Point) -> dict[str, list[Ball]]:
    """What a row has at its linear predictor."""
    return {
        "eta": at.eta, "fitted": [m.mu for m in at.means], "working_weights": at.W, "y_response": at.data.y,
        "prior_weights": at.data.w, "resid_response": [r.raw for r in at.rows], "resid_pearson": at.pearson,
        "resid_working": [r.raw / m.m1 for r, m in zip(at.rows, at.means, strict=True)],
        "resid_deviance": at.deviance_residuals,
    }  # fmt: skip


def measures(at: Point) -> dict[str, Labelled]:
    """What is proved of a generalised linear model."""
    design, V = at.data.design, at.phi * at.unscaled
    names, index = list(design.x_names), [str(i) for i in design.index]
    p = range(len(names))
    cooks = [(r / (1 - h)) ** 2 * h / (at.phi * len(names)) for r, h in zip(at.pearson, at.hat, strict=True)]
    rows = {
        **_of_rows(at),
        "hatvalues": at.hat,
        "rstandard_pearson": _standardised(at.pearson, at),
        "rstandard_deviance": _standardised(at.deviance_residuals, at),
        "cooks_distance_plugin": cooks,
        **_influence(at),
    }
    cells = [f"{row}|{name}" for row in index for name in names]
    return {
        "fixef": (names, at.beta),
        "se_fixef": (names, [V[k, k].sqrt() for k in p]),
        "vcov_fixef": ([f"{a}|{b}" for a in names for b in names], [V[i, j] for i in p for j in p]),
        "deviance": ([""], [at.deviance]),
        "dispersion_pearson": ([""], [at.dispersion_pearson]),
        **{name: (cells if name in BY_COEFFICIENT else index, values) for name, values in rows.items()},
    }


def is_separated(design: Design, family: str) -> bool:
    """Whether the likelihood rises for ever along some direction of beta, by linear programming (Konis 2007).

    Along it no row fits worse: the predictor falls or stays where y is at its lower limit, rises or stays where it is
    at the upper one, and stays elsewhere; and some row fits better.
    """
    if family not in ("binomial", "poisson") or not design.p:
        return False
    used = slice(None) if design.weights is None else design.weights > 0
    y, X = design.y[used], design.X[used] / np.abs(design.X).max(axis=0)
    low, high = y == 0, (y == 1) & (family == "binomial")
    signed = np.concatenate([-X[low], X[high]])
    held = X[~low & ~high]
    found = linprog(
        -signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), A_eq=held if len(held) else None,
        b_eq=np.zeros(len(held)) if len(held) else None, bounds=(-1.0, 1.0),
    )  # fmt: skip
    return bool(found.success and -found.fun > SEPARATED)


def proved_glm(design: Design, family: str, link: str | None, digits: int) -> dict[str, Labelled]:
    """The measures at the proved maximum of the likelihood, from a start in double precision.

    Raises
    ------
    NotCertifiable
        for a family or a link without functions here.
    NotEnclosed
        if nothing is proved; NO_MAXIMUM is the message where the responses are separated.
    """
    chosen = family_named(family, link)
    data = Data(design, chosen.name, chosen.link.name)
    if is_separated(design, chosen.name):
        raise NotEnclosed(NO_MAXIMUM)
    start = fit_generalized(design, chosen, quiet=True).beta
    with precision(BITS):
        proof = proved_minimum(
            lambda beta: Point(data, beta), [arb(float(b)) for b in np.asarray(start)], digits, evidence=False
        )
        return measures(Point(data, proof.par))


def proved_modes(
    design: Design, family: str, link: str | None, theta: np.ndarray, beta: np.ndarray, digits: int
) -> dict[str, Labelled]:
    """The rows of a mixed model at given parameters, with the conditional modes proved.

    Raises
    ------
    NotCertifiable
        for a family or a link without functions here.
    NotEnclosed
        if the modes are not proved.
    """
    chosen = family_named(family, link)
    data = Data(design, chosen.name, chosen.link.name)
    fit = fit_generalized_at(design, chosen, theta, beta)
    u = [np.linalg.lstsq(L, b.T, rcond=None)[0].T.ravel() for L, b in zip(fit.Lambda, fit.b, strict=True)]
    with precision(BITS):
        given = data.given(beta, fit.Lambda)
        start = [arb(float(x)) for x in np.concatenate(u)]
        proof = proved_minimum(lambda u: Point(given, u), start, digits, evidence=False)
        at = Point(given, proof.par)
        index = [str(i) for i in design.index]
        return {
            "theta": (list(fit.theta.index), [arb(float(x)) for x in theta]),
            "fixef": (list(design.x_names), [arb(float(x)) for x in beta]),
            "deviance": ([""], [at.deviance]),
            "penalty": ([""], [2 * at.criterion - at.deviance]),
            **{name: (index, values) for name, values in _of_rows(at).items()},
        }
