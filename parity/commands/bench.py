"""`parity bench`: run, compare, history, report."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parity.commands.usage import Infrastructure
from parity.engines.closing import closing

if TYPE_CHECKING:
    from parity.bench.measured import Fits
    from parity.schema.engine import Engine

HISTORY = Path("benchmarks/history.csv")
MEASURED = Path("benchmarks/measured")
OTHERS = ("statsmodels", "interlace", "mixedlm", "nlme", "glmmTMB")
KINDS = ("n", "q", "terms")


@click.group()
def bench() -> None:
    """Measure speed: against lme4 and other engines, head against base, and over time."""


@bench.command()
@click.argument("problems", nargs=-1, metavar="[PROBLEM]...")
@click.option("--size", "sizes", multiple=True, type=click.Choice(["tiny", "small", "medium", "large"]))
@click.option(
    "--rounds", type=click.IntRange(1), default=7, show_default=True, help="Turns that each side takes."
)
@click.option(
    "--engine",
    "names",
    multiple=True,
    metavar="NAME|all|pkg.mod:factory",
    help=f"Further engines, on the shipped data; all: {', '.join(OTHERS)}, those that are here.",
)
@click.option(
    "--digits", is_flag=True, help="Count each engine's digits against certified or recorded numbers."
)
@click.option("--memory", is_flag=True, help="Peak memory of mmcore and lme4, a process each.")
@click.option("--scaling", "kinds", multiple=True, type=click.Choice(KINDS), help="Scaling curves too.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here."
)
@click.option("--history", is_flag=True, help=f"Append to {HISTORY}.")
def run(
    problems: tuple[str, ...], sizes: tuple[str, ...], rounds: int, names: tuple[str, ...], digits: bool,
    memory: bool, kinds: tuple[str, ...], path: Path | None, history: bool,
) -> None:  # fmt: skip
    """Formula to fit, mmcore and lme4 in turns; no time for a wrong answer.

    Without PROBLEM or --size: the tiny, small and medium ones. Exit code 1 if mmcore has no time somewhere.
    """
    from parity.bench import against, measured
    from parity.bench.problems import PROBLEMS
    from parity.r.worker import RWorkers, r_environment

    linear = {name: p for name, p in PROBLEMS.items() if p.family == "gaussian"}
    unknown = sorted(set(problems) - set(linear))
    if unknown:
        raise click.UsageError(f"no problem is named {', '.join(unknown)}; known: {', '.join(linear)}")
    wanted = set(sizes) or ({"tiny", "small", "medium"} if not problems else set())
    chosen = [p for p in linear.values() if p.name in problems or p.size in wanted]
    before, here = measured.load_average(), r_environment()
    with ExitStack() as stack:
        workers = stack.enter_context(RWorkers(timeout=3600.0)) if here.embedded else None
        reference = (
            f"R {here.r_version}, lme4 {here.packages.get('lme4')}, {_blas(here.blas)}"
            if workers
            else "no R here"
        )
        click.echo(f"{reference}; one BLAS thread; {rounds} rounds in turns; load {before}")
        engines = stack.enter_context(_engines(names))
        judges, references = stack.enter_context(_judges(engines)) if digits else ({}, ())
        found = against.run(
            _announced(chosen), workers, rounds, engines=engines, judges=judges, references=references,
            with_memory=memory,
        )  # fmt: skip
        entries = tuple(entry for some in found for entry in some)
        curves = tuple(
            point
            for kind in _announced(list(kinds))
            for point in against.curve(kind, workers, max(3, rounds // 2))
        )
    fits = measured.Fits(measured.conditions(before, reference, rounds), entries, curves)
    click.echo(against.markdown(entries))
    for name, steepness in slopes(fits):
        click.echo(f"{name}: seconds grow as size^{steepness:.2f}")
    if path is not None:
        measured.write(path, fits)
    if history:
        click.echo(f"{_remember(fits)} rows added to {HISTORY}")
    if any(e.seconds is None for e in entries if e.engine == "mmcore"):
        sys.exit(1)


def slopes(fits: "Fits") -> list[tuple[str, float]]:
    """Fitted exponent of every scaling curve of three sizes or more: kind and engine, slope."""
    import numpy as np

    from parity.bench.timing import slope

    out = []
    for kind, engine in dict.fromkeys((p.kind, p.engine) for p in fits.curves):
        points = [p for p in fits.curves if (p.kind, p.engine) == (kind, engine)]
        if len(points) >= 3:
            sizes, seconds = np.array([p.size for p in points]), np.array([p.seconds for p in points])
            out.append((f"{kind}, {engine}", slope(sizes, seconds)))
    return out


def _blas(found: str | None) -> str:
    """The name of R's BLAS, without the path of this machine."""
    text = str(found or "unknown BLAS")
    return next(
        (name for name in ("openblas", "mkl", "blis", "atlas") if name in text.lower()), "reference BLAS"
    )


