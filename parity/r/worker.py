"""R at arm's length: functions of `r_reference/R` called by name in processes that may die without harm.

R code can end its process (`quit()`, a segmentation fault, a C++ exception) and native code cannot be
interrupted, so R never runs in this process. `RWorkers` keeps R embedded (rpy2) in spawned processes and
replaces those that crashed or were stopped. Where rpy2 is missing, `RscriptWorkers` takes the same calls.
Whatever happens is a `Reply`; R's warnings, messages and errors are text in it.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from parity.process import START_LIMIT, Died, GivenUp, Process, Processes, TimeIsUp
from parity.r.call import Reply, Workers, crashed, guarded_reply, not_through, stopped, surroundings
from parity.r.script import RscriptWorkers
from parity.r.values import from_r, to_r
from parity.resources import r_dir

R_OPTIONS = ("rpy2", "--quiet", "--vanilla", "--no-echo")
CALLS_PER_PROCESS = 500  # then it is replaced, which bounds what R does not give back
QUIT_CODE = 240  # stands for 0, which is how a process ends that had nothing more to do


class RWorkers:
    """Processes with R embedded (rpy2), one per call under way, kept for the next call.

    A process costs about 2 s to start and 200 MB. Safe to use from several threads: each call takes an idle
    process or starts one. A process that hangs, while it starts or later, is killed at its limit.

    Parameters
    ----------
    timeout : float
        seconds that a call may take before its process is killed.
    sources : sequence of paths
        further R files whose functions can be called by name.
    start_limit : float
        seconds that starting R may take before its process is killed.
    """

    name = "rpy2"

    def __init__(
        self, timeout: float = 600.0, sources: Sequence[Path] = (), start_limit: float = START_LIMIT
    ):
        self.timeout = timeout
        arguments = (str(r_dir()), tuple(str(path) for path in sources))
        self._processes = Processes(lambda: Process(_start_r, arguments, start_limit), CALLS_PER_PROCESS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(
        self, function: str, arguments: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Reply:
        """Call an R function by name and wait for it. Never raises for what R or its process does."""
        started = time.perf_counter()
        limit = self.timeout if timeout is None else timeout
        return self._reply(function, dict(arguments or {}), limit).timed(time.perf_counter() - started)

    def close(self) -> None:
        """Stop all processes, also those with a call under way."""
        self._processes.close()

    def _reply(self, function: str, arguments: dict[str, Any], limit: float) -> Reply:
        try:
            return self._processes.call(_call_r, function, arguments, limit=limit)
        except TimeIsUp as error:
            return stopped(error.limit, starting=error.starting)
        except Died as error:
            return crashed(0 if error.code == QUIT_CODE else error.code)
        except GivenUp:
            return not_through("the call was given up", "R was closed while it was under way")
        except Exception as error:
            return not_through("the call did not get through", error)


# --- in the worker process ------------------------------------------------------------------------------

_r: Any = None  # environments with our R functions: (loader, reference)
_start_failure = ""  # why there are none
_console: list[str] = []  # what R printed during the call


def _start_r(directory: str, sources: tuple[str, ...]) -> None:
    """Start R in this process. A failure is kept for the reply: an exception would only end the process."""
    global _r, _start_failure
    try:
        _r = _embed_r(directory, sources)
    except Exception as error:
        _start_failure = f"{type(error).__name__}: {error}"


def _embed_r(directory: str, sources: tuple[str, ...]) -> Any:
    os.environ.update(surroundings())
    embedded: Any = import_module("rpy2.rinterface_lib.embedded")
    callbacks: Any = import_module("rpy2.rinterface_lib.callbacks")
    embedded.set_initoptions(R_OPTIONS)
    import rpy2.rinterface as ri

    callbacks.consolewrite_print = _console.append
    callbacks.consolewrite_warnerror = _console.append
    callbacks.cleanup = _leave
    ri.initr(interactive=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler in Python would wait for native code to return
    source = ri.baseenv["sys.source"]
    loader = ri.baseenv["new.env"]()
    source(to_r(os.path.join(directory, "load.R")), envir=loader)
    reference = loader["load_reference"](to_r(directory))
    for path in sources:
        source(to_r(path), envir=reference)
    return loader, reference


def _leave(save: object, status: int, run_last: object) -> None:
    """What `quit()` does here: end at once, with a code that shows."""
    os._exit(status or QUIT_CODE)


def _call_r(function: str, arguments: dict[str, Any]) -> Reply:
    if _r is None:
        return not_through("R could not be started", _start_failure)
    from rpy2.rinterface_lib.embedded import RRuntimeError

    loader, reference = _r
    _console.clear()
    try:
        f = loader["find_function"](reference, to_r(function))
        values = to_r(arguments)
    except (RRuntimeError, TypeError, ValueError) as error:
        return not_through(function, error)
    try:
        answer = reference["guarded"](f, values)
    except RRuntimeError as error:  # an error that R's own handlers cannot catch, such as exhausted memory
        return Reply("r_error", message=str(error).strip() or "".join(_console).strip())
    try:
        return guarded_reply(from_r(answer))
    except (TypeError, ValueError, KeyError) as error:
        return not_through("R's answer cannot be read", error)


# --- what this machine has ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class REnvironment:
    """What this machine offers for running R."""

    rscript: str | None  # path of Rscript; None: R is not installed
    r_version: str | None
    home: str | None  # R's own folder
    platform: str | None
    blas: str | None
    lapack: str | None
    libraries: tuple[str, ...]  # folders searched for R packages
    packages: Mapping[str, str | None]  # version; None: not installed
    rpy2: Mapping[str, str | None]  # versions of rpy2, rpy2-rinterface, rpy2-robjects; None: not installed
    rpy2_problem: str | None  # why rpy2 cannot be used; None: it can

    @property
    def lme4(self) -> bool:
        """R with lme4 is there."""
        return self.packages.get("lme4") is not None

    @property
    def embedded(self) -> bool:
        """lme4 can be run in an embedded R (`RWorkers`)."""
        return self.lme4 and self.rpy2_problem is None

    @property
    def by_rscript(self) -> bool:
        """lme4 can be run by Rscript (`RscriptWorkers`)."""
        return self.lme4 and self.packages.get("jsonlite") is not None


@cache
def r_environment() -> REnvironment:
    """Look once at R, its packages and rpy2: about 1 s at the first call. Starts no R in this process."""
    facts = _r_facts()
    plain = ("r", "home", "platform", "blas", "lapack", "libraries")
    return REnvironment(
        rscript=shutil.which("Rscript"),
        r_version=facts.get("r"),
        home=facts.get("home"),
        platform=facts.get("platform"),
        blas=facts.get("blas"),
        lapack=facts.get("lapack"),
        libraries=tuple((facts.get("libraries") or "").split(":")) if facts else (),
        packages={name: version for name, version in facts.items() if name not in plain},
        rpy2=_rpy2_versions(),
        rpy2_problem=_rpy2_problem() if facts else "R is not installed",
    )


def r_available() -> bool:
    """Whether lme4 can be run here through rpy2, which is what the tests marked `live` need."""
    return r_environment().embedded


def open_workers(timeout: float = 600.0) -> Workers:
    """The best way of running R that this machine offers: embedded, else Rscript.

    Raises
    ------
    RuntimeError
        if there is none; the message says what is missing.
    """
    here = r_environment()
    if here.embedded:
        return RWorkers(timeout)
    if here.by_rscript:
        return RscriptWorkers(timeout)
    if here.rscript is None:
        raise RuntimeError("R is not installed; `parity doctor` says how to install it")
    lacking = "lme4" if not here.lme4 else f"rpy2 ({here.rpy2_problem}) or the R package jsonlite"
    raise RuntimeError(f"R {here.r_version} lacks {lacking}; `parity doctor` says how to install it")


def _r_facts() -> dict[str, str | None]:
    program = shutil.which("Rscript")
    if program is None:
        return {}
    try:
        done = subprocess.run(
            [program, "--vanilla", str(r_dir() / "facts.R")],
            capture_output=True, text=True, timeout=START_LIMIT, check=True, stdin=subprocess.DEVNULL,
            env={**os.environ, **surroundings()},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.partition("\t") for line in done.stdout.splitlines())
    return {name: value or None for name, _, value in pairs}


def _rpy2_versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for part in ("rpy2", "rpy2-rinterface", "rpy2-robjects"):
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            found[part] = None
    return found


def _rpy2_problem() -> str | None:
    """Whether rpy2 loads with this R: tried in a process of its own, since a mismatch may end the process."""
    if importlib.util.find_spec("rpy2") is None:
        return "rpy2 is not installed"
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import rpy2.rinterface"],
            capture_output=True, text=True, timeout=START_LIMIT, stdin=subprocess.DEVNULL,
            env={**os.environ, **surroundings()},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"importing it ends the process (exit code {done.returncode})"
