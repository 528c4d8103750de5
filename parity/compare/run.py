"""The one loop: case by case through engine and reference, and the report that all views are made from.

Each case stands behind a barrier: what fails there is a verdict of that case, never the end of the run.
Ctrl-C keeps what was done so far.
"""

import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from itertools import islice
from typing import Any

import numpy as np

from parity.compare.causes import Cause, causes
from parity.compare.distance import YARDSTICKS
from parity.compare.judge import Pair, Row, apply_known, compare, optima_differ
from parity.compare.variants import explained
from parity.schema.case import Case
from parity.schema.engine import Engine, lacking, point
from parity.schema.known import Known
from parity.schema.policy import Policy, default_policy
from parity.schema.quantities import NAMES, REGISTRY, Lane, of_kind
from parity.schema.results import Results
from parity.schema.verdicts import Verdict

EXIT_AGREE, EXIT_DIFFERENCE, EXIT_USAGE, EXIT_INFRASTRUCTURE = 0, 1, 2, 3

INTERRUPTED = "interrupted from the keyboard; this report covers the cases done until then"

REPORT_SCHEMA = 2  # 2: causes, first_line; cause, relation and trace of a row


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of one case, both sides; shown only where the answers agreed."""

    case: str
    engine_seconds: float | None  # own optimum where that lane ran, else at a given theta
    reference_seconds: float | None  # of the first reference


@dataclass(frozen=True, slots=True)
class CaseReport:
    """All verdicts of one case."""

    case: Case
    rows: tuple[Row, ...]
    timing: Timing
    theta: tuple[float, ...] = ()  # where lane at_theta is evaluated: optimum of the first reference
    printed: str = ""  # what the engine printed meanwhile, if it is isolated


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run: rows, and enough about where they come from to repeat it."""

    engine: str
    engine_version: str
    references: tuple[tuple[str, str], ...]  # name and version of each
    lanes: tuple[Lane, ...]
    rows: tuple[Row, ...]
    cases: tuple[CaseReport, ...]
    not_run: tuple[str, ...] = ()  # names of cases that an interruption left out
    notes: tuple[str, ...] = ()  # said aloud: fallbacks, warnings of the run itself
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()  # names of cases that were not begun within the time that was given

    @property
    def counts(self) -> dict[Verdict, int]:
        """How often each verdict was given, in the order of the closed set."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in Verdict if found[verdict]}

    @property
    def exit_code(self) -> int:
        """0 all agree, 1 a difference, 3 it could not be told (infrastructure, interrupted, nothing
        compared)."""
        outcomes = Counter(row.outcome for row in self.rows)
        if outcomes["fail"]:
            return EXIT_DIFFERENCE
        if outcomes["infrastructure"] or self.not_run or not outcomes["pass"]:
            return EXIT_INFRASTRUCTURE
        return EXIT_AGREE

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The differences grouped by cause, the cause that explains most first."""
        return causes(self.rows)

    @property
    def first_line(self) -> str:
        """What a reader needs first: the main cause of the differences, or that there is none."""
        found = self.causes
        if not found:
            return "; ".join([self.headline, *self._remarks()])
        more = (
            f" (and {len(found) - 1} more causes)"
            if len(found) > 2
            else " (and one more cause)" * (len(found) - 1)
        )
        return found[0].line + more

    def _remarks(self) -> Iterator[str]:
        """What is worth a word though no number is wrong."""
        printed = [item for item in self.cases if item.printed]
        if printed:
            first = printed[0].printed.strip().splitlines()[0][:60]
            yield f"the engine printed in {len(printed)} cases, which was kept out of the report (first: {first!r})"
        if self.left_out:
            yield f"{len(self.left_out)} larger cases were left out for time"

    @property
    def headline(self) -> str:
        """One sentence: the verdict of the run."""
        outcomes = Counter(row.outcome for row in self.rows)
        judged = outcomes["pass"] + outcomes["fail"]
        if not judged and not outcomes["infrastructure"]:
            return "nothing was compared: that is not success"
        parts = [f"{outcomes['pass']} of {judged} comparisons agree"]
        if outcomes["fail"]:
            parts.append(f"{outcomes['fail']} differ")
        if outcomes["infrastructure"]:
            parts.append(f"{outcomes['infrastructure']} could not be made")
        if self.not_run:
            parts.append(f"interrupted, {len(self.not_run)} cases not run")
        return ", ".join(parts)


Observer = Callable[[CaseReport], None]


