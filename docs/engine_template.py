"""An engine to start from: dense matrices, a general optimiser, forty lines of mathematics.

Copy this file, replace `fit_at` and `optimum` by your method, and run it:

    parity run --engine engine_template:engine --reference recorded 'dyestuff_*' 'sleepstudy_*' --report
report"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from mmcore.design import Design
from parity.engines.adapter import QUANTITIES, Estimates, answer, attempt, design_of, values
from parity.schema.case import Case
from parity.schema.results import Results


class TemplateEngine:
    """What `parity` asks of an engine: a name, a version, what it can do, and `run`."""

    name = "template"
    version = "1"
    # Kinds of models, features, and quantities. What is not claimed is not compared and not held against you.
    capabilities = frozenset({"lmm", "weights", "offset", "contrasts", "at_theta", "optimum", *QUANTITIES})

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """Everything at your own optimum, or at `theta` (lme4's order) without optimising."""
        return Results(self.name, self.version, **attempt(lambda: self._content(case, quantities, theta)))

    def _content(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None) -> dict:
        design = design_of(case)  # y, X, random terms, weights, offset: as lme4 makes them, with its names
        at = optimum(design, case.reml) if theta is None else np.asarray(theta)
        held, missing = answer(quantities, values(design, fit_at(design, at, case.reml)), self.capabilities)
        singular = any(abs(L[i, i]) < 1e-4 for L in factors(design, at) for i in range(len(L)))
        return {"values": held, "missing": missing, "singular": singular, "converged": True}


def engine() -> TemplateEngine:
    """The factory that `--engine module:factory` names."""
    return TemplateEngine()


# --- your method goes here --------------------------------------------------------------------------------


def factors(design: Design, theta: np.ndarray) -> list[np.ndarray]:
    """Per random term, the lower factor whose columns theta lists one after the other."""
    out, at = [], 0
    for term in design.terms:
        k = term.n_effects
        L = np.zeros((k, k))
        for j in range(k):
            L[j:, j] = theta[at : at + k - j]
            at += k - j
        out.append(L)
    return out


def fit_at(design: Design, theta: np.ndarray, reml: bool) -> Estimates:
    """V = W^-1 + Z Lambda Lambda' Z', generalised least squares, and the criterion of lme4."""
    n, p = design.X.shape
    w = np.ones(n) if design.weights is None else design.weights
    y = design.y if design.offset is None else design.y - design.offset
    Z, L = design.Z().toarray(), factors(design, theta)
    Sigma = np.zeros((design.q, design.q))
    at = 0
    for term, part in zip(design.terms, L, strict=True):
        stop = at + term.q
        Sigma[at:stop, at:stop] = np.kron(np.eye(term.n_levels), part @ part.T)
        at = stop
    V = np.diag(1 / w) + Z @ Sigma @ Z.T
    ViX, Viy = np.linalg.solve(V, design.X), np.linalg.solve(V, y)
    C = np.linalg.inv(design.X.T @ ViX)
    beta = C @ (design.X.T @ Viy)
    nu = n - p if reml else n
    sigma2 = float(y @ (Viy - ViX @ beta)) / nu
    criterion = np.linalg.slogdet(V)[1] + nu * (1 + np.log(2 * np.pi * sigma2))
    criterion += np.linalg.slogdet(design.X.T @ ViX)[1] if reml else 0.0
    b = Sigma @ Z.T @ np.linalg.solve(V, y - design.X @ beta)
    fitted = design.y - y + design.X @ beta + Z @ b
    ends = np.cumsum([0, *(term.q for term in design.terms)])
    return Estimates(
        criterion=float(criterion), beta=beta, vcov=sigma2 * C, sigma=sigma2**0.5,
        covariances=tuple(sigma2 * part @ part.T for part in L),
        modes=tuple(
            b[i : i + t.q].reshape(t.n_levels, -1) for i, t in zip(ends[:-1], design.terms, strict=True)
        ),
        fitted=fitted, residuals=design.y - fitted,
    )  # fmt: skip


def optimum(design: Design, reml: bool) -> np.ndarray:
    """A general optimiser from Lambda = identity, diagonal entries not negative."""
    identity = [np.eye(term.n_effects) for term in design.terms]
    start = np.concatenate([L[j:, j] for L in identity for j in range(len(L))])
    bounds = [(0.0, None) if x == 1.0 else (None, None) for x in start]
    found = minimize(
        lambda theta: fit_at(design, theta, reml).criterion, start, method="Nelder-Mead", bounds=bounds,
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000, "maxfev": 4000},
    )  # fmt: skip
    return found.x
