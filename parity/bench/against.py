"""mmcore against lme4 and against other engines: one run, in turns, and no time for a wrong answer.

mmcore and lme4 start from a formula and a data frame in memory and end with a fitted model. Other engines are timed
as their adapters run them: the data set is read, the design made by mmcore and handed over, the model fitted. A side
whose criterion is above the best one by more than ``WORSE`` gets no time: it did less work than was asked for.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

import mmcore as mm
from parity.bench import memory
from parity.bench.problems import Problem, scaling
from parity.bench.timing import Ratio, in_turns, ratio, repeats_for
from parity.compare.run import run as compare
from parity.r.call import Workers
from parity.r.columns import r_column
from parity.schema.case import Case, load_cases
from parity.schema.engine import Engine

WORSE = 1e-6  # relative excess of the criterion above the best side's; default lmer ends up to 1e-9 above
DENSE = (
    "tiny",
    "small",
)  # sizes for all engines: some hold rows x levels densely, which a large problem cannot
LONG = 20.0  # seconds of one round from which on fewer rounds are taken
JUDGED = ("criterion", "fixef", "se_fixef", "sigma", "varcorr")  # what an engine's digits are counted on


@dataclass(frozen=True, slots=True)
class Answer:
    """One fit of one side."""

    seconds: float
    criterion: float
    evaluations: int | None  # None where the side does not tell


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of one problem."""

    problem: str
    size: str
    engine: str
    rows: int
    aim: float  # times as fast as lme4 that mmcore is to be
    seconds: float | None = None  # median of one fit; None where the answer was wrong or there is none
    ratio: Ratio | None = None  # this side's time over mmcore's
    evaluations: int | None = None
    criterion: float | None = None
    excess: float | None = None  # relative, above the best side's criterion
    peak_mb: float | None = None  # what one fit adds to a fresh process at its peak
    digits: float | None = None  # fewest, of JUDGED, against the reference
    judge: str = ""  # the reference that counted them
    message: str = ""  # why there is no time


@dataclass(frozen=True, slots=True)
class Point:
    """One side at one size of a scaling curve."""

    kind: str  # n: rows; q: levels; terms
    size: int
    engine: str
    seconds: float
    evaluations: int | None


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


def lme4_request(problem: Problem, data: pd.DataFrame) -> dict[str, Any]:
    """The model as the functions of timing.R take it."""
    from mmcore.formula.parse import parse

    formula = parse(problem.formula)
    return {
        "columns": {name: r_column(data[name]) for name in data.columns if name in formula.variables},
        "row_labels": [str(i) for i in range(1, len(data) + 1)],
        "formula": formula.to_r(),
        "family": "gaussian",
        "reml": problem.reml,
        "contrasts": {},
    }


def lme4_side(request: Mapping[str, Any], workers: Workers) -> Side:
    """`lme4::lmer` at its defaults in a worker process; the data cross once per round and are not timed."""

    def fit(repeats: int) -> Answer:
        reply = workers.call("time_fits", {"request": request, "repeats": float(repeats)})
        if reply.status != "ok":
            raise RuntimeError(f"lme4: {reply.status}: {reply.message}")
        value: Any = reply.value
        seconds = float(np.median(value["seconds"]))
        return Answer(seconds, float(value["criterion"][0]), int(value["evaluations"][0]))

    return fit


def engine_side(engine: Engine, case: Case) -> Side:
    """Any engine, through its adapter."""

    def fit(repeats: int) -> Answer:
        seconds, criterion = [], math.nan
        for _ in range(repeats):
            start = time.perf_counter()
            results = engine.run(case, ("criterion",))
            seconds.append(time.perf_counter() - start)
            if results.status != "ok" or "criterion" not in results.values:
                raise RuntimeError(f"{results.status}: {results.message or 'no criterion'}")
            criterion = float(results.values["criterion"].values[0])
        return Answer(float(np.median(seconds)), criterion, None)

    return fit


