"""Commands with which the harness proves itself: what the right numbers are, and that wrong ones are seen."""

import sys
from pathlib import Path
from typing import Any

import click

from parity.commands.usage import Infrastructure, chosen_cases, mistakes
from parity.engines.closing import closing

# What is heavy is imported by the commands that need it: `--help` answers at once.


@click.command()
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where to.  [default: the certified references]",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace certificates whose numbers differ.")
def certify(cases: tuple[str, ...], out: Path | None, overwrite: bool) -> None:
    """Prove the optimum of cases in ball arithmetic and store their quantities with 28 digits.

    Without any CASE, the certificates that exist are proved again and compared. Needs python-flint.
    """
    from parity.proof.certify import certify_all
    from parity.references.certificates import CertificateError, certificates
    from parity.resources import certified_dir

    with mistakes():
        directory = out or certified_dir()
        try:
            wanted = cases or tuple(found.case.name for found in certificates(directory))
        except CertificateError as error:
            raise Infrastructure(str(error)) from error
        chosen = chosen_cases(wanted, slow=True) if wanted else ()
    if not chosen:
        raise click.UsageError(f"{directory} holds no certificates; name the cases to certify")
    kinds = []
    for change in certify_all(chosen, directory, overwrite=overwrite):
        kinds.append(change.kind)
        click.echo(f"{change.kind:<9} {change.case}")
        for detail in change.details:
            click.echo(f"          {detail}")
    if "failed" in kinds:
        raise Infrastructure(f"{kinds.count('failed')} cases could not be certified")
    if "changed" in kinds and not overwrite:
        click.echo(
            f"{kinds.count('changed')} certificates differ and were left alone; --overwrite replaces them"
        )
        sys.exit(1)


@click.command()
@click.argument("names", nargs=-1, metavar="[MUTANT]...")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Mutants tried at once.")
def mutants(names: tuple[str, ...], jobs: int) -> None:
    """Put faults into mmcore's mathematics, one at a time, and see whether the gate catches each.

    Exit code 1 if one survives, or if an engine that answers only zeros passes anywhere.
    """
    from parity.proof.mutants import MutantError, blind_spots, hunt, load_mutants

    try:
        known = load_mutants()
        unknown = sorted(set(names) - {mutant.name for mutant in known})
        if unknown:
            raise click.UsageError(f"there is no mutant {', '.join(unknown)}")
        chosen = [mutant for mutant in known if not names or mutant.name in names]
        outcomes = []
        for outcome in hunt(chosen, jobs=jobs):
            outcomes.append(outcome)
            click.echo(f"{'caught  ' if outcome.caught else 'SURVIVED'} {outcome.mutant}: {outcome.by}")
        blind = blind_spots()
    except MutantError as error:
        raise Infrastructure(str(error)) from error
    for spot in blind:
        click.echo(f"an engine of zeros passes: {spot}")
    caught = sum(outcome.caught for outcome in outcomes)
    click.echo(f"mutation score {caught} of {len(outcomes)} ({100 * caught / len(outcomes):.1f} %)")
    sys.exit(int(caught < len(outcomes) or bool(blind)))


_SIDES = (
    click.option("--engine", "engine_name", default="mmcore", show_default=True, help="The engine under test."),
    click.option(
        "--reference", "reference_name", default="default", metavar="NAME",
        help="live, first-principles, none or an engine  [default: live where R is, else first-principles]",
    ),
)  # fmt: skip


def _with_sides(command: Any) -> Any:
    for option in reversed(_SIDES):
        command = option(command)
    return command


@click.command()
@_with_sides
@click.option("--examples", type=click.IntRange(1), default=320, show_default=True, help="Over all classes.")
@click.option(
    "--seed", type=int, default=None, help="The same seed gives the same models.  [default: drawn and shown]"
)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only these classes.  [default: all]")
@click.option(
    "--properties/--no-properties", default=True, show_default=True, help="Statements without a reference."
)
@click.option("--derandomize", is_flag=True, help="The same models on every machine and at every time.")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Classes explored at once."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default="parity-findings", show_default=True,
    help="Where findings are written.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Make each finding a regression case in tests/regressions.")
def fuzz(**options: Any) -> None:
    """Make up models, class by class, and look for one on which the engine and the reference differ.

    Each finding is shrunk to the plainest model that still shows it and written with scripts in R and Python.
    Exit code 1 if there is one.
    """
    from parity.fuzz.program import run_fuzz

    with mistakes():
        sys.exit(run_fuzz(echo=click.echo, **options))


@click.command()
@click.argument("wanted", metavar="ID|FILE")
@_with_sides
def replay(wanted: str, engine_name: str, reference_name: str) -> None:
    """Run one finding, regression or case again: by id, by the folder of a finding, or by file."""
    from parity.fuzz.program import run_replay

    with mistakes():
        sys.exit(run_replay(wanted, engine_name, reference_name, echo=click.echo))


@click.command()
@click.option(
    "--models", type=click.IntRange(1), default=64, show_default=True, help="Made-up models to measure on."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--check", is_flag=True, help="Only hold the gates against what was measured; needs no R.")
@click.option("--write", is_flag=True, help="Keep what is measured as parity/calibration.json.")
def calibrate(models: int, seed: int, check: bool, write: bool) -> None:
    """Measure how far R is from itself, and propose gates. Exit code 1 if a gate is looser without a reason."""
    from parity.engines.load import load
    from parity.proof import calibrate as calibration
    from parity.schema.policy import default_policy

    policy = default_policy()
    with mistakes():
        if check:
            try:
                measured = calibration.read_calibration()
            except calibration.CalibrationError as error:
                raise Infrastructure(str(error)) from error
        else:
            live = load("live")
            with closing([live]):
                measured = calibration.calibrate(live, models, seed)
            if write:
                calibration.write_calibration(measured)
    if not check:
        for row in measured.noise:
            gate = policy.gates.get((row.lane, row.quantity))
            now = "" if gate is None else f"{gate.value:g}" + (f" ({gate.measure})" if gate.measure else "")
            click.echo(
                f"{row.lane:<9} {row.quantity:<32} median {row.median:<8.1e} largest {row.largest:<8.1e} "
                f"proposed {row.proposed:<8g} gate {now}"
            )
        click.echo(
            f"{measured.models} models, {measured.singular} singular or failed left out; {measured.versions}"
        )
    loose, tight = calibration.loose_gates(policy, measured), calibration.tight_gates(policy, measured)
    for gate_ in loose:
        click.echo(f"LOOSE {gate_}")
    for gate_ in tight:
        click.echo(
            f"TIGHT {gate_.lane} / {gate_.quantity}: {gate_.gate:g} is below R's own spread {gate_.proposed:g}"
        )
    click.echo(
        f"{len(loose)} gates looser than measured without a reason, {len(tight)} tighter than R is with itself"
    )
    sys.exit(int(bool(loose)))


COMMANDS = (calibrate, certify, fuzz, mutants, replay)
