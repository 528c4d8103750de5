"""The differences of a run grouped by cause: one line for what may be thirty rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parity.compare.judge import NOT_COMPARED, WHOLE_MODEL, Row, joined
from parity.compare.relations import merged
from parity.schema.verdicts import Verdict

__all__ = ["Cause", "causes"]

NAMED = 4  # quantities and cases that a line names before it counts


@dataclass(frozen=True, slots=True)
class Cause:
    """What some rows have in common, as far as it was found."""

    text: str  # one sentence
    verdicts: tuple[Verdict, ...]
    quantities: tuple[str, ...]
    cases: tuple[str, ...]
    lanes: tuple[str, ...]
    rows: tuple[Row, ...]
    trace: str = ""  # of the first call that failed
    explained: bool = True  # False: the rest, for which no relation holds

    @property
    def line(self) -> str:
        """The quantities, then what is wrong with them, then where."""
        where = f"{_few(self.cases)} ({', '.join(self.lanes)})"
        if self.quantities == (WHOLE_MODEL,):
            return f"{self.text}: {where}"
        return f"{_few(self.quantities)}: {self.text}; {where}"


def causes(rows: Iterable[Row]) -> tuple[Cause, ...]:
    """The causes of the rows that count against the engine: those that explain most first, the unexplained last."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.outcome == "fail":
            groups.setdefault(_key(row), []).append(row)
    found = [_cause(members) for members in groups.values()]
    return tuple(sorted(found, key=lambda cause: (not cause.explained, -len(cause.rows))))


def _key(row: Row) -> str:
    if row.cause:
        return row.cause
    if row.verdict is Verdict.DESIGN_DIFFERS:
        return "design"
    return f"verdict {row.verdict}"


def _cause(rows: Sequence[Row]) -> Cause:
    first = next(
        (row for row in rows if row.relation == row.cause), next((r for r in rows if r.relation), rows[0])
    )
    compared = [row.quantity for row in rows if not row.message.startswith(NOT_COMPARED)]
    quantities = dict.fromkeys(compared or (row.quantity for row in rows))
    return Cause(
        text=_text(first, rows), verdicts=tuple(dict.fromkeys(row.verdict for row in rows)),
        quantities=tuple(quantities), cases=tuple(dict.fromkeys(row.case for row in rows)),
        lanes=tuple(dict.fromkeys(row.lane for row in rows)), rows=tuple(rows),
        trace=next((row.trace for row in rows if row.trace), ""),
        explained=bool(first.relation) or first.verdict in _SPEAK,
    )  # fmt: skip


# Verdicts that are an explanation by themselves.
_SPEAK = (
    Verdict.DESIGN_DIFFERS, Verdict.WORSE_THAN_REFERENCE, Verdict.ENGINE_NOT_CONVERGED, Verdict.KNOWN_BUT_AGREES,
)  # fmt: skip


def _text(first: Row, rows: Sequence[Row]) -> str:
    if first.relation:
        return (
            first.relation
            if first.relation == first.cause
            else merged([r.relation for r in rows if r.relation])
        )
    said = first.verdict.meaning
    if first.verdict not in _SPEAK:
        said = joined(said, "no simple relation to the reference holds for all elements")
    return said


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
