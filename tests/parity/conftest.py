"""Engines made for the tests: they answer from a table of values, and do wrong on purpose where asked to."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from parity.schema.case import Case
from parity.schema.policy import default_policy
from parity.schema.quantities import NAMES
from parity.schema.results import Missing, Results, Value, scalar

ROWS = tuple(str(i) for i in range(1, 7))
LEVELS = ("g|a", "g|b", "g|c")
COEFS = ("(Intercept)", "x")
PAIRS = tuple(f"{a}|{b}" for a in COEFS for b in COEFS)
COMPONENTS = ("sigma2", "D11")
PARTS = {
    "coef": COEFS, "coef_pair": PAIRS, "component": COMPONENTS, "covariance": ("g|(Intercept)|(Intercept)",)
}  # fmt: skip


def _spread(labels: tuple[str, ...], start: float) -> Value:
    return Value(labels, start + np.arange(len(labels)) * 0.37)


def model_values(shift: float = 0.0) -> dict[str, Value]:
    """Every quantity of the registry for a small imaginary model; `shift` moves theta and the criterion."""
    by_index = {
        "obs": ROWS, "level": LEVELS, "coef": COEFS,
        "level_effect": tuple(f"{x}|(Intercept)" for x in LEVELS),
        "level_effect_pair": tuple(f"{x}|(Intercept)|(Intercept)" for x in LEVELS),
        "level_row": tuple(f"g|{row}" for row in ROWS),
        "x_cell": tuple(f"{row}|{name}" for row in ROWS for name in COEFS),
        "x_moment": tuple(f"{name}|sum" for name in COEFS),
        "component": COMPONENTS,
        **{f"obs_{kind}": tuple(f"{row}|{x}" for row in ROWS for x in names) for kind, names in PARTS.items()},
        **{f"level_{kind}": tuple(f"{u}|{x}" for u in LEVELS for x in names) for kind, names in PARTS.items()},
    }  # fmt: skip
    from parity.schema.quantities import REGISTRY

    values = {
        name: _spread(by_index[row.index], 1.0 + i) if row.index in by_index else scalar(1.0 + i)
        for i, (name, row) in enumerate(REGISTRY.items())
    }
    values |= {
        "criterion": scalar(100.0 + shift**2),
        "theta": Value(("g.(Intercept)",), np.array([0.8 + shift])),
        "lambda_crossprod": Value(("g|(Intercept)|(Intercept)",), np.array([(0.8 + shift) ** 2])),
        "varcorr": Value(
            ("g|(Intercept)|(Intercept)", "Residual"), np.array([4.0 * (0.8 + shift) ** 2, 4.0])
        ),
        "vcov_fixef": Value(PAIRS, np.array([1.0, 0.2, 0.2, 0.5])),
        "se_fixef": Value(COEFS, np.sqrt([1.0, 0.5])),
    }
    return values


class Fake:
    """Answers with `model_values`, changed by `change`. Its true optimum is at shift 0."""

    def __init__(
        self,
        name: str = "fake",
        change: Callable[[Results], Results] = lambda results: results,
        capabilities: frozenset[str] = frozenset(
            {"lm", "lmm", "weights", "offset", "contrasts", "at_theta", "optimum", "all_quantities"}
        ),
        own_shift: float = 0.0,
    ) -> None:
        self.name, self.version, self.capabilities = name, "1", capabilities
        self.change, self.own_shift = change, own_shift
        self.asked: list[tuple[str, np.ndarray | None]] = []

    def run(self, case: Case, quantities, theta=None) -> Results:
        self.asked.append((case.name, theta))
        shift = self.own_shift if theta is None else float(theta[0]) - 0.8
        values = {name: value for name, value in model_values(shift).items() if name in quantities}
        results = Results(
            self.name, self.version, values=values, singular=False, converged=True, seconds=0.01
        )
        return self.change(results)


def with_values(results: Results, **values: Value) -> Results:
    """The same results with some quantities replaced."""
    return replace(results, values={**results.values, **values})


def without(results: Results, name: str, kind: str = "undefined") -> Results:
    """The same results with one quantity missing."""
    values = {key: value for key, value in results.values.items() if key != name}
    return replace(results, values=values, missing={**results.missing, name: Missing(kind, "a reason")})


@pytest.fixture
def case():
    return Case(name="a_case", data="sleepstudy", formula="Reaction ~ Days + (1 | Subject)")


@pytest.fixture
def fake():
    return Fake


@pytest.fixture
def values():
    return model_values


@pytest.fixture
def change():
    """Ways of changing results: `change.values(results, name=Value)`, `change.without(results, name)`."""

    class Change:
        values = staticmethod(with_values)
        without = staticmethod(without)

    return Change


@pytest.fixture
def policy():
    return default_policy()


@pytest.fixture
def names():
    return NAMES
