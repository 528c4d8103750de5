"""What the commands share: mistakes told in one line, with the exit code that says whose they are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from parity.case import Case

EXIT_USAGE, EXIT_INFRASTRUCTURE = 2, 3


class Infrastructure(click.ClickException):
    """What is needed is not here: not the user's mistake, not a difference."""

    exit_code = EXIT_INFRASTRUCTURE


@contextmanager
def mistakes() -> Iterator[None]:
    """What the user can mend is told in one line, with exit code 2; what the machine lacks, with 3."""
    from parity.case import CaseError
    from parity.engine import EngineError, EngineUnavailable
    from parity.fuzz import FuzzError
    from parity.known import KnownError
    from parity.policy import PolicyError

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


@contextmanager
def closing(engines: Sequence[object]) -> Iterator[None]:
    """Engines that hold processes stop them at the end, whatever happens."""
    try:
        yield
    finally:
        for engine in engines:
            close = getattr(engine, "close", None)
            if callable(close):
                close()


def chosen_cases(wanted: tuple[str, ...], slow: bool) -> "tuple[Case, ...]":
    """The shipped cases that match what was written on the command line."""
    from parity.case import load_cases, select

    return select(load_cases(), wanted, slow=slow)
