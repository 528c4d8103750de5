"""What must hold for any engine without a reference: the same model told otherwise, and identities between
measures.

All statements are about the model at one theta, so that no optimiser's tolerance is in them; only the last is
about an optimum. Each returns what it found violated, in words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import numpy as np

from parity.compare.distance import errors, scales
from parity.schema.case import Kind, case_of
from parity.schema.engine import Engine
from parity.schema.policy import default_policy
from parity.schema.quantities import REGISTRY, of_kind
from parity.schema.results import Results, Value
from parity.schema.spec import Spec, probe_theta, settled

SLACK = 10.0  # times the gate of lane at_theta: both answers carry the rounding that the gate allows to one
ORDER_DEPENDENT = ("resid_marginal_cholesky",)
ZERO_OVER_ZERO = (
    "ranef_std_lme4",
    "ranef_std_nlme",
    "ranef_ls_std",
)  # where a variance is zero: rounding decides


def measures(kind: Kind) -> tuple[str, ...]:
    """No optimiser in them, and no zero divided by zero where a variance vanishes: their parts are compared anyway."""
    return tuple(name for name in of_kind(kind) if not REGISTRY[name].refits and name not in ZERO_OVER_ZERO)


AT_THETA = measures("lmm")


@dataclass(frozen=True, slots=True)
class Violation:
    """One statement that an engine broke."""

    statement: str
    quantity: str
    detail: str


def violations(spec: Spec, engine: Engine) -> tuple[Violation, ...]:
    """All statements that the engine breaks on a model."""
    spec = settled(msgspec.structs.replace(spec, change=""))
    theta = probe_theta(spec)
    here = engine.run(case_of(spec), AT_THETA, theta)
    if here.status != "ok":
        return (Violation("fits", "*", f"{here.status}: {here.message}"),)
    found: list[Violation] = []
    for name, statement in STATEMENTS.items():
        found += [
            Violation(name, quantity, detail) for quantity, detail in statement(spec, engine, theta, here)
        ]
    return tuple(found)


Broken = Iterator[tuple[str, str]]  # quantity, detail
Statement = Callable[[Spec, Engine, np.ndarray, Results], Broken]


def _permuted_rows(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    there = _again(spec, engine, theta, change="permute")
    yield from _differences(here, there, skip=ORDER_DEPENDENT)


def _renamed_levels(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    there = _again(spec, engine, theta, change="relabel")
    values = {
        name: Value(tuple(label.replace("_new", "") for label in value.labels), value.values)
        for name, value in there.values.items()
    }
    yield from _differences(here, _with_values(there, values))


def _scaled_response(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    """y times ten: each quantity scales by its unit, criteria move by the log of the scale."""
    step = -1 if spec.y_exponent >= 0 else 1
    there = _again(spec, engine, theta, y_exponent=spec.y_exponent + step)
    factor = 10.0**step
    move = -2.0 * _denominator(spec, here) * np.log(factor)
    values = {}
    for name, value in there.values.items():
        unit = REGISTRY[name].unit
        values[name] = Value(value.labels, value.values / {"y": factor, "y^2": factor**2}.get(unit, 1.0))
    for name in ("criterion", "aic", "bic"):
        values[name] = Value(values[name].labels, values[name].values + move)
    values["loglik"] = Value(values["loglik"].labels, values["loglik"].values - move / 2)
    yield from _differences(here, _with_values(there, values), skip=("x_column_moments",))


def _scaled_covariate(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    """x times ten, and theta of its effects divided by ten: the same model of the rows."""
    step = -1 if spec.x_exponent >= 0 else 1
    rows = [label.split(".")[1] == "x" for label in here.values["theta"].labels]
    there = _again(spec, engine, np.where(rows, theta / 10.0**step, theta), x_exponent=spec.x_exponent + step)
    by_row = [name for name in AT_THETA if REGISTRY[name].index in ("obs", "level")]
    yield from _differences(here, there, only=(*by_row, "sigma"))


def _sums(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    """Traces and products that hold whatever the data."""
    v = here.values
    p = v["p_fixed"].values[0]
    if not p:
        return
    yield from _equal("leverage_fixef", v["leverage_fixef"].values.sum(), p, "its sum is p")
    both = v["leverage_fixef"].values + v["leverage_ranef"].values
    yield from _equal("leverage_overall", v["leverage_overall"].values, both, "the sum of its two parts")
    yield from _equal("hatvalues", v["hatvalues"].values, v["leverage_overall"].values, "leverage_overall")
    ratio = v["covratio_marginal"].values
    yield from _equal("covtrace_marginal", v["covtrace_marginal"].values, ratio - 1, "COVRATIO - 1 for rows")
    product = v["mdffits_marginal"].values * ratio
    yield from _equal(
        "cooks_distance_marginal", v["cooks_distance_marginal"].values, product, "MDFFITS COVRATIO"
    )
    total = v["fitted"].values + v["resid_response"].values
    yield from _equal("fitted", total, v["y_response"].values, "fitted + residual is y")
    marginal = v["fitted_marginal"].values + v["resid_marginal"].values
    yield from _equal("fitted_marginal", marginal, v["y_response"].values, "fitted + residual is y")


def _least_squares(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    """theta = 0: beta of weighted least squares, no random effects."""
    from parity.schema.case import frame

    none = engine.run(case_of(spec), AT_THETA, np.zeros_like(theta))
    if none.status != "ok":
        yield "*", f"at theta = 0 {none.status}: {none.message}"
        return
    data = frame(case_of(spec)).loc[[int(label) for label in none.values["y_response"].labels]]
    w = np.sqrt(data["w"].to_numpy()) if spec.weights != "none" else np.ones(len(data))
    y = none.values["y_response"].values - (data["o"].to_numpy() if spec.offset else 0.0)
    if not none.values["p_fixed"].values[0]:
        return
    X = none.values["x_matrix"].values.reshape(len(y), -1)
    scale = np.abs(X).max(axis=0)
    beta = np.linalg.lstsq(X / scale * w[:, None], y * w, rcond=None)[0] / scale
    error = np.abs(none.values["fixef"].values - beta) / np.maximum(none.values["se_fixef"].values, 1e-300)
    if not error.max() <= 1e-4:
        yield "fixef", f"at theta = 0 it is {error.max():.2g} standard errors from least squares"
    if np.abs(none.values["ranef"].values).max() > 0:
        yield "ranef", "at theta = 0 it is not zero"


def _own_optimum(spec: Spec, engine: Engine, theta: np.ndarray, here: Results) -> Broken:
    """No theta tried has a lower criterion than the engine's own optimum."""
    case = case_of(spec)
    own = engine.run(case, ("criterion", "theta"))
    if own.status != "ok" or own.theta is None or own.converged is False:
        return
    best = own.values["criterion"].values[0]
    slack = 1e-8 + 1e-12 * abs(best)
    for name, other in _nearby(own.theta, theta):
        there = engine.run(case, ("criterion",), other)
        if there.status == "ok" and there.values["criterion"].values[0] < best - slack:
            below = best - there.values["criterion"].values[0]
            yield "criterion", f"{below:.3g} lower {name}: theta = {other.tolist()}"
            return


