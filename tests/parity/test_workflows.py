"""CI files: valid, calling make targets that exist, safe in what they interpolate; the action's own script is run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / "action.yml"


def _read(path):
    content = yaml.safe_load(path.read_text())
    content["on"] = content.pop(True, content.get("on"))  # YAML 1.1 reads `on` as true
    return content


def _steps(path):
    return [step for job in _read(path)["jobs"].values() for step in job["steps"]]


def test_there_is_one_for_a_push_a_pull_request_and_the_night():
    triggers = {trigger for path in WORKFLOWS for trigger in _read(path)["on"]}
    assert {"push", "pull_request", "schedule"} <= triggers


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_complete_and_asks_for_no_rights(path):
    content = _read(path)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["runs-on"] == "ubuntu-24.04"
        assert 0 < job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_make_targets_that_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = set()
    for step in _steps(path):
        for line in step.get("run", "").splitlines():
            words = line.split()
            if words[0] == "make":
                called |= {word for word in words[1:] if "=" not in word and re.fullmatch(r"[a-z-]+", word)}
            else:
                assert (ROOT / words[0]).exists(), line
    assert called
    assert called <= targets, called - targets


def test_the_gates_are_where_they_belong():
    runs = {path.stem: " ".join(step.get("run", "") for step in _steps(path)) for path in WORKFLOWS}
    assert "make gate-recorded" in runs["push"]
    assert "make gate-live" in runs["pull-request"] and "make bench-compare" in runs["pull-request"]
    assert "make fuzz" in runs["nightly"]


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.stem)
def test_no_value_from_outside_is_pasted_into_a_command(path):
    steps = _read(path)["runs"]["steps"] if path == ACTION else _steps(path)
    for step in steps:
        assert "${{" not in step.get("run", "")


def _action_step(name):
    return next(step for step in _read(ACTION)["runs"]["steps"] if step.get("name") == name)


def test_the_action_has_inputs_that_explain_themselves():
    content = _read(ACTION)
    assert content["runs"]["using"] == "composite"
    assert content["inputs"]["engine"]["required"] is True
    assert all(len(value["description"]) > 15 for value in content["inputs"].values())
    for step in content["runs"]["steps"]:
        used = re.findall(r"inputs\.([a-z-]+)", str(step))
        assert set(used) <= set(content["inputs"])
        assert "uses" in step or step["shell"] == "bash"


@pytest.mark.parametrize(("engine", "code"), [("mmcore", 0), ("no.such:engine", 2)])
def test_the_actions_gate_runs_as_it_stands(tmp_path, engine, code):
    environment = os.environ | {
        "ENGINE": engine, "CASES": "rail_reml dyestuff_reml", "REFERENCE": "recorded", "LANES": "at_theta optimum",
        "REPORT": "out", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", _action_step("gate")["run"]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert (tmp_path / "out" / "summary.md").exists() is (code == 0)


def _summary(tmp_path, *files, limit=None):
    out = tmp_path / "step"
    environment = os.environ | {"GITHUB_STEP_SUMMARY": str(out)}
    if limit is not None:
        environment["STEP_SUMMARY_LIMIT"] = str(limit)
    script = ROOT / "scripts" / "step_summary.sh"
    done = subprocess.run(
        [str(script), *map(str, files)], env=environment, capture_output=True, text=True, check=True
    )
    return out.read_text() if out.exists() else "", done.stderr


def test_a_summary_has_all_files_and_tells_of_those_that_are_missing(tmp_path):
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    first.write_text("# one\n")
    second.write_text("# two\n")
    text, said = _summary(tmp_path, first, tmp_path / "none.md", second)
    assert text == "# one\n\n# two\n\n"
    assert "there is no" in said and "none.md" in said


def test_a_summary_stays_below_the_size_at_which_it_is_thrown_away(tmp_path):
    large, small = tmp_path / "large.md", tmp_path / "small.md"
    large.write_text("x" * 1_100_000)
    small.write_text("small\n")
    text, _ = _summary(tmp_path, large, small)
    assert len(text.encode()) < 2**20
    assert "large.md is left out" in text and "small" in text


def test_scripts_are_sound():
    if shutil.which("bash") is None:
        pytest.fail("bash is needed by make")
    for path in sorted((ROOT / "scripts").glob("*.sh")):
        subprocess.run(["bash", "-n", str(path)], check=True)
