"""The loop: what breaks costs its case only, an interruption keeps what was done, nothing is no success."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from parity import check_engine
from parity.compare.run import run
from parity.engines.load import load
from parity.engines.references import references
from parity.fuzz.bundle import find_case
from parity.schema.case import Case, load_cases, select
from parity.schema.engine import EngineError
from parity.schema.known import KnownError
from parity.schema.quantities import DESIGN
from parity.schema.results import Results, Value, scalar
from parity.schema.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[2]


def _cases(*names):
    return [Case(name=name, data="sleepstudy", formula="Reaction ~ Days + (1 | Subject)") for name in names]


def test_agreement_is_exit_code_0(fake):
    report = run(_cases("a", "b"), fake("ours"), [fake("theirs")])
    assert (report.exit_code, report.not_run) == (0, ())
    assert report.headline == f"{len(report.rows)} of {len(report.rows)} comparisons agree"


def test_engine_is_evaluated_at_the_theta_of_the_reference(fake):
    ours = fake("ours")
    run(_cases("a"), ours, [fake("theirs", own_shift=0.25)], lanes=["at_theta", "optimum"])
    (_, at), (_, own) = ours.asked
    np.testing.assert_array_equal(at, [1.05])
    assert own is None


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_case_that_breaks_does_not_end_the_run(fake, jobs):
    def broken(results):
        raise ZeroDivisionError("in the engine")

    def sometimes(results):
        return broken(results) if ours.asked[-1][0] == "b" and jobs == 1 else results

    ours = fake("ours", sometimes if jobs == 1 else broken)
    report = run(_cases("a", "b", "c"), ours, [fake("theirs")], jobs=jobs)
    errors = [row for row in report.rows if row.verdict is Verdict.ENGINE_ERROR]
    assert {row.case for row in errors} == ({"b"} if jobs == 1 else {"a", "b", "c"})
    assert "ZeroDivisionError: in the engine (test_run.py:" in errors[0].message
    assert report.exit_code == 1


@pytest.mark.parametrize("jobs", [1, 3])
def test_blas_has_one_thread_while_engines_run(fake, jobs):
    seen = []

    def watched(results):
        seen.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
        return results

    with threadpool_limits(2, user_api="blas"):
        run(_cases("a", "b", "c"), fake("ours", watched), [fake("theirs")], jobs=jobs)
        after = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert len(seen) >= 3 and set.union(*seen) == {1}
    assert after == {2}


def test_an_engine_that_returns_something_else(fake):
    report = run(
        _cases("a"), fake("ours", lambda results: {"sigma": 1.0}), [fake("theirs")], lanes=["optimum"]
    )
    assert report.rows[0].message.endswith("`run` returned dict, not Results")


@pytest.mark.parametrize("status", ["crashed", "timeout", "error"])
def test_infrastructure_is_exit_code_3_and_the_rest_goes_on(fake, status):
    def dies(results):
        return Results("theirs", "1", status, "gone") if theirs.asked[-1][0] == "a" else results

    theirs = fake("theirs", dies)
    report = run(_cases("a", "b"), fake("ours"), [theirs])
    assert report.exit_code == 3
    assert {row.case for row in report.rows if row.outcome == "pass"} == {"b"}


def test_a_difference_outweighs_infrastructure(fake, change):
    def dies(results):
        return Results("theirs", "1", "crashed") if theirs.asked[-1][0] == "a" else results

    theirs = fake("theirs", dies)
    ours = fake("ours", lambda r: change.values(r, sigma=scalar(0.0)))
    assert run(_cases("a", "b"), ours, [theirs]).exit_code == 1


def test_nothing_compared_is_not_success(fake):
    nothing = run([], fake("ours"), [fake("theirs")])
    unsupported = run(_cases("a"), fake("ours", capabilities=frozenset()), [fake("theirs")])
    assert nothing.exit_code == unsupported.exit_code == 3
    assert nothing.headline == unsupported.headline == "nothing was compared: that is not success"


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_keeps_what_was_done(fake, jobs):
    done = []

    def observer(report):
        done.append(report.case.name)
        raise KeyboardInterrupt

    report = run(
        _cases("a", "b", "c", "d", "e"), fake("ours"), [fake("theirs")], jobs=jobs, observer=observer
    )
    assert [item.case.name for item in report.cases] == done
    assert len(report.not_run) == 4
    assert report.exit_code == 3
    assert "interrupted" in report.notes[0]


def test_every_reference_is_compared_and_named(fake, change):
    other = fake("second", lambda r: change.values(r, sigma=scalar(1.0)))
    report = run(_cases("a"), fake("ours"), [fake("first"), other], lanes=["at_theta"])
    sigma = {row.reference: row.verdict for row in report.rows if row.quantity == "sigma"}
    assert sigma == {"first": Verdict.AGREE, "second": Verdict.DISAGREE}


def test_only_the_quantities_asked_for_are_shown(fake):
    report = run(_cases("a"), fake("ours"), [fake("theirs")], quantities=["fixef", "theta"])
    assert {(row.lane, row.quantity) for row in report.rows} == {
        ("at_theta", "fixef"), ("optimum", "fixef"), ("optimum", "theta"),
    }  # fmt: skip


def test_a_gate_does_not_depend_on_what_else_is_asked_for():
    """Its width is read off yardsticks of the reference: they are asked for with every quantity."""
    case = find_case(str(ROOT / "tests" / "regressions" / "fuzz-0ed46029cd58.json"))
    name = "cooks_distance_marginal_group"
    sides = load("mmcore"), [load("first-principles")]
    (alone,) = run([case], *sides, lanes=["at_theta"], quantities=[name]).rows
    (among,) = (row for row in run([case], *sides, lanes=["at_theta"]).rows if row.quantity == name)
    assert alone.gate == among.gate > 2e-9


def test_lane_default_needs_a_reference_that_can_stop_there(fake):
    report = run(_cases("a"), fake("ours"), [fake("theirs")], lanes=["default"])
    assert [row.verdict for row in report.rows] == [Verdict.UNSUPPORTED]


def test_check_engine_says_what_is_not_an_engine():
    with pytest.raises(EngineError, match="dict has no name, version, capabilities, run"):
        check_engine({})


def test_check_engine_needs_reasons(fake):
    with pytest.raises(KnownError, match="write 'case:quantity'"):
        check_engine(fake("ours"), expected_differences={"sigma": "a reason that is long enough"})
    with pytest.raises(KnownError, match="no quantity matches 'sgima'"):
        check_engine(fake("ours"), expected_differences={"*:sgima": "a reason that is long enough"})


def test_check_engine_judges_an_engine_by_the_recordings():
    report = check_engine("mmcore", cases=["dyestuff_reml"])
    assert {row.case for row in report.rows} == {"dyestuff_reml"}
    assert not [row for row in report.rows if row.quantity == "fixef" and row.outcome != "pass"]


class _Zeros:
    """The right labels and the right design, and zero for everything that is estimated."""

    name, version = "zeros", "0"
    capabilities = frozenset(
        {
            "lm",
            "lmm",
            "glm",
            "glmm",
            "weights",
            "offset",
            "contrasts",
            "at_theta",
            "optimum",
            "all_quantities",
        }
    )

    def __init__(self, reference):
        self.reference = reference

    def run(self, case, quantities, theta=None):
        right = self.reference.run(case, quantities)
        values = {
            name: value if name in DESIGN else Value(value.labels, np.zeros(len(value.labels)))
            for name, value in right.values.items()
        }
        return replace(right, engine="zeros", values=values)


def test_an_engine_of_zeros_fails_every_case_and_agrees_only_where_the_reference_is_zero():
    reference = references("recorded")[0][0]
    cases = [case for case in select(load_cases()) if case.expect == "fit" and "large" not in case.tags]
    report = run(cases, _Zeros(reference), [reference])
    failing = {row.case for row in report.rows if row.outcome == "fail"}
    assert failing == {case.name for case in cases}
    passing = [row for row in report.rows if row.outcome == "pass" and row.quantity not in DESIGN]
    assert len(passing) < 0.02 * len(report.rows)
    assert all(abs(row.want) < 1e-8 for row in passing)


def test_refits_are_asked_of_the_engine_only_where_a_reference_made_them(case, fake, change):
    """They are dear: neither a reference that skipped them nor one without the case is a reason to make them."""
    from parity.schema.quantities import REGISTRY
    from parity.schema.results import Results

    dear = {name for name, row in REGISTRY.items() if row.refits}

    class Asked(type(fake())):
        def run(self, case, quantities, theta=None):
            self.quantities = set(quantities)
            return super().run(case, quantities, theta)

    def skips(results):
        for name in dear & set(results.values):
            results = change.without(results, name, "skipped")
        return results

    absent = fake("absent", change=lambda r: Results(r.engine, r.version, "unsupported", "no such recording"))
    for sources, asked in (
        ([fake("skips", change=skips), absent], set()),
        ([fake("skips", change=skips), fake("has")], dear),
    ):
        engine = Asked("engine")
        run([case], engine, sources, lanes=["at_theta"])
        assert engine.quantities & dear == asked


def test_a_reference_may_hold_some_of_the_refits(case, fake, change):
    from parity.schema.results import Value

    def part(results):
        whole = results.values["deletion_sigma"]
        return change.values(results, deletion_sigma=Value(whole.labels[:2], whole.values[:2]))

    report = run([case], fake("engine"), [fake("part", change=part)], lanes=["at_theta"])
    row = next(row for row in report.rows if row.quantity == "deletion_sigma")
    assert (str(row.verdict), row.compared) == ("agree", 2)
    report = run([case], fake("engine", change=part), [fake("whole")], lanes=["at_theta"])
    row = next(row for row in report.rows if row.quantity == "deletion_sigma")
    assert (str(row.verdict), "the engine lacks" in row.message) == ("disagree", True)
