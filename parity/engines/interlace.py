"""interlace-lme as an engine, in a process of its own. The design is handed over as columns of a data frame.

Its Cook's distance and MDFFITS are those of full refits, which the registry keeps apart from the one-step
measures."""

import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from mmcore.design.build import Design
from parity.engines.adapter import (
    QUANTITIES,
    Estimates,
    answer,
    attempt,
    columns_of,
    design_of,
    fixed_formula,
    level_name,
    need_fixed_and_unstructured,
    random_terms,
    values,
)
from parity.engines.isolated import Isolated
from parity.schema.case import Case
from parity.schema.engine import EngineUnavailable
from parity.schema.results import Results

LEVERAGES = {f"leverage_{part.replace('.', '_')}": part for part in ("overall", "fixef", "ranef", "ranef.uc")}
CLAIMS = frozenset({"lmm", "partial", "weights", "offset", "contrasts", "optimum", *QUANTITIES, *LEVERAGES})


class InterlaceEngine:
    """interlace.fit with its default optimiser."""

    name = "interlace"
    capabilities = CLAIMS

    def __init__(self) -> None:
        self.version = metadata.version("interlace-lme")

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case at interlace's own optimum."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content = attempt(lambda: _content(case, quantities))
        said = tuple(dict.fromkeys(str(w.message) for w in caught))
        return Results(self.name, self.version, warnings=said, **content)


def direct() -> InterlaceEngine:
    """The engine in this process."""
    return InterlaceEngine()


def engine() -> Isolated:
    """The engine in a process of its own.

    Raises
    ------
    EngineUnavailable
        if interlace-lme is not installed.
    """
    try:
        version = metadata.version("interlace-lme")
    except metadata.PackageNotFoundError as error:
        raise EngineUnavailable("engine interlace: install mmparity[engines]") from error
    return Isolated("parity.engines.interlace:direct", name="interlace", version=version, capabilities=CLAIMS)


def _content(case: Case, quantities: Sequence[str]) -> dict[str, Any]:
    import interlace

    design = design_of(case)
    need_fixed_and_unstructured(design)
    fit = interlace.fit(
        fixed_formula(design), pd.DataFrame(columns_of(design)), random=random_terms(design),
        method="REML" if case.reml else "ML", weights=design.weights, offset=design.offset,
    )  # fmt: skip
    wants_leverage = any(name in LEVERAGES for name in quantities)
    leverage = interlace.leverage(fit) if wants_leverage else None
    found = Estimates(
        criterion=-2.0 * float(fit.llf), sigma=float(np.sqrt(fit.scale)),
        beta=_coefficients(fit.fe_params, design), vcov=np.asarray(fit.fe_cov),
        covariances=tuple(_square(fit.variance_components[f"g{t}"]) for t in range(len(design.terms))),
        modes=tuple(_modes(fit.random_effects[f"g{t}"], term) for t, term in enumerate(design.terms)),
        fitted=np.asarray(fit.fittedvalues), residuals=np.asarray(fit.resid), converged=bool(fit.converged),
        rows={name: leverage[part].to_numpy() for name, part in LEVERAGES.items() if leverage is not None},
    )  # fmt: skip
    held, missing = answer(quantities, values(design, found), CLAIMS)
    return {
        "values": held, "missing": missing, "converged": found.converged, "singular": bool(fit.is_singular)
    }  # fmt: skip


def _coefficients(params: pd.Series, design: Design) -> np.ndarray:
    return params[[f"x{j}" for j in range(design.p)]].to_numpy(dtype=float)


def _square(covariance: Any) -> np.ndarray:
    array = np.atleast_2d(np.asarray(covariance, dtype=float))
    return np.diag(array[0]) if array.shape[0] != array.shape[1] else array


def _modes(table: Any, term: Any) -> np.ndarray:
    """(L, k) by level name, whatever order the program keeps."""
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame({"b": table})
    return frame.loc[[level_name(i) for i in range(term.n_levels)]].to_numpy(dtype=float)
