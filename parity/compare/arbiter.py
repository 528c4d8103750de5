"""Who is right where two sides differ: a third one, whose numbers are proved, is asked.

A comparison that fails is judged again against the arbiter, at the same theta or at the proved optimum. Where the
engine agrees with the proof within the gate, and is much nearer to it than to the reference, the reference is wrong,
and the proved number is the evidence. Where the engine's optimum is the lower one, and no optimum can be proved (a
singular one may not be unique), what the engine says of its own theta is judged: its criterion and the number in
question. In every other case the row stays as it was and says what the arbiter found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.compare.judge import WHOLE_MODEL, Row, joined
from parity.compare.run import ask, run_case
from parity.schema.case import Case
from parity.schema.engine import Engine
from parity.schema.policy import Policy
from parity.schema.quantities import REGISTRY, Lane
from parity.schema.results import Results
from parity.schema.verdicts import Verdict

# Of the difference between the two sides: then the reference is three times as far from the truth as the engine.
NEARER = 0.25
LOWER = 1e-7  # deviance units by which an optimum is lower: well above the rounding of a criterion
OPEN = (
    Verdict.DISAGREE, Verdict.SINGULAR_DIFFERS, Verdict.WORSE_THAN_REFERENCE, Verdict.DEFINITION_DIFFERS,
    Verdict.UNDEFINED_IN_ENGINE,
)  # fmt: skip

__all__ = ["AtTheta", "arbitrate"]


class AtTheta:
    """A reference that is asked at one theta, whatever its optimum."""

    def __init__(self, reference: Engine, theta: np.ndarray) -> None:
        self.name, self.version, self.capabilities = reference.name, reference.version, reference.capabilities
        self._reference, self._theta = reference, theta

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The reference's answer at the theta it was made with; `theta` is ignored."""
        return replace(self._reference.run(case, quantities, self._theta), converged=None)


def arbitrate(
    case: Case, rows: Sequence[Row], engine: Engine, arbiter: Engine, theta: np.ndarray | None, policy: Policy
) -> tuple[Row, ...]:
    """The rows of a case, those that fail judged by the arbiter. `theta` is where lane at_theta was evaluated.

    Costs nothing where nothing fails; else a few runs of arbiter and engine.
    """
    out = list(rows)
    sides: dict[Lane, Engine] = {"optimum": arbiter}
    if theta is not None:
        sides["at_theta"] = AtTheta(arbiter, theta)
    for lane, side in sides.items():
        doubted = [i for i, row in enumerate(rows) if row.lane == lane and row.verdict in OPEN]
        found = _proofs(case, engine, side, lane, [rows[i].quantity for i in doubted], policy)
        for i in doubted:
            out[i] = _judged(rows[i], found.get(rows[i].quantity), found)
    lower = [i for i, row in enumerate(out) if row.verdict in OPEN and _is_lower(row)]
    own = ask(engine, case, ("theta",)).theta if lower else None
    if own is not None:
        found = _proofs(
            case, engine, AtTheta(arbiter, own), "at_theta", [rows[i].quantity for i in lower], policy
        )
        for i in lower:
            out[i] = _better(out[i], found.get(rows[i].quantity), found.get("criterion"))
    return _as_at_theta(out)


def _as_at_theta(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Of a mixed model without a proved optimum: what the reference computes wrongly at the same theta, by proof, it
    computes wrongly at its own optimum, if the two optima are the same one.
    """
    wrong = {
        row.quantity for row in rows if row.lane == "at_theta" and row.verdict is Verdict.REFERENCE_WRONG
    }
    out = list(rows)
    for i, row in enumerate(rows):
        if row.lane == "optimum" and row.verdict in OPEN and row.quantity in wrong and _is_same(row):
            said = joined(row.message, "as it is proved to be at the same theta")
            out[i] = replace(row, verdict=Verdict.REFERENCE_WRONG, message=said)
    return tuple(out)


def _is_same(row: Row) -> bool:
    return row.deviance_gap is not None and abs(row.deviance_gap) <= LOWER


def _proofs(
    case: Case, engine: Engine, arbiter: Engine, lane: Lane, doubted: Sequence[str], policy: Policy
) -> dict[str, Row]:
    """The engine's quantities judged by the arbiter, and its criterion."""
    if not doubted:
        return {}
    names = tuple(dict.fromkeys([*doubted, "criterion"]))
    return {row.quantity: row for row in run_case(case, engine, (arbiter,), (lane,), names, policy).rows}


def _is_lower(row: Row) -> bool:
    return row.lane == "optimum" and row.deviance_gap is not None and row.deviance_gap < -LOWER


def _proof(row: Row) -> str:
    return f"{row.label}: {row.want!r}, engine off by {row.error:.2g}"


def _better(row: Row, proof: Row | None, criterion: Row | None) -> Row:
    """What lane at_theta does not compare, theta itself, has its proof in the criterion."""
    needed = [criterion, proof] if "at_theta" in REGISTRY[row.quantity].lanes else [criterion]
    if any(found is None or found.outcome != "pass" for found in needed):
        return row
    said = "proved at the engine's theta: the criterion"
    if proof is not None:
        said += f", and {_proof(proof)}"
    return replace(row, verdict=Verdict.BETTER_THAN_REFERENCE, message=joined(row.message, said))


def _judged(row: Row, proof: Row | None, found: Mapping[str, Row]) -> Row:
    if proof is None or proof.error is None:
        other = proof or found.get(WHOLE_MODEL)
        why = "not among its measures" if other is None else other.message
        return replace(row, message=joined(row.message, f"no proof: {why}"))
    said = f"proved {_proof(proof)}"
    difference = np.inf if row.error is None else row.error
    passes = proof.outcome == "pass" and proof.error <= NEARER * difference
    verdict = Verdict.REFERENCE_WRONG if passes else row.verdict
    return replace(row, verdict=verdict, message=joined(row.message, said))