def run(
    cases: Sequence[Case],
    engine: Engine,
    references: Sequence[Engine],
    *,
    lanes: Sequence[Lane] = ("at_theta", "optimum"),
    quantities: Sequence[str] = (),
    known: Sequence[Known] = (),
    policy: Policy | None = None,
    jobs: int = 1,
    notes: Sequence[str] = (),
    observer: Observer = lambda _: None,
    explainer: Engine | None = None,
    budget: float | None = None,
) -> Report:
    """Compare an engine with one or several references on some cases.

    Parameters
    ----------
    quantities : names of the registry; empty for all.
    jobs : cases in flight at once. Engines run in threads of this process; references in R have their own.
    observer : called with each case as it is done, in the order of completion, from this thread.
    explainer : an engine that is trusted to fit other models, so that "the weights are left out" can be told from
        other differences; None: not tried. It never changes a verdict.
    budget : seconds after which no further case is begun; None: no limit. What is left out is told, and no failure.

    Never raises for what a case does. `KeyboardInterrupt` ends the loop and gives the report so far.
    """
    one = partial(
        run_case, engine=engine, references=tuple(references), lanes=tuple(lanes),
        quantities=tuple(quantities), policy=policy or default_policy(), explainer=explainer,
    )  # fmt: skip
    start = time.perf_counter()
    done: dict[str, CaseReport] = {}
    try:
        with one_blas_thread():
            for report in _each(one, _within(cases, budget), jobs):
                done[report.case.name] = report
                observer(report)
    except KeyboardInterrupt:
        notes = (*notes, INTERRUPTED)
    interrupted = len(notes) and notes[-1] == INTERRUPTED
    missed = tuple(case.name for case in cases if case.name not in done)
    reports = tuple(done[case.name] for case in cases if case.name in done)
    rows = apply_known([row for report in reports for row in report.rows], known, engine.name)
    return Report(
        engine=engine.name, engine_version=engine.version,
        references=tuple((reference.name, reference.version) for reference in references),
        lanes=tuple(lanes), rows=rows, cases=_with_rows(reports, rows),
        not_run=missed if interrupted else (), left_out=() if interrupted else missed,
        notes=tuple(notes), environment=environment(), seconds=time.perf_counter() - start,
    )  # fmt: skip


def _within(cases: Sequence[Case], budget: float | None) -> Iterator[Case]:
    """The cases, as long as there is time to begin another one."""
    start = time.monotonic()
    for case in cases:
        if budget is not None and time.monotonic() - start > budget:
            return
        yield case


def run_case(
    case: Case,
    engine: Engine,
    references: tuple[Engine, ...],
    lanes: tuple[Lane, ...],
    quantities: tuple[str, ...],
    policy: Policy,
    explainer: Engine | None = None,
) -> CaseReport:
    """All references and lanes of one case; the engine's own optimum is found once."""
    wanted = _wanted(quantities)
    answers = [ask(reference, case, wanted) for reference in references]
    bench = _Bench(case, engine, _worth_asking(wanted, answers), wanted, quantities, policy)
    rows: list[Row] = []
    for reference, theirs in zip(references, answers, strict=True):
        for lane in lanes:
            pair = bench.pair(lane, reference, theirs)
            found = compare(pair)
            rows.extend(
                found if explainer is None else explained(pair, found, _at_the_same_point(explainer, pair))
            )
    first = answers[0] if answers else None
    where = point(case, first)
    theta = () if where is None else tuple(where.tolist())
    timing = Timing(case.name, bench.seconds, None if first is None else first.seconds)
    return CaseReport(case, tuple(rows), timing, theta, bench.printed)


def _at_the_same_point(explainer: Engine, pair: Pair) -> Callable[[Case], Results]:
    """Asks the explainer for another model, where the engine was asked for this one."""
    where = point(pair.case, pair.reference) if pair.lane == "at_theta" else None
    wanted = tuple(
        {*pair.engine.values, *YARDSTICKS} - {name for name, row in REGISTRY.items() if row.refits}
    )
    return lambda case: ask(explainer, case, wanted, where)


# The yardsticks of the measures, and what judges the optimum, are asked for whatever the user wants to see.
_ALWAYS = {
    "n_obs", "p_fixed", "q_random", "x_column_moments", "z_rows", "criterion", "theta", "lambda_crossprod", "fixef",
    "size", *YARDSTICKS,
}  # fmt: skip


def _wanted(quantities: Sequence[str]) -> tuple[str, ...]:
    return NAMES if not quantities else tuple(n for n in NAMES if n in quantities or n in _ALWAYS)


def _worth_asking(wanted: tuple[str, ...], answers: Sequence[Results]) -> tuple[str, ...]:
    """What the engine is asked for: quantities that need refits only where a reference did not skip them."""
    answers = [answer for answer in answers if answer.status == "ok"]

    def held(name: str) -> bool:
        absent = (answer.missing.get(name) for answer in answers if name not in answer.values)
        return any(name in answer.values for answer in answers) or any(
            why is None or why.kind not in ("skipped", "unsupported") for why in absent
        )

    return tuple(name for name in wanted if not REGISTRY[name].refits or held(name))


