"""Instructions that a stage executes, counted by valgrind where it is installed: a measure without noise.

A process that does the stage once and one that does it `REPEATS` times more differ by `REPEATS` stages; imports and
data cancel. A count takes minutes, so it is made for a few stages and only when asked for.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPEATS = 10
PLAN = (("sleepstudy", "fit"), ("penicillin", "fit"))
MORE = 1.05  # head / base from which on it is a regression; what is left of noise (hashing, addresses) is below 1 %
_FIXED = {
    "PYTHONHASHSEED": "0",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class CountError(RuntimeError):
    """valgrind gave no count; the message says what it said."""


def present() -> bool:
    """Whether valgrind is here."""
    return shutil.which("valgrind") is not None


def of_stage(checkout: Path, problem: str, stage: str, repeats: int = REPEATS) -> int:
    """Instructions of one run of a stage with the mmcore of a checkout. Raises CountError."""
    script = str(Path(__file__).with_name("stages.py"))
    one, many = (
        of_command([sys.executable, script, str(checkout), problem, stage, str(n)], checkout)
        for n in (1, 1 + repeats)
    )
    return round((many - one) / repeats)


def of_command(command: list[str], folder: Path) -> int:
    """Instructions of a command, its process only. Raises CountError."""
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, *command],
        cwd=folder,
        env=os.environ | _FIXED,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or found is None:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise CountError(f"valgrind ended with {done.returncode}: {last}")
    return int(found[1].replace(",", ""))
