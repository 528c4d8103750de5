"""mixedlm as an engine, in a process of its own. The design is handed over as columns of a data frame."""

import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from parity.engines.adapter import (
    QUANTITIES,
    Estimates,
    answer,
    attempt,
    columns_of,
    design_of,
    fixed_formula,
    has_intercept,
    need_fixed_and_unstructured,
    random_terms,
    values,
)
from parity.engines.isolated import Isolated
from parity.schema.case import Case
from parity.schema.engine import EngineUnavailable
from parity.schema.results import Results

BY_ROW = {"hatvalues": "hatvalues", "cooks_distance_plugin": "cooks_distance"}
CLAIMS = frozenset({"lmm", "partial", "weights", "offset", "contrasts", "optimum", *QUANTITIES, *BY_ROW})


class MixedlmEngine:
    """mixedlm.lmer with its default optimiser."""

    name = "mixedlm"
    capabilities = CLAIMS

    def __init__(self) -> None:
        self.version = metadata.version("mixedlm")

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case at mixedlm's own optimum."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content = attempt(lambda: _content(case, quantities))
        said = tuple(dict.fromkeys(str(w.message) for w in caught))
        return Results(self.name, self.version, warnings=said, **content)


def direct() -> MixedlmEngine:
    """The engine in this process."""
    return MixedlmEngine()


def engine() -> Isolated:
    """The engine in a process of its own.

    Raises
    ------
    EngineUnavailable
        if mixedlm is not installed.
    """
    try:
        version = metadata.version("mixedlm")
    except metadata.PackageNotFoundError as error:
        raise EngineUnavailable("engine mixedlm: install mmparity[engines]") from error
    return Isolated("parity.engines.mixedlm:direct", name="mixedlm", version=version, capabilities=CLAIMS)


def _content(case: Case, quantities: Sequence[str]) -> dict[str, Any]:
    import mixedlm

    design = design_of(case)
    need_fixed_and_unstructured(design)
    formula = " + ".join([fixed_formula(design), *random_terms(design)])
    fit = mixedlm.lmer(
        formula,
        pd.DataFrame(columns_of(design)),
        REML=case.reml,
        weights=design.weights,
        offset=design.offset,
    )
    coefficients, modes, covariances = fit.fixef(), fit.ranef(), fit.VarCorr()
    effects = [
        ["(Intercept)" if k == 0 and has_intercept(term) else f"z{t}_{k}" for k in range(term.n_effects)]
        for t, term in enumerate(design.terms)
    ]
    found = Estimates(
        criterion=-2.0 * float(fit.logLik().value),
        beta=np.array([coefficients[f"x{j}"] for j in range(design.p)], dtype=float),
        vcov=np.asarray(fit.vcov()), sigma=float(fit.sigma),
        covariances=tuple(np.asarray(covariances.get_cov(f"g{t}")) for t in range(len(design.terms))),
        modes=tuple(
            np.column_stack([np.asarray(modes[f"g{t}"][name]) for name in names])
            for t, names in enumerate(effects)
        ),
        fitted=np.asarray(fit.fitted()), residuals=np.asarray(fit.residuals()), converged=bool(fit.converged),
        rows={name: np.asarray(getattr(fit, f)()) for name, f in BY_ROW.items() if name in quantities},
    )  # fmt: skip
    held, missing = answer(quantities, values(design, found), CLAIMS)
    return {
        "values": held, "missing": missing, "converged": found.converged, "singular": bool(fit.isSingular())
    }  # fmt: skip
