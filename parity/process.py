"""Functions called in a process of their own, which is killed when its time is up.

One timer covers all that can hang: starting Python, the initializer, sending the arguments, the work, and reading the
answer. When it fires the process and all its children get SIGKILL, which neither native code nor a stopped process
can put off. `Process` is for one caller at a time; `Processes` hands them out and keeps idle ones.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

__all__ = [
    "START_LIMIT",
    "Died",
    "GivenUp",
    "Process",
    "Processes",
    "Raised",
    "TimeIsUp",
    "how_it_ended",
    "told",
]

START_LIMIT = 60.0  # seconds for Python, imports and the initializer


class TimeIsUp(Exception):
    """The process was killed at its limit."""

    def __init__(self, limit: float, starting: bool) -> None:
        self.limit, self.starting = limit, starting
        super().__init__(f"stopped after {limit:g} s{' while it started' if starting else ''}")


class Died(Exception):
    """The process ended by itself; a negative exit code is the number of a signal."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(f"its process ended ({how_it_ended(code)})")


class GivenUp(Exception):
    """The process was closed while the call was under way."""


class Raised(Exception):
    """The function raised. The message is the error, `trace` its traceback there."""

    def __init__(self, message: str, trace: str) -> None:
        self.trace = trace
        super().__init__(message)


def how_it_ended(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0:
        known = -code in {member.value for member in signal.Signals}
        return f"signal {signal.Signals(-code).name if known else -code}"
    return f"exit code {code}"


class Process:
    """A process that waits for calls.

    Parameters
    ----------
    initializer, arguments : called once in the process before the first call. What it raises, the call raises.
    start_limit : seconds for starting, the initializer included.
    """

    def __init__(
        self, initializer: Callable[..., None] | None = None, arguments: tuple[Any, ...] = (),
        start_limit: float = START_LIMIT,
    ) -> None:  # fmt: skip
        self.calls = 0
        self._start_limit, self._ready, self._closed, self._late = start_limit, False, False, False
        self._dying = threading.Lock()
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, initializer, arguments))
        self._process.start()
        theirs.close()
        atexit.register(self.close)  # before multiprocessing waits for its children

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take another call."""
        return not self._closed and self._process.is_alive()

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """Call a function in the process and wait for what it returns.

        Raises
        ------
        TimeIsUp, Died, GivenUp, Raised
        """
        self.calls += 1
        try:
            if not self._ready:
                with self._limited(self._start_limit):
                    self._pipe.recv()
                self._ready = True
            with self._limited(limit):
                self._pipe.send((function, arguments))
                done, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._raise_end(limit if self._ready else self._start_limit, error)
        except BaseException:  # Ctrl-C, or an answer that cannot be read: the process is of no more use
            self.close()
            raise
        if not done:
            raise Raised(*answer)
        return answer

    def close(self) -> None:
        """Kill the process with its children; a call under way ends."""
        self._closed = True
        self._kill()
        atexit.unregister(self.close)

    @contextlib.contextmanager
    def _limited(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._too_late)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _too_late(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        with self._dying:
            if self._process.pid is not None and self._process.is_alive():
                for kill in (os.killpg, os.kill):  # its group, once it has one of its own
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        kill(self._process.pid, signal.SIGKILL)
            self._process.join(10)

    def _raise_end(self, limit: float, error: Exception) -> None:
        closed = self._closed
        self._kill_if_it_lives()
        if self._late:
            raise TimeIsUp(limit, starting=not self._ready) from None
        if closed:
            raise GivenUp("closed while the call was under way") from None
        raise Died(self._process.exitcode) from error

    def _kill_if_it_lives(self) -> None:
        """The pipe is closed: the process is ending, or has lost its way."""
        self._process.join(5)
        self.close()


class Processes:
    """Processes for calls from several threads: each call takes an idle one or starts one.

    Parameters
    ----------
    calls_per_process : then it is replaced, which bounds what a library does not give back.
    """

    def __init__(self, make: Callable[[], Process], calls_per_process: int) -> None:
        self._make, self._calls = make, calls_per_process
        self._lock = threading.Lock()
        self._idle: list[Process] = []
        self._busy: set[Process] = set()

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """As `Process.call`."""
        with self._lock:
            process = self._idle.pop() if self._idle else self._make()
            self._busy.add(process)
        try:
            return process.call(function, *arguments, limit=limit)
        finally:
            self._give_back(process)

    def close(self) -> None:
        """Kill all processes, also those with a call under way."""
        with self._lock:
            processes = [*self._idle, *self._busy]
            self._idle.clear()
        for process in processes:
            process.close()

    def _give_back(self, process: Process) -> None:
        with self._lock:
            self._busy.discard(process)
            if process.alive and process.calls < self._calls:
                self._idle.append(process)
                return
        process.close()


# --- in the process ---------------------------------------------------------------------------------------


def _serve(pipe: Connection, initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    os.setsid()  # a group of its own: Ctrl-C is for the parent, and a kill reaches all children
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*arguments)
    pipe.send("ready")
    while True:
        try:
            function, values = pipe.recv()
        except EOFError:  # the parent is gone
            return
        answer = _answer(function, values)
        try:
            pipe.send(answer)
        except Exception as error:  # an answer that cannot be pickled
            pipe.send((False, told(error)))


def _answer(function: Callable[..., Any], values: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*values)
    except Exception as error:  # the barrier: told to the parent
        return False, told(error)


def told(error: Exception) -> tuple[str, str]:
    """An error in one line with its place, and its traceback."""
    places = traceback.extract_tb(error.__traceback__)
    where = f" ({places[-1].filename.rsplit('/', 1)[-1]}:{places[-1].lineno})" if places else ""
    trace = "".join(traceback.format_exception(error))
    return f"{type(error).__name__}: {error}{where}", trace
