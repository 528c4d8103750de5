"""Other models that an engine may have fitted in place of the one asked for: without weights, by ML, without offset.

Whether it did is found by asking an engine that is trusted for the other model: if its numbers are the engine's, to
the gate, that is the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from parity.compare.distance import errors, scales
from parity.compare.judge import NOT_COMPARED, Pair, Row, aligned
from parity.schema.case import Case
from parity.schema.quantities import REGISTRY
from parity.schema.results import Results
from parity.schema.verdicts import Verdict

__all__ = ["Ask", "explained", "variants"]

Ask = Callable[[Case], Results]  # a trusted engine, at the point where the engine under test was asked
OPEN = (
    Verdict.DISAGREE, Verdict.DEFINITION_DIFFERS, Verdict.SINGULAR_DIFFERS, Verdict.WORSE_THAN_REFERENCE,
    Verdict.DESIGN_DIFFERS, Verdict.ENGINE_NOT_CONVERGED,
)  # fmt: skip


def variants(case: Case) -> tuple[tuple[str, Case], ...]:
    """What the engine may have done instead, and the case in which that is right."""
    found: list[tuple[str, Case]] = []
    if case.weights:
        found.append(("the weights are left out", msgspec.structs.replace(case, weights=None)))
    if case.offset:
        found.append(("the offset is left out", msgspec.structs.replace(case, offset=None)))
    if case.weights and case.offset:
        both = msgspec.structs.replace(case, weights=None, offset=None)
        found.append(("weights and offset are left out", both))
    if case.kind == "lmm":
        said = "fitted by ML where REML is asked for" if case.reml else "fitted by REML where ML is asked for"
        found.append((said, msgspec.structs.replace(case, reml=not case.reml)))
    return tuple(found)


def explained(pair: Pair, rows: tuple[Row, ...], ask: Ask) -> tuple[Row, ...]:
    """The rows, with a variant as cause if it gives most of what differs and contradicts nothing that agrees."""
    differing = [row for row in rows if row.verdict in OPEN and row.quantity in pair.engine.values]
    compared = [row for row in differing if not row.message.startswith(NOT_COMPARED)]
    agreeing = [row for row in rows if row.verdict is Verdict.AGREE and row.compared]
    if not differing:
        return rows
    for text, case in variants(pair.case):
        other = ask(case)
        held, tried = _same(pair, compared, other)
        same, known = _same(pair, agreeing, other)
        if 2 * len(held) > len(tried) and same == known:
            sure = held | _same(pair, differing, other)[0]
            return tuple(_caused(row, text, sure) if row in differing else row for row in rows)
    return rows


def _caused(row: Row, text: str, held: set[str]) -> Row:
    sure = "" if row.quantity in held else " (of this model; this quantity was not checked)"
    return replace(row, cause=text, relation=text + sure)


def _same(pair: Pair, rows: Sequence[Row], other: Results) -> tuple[set[str], set[str]]:
    """The quantities in which the engine has the numbers of the other model, and those that could be compared."""
    held: set[str] = set()
    tried: set[str] = set()
    if other.status != "ok":
        return held, tried
    scale = scales(other, pair.policy)
    for row in rows:
        got, want = pair.engine.values[row.quantity], other.values.get(row.quantity)
        if want is None or set(want.labels) != set(got.labels) or not len(want.labels):
            continue
        tried.add(row.quantity)
        quantity, gate = REGISTRY[row.quantity], pair.policy.gate(pair.lane, row.quantity, pair.case.kind)
        error = errors(gate.measure or quantity.measure, aligned(got, want), want, quantity.unit, scale)
        if (np.nan_to_num(error, nan=0.0) <= pair.policy.allowed(gate, scale.condition_of(quantity))).all():
            held.add(row.quantity)
    return held, tried
