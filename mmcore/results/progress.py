"""A line on standard error that grows while many models are refitted, and the ways to spread them over
workers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UnsupportedError

__all__ = ["Progress", "spread"]

WIDTH = 30


class Progress:
    """Counts units done; prints at most ten times a second, and nothing unless wanted."""

    def __init__(self, total: int, wanted: bool, what: str = "refits") -> None:
        self.total, self.wanted, self.what = total, wanted, what
        self.done, self.begun, self.shown = 0, time.monotonic(), 0.0

    def __call__(self, more: int) -> None:
        """``more`` units are done."""
        self.done += more
        now = time.monotonic()
        if self.wanted and (now - self.shown > 0.1 or self.done >= self.total):
            self.shown = now
            filled = WIDTH * self.done // max(self.total, 1)
            bar = "#" * filled + "." * (WIDTH - filled)
            end = "\n" if self.done >= self.total else ""
            seconds = f"{now - self.begun:.1f} s"
            print(
                f"\r[{bar}] {self.done}/{self.total} {self.what} {seconds}",
                end=end,
                file=sys.stderr,
                flush=True,
            )


def spread(
    work: Callable[[Any], Any], tasks: Sequence[Any], executor: Any, done: Callable[[Any], None]
) -> list:
    """Results of ``work`` for every task, in order.

    ``executor``: None (here, one after the other), the name of a joblib backend, a ``joblib.Parallel``, a
    Dask client, or anything with ``submit`` (concurrent.futures) or ``map``.
    """
    if executor is None:
        results = []
        for task in tasks:
            results.append(work(task))
            done(task)
        return results
    if isinstance(executor, str):
        from joblib import Parallel

        return spread(work, tasks, Parallel(n_jobs=-1, backend=executor), done)
    if callable(executor) and hasattr(executor, "n_jobs"):
        from joblib import delayed

        results = executor(delayed(work)(task) for task in tasks)
    elif hasattr(executor, "gather"):
        results = executor.gather(executor.map(work, list(tasks)))
    elif hasattr(executor, "submit"):
        futures = [executor.submit(work, task) for task in tasks]
        results = [future.result() for future in futures]
    elif hasattr(executor, "map"):
        results = executor.map(work, tasks)
    else:
        raise UnsupportedError(
            f"executor={executor!r} is not None, the name of a joblib backend, a joblib.Parallel, a Dask "
            "client or an object with submit() or map()"
        )
    for task in tasks:
        done(task)
    return list(results)
