"""Hypothesis matrices of the terms of a model: sequential (I), II and III, as lmerTest defines them.

Each is (q, p) over the coefficients: the term has no effect if it maps them to zero. The definitions are SAS's, for any
coding of the factors:
    I    rows of the unit upper triangle U of X'X = U'D U that belong to the term;
    II   rows of the identity for a term that no other contains; else those of U with the term and the terms that
         contain it moved behind all others;
    III  from the estimable functions, made orthogonal to those of the terms that contain this one.
A term is contained in another that has all its variables, more factors, and the same numeric variables.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ...design.build import Design
from ...design.frame import kept_variables
from ...design.matrix import Coding, FactorCoding, NumberCoding, make_coding
from ...design.rank import independent_columns
from ...errors import DataError, MixedModelWarning
from ...formula.syntax import deparse

__all__ = ["TYPES", "containing", "hypotheses", "marginal", "sequential", "term_columns", "type_number"]

TYPES: Mapping[object, int] = {1: 1, 2: 2, 3: 3, "1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}
ROUNDING = 1e-9  # of the size of a matrix of small integers that is known up to rounding


def type_number(type: object) -> int:
    """1, 2 or 3; also of "I", "II", "III"."""
    if type not in TYPES:
        raise DataError(f"type={type!r} is not one of 1, 2, 3 (or 'I', 'II', 'III')")
    return TYPES[type]


def hypotheses(design: Design, type: int = 3, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Per fixed term in the order of the formula, its (q, p) hypothesis matrix.

    ``weights``: of the rows, in the products X'WX of types I and II; lmerTest has none. A term of which all columns
    were dropped because X was rank deficient has q = 0. Type III warns of cells without data.
    """
    columns = term_columns(design)
    if type == 1 or design.p <= 1 or len(columns) <= 1:
        return sequential(design, weights)
    if type == 3:
        return _type_three(design)
    return {
        name: marginal(design)[name] if not above else _after_others(design, name, above, weights)
        for name, above in containing(design).items()
    }


def term_columns(design: Design) -> dict[str, np.ndarray]:
    """Per fixed term, positions of its columns in X."""
    assign = np.array(design.assign, int)
    return {name: np.flatnonzero(assign == k) for k, name in enumerate(design.formula.term_labels, 1)}


def containing(design: Design) -> dict[str, list[str]]:
    """Per fixed term, the terms that contain it.

    lmerTest does not count a factor that is coded by all its levels (``A`` in ``y ~ A + A:B``), nor a basis such as
    ``poly(x, 2)`` as numeric; SAS and this function do.
    """
    parts = {}
    for name, term in zip(design.formula.term_labels, design.formula.terms, strict=True):
        labels = {deparse(v) for v in term}
        factors = {v for v in labels if isinstance(design.coding.variables[v], FactorCoding)}
        parts[name] = factors, labels - factors
    return {
        name: [other for other, (f, x) in parts.items() if factors < f and numbers == x]
        for name, (factors, numbers) in parts.items()
    }


def marginal(design: Design) -> dict[str, np.ndarray]:
    """Rows of the identity: all coefficients of the term are zero."""
    unit = np.eye(design.p)
    return {name: unit[at] for name, at in term_columns(design).items()}


