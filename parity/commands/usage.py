"""What the commands share: mistakes told in one line, with the exit code that says whose they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from parity.schema.case import Case

EXIT_USAGE, EXIT_INFRASTRUCTURE = 2, 3


class Infrastructure(click.ClickException):
    """What is needed is not here: not the user's mistake, not a difference."""

    exit_code = EXIT_INFRASTRUCTURE


@contextmanager
def mistakes() -> Iterator[None]:
    """What the user can mend is told in one line, with exit code 2; what the machine lacks, with 3."""
    from parity.fuzz.explore import FuzzError
    from parity.schema.case import CaseError
    from parity.schema.engine import EngineError, EngineUnavailable
    from parity.schema.known import KnownError
    from parity.schema.policy import PolicyError

    try:
        yield
    except EngineUnavailable as error:
        raise Infrastructure(str(error)) from error
    except KeyError as error:
        raise click.UsageError(str(error.args[0])) from error
    except (CaseError, EngineError, FuzzError, KnownError, PolicyError) as error:
        raise click.UsageError(str(error)) from error
    except FileNotFoundError as error:
        raise Infrastructure(str(error)) from error


def chosen_cases(wanted: tuple[str, ...], slow: bool) -> "tuple[Case, ...]":
    """The shipped cases that match what was written on the command line."""
    from parity.schema.case import load_cases, select

    return select(load_cases(), wanted, slow=slow)
