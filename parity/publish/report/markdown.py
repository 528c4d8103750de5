"""The report as Markdown for a CI summary: failures first, and never longer than such a summary may be."""

from collections import Counter

from parity.compare.judge import Row, failures
from parity.compare.run import Report
from parity.compare.words import brief, digits_text
from parity.publish.report.text import failure_text

LIMIT = 200_000  # bytes; summaries above 1 MiB are thrown away whole, comments above 64 KB too
DETAILED = 20


def to_markdown(report: Report, limit: int = LIMIT) -> str:
    """A summary of at most `limit` bytes: verdict, differences, cases."""
    parts = [_head(report)]
    failed = failures(report.rows)
    broken = [row for row in report.rows if row.outcome == "infrastructure"]
    if failed:
        parts += ["## Differences by cause\n", _causes(report)]
        parts += ["## Differences\n", _rows_table(failed)]
        first = [failures(cause.rows)[0] for cause in report.causes[:DETAILED]]
        parts += [f"```text\n{_fenced(failure_text(report, row))}\n```\n" for row in first]
    if broken:
        parts += ["## Comparisons that could not be made\n", _rows_table(broken)]
    parts += ["## Cases\n", _cases_table(report), _environment(report)]
    return _capped(parts, limit)


def _head(report: Report) -> str:
    sign = {0: "agree", 1: "DIFFER", 3: "COULD NOT BE COMPARED"}[report.exit_code]
    references = ", ".join(f"{cell(name)} ({cell(version)})" for name, version in report.references)
    cause = f": {cell(report.first_line)}" if report.causes else ""
    lines = [
        f"# Parity: {sign}{cause}\n",
        f"{report.headline}.\n",
        f"Engine {cell(report.engine)} {cell(report.engine_version)} against {references}; "
        f"lanes {', '.join(report.lanes)}.\n",
        *(f"> {cell(note)}\n" for note in report.notes),
        "| verdict | comparisons | meaning |\n|---|---:|---|",
        *(f"| {verdict} | {number} | {verdict.meaning} |" for verdict, number in report.counts.items()),
        "",
    ]
    return "\n".join(lines)


def _causes(report: Report) -> str:
    """A line for each cause, and the traceback of a call that failed."""
    lines = []
    for cause in report.causes:
        lines.append(f"* **{len(cause.rows)}** {cell(cause.line)}")
        if cause.trace:
            lines += ["", "```text", _fenced(cause.trace.rstrip()), "```", ""]
    return "\n".join(lines) + "\n"


def _rows_table(rows: tuple[Row, ...] | list[Row]) -> str:
    lines = [
        "| case | lane | quantity | element | verdict | error | gate | message |",
        "|---|---|---|---|---|---:|---:|---|",
    ]
    for row in rows:
        values = (row.case, row.lane, row.quantity, row.label, row.verdict, brief(row.error), brief(row.gate))
        lines.append("| " + " | ".join(cell(str(value)) for value in (*values, row.message)) + " |")
    return "\n".join(lines) + "\n"


def _cases_table(report: Report) -> str:
    lines = ["| case | agree | differ | fewest digits |", "|---|---:|---:|---:|"]
    for item in report.cases:
        outcomes = Counter(row.outcome for row in item.rows)
        fewest = min((row.digits for row in item.rows if row.digits is not None), default=None)
        numbers = f"{outcomes['pass']} | {outcomes['fail']} | {digits_text(fewest)}"
        lines.append(f"| {cell(item.case.name)} | {numbers} |")
    return "\n".join(lines) + "\n"


def _environment(report: Report) -> str:
    versions = ", ".join(f"{cell(name)} {cell(version)}" for name, version in report.environment.items())
    return f"{versions}. {report.seconds:.1f} s.\n"


def cell(text: str) -> str:
    """Text that cannot break a table or start markup."""
    escaped = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "|`*[]":
        escaped = escaped.replace(character, "\\" + character)
    return " ".join(escaped.split())


def _fenced(text: str) -> str:
    return text.replace("```", "'''")


def _capped(parts: list[str], limit: int) -> str:
    """Whole parts while they fit, then whole lines, then a note that says how much is missing."""
    text = "\n".join(parts)
    if len(text.encode()) <= limit:
        return text
    note = "\n\n(cut to the size that a summary may have; the JSON report is complete)\n"
    room = limit - len(note.encode()) - len("```")
    kept = text.encode()[:room].decode(errors="ignore")
    cut = kept[: kept.rfind("\n") + 1]
    return cut + ("```" if cut.count("```") % 2 else "") + note
