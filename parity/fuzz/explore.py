"""Looking for disagreement: Hypothesis draws specs, class by class, and drives towards where the two sides
differ most.

Each class has a quota of examples. A failure is shrunk to the plainest model that still fails and handed over
with all that is needed to see it again (`bundle.py`). The database of Hypothesis is not used: what is worth
keeping becomes a case in a file."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from parity.compare.arbiter import AtTheta, arbitrate
from parity.compare.judge import Row
from parity.compare.run import one_blas_thread, run_case
from parity.fuzz.classes import CLASSES, GENERALISED
from parity.fuzz.invalid import MISTAKES, invalid_case
from parity.fuzz.properties import measures, violations
from parity.schema.case import Case, case_of
from parity.schema.engine import Engine
from parity.schema.policy import Policy, default_policy
from parity.schema.quantities import REGISTRY, Lane
from parity.schema.spec import LINKS, Spec, probe_theta, settled
from parity.schema.verdicts import NO_MAXIMUM, Verdict

INVALID = "invalid"  # the class of models that must be refused
NAMES: tuple[str, ...] = (*CLASSES, INVALID)
LEAST, MOST = 1e-18, 1e6  # bounds of what `target` is told
FLAT = 1e-7  # deviance units: two optima this close, with the same algebra, differ by what the criterion cannot tell
# Errors of the reference: no nearness to a gate.
AHEAD = (Verdict.REFERENCE_WRONG, Verdict.BETTER_THAN_REFERENCE)
DEFAULT_EXAMPLES = 320


class FuzzError(ValueError):
    """Fuzzing was asked for something that does not exist; the message lists what does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A model on which the two sides differ, shrunk, and what was seen there."""

    case: Case
    rows: tuple[Row, ...]  # those that count against the engine
    broken: tuple[str, ...] = ()  # statements of `properties.py` that the engine broke

    @property
    def text(self) -> str:
        """One line."""
        if self.rows:
            row = self.rows[0]
            return f"{row.lane} / {row.quantity}[{row.label}]: {row.verdict} {row.message}".strip()
        return self.broken[0]


@dataclass(slots=True)
class ClassReport:
    """What became of one class."""

    name: str
    examples: int = 0  # different models tried
    not_judged: int = 0  # of these, the reference could not answer
    flat: int = 0  # comparisons at an optimum that the criterion does not determine to the gate
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    most: float = 0.0  # largest error, as a fraction of its gate
    most_at: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fuzzed against what."""

    engine: Engine
    reference: Engine | None  # None: only the statements that need none
    examples: int  # per class
    seed: int = 0
    properties: bool = True
    derandomize: bool = False  # the same examples on every machine and at every time
    arbiter: Engine | None = None  # says who is right where the two differ
    policy: Policy = field(default_factory=default_policy)


def quota(examples: int, classes: Sequence[str]) -> int:
    """Examples per class, rounded up: no class may fall below its share."""
    return max(1, math.ceil(examples / len(classes)))


def checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The classes asked for; all if none is.

    Raises
    ------
    FuzzError
        if there is no such class.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise FuzzError(f"there is no class {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return tuple(names) or NAMES


def fuzz(plan: Plan, classes: Sequence[str] = NAMES) -> Iterator[ClassReport]:
    """Explore class by class; yields each class as it is done. At most one finding per class and kind of trouble."""
    for name in checked_classes(classes):
        yield _explore(plan, name)


# --- one class ------------------------------------------------------------------------------------------


def specs(name: str) -> Any:
    """The Hypothesis strategy of a class: its fixed fields, and small draws for all others."""
    from hypothesis import strategies as st

    if name == INVALID:
        return st.tuples(st.sampled_from(sorted(MISTAKES)), specs("intercept"))
    small = {
        "seed": st.integers(0, 999), "levels": st.integers(2, 9), "rows": st.integers(1, 7),
        "imbalance": st.sampled_from(["none", "mild", "heavy", "singletons"]),
        "slopes": st.sampled_from(["none", "x", "x_z", "factor"]), "correlated": st.booleans(),
        "second": st.sampled_from(["none", "none", "crossed", "nested"]), "second_levels": st.integers(2, 5),
        "second_slope": st.booleans(), "intercept": st.sampled_from([True, True, False]),
        "covariates": st.integers(0, 2), "factor": st.sampled_from([0, 0, 2, 3, 4]),
        "interaction": st.booleans(), "fixed_intercept": st.sampled_from([True, True, True, False]),
        "spread": st.sampled_from([2, 0, 1, 3, 4]), "correlation": st.integers(-9, 9),
        "x_exponent": st.sampled_from([0, 0, 0, -3, 3]), "y_exponent": st.sampled_from([0, 0, 0, -8, 8]),
        "y_shift": st.sampled_from([0, 0, 0, 3]), "collinear": st.sampled_from([0, 0, 0, 2]),
        "weights": st.sampled_from(["none", "none", "random"]), "offset": st.booleans(),
        "missing": st.sampled_from([0, 0, 1, 3]),
        "labels": st.sampled_from(["plain", "text", "numeric", "shuffled", "unused"]),
        "contrasts": st.sampled_from(["", "", "contr.sum", "contr.helmert"]), "reml": st.booleans(),
        "probe": st.sampled_from(["optimum", "optimum", "random", "boundary"]),
    }  # fmt: skip
    if name in GENERALISED:
        small["link"] = st.sampled_from(LINKS[str(CLASSES[name]["family"])])
        small["rows"] = st.integers(3, 8)
    if name == "intercept":
        small |= {"slopes": st.just("none"), "second": st.just("none")}
    fixed = {key: st.just(value) for key, value in CLASSES[name].items()}
    return st.builds(lambda **fields: settled(Spec(**fields)), **(small | fixed))


@dataclass(frozen=True, slots=True)
class Judged:
    """One example, judged."""

    finding: Finding | None
    rows: tuple[Row, ...]
    excess: float = 0.0  # largest error as a fraction of its gate
    flat: int = 0  # differences that a flat criterion explains

    @property
    def answered(self) -> bool:
        """The reference had something to say."""
        return any(row.outcome in ("pass", "fail") for row in self.rows)


def _explore(plan: Plan, name: str) -> ClassReport:
    """Hypothesis on one class. The only exception it sees is ours; the last failing example is the shrunk one."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, target

    seen: dict[Any, Judged] = {}
    failing: list[Any] = []

    @seed(f"{plan.seed}/{name}")
    @settings(
        max_examples=plan.examples, database=None, deadline=None, derandomize=plan.derandomize, print_blob=False,
        report_multiple_bugs=False, verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink),
    )  # fmt: skip
    @given(specs(name))
    def check(drawn: Any) -> None:
        if drawn not in seen:
            seen[drawn] = judge(plan, drawn)
        found = seen[drawn]
        target(math.log10(min(max(found.excess, LEAST), MOST)), label="log10 of error / gate")
        if found.finding is not None:
            failing.append(drawn)
            raise _Found

    with contextlib.suppress(_Found):
        check()
    return _report(name, seen, failing)


class _Found(AssertionError):
    """The example in hand is a finding."""


def _report(name: str, seen: dict[Any, Judged], failing: Sequence[Any]) -> ClassReport:
    report = ClassReport(name, examples=len(seen))
    for drawn, judged in seen.items():
        report.verdicts.update(str(row.verdict) for row in judged.rows)
        report.not_judged += not judged.answered
        report.flat += judged.flat
        if judged.excess > report.most:
            report.most, report.most_at = judged.excess, describe(drawn)
    if failing:
        finding = seen[failing[-1]].finding
        assert finding is not None
        report.findings.append(finding)
    return report


def describe(drawn: Any) -> str:
    """A drawn model as one line of JSON."""
    return msgspec.json.encode(drawn).decode()


# --- one example ----------------------------------------------------------------------------------------


def judge(plan: Plan, drawn: Any) -> Judged:
    """Both sides on one model, drawn as a spec or as (mistake, spec)."""
    return judge_case(plan, invalid_case(*drawn) if isinstance(drawn, tuple) else case_of(drawn))


def judge_case(plan: Plan, case: Case) -> Judged:
    """Both sides on one case, and the statements that need no reference."""
    with one_blas_thread():
        return _compared_and_stated(plan, case)


def _compared_and_stated(plan: Plan, case: Case) -> Judged:
    rows = () if plan.reference is None else compared(plan, case)
    broken: tuple[str, ...] = ()
    if case.expect == "refuse":
        broken = _not_refused(plan.engine, case) if plan.reference is None else ()
    elif (
        plan.properties
        and case.kind == "lmm"
        and case.generated is not None
        and not any(row.outcome == "fail" for row in rows)
    ):
        found = violations(case.generated, plan.engine)
        broken = tuple(f"{v.statement}: {v.quantity}: {v.detail}" for v in found)
    return _judged(case, rows, broken)


def _judged(case: Case, rows: tuple[Row, ...], broken: tuple[str, ...]) -> Judged:
    flat = {id(row) for row in rows if _is_flat(row, rows)}
    bad = [row for row in rows if row.outcome == "fail" and id(row) not in flat]
    bad.sort(key=lambda row: -_excess(row))
    finding = Finding(case, tuple(bad), broken) if bad or broken else None
    judged = [row for row in rows if id(row) not in flat and row.verdict not in AHEAD]
    return Judged(finding, rows, max((_excess(row) for row in judged), default=0.0), len(flat))


def _is_flat(row: Row, rows: tuple[Row, ...]) -> bool:
    """Whether a difference at the optimum is only where on a flat top each optimiser stopped.

    The deviances agree far within their gate, and at the same theta everything agrees: then theta is not
    known any better, and neither is what follows from it. Or there is no top at all, by the arbiter's word."""
    if NO_MAXIMUM in row.message:
        return True
    if (
        row.lane != "optimum"
        or row.outcome != "fail"
        or row.deviance_gap is None
        or abs(row.deviance_gap) > FLAT
    ):
        return False
    of_the_optimum = row.verdict in (Verdict.DISAGREE, Verdict.SINGULAR_DIFFERS)
    elsewhere = [other.outcome for other in rows if other.lane == "at_theta"]
    same_algebra = "pass" in elsewhere and "fail" not in elsewhere  # a glm has no theta: nothing is explained
    return of_the_optimum and same_algebra and REGISTRY[row.quantity].group != "design"


def _excess(row: Row) -> float:
    if row.error is None or not row.gate:
        return 0.0
    return row.error / row.gate if math.isfinite(row.error) else MOST


def _not_refused(engine: Engine, case: Case) -> tuple[str, ...]:
    answer = engine.run(case, measures(case.kind))
    return () if answer.status == "refused" else (f"must be refused: {answer.status} {answer.message}",)


def asked_theta(case: Case) -> np.ndarray | None:
    """Where both sides are asked: the theta that the spec draws, or None for their optima."""
    spec = case.generated
    return None if spec is None or spec.probe == "optimum" or case.expect == "refuse" else probe_theta(spec)


def compared(plan: Plan, case: Case) -> tuple[Row, ...]:
    """The verdicts on a case: at the reference's optimum and at the engine's own, or at a theta that the spec draws."""
    assert plan.reference is not None
    lanes: tuple[Lane, ...] = ("at_theta", "optimum")
    reference = plan.reference
    if case.expect == "refuse":
        lanes = ("optimum",)
    elif (theta := asked_theta(case)) is not None:
        lanes, reference = ("at_theta",), AtTheta(plan.reference, theta)
    found = run_case(case, plan.engine, (reference,), lanes, measures(case.kind), plan.policy)
    if plan.arbiter is None:
        return found.rows
    where = np.array(found.theta) if found.theta else None
    return arbitrate(case, found.rows, plan.engine, plan.arbiter, where, plan.policy)
