"""The problems that speed is measured on: models on shipped data, and simulated ones for the larger sizes.

Simulated data come from a seed and do not depend on any library but NumPy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from parity.schema.case import Case


@dataclass(frozen=True, slots=True)
class Problem:
    """One model on one data set, at one size."""

    name: str
    size: str  # tiny | small | medium | large
    formula: str
    data: Callable[[], pd.DataFrame]
    aim: float  # times as fast as lme4::lmer that the engine is to be
    reml: bool = True
    family: str = "gaussian"  # another: fitted by glmer
    dataset: str = ""  # name of the shipped data set; "" for simulated data
    criterion: float | None = None  # what lme4 and mmcore agree on: checked before anything is timed
    reference: str = (
        ""  # name of the parity case of this very model, whose reference says how right an engine is
    )

    @property
    def case(self) -> "Case | None":
        """The model as a case, for engines; None where the data are simulated."""
        if not self.dataset:
            return None
        from parity.schema.case import Case  # an older checkout that is only timed may have another

        return Case(name=f"bench_{self.name}", data=self.dataset, formula=self.formula, reml=self.reml)


def shipped(name: str) -> Callable[[], pd.DataFrame]:
    """A data set of the package."""

    def load() -> pd.DataFrame:
        import mmcore as mm

        return mm.load_dataset(name)

    return load


def ratings(rows: int, users: int, items: int, seed: int = 1) -> Callable[[], pd.DataFrame]:
    """Ratings of items by users, crossed and unbalanced: popularity falls off as a power of the rank."""

    def make() -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        user = _popular(rng, users, rows, 0.7)
        item = _popular(rng, items, rows, 0.9)
        y = (
            3.5
            + 0.4 * rng.normal(size=users)[user]
            + 0.6 * rng.normal(size=items)[item]
            + rng.normal(size=rows)
        )
        return pd.DataFrame({"y": y, "user": pd.Categorical(user), "item": pd.Categorical(item)})

    return make


def _popular(rng: np.random.Generator, levels: int, rows: int, power: float) -> np.ndarray:
    """(rows,) levels drawn with probability rank^-power; every level occurs."""
    weight = np.arange(1, levels + 1) ** -power
    drawn = rng.choice(levels, rows - levels, p=weight / weight.sum())
    return rng.permutation(np.concatenate([np.arange(levels), drawn]))


def grouped_slopes(rows: int, groups: int, seed: int = 2) -> Callable[[], pd.DataFrame]:
    """Random intercepts and slopes in many groups."""

    def make() -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        g, x = rng.integers(0, groups, rows), rng.normal(size=rows)
        b0, b1 = 0.5 * rng.normal(size=groups), 0.3 * rng.normal(size=groups)
        y = 1.0 + 0.5 * x + b0[g] + b1[g] * x + rng.normal(size=rows)
        return pd.DataFrame({"y": y, "x": x, "g": pd.Categorical(g)})

    return make


def nested(rows: int, inner: int, outer: int, seed: int = 3) -> Callable[[], pd.DataFrame]:
    """Groups within groups: each of the inner ones belongs to one outer one."""

    def make() -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        a, x = rng.integers(0, inner, rows), rng.normal(size=rows)
        parent = rng.integers(0, outer, inner)
        y = 1.0 + 0.5 * x + 0.6 * rng.normal(size=inner)[a] + 0.4 * rng.normal(size=outer)[parent[a]]
        y = y + rng.normal(size=rows)
        return pd.DataFrame({"y": y, "x": x, "a": pd.Categorical(a), "b": pd.Categorical(parent[a])})

    return make


def _on(
    dataset: str, name: str, size: str, formula: str, aim: float, criterion: float | None, reference: str = ""
) -> Problem:
    family = "binomial" if formula.startswith("cbind") else "gaussian"
    return Problem(
        name, size, formula, shipped(dataset), aim, family=family, dataset=dataset, criterion=criterion,
        reference=reference,
    )  # fmt: skip


_CROSSED = "y ~ 1 + (1 | user) + (1 | item)"
_CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
_ALL = (
    _on(
        "sleepstudy",
        "sleepstudy",
        "tiny",
        "Reaction ~ Days + (Days | Subject)",
        6,
        1743.628271958491,
        "sleepstudy_slope_reml",
    ),
    _on(
        "Penicillin",
        "penicillin",
        "tiny",
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        6,
        330.86058899108656,
        "penicillin_crossed_reml",
    ),
    _on(
        "Pastes",
        "pastes",
        "tiny",
        "strength ~ 1 + (1 | batch/cask)",
        6,
        246.99074585348552,
        "pastes_nested_reml",
    ),
    _on(
        "Hsb82",
        "hsb82",
        "small",
        "mAch ~ cses * sector + (cses | school)",
        25,
        46638.60241667885,
        "hsb82_slope_reml",
    ),
    _on(
        "InstEval",
        "insteval",
        "medium",
        "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
        8,
        237661.5357197438,
    ),
    _on("InstEval", "insteval_vector", "large", "y ~ service + (service | s) + (service | d)", 2.5, None),
    Problem("ratings_100k", "medium", _CROSSED, ratings(100_000, 943, 1_655), 6, criterion=289384.9744019873),
    Problem("ratings_1m", "large", _CROSSED, ratings(1_000_000, 6_040, 3_699), 3.5),
    Problem("slopes_1m", "large", "y ~ x + (x | g)", grouped_slopes(1_000_000, 50_000), 40),
    _on("cbpp", "cbpp", "tiny", _CBPP, 4, 184.05256372951422),
    Problem("nested_1m", "large", "y ~ x + (1 | a) + (1 | b)", nested(1_000_000, 50_000, 2_000), 100),
)

PROBLEMS: MappingProxyType[str, Problem] = MappingProxyType({p.name: p for p in _ALL})
SIZES = ("tiny", "small", "medium", "large")


def scaling(kind: str) -> list[tuple[int, Problem]]:
    """Problems of growing size for a scaling curve: ``n`` (rows), ``q`` (levels) or ``terms``."""
    if kind == "n":
        return [(n, _slopes(n, 200)) for n in (2_000, 8_000, 32_000, 128_000, 512_000)]
    if kind == "q":
        return [(q, _slopes(64_000, q)) for q in (50, 200, 800, 3_200, 12_800)]
    if kind == "terms":
        return [(t, _terms(t)) for t in (1, 2, 3, 4)]
    raise ValueError(f"{kind!r} is not one of n, q, terms")


def _slopes(rows: int, groups: int) -> Problem:
    return Problem(
        f"slopes n={rows} q={2 * groups}", "small", "y ~ x + (x | g)", grouped_slopes(rows, groups), 1
    )


def _terms(count: int) -> Problem:
    names = "abcd"[:count]

    def make() -> pd.DataFrame:
        rng = np.random.default_rng(count)
        columns: dict[str, Any] = {}
        y = rng.normal(size=20_000)
        for name, levels in zip(names, (400, 200, 100, 50), strict=False):
            code = rng.integers(0, levels, len(y))
            columns[name] = pd.Categorical(code)
            y = y + 0.5 * rng.normal(size=levels)[code]
        return pd.DataFrame({"y": y, **columns})

    return Problem(f"{count} crossed", "small", "y ~ 1 + " + " + ".join(f"(1 | {n})" for n in names), make, 1)
