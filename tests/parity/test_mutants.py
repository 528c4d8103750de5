"""The harness tested: deliberate faults are caught, an engine of zeros fails, lme4 itself passes."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from parity.check import check_engine
from parity.commands.main import main
from parity.compare.run import run
from parity.engines.load import load
from parity.engines.references import references
from parity.proof import mutants
from parity.proof.mutants import MutantError, Outcome, hunt, load_mutants, summary
from parity.schema.case import load_cases, select

MUTANTS = {mutant.name: mutant for mutant in load_mutants()}

# One of each kind: criterion, weights, a kernel of each shape, estimates, influence, labels, design.
SAMPLE = (
    "reml_divides_by_n", "x_not_weighted", "one_factor_modes_without_sigma", "varcorr_relative", "covratio_inverted",
    "sum_contrasts_sign",
)  # fmt: skip
ENTRY = {
    "name": "a", "file": "kernels/profile.py", "old": "LOG_2PI = log(2.0 * pi)", "new": "LOG_2PI = 1.0", "what": "x"
}  # fmt: skip


def _table(folder, *entries):
    """A list of mutants as a file."""
    lines = [
        line
        for entry in entries
        for line in ("[[mutant]]", *(f"{k} = {json.dumps(v)}" for k, v in entry.items()))
    ]
    path = folder / "mutants.toml"
    path.write_text("\n".join(lines))
    return path


def test_there_are_sixty_faults_in_every_part_of_the_mathematics():
    assert len(MUTANTS) >= 60
    parts = {mutant.file.split("/")[0] for mutant in MUTANTS.values()}
    assert {"kernels", "diagnostics", "results", "glmm", "design", "covariance", "families"} <= parts
    files = {mutant.file for mutant in MUTANTS.values()}
    assert {
        f"kernels/{name}.py" for name in ("profile", "one_factor", "dense", "nested", "crossed", "small")
    } <= files


def test_a_sample_of_faults_is_caught_one_at_a_time():
    outcomes = list(hunt([MUTANTS[name] for name in SAMPLE], jobs=2))
    assert [outcome.mutant for outcome in outcomes] == list(SAMPLE)
    assert {outcome.mutant for outcome in outcomes if not outcome.caught} == set()
    assert all(outcome.by for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fault_is_caught():
    outcomes = list(hunt(list(MUTANTS.values()), jobs=2))
    assert summary(outcomes)["survivors"] == []


def test_a_fault_that_is_none_survives(tmp_path, monkeypatch):
    """The hunt can lose: a replacement without meaning is not caught, and the command fails."""
    table = _table(tmp_path, ENTRY | {"name": "harmless", "new": "LOG_2PI = log(2 * pi)"})
    monkeypatch.setattr(mutants, "_one", _without_processes({"": False, "harmless": False}))
    monkeypatch.setattr(mutants, "load_mutants", lambda: load_mutants(table))
    done = CliRunner().invoke(main, ["mutants"])
    assert done.exit_code == 1
    assert "SURVIVED harmless" in done.output and "mutation score 0 of 1 (0.0 %)" in done.output


def _without_processes(caught):
    return lambda name: Outcome(name, caught[name], "somewhere")


def test_a_gate_that_is_not_green_proves_nothing(monkeypatch):
    monkeypatch.setattr(mutants, "_one", _without_processes({"": True}))
    with pytest.raises(MutantError, match="not green without any fault: somewhere"):
        list(hunt([]))
    done = CliRunner().invoke(main, ["mutants", "offset_added"])
    assert done.exit_code == 3


def test_unknown_mutants_are_a_mistake_of_the_user():
    done = CliRunner().invoke(main, ["mutants", "no_such_fault"])
    assert done.exit_code == 2
    assert "no_such_fault" in done.output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"old": "this text is nowhere"}, "stands 0 times"),
        ({"old": "p"}, "times in mmcore/kernels/profile.py"),
        ({"file": "kernels/none.py"}, "there is no mmcore/kernels/none.py"),
        ({"new": "LOG_2PI = log(2.0 * pi)"}, "changes nothing"),
        ({"name": "Not a name"}, "regex"),
    ],
)
def test_a_list_that_no_longer_fits_the_code_says_where(tmp_path, change, says):
    table = _table(tmp_path, ENTRY | change)
    with pytest.raises(MutantError, match=says):
        load_mutants(table)


def test_a_name_is_used_once(tmp_path):
    table = _table(tmp_path, ENTRY, ENTRY)
    with pytest.raises(MutantError, match="used twice: a"):
        load_mutants(table)


def test_a_mutant_needs_a_process_of_its_own():
    import mmcore  # noqa: F401

    with pytest.raises(MutantError, match="process of its own"):
        mutants.install(MUTANTS["offset_added"])


def test_the_fault_is_in_the_imported_code_and_not_on_disk():
    code = (
        "from parity.proof.mutants import install, load_mutants\n"
        "install(next(m for m in load_mutants() if m.name == 'criterion_log_pi'))\n"
        "import mmcore.kernels.profile as c\n"
        "print(c.LOG_2PI)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1.1447298858494002", done.stderr  # log(pi)
    import mmcore.kernels.profile as common

    assert pytest.approx(1.8378770664093453) == common.LOG_2PI


# --- engines that must fail, and that must pass -------------------------------------------------------


def test_an_engine_of_zeros_fails_every_case_and_every_number_that_is_not_zero():
    cases = [
        case
        for case in select(load_cases(), ["tag:lmm"])
        if "large" not in case.tags and case.expect == "fit"
    ]
    report = run(cases, load("zeros"), references("recorded")[0], lanes=["at_theta", "optimum"])
    assert report.exit_code == 1
    assert {row.case for row in report.rows if row.outcome == "fail"} == {case.name for case in cases}
    passed = {(row.quantity, row.want) for row in report.rows if row.outcome == "pass"}
    assert max(abs(want) for _, want in passed) < 1e-12  # zero, or what rounding left of it in a recording
    assert mutants.blind_spots() == ()


@pytest.mark.live
def test_lme4_itself_passes_everything():
    """The polished optimum against what was recorded, and the algebra at the recorded theta."""
    live = load("live")
    try:
        report = check_engine(
            live, lanes=["at_theta", "optimum"],
            cases=["dyestuff*", "sleepstudy_*", "pastes*", "penicillin*", "machines*", "oats*", "refuse*"],
        )  # fmt: skip
    finally:
        live.close()
    failed = [
        f"{row.case} {row.lane} {row.quantity} {row.verdict}" for row in report.rows if row.outcome == "fail"
    ]
    assert failed == []
    assert report.counts
