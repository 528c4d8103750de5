"""statsmodels MixedLM as an engine, in a process of its own.

The design is handed over as arrays. A single random term is MixedLM's `exog_re`; several terms of one effect
each are its variance components, with the outermost factor as `groups` where the others are nested in it,
else one group of all rows. MixedLM has neither weights nor an offset."""

import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np

from mmcore.design.build import Design
from parity.engines.adapter import (
    QUANTITIES,
    Estimates,
    Unsupported,
    answer,
    attempt,
    design_of,
    need_fixed_and_unstructured,
    values,
)
from parity.engines.isolated import Isolated
from parity.schema.case import Case
from parity.schema.engine import EngineUnavailable
from parity.schema.results import Results

CLAIMS = frozenset({"lmm", "partial", "contrasts", "optimum", "at_theta", *QUANTITIES})


class MixedLMEngine:
    """MixedLM.fit with its default optimisers; at a given theta, its functions at that point."""

    name = "statsmodels"
    capabilities = CLAIMS

    def __init__(self) -> None:
        self.version = metadata.version("statsmodels")

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content = attempt(lambda: _content(case, quantities, theta))
        said = tuple(dict.fromkeys(str(w.message) for w in caught))
        return Results(self.name, self.version, warnings=said, **content)


def direct() -> MixedLMEngine:
    """The engine in this process."""
    return MixedLMEngine()


def engine() -> Isolated:
    """The engine in a process of its own.

    Raises
    ------
    EngineUnavailable
        if statsmodels is not installed.
    """
    try:
        version = metadata.version("statsmodels")
    except metadata.PackageNotFoundError as error:
        raise EngineUnavailable("engine statsmodels: install mmparity[engines]") from error
    return Isolated(
        "parity.engines.statsmodels:direct", name="statsmodels", version=version, capabilities=CLAIMS
    )


def _content(case: Case, quantities: Sequence[str], theta: np.ndarray | None) -> dict[str, Any]:
    design = design_of(case)
    need_fixed_and_unstructured(design)
    layout = _Layout(design)
    fit = layout.fit(case.reml, theta)
    found = layout.estimates(fit, theta is None)
    held, missing = answer(quantities, values(design, found), CLAIMS)
    return {
        "values": held, "missing": missing, "converged": found.converged,
        "singular": any(np.linalg.eigvalsh(c)[0] < 1e-8 * fit.scale for c in found.covariances),
    }  # fmt: skip


class _Layout:
    """A design as MixedLM takes it, and its results back in the order of the design."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.single = len(design.terms) == 1
        if not self.single and any(t.n_effects > 1 for t in design.terms):
            raise Unsupported("several random terms of which one has several effects")
        self.groups = self._groups()

    def _groups(self) -> np.ndarray:
        """(n,) codes of the factor in which all others are nested, or zeros."""
        terms = self.design.terms
        outer = terms[-1].codes if not self.single else terms[0].codes
        nested = all(len({*zip(t.codes, outer, strict=True)}) == t.n_levels for t in terms)
        return outer if nested else np.zeros(self.design.n, dtype=np.intp)

    def fit(self, reml: bool, theta: np.ndarray | None) -> Any:
        """The fit, or the fit with no step made from theta."""
        from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

        d = self.design
        if self.single:
            model = MixedLM(d.y, d.X, groups=self.groups, exog_re=d.terms[0].columns)
        else:
            model = MixedLM(d.y, d.X, groups=self.groups, exog_vc=self._components())
        if theta is None:
            return model.fit(reml=reml)
        if self.single:
            L = _lower(theta, d.terms[0].n_effects)
            start = MixedLMParams.from_components(np.zeros(d.p), cov_re=L @ L.T)
        else:
            start = MixedLMParams.from_components(np.zeros(d.p), vcomp=np.asarray(theta) ** 2)
        return model.fit(reml=reml, start_params=start, method="bfgs", maxiter=0)

    def _components(self) -> Any:
        from statsmodels.regression.mixed_linear_model import VCSpec

        names = [f"t{i}" for i in range(len(self.design.terms))]
        columns, mats = [], []
        for term in self.design.terms:
            levels = [np.unique(term.codes[rows]) for rows in self._rows()]
            columns.append([[str(level) for level in here] for here in levels])
            mats.append(
                [
                    (term.codes[rows][:, None] == here[None, :]) * term.columns[rows]
                    for rows, here in zip(self._rows(), levels, strict=True)
                ]
            )
        return VCSpec(names, columns, mats)

    def _rows(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]

    def estimates(self, fit: Any, optimised: bool) -> Estimates:
        """What MixedLM reports."""
        p = self.design.p
        if self.single:
            covariances: tuple[np.ndarray, ...] = (np.asarray(fit.cov_re),)
        else:
            covariances = tuple(np.array([[v]]) for v in fit.vcomp)
        return Estimates(
            criterion=-2.0 * float(fit.llf), beta=np.asarray(fit.fe_params),
            vcov=np.asarray(fit.cov_params())[:p, :p], sigma=float(np.sqrt(fit.scale)),
            covariances=covariances, modes=self._modes(fit),
            fitted=np.asarray(fit.fittedvalues), residuals=np.asarray(fit.resid),
            converged=bool(fit.converged) if optimised else None,
        )  # fmt: skip

    def _modes(self, fit: Any) -> tuple[np.ndarray, ...]:
        found = [np.asarray(fit.random_effects[group]) for group in np.unique(self.groups)]
        if self.single:
            return (np.array(found),)
        out = [np.zeros((t.n_levels, 1)) for t in self.design.terms]
        for rows, b in zip(self._rows(), found, strict=True):
            at = 0
            for term, modes in zip(self.design.terms, out, strict=True):
                here = np.unique(term.codes[rows])
                modes[here, 0] = b[at : at + len(here)]
                at += len(here)
        return tuple(out)


def _lower(theta: np.ndarray, k: int) -> np.ndarray:
    L = np.zeros((k, k))
    at = [(i, j) for j in range(k) for i in range(j, k)]
    for (i, j), value in zip(at, theta, strict=True):
        L[i, j] = value
    return L
