"""`parity schema` and `parity template`: files that others start from."""

import json

import click

from parity.commands.usage import mistakes


@click.command()
@click.argument("what", type=click.Choice(["report", "recording"]), default="report")
def schema(what: str) -> None:
    """Print the JSON Schema of the JSON report, or of a recording."""
    from parity.publish.report.machine import report_schema
    from parity.references.recordings import recording_schema

    made = report_schema() if what == "report" else recording_schema()
    click.echo(json.dumps(made, indent=1))


@click.command()
def template() -> None:
    """Print an engine to start from: parity template > my_engine.py."""
    from parity.resources import template_file

    with mistakes():
        click.echo(template_file().read_text(encoding="utf-8"), nl=False)
