"""Commands with which the harness proves itself: certificates of what the right numbers are."""

import sys
from pathlib import Path

import click

from parity.usage import Infrastructure, chosen_cases, mistakes

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
    from parity.certify import CertificateError, certificates, certify_all
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


COMMANDS = (certify,)
