"""Every quantity of the registry for a proved fit, as enclosures: dense and literal, by its definition.

Matrices are relative to sigma^2 as in `lmm.py`; the n x n ones are formed, since n is a few hundred.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from flint import arb

from parity.exact.balls import (
    Ball,
    Matrix,
    NotEnclosed,
    cholesky,
    column,
    diagonal,
    diagonal_of,
    diagonal_of_product,
    inverse,
    matrix,
    submatrix,
    symmetric,
)
from parity.exact.lmm import Point
from parity.exact.separate import deviations

Labelled = tuple[list[str], list[Ball]]
LEVERAGES = ("overall", "fixef", "ranef", "ranef_uc")


@dataclass(frozen=True)
class Dense:
    """A proved fit with its n x n matrices."""

    at: Point

    @cached_property
    def rows(self) -> list[str]:
        """Labels of the rows."""
        return [str(label) for label in self.at.data.design.index]

    @cached_property
    def V(self) -> Matrix:
        """(n, n) W^-1 + G."""
        return self.G + diagonal([1 / w for w in self.at.data.weights])

    @cached_property
    def G(self) -> Matrix:
        """(n, n) Z Sigma Z'."""
        Z = self.at.data.Z
        return symmetric(Z * (self.at.Sigma * Z.transpose()))

    @cached_property
    def V_inverse(self) -> Matrix:
        """(n, n) W - W Z Sigma Q Z'W."""
        data = self.at.data
        inner = self.at.Sigma * (self.at.Q * data.ZtW)
        return symmetric(diagonal(data.weights) - data.ZtW.transpose() * inner)

    @cached_property
    def VX(self) -> Matrix:
        """(n, p) V^-1 X."""
        return self.V_inverse * self.at.data.X

    @cached_property
    def P(self) -> Matrix:
        """(n, n) V^-1 - V^-1 X C X'V^-1."""
        return symmetric(self.V_inverse - self.VX * self.at.C * self.VX.transpose())

    @cached_property
    def Py(self) -> Matrix:
        """(n, 1)."""
        return self.P * self.at.data.y

    @cached_property
    def b(self) -> Matrix:
        """(q, 1) conditional modes: Sigma Z'Py."""
        return self.at.Sigma * self.at.s

    @cached_property
    def e(self) -> list[Ball]:
        """(n,) conditional residuals: W^-1 P y."""
        return [x / w for x, w in zip(self.Py.entries(), self.at.data.weights, strict=True)]

    @cached_property
    def r(self) -> list[Ball]:
        """(n,) marginal residuals."""
        return (self.at.data.y - self.at.data.X * self.at.beta).entries()

    @cached_property
    def hat(self) -> list[Ball]:
        """(n,) 1 - P_ii / w_i."""
        return [1 - x / w for x, w in zip(diagonal_of(self.P), self.at.data.weights, strict=True)]

    @cached_property
    def sigma(self) -> Ball:
        """Residual standard deviation."""
        return self.at.sigma2.sqrt()

    @cached_property
    def leverage(self) -> dict[str, list[Ball]]:
        """The four leverages of each row."""
        data = self.at.data
        fixed = diagonal_of_product(data.X * self.at.C, self.VX.transpose())
        random = diagonal_of_product(self.G, self.P)
        total = [x + y for x, y in zip(fixed, random, strict=True)]
        return {"overall": total, "fixef": fixed, "ranef": random, "ranef_uc": diagonal_of(self.G)}

    @cached_property
    def sets(self) -> dict[str, list[int]]:
        """Positions of the rows of each "group|level"."""
        out: dict[str, list[int]] = {}
        for term in self.at.data.design.terms:
            for level, label in enumerate(term.labels):
                out[f"{term.group}|{label}"] = [i for i, code in enumerate(term.codes) if code == level]
        return out

    @cached_property
    def influence_rows(self) -> list["Deletion | None"]:
        """One-step deletion of each row."""
        return [deletion(self, [i]) for i in range(self.at.data.n)]

    @cached_property
    def influence_sets(self) -> list["Deletion | None"]:
        """One-step deletion of each level."""
        return [deletion(self, rows) for rows in self.sets.values()]


@dataclass(frozen=True, slots=True)
class Deletion:
    """What leaving out a set of rows does to beta at fixed theta and sigma."""

    cooks_distance: Ball
    mdffits: Ball
    covtrace: Ball
    covratio: Ball


