"""From two results to verdicts: label by label, element by element, and closed against success by accident.

Order of judgement for a case in a lane: did both sides answer at all; is the design the same; then each
quantity on its own. At an optimum the deviances come first: values that differ because the optimum differs
get the verdict of the optimum, and a better one counts only when the reference's own criterion, evaluated
at the engine's theta (the "witness"), confirms it. Known differences are applied to the rows of a whole
run.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.compare.distance import Scales, digits, errors, log_relative_error, scales
from parity.compare.relations import Facts, Found, relation
from parity.schema.case import Case
from parity.schema.known import Known
from parity.schema.policy import Policy
from parity.schema.quantities import REGISTRY, Lane, Quantity, in_lane, of_kind
from parity.schema.results import Missing, Results, Value
from parity.schema.verdicts import Verdict

OWN_ENGINE = "mmcore"
WHOLE_MODEL = "*"  # the quantity of a row that speaks of the model as a whole


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one comparison, complete enough to be understood alone."""

    case: str
    case_id: str
    reference: str
    lane: Lane
    quantity: str  # a registry name, or WHOLE_MODEL
    verdict: Verdict
    label: str = ""  # the worst element
    got: float | None = None  # the engine's value there
    want: float | None = None  # the reference's value there
    error: float | None = None  # by `measure`
    gate: float | None = None
    measure: str = ""
    why: str = ""  # of the gate
    digits: float | None = None  # -log10(error), at most 15
    lre: float | None = None  # smallest log relative error of single elements
    compared: int = 0  # elements compared
    deviance_gap: float | None = None  # engine's criterion minus the reference's
    message: str = ""
    cause: str = ""  # rows of one cause have one mistake in common; "" where none was found
    relation: str = ""  # what the cause is, as a sentence
    trace: str = ""  # of an engine that raised

    @property
    def outcome(self) -> str:
        """pass, neutral, fail or infrastructure."""
        return self.verdict.outcome


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared: one case in one lane, as both sides answered it."""

    case: Case
    lane: Lane
    engine: Results
    reference: Results
    policy: Policy
    quantities: tuple[str, ...] = ()  # empty: all of the lane
    claims: frozenset[str] = frozenset({"all_quantities"})  # the engine's capabilities
    lacks: tuple[str, ...] = ()  # capabilities the case needs and the engine does not claim
    witness: Results | None = None  # the reference at the engine's theta, asked for when the optima differ


def compare(pair: Pair) -> tuple[Row, ...]:
    """All verdicts of a case in a lane; never empty."""
    whole = _whole_model(pair)
    if whole is not None:
        return (whole,)
    scale = scales(pair.reference, pair.policy)
    rows = tuple(_quantity_row(pair, REGISTRY[name], scale) for name in _asked(pair))
    if not rows:
        rows = (_row(pair, WHOLE_MODEL, Verdict.UNSUPPORTED, "this lane has none of the quantities"),)
    rows = _design_first(rows)
    if pair.lane != "at_theta":
        rows = tuple(_judge_by_optimum(pair, row, scale) for row in rows)
    gap = deviance_gap(pair.engine, pair.reference)
    return tuple(replace(row, deviance_gap=gap) for row in rows)


def deviance_gap(engine: Results, reference: Results) -> float | None:
    """The engine's criterion minus the reference's, or None where one has none."""
    ours, theirs = engine.values.get("criterion"), reference.values.get("criterion")
    if ours is None or theirs is None or len(ours.values) != 1 or len(theirs.values) != 1:
        return None
    return float(ours.values[0] - theirs.values[0])


def optima_differ(engine: Results, reference: Results, policy: Policy) -> bool:
    """Whether the two deviances are further apart than one optimum allows: then a witness should be asked
    for."""
    gap = deviance_gap(engine, reference)
    return gap is not None and not abs(gap) <= policy.optimum.gap


# --- the model as a whole ----------------------------------------------------------------------

_REFERENCE_FAILED = {
    "crashed": Verdict.REFERENCE_CRASHED,
    "timeout": Verdict.TIMEOUT,
    "error": Verdict.REFERENCE_ERROR,
    "missing": Verdict.REFERENCE_ERROR,
    "refused": Verdict.REFERENCE_ERROR,
    "unsupported": Verdict.UNSUPPORTED,
}


def _whole_model(pair: Pair) -> Row | None:
    """The one row of a case that cannot be compared quantity by quantity, or None."""
    ours, theirs = pair.engine, pair.reference
    if pair.lacks:
        message = f"{ours.engine} does not claim {', '.join(pair.lacks)}"
        return _row(pair, WHOLE_MODEL, Verdict.UNSUPPORTED, message)
    if pair.case.expect == "refuse":
        return _refusal(pair)
    if theirs.status != "ok":
        return _row(pair, WHOLE_MODEL, _REFERENCE_FAILED[theirs.status], f"{theirs.engine}: {theirs.message}")
    if ours.status == "unsupported" and "partial" in pair.claims:
        return _row(pair, WHOLE_MODEL, Verdict.UNSUPPORTED, f"{ours.engine}: {ours.message}")
    if ours.status != "ok":
        said = f"{ours.engine} ({ours.status}): {ours.message}"
        found = _of_a_call(ours)
        return _row(
            pair, WHOLE_MODEL, Verdict.ENGINE_ERROR, said, cause=found.cause, relation=found.text,
            trace=str(ours.provenance.get("traceback", "")),
        )  # fmt: skip
    if _is_nan(theirs) and not _is_nan(ours):
        return _row(
            pair, WHOLE_MODEL, Verdict.REFERENCE_ERROR, f"{theirs.engine}: the criterion is not a number"
        )
    return None


_ENDED = {
    "crashed": "the engine's process died",
    "timeout": "the engine ran out of time",
    "refused": "the engine refuses a model that the reference fits",
}


def _of_a_call(results: Results) -> Found:
    """The cause of a call that gave nothing. The same message is the same cause."""
    said = _ENDED.get(results.status, "the engine failed")
    return Found(f"{results.status}: {results.message}", f"{said}: {results.message}")


def _is_nan(results: Results) -> bool:
    """Whether a model has a criterion that is no number: then nothing else of it is worth comparing."""
    criterion = results.values.get("criterion")
    return criterion is not None and bool(np.isnan(criterion.values).any())


def _refusal(pair: Pair) -> Row:
    ours, theirs = pair.engine, pair.reference
    if theirs.status in ("crashed", "timeout", "missing", "unsupported"):
        return _row(pair, WHOLE_MODEL, _REFERENCE_FAILED[theirs.status], f"{theirs.engine}: {theirs.message}")
    if theirs.status == "ok":
        return _row(pair, WHOLE_MODEL, Verdict.REFERENCE_ERROR, f"{theirs.engine} fits what it should refuse")
    if ours.status == "refused":
        return _row(pair, WHOLE_MODEL, Verdict.BOTH_REFUSE, f"{ours.message} | {theirs.message}")
    did = "fits it" if ours.status == "ok" else f"fails ({ours.status}): {ours.message}"
    return _row(pair, WHOLE_MODEL, Verdict.ENGINE_ERROR, f"the model must be refused, {ours.engine} {did}")


# --- one quantity ------------------------------------------------------------------------------


def _asked(pair: Pair) -> tuple[str, ...]:
    names = of_kind(pair.case.kind, in_lane(pair.lane))
    if pair.lane == "at_theta" and pair.case.kind in ("lm", "glm"):
        names = ()  # there is no theta
    return names if not pair.quantities else tuple(name for name in names if name in pair.quantities)


def _quantity_row(pair: Pair, quantity: Quantity, scale: Scales) -> Row:
    got, want = pair.engine.values.get(quantity.name), pair.reference.values.get(quantity.name)
    if got is None or want is None:
        return _absent(pair, quantity, got is None, want is None)
    labels = _label_trouble(got, want, some_units=quantity.refits)
    if labels:
        found = _of_labels(pair, quantity, got, want, scale, labels)
        return _row(
            pair, quantity.name, _different(quantity), f"labels differ: {labels}", error=np.inf,
            cause=found.cause, relation=found.text,
        )  # fmt: skip
    if not len(want.labels):
        return _row(pair, quantity.name, Verdict.BOTH_UNDEFINED, "both sides are empty")
    return _values_row(pair, quantity, aligned(got, want), want, scale)


def _absent(pair: Pair, quantity: Quantity, engine_lacks: bool, reference_lacks: bool) -> Row:
    name = quantity.name
    ours, theirs = pair.engine.missing.get(name), pair.reference.missing.get(name)
    offered = bool(pair.claims & {"all_quantities", name})
    if engine_lacks and not offered:
        return _row(pair, name, Verdict.UNSUPPORTED, f"{pair.engine.engine} does not claim it")
    if reference_lacks and theirs is None:
        message = f"{pair.reference.engine} gave neither value nor reason"
        return _row(pair, name, Verdict.REFERENCE_ERROR, message)
    if reference_lacks and theirs is not None and theirs.kind != "undefined":
        verdict = Verdict.REFERENCE_ERROR if theirs.kind == "error" else Verdict.UNSUPPORTED
        return _row(pair, name, verdict, f"{pair.reference.engine}: {theirs.message}")
    if not engine_lacks:
        return _row(pair, name, Verdict.UNDEFINED_IN_REFERENCE, _said(theirs))
    if ours is not None and ours.kind in ("skipped", "unsupported") and "partial" in pair.claims:
        return _row(pair, name, Verdict.UNSUPPORTED, f"{pair.engine.engine}: {ours.message}")
    if ours is None or ours.kind != "undefined":
        return _claimed_but_absent(pair, name, ours)
    if reference_lacks:
        return _row(pair, name, Verdict.BOTH_UNDEFINED, f"{_said(ours)} | {_said(theirs)}")
    text = f"the engine says that there is no such number: {_said(ours)}"
    return _row(pair, name, Verdict.UNDEFINED_IN_ENGINE, _said(ours), cause=text, relation=text)


def _claimed_but_absent(pair: Pair, name: str, ours: Missing | None) -> Row:
    said = "it gave neither value nor reason" if ours is None else ours.message
    message = (
        f"{pair.engine.engine} claims {name}, but {said}. Put a `Value` into `Results.values[{name!r}]`, or a "
        f"`Missing` with the reason into `Results.missing`, or take {name} out of `capabilities`"
    )
    text = (
        "the engine claims what it does not give: add the values, give a reason in `Results.missing`, or take "
        "the names out of `capabilities`"
    )
    if ours is not None and ours.kind == "error":
        text = f"the engine failed: {ours.message}"
    return _row(pair, name, Verdict.ENGINE_ERROR, message, cause=text, relation=text)


def _said(missing: Missing | None) -> str:
    return "" if missing is None else missing.message


def _different(quantity: Quantity) -> Verdict:
    return Verdict.DESIGN_DIFFERS if quantity.group == "design" else Verdict.DISAGREE


def _label_trouble(got: Value, want: Value, *, some_units: bool = False) -> str:
    """What is wrong with the labels, or "". A reference may hold `some_units` only: refits are dear."""
    twice = [label for label, times in Counter(got.labels).items() if times > 1]
    twice += [label for label, times in Counter(want.labels).items() if times > 1]
    if twice:
        return f"not unique: {_few(twice)}"
    ours, theirs = set(got.labels), set(want.labels)
    parts = []
    if theirs - ours:
        parts.append(f"the engine lacks {_few(label for label in want.labels if label not in ours)}")
    if ours - theirs and not some_units:
        parts.append(f"the engine adds {_few(label for label in got.labels if label not in theirs)}")
    return "; ".join(parts)


def _few(labels: Iterable[str]) -> str:
    names = list(labels)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(repr(name) for name in names[:4]) + more


def aligned(got: Value, want: Value) -> np.ndarray:
    """The engine's values in the reference's order of labels."""
    if got.labels == want.labels:
        return got.values
    position = {label: i for i, label in enumerate(got.labels)}
    return got.values[[position[label] for label in want.labels]]


def _of_labels(pair: Pair, quantity: Quantity, got: Value, want: Value, scale: Scales, trouble: str) -> Found:
    """Whether only the labels are wrong, the numbers being right one after the other."""
    if len(got.values) == len(want.values) and _within(pair, quantity, want, scale)(got.values):
        return Found("labels", f"the numbers are right in their order, only the labels differ: {trouble}")
    return Found("labels", f"labels differ: {trouble}")


def _within(pair: Pair, quantity: Quantity, want: Value, scale: Scales) -> Callable[[np.ndarray], bool]:
    """Says whether numbers in the reference's order are all within the gate."""
    gate = pair.policy.gate(pair.lane, quantity.name, pair.case.kind)
    allowed = pair.policy.allowed(gate, scale.condition_of(quantity))

    def agrees(values: np.ndarray) -> bool:
        error = errors(gate.measure or quantity.measure, values, want, quantity.unit, scale)
        return bool(np.isfinite(error).all() and error.max(initial=0.0) <= allowed)

    return agrees


