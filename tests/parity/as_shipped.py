"""What HLMdiag 0.5.1 computes where it is wrong, restated from its definitions in dense matrices.

Each function takes a fit and gives values by label as HLMdiag would report them; `AsShipped` is a reference that
is right except for them. HLMdiag itself is not needed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import mmcore as mm
from mmcore.design.grouping import level_text
from parity.engines.mmcore.engine import MmcoreEngine
from parity.schema.case import frame
from parity.schema.results import Missing, Value
from tests.dense_influence import dense, sets_of

EPS = np.finfo(float).eps


def fit_of(case, theta=None):
    """The case's model by mmcore."""
    options = {"weights": case.weights, "offset": case.offset, "contrasts": case.contrasts or None}
    if theta is None:
        return mm.lmer(case.formula, frame(case), reml=case.reml, **options)
    return mm.fit_at(case.formula, frame(case), theta, reml=case.reml, **options)


class AsShipped:
    """A reference with some quantities as HLMdiag ships them, the others right."""

    version = "HLMdiag 0.5.1, restated"
    capabilities = frozenset(
        {"lm", "lmm", "weights", "offset", "contrasts", "at_theta", "optimum", "all_quantities"}
    )

    def __init__(self, wrong, name="hlmdiag"):
        self.wrong, self.name = wrong, name

    def run(self, case, quantities, theta=None):
        results = MmcoreEngine().run(case, quantities, theta)
        values, missing = dict(results.values), dict(results.missing)
        for name, value in self.wrong(fit_of(case, results.theta)).items():
            if isinstance(value, Missing):
                values.pop(name, None)
                missing[name] = value
            elif name in quantities:
                values[name] = value
        return replace(results, engine=self.name, version=self.version, values=values, missing=missing)


def rows(fit, values):
    return Value(tuple(str(label) for label in fit.design.index), np.asarray(values, float))


def levels(fit, by_group):
    """`by_group(labels in order of appearance, group)` for every factor."""
    groups = dict.fromkeys(t.group for t in fit.design.terms)
    parts = [(f"{g}|{level_text(x)}", v) for g in groups for x, v in by_group(g).items()]
    return Value(tuple(label for label, _ in parts), np.array([v for _, v in parts]))


# --- one step -----------------------------------------------------------------------------------------------


def of_set(fit, V, y, A):
    """The four measures of one set of rows with a given V and response."""
    X, p = fit.design.X, fit.design.p
    Vinv = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ Vinv @ X)
    P = Vinv - Vinv @ X @ C @ X.T @ Vinv
    K = X.T @ Vinv[:, A]
    block = P[np.ix_(A, A)]
    # Where the rows left do not determine beta this is rounding, or exactly singular: then HLMdiag takes R down.
    if len(A) and np.linalg.svd(block, compute_uv=False)[-1] < EPS * np.abs(P).max():
        block = block + EPS * np.abs(P).max() * np.eye(len(A))
    inverse = np.linalg.inv(block)
    delta = C @ K @ inverse @ (P @ y)[A]
    after = C + C @ K @ inverse @ K.T @ C
    return {
        "cooks_distance": delta @ np.linalg.solve(C, delta) / p,
        "mdffits": delta @ np.linalg.solve(after, delta) / p,
        "covtrace": abs(np.trace(np.linalg.solve(C, after)) - p),
        "covratio": np.linalg.det(after) / np.linalg.det(C),
    }


def one_step_of(fit, V, y):
    """Cook's distance, MDFFITS, COVTRACE and COVRATIO with a given V and response, by row and level."""

    def measures(A):
        return of_set(fit, V, y, A)

    by_row = [measures(A) for A in sets_of(fit, 1)[1]]

    def by_level(name, group):
        labels, sets = sets_of(fit, group)
        return {x: measures(A)[name] for x, A in zip(labels, sets, strict=True)}

    out = {}
    for name in by_row[0]:
        out[f"{name}_marginal"] = rows(fit, [m[name] for m in by_row])
        out[f"{name}_marginal_group"] = levels(fit, lambda group, name=name: by_level(name, group))
    return out


def unweighted(fit):
    """V = sigma^2 (I + G) whatever the weights; leverage mixes it with the weighted C."""
    d, s2 = dense(fit), fit.sigma**2
    V = s2 * (np.eye(fit.nobs) + d.G)
    X, Vinv = fit.design.X, np.linalg.inv(V)
    H1 = X @ d.C @ X.T @ Vinv
    fixed = np.diag(H1)
    random = np.diag(s2 * d.G @ Vinv @ (np.eye(fit.nobs) - H1))
    lev = {"overall": fixed + random, "fixef": fixed, "ranef": random}
    return one_step_of(fit, V, fit.design.y) | {f"leverage_{k}": rows(fit, v) for k, v in lev.items()}


