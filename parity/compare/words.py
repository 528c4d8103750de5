"""Numbers and labels as short text."""

from __future__ import annotations

import math

from parity.compare.judge import Row

__all__ = ["brief", "digits_text", "exact", "where"]


def exact(x: float | None) -> str:
    """A number at 17 significant digits, which reads back to the same double."""
    return "none" if x is None else f"{x:.17g}"


def brief(x: float | None) -> str:
    """A number at a glance."""
    return "" if x is None else f"{x:.2g}"


def digits_text(x: float | None) -> str:
    """Digits of agreement for a table; nothing where nothing was measured."""
    return "" if x is None else f"{math.floor(x * 10) / 10:.1f}"


def where(row: Row) -> str:
    """The place of a row: case, lane and quantity, with the worst element."""
    element = f"[{row.label}]" if row.label else ""
    return f"{row.case} / {row.lane} / {row.quantity}{element}"