def _related(pair: Pair, quantity: Quantity, got: np.ndarray, want: Value, scale: Scales) -> Found | None:
    """What turns the engine's numbers into the reference's."""
    numbers = {name: _scalar(pair.reference, name) for name in ("n_obs", "p_fixed", "sigma")}
    gate = pair.policy.gate(pair.lane, quantity.name, pair.case.kind)
    facts = Facts(
        quantity.unit, quantity.index, numbers["n_obs"], numbers["p_fixed"], numbers["sigma"],
        pair.policy.allowed(gate, scale.condition_of(quantity)),
    )  # fmt: skip
    return relation(got, want.values, want.labels, facts, _within(pair, quantity, want, scale))


def _scalar(results: Results, name: str) -> float | None:
    value = results.values.get(name)
    return float(value.values[0]) if value is not None and len(value.values) == 1 else None


def _values_row(pair: Pair, quantity: Quantity, got: np.ndarray, want: Value, scale: Scales) -> Row:
    ours, theirs = np.isnan(got), np.isnan(want.values)
    if (ours & theirs).all():
        return _row(pair, quantity.name, Verdict.BOTH_UNDEFINED, f"all {len(got)} are NaN on both sides")
    if (ours & ~theirs).any():
        return _pattern_row(pair, quantity, Verdict.UNDEFINED_IN_ENGINE, ours & ~theirs, got, want)
    extra = ~ours & theirs
    if extra.all():
        return _pattern_row(pair, quantity, Verdict.UNDEFINED_IN_REFERENCE, extra, got, want)
    row = _measured_row(pair, quantity, got, want, scale)
    if extra.any() and row.outcome == "pass":
        return _pattern_row(pair, quantity, Verdict.UNDEFINED_IN_REFERENCE, extra, got, want)
    return row


