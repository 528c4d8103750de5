"""Peak memory of one fit, in a process of its own: what the fit adds to what was there before it.

Run as a script, ``python memory.py PROBLEM``: fits a tiny model first, so that imports are paid for, makes the data,
and prints ``{"peak_mb": ..., "criterion": ...}``. The peak is the process's largest resident set during the fit minus
its resident set before it; where the kernel cannot set the peak back, the largest so far stands for it.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from parity.bench.problems import PROBLEMS, Problem
from parity.r.call import Workers

ONE_THREAD: Mapping[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


def of_mmcore(problem: Problem, timeout: float = 900.0) -> float | None:
    """Megabytes that `mmcore.lmer` adds at its peak; None if the process fails or takes too long."""
    command = [sys.executable, "-m", "parity.bench.memory", problem.name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=True, env=os.environ | ONE_THREAD
        )
        return float(json.loads(done.stdout)["peak_mb"])
    except (subprocess.SubprocessError, ValueError, KeyError):
        return None


def of_lme4(request: Mapping[str, Any], workers: Workers) -> float | None:
    """Megabytes that `lme4::lmer` adds at its peak in a fresh R process; None if it fails."""
    reply = workers.call("memory_of_fit", {"request": request})
    value: Any = reply.value
    return float(value["peak_mb"][0]) if reply.status == "ok" else None


def resident_mb() -> float:
    """Resident set of this process now (Linux), else its largest so far."""
    return _status("VmRSS") or _largest_mb()


def peak_mb() -> float:
    """Largest resident set of this process since `forget_peak`, where that works, else since its start."""
    return _status("VmHWM") or _largest_mb()


def forget_peak() -> None:
    """Let the peak begin at what is resident now, where the kernel allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def _largest_mb() -> float:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (1024.0 if sys.platform != "darwin" else 1024.0**2)


def main(name: str) -> None:
    """Measure one problem in this process."""
    import mmcore as mm

    tiny, problem = PROBLEMS["sleepstudy"], PROBLEMS[name]
    mm.lmer(tiny.formula, tiny.data(), reml=True)
    data = problem.data()
    forget_peak()
    before = resident_mb()
    fit = mm.lmer(problem.formula, data, reml=problem.reml)
    print(json.dumps({"peak_mb": max(0.0, peak_mb() - before), "criterion": fit.criterion}))


if __name__ == "__main__":
    main(sys.argv[1])