class _Bench:
    """One case on the bench: asks both sides, and keeps the engine's own optimum for all references."""

    def __init__(
        self,
        case: Case,
        engine: Engine,
        asked: tuple[str, ...],
        wanted: tuple[str, ...],
        shown: tuple[str, ...],
        policy: Policy,
    ) -> None:
        self.case, self.engine, self.policy = case, engine, policy
        self.asked, self.wanted, self.shown = asked, wanted, shown  # of the engine, of references, in the end
        self._own: Results | None = None
        self._at_theta: Results | None = None

    @property
    def seconds(self) -> float | None:
        """Wall time of the engine at its own optimum, or at a given theta if that is all that was asked."""
        asked = self._own or self._at_theta
        return None if asked is None else asked.seconds

    @property
    def printed(self) -> str:
        """What the engine printed, where it said so."""
        answers = (self._at_theta, self._own)
        return "".join(str(answer.provenance.get("printed", "")) for answer in answers if answer is not None)

    def pair(self, lane: Lane, reference: Engine, theirs: Results) -> Pair:
        """Both answers in a lane. The engine is not asked where the reference has nothing to compare
        with."""
        lacks = lacking(self.engine, self.case, lane)
        refuse = self.case.expect == "refuse"
        if lane == "default" and not refuse:
            theirs = _ask_default(reference, self.case, self.wanted)
        if lacks or (theirs.status != "ok" and not refuse):
            ours = Results(self.engine.name, self.engine.version, "unsupported", "not asked")
            return self._pair(lane, ours, theirs, lacks=lacks)
        if lane == "at_theta" and not refuse:
            return self._pair_at_theta(theirs)
        ours = self._own_optimum()
        return self._pair(lane, ours, theirs, witness=self._witness(reference, ours, theirs))

    def _pair(self, lane: Lane, ours: Results, theirs: Results, **more: Any) -> Pair:
        return Pair(
            self.case, lane, ours, theirs, self.policy, self.shown, claims=self.engine.capabilities, **more
        )

    def _pair_at_theta(self, theirs: Results) -> Pair:
        where = point(self.case, theirs)
        if self.case.kind in ("lm", "glm"):
            ours = Results(self.engine.name, self.engine.version)
        elif where is None:
            theirs = replace(theirs, status="error", message="gave no theta to evaluate the engine at")
            ours = Results(self.engine.name, self.engine.version, "unsupported", "not asked")
        else:
            ours = self._at_theta = ask(self.engine, self.case, self.asked, where)
        return self._pair("at_theta", ours, theirs)

    def _own_optimum(self) -> Results:
        if self._own is None and self._at_theta is not None and self._at_theta.status == "timeout":
            self._own = self._at_theta  # a case that hangs costs its limit once
        if self._own is None:
            self._own = ask(self.engine, self.case, self.asked)
        return self._own

    def _witness(self, reference: Engine, ours: Results, theirs: Results) -> Results | None:
        """The reference at the engine's theta, when the optima differ and it can be asked."""
        if "at_theta" not in reference.capabilities or not optima_differ(ours, theirs, self.policy):
            return None
        here, there = point(self.case, ours), point(self.case, theirs)
        if here is None or there is None or len(here) != len(there):
            return None
        witness = ask(reference, self.case, self.wanted, here)
        return witness if witness.status == "ok" else None


def _ask_default(reference: Engine, case: Case, wanted: tuple[str, ...]) -> Results:
    if "default" not in reference.capabilities:
        message = "does not hold fits at default settings"
        return Results(reference.name, reference.version, "unsupported", message)
    return ask(reference, case, wanted, polish=False)


def ask(
    engine: Engine, case: Case, wanted: tuple[str, ...], theta: np.ndarray | None = None, **options: bool
) -> Results:
    """`engine.run` behind a barrier: whatever it raises, or returns instead of results, is an error of this
    case."""
    start = time.perf_counter()
    try:
        results: object = engine.run(case, of_kind(case.kind, wanted), theta, **options)
    except Exception as error:  # the barrier: an engine is code of others
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        trace = "".join(traceback.format_exception(error))
        return Results(engine.name, engine.version, "error", message, provenance={"traceback": trace})
    if not isinstance(results, Results):
        message = f"`run` returned {type(results).__name__}, not Results"
        return Results(engine.name, engine.version, "error", message)
    return results if results.seconds is not None else replace(results, seconds=time.perf_counter() - start)


def _each(one: Callable[[Case], CaseReport], cases: Iterable[Case], jobs: int) -> Iterator[CaseReport]:
    if jobs <= 1:
        yield from map(one, cases)
        return
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        coming = iter(cases)
        waiting: set[Future[CaseReport]] = {pool.submit(one, case) for case in islice(coming, jobs)}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {pool.submit(one, case) for case in islice(coming, len(finished))}
            for future in finished:
                yield future.result()
    except KeyboardInterrupt:  # what is done is kept
        yield from (future.result() for future in waiting if future.done() and not future.cancelled())
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _with_rows(reports: Sequence[CaseReport], rows: Sequence[Row]) -> tuple[CaseReport, ...]:
    return tuple(
        replace(report, rows=tuple(row for row in rows if row.case == report.case.name)) for report in reports
    )


def environment() -> dict[str, str]:
    """Versions and machine, for the report."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in ("mmparity", "numpy", "scipy", "pandas", "rpy2"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def one_blas_thread() -> Any:
    """A context in which BLAS uses one thread in this process.

    Sums keep their order, so that what is compared is repeatable; and processes side by side do not wait for each
    other's threads, which made small models thirty times slower on two busy cores.
    """
    from threadpoolctl import threadpool_limits  # not above: the command line should start without it

    return threadpool_limits(1, user_api="blas")
