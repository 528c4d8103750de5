"""The report in a terminal: a progress bar while it runs, then a table, the worst cases and the verdict."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from parity.compare.judge import Row, failures
from parity.compare.run import CaseReport, Report
from parity.compare.words import brief, digits_text, where
from parity.publish.report.text import cause_text, failure_text

COLOURS = {"pass": "green", "neutral": "dim", "fail": "bold red", "infrastructure": "yellow"}
WORST = 10


def progress(console: Console) -> Progress:
    """A progress bar over cases; shows nothing where the output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


def render(report: Report) -> RenderableType:
    """The whole report for a terminal."""
    style = COLOURS["fail" if report.causes else "pass"]
    parts: list[RenderableType] = [Text(report.first_line + "\n", style=style), _cases_table(report)]
    failed = failures(report.rows)
    if failed:
        parts.append(Text(f"\n{len(failed)} differences by cause", style="bold"))
        parts += [Text(f"\n{i}. {cause_text(cause)}") for i, cause in enumerate(report.causes, 1)]
        parts.append(
            Text(f"\nThe first difference of each of {min(WORST, len(report.causes))} causes", style="bold")
        )
        parts += [
            Text(failure_text(report, failures(cause.rows)[0]) + "\n") for cause in report.causes[:WORST]
        ]
    broken = [row for row in report.rows if row.outcome == "infrastructure"]
    if broken:
        parts.append(_broken(broken))
    if not failed:
        parts.append(_closest(report.rows))
    parts += [Text(f"note: {note}", style="yellow") for note in report.notes]
    parts.append(_summary(report))
    return Group(*parts)


def _cases_table(report: Report) -> Table:
    table = Table(
        title=f"{report.engine} against {_references(report)}", title_justify="left", show_edge=False
    )
    table.add_column("case", overflow="fold")
    for lane in report.lanes:
        table.add_column(f"{lane}\nagree, digits", justify="right")
    table.add_column("worst", overflow="fold")
    for item in report.cases:
        table.add_row(*_case_row(report, item))
    return table


def _references(report: Report) -> str:
    return ", ".join(name for name, _ in report.references)


def _case_row(report: Report, item: CaseReport) -> list[Text]:
    cells = [Text(item.case.name)]
    for lane in report.lanes:
        rows = [row for row in item.rows if row.lane == lane]
        cells.append(_tally(rows))
    return [*cells, _worst_cell(item.rows)]


def _tally(rows: Sequence[Row]) -> Text:
    outcomes = Counter(row.outcome for row in rows)
    judged = outcomes["pass"] + outcomes["fail"]
    if outcomes["infrastructure"] and not judged:
        return Text("not made", style=COLOURS["infrastructure"])
    if not judged:
        return Text("none", style=COLOURS["neutral"])
    style = "fail" if outcomes["fail"] else "infrastructure" if outcomes["infrastructure"] else "pass"
    return Text(f"{outcomes['pass']}/{judged} {digits_text(_fewest(rows)):>5}", style=COLOURS[style])


def _fewest(rows: Sequence[Row]) -> float | None:
    return min((row.digits for row in rows if row.digits is not None), default=None)


def _worst_cell(rows: Sequence[Row]) -> Text:
    bad = failures(rows)
    if bad:
        return Text(f"{bad[0].quantity}: {bad[0].verdict}", style=COLOURS["fail"])
    broken = [row for row in rows if row.outcome == "infrastructure"]
    if broken:
        return Text(f"{broken[0].verdict}: {broken[0].message}"[:100], style=COLOURS["infrastructure"])
    measured = [row for row in rows if row.digits is not None]
    return Text(min(measured, key=_digits).quantity if measured else "", style="dim")


def _digits(row: Row) -> float:
    return 99.0 if row.digits is None else row.digits


def _broken(rows: Sequence[Row]) -> Table:
    table = Table(title="Comparisons that could not be made", title_justify="left", show_edge=False)
    table.add_column("where", overflow="fold")
    table.add_column("verdict")
    table.add_column("message", overflow="fold")
    for row in rows[:WORST]:
        table.add_row(Text(where(row)), Text(str(row.verdict)), Text(row.message))
    return table


def _closest(rows: Sequence[Row]) -> Table:
    """Where agreement is nearest to its gate."""
    table = Table(title="\nNearest to their gates", title_justify="left", show_edge=False)
    for name in ("where", "error", "gate", "verdict"):
        table.add_column(name, overflow="fold")
    measured = [row for row in rows if row.error is not None and row.gate]
    for row in sorted(measured, key=lambda row: -(row.error or 0.0) / (row.gate or 1.0))[:5]:
        table.add_row(Text(where(row)), brief(row.error), brief(row.gate), str(row.verdict))
    return table


def _summary(report: Report) -> Text:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in report.counts.items())
    style = "bold green" if report.exit_code == 0 else "bold red" if report.exit_code == 1 else "bold yellow"
    text = Text(f"\n{counts}\n", style="dim")
    text.append(f"{report.headline} ({len(report.cases)} cases, {report.seconds:.1f} s)", style=style)
    return text


def print_report(report: Report, console: Console) -> None:
    """Print the whole report."""
    console.print(render(report))