def _pattern_row(
    pair: Pair, quantity: Quantity, verdict: Verdict, where: np.ndarray, got: np.ndarray, want: Value
) -> Row:
    worst = int(np.argmax(where))
    return _row(
        pair, quantity.name, verdict, f"{int(where.sum())} of {len(got)} elements are NaN on one side only",
        label=want.labels[worst], got=float(got[worst]), want=float(want.values[worst]),
        cause=_NAN[verdict][0], relation=_NAN[verdict][1],
    )  # fmt: skip


_NAN = {
    Verdict.UNDEFINED_IN_ENGINE: ("nan", "the engine gives NaN where the reference has numbers"),
    Verdict.UNDEFINED_IN_REFERENCE: ("", ""),
}


def _measured_row(pair: Pair, quantity: Quantity, got: np.ndarray, want: Value, scale: Scales) -> Row:
    gate = pair.policy.gate(pair.lane, quantity.name, pair.case.kind)
    measure = gate.measure or quantity.measure
    error = errors(measure, got, want, quantity.unit, scale)
    both = ~np.isnan(error) & ~(np.isnan(want.values) & ~np.isnan(got))
    worst = int(np.argmax(np.where(both, error, -1.0)))
    allowed = pair.policy.allowed(gate, scale.condition_of(quantity))
    row = _row(
        pair, quantity.name, Verdict.AGREE,
        label=want.labels[worst], got=float(got[worst]), want=float(want.values[worst]),
        error=float(error[worst]), gate=allowed, measure=measure, why=gate.why,
        digits=digits(float(error[worst])),
        lre=log_relative_error(got, want.values), compared=int(both.sum()),
    )  # fmt: skip
    verdict, message = _verdict(pair, quantity, got, want, row, scale)
    row = replace(row, verdict=verdict, message=message)
    if verdict is Verdict.DEFINITION_DIFFERS:
        return replace(row, cause=f"definition {quantity.name}", relation=message)
    found = _related(pair, quantity, got, want, scale) if row.outcome == "fail" else None
    return row if found is None else replace(row, cause=found.cause, relation=found.text)


