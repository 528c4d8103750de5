"""Speed of intervals beside lme4 in the same run: `python -m benchmarks.inference_intervals [--rounds N]`.

One thread on either side; rounds are interleaved (R, then mmcore) and medians compared. A ratio is shown only after the
answers were compared: profile limits with lme4's, bootstrap standard errors with bootMer's within Monte-Carlo error.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402

import numpy as np  # noqa: E402

import mmcore as mm  # noqa: E402
from mmcore.inference.bootstrap.bootstrap import bootstrap  # noqa: E402
from mmcore.inference.intervals.confint import confint  # noqa: E402

FORMULA = "Reaction ~ Days + (Days | Subject)"
SETUP = """
suppressMessages(library(lme4))
fm <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
parts <- function(m) { v <- as.data.frame(VarCorr(m))$sdcor; c(v[c(1, 3, 2, 4)], fixef(m)) }
say <- function(time, values) cat(time, format(values, digits = 15), "\\n", sep = " ")
"""
PROFILE = """
time <- system.time(ci <- confint(fm, method = "profile", oldNames = FALSE, quiet = TRUE))[["elapsed"]]
say(time, c(t(ci)))
"""
BOOT = """
time <- system.time(b <- suppressMessages(suppressWarnings(bootMer(fm, parts, nsim = 1000))))[["elapsed"]]
say(time, apply(b$t, 2, sd, na.rm = TRUE))
"""


class R:
    """One R process that is told what to run, line by line."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["R", "--vanilla", "--no-echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tell(SETUP)

    def tell(self, code: str) -> None:
        """Run without an answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(code)
        self.process.stdin.flush()

    def ask(self, code: str) -> tuple[float, np.ndarray]:
        """Seconds and the numbers of one call."""
        self.tell(code)
        assert self.process.stdout is not None
        numbers = [float(x) for x in self.process.stdout.readline().split()]
        return numbers[0], np.array(numbers[1:])

    def close(self) -> None:
        """End the process."""
        self.tell("quit()\n")
        self.process.wait(30)


@dataclass(frozen=True)
class Work:
    """One line of the table."""

    name: str
    code: str
    run: Callable[[mm.Fit], np.ndarray]
    repeats: int  # of ours per round
    agree: float  # relative
    target: float  # times faster


def limits(fit: mm.Fit) -> np.ndarray:
    """Profile limits, in R's order."""
    return confint(fit, method="profile").to_numpy().ravel()


def spreads(fit: mm.Fit) -> np.ndarray:
    """Standard deviations of bootstrap replicates."""
    return bootstrap(fit, 1000, 1).se.to_numpy()


WORKS = (
    Work("confint(profile), sleepstudy", PROFILE, limits, 10, 1e-4, 50),
    Work("1,000 parametric bootstraps, sleepstudy", BOOT, spreads, 5, 0.12, 100),
)  # fmt: skip


def seconds(run: Callable[[], object]) -> float:
    """Of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def measured(work: Work, r: R, fit: mm.Fit, rounds: int) -> str:
    """A line of the table, after the answers were compared."""
    theirs, ours = [], []
    work.run(fit)
    for _ in range(rounds):
        took, answer = r.ask(work.code)
        theirs.append(took)
        ours += [seconds(lambda: work.run(fit)) for _ in range(work.repeats)]
        np.testing.assert_allclose(work.run(fit), answer, rtol=work.agree)
    a, b = float(np.median(theirs)), float(np.median(ours))
    return f"{work.name:42s} {a:9.3f} s {1e3 * b:9.1f} ms {a / b:8.0f} x   (target {work.target:.0f} x)"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if shutil.which("R") is None:
        raise SystemExit("no R here: nothing to measure against")
    fit, r = mm.lmer(FORMULA, mm.load_dataset("sleepstudy")), R()
    print(f"{'':42s} {'lme4':>11s} {'mmcore':>12s} {'ratio':>10s}")
    for work in WORKS:
        print(measured(work, r, fit, rounds), flush=True)
    r.close()


if __name__ == "__main__":
    main()
