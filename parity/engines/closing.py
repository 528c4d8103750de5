"""The end of engines that hold processes. Loads nothing: the command line starts with it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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
