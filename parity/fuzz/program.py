"""The fuzzer as a program: choose the two sides, explore classes in processes, write findings, run one again."""

import multiprocessing
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from parity.engines.closing import closing
from parity.engines.load import load
from parity.fuzz.bundle import REGRESSIONS, find_case, write_bundle, write_case
from parity.fuzz.explore import (
    ClassReport,
    Finding,
    Plan,
    asked_theta,
    checked_classes,
    fuzz,
    judge_case,
    quota,
)
from parity.fuzz.properties import measures
from parity.schema.engine import Engine, EngineUnavailable

Echo = Callable[[str], None]


def reference_of(name: str) -> tuple[Engine | None, str]:
    """The reference of a word, and what has to be said about the choice.

    Raises
    ------
    EngineError, EngineUnavailable
        if it is not there.
    """
    if name == "none":
        return None, "no reference: only statements that need none"
    if name != "default":
        return load(name), ""
    try:
        return load("live"), ""
    except EngineUnavailable as error:
        return load(
            "first-principles"
        ), f"live R is not here ({error}); compared with first principles instead"


def arbiter_for(reference: Engine | None) -> Engine | None:
    """Ball arithmetic, to say who is right; None where it is the reference itself, or not installed."""
    if reference is None or reference.name == "first-principles":
        return None
    try:
        return load("first-principles")
    except EngineUnavailable:
        return None


def run_fuzz(
    *,
    engine_name: str,
    reference_name: str,
    examples: int,
    seed: int | None,
    classes: tuple[str, ...],
    properties: bool,
    derandomize: bool,
    jobs: int,
    out: Path,
    keep: bool,
    echo: Echo,
) -> int:
    """Explore and report; the exit code.

    Raises
    ------
    EngineError, FuzzError
        for a side or a class that does not exist.
    """
    chosen = checked_classes(classes)
    reference, said = reference_of(reference_name)
    engine = load(engine_name)
    drawn = secrets.randbelow(10**6) if seed is None else seed
    arbiter = arbiter_for(reference)
    plan = Plan(engine, reference, quota(examples, chosen), drawn, properties, derandomize, arbiter=arbiter)
    against = "statements alone" if reference is None else reference.name
    echo(
        f"{engine.name} against {against}: {plan.examples} models in each of {len(chosen)} classes, seed {drawn}"
    )
    if said:
        echo(f"note: {said}")
    reports = []
    with closing([engine, *([reference] if reference else [])]):
        explored = (
            _together(plan, chosen, engine_name, reference_name, jobs) if jobs > 1 else fuzz(plan, chosen)
        )
        for report in explored:
            reports.append(report)
            echo(line_of(report))
            for finding in report.findings:
                _write(finding, plan, out, keep, echo)
    return _exit_code(reports, plan, echo)


def _together(
    plan: Plan, classes: tuple[str, ...], engine: str, reference: str, jobs: int
) -> Iterator[ClassReport]:
    """Classes in processes, each with its own engines."""
    settings = (plan.examples, plan.seed, plan.properties, plan.derandomize)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_one_class, engine, reference, settings), classes)


def _one_class(engine: str, reference: str, settings: tuple[int, int, bool, bool], name: str) -> ClassReport:
    sides = load(engine), reference_of(reference)[0]
    with closing([side for side in sides if side is not None]):
        plan = Plan(sides[0], sides[1], *settings, arbiter=arbiter_for(sides[1]))
        return next(fuzz(plan, [name]))


def line_of(report: ClassReport) -> str:
    """One class in one line."""
    odd = {k: n for k, n in report.verdicts.items() if k not in ("agree", "unsupported")}
    said = ", ".join(f"{number} {verdict}" for verdict, number in sorted(odd.items()))
    parts = [f"{report.name:<20} {report.examples:>4} models", f"nearest to a gate {report.most:.1e}"]
    parts += [f"{report.not_judged} not judged"] if report.not_judged else []
    parts += [f"{report.flat} on a flat criterion"] if report.flat else []
    return ", ".join([*parts, *([said] if said else [])])


def _write(finding: Finding, plan: Plan, out: Path, keep: bool, echo: Echo) -> None:
    case = finding.case
    folder = write_bundle(
        case,
        finding.rows,
        finding.broken,
        plan.engine,
        plan.reference,
        asked_theta(case),
        measures(case.kind),
        out,
    )
    echo(f"  FOUND {finding.text}")
    echo(f"        {case.formula}   {case.note}")
    echo(f"        parity replay {case.name}   ({folder}: data, both answers, show.R, show.py)")
    if keep:
        echo(f"        kept as {write_case(case, REGRESSIONS)}")


def _exit_code(reports: list[ClassReport], plan: Plan, echo: Echo) -> int:
    models = sum(report.examples for report in reports)
    findings = sum(len(report.findings) for report in reports)
    short = [report.name for report in reports if report.examples - report.not_judged == 0 and plan.reference]
    judged = models - sum(report.not_judged for report in reports)
    echo(f"{models} models, {judged} judged, {findings} findings")
    if findings:
        return 1
    if short:
        echo(f"nothing was judged in {', '.join(short)}: that is not success")
        return 3
    return 0


def run_replay(wanted: str, engine_name: str, reference_name: str, *, echo: Echo) -> int:
    """One case again, with all its verdicts; the exit code.

    Raises
    ------
    CaseError, EngineError
        if there is no such case or side.
    """
    case = find_case(wanted)
    reference, said = reference_of(reference_name)
    engine = load(engine_name)
    if said:
        echo(f"note: {said}")
    with closing([engine, *([reference] if reference else [])]):
        judged = judge_case(Plan(engine, reference, 1, arbiter=arbiter_for(reference)), case)
    echo(f"{case.name}: {case.formula}   {case.note}")
    counts: dict[str, int] = {}
    for row in judged.rows:
        counts[str(row.verdict)] = counts.get(str(row.verdict), 0) + 1
    echo(", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items())))
    if judged.flat:
        echo(
            f"{judged.flat} of them on a flat criterion: each side stopped elsewhere on it, and that is no finding"
        )
    for row in judged.rows:
        if row.outcome in ("fail", "infrastructure"):
            values = f"{row.got!r} against {row.want!r}" if row.got is not None else ""
            echo(f"  {row.lane} / {row.quantity}[{row.label}]: {row.verdict} {values} {row.message}".rstrip())
    for statement in judged.finding.broken if judged.finding else ():
        echo(f"  {statement}")
    if judged.finding is not None:
        return 1
    return 0 if judged.answered or reference is None else 3
