"""`parity run` and `parity gate`: one engine against one reference."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parity.commands.lists import console
from parity.commands.usage import Infrastructure, chosen_cases, mistakes
from parity.engines.closing import closing

if TYPE_CHECKING:
    from parity.compare.run import CaseReport, Report
    from parity.schema.case import Case
    from parity.schema.engine import Engine
    from parity.schema.known import Known

LANES = ("at_theta", "optimum", "default", "certified")
FORMATS = ("table", "json", "markdown", "junit")
TIMEOUT, FAST_TIMEOUT = 120.0, 8.0  # seconds for one case
FAST = 40.0  # seconds after which --fast begins no further case
SAY_EVERY = 10.0  # seconds between two lines of progress where there is no terminal


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `run` and `gate` share."""
    options = (
        click.argument("cases", nargs=-1, metavar="[CASE]..."),
        click.option(
            "--engine", "engine_name", default="mmcore", show_default=True, metavar="NAME|pkg.mod:factory",
            help="The engine under test.",
        ),
        click.option(
            "--reference", "reference_name", default="default", metavar="NAME",
            help="live, recorded, recorded:SOURCE or an engine  [default: live where R is, else recorded]",
        ),
        click.option(
            "--lane", "lanes", multiple=True, type=click.Choice(LANES),
            help="May be given more than once.  [default: at_theta and optimum]",
        ),
        click.option(
            "--quantity", "quantities", multiple=True, metavar="NAME", help="Only these quantities."
        ),
        click.option("--slow", is_flag=True, help="Include the cases tagged slow."),
        click.option(
            "--fast", is_flag=True,
            help="Smallest cases first, and no further ones after 40 s: an answer in less than a minute.",
        ),
        click.option(
            "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cases in flight at once."
        ),
        click.option(
            "--isolate/--no-isolate", default=None,
            help="Whether the engine runs in a process of its own.  [default: unless it is built in]",
        ),
        click.option(
            "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
            help="What one case may take in an isolated engine.  [default: 120, with --fast 8]",
        ),
        click.option(
            "--expected", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
            help="Differences that you expect, as TOML, with a reason each.",
        ),
        click.option(
            "--report", "directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
            help="Write HTML, JSON, JUnit and Markdown here.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def run(form: str, directory: Path | None, **choice: Any) -> None:
    """Compare an engine with a reference and show every case.

    CASE is a name, a pattern ("sleepstudy_*"), an id, or tag:TAG. Without any, all cases but the slow ones.
    """
    report = _compare(**choice)
    _show(report, form)
    _write(report, directory)
    sys.exit(report.exit_code)


@click.command()
@_options
def gate(directory: Path | None, **choice: Any) -> None:
    """Say whether an engine agrees, in one line and the exit code; differences are told in full."""
    from parity.compare.judge import failures
    from parity.compare.words import where
    from parity.publish.report.text import cause_text, failure_text

    report = _compare(**choice)
    if report.first_line != report.headline:
        click.echo(f"{report.first_line}\n")
    for number, cause in enumerate(report.causes, 1):
        click.echo(f"{number}. {cause_text(cause)}\n")
    for cause in report.causes[:20]:
        click.echo(failure_text(report, failures(cause.rows)[0]) + "\n")
    for row in [row for row in report.rows if row.outcome == "infrastructure"][:20]:
        click.echo(f"{row.verdict}: {where(row)}: {row.message}")
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(f"parity: {report.headline}")
    _write(report, directory)
    sys.exit(report.exit_code)


def _compare(
    cases: tuple[str, ...], engine_name: str, reference_name: str, lanes: tuple[str, ...],
    quantities: tuple[str, ...], slow: bool, fast: bool, jobs: int, isolate: bool | None,
    timeout: float | None, expected: Path | None,
) -> "Report":  # fmt: skip
    from parity.compare import run as runner
    from parity.engines.load import load
    from parity.engines.references import references
    from parity.schema.quantities import quantity

    with mistakes():
        chosen = chosen_cases(cases, slow)
        asked = tuple(quantity(name).name for name in quantities)
        engine = _engine(engine_name, isolate, timeout or (FAST_TIMEOUT if fast else TIMEOUT))
        known = _known(expected, engine.name)
        against, notes = references(reference_name)
    if fast:
        chosen = _smallest_first(chosen)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    title = f"{engine.name} against {', '.join(r.name for r in against)}"
    with (
        closing([engine, *against]),
        _ended_kindly(),
        _output_apart(),
        _progress(title, len(chosen)) as step,
    ):
        return runner.run(
            chosen, engine, against, lanes=lanes or LANES[:2], quantities=asked, known=known, jobs=jobs,  # type: ignore[arg-type]
            notes=notes, observer=step, explainer=load("mmcore"), budget=FAST if fast else None,
        )  # fmt: skip


def _engine(name: str, isolate: bool | None, timeout: float) -> "Engine":
    """The engine of a name. One that is not ours is a guest: it gets a process of its own."""
    from parity.engines.isolated import guest
    from parity.engines.load import ALIASES, BUILT_IN, load

    ours = ALIASES.get(name, name) in BUILT_IN
    return guest(name, timeout) if (not ours if isolate is None else isolate) else load(name)


def _known(expected: Path | None, engine: str) -> "tuple[Known, ...]":
    from parity.schema.known import load_expected, load_known

    return load_known() if expected is None else (*load_expected(expected, engine), *load_known())


def _smallest_first(cases: "tuple[Case, ...]") -> "tuple[Case, ...]":
    from parity.schema.case import frame

    return tuple(sorted(cases, key=lambda case: len(frame(case))))


# --- what surrounds a run ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _output_apart() -> Iterator[None]:
    """Standard output goes to standard error, also from compiled code: the report alone is standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _ended_kindly() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C, so that a run that CI cancels leaves a report of what was done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, where: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress(title: str, total: int) -> "Iterator[Callable[[CaseReport], None]]":
    """A bar with the time left in a terminal, else a line every ten seconds, on standard error."""
    from rich.console import Console

    from parity.publish.report.table import progress

    if not os.isatty(2):
        yield _Lines(title, total)
        return
    with progress(Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda _: bar.advance(task)


class _Lines:
    """Says how far a run is, now and then."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.start = self.said = time.monotonic()

    def __call__(self, case: "CaseReport") -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.said < SAY_EVERY:
            return
        self.said = now
        left = (now - self.start) / self.done * (self.total - self.done)
        click.echo(f"{self.title}: {self.done} of {self.total} cases, about {left:.0f} s left", err=True)


# --- the report -------------------------------------------------------------------------------------------


def _show(report: "Report", form: str) -> None:
    from parity.publish import report as views

    if form == "table":
        from parity.publish.report.table import print_report

        print_report(report, console())
        return
    view = {"json": views.to_json, "markdown": views.to_markdown, "junit": views.to_junit}[form]
    click.echo(view(report), nl=False)


def _write(report: "Report", directory: Path | None) -> None:
    if directory is None:
        return
    from parity.publish import report as views

    try:
        paths = views.write(report, directory)
    except views.ReportError as error:
        raise Infrastructure(f"the report could not be written: {error}") from error
    click.echo(f"report: {', '.join(str(path) for path in paths)}", err=True)
