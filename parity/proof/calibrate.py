"""R's own spread, measured: how far apart two ways of running lme4 on the same model end, quantity by
quantity.

Three comparisons, each the noise floor of a lane:

    at_theta   lme4 at one theta, and at the same theta with the rows in another order
    optimum    the polished optimum, and the polished optimum with the rows in another order
    default    the polished optimum, and plain lmer

A gate that is proposed is five times the largest difference seen, and never below the floor of its lane. What
was measured is kept in `calibration.json`; a gate much looser than that must say why (`looser` in
`policy.toml`)."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from parity.compare.distance import errors, scales
from parity.fuzz.classes import CLASSES
from parity.fuzz.properties import AT_THETA
from parity.schema.case import case_of
from parity.schema.policy import Policy, default_policy
from parity.schema.quantities import REGISTRY, Lane
from parity.schema.results import Results
from parity.schema.spec import Spec, settled

CALIBRATION_FILE = Path(__file__).resolve().parent / "calibration.json"
SCHEMA = 1
MARGIN = 5.0  # proposed gate over the largest difference seen
LOOSE = 30.0  # a gate this much looser than the proposal must say why
ROUNDING = 1e-11
FLOORS: dict[Lane, float] = {"at_theta": 1e-10, "optimum": 1e-7, "default": 1e-5}
MODELS = 64
USED = (  # classes of ordinary models: noise is measured where numbers are determined
    "intercept", "slope", "doublebar", "crossed", "nested", "nested_slope", "unbalanced", "strong", "weights", "offset",
    "factors", "contrasts", "likelihood", "missing", "scale_of_y", "no_random_intercept",
)  # fmt: skip


class CalibrationError(ValueError):
    """A calibration cannot be read, or a gate is looser than it allows; the message says which."""


class Noise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far R is from itself in one quantity of one lane."""

    lane: Lane
    quantity: str
    models: int  # regular fits compared
    median: float
    largest: float
    proposed: float
    worst: Spec  # the model with the largest difference


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured, with what."""

    schema: int
    versions: str  # of lme4 and R
    seed: int
    models: int
    singular: int  # left out: what is not determined has no noise
    noise: tuple[Noise, ...]

    def of(self, lane: Lane, quantity: str) -> Noise | None:
        """The row of a quantity in a lane, if it was measured."""
        return next((row for row in self.noise if (row.lane, row.quantity) == (lane, quantity)), None)


def draw_specs(models: int, seed: int) -> Iterator[Spec]:
    """Ordinary models of a few dozen to a few hundred rows, classes in turn."""
    rng = np.random.default_rng(seed)
    for i in range(models):
        fixed: Any = CLASSES[USED[i % len(USED)]]
        drawn = Spec(
            seed=int(rng.integers(0, 10**6)), levels=int(rng.integers(5, 16)), rows=int(rng.integers(4, 12)),
            covariates=int(rng.integers(1, 3)), spread=int(rng.integers(2, 4)), correlation=int(rng.integers(-5, 6)),
            second_levels=int(rng.integers(3, 7)), imbalance=("none", "mild", "heavy")[int(rng.integers(0, 3))],
            reml=bool(rng.integers(0, 2)),
        )  # fmt: skip
        yield settled(msgspec.structs.replace(drawn, **fixed))


def calibrate(live: Any, models: int = MODELS, seed: int = 1) -> Calibration:
    """Measure R's spread over made-up models; about two seconds each.

    Parameters
    ----------
    live : the `r_live` engine.
    """
    found: dict[tuple[Lane, str], list[tuple[float, Spec]]] = {}
    singular = 0
    policy = default_policy()
    for spec in draw_specs(models, seed):
        pairs = _pairs(live, spec)
        if pairs is None:
            singular += 1
            continue
        for lane, got, want in pairs:
            for quantity, error in differences(got, want, policy):
                found.setdefault((lane, quantity), []).append((error, spec))
    rows = tuple(_noise(lane, quantity, seen) for (lane, quantity), seen in sorted(found.items()))
    return Calibration(
        schema=SCHEMA, versions=live.version, seed=seed, models=models, singular=singular, noise=rows
    )


def _pairs(live: Any, spec: Spec) -> list[tuple[Lane, Results, Results]] | None:
    """Answers to be compared in each lane; None for a fit that is singular or failed."""
    case, other = case_of(spec), case_of(msgspec.structs.replace(spec, change="permute"))
    want = live.run(case, AT_THETA)
    if want.status != "ok" or want.singular or want.theta is None:
        return None
    pairs: list[tuple[Lane, Results, Results]] = [
        ("at_theta", live.run(other, AT_THETA, want.theta), want),
        ("optimum", live.run(other, AT_THETA), want),
        ("default", live.run(case, AT_THETA, polish=False), want),
    ]
    return pairs if all(got.status == "ok" for _, got, _ in pairs) else None


def differences(got: Results, want: Results, policy: Policy) -> Iterator[tuple[str, float]]:
    """The largest error of each quantity, by its own measure."""
    scale = scales(want, policy)
    for name, value in want.values.items():
        other = got.values.get(name)
        if other is None or set(other.labels) != set(value.labels) or name == "resid_marginal_cholesky":
            continue
        position = {label: i for i, label in enumerate(other.labels)}
        aligned = other.values[[position[label] for label in value.labels]]
        row = REGISTRY[name]
        error = errors(row.measure, aligned, value, row.unit, scale)
        if np.isfinite(error).any():
            yield name, float(np.nanmax(np.where(np.isfinite(error), error, np.nan)))


def _noise(lane: Lane, quantity: str, seen: Sequence[tuple[float, Spec]]) -> Noise:
    largest, worst = max(seen, key=lambda pair: pair[0])
    median = float(np.median([error for error, _ in seen]))
    return Noise(
        lane=lane, quantity=quantity, models=len(seen), median=_rounded(median), largest=_rounded(largest),
        proposed=proposal(lane, quantity, largest), worst=worst,
    )  # fmt: skip


def proposal(lane: Lane, quantity: str, largest: float) -> float:
    """Five times the largest difference, rounded up to 1, 2 or 5; at least the lane's floor.

    Of the design nothing depends on an optimiser: there the floor is rounding.
    """
    floor = ROUNDING if REGISTRY[quantity].measure == "exact" else FLOORS[lane]
    wanted = max(floor, MARGIN * largest)
    power = 10.0 ** math.floor(math.log10(wanted))
    return float(
        f"{next(step for step in (1, 2, 5, 10) if step * power >= wanted * (1 - 1e-12)) * power:.3g}"
    )


def _rounded(x: float) -> float:
    return float(f"{x:.2g}")


# --- the file, and the gates held against it ------------------------------------------------------------


def write_calibration(calibration: Calibration, path: Path = CALIBRATION_FILE) -> None:
    """One quantity per line."""
    content = msgspec.to_builtins(calibration)
    rows = ",\n".join(f"  {json.dumps(row)}" for row in content.pop("noise"))
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    path.write_text("{\n" + head + ',\n"noise": [\n' + rows + "\n]\n}\n", encoding="utf-8")


def read_calibration(path: Path = CALIBRATION_FILE) -> Calibration:
    """What was measured.

    Raises
    ------
    CalibrationError
        if the file is missing or damaged.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise CalibrationError(f"calibration {path.name}: {error}; `parity calibrate` makes one") from error
    if found.schema != SCHEMA:
        raise CalibrationError(
            f"calibration {path.name} has schema {found.schema}, this program reads {SCHEMA}"
        )
    return found


