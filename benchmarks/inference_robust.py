"""Speed of robust covariances beside clubSandwich's in one run: `python -m benchmarks.inference_robust [--repeats N]`.

One BLAS thread. Runs of R and of mmcore take turns; the table has medians of both and their ratio, and only after the
two covariances were seen to agree. The fits exist beforehand; mmcore's is made afresh for every run, so that nothing
it keeps is counted as free.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402

import mmcore as mm  # noqa: E402
from mmcore.inference.robust.robust import coef_test, vcov_robust  # noqa: E402

FORMULA = "mAch ~ cses * sector + (cses | school)"
AGREEMENT = 1e-6  # of the covariances, relative: R's optimum is its own
R_CODE = """
suppressMessages({library(lme4); library(clubSandwich)})
m <- lmer(%s, mlmRev::Hsb82, control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9)))
cat(sprintf("%%.17g", getME(m, "theta")), "\\n"); cat(sprintf("%%.17g", as.matrix(vcovCR(m, type = "CR2"))), "\\n")
flush(stdout()); input <- file("stdin", "r")
while (length(line <- readLines(input, 1)) && nzchar(line)) {
  t <- proc.time()[["elapsed"]]
  invisible(if (line == "vcov") vcovCR(m, type = "CR2") else coef_test(m, vcov = "CR2"))
  cat(proc.time()[["elapsed"]] - t, "\\n"); flush(stdout())
}
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    command = ["Rscript", "-e", R_CODE % FORMULA]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as r:
        assert r.stdin is not None and r.stdout is not None
        theta, V = (np.array(r.stdout.readline().split(), float) for _ in range(2))
        data = mm.load_dataset("Hsb82")
        design = mm.fit_at(FORMULA, data, theta).design
        fresh = lambda: mm.fit_design_at(design, theta)
        work = {
            "vcov": lambda f: vcov_robust(f, "CR2", "school"),
            "test": lambda f: coef_test(f, "CR2", "school"),
        }
        gap = np.abs(work["vcov"](fresh()).to_numpy().ravel() / V - 1).max()
        if not gap < AGREEMENT:
            raise SystemExit(f"the covariances differ by {gap:.1e}: no time is shown")
        print(
            f"Hsb82, {design.n} rows, CR2 by school; covariances agree to {gap:.1e}; {repeats} interleaved runs"
        )
        for name, run in work.items():
            ours, theirs = [], []
            for _ in range(repeats):
                fit = fresh()
                start = time.perf_counter()
                run(fit)
                ours.append(time.perf_counter() - start)
                r.stdin.write(name + "\n")
                r.stdin.flush()
                theirs.append(float(r.stdout.readline()))
            a, b = statistics.median(ours), statistics.median(theirs)
            print(f"{name}: mmcore {1e3 * a:.1f} ms, clubSandwich {1e3 * b:.0f} ms, ratio {b / a:.0f}")
        r.stdin.close()


if __name__ == "__main__":
    main()
