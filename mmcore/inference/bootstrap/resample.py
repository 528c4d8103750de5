"""New data for a bootstrap: responses drawn from the model, from its residuals, or whole clusters drawn anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...design.build import Design
from ...design.grouping import text_levels
from ...design.rank import independent_columns
from ...errors import DataError, UnsupportedError
from ...glmm.fit import is_generalized
from ...results.fit import Fit

__all__ = ["cluster_codes", "of_clusters", "parametric", "residual"]


def parametric(fit: Fit, B: int, rng: np.random.Generator) -> np.ndarray:
    """(B, n) responses from the fitted model, random effects drawn anew.

    Draw r of a generator is the same whatever B is.
    """
    if is_generalized(fit):
        return np.array([fit.simulate(1, rng).to_numpy()[:, 0] for _ in range(B)])
    design = fit.design
    sizes = [len(t.levels) * len(t.effects) for t in design.terms]
    draws = rng.normal(size=(B, sum(sizes) + design.n))
    at, eta = 0, np.repeat(_marginal(fit)[None], B, axis=0)
    for t, size in enumerate(sizes):
        u = draws[:, at : at + size].reshape(B, len(design.terms[t].levels), -1)
        _add(eta, fit, t, fit.random_scale * (u @ fit.Lambda[t].T))
        at += size
    sd = fit.sigma if design.weights is None else fit.sigma / np.sqrt(design.weights)
    return eta + sd * draws[:, at:]


def residual(fit: Fit, B: int, rng: np.random.Generator) -> np.ndarray:
    """(B, n) responses from residuals and random effects drawn with replacement from those of the fit.

    Both are centered and turned to have the estimated variances exactly: shrunken effects and residuals have less.
    Carpenter, Goldstein and Rasbash (2003), Applied Statistics 52, 431. For linear models, mixed or not.
    """
    if is_generalized(fit):
        raise UnsupportedError(
            "residuals of a generalized model have no common distribution: use type='parametric'"
        )
    design = fit.design
    levels = [len(t.levels) for t in design.terms]
    picks = rng.integers(
        0, [L for L in levels for _ in range(L)] + [design.n] * design.n, size=(B, sum(levels) + design.n)
    )
    at, eta = 0, np.repeat(_marginal(fit)[None], B, axis=0)
    for t, L in enumerate(levels):
        Sigma = fit.random_scale**2 * fit.Lambda[t] @ fit.Lambda[t].T
        _add(eta, fit, t, _turned(fit.b[t], Sigma)[picks[:, at : at + L]])
        at += L
    root_w = 1.0 if design.weights is None else np.sqrt(design.weights)
    e = _turned((fit.residual_values() * root_w)[:, None], np.array([[fit.sigma**2]]))[:, 0]
    return eta + e[picks[:, at:]] / root_w


def _marginal(fit: Fit) -> np.ndarray:
    """(n,) X beta + offset."""
    mean = fit.design.X @ fit.beta
    return mean if fit.design.offset is None else mean + fit.design.offset


def _add(eta: np.ndarray, fit: Fit, t: int, b: np.ndarray) -> None:
    """Add Z b of term t to eta (B, n), b (B, L, k)."""
    term = fit.design.terms[t]
    for k in range(b.shape[2]):
        eta += term.columns[:, k] * b[:, term.codes, k]


def _turned(rows: np.ndarray, Sigma: np.ndarray) -> np.ndarray:
    """Centered rows (L, k) times S^-1/2 Sigma^1/2, S their mean square; directions without spread stay without."""
    centered = rows - rows.mean(axis=0)
    return centered @ _power(centered.T @ centered / len(rows), -0.5) @ _power(Sigma, 0.5)


def _power(S: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(S)
    keep = values > 1e-12 * max(float(values.max()), 1e-300)
    powers = np.where(keep, np.where(keep, values, 1.0) ** exponent, 0.0)
    return (vectors * powers) @ vectors.T


# --- clusters -------------------------------------------------------------------------------------------------------


def cluster_codes(fit: Fit, cluster: str | np.ndarray | None) -> np.ndarray:
    """(n,) number of the cluster of each row.

    ``cluster``: a grouping factor by name, labels of the rows, or None for the factor with fewest levels, in which all
    others must be nested.
    """
    terms = fit.design.terms
    if cluster is None:
        if not terms:
            raise DataError("cluster: name what is drawn: give the labels of the rows, (n,)")
        codes = min(terms, key=lambda t: len(t.levels)).codes
        for term in terms:
            if len(np.unique(np.column_stack([term.codes, codes]), axis=0)) > len(np.unique(term.codes)):
                raise DataError(
                    "cluster: the grouping factors are crossed; name the one whose levels are drawn"
                )
        return codes
    if isinstance(cluster, str):
        found = [t.codes for t in terms if t.group == cluster]
        if not found:
            groups = ", ".join(dict.fromkeys(t.group for t in terms)) or "none"
            raise DataError(f"cluster: no grouping factor is called {cluster!r}; there are {groups}")
        return found[0]
    labels = np.asarray(cluster)
    if labels.shape != (fit.design.n,):
        raise DataError(
            f"cluster: one label for each of the {fit.design.n} rows is needed, got shape {labels.shape}"
        )
    return np.unique(labels, return_inverse=True)[1]


def of_clusters(design: Design, codes: np.ndarray, picked: np.ndarray) -> Design:
    """The design of the rows of some clusters, repeats allowed.

    Each copy is a cluster of its own, with its own levels of the factors nested in it. Levels of factors that cross
    clusters stay what they are.

    Raises DataError where the rows no longer determine the coefficients.
    """
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(codes.max() + 2))
    pieces = [order[bounds[c] : bounds[c + 1]] for c in picked]
    rows = np.concatenate(pieces)
    copy = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    if len(independent_columns(design.X[rows])) < design.p:
        raise DataError(
            "the clusters drawn do not determine the fixed effects: columns of X are collinear in them"
        )
    terms = []
    for term in design.terms:
        own = term.codes[rows]
        nested = len(np.unique(np.column_stack([term.codes, codes]), axis=0)) == len(np.unique(term.codes))
        present, fresh = np.unique(copy * len(term.levels) + own if nested else own, return_inverse=True)
        terms.append(
            replace(
                term,
                codes=fresh.astype(term.codes.dtype),
                columns=term.columns[rows],
                grouping=text_levels([str(x) for x in present]),
            )
        )
    return replace(
        design, y=design.y[rows], X=design.X[rows], terms=tuple(terms), index=design.index[rows],
        weights=None if design.weights is None else design.weights[rows],
        offset=None if design.offset is None else design.offset[rows],
        rows=rows if design.rows is None else design.rows[rows],
    )  # fmt: skip
