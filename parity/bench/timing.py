"""Times of two sides taken in turns, and what can be said of their ratio.

A machine's load changes from second to second. Two sides are therefore measured A B A B ... and compared round by
round: the ratio is the median over rounds of the ratio within a round, so load that hits both sides of a round
cancels, and its uncertainty is a bootstrap over rounds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

ROUND_SECONDS = 0.1  # a round repeats short work until it fills this
MOST_REPEATS = 50


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long `a` takes as `b`."""

    value: float  # median over rounds of the ratio within a round
    low: float  # bootstrap interval
    high: float
    a: float  # median seconds of side a
    b: float  # median seconds of side b
    rounds: int


@dataclass(frozen=True, slots=True)
class Rule:
    """When a change is a regression: all three conditions together, so that neither noise nor trifles count."""

    ratio: float = 1.15  # head / base above this, and
    seconds: float = 0.020  # absolute excess above this, and
    level: float = 0.99  # the interval of the ratio at this level excludes 1
    evaluations: float = 1.15  # evaluations of the criterion gate on their own: they have no noise


def repeats_for(seconds: float) -> int:
    """Repetitions of work of this length that fill a round."""
    return max(1, min(MOST_REPEATS, round(ROUND_SECONDS / max(seconds, 1e-9))))


def in_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds per side and round, (rounds,) each; every second round runs the sides in reverse order.

    Each side is a function that does its work and returns how long one repetition took.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for i in range(rounds):
        for name in names if i % 2 == 0 else reversed(names):
            times[name].append(float(sides[name]()))
    return {name: np.array(values) for name, values in times.items()}


def ratio(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, level: float = 0.99, draws: int = 4000
) -> Ratio:
    """The median of a / b with a percentile bootstrap interval; a, b: (rounds,) of the same rounds."""
    if a.shape != b.shape or not len(a):
        raise ValueError(f"the sides were measured in {a.shape} and {b.shape} rounds; rounds must pair up")
    pick = rng.integers(0, len(a), (draws, len(a)))
    within = a / b
    drawn = np.median(within[pick], axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    middle = float(np.median(within))
    return Ratio(middle, float(low), float(high), float(np.median(a)), float(np.median(b)), len(a))


def slower(head_over_base: Ratio, rule: Rule) -> bool:
    """Whether the head is a regression by the rule (time only)."""
    return (
        head_over_base.value > rule.ratio
        and head_over_base.a - head_over_base.b > rule.seconds
        and head_over_base.low > 1.0
    )


def slope(sizes: np.ndarray, seconds: np.ndarray) -> float:
    """Exponent of a scaling curve: least-squares slope of log seconds on log size."""
    x = np.log(np.asarray(sizes, float))
    return float(np.polyfit(x, np.log(np.asarray(seconds, float)), 1)[0])
