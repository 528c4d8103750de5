"""The whole of it on live R: one model through both engines, from a formula to a verdict."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from parity.compare.run import run
from parity.engines.load import load
from parity.engines.references import references
from parity.publish.report.text import r_snippet
from parity.schema.case import load_cases, select
from parity.schema.quantities import REGISTRY, of_kind
from parity.schema.verdicts import Verdict

pytestmark = pytest.mark.live

NAMES = of_kind("lmm")

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    "sleepstudy_slope_reml", "sleepstudy_weights_offset_reml", "dyestuff2_singular_reml",
    "machines_contrasts_ml", "penicillin_crossed_ml", "refuse_one_level",
)  # fmt: skip


@pytest.fixture(scope="module")
def r_live():
    engine = load("live")
    yield engine
    engine.close()


def _cases(*names):
    return select(load_cases(), names)


def test_mmcore_agrees_with_live_r_in_every_lane(r_live):
    report = run(_cases(*SMALL), load("mmcore"), [r_live], lanes=["at_theta", "optimum", "default"], jobs=2)
    assert report.exit_code == 0, [row for row in report.rows if row.outcome in ("fail", "infrastructure")]
    assert {row.quantity for row in report.rows} >= set(NAMES)
    at_theta = [row for row in report.rows if row.lane == "at_theta" and row.error is not None]
    assert max(row.error for row in at_theta if not REGISTRY[row.quantity].refits) <= 1e-9


def test_live_r_is_what_was_recorded(r_live):
    """On the versions that were recorded. On others the polished optimum may end at another last digit."""
    recorded = references("recorded")[0][0]
    if recorded.version != "lme4-1.1.31-R-4.2.2" or r_live.version != "lme4 1.1.31, R 4.2.2":
        report = run(_cases(*SMALL), r_live, [recorded], lanes=["optimum"])
        assert report.exit_code == 0
        return
    for case in _cases("sleepstudy_slope_reml", "pastes_nested_ml"):
        now, then = r_live.run(case, NAMES), recorded.run(case, NAMES)
        assert set(now.values) == set(then.values)
        for name, value in now.values.items():
            assert value.labels == then.values[name].labels
            assert_scaled(value.values, then.values[name].values, name)


def assert_scaled(got, want, message):
    """To 1e-6 of the largest: a flat optimum is found to that on another processor."""
    assert (np.isnan(got) == np.isnan(want)).all(), message
    scale = max(np.nanmax(np.abs(want), initial=0.0), 1e-3)
    assert np.nanmax(np.abs(got - want), initial=0.0) <= 1e-6 * scale, message


def test_lme4_as_the_engine_under_test_agrees_with_its_own_recordings(r_live):
    report = run(_cases("dyestuff_reml"), r_live, references("recorded:lme4-1.1.31-R-4.2.2")[0])
    assert report.exit_code == 0
    assert {row.verdict for row in report.rows} == {Verdict.AGREE}


WAITING = """
import time
from pathlib import Path
from parity.engines.mmcore.engine import MmcoreEngine

class Waiting(MmcoreEngine):
    asked = 0

    def run(self, case, quantities, theta=None):
        self.asked += 1
        if self.asked == 6:  # of two cases in flight, two calls each, one at least is done
            (Path(__file__).parent / "waits").touch()
            time.sleep(60)  # the key is pressed meanwhile
        return super().run(case, quantities, theta)
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_the_report_and_leaves_no_process(tmp_path, jobs):
    """The key reaches the whole group of processes, R among them."""
    (tmp_path / "waiting.py").write_text(WAITING)
    command = [
        sys.executable, "-m", "parity", "run", "rail_*", "dyestuff*", "pastes*", "--reference", "live",
        "--engine", "waiting:Waiting", "--jobs", jobs, "--report", str(tmp_path / "report"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (tmp_path / "waits").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, out + err
    assert "interrupted from the keyboard" in out
    content = json.loads((tmp_path / "report" / "parity.json").read_text())
    assert content["cases"] and content["not_run"]
    assert _ends(process.pid), "processes of the interrupted run are still there"


def _ends(group, patience=20.0):
    """Whether a process group is gone soon: its last members are reaped by the system, not by us."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("sleepstudy_weights_offset_reml", "cooks_distance_marginal_group"),
        ("machines_contrasts_ml", "fixef"),
        ("insteval_subset_reml", "ranef"),
        ("oats_splitplot_reml", "criterion"),
    ],
)
def test_the_r_code_of_a_failure_gives_the_value_of_the_reference(r_live, name, quantity):
    report = run(_cases(name), load("mmcore"), [r_live], lanes=["at_theta"], quantities=[quantity])
    (item,), (row,) = report.cases, report.rows
    done = subprocess.run(
        ["Rscript", "-e", r_snippet(item, row)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split('"')[1]) == pytest.approx(row.want, rel=1e-11)