def sequential(design: Design, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Type I: each term adjusted for those before it."""
    U = _unit_upper(_weighted(design.X, weights))
    return {name: U[at] for name, at in term_columns(design).items()}


def _weighted(X: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return X if weights is None else X * np.sqrt(weights)[:, None]


def _unit_upper(X: np.ndarray) -> np.ndarray:
    """(p, p) U with X'X = U'D U, D diagonal."""
    if not X.shape[1]:
        return np.zeros((0, 0))
    R = np.linalg.qr(X)[1]
    return R / R.diagonal()[:, None]


def _after_others(design: Design, name: str, above: Sequence[str], weights: np.ndarray | None) -> np.ndarray:
    """Rows of U for a term behind all but those that contain it."""
    columns = term_columns(design)
    last = np.concatenate([columns[name], *(columns[other] for other in above)])
    order = np.concatenate([np.setdiff1d(np.arange(design.p), last), last])
    U = _unit_upper(_weighted(design.X[:, order], weights))
    out = np.zeros(U.shape)
    out[:, order] = U
    first = design.p - len(last)
    return out[first : first + len(columns[name])]


# ---- type III --------------------------------------------------------------------------------------------


def _type_three(design: Design) -> dict[str, np.ndarray]:
    """Type III for any coding: found for treatment contrasts and carried over to the coefficients of the model."""
    X, coding, kept = _treatment(design)
    names = [coding.names[j] for j in kept]
    full, labels = _overparametrized(design)
    L = _clean(_coordinates(X, full).T)  # rows: columns of the full indicator matrix
    assign = np.array([coding.assign[j] for j in kept])
    columns = {name: np.flatnonzero(assign == k) for k, name in enumerate(design.formula.term_labels, 1)}
    above = containing(design)
    order = sorted(columns, key=lambda name: -_order(design, name))
    for name in order:
        others = [columns[other] for other in above[name]]
        if others and len(columns[name]):
            B = L[:, np.concatenate(others)]
            L[:, columns[name]] = _clean(
                L[:, columns[name]] - B @ np.linalg.lstsq(B, L[:, columns[name]], rcond=1e-10)[0]
            )
    rows = np.array([labels.index(name) for name in names], int)
    to_model = _clean(_coordinates(X, design.X))
    out = {}
    for name, at in columns.items():
        own = L[np.ix_(rows, at)].T
        out[name] = own[np.abs(own).sum(axis=1) > 1e-8] @ to_model
    return out


def _order(design: Design, name: str) -> int:
    return len(design.formula.terms[design.formula.term_labels.index(name)])


def _treatment(design: Design) -> tuple[np.ndarray, Coding, np.ndarray]:
    """Model matrix with treatment contrasts without its aliased columns, its coding, and which columns it keeps."""
    codings = [c for c in design.coding.variables.values() if isinstance(c, FactorCoding)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)  # said when the design was built
        variables = kept_variables(design.source.variables, design.rows)
    kinds = {c.label: "treatment" for c in codings}
    coding = make_coding(design.formula.terms, design.formula.intercept, variables, kinds)
    X = coding.matrix(variables, design.n)
    kept = independent_columns(X)
    return X[:, kept], coding, kept


def _overparametrized(design: Design) -> tuple[np.ndarray, list[str]]:
    """(n, c) intercept and every term coded by all levels of its factors, with R's names; zero columns are said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        values = kept_variables(design.source.variables, design.rows)
    terms = tuple(tuple((deparse(v), True) for v in term) for term in design.formula.terms)
    names: list[str] = ["(Intercept)"] if design.formula.intercept else []
    for term in terms:
        names += _names([label for label, _ in term], design.coding.variables)
    full = Coding(design.formula.intercept, design.coding.variables, terms, tuple(names), (0,) * len(names))
    matrix = full.matrix(values, design.n)
    empty = [name for name, used in zip(names, np.abs(matrix).max(axis=0) > 0, strict=True) if not used]
    if empty:
        warnings.warn(
            MixedModelWarning(
                f"no data in the cells {', '.join(empty[:10])}{' ...' if len(empty) > 10 else ''}: type III hypotheses "
                "depend on which cells are empty; consider type 2"
            ),
            stacklevel=5,
        )
    return matrix, names


def _names(labels: Sequence[str], variables: Mapping[str, FactorCoding | NumberCoding]) -> list[str]:
    """R's names of the columns of a term; the first variable varies fastest."""
    names = [""]
    for label in labels:
        own = [label + suffix for suffix in variables[label].suffixes(True)]
        names = [f"{name}:{new}" if name else new for new in own for name in names]
    return names


def _coordinates(X: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(p, c) least-squares coefficients of ``columns`` on X of full rank."""
    Q, R = np.linalg.qr(X)
    return np.linalg.solve(R, Q.T @ columns)


def _clean(A: np.ndarray) -> np.ndarray:
    """Entries that are whole numbers up to rounding made whole."""
    whole = np.rint(A)
    return np.where(np.abs(A - whole) < ROUNDING * max(1.0, np.abs(A).max(initial=0.0)), whole, A)
