"""`parity report` and `parity bench report`: the published site."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parity.commands.bench import HISTORY, MEASURED, OTHERS
from parity.commands.usage import Infrastructure, chosen_cases, mistakes
from parity.engines.closing import closing

if TYPE_CHECKING:
    from parity.bench.measured import Fits, Table
    from parity.compare.run import Report
    from parity.publish.site.pages import Content

LANES = ("at_theta", "optimum")


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@click.option(
    "--engine",
    "names",
    multiple=True,
    metavar="NAME|pkg.mod:factory",
    help=f"Engines, the first is under test.  [default: mmcore, lme4, {', '.join(OTHERS)}, those that are here]",
)
@click.option("--reference", "reference_name", default="default", metavar="NAME", help="As for `parity run`.")
@click.option("--slow", is_flag=True, help="Include the cases tagged slow.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cases in flight at once.")
@click.option(
    "--measured", type=click.Path(file_okay=False, path_type=Path), default=MEASURED, show_default=True,
    help="Figures of `parity bench run --json` and of other benchmarks.",
)  # fmt: skip
def report(
    directory: Path, cases: tuple[str, ...], names: tuple[str, ...], reference_name: str, slow: bool, jobs: int,
    measured: Path,
) -> None:  # fmt: skip
    """Compare all engines that are here with one reference and write the site into DIR.

    Static pages that need no network and no script; index.html stands alone. The exit code is that of the first engine.
    """
    from parity.engines.references import references
    from parity.engines.remembered import Remembered
    from parity.schema.known import load_known

    with mistakes():
        chosen, known = chosen_cases(cases, slow), load_known()
        against, notes = references(reference_name)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    fits, tables = _figures(measured)
    with ExitStack() as stack:
        remembered = [Remembered(reference) for reference in against]
        stack.enter_context(closing(remembered))
        engines, absent = _engines(names)
        stack.enter_context(closing(engines))
        reports = [
            _compared(engine, chosen, remembered, notes, known, jobs, () if i == 0 else _estimates())
            for i, engine in enumerate(engines)
        ]
    absent += _left_out(chosen, slow, cases)
    _write(directory, reports, fits, tables, known, absent)
    sys.exit(reports[0].exit_code)


@click.command("report")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--measured", type=click.Path(file_okay=False, path_type=Path), default=MEASURED, show_default=True
)
def speed_report(directory: Path, measured: Path) -> None:
    """Write the pages on speed alone, from what was measured, into DIR. Nothing is run."""
    fits, tables = _figures(measured)
    if fits is None and not tables and not HISTORY.exists():
        raise Infrastructure(f"{measured} and {HISTORY} hold no figures; `parity bench run --json` measures")
    _write(directory, [], fits, tables, (), [])


def _figures(folder: Path) -> "tuple[Fits | None, list[tuple[str, Table]]]":
    from parity.bench.measured import Fits, MeasuredError, read, tables

    try:
        fits = read(folder / "fit.json", Fits) if (folder / "fit.json").exists() else None
        return fits, list(tables(folder))
    except MeasuredError as error:
        raise click.UsageError(str(error)) from error


def _engines(names: tuple[str, ...]) -> tuple[list[Any], list[tuple[str, str]]]:
    """The engines, and those of the default list that are not here, with the reason."""
    from parity.engines.load import load
    from parity.schema.engine import EngineUnavailable

    engines, absent = [], []
    for name in names or ("mmcore", "lme4", *OTHERS):
        try:
            with mistakes():
                engines.append(load(name))
        except Infrastructure as error:
            if names or not isinstance(error.__cause__, EngineUnavailable):
                raise
            absent.append((f"engine {name}", error.message))
    return engines, absent


def _compared(
    engine: Any, cases: Any, references: Any, notes: Any, known: Any, jobs: int, quantities: tuple[str, ...]
) -> "Report":
    from rich.console import Console

    from parity.compare.run import run
    from parity.publish.report.table import progress

    with progress(Console(stderr=True)) as bar:
        task = bar.add_task(engine.name, total=len(cases))
        found = run(
            cases, engine, references, lanes=LANES, quantities=quantities, known=known, jobs=jobs, notes=notes,  # type: ignore[arg-type]
            observer=lambda _: bar.advance(task),
        )  # fmt: skip
    click.echo(f"{engine.name}: {found.headline} ({found.seconds:.0f} s)", err=True)
    return found


def _estimates() -> tuple[str, ...]:
    """What engines beside the first are compared on: all but influence, whose definitions are rarely theirs and which
    takes R minutes."""
    from parity.schema.quantities import REGISTRY

    return tuple(name for name, row in REGISTRY.items() if row.group not in ("influence", "deletion"))


def _left_out(chosen: Any, slow: bool, asked: tuple[str, ...]) -> list[tuple[str, str]]:
    """Cases that were not run, and lanes."""
    from parity.schema.case import load_cases

    names = {case.name for case in chosen}
    left = [case.name for case in load_cases() if case.name not in names]
    why = "not asked for" if asked else "tagged slow; --slow runs them" if not slow else "not chosen"
    out = [(f"{len(left)} cases", f"{why}: {', '.join(left)}")] if left else []
    out.append(
        ("influence measures of the engines beside the first", "`parity run --engine NAME` compares them")
    )
    return [
        *out,
        ("lanes default and certified", "this site shows at_theta and optimum; `parity run --lane` has them"),
    ]


def _write(
    directory: Path, reports: "list[Report]", fits: "Fits | None", tables: "list[tuple[str, Table]]", known: Any,
    absent: list[tuple[str, str]],
) -> None:  # fmt: skip
    from parity.publish.report import ReportError
    from parity.publish.site import pages

    content: Content = pages.Content(
        tuple(reports), fits, tuple(tables), HISTORY, tuple(known), tuple(absent),
        pages.surroundings(reports[0] if reports else None, fits),
    )  # fmt: skip
    try:
        paths = pages.write(content, directory)
    except ReportError as error:
        raise Infrastructure(f"the report could not be written: {error}") from error
    click.echo(f"report: {paths[0]} and {len(paths) - 1} more files")
