"""An engine in a process of its own, with a time limit: what it does there cannot take the run down.

The outer object knows name, version and capabilities without importing the library; the library is imported
in the process, at the first case. A process that dies or runs out of time is a status, and the next case gets
a new one."""

import importlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from multiprocessing import get_context
from typing import Any

import numpy as np

from parity.schema.case import Case
from parity.schema.engine import Engine
from parity.schema.results import Results

CASES_PER_PROCESS = 200  # then the process is replaced, which bounds what a library does not give back


class Isolated:
    """The engine that `module:factory` makes, run in another process.

    Parameters
    ----------
    target : "module:factory" of the engine itself.
    timeout : seconds that one case may take; starting the process does not count.
    """

    def __init__(
        self, target: str, *, name: str, version: str, capabilities: frozenset[str], timeout: float = 120.0
    ) -> None:
        self.name, self.version, self.capabilities = name, version, capabilities
        self._target, self._timeout = target, timeout
        self._pool: Any = None
        self._lock = threading.Lock()

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """What the engine says. Its process dying is status "crashed", its time running out "timeout"."""
        from pebble import ProcessExpired

        future = self._open().schedule(
            _run, args=(self._target, case, tuple(quantities), theta), timeout=self._timeout
        )
        try:
            results = future.result()
        except FutureTimeout:
            return self._without("timeout", f"stopped after {self._timeout:g} s")
        except ProcessExpired as error:
            return self._without("crashed", f"its process ended (exit code {error.exitcode})")
        except Exception as error:  # the barrier: the library is code of others
            return self._without("error", f"{type(error).__name__}: {error}")
        if not isinstance(results, Results):
            return self._without("error", f"`run` returned {type(results).__name__}, not Results")
        return results

    def close(self) -> None:
        """Stop the process."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def _open(self) -> Any:
        from pebble import ProcessPool

        with self._lock:
            if self._pool is None or not self._pool.active:
                self._pool = ProcessPool(
                    max_workers=1, max_tasks=CASES_PER_PROCESS, context=get_context("spawn")
                )
            return self._pool

    def _without(self, status: str, message: str) -> Results:
        return Results(self.name, self.version, status, message)  # type: ignore[arg-type]


_engines: dict[str, Engine] = {}  # in the process of the engine: made once


def _run(target: str, case: Case, quantities: tuple[str, ...], theta: np.ndarray | None) -> Results:
    if target not in _engines:
        module, _, factory = target.partition(":")
        make: Callable[[], Engine] = getattr(importlib.import_module(module), factory)
        _engines[target] = make()
    return _engines[target].run(case, quantities, theta)
