"""Linear hypotheses written as text: ``"Days = 10, x - z = 0"`` -> rows over the coefficients and right sides.

A hypothesis is an expression, ``=`` and another one; without ``=`` it is compared with zero. Expressions are sums of
numbers and multiples of coefficients by their names, as ``fit.fixef`` has them; backquotes are allowed around a name.
Nothing is evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ...errors import FormulaError

__all__ = ["parse_hypotheses"]

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[\w.]")
Linear = tuple[np.ndarray, float]  # coefficients (p,) and constant


def parse_hypotheses(text: str, names: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels, L (q, p) and rhs (q,) of the hypotheses L beta = rhs in ``text``, separated by commas.

    Raises FormulaError that points at what is not understood, with the names that there are.
    """
    reader = _Reader(text, names)
    labels, rows, right = [], [], []
    while True:
        start = reader.position
        row, value = reader.hypothesis()
        labels.append(text[start : reader.position].strip())
        rows.append(row)
        right.append(value)
        if not reader.accept(","):
            break
    if reader.position < len(text):
        raise reader.error("expected '=', ',', an operator or the end")
    return labels, np.array(rows), np.array(right)


class _Reader:
    """Recursive descent over one text."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names, self.position = text, list(names), 0
        self.longest_first = sorted(names, key=len, reverse=True)

    def error(self, message: str) -> FormulaError:
        return FormulaError(f"{message}; coefficients are {', '.join(self.names)}", self.text, self.position)

    def accept(self, sign: str) -> bool:
        self._skip()
        found = self.text.startswith(sign, self.position)
        self.position += len(sign) * found
        return found

    def _skip(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def hypothesis(self) -> tuple[np.ndarray, float]:
        """Row and right side of ``left [= right]``."""
        start = self.position
        left, constant = self._sum()
        if self.accept("==") or self.accept("="):
            other, more = self._sum()
        else:
            other, more = np.zeros(len(self.names)), 0.0
        row = left - other
        if not row.any():
            self.position = start
            raise self.error("a hypothesis has to involve a coefficient")
        return row, more - constant

    def _sum(self) -> Linear:
        negative = self.accept("-")
        if not negative:
            self.accept("+")
        row, constant = self._product()
        row, constant = (-row, -constant) if negative else (row, constant)
        while True:
            if self.accept("+"):
                sign = 1.0
            elif self.accept("-"):
                sign = -1.0
            else:
                return row, constant
            more, value = self._product()
            row, constant = row + sign * more, constant + sign * value

    def _product(self) -> Linear:
        row, constant = self._factor()
        while True:
            if self.accept("*"):
                other, value = self._factor()
                if row.any() and other.any():
                    raise self.error("a product of two coefficients is not linear")
                row, constant = row * value + other * constant, constant * value
            elif self.accept("/"):
                other, value = self._factor()
                if other.any() or value == 0.0:
                    raise self.error("only a number other than 0 can divide")
                row, constant = row / value, constant / value
            else:
                return row, constant

    def _factor(self) -> Linear:
        self._skip()
        name = self._name()
        if name is not None:
            return np.eye(len(self.names))[self.names.index(name)], 0.0
        number = _NUMBER.match(self.text, self.position)
        if number is not None:
            self.position = number.end()
            return np.zeros(len(self.names)), float(number.group())
        if self.accept("("):
            inner = self._sum()
            if not self.accept(")"):
                raise self.error("expected ')'")
            return inner
        raise self.error("expected the name of a coefficient or a number")

    def _name(self) -> str | None:
        """The longest coefficient name here, with or without backquotes; it ends where a word ends."""
        for name in self.longest_first:
            for written in (f"`{name}`", name):
                end = self.position + len(written)
                if self.text.startswith(written, self.position) and not (
                    _WORD.match(written[-1]) and end < len(self.text) and _WORD.match(self.text[end])
                ):
                    self.position = end
                    return name
        return None
