"""What an engine is, and how one is found.

An engine is any object with `name`, `version`, `capabilities` and `run`. It gets a case and the names of
quantities and answers with `Results`; it never raises for a bad case, it says so in the status. Engines are
found by built-in name, by `package.module:factory`, or through the entry-point group `parity.engines`. They
are imported only when asked for, so that a library that is not installed costs nothing.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from parity.schema.case import Case
from parity.schema.quantities import Lane
from parity.schema.results import Results, joint

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "lm": "linear models without random effects",
        "glm": "generalised linear models without random effects",
        "lmm": "linear mixed models",
        "glmm": "generalised linear mixed models",
        "weights": "prior weights",
        "offset": "an offset",
        "contrasts": "a coding of factors other than R's default",
        "at_theta": "evaluates a model at a given theta",
        "optimum": "finds its own optimum",
        "default": "can stop where its default settings stop (references only: plain lmer)",
        "partial": "may answer `unsupported` for some models of the kinds it claims, and skip what is too costly",
        "all_quantities": "offers every quantity of the registry (otherwise list those offered)",
    }
)


class EngineError(ValueError):
    """An engine cannot be loaded or is not an engine; the message says what was asked for and what is
    missing."""


class EngineUnavailable(EngineError):
    """An engine is known but what it needs is not installed here; the message says what, and how to get
    it."""


@runtime_checkable
class Engine(Protocol):
    """Anything that can be asked for the quantities of a case."""

    name: str
    version: str
    capabilities: frozenset[str]  # words of CAPABILITIES and names of quantities

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case: at the engine's own optimum, or at `theta` (n_theta,) without
        optimising.

        For a generalised mixed model `theta` is the point of its likelihood, (n_theta + p,): theta in lme4's
        order, then beta in the order of the columns of X. With `nagq = 0`, which leaves beta to the inner
        iteration, it is theta alone. The size of a negative binomial family, if it is estimated, comes last. Models
        without random effects are never evaluated at a point.

        Quantities that do not exist for the case, or are not offered, go to `Results.missing` with the
        reason.
        """
        ...


def needs(case: Case, lane: Lane) -> frozenset[str]:
    """The capabilities a case asks for in a lane."""
    features = {
        "weights": case.weights is not None,
        "offset": case.offset is not None or "offset(" in case.formula,
        "contrasts": bool(case.contrasts),
    }
    mode = "at_theta" if lane == "at_theta" else "optimum"
    return frozenset({case.kind, mode, *(name for name, used in features.items() if used)})


def point(case: Case, results: Results | None) -> np.ndarray | None:
    """Where `results` are: what `Engine.run` takes as `theta` to be evaluated at the same point."""
    if results is None or case.kind in ("lm", "glm"):
        return None
    where = results.theta if case.kind == "lmm" or case.nagq == 0 else joint(results)
    if where is None or not case.estimates_size:
        return where
    size = results.values.get("size")
    return None if size is None else np.append(where, size.values)


def lacking(engine: Engine, case: Case, lane: Lane) -> tuple[str, ...]:
    """The capabilities that a case asks for and the engine does not claim, sorted."""
    return tuple(sorted(needs(case, lane) - engine.capabilities))


def offers(engine: Engine, quantity: str) -> bool:
    """Whether the engine claims a quantity."""
    return "all_quantities" in engine.capabilities or quantity in engine.capabilities