def measure(
    problem: Problem, sides: Mapping[str, Side], rows: int, rounds: int, seed: int = 0
) -> list[Entry]:
    """Times of all sides of one problem, ``mmcore`` among them; others as ratios to it."""
    first, failed = _first_answers(sides)
    best = min((answer.criterion for answer in first.values()), default=math.nan)
    excess = {name: (a.criterion - best) / (1 + abs(best)) for name, a in first.items()}
    right = {name: sides[name] for name in first if excess[name] <= WORSE}
    long = sum(first[name].seconds for name in right) > LONG
    times = in_turns(
        {name: _one(side, repeats_for(first[name].seconds)) for name, side in right.items()},
        max(1, rounds // 3) if long else rounds,
    )
    rng = np.random.default_rng(seed)
    ratios = {
        name: ratio(seconds, times["mmcore"], rng, 0.95)
        for name, seconds in times.items()
        if name != "mmcore" and "mmcore" in times
    }
    blank = {
        name: Entry(problem.name, problem.size, name, rows, problem.aim, message=failed.get(name, ""))
        for name in sides
    }
    answered = {
        name: replace(
            blank[name], evaluations=answer.evaluations, criterion=answer.criterion, excess=excess[name],
            seconds=float(np.median(times[name])) if name in times else None, ratio=ratios.get(name),
            message="" if name in times else f"criterion {excess[name]:.1e} above the best: no time is shown",
        )
        for name, answer in first.items()
    }  # fmt: skip
    return [answered.get(name, blank[name]) for name in sides]


def _first_answers(sides: Mapping[str, Side]) -> tuple[dict[str, Answer], dict[str, str]]:
    """Answers of a second fit (the first pays for loading, compiling, caches), and why others have none."""
    first: dict[str, Answer] = {}
    failed: dict[str, str] = {}
    for name, side in sides.items():
        try:
            side(1)
            first[name] = side(1)
        except Exception as error:  # the barrier: an engine is code of others
            failed[name] = str(error) or type(error).__name__
    return first, failed


def _one(side: Side, repeats: int) -> Callable[[], float]:
    return lambda: side(repeats).seconds


def judged(problem: Problem, engine: Engine, references: Sequence[Engine]) -> tuple[float | None, str]:
    """Fewest digits of an engine's own optimum against the first reference that has the model, and its name."""
    case = next((c for c in load_cases() if c.name == problem.reference), None)
    for reference in references if case is not None else ():
        report = compare([case], engine, [reference], lanes=["optimum"], quantities=JUDGED)  # type: ignore[list-item]
        digits = [row.digits for row in report.rows if row.quantity in JUDGED and row.digits is not None]
        if digits:
            return min(digits), reference.name
    return None, ""


def markdown(entries: Sequence[Entry]) -> str:
    """The speed table: one line per side and problem."""
    lines = [
        "| problem | rows | engine | ms | times mmcore's | 95 % interval | aim | evaluations | peak MB | digits |"
        " remark |",
        "|---|---:|---|---:|---:|---|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*lines, *map(_line, entries)]) + "\n"


def _line(e: Entry) -> str:
    between = "" if e.ratio is None else f"{e.ratio.low:.1f} to {e.ratio.high:.1f}"
    cells = (
        e.problem, f"{e.rows:,}", e.engine, told(e.seconds, "{:.2f}", 1e3),
        "" if e.ratio is None else f"{e.ratio.value:.1f}", between,
        f"{e.aim:g}" if e.engine == "lme4" else "", told(e.evaluations, "{:d}"), told(e.peak_mb, "{:.0f}"),
        told(e.digits, "{:.1f}"), e.message,
    )  # fmt: skip
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"


def told(value: float | None, form: str, times: float = 1) -> str:
    """A number in a table, or nothing."""
    return "" if value is None else form.format(value * times)


def milliseconds(seconds: float | None) -> str:
    """A time in milliseconds with three digits, never with an exponent."""
    ms = 1e3 * (seconds or 0.0)
    return "" if seconds is None else f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def curve(kind: str, workers: Workers | None, rounds: int, limit: float = 30.0) -> Iterator[Point]:
    """Times at growing sizes, mmcore and, where there is R, lme4; a side that needs more than `limit` seconds
    for one fit is not asked at larger sizes."""
    slow: set[str] = set()
    for size, problem in scaling(kind):
        data = problem.data()
        sides: dict[str, Side] = {"mmcore": mmcore_side(problem, data)}
        if workers is not None:
            sides["lme4"] = lme4_side(lme4_request(problem, data), workers)
        sides = {name: side for name, side in sides.items() if name not in slow}
        for entry in measure(problem, sides, len(data), rounds):
            if entry.seconds is not None:
                yield Point(kind, size, entry.engine, entry.seconds, entry.evaluations)
                slow |= {entry.engine} if entry.seconds > limit else set()


def run(
    problems: Iterable[Problem], workers: Workers | None, rounds: int = 7, *,
    engines: Sequence[Engine] = (), judges: Mapping[str, Engine] | None = None,
    references: Sequence[Engine] = (), with_memory: bool = False,
) -> Iterator[list[Entry]]:  # fmt: skip
    """Problem by problem: mmcore, lme4 where there is R, and further engines.

    Parameters
    ----------
    engines : timed on the problems of the sizes `DENSE` whose data are shipped.
    judges : engine name -> engine that is asked for all of `JUDGED`, to count its digits.
    references : whose numbers are right, the surest first; without any no digits are counted.
    with_memory : whether to measure the peak memory of mmcore and lme4, a process each.
    """
    for problem in problems:
        data = problem.data()
        sides: dict[str, Side] = {"mmcore": mmcore_side(problem, data)}
        request = None if workers is None else lme4_request(problem, data)
        if workers is not None and request is not None:
            sides["lme4"] = lme4_side(request, workers)
        case = problem.case
        if case is not None and problem.size in DENSE:
            sides |= {engine.name: engine_side(engine, case) for engine in engines}
        entries = measure(problem, sides, len(data), rounds)
        for i, entry in enumerate(entries):
            engine = (judges or {}).get(entry.engine)
            if engine is not None:
                digits, judge = judged(problem, engine, references)
                entries[i] = replace(entry, digits=digits, judge=judge)
            if with_memory and entry.seconds is not None:
                entries[i] = replace(entries[i], peak_mb=_peak(entry.engine, problem, request))
        yield entries


def _peak(engine: str, problem: Problem, request: Mapping[str, Any] | None) -> float | None:
    if engine == "mmcore":
        return memory.of_mmcore(problem)
    if engine != "lme4" or request is None:
        return None
    from parity.r.worker import RWorkers

    with RWorkers(timeout=1800.0) as fresh:
        return memory.of_lme4(request, fresh)