def deletion(dense: Dense, rows: Sequence[int]) -> Deletion | None:
    """Delta = C W P_AA^-1 (P y)_A and C_A = C + C W P_AA^-1 W'C; None where P_AA is singular."""
    at = dense.at
    columns = range(at.data.p)
    try:
        inner = inverse(submatrix(dense.P, rows, rows), "P[A, A]")
        CW = at.C * submatrix(dense.VX, rows, columns).transpose()
        delta = CW * (inner * column([dense.Py[i, 0] for i in rows]))
        C_A = symmetric(at.C + CW * inner * CW.transpose())
        scale = at.sigma2 * at.data.p
        return Deletion(
            cooks_distance=(delta.transpose() * at.XtVX * delta)[0, 0] / scale,
            mdffits=(delta.transpose() * inverse(C_A, "C_A") * delta)[0, 0] / scale,
            covtrace=abs((at.XtVX * C_A).trace() - at.data.p),
            covratio=C_A.det() / at.C.det(),
        )
    except NotEnclosed:
        return None


def measures(at: Point) -> dict[str, Labelled]:
    """All quantities of a proved fit."""
    dense = Dense(at)
    return {name: function(dense) for name, function in QUANTITIES.items()}


def within_levels(at: Point) -> dict[str, Labelled]:
    """Least squares within levels, and its distance from the modes; certificates do not hold them."""
    found = deviations(at.data)
    labels = [f"{group}|{level}|{effect}" for group, level, effect, _ in found]
    values = [value for *_, value in found]
    modes = dict(zip(*_ranef(Dense(at)), strict=True))
    differences = [value - modes[label] for label, value in zip(labels, values, strict=True)]
    return {"ranef_ls": (labels, values), "compare_eb_ls": (labels, differences)}


# --- labels ---------------------------------------------------------------------------------------------


def _scalar(value: Ball) -> Labelled:
    return [""], [value]


def _pairs(names: Sequence[str]) -> list[str]:
    return [f"{a}|{b}" for a in names for b in names]


def _coefficients(values: Callable[[Dense], list[Ball]]) -> Callable[[Dense], Labelled]:
    return lambda dense: (list(dense.at.data.design.x_names), values(dense))


def _by_row(values: Callable[[Dense], list[Ball]]) -> Callable[[Dense], Labelled]:
    return lambda dense: (dense.rows, values(dense))


def _leverage(part: str) -> Callable[[Dense], Labelled]:
    return lambda dense: (dense.rows, dense.leverage[part])


def _mean_leverage(part: str) -> Callable[[Dense], Labelled]:
    def means(dense: Dense) -> Labelled:
        values = dense.leverage[part]
        return list(dense.sets), [_sum(values[i] for i in rows) / len(rows) for rows in dense.sets.values()]

    return means


def _one_step(name: str) -> dict[str, Callable[[Dense], Labelled]]:
    def read(found: Sequence[Deletion | None]) -> list[Ball]:
        return [arb("nan") if one is None else getattr(one, name) for one in found]

    return {
        f"{name}_marginal": lambda dense: (dense.rows, read(dense.influence_rows)),
        f"{name}_marginal_group": lambda dense: (list(dense.sets), read(dense.influence_sets)),
    }


# --- design ---------------------------------------------------------------------------------------------


def _x_matrix(dense: Dense) -> Labelled:
    labels = [f"{row}|{name}" for row in dense.rows for name in dense.at.data.design.x_names]
    return labels, dense.at.data.X.entries()


def _x_column_moments(dense: Dense) -> Labelled:
    data = dense.at.data
    y = matrix(data.design.y).entries()
    labels, values = [], []
    for j, name in enumerate(data.design.x_names):
        cells = [data.X[i, j] for i in range(data.n)]
        labels += [f"{name}|sum", f"{name}|sumsq", f"{name}|dot_y"]
        dot_y = _sum(x * v for x, v in zip(cells, y, strict=True))
        values += [_sum(cells), _sum(x * x for x in cells), dot_y]
    return labels, values


def _sum(items: object) -> Ball:
    return sum(items, arb(0))  # type: ignore[call-overload]


def _z_rows(dense: Dense) -> Labelled:
    labels, values = [], []
    seen: set[str] = set()
    for term in dense.at.data.design.terms:
        if term.group not in seen:
            labels += [f"{term.group}|{row}" for row in dense.rows]
            values += [arb(int(code)) for code in term.codes]
            seen.add(term.group)
    return labels, values


# --- estimates ------------------------------------------------------------------------------------------