def _verdict(
    pair: Pair, quantity: Quantity, got: np.ndarray, want: Value, row: Row, scale: Scales
) -> tuple[Verdict, str]:
    assert row.error is not None and row.gate is not None
    if quantity.name == "theta" and (pair.engine.singular or pair.reference.singular):
        return _singular(pair, row, scale)
    if row.error <= row.gate:
        return _agreement(pair, quantity, row, scale)
    namesake = _namesake(pair, quantity, got, want, scale)
    if namesake:
        return Verdict.DEFINITION_DIFFERS, f"the engine's numbers are the reference's {namesake}"
    if quantity.index == "covariance" and pair.engine.singular != pair.reference.singular:
        return Verdict.SINGULAR_DIFFERS, _sides(pair)
    return _different(quantity), ""


def _sides(pair: Pair) -> str:
    said = {True: "singular", False: "regular", None: "not said"}
    return f"engine {said[pair.engine.singular]}, reference {said[pair.reference.singular]}"


def _agreement(pair: Pair, quantity: Quantity, row: Row, scale: Scales) -> tuple[Verdict, str]:
    """`agree`, or in lane default `agree_within_r_noise` where only R's noise covers the error."""
    if pair.lane == "default":
        strict = pair.policy.gate("optimum", quantity.name, pair.case.kind)
        if row.error is not None and row.error > pair.policy.allowed(strict, scale.condition_of(quantity)):
            return Verdict.AGREE_WITHIN_R_NOISE, f"beyond the gate {strict.value:g} for the polished optimum"
    return Verdict.AGREE, ""