@contextmanager
def _engines(names: Sequence[str]) -> "Iterator[list[Engine]]":
    """The engines of the names, closed at the end; of ``all``, those that are here."""
    from parity.commands.usage import mistakes
    from parity.engines.load import load
    from parity.schema.engine import EngineUnavailable

    engines: list[Engine] = []
    for name in dict.fromkeys(n for given in names for n in (OTHERS if given == "all" else (given,))):
        try:
            with mistakes():
                engines.append(load(name))
        except Infrastructure as error:
            if not isinstance(error.__cause__, EngineUnavailable) or name in names:
                raise
            click.echo(f"not here: {error.message}", err=True)
    with closing(engines):
        yield engines


@contextmanager
def _judges(engines: "Sequence[Engine]") -> "Iterator[tuple[dict[str, Engine], Sequence[Engine]]]":
    """Whose digits are counted (mmcore, plain lmer, the engines), and against whose numbers."""
    from parity.engines.load import load
    from parity.engines.references import references
    from parity.schema.engine import EngineUnavailable

    judges: dict[str, Any] = {"mmcore": load("mmcore"), **{engine.name: engine for engine in engines}}
    with suppress(EngineUnavailable):
        judges["lme4"] = load("lme4")
    right = (load("certified"), *references("recorded")[0])
    with closing([judges[name] for name in judges if name == "lme4"]):
        yield judges, right


def _announced(items: Sequence[Any]) -> Iterator[Any]:
    for item in items:
        click.echo(f"measuring {getattr(item, 'name', f'scaling by {item}')} ...", err=True)
        yield item


def _remember(fits: "Fits") -> int:
    from parity.bench import history as past

    c = fits.conditions
    common = (c.time, c.machine, c.commit, c.versions["python"], c.versions["numpy"], c.reference)
    theirs = {e.problem: e.seconds for e in fits.entries if e.engine == "lme4"}
    nan = float("nan")
    rows = [
        past.Measurement(
            *common, e.problem, "fit", e.engine, e.seconds, (theirs.get(e.problem) or nan) / e.seconds,
            e.evaluations or 0, nan if e.peak_mb is None else e.peak_mb,
        )
        for e in fits.entries
        if e.seconds is not None
    ]  # fmt: skip
    return past.append(HISTORY, rows)


@bench.command()
@click.argument("base")
@click.option("--rounds", type=click.IntRange(5), default=11, show_default=True)
@click.option(
    "--markdown", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the table here."
)
@click.option("--problem", "problems", multiple=True, help="Only these problems of the plan.")
@click.option("--instructions", "counted", is_flag=True, help="Count instructions too (valgrind; minutes).")
def compare(base: str, rounds: int, path: Path | None, problems: tuple[str, ...], counted: bool) -> None:
    """Time every stage of BASE (a git revision) and of this checkout in turns; exit code 1 on a regression.

    A regression is a ratio above 1.15 and an excess above 20 ms and a 99 % interval that excludes 1, or more than
    15 % more evaluations of the criterion, or, where they are counted, more than 5 % more instructions.
    """
    from parity.bench import change, instructions

    head = Path.cwd()
    plan = [item for item in change.PLAN if not problems or item[0] in problems]
    if not plan:
        raise click.UsageError(f"the plan has {', '.join(name for name, _ in change.PLAN)}")
    if counted and not instructions.present():
        raise Infrastructure("--instructions needs valgrind, which is not installed here")
    try:
        with change.worktree(head, base) as checkout:
            found = change.compare(checkout, head, rounds=rounds, plan=plan, observer=_tell)
            for problem, stage in instructions.PLAN if counted else ():
                found.append(change.compare_instructions(checkout, head, problem, stage))
                _tell(found[-1])
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


def _tell(change: Any) -> None:
    click.echo(f"{change.problem:<12}{change.stage:<12}{change.outcome}", err=True)


@bench.command()
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), default=HISTORY, show_default=True
)
def history(path: Path) -> None:
    """List the series of the history and the steps in them; `bench report` draws them."""
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
