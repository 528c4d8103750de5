"""R as a program: `Rscript` started anew for each call. Needs no rpy2; costs about a second per call."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from parity.r.call import Reply, crashed, guarded_reply, not_through, stopped, surroundings
from parity.r.values import from_json_data, to_json_data
from parity.resources import r_dir


class RscriptWorkers:
    """Calls R functions by name through files of JSON. Needs R with jsonlite.

    Takes the parameters of `RWorkers` and gives the same replies, with numbers equal to the last bit.
    """

    name = "Rscript"

    def __init__(self, timeout: float = 600.0, sources: Sequence[Path] = ()):
        self.timeout = timeout
        self._sources = [str(path) for path in sources]
        self._running: set[subprocess.Popen[bytes]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(
        self, function: str, arguments: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Reply:
        """Call an R function by name and wait for it. Never raises for what R or its process does."""
        started = time.perf_counter()
        try:
            request = json.dumps(
                {
                    "function": function,
                    "arguments": to_json_data(arguments or {}),
                    "sources": self._sources,
                },
                allow_nan=False,
            )
        except TypeError as error:
            return not_through(function, error)
        limit = self.timeout if timeout is None else timeout
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            return self._run(Path(folder), request, limit).timed(time.perf_counter() - started)

    def close(self) -> None:
        """Stop all processes, also those with a call under way."""
        for process in tuple(self._running):
            _kill_group(process)

    def _run(self, folder: Path, request: str, limit: float) -> Reply:
        program = shutil.which("Rscript")
        if program is None:
            return not_through("R as a program", "there is no Rscript on the PATH")
        source, target = folder / "request.json", folder / "answer.json"
        source.write_text(request, encoding="utf-8")
        command = [program, "--vanilla", str(r_dir() / "run.R"), "--in", str(source), "--out", str(target)]
        with (folder / "console").open("w+b") as console:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                env={**os.environ, **surroundings()}, start_new_session=True,
            )  # fmt: skip
            self._running.add(process)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return stopped(limit)
            finally:
                _kill_group(process)
                self._running.discard(process)
            console.seek(0)
            printed = console.read().decode("utf-8", "replace").strip()
        return _answer(target, code, printed)


def _answer(target: Path, code: int, printed: str) -> Reply:
    if target.exists():
        try:
            return guarded_reply(from_json_data(json.loads(target.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError) as error:
            return not_through("R's answer cannot be read", error)
    if code == 1 and "Execution halted" in printed:  # R's way out of an error outside of `guarded`
        return not_through("the call did not get through", printed)
    return crashed(code)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
