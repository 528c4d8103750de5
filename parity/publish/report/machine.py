"""The report for programs: JSON with a schema version, and JUnit XML."""

import math
import re
from dataclasses import fields
from typing import Any
from xml.etree import ElementTree

import msgspec

from parity.compare.judge import Row
from parity.compare.run import REPORT_SCHEMA, Report
from parity.publish.report.text import failure_text


def to_json(report: Report) -> str:
    """The whole report; the numbers that JSON lacks are the strings "NaN", "Inf" and "-Inf"."""
    content = {
        "schema": REPORT_SCHEMA,
        "headline": report.headline,
        "exit_code": report.exit_code,
        "engine": {"name": report.engine, "version": report.engine_version},
        "references": [{"name": name, "version": version} for name, version in report.references],
        "lanes": list(report.lanes),
        "counts": {str(verdict): number for verdict, number in report.counts.items()},
        "notes": list(report.notes),
        "not_run": list(report.not_run),
        "environment": report.environment,
        "seconds": report.seconds,
        "cases": [
            {
                "name": item.case.name,
                "id": item.case.id,
                "case": msgspec.to_builtins(item.case),
                "theta": [_number(x) for x in item.theta],
                "seconds": _seconds(report, item.case.name),
            }
            for item in report.cases
        ],
        "rows": [_row(row) for row in report.rows],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"


def to_junit(report: Report) -> str:
    """JUnit XML: one suite per case, one test per comparison."""
    root = ElementTree.Element("testsuites", name=_xml(f"parity {report.engine}"))
    for item in report.cases:
        rows = item.rows
        count = {key: str(sum(row.outcome == key for row in rows)) for key in _JUNIT}
        suite = ElementTree.SubElement(
            root, "testsuite", name=_xml(item.case.name), tests=str(len(rows)), failures=count["fail"],
            errors=count["infrastructure"], skipped=count["neutral"],
        )  # fmt: skip
        for row in rows:
            _test(suite, report, row)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


_JUNIT = {"fail": "failure", "infrastructure": "error", "neutral": "skipped"}


def _test(suite: ElementTree.Element, report: Report, row: Row) -> None:
    test = ElementTree.SubElement(
        suite, "testcase", classname=_xml(f"{row.case}.{row.reference}.{row.lane}"), name=_xml(row.quantity)
    )
    properties = ElementTree.SubElement(test, "properties")
    for name in ("verdict", "digits", "lre", "error", "gate"):
        value = getattr(row, name)
        if value is not None:
            ElementTree.SubElement(properties, "property", name=name, value=str(value))
    if row.outcome in _JUNIT:
        message = _xml(row.message or row.verdict.meaning)
        node = ElementTree.SubElement(test, _JUNIT[row.outcome], message=f"{row.verdict}: {message}")
        if row.outcome == "fail":
            node.text = _xml(failure_text(report, row))


def _seconds(report: Report, case: str) -> dict[str, float | None] | None:
    """Timings of a case whose answer agreed; None otherwise."""
    item = next(item for item in report.cases if item.case.name == case)
    outcomes = {row.outcome for row in item.rows}
    if "pass" not in outcomes or outcomes & {"fail", "infrastructure"}:
        return None
    return {"engine": item.timing.engine_seconds, "reference": item.timing.reference_seconds}


def _row(row: Row) -> dict[str, Any]:
    content = {field.name: getattr(row, field.name) for field in fields(row)}
    content["verdict"] = str(row.verdict)
    content["outcome"] = row.outcome
    return {key: _number(value) if isinstance(value, float) else value for key, value in content.items()}


def _number(x: float) -> float | str:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Inf" if x > 0 else "-Inf"


_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold in any form."""
    return _NOT_XML.sub("\ufffd", text)
