"""What turns an engine's numbers into the reference's: the simplest relation that holds for all elements.

Pure functions on values. A relation is tried by undoing it: the engine's numbers are corrected, and the relation is
named only if every corrected element is within the gate. Nothing here changes a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Facts", "Found", "merged", "named_factors", "relation"]

FEW = 3  # elements that a relation with a free number, or another order, must explain
DISTINCT = 30.0  # gates by which a named factor must differ from one: else it could hold by chance
Agrees = Callable[[np.ndarray], bool]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a comparison besides its numbers."""

    unit: str  # how the quantity scales with y: "1", "log", "y", "y^2"
    index: str  # how it is labelled: a key of `INDEXES`
    n: float | None = None  # rows
    p: float | None = None  # fixed effects
    sigma: float | None = None
    gate: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """A relation: `cause` groups quantities that one mistake explains, `text` says it."""

    cause: str
    text: str


def relation(
    got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts, agrees: Agrees
) -> Found | None:
    """The first relation that holds, or None.

    Parameters
    ----------
    got, want : (m,) the engine's and the reference's numbers, in the order of `labels`.
    agrees : says whether (m,) corrected numbers of the engine are all within the gate.
    """
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return None
    for tries in (_factors, _differences, _powers, _orders, _one_factor, _one_difference):
        for corrected, found in tries(got, want, labels, facts):
            if np.isfinite(corrected).all() and agrees(corrected):
                return found
    return _one_place(got, want, labels, agrees)


Tries = Iterator[tuple[np.ndarray, Found]]


def _factors(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts) -> Tries:
    """Constants that have a name. A factor is what the engine's numbers are, of the reference's."""
    for factor, found in named_factors(facts):
        if abs(factor - 1.0) > DISTINCT * facts.gate and np.isfinite(factor) and factor:
            yield got / factor, found


def named_factors(facts: Facts) -> Iterator[tuple[float, Found]]:
    """Every factor with a name, and the mistake that it is a sign of."""
    yield -1.0, _times("sign", "-1: the sign is turned")
    yield from ((x, _times("twice", f"{said}: a factor of two")) for x, said in ((2.0, "2"), (0.5, "1/2")))
    yield from (
        (x, _times("deviance", f"{said}: a log-likelihood for a deviance"))
        for x, said in ((-0.5, "-1/2"), (-2.0, "-2"))
    )
    if facts.n and facts.p and facts.n > facts.p:
        share = (facts.n - facts.p) / facts.n
        ml, reml = "ML estimate of sigma", "REML estimate of sigma"
        yield share**0.5, _times("ml sigma", f"sqrt((n - p) / n): {ml}")
        yield share, _times("ml sigma", f"(n - p) / n: {ml}")
        yield share**-0.5, _times("reml sigma", f"sqrt(n / (n - p)): {reml}")
        yield 1 / share, _times("reml sigma", f"n / (n - p): {reml}")
    if facts.sigma:
        absolute, relative = "absolute for relative scale", "relative for absolute scale"
        yield facts.sigma, _times("absolute scale", f"sigma: {absolute}")
        yield facts.sigma**2, _times("absolute scale", f"sigma^2: {absolute}")
        yield 1 / facts.sigma, _times("relative scale", f"1 / sigma: {relative}")
        yield facts.sigma**-2, _times("relative scale", f"1 / sigma^2: {relative}")


TIMES = "the engine's numbers are the reference's times "


def _times(cause: str, text: str) -> Found:
    return Found(cause, f"{TIMES}{text}")


def merged(texts: Sequence[str]) -> str:
    """The sentences of one cause as one: a factor of standard deviations and its square of variances."""
    different = list(dict.fromkeys(texts))
    factors = [text.removeprefix(TIMES).partition(": ")[0] for text in different if text.startswith(TIMES)]
    if len(factors) < len(different):
        return different[0] if len(different) == 1 else f"{different[0]}, or alike"
    mistake = different[0].partition(": ")[2]
    return TIMES + " or ".join(factors) + (f": {mistake}" if mistake else "")


