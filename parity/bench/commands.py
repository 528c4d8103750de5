"""`parity bench`: run, compare, history, report."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parity.usage import Infrastructure

if TYPE_CHECKING:
    from parity.bench.against import Entry

HISTORY = Path("benchmarks/history.csv")


@click.group()
def bench() -> None:
    """Measure speed: against lme4, head against base, and over time."""


@bench.command()
@click.argument("problems", nargs=-1, metavar="[PROBLEM]...")
@click.option("--size", "sizes", multiple=True, type=click.Choice(["tiny", "small", "medium", "large"]))
@click.option(
    "--rounds", type=click.IntRange(1), default=7, show_default=True, help="Turns that each side takes."
)
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here."
)
@click.option("--history", is_flag=True, help=f"Append to {HISTORY}.")
def run(
    problems: tuple[str, ...], sizes: tuple[str, ...], rounds: int, path: Path | None, history: bool
) -> None:
    """Formula to fit, mmcore and lme4 in turns; no time for a wrong answer.

    Without PROBLEM or --size: the tiny, small and medium ones.
    """
    from parity.bench.against import markdown
    from parity.bench.against import run as measure
    from parity.bench.problems import PROBLEMS
    from parity.rworker import RWorkers, r_environment

    unknown = sorted(set(problems) - set(PROBLEMS))
    if unknown:
        raise click.UsageError(f"no problem is named {', '.join(unknown)}; known: {', '.join(PROBLEMS)}")
    wanted = set(sizes) or {"tiny", "small", "medium"}
    chosen = [p for p in PROBLEMS.values() if (p.name in problems if problems else p.size in wanted)]
    here = r_environment()
    entries: list[Entry] = []
    workers = RWorkers(timeout=3600.0) if here.embedded else None
    reference = (
        f"R {here.r_version}, lme4 {here.packages.get('lme4')}, {here.blas}" if workers else "no R here"
    )
    click.echo(f"{reference}; one BLAS thread; {rounds} rounds in turns")
    try:
        for found in measure(_announced(chosen), workers, rounds):
            entries.extend(found)
    finally:
        if workers is not None:
            workers.close()
    click.echo(markdown(entries))
    if path is not None:
        path.write_text(
            json.dumps({"reference": reference, "entries": [asdict(e) for e in entries]}, indent=1) + "\n"
        )
    if history:
        click.echo(f"{_remember(entries, reference)} rows added to {HISTORY}")
    if any(e.seconds is None for e in entries):
        sys.exit(1)


def _announced(problems: list[Any]) -> Any:
    for problem in problems:
        click.echo(f"measuring {problem.name} ...", err=True)
        yield problem


def _remember(entries: "list[Entry]", reference: str) -> int:
    import platform

    import numpy as np

    from parity.bench import history as past

    common = (
        past.now(),
        past.machine(),
        past.commit(Path.cwd()),
        platform.python_version(),
        np.__version__,
        reference,
    )
    theirs = {e.problem: e.seconds for e in entries if e.engine == "lme4"}
    rows = []
    for e in entries:
        if e.seconds is None:
            continue
        there = theirs.get(e.problem)
        ratio = float("nan") if there is None else there / e.seconds
        rows.append(
            past.Measurement(*common, e.problem, "fit", e.engine, e.seconds, ratio, e.evaluations, e.peak_mb)
        )
    return past.append(HISTORY, rows)


@bench.command()
@click.argument("base")
@click.option("--rounds", type=click.IntRange(5), default=11, show_default=True)
@click.option(
    "--markdown", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the table here."
)
@click.option("--problem", "problems", multiple=True, help="Only these problems of the plan.")
def compare(base: str, rounds: int, path: Path | None, problems: tuple[str, ...]) -> None:
    """Time every stage of BASE (a git revision) and of this checkout in turns; exit code 1 on a regression.

    A regression is a ratio above 1.15 and an excess above 20 ms and a 99 % interval that excludes 1, or more than
    15 % more evaluations of the criterion.
    """
    from parity.bench import change

    head = Path.cwd()
    plan = [item for item in change.PLAN if not problems or item[0] in problems]
    if not plan:
        raise click.UsageError(f"the plan has {', '.join(name for name, _ in change.PLAN)}")
    try:
        with change.worktree(head, base) as checkout:
            found = change.compare(
                checkout, head, rounds=rounds, plan=plan,
                observer=lambda c: click.echo(f"{c.problem:<12}{c.stage:<12}{c.outcome}", err=True),
            )  # fmt: skip
    except change.BenchError as error:
        raise Infrastructure(str(error)) from error
    table = change.markdown(found, base)
    click.echo(table)
    if path is not None:
        path.write_text(table)
    bad = [c for c in found if c.failed]
    click.echo(f"parity bench: {len(found) - len(bad)} of {len(found)} stages are no slower than {base}")
    if bad:
        sys.exit(1)


@bench.command()
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), default=HISTORY, show_default=True
)
def history(path: Path) -> None:
    """List the series of the history and the steps in them."""
    from parity.bench import history as past

    if not path.exists():
        raise Infrastructure(f"{path} does not exist; `parity bench run --history` begins it")
    try:
        rows = past.read(path)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for (machine, problem, stage, engine), items in past.series(rows).items():
        step = past.find_step([item.seconds for item in items])
        text = f"{1e3 * items[-1].seconds:9.2f} ms, {len(items)} measurements"
        if step is not None:
            text += f"; {step.after / step.before:.2f} x since {items[step.position].commit}"
        click.echo(f"{machine} {problem:<16}{stage:<10}{engine:<10}{text}")