def _df(dense: Dense) -> int:
    return dense.at.data.p + sum(c.effects * (c.effects + 1) // 2 for c in dense.at.charts) + 1


def _aic(dense: Dense) -> Labelled:
    return _scalar(dense.at.criterion + 2 * _df(dense))


def _bic(dense: Dense) -> Labelled:
    return _scalar(dense.at.criterion + arb(dense.at.data.n).log() * _df(dense))


def _vcov(dense: Dense) -> Labelled:
    return _pairs(dense.at.data.design.x_names), (dense.at.C * dense.at.sigma2).entries()


def _se(dense: Dense) -> list[Ball]:
    return [(x * dense.at.sigma2).sqrt() for x in diagonal_of(dense.at.C)]


def theta(at: Point) -> Labelled:
    """lme4's theta; NaN for a singular term whose lower factor is not unique in its own order of effects."""
    labels, values = [], []
    for term, chart, B in zip(at.data.design.terms, at.charts, at.factors, strict=True):
        k, unique = chart.effects, chart.order == tuple(range(chart.effects))
        for j in range(k):
            for i in range(j, k):
                name = term.effects[i] if i == j else f"{term.effects[i]}.{term.effects[j]}"
                labels.append(f"{term.group}.{name}")
                inside = B[i, j] if j < chart.rank else arb(0)
                values.append(inside if unique else arb("nan"))
    return labels, values


def _varcorr(dense: Dense) -> Labelled:
    labels, values = covariances(dense.at)
    return [*labels, "Residual"], [*(x * dense.at.sigma2 for x in values), dense.at.sigma2]


def varcomp(at: Point) -> Labelled:
    """sigma^2, then the lower triangles of the absolute covariances, by position among all effects."""
    labels, values, start = ["sigma2"], [at.sigma2], 0
    for Sigma in at.sigmas:
        k = Sigma.nrows()
        for j in range(k):
            labels += [f"D{start + i + 1}{start + j + 1}" for i in range(j, k)]
            values += [Sigma[i, j] * at.sigma2 for i in range(j, k)]
        start += k
    return labels, values


def covariances(at: Point) -> Labelled:
    """Lambda Lambda' of each term."""
    labels: list[str] = []
    values: list[Ball] = []
    for term, Sigma in zip(at.data.design.terms, at.sigmas, strict=True):
        labels += [f"{term.group}|{pair}" for pair in _pairs(term.effects)]
        values += Sigma.entries()
    return labels, values


def _ranef_over(variances: Callable[[Dense], Labelled]) -> Callable[[Dense], Labelled]:
    """Modes over the root of a variance per mode, NaN where that is zero."""

    def standardised(dense: Dense) -> Labelled:
        labels, modes = _ranef(dense)
        squares = variances(dense)[1]
        return labels, [_over_root(b, v) for b, v in zip(modes, squares, strict=True)]

    return standardised


def _prior_variances(dense: Dense) -> Labelled:
    """sigma^2 (Lambda Lambda')_kk for every mode."""
    values = []
    for chart, Sigma in zip(dense.at.charts, dense.at.sigmas, strict=True):
        values += [x * dense.at.sigma2 for x in diagonal_of(Sigma)] * chart.levels
    return [], values


def _conditional_variances(dense: Dense) -> Labelled:
    """Diagonal of sigma^2 (Sigma - Sigma Z'V^-1Z Sigma)."""
    at = dense.at
    return [], diagonal_of((at.Sigma - at.Sigma * at.T * at.Sigma) * at.sigma2)


def _ranef(dense: Dense) -> Labelled:
    labels, values = [], []
    for term, chart in zip(dense.at.data.design.terms, dense.at.charts, strict=True):
        for level, label in enumerate(term.labels):
            labels += [f"{term.group}|{label}|{effect}" for effect in term.effects]
            values += [dense.b[i, 0] for i in chart.rows(level)]
    return labels, values


def _condvar(dense: Dense) -> Labelled:
    """sigma^2 (Sigma - Sigma Z'V^-1Z Sigma), the blocks of each level."""
    at = dense.at
    full = symmetric((at.Sigma - at.Sigma * at.T * at.Sigma) * at.sigma2)
    labels, values = [], []
    for term, chart in zip(at.data.design.terms, at.charts, strict=True):
        for level, label in enumerate(term.labels):
            rows = chart.rows(level)
            labels += [f"{term.group}|{label}|{pair}" for pair in _pairs(term.effects)]
            values += [full[a, b] for a in rows for b in rows]
    return labels, values


# --- rows -----------------------------------------------------------------------------------------------


def _fitted(dense: Dense) -> list[Ball]:
    return [y - e for y, e in zip(matrix(dense.at.data.design.y).entries(), dense.e, strict=True)]


def _fitted_marginal(dense: Dense) -> list[Ball]:
    return [y - r for y, r in zip(matrix(dense.at.data.design.y).entries(), dense.r, strict=True)]


def _pearson(dense: Dense) -> list[Ball]:
    return [e * w.sqrt() for e, w in zip(dense.e, dense.at.data.weights, strict=True)]


def _scaled(dense: Dense) -> list[Ball]:
    return [x / dense.sigma for x in _pearson(dense)]


def _studentized(dense: Dense) -> list[Ball]:
    return [_over_root(x, 1 - h) for x, h in zip(_scaled(dense), dense.hat, strict=True)]


def _over_root(x: Ball, square: Ball) -> Ball:
    return x / square.sqrt() if square > 0 else arb("nan")


def _marginal_pearson(dense: Dense) -> list[Ball]:
    return [_over_root(r, v * dense.at.sigma2) for r, v in zip(dense.r, diagonal_of(dense.V), strict=True)]


def _marginal_studentized(dense: Dense) -> list[Ball]:
    at = dense.at
    fixed = diagonal_of_product(at.data.X * at.C, at.data.X.transpose())
    left = [(v - h) * at.sigma2 for v, h in zip(diagonal_of(dense.V), fixed, strict=True)]
    return [_over_root(r, v) for r, v in zip(dense.r, left, strict=True)]


def _marginal_cholesky(dense: Dense) -> list[Ball]:
    """L^-1 r by forward substitution."""
    rows = (cholesky(dense.V, "V") * dense.sigma).tolist()
    out: list[Ball] = []
    for i, r in enumerate(dense.r):
        out.append((r - _sum(a * x for a, x in zip(rows[i], out, strict=False))) / rows[i][i])
    return out


def _plugin(dense: Dense) -> list[Ball]:
    scale = dense.at.sigma2 * dense.at.data.p
    return [x * x * h / (scale * (1 - h) ** 2) for x, h in zip(_pearson(dense), dense.hat, strict=True)]


QUANTITIES: MappingProxyType[str, Callable[[Dense], Labelled]] = MappingProxyType(
    {
        "n_obs": lambda d: _scalar(arb(d.at.data.n)),
        "p_fixed": lambda d: _scalar(arb(d.at.data.p)),
        "q_random": lambda d: _scalar(arb(d.at.data.design.q)),
        "y_response": _by_row(lambda d: matrix(d.at.data.design.y).entries()),
        "x_matrix": _x_matrix,
        "x_column_moments": _x_column_moments,
        "z_rows": _z_rows,
        "criterion": lambda d: _scalar(d.at.criterion),
        "loglik": lambda d: _scalar(-d.at.criterion / 2),
        "aic": _aic,
        "bic": _bic,
        "df": lambda d: _scalar(arb(_df(d))),
        "sigma": lambda d: _scalar(d.sigma),
        "fixef": _coefficients(lambda d: d.at.beta.entries()),
        "se_fixef": _coefficients(_se),
        "vcov_fixef": _vcov,
        "theta": lambda d: theta(d.at),
        "lambda_crossprod": lambda d: covariances(d.at),
        "varcorr": _varcorr,
        "ranef": _ranef,
        "condvar": _condvar,
        "varcomp": lambda d: varcomp(d.at),
        "ranef_std_lme4": _ranef_over(_conditional_variances),
        "ranef_std_nlme": _ranef_over(_prior_variances),
        "fitted": _by_row(_fitted),
        "resid_response": _by_row(lambda d: d.e),
        "resid_pearson": _by_row(_pearson),
        "resid_scaled": _by_row(_scaled),
        "rstudent_lme4": _by_row(_studentized),
        "resid_conditional_studentized": _by_row(_studentized),
        "fitted_marginal": _by_row(_fitted_marginal),
        "resid_marginal": _by_row(lambda d: d.r),
        "resid_marginal_pearson": _by_row(_marginal_pearson),
        "resid_marginal_studentized": _by_row(_marginal_studentized),
        "resid_marginal_cholesky": _by_row(_marginal_cholesky),
        "hatvalues": _by_row(lambda d: d.hat),
        **{f"leverage_{part}": _leverage(part) for part in LEVERAGES},
        **{f"leverage_{part}_group": _mean_leverage(part) for part in LEVERAGES},
        "cooks_distance_plugin": _by_row(_plugin),
        **_one_step("cooks_distance"),
        **_one_step("mdffits"),
        **_one_step("covtrace"),
        **_one_step("covratio"),
    }
)  # fmt: skip
