"""Sizes of arrays before they are made: what would not fit is refused with its name."""

import os

from ..errors import DesignError

__all__ = ["at_most", "largest", "readable"]

SHARE = 0.5  # of the machine's memory that one model may take
UNKNOWN = 8 * 2**30  # bytes of memory where the system does not tell
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def largest() -> float:
    """Bytes that the arrays of one model may take: half of the memory, or of the limit set for this process."""
    try:
        memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        memory = float(UNKNOWN)
    try:
        import resource
    except ImportError:  # not on Windows
        return SHARE * memory
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return SHARE * (memory if limit == resource.RLIM_INFINITY else min(memory, float(limit)))


def at_most(size: float, what: str, instead: str) -> None:
    """Raise DesignError if `size` bytes are too many; `what` is what needs them, `instead` what to write."""
    most = largest()
    if size > most:
        raise DesignError(
            f"{what}, which needs about {readable(size)} of memory; {readable(most)} may be used here. {instead}"
        )


def readable(size: float) -> str:
    """A number of bytes for people: 2.8 GiB."""
    unit = 0
    while size >= 1024.0 and unit < len(UNITS) - 1:
        size, unit = size / 1024.0, unit + 1
    return f"{size:.3g} {UNITS[unit]}"
