"""Formula to fit: mmcore against `lme4::lmer` at its defaults, in one run, once the answers agree.

    python -m benchmarks.speed [CASE ...] [--rounds N] [--json FILE]

The two sides take turns (A B A B ...), so that a change of the machine's load hits both. A round is as many
fits as fill about a tenth of a second; the table shows medians over rounds of the time of one fit, half their
range, and the ratio of the medians. Data frames are in memory on both sides; each fit starts from a formula
and ends with a fitted model (R gets the parsed formula, mmcore its text). One BLAS thread.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# ruff: noqa: E402
import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mmcore as mm
from parity.case import Case, frame, load_cases, select
from parity.engines.r_live import request_of
from parity.rworker import RWorkers, r_environment

CASES = ("sleepstudy_slope_reml", "penicillin_crossed_reml", "pastes_nested_reml", "hsb82_slope_reml")
TARGET = {"hsb82_slope_reml": 25.0}  # times as fast as lmer; 6 for the small ones
SMALL_TARGET = 6.0
ROUND_SECONDS = 0.1
CRITERION_GAP = 1e-3  # default lmer stops up to this far from the optimum, in units of deviance


@dataclass(frozen=True, slots=True)
class Timing:
    """Both sides of one case."""

    case: str
    rows: int
    mmcore: float  # seconds of one fit, median over rounds
    lmer: float  # seconds
    spread_mmcore: float  # (largest - smallest) / median over rounds
    spread_lmer: float
    criterion_gap: float  # mmcore's criterion minus lmer's: negative where mmcore found the better optimum
    target: float  # the ratio aimed at

    @property
    def ratio(self) -> float:
        """How many times as fast mmcore is."""
        return self.lmer / self.mmcore


class AnswersDiffer(Exception):
    """The two sides do not give the same criterion, so their times mean nothing."""


def measure(case: Case, workers: RWorkers, rounds: int) -> Timing:
    """Time one case on both sides, in turns.

    Raises
    ------
    AnswersDiffer
        if mmcore's criterion is above lmer's, or below it by more than lmer's own inaccuracy.
    """
    data, request = frame(case), request_of(case)
    fit = mm.lmer(case.formula, data, reml=case.reml)
    first = _lmer(workers, request, 3)
    gap = float(fit.criterion - first["criterion"][0])
    if not -CRITERION_GAP < gap < 1e-6:
        raise AnswersDiffer(f"{case.name}: mmcore's criterion minus lmer's is {gap:.3g}; no time is shown")
    fits_here = _fits_per_round(_mmcore(case, data, 3))
    fits_there = _fits_per_round(first["seconds"])
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(statistics.median(_mmcore(case, data, fits_here)))
        theirs.append(statistics.median(_lmer(workers, request, fits_there)["seconds"]))
    return Timing(
        case=case.name,
        rows=len(data),
        mmcore=statistics.median(ours),
        lmer=statistics.median(theirs),
        spread_mmcore=_spread(ours),
        spread_lmer=_spread(theirs),
        criterion_gap=gap,
        target=TARGET.get(case.name, SMALL_TARGET),
    )


def _mmcore(case: Case, data, repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        mm.lmer(case.formula, data, reml=case.reml)
        seconds.append(time.perf_counter() - start)
    return seconds


def _lmer(workers: RWorkers, request: dict, repeats: int) -> dict:
    reply = workers.call("time_lmer", {"request": request, "repeats": float(repeats)})
    if reply.status != "ok":
        raise RuntimeError(f"R: {reply.status}: {reply.message}")
    return reply.value


def _fits_per_round(seconds: Sequence[float]) -> int:
    return max(1, min(50, round(ROUND_SECONDS / min(seconds))))


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def table(timings: Sequence[Timing]) -> str:
    """The timings as text, one line per case."""
    head = (
        f"{'case':<26}{'rows':>6}{'mmcore ms':>14}{'lmer ms':>14}{'ratio':>8}{'aim':>6}{'criterion gap':>15}"
    )
    return "\n".join([head, "-" * len(head), *(_line(timing) for timing in timings)])


def _line(t: Timing) -> str:
    ours = f"{t.mmcore * 1e3:.2f} +-{t.spread_mmcore / 2:3.0%}"
    theirs = f"{t.lmer * 1e3:.2f} +-{t.spread_lmer / 2:3.0%}"
    times = f"{t.case:<26}{t.rows:>6}{ours:>14}{theirs:>14}"
    return f"{times}{t.ratio:>7.1f}x{t.target:>5.0f}x{t.criterion_gap:>15.1e}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured; 1: some answers differ; 3: no live R."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help=f"default: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    here = r_environment()
    if not here.embedded:
        print(
            "no live R with lme4 and rpy2 here: nothing to measure against (see parity doctor)",
            file=sys.stderr,
        )
        return 3
    timings, failures = [], []
    with RWorkers(sources=[Path(__file__).with_name("speed.R")]) as workers:
        for case in select(load_cases(), options.case or CASES):
            try:
                timings.append(measure(case, workers, options.rounds))
            except AnswersDiffer as error:
                failures.append(str(error))
    print(f"mmcore {mm.__version__}, Python {platform.python_version()}, R {here.r_version}, lme4", end=" ")
    print(f"{here.packages['lme4']}, R's BLAS {here.blas}; one thread; {options.rounds} rounds, in turns")
    print(table(timings))
    for failure in failures:
        print(failure, file=sys.stderr)
    if options.json:
        rows = [asdict(timing) | {"ratio": timing.ratio} for timing in timings]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
