"""An engine as a guest: in a process of its own, with one BLAS thread, a time limit, and its output kept apart.

What it does there cannot take the run down: a process that dies or runs out of time is a status of one case, and the
next case gets a new one. The library is imported in the process only.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.process import START_LIMIT, Died, GivenUp, Process, Processes, Raised, TimeIsUp, told
from parity.schema.case import Case
from parity.schema.engine import Engine, EngineError, EngineUnavailable
from parity.schema.results import Results

__all__ = ["Isolated", "guest"]

CASES_PER_PROCESS = 200  # then the process is replaced, which bounds what a library does not give back
PRINTED = 2000  # characters of what a case printed that are kept


class Isolated:
    """The engine that `module:factory` makes, run in another process; several if cases are under way at once.

    Parameters
    ----------
    target : "module:factory" of the engine itself.
    timeout : seconds that one case may take; starting the process has a limit of its own.
    """

    def __init__(
        self, target: str, *, name: str, version: str, capabilities: frozenset[str], timeout: float = 120.0,
        start_limit: float = START_LIMIT,
    ) -> None:  # fmt: skip
        self.name, self.version, self.capabilities = name, version, capabilities
        self._target, self._timeout = target, timeout
        self._processes = Processes(lambda: Process(_enter, (os.getcwd(),), start_limit), CASES_PER_PROCESS)

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """What the engine says. Its process dying is status "crashed", its time running out "timeout"."""
        try:
            found = self._processes.call(
                _run, self._target, case, tuple(quantities), theta, limit=self._timeout
            )
        except TimeIsUp as error:
            return self._without("timeout", str(error))
        except Died as error:
            return self._without("crashed", str(error))
        except GivenUp as error:
            return self._without("error", str(error))
        except Raised as error:
            return self._without("error", str(error), error.trace)
        results, printed = found
        if isinstance(results, Results) and not results.engine:
            results = replace(results, engine=self.name, version=self.version)
        if not isinstance(results, Results):
            return self._without("error", f"`run` returned {results}, not Results")
        return replace(results, provenance={**results.provenance, "printed": printed}) if printed else results

    def close(self) -> None:
        """Stop the processes."""
        self._processes.close()

    def _without(self, status: str, message: str, trace: str = "") -> Results:
        said = {"traceback": trace} if trace else {}
        return Results(self.name, self.version, status, message, provenance=said)  # type: ignore[arg-type]


def guest(target: str, timeout: float = 120.0, start_limit: float = START_LIMIT) -> Isolated:
    """The engine of any name or `package.module:factory`, isolated; it is imported in its process only.

    Raises
    ------
    EngineError
        if it cannot be made: the message has the name and the error.
    """
    process = Process(_enter, (os.getcwd(),), start_limit)
    try:
        kind, said = process.call(_introduce, target, limit=start_limit)
    except (TimeIsUp, Died, GivenUp) as error:
        raise EngineError(f"engine {target} cannot be made: {error}") from error
    except Raised as error:
        raise EngineError(f"engine {target} cannot be made: {error}\n{error.trace}") from error
    finally:
        process.close()
    if kind == "unavailable":
        raise EngineUnavailable(said)
    if kind == "error":
        raise EngineError(said)
    name, version, capabilities = said
    return Isolated(
        target,
        name=name,
        version=version,
        capabilities=capabilities,
        timeout=timeout,
        start_limit=start_limit,
    )


# --- in the process of the engine -------------------------------------------------------------------------

_engines: dict[str, Engine] = {}  # made once


def _enter(folder: str) -> None:
    """One BLAS thread, and a file for what is printed, also by compiled code."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    if folder not in sys.path:
        sys.path.append(folder)  # a module given by name may lie in the working folder
    handle, name = tempfile.mkstemp(prefix="parity-engine-")
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    os.unlink(name)  # the open files are enough; nothing is left behind however the process ends


def _introduce(target: str) -> tuple[str, Any]:
    """Name, version and capabilities of an engine, or why there is none."""
    from parity.engines.load import load

    try:
        engine = load(target)
    except EngineUnavailable as error:
        return "unavailable", str(error)
    except EngineError as error:
        return "error", str(error)
    return "ok", (str(engine.name), str(engine.version), frozenset(engine.capabilities))


def _run(target: str, case: Case, quantities: tuple[str, ...], theta: np.ndarray | None) -> tuple[Any, str]:
    from threadpoolctl import threadpool_limits

    if target not in _engines:
        _engines[target] = _made(target)
    start = os.lseek(1, 0, os.SEEK_END)
    with threadpool_limits(1, user_api="blas"):
        try:
            results: object = _engines[target].run(case, quantities, theta)
        except Exception as error:
            message, trace = told(error)
            return Results("", "", "error", message, provenance={"traceback": trace}), _said_since(start)
    if not isinstance(results, Results):
        return type(results).__name__, ""
    return results, _said_since(start)


def _made(target: str) -> Engine:
    if ":" not in target:
        from parity.engines.load import load

        return load(target)
    module, _, factory = target.partition(":")
    make: Callable[[], Engine] = getattr(importlib.import_module(module), factory)
    return make()


def _said_since(start: int) -> str:
    """What was printed since a place in the file."""
    sys.stdout.flush()
    sys.stderr.flush()
    return os.pread(1, PRINTED, start).decode("utf-8", "replace")
