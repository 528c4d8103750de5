"""Degrees of freedom against R in one run: medians of interleaved runs, one BLAS thread, numbers compared first.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.inference_tests

Satterthwaite: from a fitted model to the table of coefficients of Hsb82, lmerTest's ``as_lmerModLmerTest`` and
``summary``. Kenward-Roger: the table of coefficients of a model of 2,000 rows, pbkrtest's ``vcovAdj`` and ``Lb_ddf``
by way of ``summary(ddf =)``. R stays one process; it gets one command at a time and answers with its own seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import mmcore as mm  # noqa: E402
from mmcore.inference.df.denominators import coefficient_table  # noqa: E402

R = """
suppressMessages({ library(lme4); library(lmerTest); library(pbkrtest) })
options(digits = 17)
data <- read.csv(commandArgs(TRUE)[1]); data$g <- factor(data$g)
m <- lme4::lmer(y ~ x + t + (t | g), data, control = lmerControl(calc.derivs = FALSE))
cat(sprintf("%.17g", getME(m, "theta")), "\n"); flush(stdout())
ddf <- commandArgs(TRUE)[2]
k <- if (ddf != "Satterthwaite") as_lmerModLmerTest(m)
input <- file("stdin", "r")
while (length(line <- readLines(input, 1))) {
  gc(FALSE)
  t <- proc.time()[["elapsed"]]
  s <- if (ddf == "Satterthwaite") summary(as_lmerModLmerTest(m)) else summary(k, ddf = ddf)
  seconds <- proc.time()[["elapsed"]] - t
  cat(sprintf("%.17g", c(seconds, coef(s)[, "df"])), "\n"); flush(stdout())
}
"""


class RSession:
    """One R process that fits a model once and times its table of coefficients on demand."""

    def __init__(self, path: str, ddf: str) -> None:
        self.process = subprocess.Popen(
            ["Rscript", "--vanilla", "-e", R, path, ddf],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.theta = self._numbers()

    def _numbers(self) -> np.ndarray:
        assert self.process.stdout is not None
        return np.array(self.process.stdout.readline().split(), float)

    def run(self) -> tuple[float, np.ndarray]:
        """Seconds and degrees of freedom."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        values = self._numbers()
        return float(values[0]), values[1:]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def clocked(work: Callable[[], pd.DataFrame]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    table = work()
    return time.perf_counter() - start, table["df"].to_numpy()


def hsb82() -> pd.DataFrame:
    d = mm.load_dataset("Hsb82")
    return pd.DataFrame(
        {"y": d.mAch, "x": (d.sector == "Catholic").astype(float), "t": d.cses, "g": d.school}
    )


def two_thousand(n: int = 2000, groups: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    g = np.sort(rng.integers(0, groups, n))
    x, t, b = rng.normal(size=n), rng.normal(size=n), rng.normal(size=(2, groups))
    return pd.DataFrame(
        {"y": 1 + x + 0.5 * t + b[0][g] + 0.4 * b[1][g] * t + rng.normal(size=n), "x": x, "t": t, "g": g}
    )


def compare(name: str, data: pd.DataFrame, ddf: str, runs: int, folder: str) -> dict[str, object]:
    """Medians of alternating runs of R and of mmcore at R's theta; a fresh fit each time, so nothing is cached."""
    path = os.path.join(folder, f"{name}.csv")
    data.to_csv(path, index=False)
    session = RSession(path, {"satterthwaite": "Satterthwaite", "kenward-roger": "Kenward-Roger"}[ddf])
    frame = data.assign(g=data.g.astype(str))
    theirs, ours, apart = [], [], 0.0
    for _ in range(runs):
        seconds, df = session.run()
        theirs.append(seconds)
        fit = mm.fit_at("y ~ x + t + (t | g)", frame, session.theta)
        own, found = clocked(lambda fit=fit: coefficient_table(fit, ddf))  # type: ignore[misc]
        ours.append(own)
        apart = max(apart, float(np.abs(found / df - 1.0).max()))
    session.close()
    a, b = statistics.median(theirs), statistics.median(ours)
    return {
        "problem": name, "ddf": ddf, "rows": len(data), "runs": runs, "r_seconds": a, "mmcore_seconds": b,
        "ratio": a / b, "df_apart": apart,
    }  # fmt: skip


def main() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare("hsb82", hsb82(), "satterthwaite", 9, folder)), flush=True)
        print(json.dumps(compare("two_thousand", two_thousand(), "kenward-roger", 5, folder)), flush=True)


if __name__ == "__main__":
    main()