def raw_response(fit):
    """The response with the offset still in it."""
    residual = fit.design.y - fit.fitted_marginal  # y - offset - X beta
    shift = {"resid_marginal": rows(fit, residual + fit.design.offset)}
    return one_step_of(fit, dense(fit).V, fit.design.y) | shift


# --- refits -------------------------------------------------------------------------------------------------


def refitted_by_reml(fit):
    """Refits by REML without weights and offset, whatever the fit was, against the fit as it was."""
    other = mm.lmer(fit.design.formula.text, frame_of(fit))
    full = mm.varcomp(fit)
    C, p = fit.vcov.to_numpy(), fit.design.p
    groups = dict.fromkeys(t.group for t in fit.design.terms)
    rvc, cooks = {}, {}
    for group in groups:
        case = mm.case_delete(other, group)
        d = fit.beta - case.fixef.to_numpy()
        cooks |= {
            f"{group}|{level_text(x)}": v @ np.linalg.solve(C, v) / p
            for x, v in zip(case.fixef.index, d, strict=True)
        }
        table = case.varcomp / full - 1
        rvc |= {f"{group}|{level_text(x)}|{c}": row[c] for x, row in table.iterrows() for c in table.columns}
    return {
        "rvc_group": Value(tuple(rvc), np.array(list(rvc.values()))),
        "cooks_distance_refit_group": Value(tuple(cooks), np.array(list(cooks.values()))),
    }


def frame_of(fit):
    return fit.design.frame()


def zeros_dropped(fit):
    """Components that are zero leave the vector; R then recycles the shorter one."""
    full = mm.varcomp(fit)
    out = {}
    for group in dict.fromkeys(t.group for t in fit.design.terms):
        table = mm.case_delete(fit, group).varcomp
        for unit, row in table.iterrows():
            left = row.to_numpy()
            left = left[left > 1e-10]
            recycled = np.resize(left, len(full))
            out |= {
                f"{group}|{level_text(unit)}|{c}": v
                for c, v in zip(full.index, recycled / full.to_numpy() - 1, strict=True)
            }
    return {"rvc_group": Value(tuple(out), np.array(list(out.values())))}


# --- labels and rows ----------------------------------------------------------------------------------------


def misaligned(fit):
    """Group leverages come in the order of levels, the labels beside them in order of appearance."""

    def by_group(group, column):
        table = mm.leverage(fit, group)[column]
        term = next(t for t in fit.design.terms if t.group == group)
        return dict(zip(table.index, table.loc[list(term.levels)], strict=True))

    names = {"overall": "overall", "fixef": "fixef", "ranef": "ranef", "ranef.uc": "ranef_uc"}
    return {
        f"leverage_{key}_group": levels(fit, lambda group, column=column: by_group(group, column))
        for column, key in names.items()
    }


def intercept_invented(fit):
    """The first column of X is dropped for an intercept, which is then added."""
    design = fit.design
    fitted = np.empty(design.n)
    term = design.terms[0]
    for level in range(len(term.levels)):
        at = np.flatnonzero(term.codes == level)
        X = np.column_stack([np.ones(len(at)), design.X[at, 1:]])
        fitted[at] = X @ np.linalg.lstsq(X, design.y[at], rcond=None)[0]
    return {"fitted_ls": rows(fit, fitted), "resid_ls": rows(fit, design.y - fitted)}


def one_coefficient_unscaled(fit):
    """R's diag(1 / sd) of one number: an identity of size 1 for sd in (0.5, 1], else an error."""
    table = mm.hlm_resid(fit, fit.design.terms[0].group)
    deviations = table[".ls.intercept"]
    size = int(1 / deviations.std())
    group = fit.design.terms[0].group
    if size != 1:
        return {"ranef_ls_std": Missing("undefined", "non-conformable arguments")}
    labels = tuple(f"{group}|{level_text(x)}|(Intercept)" for x in table.index)
    return {"ranef_ls_std": Value(labels, deviations.to_numpy())}


def sorted_by_row_name(values, names):
    """Least-squares residuals in the order of numeric row names, beside rows in the order of the data."""
    return values[np.argsort(np.asarray(names, float), kind="stable")]


def recycled(short, size):
    """R's recycling of an n-vector against an N-vector."""
    return np.resize(short, size)


def covariate_columns(fixed, frame):
    """Columns of the model frame whose name holds, or is held in, that of a group-constant coefficient."""
    return [name for name in frame if any(name in coefficient for coefficient in fixed)]


def first_level_for_all(fit):
    """resid_ranef standardised: D - condVar of the first level is taken for every level."""
    term, b = fit.design.terms[0], fit.b[0]
    cov = next(iter(fit.condvar.values()))
    D = fit.sigma**2 * fit.Lambda[0] @ fit.Lambda[0].T
    shipped = b / np.sqrt(np.diag(D - cov[0]))
    right = b / np.sqrt(np.diag(D) - np.diagonal(cov, axis1=1, axis2=2))
    return term.labels, shipped, right
