"""Who is right where two sides differ: a third one, whose numbers are proved, is asked.

A comparison that fails is judged again against the arbiter, at the same theta or at the proved optimum. Where the
engine agrees with the proof within the gate, and is much nearer to it than to the reference, the reference is wrong,
and the proved number is the evidence. In every other case the row stays as it was and says what the arbiter found.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parity.case import Case
from parity.compare import Row, joined
from parity.engine import Engine
from parity.measures import YARDSTICKS
from parity.policy import Policy
from parity.quantities import Lane
from parity.results import Results
from parity.run import run_case
from parity.verdicts import Verdict

# Of the difference between the two sides: then the reference is three times as far from the truth as the engine.
NEARER = 0.25
OPEN = (Verdict.DISAGREE, Verdict.SINGULAR_DIFFERS, Verdict.WORSE_THAN_REFERENCE, Verdict.DEFINITION_DIFFERS)

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

    Costs nothing where nothing fails; else one run of arbiter and engine per lane with failing rows.
    """
    out = list(rows)
    sides: dict[Lane, Engine] = {"optimum": arbiter}
    if theta is not None:
        sides["at_theta"] = AtTheta(arbiter, theta)
    for lane, side in sides.items():
        doubted = [i for i, row in enumerate(rows) if row.lane == lane and row.verdict in OPEN]
        if not doubted:
            continue
        names = tuple(dict.fromkeys([*(rows[i].quantity for i in doubted), *YARDSTICKS]))
        judged = run_case(case, engine, (side,), (lane,), names, policy).rows
        found = {row.quantity: row for row in judged}
        for i in doubted:
            out[i] = _judged(rows[i], found.get(rows[i].quantity), judged[0])
    return tuple(out)


def _judged(row: Row, proof: Row | None, whole: Row) -> Row:
    if proof is None or proof.error is None:
        return replace(row, message=joined(row.message, f"no proof: {(proof or whole).message}"))
    said = f"proved {proof.label}: {proof.want!r}, engine off by {proof.error:.2g}"
    difference = np.inf if row.error is None else row.error
    passes = proof.outcome == "pass" and proof.error <= NEARER * difference
    verdict = Verdict.REFERENCE_WRONG if passes else row.verdict
    return replace(row, verdict=verdict, message=joined(row.message, said))
