"""What reports of several engines say, as rows of tables: side by side, worst, where R is wrong, what is untested."""

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from parity.compare.judge import WHOLE_MODEL, Row, failures
from parity.compare.run import Report
from parity.compare.words import brief, digits_text, exact, where
from parity.publish.report.page import CELL, LETTER, STEPS, Cell, Panel, untested
from parity.schema.known import Known
from parity.schema.quantities import REGISTRY
from parity.schema.verdicts import Verdict

WORST = 10  # per engine
STATES = {0: "agrees", 1: "differs", 3: "could not be told"}
CORE = ("criterion", "fixef", "se_fixef", "sigma", "varcorr", "ranef", "fitted")  # what most engines have
R_ENGINES = ("lme4", "nlme", "glmmTMB", "hlmdiag")


@dataclass(frozen=True, slots=True)
class EngineLine:
    """One engine, all its cases."""

    name: str
    version: str
    state: str  # a key of the style sheet: agree | differ | unknown
    verdict: str
    agree: int
    judged: int
    broken: int
    unsupported: int
    cases: int  # in which something was judged
    fewest: str
    middle: str
    page: str  # file name of its own page


@dataclass(frozen=True, slots=True)
class Worst:
    """One comparison, and the command that makes it again."""

    engine: str
    where: str
    verdict: str
    error: str
    gate: str
    digits: str
    message: str
    command: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that R gets wrong, with evidence."""

    what: str
    verdict: str
    reason: str
    evidence: str


def page_name(engine: str) -> str:
    """File name of an engine's page: letters, digits, dash and dot only."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "-" for c in engine)
    return f"engine-{safe.strip('.') or 'unnamed'}.html"


def side_by_side(reports: Sequence[Report]) -> list[EngineLine]:
    """One line per report."""
    return [_line(report) for report in reports]


def _line(report: Report) -> EngineLine:
    outcomes = Counter(row.outcome for row in report.rows)
    digits = [row.digits for row in report.rows if row.digits is not None and row.lane == "optimum"]
    judged = {row.case for row in report.rows if row.outcome in ("pass", "fail")}
    return EngineLine(
        name=report.engine, version=report.engine_version,
        state={0: "agree", 1: "differ", 3: "unknown"}[report.exit_code], verdict=STATES[report.exit_code],
        agree=outcomes["pass"], judged=outcomes["pass"] + outcomes["fail"],
        broken=outcomes["infrastructure"], unsupported=report.counts.get(Verdict.UNSUPPORTED, 0),
        cases=len(judged), fewest=digits_text(min(digits, default=None)),
        middle=digits_text(median(digits) if digits else None), page=page_name(report.engine),
    )  # fmt: skip


def engines_panel(reports: Sequence[Report]) -> Panel:
    """A heat map of case and engine: fewest digits of the quantities that most engines have, at the optimum."""
    cases = list(dict.fromkeys(item.case.name for report in reports for item in report.cases))
    names = [report.engine for report in reports]
    left, longest = 8 + LETTER * max(map(len, cases), default=1), LETTER * max(map(len, names), default=1)
    top = 10 + 0.87 * longest
    return Panel(
        title="Engines, at their own optimum",
        width=left + CELL * len(names) + 0.5 * longest, height=top + CELL * len(cases) + 4, left=left, top=top,
        cases=tuple((top + CELL * (i + 0.7), name) for i, name in enumerate(cases)),
        quantities=tuple((left + CELL * (j + 0.6), name) for j, name in enumerate(names)),
        cells=tuple(
            _engine_cell(report, case, left + CELL * j, top + CELL * i)
            for i, case in enumerate(cases)
            for j, report in enumerate(reports)
        ),
    )  # fmt: skip


def _engine_cell(report: Report, case: str, x: float, y: float) -> Cell:
    asked = (*CORE, WHOLE_MODEL)
    rows = [r for r in report.rows if r.case == case and r.lane == "optimum" and r.quantity in asked]
    outcomes = {row.outcome for row in rows}
    digits = min((row.digits for row in rows if row.digits is not None), default=None)
    text = "" if digits is None else str(int(digits))
    said = Counter(str(row.verdict) for row in rows)
    title = f"{case}, {report.engine}: " + (
        ", ".join(f"{n} {v}" for v, n in said.items()) + (f"; {digits_text(digits)} digits" if text else "")
        if rows
        else "not compared"
    )
    if "fail" in outcomes:
        return Cell(x, y, "fail", text or "x", title)
    if "infrastructure" in outcomes:
        return Cell(x, y, "broken", "!", title)
    if "pass" not in outcomes:
        return Cell(x, y, "none", "", title)
    step = "plain" if digits is None else f"d{sum(digits >= bound for bound in STEPS)}"
    return Cell(x, y, step, text, title)


def worst(report: Report) -> list[Worst]:
    """The differences of an engine, and if there are none the comparisons nearest to their gates."""
    rows = sorted(failures(report.rows), key=_excess, reverse=True)[:WORST]
    if not rows:
        measured = [row for row in report.rows if row.error is not None and row.gate]
        rows = sorted(measured, key=_excess, reverse=True)[:WORST]
    return [
        Worst(
            report.engine, where(row), str(row.verdict), brief(row.error), brief(row.gate),
            digits_text(row.digits), row.message, replay(report, row),
        )
        for row in rows
    ]  # fmt: skip


def _excess(row: Row) -> float:
    if row.error is None or not row.gate:
        return math.inf
    return row.error / row.gate if math.isfinite(row.error) else math.inf


def replay(report: Report, row: Row) -> str:
    """The command that makes one comparison again."""
    reference = (
        "recorded:" + row.reference.partition(":")[2]
        if row.reference.startswith("recorded:")
        else row.reference
    )
    parts = [
        "parity",
        "run",
        row.case,
        "--engine",
        report.engine,
        "--reference",
        reference,
        "--lane",
        row.lane,
    ]
    if row.quantity in REGISTRY:
        parts += ["--quantity", row.quantity]
    return shlex.join(parts)


def faults(reports: Sequence[Report], known: Sequence[Known]) -> list[Fault]:
    """Where R is wrong: listed with evidence, and found in these reports.

    Found are: optima of the engine that R's own criterion confirms to be better than the reference's, and engines of R
    at default settings that end at a worse optimum than the polished reference.
    """
    listed = [
        Fault(
            f"{entry.case} / {entry.quantity} against {entry.reference}",
            entry.verdict,
            entry.reason,
            entry.evidence,
        )
        for entry in known
        if entry.verdict == "reference_wrong"
    ]
    return listed + [fault for report in reports for fault in _found(report)]


def _found(report: Report) -> list[Fault]:
    out = []
    for row in report.rows:
        theirs = report.engine in R_ENGINES
        if row.verdict == Verdict.BETTER_THAN_REFERENCE and row.quantity == "criterion" and not theirs:
            who, reason = row.reference, f"{report.engine} finds a better optimum"
        elif row.verdict == Verdict.WORSE_THAN_REFERENCE and row.quantity == "criterion" and theirs:
            who, reason = report.engine, "its default settings stop at a worse optimum"
        else:
            continue
        values = f"criterion {exact(row.got)} ({report.engine}) and {exact(row.want)} ({row.reference})"
        evidence = f"{values}; {row.message}"
        out.append(Fault(f"{row.case}: {who}", str(row.verdict), reason, evidence.rstrip("; ")))
    return out


def silent(reports: Sequence[Report]) -> list[tuple[str, str, str, int]]:
    """What the reports say nothing about: engine, verdict, reason, number of comparisons."""
    return [(report.engine, *line) for report in reports for line in untested(report)]