def _singular(pair: Pair, row: Row, scale: Scales) -> tuple[Verdict, str]:
    """theta is not unique on the boundary: its covariance speaks for it, where both sides give one."""
    got, want = (side.values.get("lambda_crossprod") for side in (pair.engine, pair.reference))
    if got is None or want is None or _label_trouble(got, want):
        agree = row.error is not None and row.gate is not None and row.error <= row.gate
        message = f"judged by theta itself, for want of lambda_crossprod; {_sides(pair)}"
        return (Verdict.SINGULAR_AGREE if agree else Verdict.SINGULAR_DIFFERS), message
    error = float(np.max(errors("covariance", aligned(got, want), want, "1", scale), initial=0.0))
    gate = pair.policy.gate(pair.lane, "lambda_crossprod", pair.case.kind).value
    message = f"judged by lambda_crossprod: error {error:.2g}, gate {gate:g}"
    return (Verdict.SINGULAR_AGREE if error <= gate else Verdict.SINGULAR_DIFFERS), message


def _namesake(pair: Pair, quantity: Quantity, got: np.ndarray, want: Value, scale: Scales) -> str:
    """Another quantity whose reference values are the engine's: the sign of a different definition."""
    if len(want.labels) < 3:
        return ""
    for name, value in pair.reference.values.items():
        other = REGISTRY.get(name)
        if other is None or name == quantity.name or (pair.lane, name) not in pair.policy.gates:
            continue
        if (other.index, other.unit, value.labels) != (quantity.index, quantity.unit, want.labels):
            continue
        error = errors(other.measure, got, value, other.unit, scale)
        if (
            np.isfinite(error).all()
            and error.max() <= pair.policy.gate(pair.lane, name, pair.case.kind).value
        ):
            return name
    return ""


# --- what explains a row -----------------------------------------------------------------------


NOT_COMPARED = "not compared"


