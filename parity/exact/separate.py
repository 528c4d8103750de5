"""Least squares within every level of a grouping factor, as enclosures, and what HLMdiag makes of it.

Which coefficients a level determines is R's decision in `lm`: column by column, one whose part outside the earlier
ones is shorter than 1e-7 of itself is aliased. Here the decision is proved, or the enclosure refused.
"""

from collections.abc import Sequence

import numpy as np
from flint import arb

from parity.exact.balls import Ball, Matrix, NotEnclosed, inverse, scaled_rows, submatrix
from parity.exact.lmm import Products

ALIASED = 1e-7  # of the length of a column within the level
NAN = arb(float("nan"))

Deviation = tuple[str, str, str, Ball]  # group, level, effect, coefficient less its mean

__all__ = ["deviations"]


def deviations(data: Products) -> list[Deviation]:
    """Per term, level and effect with a fixed effect of its name: the level's own least-squares coefficient less the
    mean over the levels of the same parent; NaN where the level does not determine it."""
    out: list[Deviation] = []
    names = data.design.x_names
    for term in data.design.terms:
        present = sorted(set(term.codes.tolist()))
        parents = _parents(data, term.codes, present)
        fits = [_coefficients(data, np.flatnonzero(term.codes == level)) for level in present]
        for effect in (name for name in term.effects if name in names):
            own = [fit[names.index(effect)] for fit in fits]
            means = [_mean([b for b, other in zip(own, parents, strict=True) if other == p]) for p in parents]
            out += [
                (term.group, term.labels[level], effect, b - mean)
                for level, b, mean in zip(present, own, means, strict=True)
            ]
    return out


def _mean(values: Sequence[Ball]) -> Ball:
    """Of those that are defined."""
    defined = [value for value in values if not value.is_nan()]
    return sum(defined, arb(0)) / len(defined) if defined else NAN


def _coefficients(data: Products, rows: np.ndarray) -> list[Ball]:
    """(p,) of weighted least squares on some rows, NaN where aliased."""
    index = rows.tolist()
    X, y = submatrix(data.X, index, range(data.p)), submatrix(data.y, index, [0])
    XtW = scaled_rows(X, [data.weights[row] for row in index]).transpose()
    gram = XtW * X
    kept = _estimable(gram)
    solution = inverse(submatrix(gram, kept, kept), "X'WX of a level") * submatrix(XtW * y, kept, [0])
    found = dict(zip(kept, solution.entries(), strict=True))
    return [found.get(j, NAN) for j in range(data.p)]


def _estimable(gram: Matrix) -> list[int]:
    """Columns that R's `lm` keeps: Gaussian elimination of X'WX, column by column."""
    rest, kept = gram * 1, []
    for j in range(gram.nrows()):
        left, limit = rest[j, j], gram[j, j] * arb(ALIASED) ** 2
        if left > limit:
            kept.append(j)
            column = [rest[i, j] for i in range(gram.nrows())]
            for a in range(gram.nrows()):
                for b in range(gram.nrows()):
                    rest[a, b] -= column[a] * column[b] / left
        elif not left <= limit:
            raise NotEnclosed("whether a column is aliased within a level is not proved")
    return kept


def _parents(data: Products, codes: np.ndarray, present: Sequence[int]) -> list[int]:
    """The level of the factor that holds each level whole, with most levels among those that do; 0 if none does."""
    found: tuple[int, list[int]] = (0, [0] * len(present))
    for other in data.design.terms:
        held = [set(other.codes[codes == level].tolist()) for level in present]
        count = len(set(other.codes.tolist()))
        if all(len(levels) == 1 for levels in held) and found[0] < count < len(present):
            found = count, [next(iter(levels)) for levels in held]
    return found[1]
