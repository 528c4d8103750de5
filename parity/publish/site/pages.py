"""From reports and figures to files: an index page that stands alone, a page per engine, and the same as data."""

import base64
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.bench.measured import Fits, Table, load_average
from parity.compare.run import Report
from parity.publish.report import ReportError
from parity.publish.report.machine import to_json
from parity.publish.report.page import CELL, STEPS, environment, panels, to_html
from parity.publish.site import agreement, speed
from parity.schema.known import Known

HERE = Path(__file__).resolve().parent
DETAILED = 12  # engines whose worst cases are shown


@dataclass(frozen=True, slots=True)
class Content:
    """All that the site is made of; what is not there is said on the page."""

    reports: tuple[Report, ...] = ()  # the engine under test first
    fits: Fits | None = None
    tables: tuple[tuple[str, Table], ...] = ()
    history: Path | None = None
    known: tuple[Known, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()  # what was not run, and why: engines, cases
    surroundings: Mapping[str, str] | None = None  # what is told of the machine


def files(content: Content) -> dict[str, str]:
    """File name -> text of everything on the site."""
    out = {"index.html": index(content)}
    for report in content.reports:
        page = agreement.page_name(report.engine)
        out[page] = to_html(report)
        out[page.removesuffix(".html") + ".json"] = to_json(report)
    if content.reports:
        out["rows.csv"] = rows_csv(content.reports)
        out["badge.json"] = badge(content.reports[0])
    return out


def write(content: Content, directory: Path) -> tuple[Path, ...]:
    """Write the site into a directory, made where needed. Raises ReportError naming the file that failed."""
    written = []
    for name, text in files(content).items():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / name
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ReportError(f"{directory / name}: {error.strerror or error}") from error
        written.append(path)
    return tuple(written)


def index(content: Content) -> str:
    """The index page: readable without script, style or network; a script, allowed by its hash, sorts tables."""
    script = (HERE / "sort.js").read_text(encoding="utf-8")
    first = content.reports[0] if content.reports else None
    return environment(HERE).get_template("index.html.j2").render(
        script=script, script_hash=_hash(script), first=first, reports=content.reports,
        state="unknown" if first is None else {0: "agree", 1: "differ", 3: "unknown"}[first.exit_code],
        engines=agreement.side_by_side(content.reports),
        engines_panel=[agreement.engines_panel(content.reports)] if len(content.reports) > 1 else [],
        panels=panels(first) if first else [], steps=STEPS, side=CELL,
        worst=[(r.engine, agreement.worst(r)) for r in content.reports[:DETAILED]],
        faults=agreement.faults(content.reports, content.known),
        silent=agreement.silent(content.reports), absent=content.absent,
        fits=content.fits, conditions=speed.load_told(content.fits.conditions) if content.fits else "",
        speed_columns=speed.SPEED_COLUMNS,
        speed_rows=speed.speed_rows(content.fits.entries) if content.fits else [],
        pareto=speed.pareto(content.fits) if content.fits else [],
        scaling=speed.scaling(content.fits) if content.fits else [],
        trends=speed.trends(content.history) if content.history else [],
        tables=[(t, speed.cells(t), speed.load_told(t.conditions)) for _, t in content.tables],
        surroundings=dict(content.surroundings or {}),
    )  # fmt: skip


def _hash(script: str) -> str:
    """The hash by which the page's policy allows its one script. The template puts nothing around it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def badge(report: Report) -> str:
    """A badge in the format of shields' endpoint."""
    line = agreement.side_by_side([report])[0]
    colour = {"agree": "brightgreen", "differ": "red", "unknown": "lightgrey"}[line.state]
    message = f"{line.agree}/{line.judged}" + (f", {line.fewest} digits" if line.fewest else "")
    content: dict[str, Any] = {"schemaVersion": 1, "label": f"{report.engine} parity", "message": message}
    return json.dumps({**content, "color": colour}, indent=1) + "\n"


_CSV = (
    "case", "case_id", "reference", "lane", "quantity", "verdict", "outcome", "label", "got", "want", "error", "gate",
    "measure", "digits", "lre", "compared", "deviance_gap", "message",
)  # fmt: skip


def rows_csv(reports: Sequence[Report]) -> str:
    """Every comparison as a tidy table, numbers at full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("engine", *_CSV))
    for report in reports:
        for row in report.rows:
            writer.writerow((report.engine, *(_cell(getattr(row, name)) for name in _CSV)))
    return out.getvalue()


def _cell(value: object) -> str:
    """A number with all its digits; text that a spreadsheet would take for a formula gets a quote before it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t") else text


def surroundings(report: Report | None, fits: Fits | None) -> dict[str, str]:
    """The machine and the versions, for the page."""
    from parity.bench.history import commit, machine, processor
    from parity.compare.run import environment as versions

    found = dict(report.environment if report else versions())
    found |= {"processor": processor(), "machine id": machine(), "commit": commit(Path.cwd())}
    found["load average while this page was made"] = f"{load_average():g}"
    if report is not None:
        found |= {f"reference {name}": version for name, version in report.references}
    if fits is not None:
        found |= {f"speed, {name}": version for name, version in fits.conditions.versions.items()}
        found["speed, reference"] = fits.conditions.reference
    return {name: value for name, value in found.items() if value}