@dataclass(frozen=True, slots=True)
class Loose:
    """A gate that is much looser than R's own spread and does not say why."""

    lane: Lane
    quantity: str
    gate: float
    proposed: float

    def __str__(self) -> str:
        return (
            f"{self.lane} / {self.quantity}: the gate is {self.gate:g}, calibration proposes {self.proposed:g}; "
            "tighten it or say why (`looser` in policy.toml)"
        )


def loose_gates(policy: Policy, calibration: Calibration) -> tuple[Loose, ...]:
    """Gates beyond thirty times the proposal, without a reason. An empty tuple is what CI wants."""
    found = []
    for (lane, quantity), gate in policy.gates.items():
        noise = calibration.of(lane, quantity)
        if noise is None or gate.looser is not None or gate.measure is not None:
            continue  # a gate with a measure of its own is in another unit
        if gate.value > LOOSE * noise.proposed:
            found.append(Loose(lane, quantity, gate.value, noise.proposed))
    return tuple(found)


def tight_gates(policy: Policy, calibration: Calibration) -> tuple[Loose, ...]:
    """Gates below what R keeps to itself: they would fail R."""
    return tuple(
        Loose(lane, quantity, gate.value, noise.largest)
        for (lane, quantity), gate in policy.gates.items()
        if (noise := calibration.of(lane, quantity)) is not None and gate.measure is None
        and gate.value < noise.largest
    )  # fmt: skip
