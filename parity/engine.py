"""What an engine is, and how one is found.

An engine is any object with `name`, `version`, `capabilities` and `run`. It gets a case and the names of
quantities and answers with `Results`; it never raises for a bad case, it says so in the status. Engines are
found by built-in name, by `package.module:factory`, or through the entry-point group `parity.engines`. They
are imported only when asked for, so that a library that is not installed costs nothing.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from parity.case import Case
from parity.quantities import NAMES, Lane
from parity.results import Results, joint

ENTRY_POINTS = "parity.engines"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "mmcore": "parity.engines.mmcore:engine",
        "r_live": "parity.engines.r_live:engine",
        "r_refits": "parity.engines.r_live:refits",
        "recorded": "parity.engines.recorded:engine",
        "certified": "parity.engines.certified:engine",
        "first-principles": "parity.engines.exact:engine",
        "statsmodels": "parity.engines.statsmodels:engine",
        "interlace": "parity.engines.interlace:engine",
        "mixedlm": "parity.engines.mixedlm:engine",
        "zeros": "parity.engines.zeros:engine",
        "lme4": "parity.engines.r_others:lme4",
        "nlme": "parity.engines.r_others:nlme",
        "glmmTMB": "parity.engines.r_others:glmmTMB",
    }
)
ALIASES: Mapping[str, str] = MappingProxyType({"live": "r_live"})

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


def one_blas_thread() -> Any:
    """A context in which BLAS uses one thread in this process.

    Sums keep their order, so that what is compared is repeatable; and processes side by side do not wait for each
    other's threads, which made small models thirty times slower on two busy cores.
    """
    from threadpoolctl import threadpool_limits  # not above: the command line should start without it

    return threadpool_limits(1, user_api="blas")


def load(name: str) -> Engine:
    """The engine of a name: built in, `package.module:factory`, or registered as an entry point.

    Raises
    ------
    EngineError
        if there is no such engine, it cannot be imported, or what the factory returns is not an engine.
    EngineUnavailable
        if it needs something that is not installed here (R, rpy2, a library).
    """
    name = ALIASES.get(name, name)
    target = BUILT_IN.get(name) or (name if ":" in name else _registered().get(name))
    if target == name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module given by name may lie in the working folder
    if target is None:
        known = ", ".join(available())
        raise EngineError(f"no engine is named {name!r}; known: {known}; or give package.module:factory")
    return checked(_factory(target)(), target)


def available() -> tuple[str, ...]:
    """Names that `load` knows: built in, then registered."""
    return (*BUILT_IN, *sorted(set(_registered()) - set(BUILT_IN)))


def checked(engine: object, what: str) -> Engine:
    """The engine itself, if it is one.

    Raises
    ------
    EngineError
        naming what is missing, wrong or misspelt.
    """
    lacks = [part for part in ("name", "version", "capabilities", "run") if not hasattr(engine, part)]
    if lacks:
        raise EngineError(f"{what} is not an engine: {type(engine).__name__} has no {', '.join(lacks)}")
    engine = cast(Engine, engine)
    if not callable(engine.run):
        raise EngineError(f"{what} is not an engine: its `run` cannot be called")
    unknown = sorted(set(engine.capabilities) - set(CAPABILITIES) - set(NAMES))
    if unknown:
        words = ", ".join((*CAPABILITIES, "names of quantities"))
        raise EngineError(f"{what} claims unknown capabilities {', '.join(unknown)}; known: {words}")
    return engine


def _factory(target: str) -> Callable[..., object]:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise EngineError(f"engine {target}: there is no module {error.name!r}") from error
        raise EngineUnavailable(f"engine {target} needs {error.name!r}, which is not installed") from error
    except ImportError as error:
        raise EngineUnavailable(f"engine {target} cannot be imported: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise EngineError(f"engine {target}: module {module_name!r} has no function {attribute!r}")
    return factory


def _registered() -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
