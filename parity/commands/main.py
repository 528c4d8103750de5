"""The command line. Exit codes: 0 all agree, 1 a difference, 2 wrong usage, 3 the comparison could not be
made."""

import sys
from pathlib import Path
from typing import Any

import click

from parity.commands.bench import bench
from parity.commands.comparison import gate, run
from parity.commands.files import schema, template
from parity.commands.lists import list_, table
from parity.commands.proof import COMMANDS
from parity.commands.site import report as site_report
from parity.commands.site import speed_report
from parity.commands.usage import Infrastructure, chosen_cases, mistakes
from parity.engines.closing import closing

# What is heavy (NumPy, pandas, engines) is imported by the commands that need it: `--help` answers at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mmparity")
def main() -> None:
    """Compare mixed-model engines with R's lme4 and HLMdiag, number by number.

    Exit codes: 0 all agree, 1 a difference, 2 wrong usage, 3 the comparison could not be made.
    """


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
for _command in (run, gate, list_, schema, template, *COMMANDS, bench, site_report):
    main.add_command(_command)


def _doctor_view(diagnosis: Any) -> Any:
    from rich.console import Group
    from rich.text import Text

    facts = table("This machine", "what", "found", "mend")
    for fact in diagnosis.facts:
        style = "" if fact.ok else "bold red"
        facts.add_row(Text(fact.what), Text(fact.found or "missing", style=style), Text(fact.mend))
    abilities = table("\nWhat can be done here", "what", "possible", "with")
    for ability in diagnosis.abilities:
        said = Text("yes", style="green") if ability.possible else Text("no", style="yellow")
        abilities.add_row(Text(ability.what), said, Text(ability.why))
    return Group(facts, abilities)
