"""The report as one HTML page that needs nothing else: no network, no script, light and dark, wide and
narrow.

Everything that comes from a case, an engine or a reference is escaped by the template engine; the heat map
is inline SVG drawn by the template from the numbers prepared here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from parity.compare.judge import WHOLE_MODEL, Row, failures
from parity.compare.run import CaseReport, Report
from parity.compare.words import brief, digits_text, where
from parity.publish.report.text import cause_text, failure_text
from parity.schema.policy import Policy, default_policy
from parity.schema.public_names import WITHOUT_REFERENCE
from parity.schema.quantities import MEASURES, REGISTRY, Group, Quantity

CELL = 17  # size of a heat-map cell, in SVG units
LETTER = 6.2  # width of a letter of a label, in SVG units
STEPS = (3, 5, 7, 9, 12)  # digits at which the colour changes
DETAILED = 200  # differences told completely

GROUPS: dict[Group, str] = {
    "design": "Design",
    "criterion": "Criterion and sigma",
    "fixed": "Fixed effects",
    "random": "Random effects",
    "residual": "Fitted values and residuals",
    "leverage": "Leverage",
    "influence": "Influence",
    "deletion": "Exact deletion (refits)",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One square of the heat map: a case and a quantity, over all lanes and references."""

    x: float
    y: float
    style: str  # CSS class: step of digits, or outcome
    text: str  # what stands in the square
    title: str  # what it tells when asked


@dataclass(frozen=True, slots=True)
class Panel:
    """The heat map of one group of quantities."""

    title: str
    width: float
    height: float
    left: float  # room for the names of the cases
    top: float  # room for the names of the quantities
    cases: tuple[tuple[float, str], ...]  # y, name
    quantities: tuple[tuple[float, str], ...]  # x, name
    cells: tuple[Cell, ...]


def to_html(report: Report, policy: Policy | None = None) -> str:
    """The page."""
    failed = failures(report.rows)
    return environment().get_template("page.html.j2").render(
        report=report,
        state={0: "agree", 1: "differ", 3: "unknown"}[report.exit_code],
        counts=[(verdict, number, verdict.meaning) for verdict, number in report.counts.items()],
        panels=panels(report),
        steps=STEPS,
        side=CELL,
        causes=[(len(cause.rows), cause.line, cause_text(cause)) for cause in report.causes],
        failed=[(where(row), row.verdict, failure_text(report, row)) for row in failed[:DETAILED]],
        more_failed=max(0, len(failed) - DETAILED),
        broken=[(where(r), r.verdict, r.message) for r in report.rows if r.outcome == "infrastructure"],
        cases=[_case_line(item) for item in report.cases],
        untested=untested(report),
        gates=_gates(report, policy or default_policy()),
        quantities=list(REGISTRY.values()),
        measures=MEASURES,
        without_reference=WITHOUT_REFERENCE,
    )  # fmt: skip


def environment(*folders: Path) -> Environment:
    """The template engine over this folder's templates and those of further folders: everything is escaped."""
    return Environment(
        loader=FileSystemLoader([Path(__file__).resolve().parent, *folders]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def panels(report: Report) -> list[Panel]:
    """The heat maps, one per group of quantities that the report has."""
    return [panel for group in GROUPS if (panel := _panel(report, group))]


def _panel(report: Report, group: Group) -> Panel | None:
    quantities = [
        row for row in REGISTRY.values()
        if row.group == group and any(r.quantity == row.name for r in report.rows)
    ]  # fmt: skip
    if not quantities:
        return None
    names = [item.case.name for item in report.cases]
    left = 8 + LETTER * max(map(len, names))
    longest = LETTER * max(len(quantity.name) for quantity in quantities)
    top = 10 + 0.87 * longest
    return Panel(
        title=GROUPS[group],
        width=left + CELL * len(quantities) + 0.5 * longest,
        height=top + CELL * len(names) + 4,
        left=left,
        top=top,
        cases=tuple((top + CELL * (i + 0.7), name) for i, name in enumerate(names)),
        quantities=tuple((left + CELL * (j + 0.6), quantity.name) for j, quantity in enumerate(quantities)),
        cells=tuple(
            _cell(item, quantity, left + CELL * j, top + CELL * i)
            for i, item in enumerate(report.cases)
            for j, quantity in enumerate(quantities)
        ),
    )


def _cell(item: CaseReport, quantity: Quantity, x: float, y: float) -> Cell:
    rows = [row for row in item.rows if row.quantity in (quantity.name, WHOLE_MODEL)]
    title = f"{item.case.name}, {quantity.name}: " + ("; ".join(map(_told, rows)) or "not compared")
    worst = min(rows, key=_badness, default=None)
    if worst is None or worst.outcome == "neutral":
        return Cell(x, y, "none", "", title)
    if worst.outcome == "infrastructure":
        return Cell(x, y, "broken", "!", title)
    digits = min((row.digits for row in rows if row.digits is not None), default=None)
    text = "" if digits is None else str(int(digits))
    if worst.outcome == "fail":
        return Cell(x, y, "fail", text or "x", title)
    step = "plain" if digits is None else f"d{sum(digits >= bound for bound in STEPS)}"
    return Cell(x, y, step, text, title)


_ORDER = {"fail": 0, "infrastructure": 1, "pass": 2, "neutral": 3}


def _badness(row: Row) -> tuple[int, float]:
    return _ORDER[row.outcome], 99.0 if row.digits is None else row.digits


def _told(row: Row) -> str:
    digits = f" {digits_text(row.digits)} digits" if row.digits is not None else ""
    return f"{row.lane} against {row.reference}: {row.verdict}{digits}"


def _case_line(item: CaseReport) -> dict[str, Any]:
    outcomes = Counter(row.outcome for row in item.rows)
    agreed = outcomes["pass"] and not outcomes["fail"] and not outcomes["infrastructure"]
    digits = [row.digits for row in item.rows if row.digits is not None]
    return {
        "case": item.case,
        "agree": outcomes["pass"],
        "differ": outcomes["fail"],
        "digits": digits_text(min(digits)) if digits else "",
        # A time is shown only for an answer that was right.
        "engine_seconds": brief(item.timing.engine_seconds) if agreed else "",
        "reference_seconds": brief(item.timing.reference_seconds) if agreed else "",
    }


def untested(report: Report) -> list[tuple[str, str, int]]:
    """Neutral rows by verdict and message, most frequent first: what this run says nothing about."""
    found = Counter((str(r.verdict), r.message) for r in report.rows if r.outcome == "neutral")
    return [(verdict, message, number) for (verdict, message), number in found.most_common()]


def _gates(report: Report, policy: Policy) -> Sequence[tuple[str, str, str, str, str]]:
    """Lane, quantities, gate, why, source of every gate that was used."""
    used = {id(g): g for (lane, _), g in policy.gates.items() if lane in report.lanes}
    return [(g.lane, ", ".join(g.quantities), f"{g.value:g}", g.why, g.source) for g in used.values()]
