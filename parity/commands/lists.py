"""`parity list`: cases, quantities, engines, references, as a table or as JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from parity.commands.usage import mistakes

Rows = list[dict[str, Any]]


@click.command("list")
@click.argument("what", type=click.Choice(["cases", "quantities", "engines", "references"]), default="cases")
@click.option("--json", "as_json", is_flag=True, help="A list of objects, one for each line of the table.")
def list_(what: str, as_json: bool) -> None:
    """List the cases, quantities, engines or references."""
    with mistakes():
        rows = _LISTS[what]()
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from rich.text import Text

    view = table(what.capitalize(), *rows[0])
    for row in rows:
        view.add_row(*(Text(_said(value)) for value in row.values()))
    console().print(view)


def console() -> Any:
    """A console that wraps lines in a terminal only: what is piped keeps one line per row."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=10_000)


def table(title: str, *columns: str) -> Any:
    """A table with these columns."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cases() -> Rows:
    from parity.schema.case import load_cases

    return [
        {"name": case.name, "id": case.id, "data": case.data, "model": _model(case), "tags": list(case.tags)}
        for case in load_cases()
    ]


def _model(case: Any) -> str:
    extras = [f"{key} {value}" for key in ("weights", "offset") if (value := getattr(case, key))]
    return ", ".join([case.formula, "REML" if case.reml else "ML", *extras])


def _quantities() -> Rows:
    from parity.schema.quantities import REGISTRY

    return [
        {"name": q.name, "index": q.index, "unit": q.unit, "definition": q.definition, "lanes": list(q.lanes)}
        for q in REGISTRY.values()
    ]


def _engines() -> Rows:
    from parity.engines.load import available

    return [_engine(name) for name in available()]


def _engine(name: str) -> dict[str, Any]:
    from parity.engines.load import load
    from parity.schema.engine import EngineError

    try:
        engine = load(name)
    except (EngineError, FileNotFoundError) as error:
        return {"name": name, "version": "not available", "capabilities": str(error)}
    return {"name": name, "version": engine.version, "capabilities": sorted(engine.capabilities)[:12]}


def _references() -> Rows:
    from parity.engines.references import names

    return [{"name": name, "what": what} for name, what in names()]


_LISTS: dict[str, Callable[[], Rows]] = {
    "cases": _cases,
    "quantities": _quantities,
    "engines": _engines,
    "references": _references,
}
