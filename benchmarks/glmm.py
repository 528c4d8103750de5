"""Generalised models against R: `python -m benchmarks.glmm [NAME ...] [--rounds N] [--json FILE]`.

One BLAS thread; mmcore and R take turns in one run, from a formula and a data frame in memory to a fitted
model, at default settings (glmer's includes its Hessian, which mmcore makes when standard errors are asked
for: the column "with se" has it). A time is shown only if mmcore's -2 log-likelihood is not above R's by
more than 1e-8 of it.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import mmcore as mm  # noqa: E402
from mmcore.formula.parse import parse  # noqa: E402
from parity.bench import measured  # noqa: E402
from parity.bench.timing import in_turns, ratio, repeats_for  # noqa: E402
from parity.r.call import Workers  # noqa: E402
from parity.r.columns import r_column  # noqa: E402
from parity.r.worker import open_workers, r_environment  # noqa: E402

WORSE = 1e-8  # relative: how far the deviance may be above R's
COLUMNS = (
    "model",
    "rows",
    "mmcore ms",
    "with se",
    "R ms",
    "R over mmcore",
    "interval",
    "aim",
    "deviance less R's",
)
NOTE = (
    "`python -m benchmarks.glmm --json FILE`: formula to fit, in turns with glmer or glm at their defaults in one "
    "run; CPU time, medians over rounds. The column with standard errors adds mmcore's Hessian of the likelihood, "
    "which glmer always makes. A time is shown only if mmcore's deviance is not above R's by more than 1e-8 of it."
)


@dataclass(frozen=True)
class Work:
    """One model."""

    name: str
    formula: str
    data: Callable[[], pd.DataFrame]
    family: str
    aim: float  # times as fast as R


def grouse() -> pd.DataFrame:
    """Ticks on grouse chicks, the height centred."""
    data = mm.load_dataset("grouseticks")
    data["ch"] = data["HEIGHT"] - data["HEIGHT"].mean()
    return data


def counts(rows: int) -> Callable[[], pd.DataFrame]:
    """Poisson counts with four covariates."""

    def make() -> pd.DataFrame:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, 4))
        data = pd.DataFrame(x, columns=list("abcd"))
        data["y"] = rng.poisson(np.exp(0.3 + x @ [0.2, -0.1, 0.3, 0.05]))
        return data

    return make


def shipped(name: str) -> Callable[[], pd.DataFrame]:
    """A data set of the package."""
    return lambda: mm.load_dataset(name)


TABLE = [
    Work("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", shipped("cbpp"), "binomial", 30),
    Work(
        "Contraception", "use ~ age + I(age^2) + urban + livch + (1 | district)", shipped("Contraception"),
        "binomial", 30,
    ),
    Work(
        "VerbAgg, crossed", "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)", shipped("VerbAgg"),
        "binomial", 30,
    ),
    Work(
        "grouseticks, nested", "TICKS ~ YEAR + ch + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)", grouse, "poisson", 8
    ),
    Work("glm, 100 rows", "y ~ a + b + c + d", counts(100), "poisson", 0.5),
    Work("glm, 100,000 rows", "y ~ a + b + c + d", counts(100_000), "poisson", 1),
]  # fmt: skip


def fit(work: Work, data: pd.DataFrame, se: bool = False) -> tuple[float, mm.Fit]:
    """CPU seconds of one fit, and the fit."""
    function = mm.glmer if "|" in work.formula else mm.glm
    start = time.process_time()
    done = function(work.formula, data, family=work.family)
    if se:
        _ = done.se
    return time.process_time() - start, done


def in_r(work: Work, data: pd.DataFrame, workers: Workers) -> Callable[[int], tuple[float, float]]:
    """Mean CPU seconds of fits in R, and the criterion; the data cross once per call and are not timed."""
    formula = parse(work.formula)
    request: dict[str, Any] = {
        "columns": {name: r_column(data[name]) for name in data.columns if name in formula.variables},
        "row_labels": [str(i) for i in range(1, len(data) + 1)],
        "formula": formula.to_r(), "family": work.family, "reml": False, "contrasts": {}, "nagq": 1,
    }  # fmt: skip

    def run(repeats: int) -> tuple[float, float]:
        reply = workers.call("time_fits", {"request": request, "repeats": float(repeats)})
        if reply.status != "ok":
            raise RuntimeError(f"R: {reply.status}: {reply.message}")
        value: Any = reply.value
        return float(value["cpu"][0]), float(value["criterion"][0])

    return run


def measure(work: Work, workers: Workers, rounds: int) -> tuple[str | float, ...]:
    """One line of the table."""
    data = work.data()
    theirs = in_r(work, data, workers)
    first = theirs(2)
    seconds, done = fit(work, data)
    excess = (done.criterion - first[1]) / abs(first[1])
    if excess > WORSE:
        return work.name, len(data), "", "", "", "", "", work.aim, f"{excess:.1e}: worse than R"
    repeats = repeats_for(seconds)
    sides = {
        "mmcore": lambda: float(np.median([fit(work, data)[0] for _ in range(repeats)])),
        "R": lambda: theirs(repeats_for(first[0]))[0],
    }
    taken = in_turns(sides, rounds)
    said = ratio(taken["R"], taken["mmcore"], np.random.default_rng(0), level=0.95)
    with_se = float(np.median([fit(work, data, se=True)[0] for _ in range(max(3, repeats // 4))]))
    return (
        work.name, len(data), round(1e3 * said.b, 2), round(1e3 * with_se, 2), round(1e3 * said.a, 1),
        f"{said.value:.3g}x", f"{said.low:.3g}-{said.high:.3g}", f"{work.aim:g}x", f"{excess * abs(first[1]):.1e}",
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", help="lines whose name contains one of these; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures, from which docs/speed.md is made")
    arguments = parser.parse_args()
    before, rows = measured.load_average(), []
    warnings.simplefilter("ignore", mm.MixedModelWarning)
    workers = open_workers()
    try:
        for work in TABLE:
            if not arguments.name or any(part in work.name for part in arguments.name):
                rows.append(measure(work, workers, arguments.rounds))
                print("  ".join(str(cell) for cell in rows[-1]), flush=True)
    finally:
        workers.close()
    if arguments.json:
        packages = r_environment().packages
        reference = f"R {r_environment().r_version}, lme4 {packages.get('lme4')}"
        conditions = measured.conditions(before, reference, arguments.rounds)
        table = measured.Table("Generalised models", NOTE, COLUMNS, tuple(rows), conditions)
        measured.write(arguments.json, table)


if __name__ == "__main__":
    main()
