"""Who is right where two sides differ: proofs decide, and never for a side that is wrong itself."""

from dataclasses import replace

import numpy as np
import pytest

from parity.compare.arbiter import AtTheta, arbitrate
from parity.compare.run import run_case
from parity.engines.load import load
from parity.fuzz.properties import AT_THETA
from parity.schema.case import case_of
from parity.schema.policy import default_policy
from parity.schema.results import Results, Value
from parity.schema.spec import Spec, probe_theta
from parity.schema.verdicts import Verdict

MMCORE, EXACT = load("mmcore"), load("first-principles")
POLICY = default_policy()
CASE = case_of(Spec(slopes="x", levels=5, rows=4))
THETA = probe_theta(CASE.generated)


class Off:
    """mmcore with one quantity moved by a part of itself."""

    name, version, capabilities = "off", "1", MMCORE.capabilities

    def __init__(self, quantity, part):
        self.quantity, self.part = quantity, part

    def run(self, case, quantities, theta=None):
        found = MMCORE.run(case, quantities, theta)
        values = dict(found.values)
        if value := values.get(self.quantity):
            values[self.quantity] = Value(value.labels, value.values * (1 + self.part))
        return replace(found, engine=self.name, values=values)


def _judged(engine, reference, lane, arbiter=EXACT):
    side = AtTheta(reference, THETA) if lane == "at_theta" else reference
    found = run_case(CASE, engine, (side,), (lane,), AT_THETA, POLICY)
    rows = arbitrate(CASE, found.rows, engine, arbiter, np.array(found.theta), POLICY)
    before = {row.quantity for row in found.rows if row.outcome == "fail"}
    return before, {row.quantity: row for row in rows}


@pytest.mark.parametrize("lane", ["at_theta", "optimum"])
def test_a_wrong_reference_is_called_wrong_with_the_proved_number(lane):
    before, rows = _judged(MMCORE, Off("sigma", 1e-3), lane)
    assert before == {"sigma"}
    row = rows["sigma"]
    assert row.verdict is Verdict.REFERENCE_WRONG
    where = THETA if lane == "at_theta" else None
    proved = EXACT.run(CASE, ["sigma"], where).values["sigma"].values[0]
    assert repr(float(proved)) in row.message
    assert row.got == pytest.approx(proved, rel=1e-9)


@pytest.mark.parametrize("lane", ["at_theta", "optimum"])
def test_a_wrong_engine_stays_wrong(lane):
    before, rows = _judged(Off("sigma", 1e-3), MMCORE, lane)
    assert before == {"sigma"}
    assert rows["sigma"].verdict is Verdict.DISAGREE
    assert "engine off by 0.001" in rows["sigma"].message


def test_two_wrong_sides_do_not_excuse_each_other():
    _, rows = _judged(Off("sigma", 1e-3), Off("sigma", -1e-3), "at_theta")
    assert rows["sigma"].verdict is Verdict.DISAGREE


def test_an_engine_within_the_gate_is_not_right_when_the_reference_is_as_near():
    """Both a little off, on different sides: their difference fails, neither is much nearer to the proof."""
    gate = POLICY.gate("at_theta", "sigma", "lmm").value
    before, rows = _judged(Off("sigma", 0.8 * gate), Off("sigma", -0.8 * gate), "at_theta")
    assert before == {"sigma"}
    assert rows["sigma"].verdict is Verdict.DISAGREE


def test_without_a_proof_a_row_stays_and_says_so():
    class Silent(Off):
        def run(self, case, quantities, theta=None):
            return Results("silent", "1", "unsupported", "not proved: on purpose")

    _, rows = _judged(MMCORE, Off("sigma", 1e-3), "at_theta", Silent("sigma", 0))
    assert rows["sigma"].verdict is Verdict.DISAGREE
    assert "no proof: " in rows["sigma"].message and "on purpose" in rows["sigma"].message


class Lost(Off):
    """A reference that stops short of the optimum, and is wrong wherever it is asked."""

    name = "lost"

    def run(self, case, quantities, theta=None):
        found = super().run(case, quantities, THETA if theta is None else theta)
        return replace(found, converged=True)


class NoOptimum:
    """The arbiter where no optimum can be proved."""

    name, version, capabilities = EXACT.name, EXACT.version, EXACT.capabilities

    def run(self, case, quantities, theta=None):
        if theta is None:
            return Results(self.name, self.version, "unsupported", "not proved: on purpose")
        return EXACT.run(case, quantities, theta)


def test_a_lower_optimum_whose_numbers_are_proved_where_it_is_is_better():
    _, rows = _judged(MMCORE, Lost("sigma", 1e-3), "optimum", NoOptimum())
    row = rows["sigma"]
    assert row.verdict is Verdict.BETTER_THAN_REFERENCE
    own = MMCORE.run(CASE, ["theta", "sigma"])
    proved = EXACT.run(CASE, ["sigma"], own.values["theta"].values).values["sigma"].values[0]
    assert f"proved at the engine's theta: the criterion, and : {float(proved)!r}" in row.message


def test_theta_of_a_lower_optimum_is_proved_by_the_criterion_there():
    """Lower by too little for the gate of optima; theta is not compared where theta is given."""
    case = case_of(Spec(levels=8, rows=4, spread=3))
    own = MMCORE.run(case, ["theta", "criterion"])

    class Short(Off):
        def run(self, case, quantities, theta=None):
            found = super().run(case, quantities, own.theta * 1.0003 if theta is None else theta)
            return replace(found, converged=True)

    (row,) = run_case(case, MMCORE, (Short("sigma", 0.0),), ("optimum",), ("theta",), POLICY).rows
    assert row.verdict is Verdict.DISAGREE and -1e-6 < row.deviance_gap < -1e-7
    (proved,) = arbitrate(case, (row,), MMCORE, NoOptimum(), None, POLICY)
    assert proved.verdict is Verdict.BETTER_THAN_REFERENCE
    assert proved.message.endswith("proved at the engine's theta: the criterion")
    (open_still,) = arbitrate(case, (row,), Off("criterion", 1e-3), NoOptimum(), None, POLICY)
    assert open_still.verdict is Verdict.DISAGREE


def test_a_lower_optimum_with_a_wrong_number_stays_wrong():
    _, rows = _judged(Off("sigma", 1e-3), Lost("sigma", -1e-3), "optimum", NoOptimum())
    assert rows["sigma"].verdict is Verdict.DISAGREE


def test_a_reference_that_is_wrong_at_the_same_theta_is_wrong_at_the_same_optimum():
    """Where no optimum can be proved: of a generalised mixed model rows are proved at given parameters only."""
    case = case_of(Spec(family="binomial", levels=6, rows=6, spread=3))
    off = Off("resid_working", 1e-3)
    found = run_case(
        case, MMCORE, (off,), ("at_theta", "optimum"), ("resid_working", "resid_pearson"), POLICY
    )
    rows = arbitrate(case, found.rows, MMCORE, EXACT, np.array(found.theta), POLICY)
    verdicts = {(row.lane, row.quantity): row.verdict for row in rows}
    assert verdicts["at_theta", "resid_working"] is Verdict.REFERENCE_WRONG
    assert verdicts["optimum", "resid_working"] is Verdict.REFERENCE_WRONG
    assert verdicts["optimum", "resid_pearson"] is Verdict.AGREE
    alone = [row for row in found.rows if row.lane == "optimum"]
    (only, _) = sorted(
        arbitrate(case, alone, MMCORE, EXACT, None, POLICY), key=lambda row: row.quantity != "resid_working"
    )
    assert only.verdict is Verdict.DISAGREE
