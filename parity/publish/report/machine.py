"""The report for programs: JSON with a schema version, and JUnit XML."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal
from xml.etree import ElementTree

import msgspec

from parity.compare.causes import Cause
from parity.compare.judge import Row
from parity.compare.run import REPORT_SCHEMA, Report
from parity.publish.report.text import failure_text
from parity.schema.case import Case
from parity.schema.quantities import Lane
from parity.schema.verdicts import Outcome, Verdict

Number = float | Literal["NaN", "Inf", "-Inf"]  # JSON lacks these three


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine or a reference."""

    name: str
    version: str


class CauseRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some rows have in common; `rows` counts from zero in the rows of the report."""

    line: str
    text: str
    explained: bool  # false: the rest, for which no relation was found
    verdicts: tuple[str, ...]
    quantities: tuple[str, ...]
    cases: tuple[str, ...]
    lanes: tuple[str, ...]
    rows: tuple[int, ...]
    traceback: str


class SecondsRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Wall time of both sides."""

    engine: float | None
    reference: float | None


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A case and where it was evaluated."""

    name: str
    id: str
    case: Case
    theta: tuple[Number, ...]
    seconds: SecondsRecord | None  # null where the answers do not agree
    printed: str  # by the engine meanwhile


class RowRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One comparison: the fields of `parity.compare.judge.Row`, and its outcome."""

    case: str
    case_id: str
    reference: str
    lane: Lane
    quantity: str
    verdict: Literal[tuple(str(verdict) for verdict in Verdict)]  # type: ignore[valid-type]
    outcome: Outcome
    label: str
    got: Number | None
    want: Number | None
    error: Number | None
    gate: Number | None
    measure: str
    why: str
    digits: Number | None
    lre: Number | None
    compared: int
    deviance_gap: Number | None
    message: str
    cause: str
    relation: str
    trace: str


class ReportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON report. The version in `schema` is raised when a field changes its meaning or goes."""

    schema: int
    first_line: str
    headline: str
    exit_code: Literal[0, 1, 3]
    engine: Named
    references: tuple[Named, ...]
    lanes: tuple[Lane, ...]
    counts: dict[str, int]
    causes: tuple[CauseRecord, ...]
    notes: tuple[str, ...]
    not_run: tuple[str, ...]  # an interruption left them out
    left_out: tuple[str, ...]  # larger than the time given allowed
    environment: dict[str, str]
    seconds: float
    cases: tuple[CaseRecord, ...]
    rows: tuple[RowRecord, ...]


def report_schema() -> dict[str, Any]:
    """The JSON Schema of the JSON report."""
    return msgspec.json.schema(ReportRecord)


def to_json(report: Report) -> str:
    """The whole report; the numbers that JSON lacks are the strings "NaN", "Inf" and "-Inf"."""
    place = {id(row): i for i, row in enumerate(report.rows)}
    content = ReportRecord(
        schema=REPORT_SCHEMA, first_line=report.first_line, headline=report.headline,
        exit_code=report.exit_code,  # type: ignore[arg-type]
        engine=Named(name=report.engine, version=report.engine_version),
        references=tuple(Named(name=name, version=version) for name, version in report.references),
        lanes=report.lanes, counts={str(verdict): number for verdict, number in report.counts.items()},
        causes=tuple(_cause(cause, place) for cause in report.causes),
        notes=report.notes, not_run=report.not_run, left_out=report.left_out,
        environment=report.environment, seconds=report.seconds,
        cases=tuple(
            CaseRecord(
                name=item.case.name, id=item.case.id, case=item.case,
                theta=tuple(_number(x) for x in item.theta), seconds=_seconds(report, item.case.name),
                printed=item.printed,
            )
            for item in report.cases
        ),
        rows=tuple(_row(row) for row in report.rows),
    )  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"


def _cause(cause: Cause, place: Mapping[int, int]) -> CauseRecord:
    return CauseRecord(
        line=cause.line, text=cause.text, explained=cause.explained,
        verdicts=tuple(map(str, cause.verdicts)), quantities=cause.quantities, cases=cause.cases,
        lanes=cause.lanes, rows=tuple(place[id(row)] for row in cause.rows), traceback=cause.trace,
    )  # fmt: skip


def to_junit(report: Report) -> str:
    """JUnit XML: one suite per case, one test per comparison, totals and times.

    A call that failed, crashed or ran out of time is an `error`, a number outside its gate a `failure`.
    """
    root = ElementTree.Element("testsuites", name=_xml(f"parity {report.engine}"))
    total: Counter[str] = Counter()
    for item in report.cases:
        count = Counter(_kind(row) for row in item.rows)
        total += count
        seconds = sum(filter(None, (item.timing.engine_seconds, item.timing.reference_seconds)))
        suite = ElementTree.SubElement(root, "testsuite", name=_xml(item.case.name))
        for key, value in _totals(count, seconds).items():
            suite.set(key, value)
        share = seconds / max(1, len(item.rows))
        for row in item.rows:
            _test(suite, report, row, share)
    for key, value in _totals(total, report.seconds).items():
        root.set(key, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _totals(count: Counter[str], seconds: float) -> dict[str, str]:
    return {
        "tests": str(count.total()), "failures": str(count["failure"]), "errors": str(count["error"]),
        "skipped": str(count["skipped"]), "time": f"{seconds:.3f}",
    }  # fmt: skip


def _kind(row: Row) -> str:
    """failure, error, skipped or "" (passed)."""
    if row.outcome == "infrastructure" or row.verdict is Verdict.ENGINE_ERROR:
        return "error"
    return {"fail": "failure", "neutral": "skipped"}.get(row.outcome, "")


def _test(suite: ElementTree.Element, report: Report, row: Row, seconds: float) -> None:
    test = ElementTree.SubElement(
        suite, "testcase", classname=_xml(f"{row.case}.{row.reference}.{row.lane}"), name=_xml(row.quantity),
        time=f"{seconds:.3f}",
    )  # fmt: skip
    properties = ElementTree.SubElement(test, "properties")
    for name in ("verdict", "digits", "lre", "error", "gate"):
        value = getattr(row, name)
        if value is not None:
            ElementTree.SubElement(properties, "property", name=name, value=str(value))
    kind = _kind(row)
    if kind:
        message = _xml(row.relation or row.message or row.verdict.meaning)
        node = ElementTree.SubElement(test, kind, message=f"{row.verdict}: {message}")
        if row.outcome == "fail":
            node.text = _xml(row.trace or failure_text(report, row))


def _seconds(report: Report, case: str) -> SecondsRecord | None:
    """Timings of a case whose answer agreed; None otherwise."""
    item = next(item for item in report.cases if item.case.name == case)
    outcomes = {row.outcome for row in item.rows}
    if "pass" not in outcomes or outcomes & {"fail", "infrastructure"}:
        return None
    return SecondsRecord(engine=item.timing.engine_seconds, reference=item.timing.reference_seconds)


def _row(row: Row) -> RowRecord:
    content: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(row)}
    content |= {"verdict": str(row.verdict), "outcome": row.outcome}
    numbers: dict[str, Any] = {name: _number(x) for name, x in content.items() if isinstance(x, float)}
    return RowRecord(**content | numbers)


def _number(x: float) -> Number:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Inf" if x > 0 else "-Inf"


_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold in any form."""
    return _NOT_XML.sub("\ufffd", text)
