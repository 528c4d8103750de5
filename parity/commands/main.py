"""The command line. Exit codes: 0 all agree, 1 a difference, 2 wrong usage, 3 the comparison could not be
made."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parity.commands.bench import bench
from parity.commands.proof import COMMANDS
from parity.commands.site import report as site_report
from parity.commands.site import speed_report
from parity.commands.usage import Infrastructure, chosen_cases, mistakes
from parity.engines.closing import closing

if TYPE_CHECKING:
    from parity.compare.run import Report

# What is heavy (NumPy, pandas, engines) is imported by the commands that need it: `--help` answers at once.

LANES = ("at_theta", "optimum", "default", "certified")
FORMATS = ("table", "json", "markdown", "junit")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mmparity")
def main() -> None:
    """Compare mixed-model engines with R's lme4 and HLMdiag, number by number.

    Exit codes: 0 all agree, 1 a difference, 2 wrong usage, 3 the comparison could not be made.
    """


def _comparison(command: Callable[..., None]) -> Callable[..., None]:
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
            "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cases in flight at once."
        ),
        click.option(
            "--report", "directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
            help="Write HTML, JSON, JUnit and Markdown here.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_comparison
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def run(form: str, directory: Path | None, **choice: Any) -> None:
    """Compare an engine with a reference and show every case.

    CASE is a name, a pattern ("sleepstudy_*"), an id, or tag:TAG. Without any, all cases but the slow ones.
    """
    report = _compare(**choice)
    _show(report, form)
    _write(report, directory)
    sys.exit(report.exit_code)


@main.command()
@_comparison
def gate(directory: Path | None, **choice: Any) -> None:
    """Say whether an engine agrees, in one line and the exit code; differences are told in full."""
    from parity.compare.judge import failures
    from parity.compare.words import where
    from parity.publish.report.text import cause_text, failure_text

    report = _compare(**choice)
    if report.causes:
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


@main.command("list")
@click.argument("what", type=click.Choice(["cases", "quantities", "engines", "references"]), default="cases")
def list_(what: str) -> None:
    """List the cases, quantities, engines or references."""
    from rich.console import Console

    with mistakes():
        Console().print(_LISTS[what]())


@main.command()
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where to.  [default: the recorded references, in a folder named after the versions]",
)  # fmt: skip
@click.option("--engine", "engine_name", default="live", show_default=True, help="Whose numbers to record.")
@click.option("--overwrite", is_flag=True, help="Replace recordings that differ.")
@click.option("--slow", is_flag=True, help="Include the cases tagged slow.")
def record(cases: tuple[str, ...], out: Path | None, engine_name: str, overwrite: bool, slow: bool) -> None:
    """Record references from live R. What is there is never replaced unless --overwrite says so."""
    from parity.engines.load import load
    from parity.references import record as recording

    with mistakes():
        chosen = chosen_cases(cases, slow)
        engine = load(engine_name)
        directory = out or recording.directory_of(engine)
    kinds: list[str] = []
    with closing([engine]):
        for change in recording.record(chosen, engine, directory, overwrite=overwrite):
            kinds.append(change.kind)
            click.echo(f"{change.kind:<9} {change.case}")
            for detail in change.details:
                click.echo(f"          {detail}")
    if "failed" in kinds:
        raise Infrastructure(f"{kinds.count('failed')} cases could not be recorded")
    if "changed" in kinds:
        click.echo(
            f"{kinds.count('changed')} recordings differ and were left alone; --overwrite replaces them"
        )
        sys.exit(1)


@main.command()
def doctor() -> None:
    """Report what this machine has, what each lane can do, and the command that mends what is missing."""
    from rich.console import Console

    from parity.r.doctor import diagnose

    diagnosis = diagnose()
    Console().print(_doctor_view(diagnosis))


bench.add_command(speed_report)
for _command in (*COMMANDS, bench, site_report):
    main.add_command(_command)


# --- the comparison ---------------------------------------------------------------------------------------


def _compare(
    cases: tuple[str, ...],
    engine_name: str,
    reference_name: str,
    lanes: tuple[str, ...],
    quantities: tuple[str, ...],
    slow: bool,
    jobs: int,
) -> "Report":
    from rich.console import Console

    from parity.compare import run as runner
    from parity.engines.load import load
    from parity.engines.references import references
    from parity.publish.report.table import progress
    from parity.schema.known import load_known
    from parity.schema.quantities import quantity

    with mistakes():
        chosen = chosen_cases(cases, slow)
        asked = tuple(quantity(name).name for name in quantities)
        known = load_known()
        engine = load(engine_name)
        against, notes = references(reference_name)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    with closing([engine, *against]), progress(Console(stderr=True)) as bar:
        task = bar.add_task(f"{engine.name} against {', '.join(r.name for r in against)}", total=len(chosen))
        return runner.run(
            chosen, engine, against, lanes=lanes or LANES[:2], quantities=asked, known=known, jobs=jobs,  # type: ignore[arg-type]
            notes=notes, observer=lambda _: bar.advance(task), explainer=load("mmcore"),
        )  # fmt: skip


def _show(report: "Report", form: str) -> None:
    from parity.publish import report as views

    if form == "table":
        from rich.console import Console

        from parity.publish.report.table import print_report

        print_report(report, Console())
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


# --- lists ------------------------------------------------------------------------------------------------


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _case_list() -> Any:
    from rich.text import Text

    from parity.schema.case import load_cases

    table = _table("Cases", "name", "id", "data", "model", "tags")
    for case in load_cases():
        extras = [f"{key} {value}" for key in ("weights", "offset") if (value := getattr(case, key))]
        model = ", ".join([case.formula, "REML" if case.reml else "ML", *extras])
        table.add_row(*(Text(text) for text in (case.name, case.id, case.data, model, ", ".join(case.tags))))
    return table


def _quantity_list() -> Any:
    from rich.text import Text

    from parity.schema.quantities import REGISTRY

    table = _table("Quantities", "name", "index", "unit", "definition", "lanes")
    for row in REGISTRY.values():
        cells = (row.name, row.index, row.unit, row.definition, ", ".join(row.lanes))
        table.add_row(*(Text(text) for text in cells))
    return table


def _engine_list() -> Any:
    from rich.text import Text

    from parity.engines.load import available, load
    from parity.schema.engine import EngineError

    table = _table("Engines", "name", "version", "capabilities")
    for name in available():
        try:
            engine = load(name)
            cells = (name, engine.version, ", ".join(sorted(engine.capabilities)[:12]))
        except (EngineError, FileNotFoundError) as error:
            cells = (name, "not available", str(error))
        table.add_row(*(Text(text) for text in cells))
    return table


def _reference_list() -> Any:
    from rich.text import Text

    from parity.engines.references import names

    table = _table("References", "name", "what")
    for name, what in names():
        table.add_row(Text(name), Text(what))
    return table


_LISTS: dict[str, Callable[[], Any]] = {
    "cases": _case_list,
    "quantities": _quantity_list,
    "engines": _engine_list,
    "references": _reference_list,
}


def _doctor_view(diagnosis: Any) -> Any:
    from rich.console import Group
    from rich.text import Text

    facts = _table("This machine", "what", "found", "mend")
    for fact in diagnosis.facts:
        style = "" if fact.ok else "bold red"
        facts.add_row(Text(fact.what), Text(fact.found or "missing", style=style), Text(fact.mend))
    abilities = _table("\nWhat can be done here", "what", "possible", "with")
    for ability in diagnosis.abilities:
        said = Text("yes", style="green") if ability.possible else Text("no", style="yellow")
        abilities.add_row(Text(ability.what), said, Text(ability.why))
    return Group(facts, abilities)
