"""Small helpers for matrices of balls. A ball is a midpoint and a rigorous bound of its error (`flint.arb`).

Doubles enter exactly; the precision of all operations is that of `flint.ctx` at the time.
"""

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

Ball = Any  # flint.arb
Matrix = Any  # flint.arb_mat


class NotEnclosed(ArithmeticError):
    """A statement could not be proved at this precision; the message says which."""


@contextmanager
def precision(bits: int) -> Any:
    """Operations inside are done with `bits` bits."""
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def matrix(values: np.ndarray) -> Matrix:
    """A matrix of doubles, exactly; a vector becomes a column."""
    array = np.asarray(values, dtype=np.float64)
    array = array.reshape(len(array), -1)
    return arb_mat(array.shape[0], array.shape[1], [arb(float(x)) for x in array.ravel()])


def zeros(rows: int, columns: int) -> Matrix:
    """A matrix of exact zeros."""
    return arb_mat(rows, columns)


def identity(n: int) -> Matrix:
    """The identity."""
    return diagonal([arb(1)] * n)


def diagonal(values: Sequence[Ball]) -> Matrix:
    """A diagonal matrix."""
    out = arb_mat(len(values), len(values))
    for i, value in enumerate(values):
        out[i, i] = value
    return out


def column(values: Iterable[Ball]) -> Matrix:
    """A column of balls."""
    items = list(values)
    return arb_mat(len(items), 1, items)


def submatrix(A: Matrix, rows: Sequence[int], columns: Sequence[int]) -> Matrix:
    """The given rows and columns."""
    return arb_mat(len(rows), len(columns), [A[i, j] for i in rows for j in columns])


def scaled_rows(A: Matrix, factors: Sequence[Ball]) -> Matrix:
    """Each row times its factor."""
    entries, columns = A.entries(), A.ncols()
    return arb_mat(A.nrows(), columns, [entries[k] * factors[k // columns] for k in range(len(entries))])


def diagonal_of(A: Matrix) -> list[Ball]:
    """The diagonal."""
    return [A[i, i] for i in range(A.nrows())]


def diagonal_of_product(A: Matrix, B: Matrix) -> list[Ball]:
    """The diagonal of A B, without the rest."""
    a, b, inner, n = A.entries(), B.entries(), A.ncols(), B.ncols()
    return [sum((a[i * inner + k] * b[k * n + i] for k in range(inner)), arb(0)) for i in range(A.nrows())]


def trace_of_product(A: Matrix, B: Matrix) -> Ball:
    """tr(A B) for symmetric B of the same shape: the sum of the products of entries."""
    return sum((x * y for x, y in zip(A.entries(), B.entries(), strict=True)), arb(0))


def symmetric(A: Matrix) -> Matrix:
    """(A + A') / 2."""
    return (A + A.transpose()) / 2


def inverse(A: Matrix, what: str) -> Matrix:
    """The inverse.

    Raises
    ------
    NotEnclosed
        if A is not proved invertible at this precision.
    """
    if not A.nrows():
        return A
    try:
        return A.inv()
    except ZeroDivisionError as error:
        raise NotEnclosed(f"{what} is not proved invertible at {ctx.prec} bits") from error


def cholesky(A: Matrix, what: str) -> Matrix:
    """Lower L with A = L L'; a proof that the symmetric A is positive definite.

    Raises
    ------
    NotEnclosed
        if a pivot is not proved positive.
    """
    n = A.nrows()
    rows: list[list[Ball]] = []
    for i in range(n):
        row: list[Ball] = []
        for j in range(i):
            value = A[i, j]
            for x, y in zip(row, rows[j], strict=False):
                value -= x * y
            row.append(value / rows[j][j])
        pivot = A[i, i] - sum((x * x for x in row), arb(0))
        if not pivot > 0:
            raise NotEnclosed(f"{what} is not proved positive definite at {ctx.prec} bits (pivot {i + 1})")
        rows.append([*row, pivot.sqrt()])
    return arb_mat(n, n, [row[j] if j < len(row) else arb(0) for row in rows for j in range(n)])


def log_determinant(A: Matrix, what: str) -> Ball:
    """log det A of a matrix whose determinant is proved positive."""
    if not A.nrows():
        return arb(0)
    determinant = A.det()
    if not determinant > 0:
        raise NotEnclosed(f"the determinant of {what} is not proved positive at {ctx.prec} bits")
    return determinant.log()


def middle(A: Matrix) -> Matrix:
    """The midpoints, as exact balls."""
    return A.mid()
