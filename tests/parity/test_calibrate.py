"""Calibration: what is proposed follows from what was measured, and loose gates must say why."""

from dataclasses import replace
from types import MappingProxyType

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from parity.commands.main import main
from parity.engines.adapter import design_of
from parity.engines.load import load
from parity.fuzz.properties import AT_THETA
from parity.proof import calibrate
from parity.proof.calibrate import (
    CALIBRATION_FILE,
    CalibrationError,
    Noise,
    differences,
    draw_specs,
    loose_gates,
    proposal,
    read_calibration,
    tight_gates,
    write_calibration,
)
from parity.schema.case import case_of
from parity.schema.policy import PolicyError, default_policy, load_policy
from parity.schema.results import Value
from parity.schema.spec import Spec

MEASURED = read_calibration()


def _with_gate(lane, quantity, **changes):
    """The shipped policy with one gate changed."""
    policy = default_policy()
    gates = dict(policy.gates)
    gates[lane, quantity] = msgspec.structs.replace(gates[lane, quantity], **changes)
    return replace(policy, gates=MappingProxyType(gates))


# --- the gates that are shipped -----------------------------------------------------------------------


def test_no_gate_is_looser_than_measured_without_a_reason():
    assert [str(gate) for gate in loose_gates(default_policy(), MEASURED)] == []


def test_no_gate_would_fail_r_itself():
    assert [str(gate) for gate in tight_gates(default_policy(), MEASURED)] == []


def test_a_gate_loosened_by_hand_fails_until_it_says_why():
    loosened = _with_gate("optimum", "fixef", value=0.5, looser=None)
    assert [gate.quantity for gate in loose_gates(loosened, MEASURED)] == ["fixef"]
    assert "tighten it or say why" in str(loose_gates(loosened, MEASURED)[0])
    explained = _with_gate("optimum", "fixef", value=0.5, looser="because of what was found in the year 2000")
    assert loose_gates(explained, MEASURED) == ()


def test_a_gate_needs_a_reason_at_all(tmp_path):
    """`why` and `source` are not optional, and neither may be a word."""
    from parity.schema.policy import POLICY_FILE

    text = POLICY_FILE.read_text()
    first = text.index('\nwhy = "', text.index("\n[[gate]]")) + 1
    end = text.index("\n", first)
    for mutilated in (text[:first] + text[end + 1 :], text[:first] + 'why = "because"' + text[end:]):
        path = tmp_path / "policy.toml"
        path.write_text(mutilated)
        with pytest.raises(PolicyError, match="why"):
            load_policy(path)


def test_every_lane_is_measured_in_the_quantities_of_a_mixed_model():
    lanes = {lane: {row.quantity for row in MEASURED.noise if row.lane == lane} for lane in calibrate.FLOORS}
    for lane, quantities in lanes.items():
        assert set(AT_THETA) - quantities <= {"resid_marginal_cholesky", "theta"}, lane
    assert MEASURED.models >= 40
    assert min(row.models for row in MEASURED.noise) >= 10
    assert "lme4" in MEASURED.versions


def test_r_is_noisier_where_it_stops_by_default():
    for quantity in ("sigma", "varcorr", "ranef", "hatvalues", "cooks_distance_marginal"):
        at_theta, optimum, default = (MEASURED.of(lane, quantity).largest for lane in calibrate.FLOORS)
        assert at_theta < optimum < default, quantity


# --- proposals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lane", "quantity", "largest", "expected"),
    [
        ("optimum", "fixef", 1.1e-6, 1e-5),
        ("optimum", "fixef", 1e-6, 5e-6),
        ("optimum", "fixef", 0.0, 1e-7),
        ("default", "fixef", 3e-4, 2e-3),
        ("at_theta", "hatvalues", 1e-16, 1e-10),
        ("default", "x_column_moments", 0.0, 1e-11),
        ("at_theta", "n_obs", 1.0, 5.0),
    ],
)
def test_a_proposal_is_five_times_the_noise_rounded_up(lane, quantity, largest, expected):
    assert proposal(lane, quantity, largest) == expected


def test_differences_are_the_errors_of_the_harness():
    spec = Spec(levels=6, rows=5, slopes="x", seed=3)
    engine = load("mmcore")
    want = engine.run(case_of(spec), AT_THETA)
    sigma = want.values["sigma"]
    got = replace(want, values={**want.values, "sigma": Value(sigma.labels, 1.001 * sigma.values)})
    found = dict(differences(got, want, default_policy()))
    assert found["sigma"] == pytest.approx(1e-3)
    assert {name for name, error in found.items() if error > 0} == {"sigma"}
    moved = engine.run(case_of(msgspec.structs.replace(spec, change="permute")), AT_THETA, want.theta)
    assert max(error for _, error in differences(moved, want, default_policy())) < 1e-9


def test_models_are_ordinary_and_drawn_from_the_seed():
    specs = list(draw_specs(32, 5))
    assert specs == list(draw_specs(32, 5)) != list(draw_specs(32, 6))
    sizes = [design_of(case_of(spec)).n for spec in specs]
    assert min(sizes) >= 20 and max(sizes) <= 1000
    assert np.median(sizes) > 50


# --- file and command ---------------------------------------------------------------------------------


def test_the_file_reads_back(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(MEASURED, path)
    assert read_calibration(path) == MEASURED
    assert path.read_text() == CALIBRATION_FILE.read_text()
    path.write_text(path.read_text()[:100])
    with pytest.raises(CalibrationError, match="parity calibrate"):
        read_calibration(path)


def test_command_checks_without_r():
    done = CliRunner().invoke(main, ["calibrate", "--check"])
    assert done.exit_code == 0, done.output
    assert "0 gates looser than measured without a reason, 0 tighter" in done.output


def test_command_fails_on_a_loosened_gate(monkeypatch):
    loosened = _with_gate("default", "sigma", value=1.0, looser=None)
    monkeypatch.setattr("parity.schema.policy.default_policy", lambda: loosened)
    done = CliRunner().invoke(main, ["calibrate", "--check"])
    assert done.exit_code == 1
    assert "LOOSE default / sigma" in done.output


@pytest.mark.live
def test_measuring_again_gives_what_is_proposed():
    """A few models on live R: no noise beyond what the shipped calibration proposes for it."""
    live = load("live")
    try:
        found = calibrate.calibrate(live, models=3, seed=9)
    finally:
        live.close()
    beyond = [
        f"{row.lane} {row.quantity} {row.largest:g}" for row in found.noise
        if (known := MEASURED.of(row.lane, row.quantity)) is not None and row.largest > 4 * known.proposed
    ]  # fmt: skip
    assert beyond == []
    assert all(isinstance(row, Noise) for row in found.noise)
