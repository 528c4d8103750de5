"""Views of one `Report`: terminal table, JSON, JUnit XML, Markdown, one HTML page."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from parity.compare.run import Report
from parity.publish.report.machine import to_json, to_junit
from parity.publish.report.markdown import to_markdown
from parity.publish.report.page import to_html

FILES: Mapping[str, Callable[[Report], str]] = MappingProxyType(
    {
        "parity.json": to_json,
        "parity.xml": to_junit,
        "summary.md": to_markdown,
        "index.html": to_html,
    }
)


class ReportError(OSError):
    """A report file could not be written; the message names each file and what went wrong."""


def write(report: Report, directory: Path) -> tuple[Path, ...]:
    """Write all files of a report into a directory, made where needed, and return their paths.

    Each file is complete or absent: it is written beside its place and then moved there.

    Raises
    ------
    ReportError
        if any file could not be written; the others are there all the same.
    """
    written, problems = [], []
    for name, view in FILES.items():
        try:
            written.append(_write(directory, name, view(report)))
        except OSError as error:
            problems.append(f"{directory / name}: {error.strerror or error}")
    if problems:
        raise ReportError("; ".join(problems))
    return tuple(written)


def _write(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f"{name}.part"
    try:
        temporary.write_text(text, encoding="utf-8")
        return temporary.replace(directory / name)
    finally:
        temporary.unlink(missing_ok=True)