def _differences(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts) -> Tries:
    """Constants of a likelihood, and centering."""
    if facts.unit == "log" and facts.n:
        degrees = facts.n if not facts.p else facts.n - facts.p
        for count, said in ((facts.n, "n"), (degrees, "(n - p)")):
            for sign, word in ((-1, "lack"), (1, "have twice")):
                constant = sign * count * np.log(2 * np.pi)
                yield (
                    got - constant,
                    Found("constant of the likelihood", f"the engine's numbers {word} {said} log(2 pi)"),
                )
    if len(got) >= FEW:
        text = "the engine's numbers are the reference's minus their mean: centered"
        yield got + want.mean(), Found("centered", text)


def _powers(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts) -> Tries:
    with np.errstate(all="ignore"):
        yield (
            np.sqrt(got),
            Found(
                "squared",
                "the engine's numbers are the squares of the reference's: variance for standard deviation",
            ),
        )
        yield (
            np.square(got),
            Found(
                "root",
                "the engine's numbers are the roots of the reference's: standard deviation for variance",
            ),
        )
        yield (
            np.log(got),
            Found("exponential", "the engine's numbers are the exponentials of the reference's"),
        )
        yield np.exp(got), Found("logarithm", "the engine's numbers are the logarithms of the reference's")


def _orders(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts) -> Tries:
    """The right numbers under the wrong labels."""
    m = len(got)
    if m < 2 or len(np.unique(want)) < min(m, FEW):
        return
    yield from _transposed(got, labels)
    yield got[::-1], Found("reversed", "the engine's numbers are right in the reverse order of labels")
    if m < FEW:
        return
    for step in (1, -1):
        text = (
            f"the engine's numbers are right with the labels shifted by {abs(step)}: each has its neighbor's"
        )
        yield np.roll(got, step), Found("shifted labels", text)
    sorted_got = np.empty(m)
    sorted_got[np.argsort(want, kind="stable")] = np.sort(got)
    yield (
        sorted_got,
        Found("permuted labels", "the engine's numbers are right in another order: a permutation of labels"),
    )


def _transposed(got: np.ndarray, labels: tuple[str, ...]) -> Tries:
    """A matrix read by columns for one read by rows."""
    parts = [label.rsplit("|", 1) for label in labels]
    if any(len(part) != 2 for part in parts):
        return
    columns = len(dict.fromkeys(part[1] for part in parts))
    rows = len(got) // columns
    if rows < 2 or columns < 2 or rows * columns != len(got):
        return
    text = "the engine's numbers are right read by columns: a matrix is transposed"
    yield got.reshape(columns, rows).T.ravel(), Found("transposed", text)


def _one_factor(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts) -> Tries:
    """A constant factor without a name."""
    if np.count_nonzero(want) < FEW or not want @ want:
        return
    factor = float(got @ want / (want @ want))
    if factor and abs(factor - 1.0) > facts.gate:
        yield (
            got / factor,
            Found(f"factor {factor:.4g}", f"the engine's numbers are the reference's times {factor:.6g}"),
        )


def _one_difference(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], facts: Facts) -> Tries:
    if len(got) >= FEW:
        difference = float(np.mean(got - want))
        text = f"the engine's numbers are the reference's plus {difference:.6g}"
        yield got - difference, Found("constant difference", text)


def _one_place(got: np.ndarray, want: np.ndarray, labels: tuple[str, ...], agrees: Agrees) -> Found | None:
    """All elements agree but those of one level, row or coefficient."""
    if len(labels) < FEW:
        return None
    names: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        parts = label.split("|")
        for k in range(1, len(parts) + 1):
            names.setdefault("|".join(parts[:k]), []).append(i)
        if len(parts) > 1:
            names.setdefault(parts[-1], []).append(i)
    wrong = int(np.argmax(np.abs(got - want)))
    for name, places in sorted(names.items(), key=lambda item: len(item[1])):
        if wrong in places and 2 * len(places) <= len(labels):
            mended = got.copy()
            mended[places] = want[places]
            if agrees(mended):
                return Found("one place", f"only the elements of {name} differ")
    return None