def _design_first(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Estimates of different designs are not compared."""
    differing = [row.quantity for row in rows if row.verdict is Verdict.DESIGN_DIFFERS]
    if not differing:
        return rows
    note = f"{NOT_COMPARED}: {', '.join(differing)} differ"
    first = next(row for row in rows if row.quantity == differing[0])
    return tuple(
        row if REGISTRY[row.quantity].group == "design"
        else replace(row, verdict=Verdict.DESIGN_DIFFERS, message=note, cause=first.cause, relation=first.relation)
        for row in rows
    )  # fmt: skip


_EXPLAINED = (Verdict.DISAGREE, Verdict.DEFINITION_DIFFERS, Verdict.SINGULAR_DIFFERS)


def _judge_by_optimum(pair: Pair, row: Row, scale: Scales) -> Row:
    """A row outside its gate, explained by the optimum it was computed at, where that explains it."""
    if row.verdict not in _EXPLAINED:
        return row
    gap = deviance_gap(pair.engine, pair.reference)
    if gap is None or abs(gap) <= pair.policy.optimum.gap:
        return _by_convergence(pair, row)
    excess = None if pair.witness is None else deviance_gap(pair.witness, pair.reference)
    if excess is None:
        return _unconfirmed(pair, row, gap)
    if excess < -pair.policy.optimum.gap:
        return _if_confirmed(pair, row, scale, excess)
    if excess <= pair.policy.optimum.gap:
        note = f"by the reference's criterion the engine's theta is as good ({excess:.3g}): not the optimum"
        return replace(row, message=joined(row.message, note))
    row = _by_convergence(pair, row)
    if row.verdict in _EXPLAINED:
        note = f"by the reference's criterion the engine's optimum is {excess:.6g} worse"
        return replace(row, verdict=Verdict.WORSE_THAN_REFERENCE, message=joined(row.message, note))
    return row


def _by_convergence(pair: Pair, row: Row) -> Row:
    if pair.engine.converged is False:
        note = f"{pair.engine.engine} says it did not converge"
        return replace(row, verdict=Verdict.ENGINE_NOT_CONVERGED, message=joined(row.message, note))
    if pair.reference.converged is False:
        note = f"{pair.reference.engine} says it did not converge"
        return replace(row, verdict=Verdict.REFERENCE_NOT_CONVERGED, message=joined(row.message, note))
    return row


def _unconfirmed(pair: Pair, row: Row, gap: float) -> Row:
    if gap > 0:
        return replace(row, verdict=Verdict.WORSE_THAN_REFERENCE, message=joined(row.message, _NO_WITNESS))
    return replace(row, message=joined(row.message, f"the engine claims a better optimum; {_NO_WITNESS}"))


_NO_WITNESS = "the reference could not evaluate its criterion at the engine's theta (live R can)"


def _if_confirmed(pair: Pair, row: Row, scale: Scales, excess: float) -> Row:
    """The engine's optimum is better; its value must be what the reference computes there."""
    assert pair.witness is not None
    note = f"the reference's criterion is {-excess:.6g} lower at the engine's theta"
    value, got = pair.witness.values.get(row.quantity), pair.engine.values.get(row.quantity)
    if value is None or got is None or _label_trouble(got, value):
        return replace(row, message=joined(row.message, f"{note}, but gives no such value there"))
    gate = pair.policy.gate(pair.lane, row.quantity, pair.case.kind)
    quantity = REGISTRY[row.quantity]
    there = scales(pair.witness, pair.policy)
    error = errors(gate.measure or quantity.measure, aligned(got, value), value, quantity.unit, there)
    worst = float(np.max(np.where(np.isnan(error), np.inf, error)))
    if worst <= pair.policy.allowed(gate, scale.condition_of(quantity)):
        return replace(row, verdict=Verdict.BETTER_THAN_REFERENCE, message=joined(row.message, note))
    note = f"{note}, but the value differs by {worst:.3g} there as well"
    return replace(row, message=joined(row.message, note))


def joined(first: str, second: str) -> str:
    """Two parts of a message, either of which may be empty at the start."""
    return f"{first}; {second}" if first else second


# --- known differences -------------------------------------------------------------------------


def apply_known(rows: Sequence[Row], known: Sequence[Known], engine: str) -> tuple[Row, ...]:
    """Rows with known differences marked; of all lanes and cases at once, because strictness needs them
    together.

    A failing row that an entry covers becomes `known` (or `reference_wrong`). An entry none of whose
    comparisons differs is out of date: the rows it covers become `known_but_agrees`.
    """
    rows = list(rows)
    for entry in known:
        covered = [i for i, row in enumerate(rows) if _covers(entry, row, engine)]
        differing = [i for i in covered if rows[i].outcome == "fail"]
        for i in differing:
            note = f"{entry.reason} (was {rows[i].verdict}; evidence: {entry.evidence})"
            message = joined(rows[i].message, note)
            rows[i] = replace(rows[i], verdict=Verdict(entry.verdict), message=message)
        if not differing and _strict(entry, engine):
            for i in covered:
                rows[i] = replace(
                    rows[i], verdict=Verdict.KNOWN_BUT_AGREES, message=f"remove the entry: {entry.reason}"
                )
    return tuple(rows)


def _strict(entry: Known, engine: str) -> bool:
    """What is said of a reference is kept up to date by mmcore's gate: another engine may share its fault."""
    return entry.verdict == "known" or engine == OWN_ENGINE


def _covers(entry: Known, row: Row, engine: str) -> bool:
    return row.outcome in ("pass", "fail") and entry.covers(
        case=row.case, quantity=row.quantity, lane=row.lane, engine=engine, reference=row.reference
    )


def _row(pair: Pair, quantity: str, verdict: Verdict, message: str = "", **detail: Any) -> Row:
    case, reference = pair.case, pair.reference.engine
    return Row(case.name, case.id, reference, pair.lane, quantity, verdict, message=message, **detail)


def failures(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows that count against the engine, worst first."""
    bad = [row for row in rows if row.outcome == "fail"]
    return tuple(sorted(bad, key=lambda row: row.digits if row.digits is not None else -1.0))
