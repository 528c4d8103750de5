"""From the name of an engine to the engine."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from types import MappingProxyType
from typing import cast

from parity.process import told
from parity.schema.engine import CAPABILITIES, Engine, EngineError, EngineUnavailable
from parity.schema.quantities import NAMES

__all__ = ["ALIASES", "BUILT_IN", "ENTRY_POINTS", "available", "checked", "load"]

ENTRY_POINTS = "parity.engines"


BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "mmcore": "parity.engines.mmcore.engine:engine",
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
    return checked(_called(target), target)


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
        raise _lacking(target)(f"engine {target} needs {error.name!r}, which is not installed") from error
    except ImportError as error:
        raise _lacking(target)(f"engine {target} cannot be imported: {error}") from error
    except Exception as error:  # code of others
        raise EngineError(f"engine {target} cannot be imported: {told(error)[0]}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise EngineError(f"engine {target}: module {module_name!r} has no function {attribute!r}")
    return factory


def _lacking(target: str) -> type[EngineError]:
    """What the machine lacks for an engine of ours; an engine that is given by its module is its owner's to mend."""
    return EngineUnavailable if target in BUILT_IN.values() else EngineError


def _called(target: str) -> object:
    """What the factory makes."""
    factory = _factory(target)
    try:
        return factory()
    except EngineError:
        raise
    except Exception as error:  # code of others
        if target in BUILT_IN.values():
            raise
        raise EngineError(
            f"engine {target}: {target.partition(':')[2]}() failed: {told(error)[0]}"
        ) from error


def _registered() -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
