"""The benchmark harness: its arithmetic, its gate, and that the gate sees what it must."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from parity.bench import change, history
from parity.bench.problems import PROBLEMS, grouped_slopes, nested, ratings
from parity.bench.timing import Ratio, Rule, in_turns, ratio, repeats_for, slope, slower
from parity.publish.site.speed import trend_svg

ROOT = Path(__file__).resolve().parents[2]


def test_turns_alternate_and_pair_up():
    order = []
    sides = {"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0}
    times = in_turns(sides, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert_allclose(times["a"], [1, 1, 1])
    assert_allclose(times["b"], [2, 2, 2])


def test_ratio_of_exact_times_has_no_width():
    found = ratio(np.full(7, 3.0), np.full(7, 2.0), np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_load_that_hits_both_sides_of_a_round_cancels():
    rng = np.random.default_rng(1)
    load = rng.uniform(1, 3, 15)
    found = ratio(1.2 * load, load, rng)
    assert_allclose([found.value, found.low, found.high], 1.2, rtol=1e-12)


def test_interval_covers_the_true_ratio_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        a, b = 1.3 * np.exp(0.1 * rng.normal(size=15)), np.exp(0.1 * rng.normal(size=15))
        found = ratio(a, b, rng, level=0.95, draws=500)
        covered += found.low <= 1.3 <= found.high
    assert (
        covered >= 180
    )  # nominal 190 of 200, standard deviation 3; the bootstrap of a median is a little short


def test_rounds_must_pair():
    with pytest.raises(ValueError, match="pair"):
        ratio(np.ones(3), np.ones(4), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("value", "low", "a", "b", "verdict"),
    [
        (1.30, 1.20, 0.130, 0.100, True),
        (1.10, 1.05, 0.330, 0.300, False),  # too small a ratio
        (1.50, 1.40, 0.0015, 0.0010, False),  # too small an excess
        (1.30, 0.95, 0.130, 0.100, False),  # may be noise
    ],
)
def test_a_regression_needs_all_three(value, low, a, b, verdict):
    assert slower(Ratio(value, low, 2.0, a, b, 11), Rule()) is verdict


def test_short_work_is_repeated():
    assert (repeats_for(1.0), repeats_for(0.01), repeats_for(1e-6)) == (1, 10, 50)


def test_slope_of_a_power_law():
    sizes = np.array([1e3, 1e4, 1e5])
    assert_allclose(slope(sizes, 3e-6 * sizes**1.5), 1.5)


def test_simulated_problems_have_the_stated_sizes():
    data = ratings(5_000, 60, 90)()
    assert (len(data), data["user"].nunique(), data["item"].nunique()) == (5_000, 60, 90)
    assert len(grouped_slopes(500, 20)()) == 500
    inner = nested(2_000, 50, 5)()
    assert inner.groupby("a", observed=True)["b"].nunique().max() == 1
    assert ratings(5_000, 60, 90)().equals(data)
    assert {p.size for p in PROBLEMS.values()} == {"tiny", "small", "medium", "large"}


@pytest.mark.slow
@pytest.mark.alone
def test_the_gate_catches_a_slow_down_and_raises_no_false_alarm():
    """An injected 30 % in at least 19 of 20 comparisons; identical code in none of 20."""
    base, head = change.Side("base", ROOT), change.Side("head", ROOT)
    rule = Rule(seconds=0.0)
    caught, alarms = 0, 0
    try:
        for seed in range(20):
            head.slowdown = 0.3
            caught += (
                change.compare_stage(base, head, "hsb82", "influence", 11, rule, seed).outcome == "slower"
            )
            head.slowdown = 0.0
            alarms += (
                change.compare_stage(base, head, "hsb82", "influence", 11, rule, seed).outcome == "slower"
            )
    finally:
        base.close()
        head.close()
    assert caught >= 19
    assert alarms == 0


def test_a_stage_reports_missing_failed_and_differing_answers():
    ok = {"seconds": 0.1, "value": 1.0, "evaluations": 5}
    gone, broken = {"missing": "AttributeError"}, {"error": "ValueError: no"}
    tell = change._unusable
    assert tell("p", "s", ok, ok) is None
    assert tell("p", "s", gone, ok).outcome == "only in head"
    assert tell("p", "s", gone, gone).outcome == "in neither"
    assert tell("p", "s", ok, gone).failed
    assert tell("p", "s", ok, broken).failed
    differs = tell("p", "s", ok, ok | {"value": 1.001})
    assert differs.outcome == "answers differ" and differs.failed


def test_a_side_that_dies_is_told():
    side = change.Side("base", ROOT)
    side._process.kill()
    side._process.wait()
    with pytest.raises(change.BenchError, match="base: the process ended"):
        side.ask("sleepstudy", "parse", 1)
    side.close()


def test_an_unknown_revision_is_told(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with (
        pytest.raises(change.BenchError, match="no checkout of 'nowhere'"),
        change.worktree(tmp_path, "nowhere"),
    ):
        pass


def _row(seconds, commit="abc", time="2026-01-01T00:00:00Z"):
    return history.Measurement(
        time, "m", commit, "3.11", "2.4", "R", "sleepstudy", "fit", "mmcore", seconds, 10.0, 8, float("nan")
    )


def test_history_is_append_only_and_reads_back(tmp_path):
    path = tmp_path / "history.csv"
    assert history.append(path, [_row(0.1)]) == 1
    before = path.read_text()
    history.append(path, [_row(0.2, "def")])
    assert path.read_text().startswith(before)
    assert [(r.seconds, r.commit) for r in history.read(path)] == [(0.1, "abc"), (0.2, "def")]


def test_a_foreign_file_is_not_appended_to(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a benchmark history"):
        history.append(path, [_row(0.1)])
    assert path.read_text() == "a,b\n1,2\n"


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "history.csv"
    history.append(path, [_row(0.1)])
    path.write_text(path.read_text().replace("0.1,", "zero,"))
    with pytest.raises(ValueError, match=r"history.csv, line 2"):
        history.read(path)


def test_steps_are_found_and_outliers_are_not():
    level = [1.0, 1.02, 0.99, 1.01, 1.3, 1.31, 1.29, 1.3]
    step = history.find_step(level)
    assert step is not None
    assert step.position == 4
    assert_allclose([step.before, step.after], [1.005, 1.3], rtol=1e-2)
    assert history.find_step([1.0, 1.02, 0.99, 2.5, 1.01, 1.0, 1.02]) is None
    assert history.find_step([1.0, 1.01]) is None


def test_trend_is_inline_svg():
    text = trend_svg([_row(s, f"c{i}") for i, s in enumerate([1, 1.01, 0.99, 1.5, 1.51, 1.49])], "a <b>")
    assert text.startswith("<svg")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