def _nearby(own: np.ndarray, probe: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "at the probe", probe
    yield "at the start of lme4", np.ones_like(own)
    for scale in (0.5, 0.99, 1.01, 2.0):
        yield f"at {scale:g} times the optimum", scale * own


STATEMENTS: Mapping[str, Statement] = MappingProxyType(
    {
        "rows in another order": _permuted_rows,
        "levels with other names": _renamed_levels,
        "y on another scale": _scaled_response,
        "x on another scale": _scaled_covariate,
        "identities": _sums,
        "least squares at theta = 0": _least_squares,
        "the optimum is one": _own_optimum,
    }
)


# --- comparing two answers of one engine ----------------------------------------------------------------


def _again(spec: Spec, engine: Engine, theta: np.ndarray, **changes: object) -> Results:
    return engine.run(case_of(msgspec.structs.replace(spec, **changes)), AT_THETA, theta)


def _with_values(results: Results, values: Mapping[str, Value]) -> Results:
    return Results(
        results.engine,
        results.version,
        results.status,
        results.message,
        values=values,
        missing=results.missing,
    )


def _differences(a: Results, b: Results, skip: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> Broken:
    if b.status != "ok":
        yield "*", f"{b.status}: {b.message}"
        return
    policy = default_policy()
    scale = scales(a, policy)
    for name, value in a.values.items():
        if name in skip or (only and name not in only):
            continue
        other = b.values.get(name)
        if other is None or set(other.labels) != set(value.labels):
            yield name, "absent, or with other labels"
            continue
        position = {label: i for i, label in enumerate(other.labels)}
        got = other.values[[position[label] for label in value.labels]]
        row = REGISTRY[name]
        error = errors(row.measure, got, value, row.unit, scale)
        gate = policy.gates.get(("at_theta", name))
        allowed = max(SLACK * (policy.allowed(gate, scale.condition_of(row)) if gate else 0.0), 1e-10)
        worst = float(np.max(np.where(np.isnan(error), 0.0, error), initial=0.0))
        if not worst <= allowed:
            yield name, f"error {worst:.2g}, allowed {allowed:.2g}"


def _equal(name: str, got: np.ndarray, want: np.ndarray | float, what: str) -> Broken:
    """Elements that are defined on both sides, within 1e-6 of the largest: V may have a condition of 1e+8."""
    got, want = np.atleast_1d(got), np.atleast_1d(np.asarray(want, dtype=np.float64))
    both = np.isfinite(got) & np.isfinite(want)
    if both.any():
        size = float(np.abs(want[both]).max())
        error = float(np.abs(got[both] - want[both]).max())
        if not error <= 1e-6 * size:
            yield name, f"{what}: off by {error / size:.2g}"


def _denominator(spec: Spec, here: Results) -> float:
    n, p = here.values["n_obs"].values[0], here.values["p_fixed"].values[0]
    return float(n - p if spec.reml else n)
