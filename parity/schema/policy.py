"""The gates: `policy.toml` read, checked for completeness, and looked up by lane and quantity."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec
import numpy as np

from parity.schema.case import Kind
from parity.schema.quantities import REGISTRY, Lane, Measure, in_lane

POLICY_FILE = Path(__file__).resolve().parent / "policy.toml"
SCHEMA = 1
EPS = float(np.finfo(np.float64).eps)
LANES: tuple[Lane, ...] = ("at_theta", "optimum", "default", "certified")

Text = Annotated[str, msgspec.Meta(min_length=10)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]


class PolicyError(ValueError):
    """The policy is incomplete or contradicts itself; the message names lane and quantity."""


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far apart is still agreement, for some quantities of one lane."""

    lane: Lane
    quantities: tuple[str, ...]
    value: NonNegative
    why: Text
    source: Annotated[str, msgspec.Meta(min_length=5)]
    measure: Measure | None = None  # None: the quantity's own
    kinds: tuple[Kind, ...] = ()  # only for these kinds of model, in place of the gate for all of them
    condition: bool = False  # widened by the condition number of the fixed-effects system
    looser: Text | None = None  # why it is much looser than what calibration proposes


class ConditionRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """gate >= factor * eps * condition number, widened no further than `limit`."""

    factor: NonNegative
    limit: NonNegative
    why: Text
    source: Text


class ScaleRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Smallest scale of an error, as a fraction of the natural scale of its unit."""

    floor: NonNegative
    why: Text
    source: Text


class SingularRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Relative variance below which a variance counts as zero."""

    threshold: NonNegative
    why: Text
    source: Text


class OptimumRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Difference of deviances below which two optima are the same one."""

    gap: NonNegative
    why: Text
    source: Text


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: int
    condition: ConditionRule
    scale: ScaleRule
    singular: SingularRule
    optimum: OptimumRule
    gate: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """All gates and the rules that bend them."""

    gates: Mapping[tuple[Lane, str], Gate]
    condition: ConditionRule
    scale: ScaleRule
    singular: SingularRule
    optimum: OptimumRule
    special: Mapping[tuple[Lane, str, Kind], Gate]  # of some kinds of model only

    def gate(self, lane: Lane, quantity: str, kind: Kind = "lmm") -> Gate:
        """The gate of a quantity in a lane, for a kind of model."""
        return self.special.get((lane, quantity, kind), self.gates[lane, quantity])

    def allowed(self, gate: Gate, condition: float) -> float:
        """The largest error that passes a gate when the fixed-effects system has this condition number."""
        if not gate.condition:
            return gate.value
        return max(gate.value, min(self.condition.limit, self.condition.factor * EPS * condition))


@cache
def default_policy() -> Policy:
    """The shipped policy."""
    return load_policy(POLICY_FILE)


def load_policy(path: Path) -> Policy:
    """Read a policy and check that each quantity of each lane has exactly one gate.

    Raises
    ------
    PolicyError
        on an unreadable file, an unknown or missing quantity, or two gates for one.
    """
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise PolicyError(f"policy {path.name}: {error}") from error
    if content.schema != SCHEMA:
        raise PolicyError(f"policy {path.name} has schema {content.schema}, this program reads {SCHEMA}")
    gates: dict[tuple[Lane, str], Gate] = {}
    special: dict[tuple[Lane, str, Kind], Gate] = {}
    for gate in content.gate:
        _add(gates, special, gate, path.name)
    _complete(gates, path.name)
    return Policy(
        MappingProxyType(gates), content.condition, content.scale, content.singular, content.optimum,
        MappingProxyType(special),
    )  # fmt: skip


def _add(
    gates: dict[tuple[Lane, str], Gate], special: dict[tuple[Lane, str, Kind], Gate], gate: Gate, file: str
) -> None:
    for name in gate.quantities:
        if name not in REGISTRY or gate.lane not in REGISTRY[name].lanes:
            raise PolicyError(f"policy {file}: lane {gate.lane} does not compare a quantity {name!r}")
        for kind in gate.kinds:
            if (gate.lane, name, kind) in special or kind not in REGISTRY[name].kinds:
                raise PolicyError(
                    f"policy {file}: two gates, or one that is never used, for {name} of {kind} in lane {gate.lane}"
                )
            special[gate.lane, name, kind] = gate
        if gate.kinds:
            continue
        if (gate.lane, name) in gates:
            raise PolicyError(f"policy {file}: two gates for {name} in lane {gate.lane}")
        gates[gate.lane, name] = gate


def _complete(gates: Mapping[tuple[Lane, str], Gate], file: str) -> None:
    lacking = [f"{name} ({lane})" for lane in LANES for name in in_lane(lane) if (lane, name) not in gates]
    if lacking:
        raise PolicyError(f"policy {file}: no gate for {', '.join(lacking)}")
