"""mmcore against lme4 and against other Python engines: one run, in turns, and no time for a wrong answer.

Every side starts from a formula and a data frame in memory and ends with a fitted model. A side whose criterion is
above the best one by more than ``WORSE`` gets no time: it did less work than was asked for.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import mmcore as mm
from parity.bench.problems import Problem
from parity.bench.timing import Ratio, in_turns, ratio, repeats_for
from parity.engines.r_live import r_column
from parity.rcall import Workers

WORSE = 1e-6  # relative excess of the criterion above the best side's; default lmer ends up to 1e-9 above


@dataclass(frozen=True, slots=True)
class Answer:
    """One fit of one side."""

    seconds: float
    criterion: float
    evaluations: int
    peak_mb: float = float("nan")  # additional memory of the fit, where it was measured


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of one problem."""

    problem: str
    engine: str
    rows: int
    seconds: float | None  # median of one fit; None where the answer was wrong or there is none
    ratio: Ratio | None  # this side's time over mmcore's
    evaluations: int
    criterion: float
    excess: float  # relative, above the best side's criterion
    peak_mb: float
    aim: float  # times as fast as lme4 that mmcore is to be
    message: str = ""


Side = Callable[[int], Answer]  # repeats -> median answer


def mmcore_side(problem: Problem, data: pd.DataFrame) -> Side:
    """mmcore from formula to Fit."""

    def fit(repeats: int) -> Answer:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            done = mm.lmer(problem.formula, data, reml=problem.reml)
            seconds.append(time.perf_counter() - start)
        return Answer(float(np.median(seconds)), done.criterion, done.optinfo.evaluations)

    return fit


def lme4_side(problem: Problem, data: pd.DataFrame, workers: Workers) -> Side:
    """`lme4::lmer` at its defaults in a worker process; the data cross once per round and are not timed."""
    from mmcore.formula import parse

    formula = parse(problem.formula)
    request = {
        "columns": {name: r_column(data[name]) for name in data.columns if name in formula.variables},
        "row_labels": [str(i) for i in range(1, len(data) + 1)],
        "formula": formula.to_r(),
        "family": "gaussian",
        "reml": problem.reml,
        "contrasts": {},
    }

    def fit(repeats: int) -> Answer:
        reply = workers.call("time_fits", {"request": request, "repeats": float(repeats)})
        if reply.status != "ok":
            raise RuntimeError(f"lme4: {reply.status}: {reply.message}")
        value: Any = reply.value
        seconds = float(np.median(value["seconds"]))
        return Answer(seconds, float(value["criterion"][0]), int(value["evaluations"][0]))

    return fit


def measure(problem: Problem, sides: dict[str, Side], rows: int, rounds: int, seed: int = 0) -> list[Entry]:
    """Times of all sides of one problem, ``mmcore`` among them; others as ratios to it."""
    first: dict[str, Answer] = {}
    failed: dict[str, str] = {}
    for name, side in sides.items():
        try:
            side(1)  # loading, compiling, caches
            first[name] = side(1)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    best = min((answer.criterion for answer in first.values()), default=float("nan"))
    excess = {name: (a.criterion - best) / (1 + abs(best)) for name, a in first.items()}
    right = {name: sides[name] for name in first if excess[name] <= WORSE}
    times = in_turns(
        {name: _one(side, repeats_for(first[name].seconds)) for name, side in right.items()},
        rounds if sum(first[name].seconds for name in right) < 20 else max(1, rounds // 3),
    )
    rng = np.random.default_rng(seed)
    return [
        _entry(
            problem,
            name,
            rows,
            first.get(name),
            times,
            excess.get(name, float("nan")),
            rng,
            failed.get(name, ""),
        )
        for name in sides
    ]


def _one(side: Side, repeats: int) -> Callable[[], float]:
    return lambda: side(repeats).seconds


def _entry(
    problem: Problem, name: str, rows: int, answer: Answer | None, times: dict[str, np.ndarray], excess: float,
    rng: np.random.Generator, message: str,
) -> Entry:  # fmt: skip
    timed = name in times
    compared = (
        ratio(times[name], times["mmcore"], rng, 0.95)
        if timed and "mmcore" in times and name != "mmcore"
        else None
    )
    if answer is not None and not timed:
        message = f"criterion {excess:.1e} above the best: no time is shown"
    return Entry(
        problem.name, name, rows, float(np.median(times[name])) if timed else None, compared,
        answer.evaluations if answer else 0, answer.criterion if answer else float("nan"), excess,
        answer.peak_mb if answer else float("nan"), problem.aim, message,
    )  # fmt: skip


def run(problems: Iterable[Problem], workers: Workers | None, rounds: int = 7) -> Iterable[list[Entry]]:
    """Problem by problem: mmcore, and lme4 where there is R."""
    for problem in problems:
        data = problem.data()
        sides: dict[str, Side] = {"mmcore": mmcore_side(problem, data)}
        if workers is not None:
            sides["lme4"] = lme4_side(problem, data, workers)
        yield measure(problem, sides, len(data), rounds)


def markdown(entries: Sequence[Entry]) -> str:
    """The speed table: one line per side and problem."""
    lines = [
        "| problem | rows | engine | ms | times mmcore's | 95 % interval | aim | evaluations | criterion excess |",
        "|---|---:|---|---:|---:|---|---:|---:|---:|",
    ]
    for e in entries:
        ms = "" if e.seconds is None else f"{1e3 * e.seconds:.2f}"
        r = e.ratio
        compared = "| " if r is None else f"{r.value:.1f} | {r.low:.1f} to {r.high:.1f}"
        aim = f"{e.aim:g}" if e.engine == "lme4" else ""
        note = e.message or f"{e.excess:.0e}"
        lines.append(
            f"| {e.problem} | {e.rows:,} | {e.engine} | {ms} | {compared} | {aim} | {e.evaluations} | {note} |"
        )
    return "\n".join(lines) + "\n"
