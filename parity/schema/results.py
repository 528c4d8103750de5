"""What an engine says about a case: named quantities, each with labels and values, in one schema for every
engine.

Labels are mandatory: engines are compared label by label, never position by position. How each kind of
quantity is labelled (scalars `""`, pairs `"a|b"`, rows by their 1-based number in the data set, levels
`"group|level"`) is written in `quantities.INDEXES`.

A recording is a `Results` and where it came from, in one JSON file (compressed where large) with a
checksum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

Status = Literal[
    "ok",
    "refused",  # the model was rejected on purpose, with a message for the user
    "unsupported",  # the engine does not do this kind of model
    "error",  # it failed
    "crashed",  # its process died
    "timeout",  # it was stopped
    "missing",  # a recording that does not exist, is damaged, or belongs to another content of the case
]
MissingKind = Literal["unsupported", "undefined", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Value:
    """One quantity of one model: numbers that carry their own labels."""

    labels: tuple[str, ...]  # (m,) unique within the quantity
    values: np.ndarray  # (m,) float64, read-only; NaN where the engine leaves the element undefined

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 1 or len(values) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels for values of shape {values.shape}")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", tuple(self.labels))


@dataclass(frozen=True, slots=True)
class Missing:
    """Why an engine has no value for a quantity."""

    kind: MissingKind  # "undefined": this model has no such number; "skipped": too costly
    message: str


def _frozen() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Results:
    """What one engine says about one case. Engines never raise for a bad case: `status` and `message`
    tell."""

    engine: str
    version: str
    status: Status = "ok"
    message: str = ""
    warnings: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=_frozen)  # quantity -> Value
    missing: Mapping[str, Missing] = field(default_factory=_frozen)  # quantity -> why there is no value
    singular: bool | None = None  # the fit is on the boundary of the parameter space; None: not said
    converged: bool | None = None  # None: nothing was optimised, or not said
    seconds: float | None = None  # wall time of the fit and its measures
    provenance: Mapping[str, Any] = field(default_factory=_frozen)  # versions, hash of the code, checks made

    def __post_init__(self) -> None:
        for name in ("values", "missing", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "warnings", tuple(self.warnings))

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: getattr(self, name) for name in self.__slots__}
        state |= {name: dict(state[name]) for name in ("values", "missing", "provenance")}
        return _rebuild, (state,)

    @property
    def theta(self) -> np.ndarray | None:
        """(n_theta,) covariance parameters in lme4's order, or None."""
        value = self.values.get("theta")
        return None if value is None else value.values


def joint(results: Results) -> np.ndarray | None:
    """(n_theta + p,) theta, then the fixed effects: where the likelihood of a generalised model was
    evaluated."""
    theta, beta = results.theta, results.values.get("fixef")
    return None if theta is None or beta is None else np.concatenate([theta, beta.values])


def _rebuild(state: dict[str, Any]) -> Results:
    return Results(**state)


def scalar(number: float) -> Value:
    """A quantity of one number, with the label `""`."""
    return Value(("",), np.array([number], dtype=np.float64))


# --- recordings --------------------------------------------------------------------------------
