"""Figures: who gets a time, how they are stored, the page made from them, counts, memory, charts."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from parity.bench import change, instructions, measured, memory
from parity.bench.against import Answer, Entry, Point, engine_side, judged, markdown, measure
from parity.bench.problems import PROBLEMS
from parity.bench.timing import Ratio
from parity.commands.main import main
from parity.publish import speed_page
from parity.publish.chart import Axis, Mark, Series, chart, number, ticks

ROOT = Path(__file__).resolve().parents[2]
CONDITIONS = measured.Conditions(
    "2026-01-01T00:00:00Z", "m", "cpu", 2, (0.1, 0.2), "abc", {"numpy": "2.4"}, "R", 5
)


def _side(seconds, criterion):
    return lambda repeats: Answer(seconds, criterion, 7)


def _dies(repeats):
    raise RuntimeError("gone")


def test_a_worse_criterion_gets_no_time():
    sides = {
        "mmcore": _side(0.5, 100.0),
        "near": _side(1.0, 100.0 + 5e-5),
        "worse": _side(0.1, 100.01),
        "dead": _dies,
    }
    found = {e.engine: e for e in measure(PROBLEMS["sleepstudy"], sides, 180, rounds=5)}
    assert (found["mmcore"].seconds, found["near"].seconds) == (0.5, 1.0)
    assert found["near"].ratio is not None and found["near"].ratio.value == 2.0
    assert found["worse"].seconds is None and "9.9e-05 above the best" in found["worse"].message
    assert found["dead"].seconds is None and found["dead"].message == "gone"


def test_mmcore_gets_no_time_either_where_another_is_better():
    sides = {"mmcore": _side(0.5, 100.01), "lme4": _side(1.0, 100.0)}
    found = {e.engine: e for e in measure(PROBLEMS["sleepstudy"], sides, 180, rounds=5)}
    assert found["mmcore"].seconds is None
    assert found["lme4"].seconds == 1.0 and found["lme4"].ratio is None


def test_an_engine_that_refuses_is_told(fake, change):
    engine = fake("other", lambda results: replace(results, status="refused", message="no"))
    with pytest.raises(RuntimeError, match="refused: no"):
        engine_side(engine, PROBLEMS["sleepstudy"].case)(1)


def test_digits_are_those_of_the_worst_quantity(fake, change):
    from parity.schema.results import Value

    def off(results):
        value = results.values["criterion"]
        return change.values(results, criterion=Value(value.labels, value.values * (1 + 1e-4)))

    exact, _ = judged(PROBLEMS["sleepstudy"], fake("same"), [fake("right")])
    found, judge = judged(PROBLEMS["sleepstudy"], fake("off", off), [fake("right")])
    assert exact == 15
    assert judge == "right" and found is not None and 1 < found < 6
    assert judged(PROBLEMS["ratings_100k"], fake("same"), [fake("right")]) == (None, "")


def test_problems_are_the_cases_whose_references_judge_them():
    from parity.schema.case import load_cases

    cases = {case.name: case for case in load_cases()}
    for problem in PROBLEMS.values():
        if problem.reference:
            case = cases[problem.reference]
            assert (case.formula, case.reml, case.data) == (problem.formula, problem.reml, problem.dataset)


def _fits():
    entry = Entry(
        "sleepstudy", "tiny", "lme4", 180, 6.0, 0.03, Ratio(15.0, 14.0, 16.0, 0.03, 0.002, 5), 43, 1743.6, 1e-12, None,
        4.8, "certified",
    )  # fmt: skip
    ours = replace(entry, engine="mmcore", seconds=0.002, ratio=None, evaluations=8, peak_mb=3.0, digits=12.2)
    none = Entry("sleepstudy", "tiny", "other", 180, 6.0, message="a | b")
    points = tuple(Point("q", q, "mmcore", 1e-6 * q**1.5, 8) for q in (100, 400, 1600))
    return measured.Fits(CONDITIONS, (ours, entry, none), points)


def test_figures_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "deep" / "fit.json"
    measured.write(path, _fits())
    assert measured.read(path, measured.Fits) == _fits()
    table = measured.Table("t", "n", ("a", "b"), (("x", 0.1), (None, 3)), CONDITIONS)
    measured.write(tmp_path / "deep" / "other.json", table)
    assert measured.tables(tmp_path / "deep") == [("other", table)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"schema": 1', '"schema": 9', "schema 9"),
        ('"rounds": 5', '"rounds": "x"', "rounds"),
        ("{", "", "fit.json"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, old, new, said):
    path = tmp_path / "fit.json"
    measured.write(path, _fits())
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(measured.MeasuredError, match=said):
        measured.read(path, measured.Fits)


def test_a_ragged_table_is_refused(tmp_path):
    path = tmp_path / "t.json"
    measured.write(path, measured.Table("t", "n", ("a", "b"), (("x",),), CONDITIONS))
    with pytest.raises(measured.MeasuredError, match="1 cells for 2 columns"):
        measured.read(path, measured.Table)


def test_the_page_has_the_measured_numbers_and_no_others(tmp_path):
    measured.write(tmp_path / "fit.json", _fits())
    text = speed_page.page(tmp_path)
    assert "| sleepstudy | 180 | mmcore | 2 |  |  |  | 8 | 3 | 12.2 |" in text
    assert "| sleepstudy | 180 | lme4 | 30 | 15.0 | 14.0 to 16.0 | 6 | 43 |  | 4.8 |" in text
    assert "* sleepstudy, other: a | b" in text
    assert "| exponent | 1.50 |" in text
    assert "otherwise idle" in text
    assert "Nothing has been measured" in speed_page.page(tmp_path / "none")


def test_docs_are_what_the_program_writes_from_the_committed_figures():
    page = speed_page.page(ROOT / "benchmarks" / "measured")
    assert (ROOT / "docs" / "speed.md").read_text() == page


def test_the_table_of_a_run_has_a_line_for_each_side():
    lines = markdown(_fits().entries).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 5


def test_peak_memory_sees_what_is_taken_and_given_back():
    before = memory.resident_mb()
    memory.forget_peak()
    block = np.ones(8_000_000)  # 61 MB
    del block
    assert memory.peak_mb() - before > 50


def test_peak_memory_of_a_fit_comes_from_a_process_of_its_own():
    found = memory.of_mmcore(PROBLEMS["hsb82"])
    assert found is not None and 0 <= found < 500


@pytest.mark.live
def test_peak_memory_of_lme4_is_measured():
    from parity.bench.against import lme4_request
    from parity.r.worker import RWorkers

    problem = PROBLEMS["hsb82"]
    with RWorkers(timeout=120.0) as workers:
        found = memory.of_lme4(lme4_request(problem, problem.data()), workers)
    assert found is not None and 0 < found < 1000


def test_instructions_gate_by_their_ratio():
    assert change.judge_instructions(1000, 1051) == "more instructions"
    assert change.judge_instructions(1000, 1049) == "same"
    assert change.judge_instructions(1051, 1000) == "faster"
    assert change.StageChange("p", "s", "more instructions").failed


def test_a_failing_count_is_told(tmp_path, monkeypatch):
    fake = tmp_path / "valgrind"
    fake.write_text("#!/bin/sh\necho 'no such tool' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(instructions.CountError, match="ended with 3: no such tool"):
        instructions.of_command(["true"], tmp_path)
    assert change.compare_instructions(tmp_path, tmp_path, "sleepstudy", "fit").outcome == "failed"


def test_a_stage_is_the_difference_of_two_counts(tmp_path, monkeypatch):
    fake = tmp_path / "valgrind"  # 5,000 for the start and 70 a repetition; the last argument is their number
    fake.write_text('#!/bin/sh\nfor n; do :; done\necho "==1== I   refs:      $((5000 + 70 * n))" >&2\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert instructions.of_stage(tmp_path, "sleepstudy", "fit") == 70


@pytest.mark.slow
@pytest.mark.skipif(not instructions.present(), reason="valgrind is not installed here")
def test_valgrind_counts_the_same_twice(tmp_path):
    command = [sys.executable, "-I", "-S", "-c", "sum(range(20000))"]
    first, second = (instructions.of_command(command, tmp_path) for _ in range(2))
    assert first > 1_000_000
    assert abs(first - second) < 0.01 * first


def test_unknown_problems_are_told():
    done = CliRunner().invoke(main, ["bench", "run", "nothing"])
    assert done.exit_code == 2 and "no problem is named nothing" in done.output


# --- charts ---------------------------------------------------------------------------------------------


def _places(svg):
    root = ElementTree.fromstring(svg)
    return [p.get("d") for p in root.iter("path") if "point" in (p.get("class") or "")]


def test_points_lie_where_the_axes_say():
    svg = chart(
        [Series("a", (1.0, 10.0, 100.0), (0.0, 5.0, 10.0))],
        Axis("x", log=True),
        Axis("y"),
        alt="three points",
    )
    line = re.search(r'class="line s0" d="M([^"]*)"', svg)[1]
    xy = np.array([[float(v) for v in pair.split()] for pair in line.split("L")])
    assert xy[1, 0] - xy[0, 0] == pytest.approx(xy[2, 0] - xy[1, 0], abs=0.2)  # equal steps of the logarithm
    assert xy[0, 1] - xy[1, 1] == pytest.approx(xy[1, 1] - xy[2, 1], abs=0.2)
    assert len(_places(svg)) == 3


def test_series_differ_without_colour():
    many = [Series(f"s{i}", (1.0,), (float(i),)) for i in range(8)]
    root = ElementTree.fromstring(chart(many, Axis("x"), Axis("y"), alt="eight"))
    drawn = [p for p in root.iter("path") if "point" in (p.get("class") or "")][-8:]
    looks = {(re.sub(r"^M[-\d.]+ [-\d.]+", "", p.get("d")), "hollow" in p.get("class")) for p in drawn}
    assert len(looks) == 8


def test_text_of_a_chart_is_escaped():
    evil = '<script>&"'
    svg = chart(
        [Series(evil, (1.0,), (1.0,), (evil,)), Series("b", (2.0,), (1.0,))], Axis(evil, names=(evil, "c", "d")),
        Axis(evil), alt=evil, marks=[Mark(0.5, evil)],
    )  # fmt: skip
    assert ElementTree.fromstring(svg).get("aria-label") == evil
    assert "<script>" not in svg


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_value_without_a_place_is_refused(value):
    with pytest.raises(ValueError, match="no place on the axis 'size'"):
        chart([Series("a", (value,), (1.0,))], Axis("size", log=True), Axis("y"), alt="")


def test_a_chart_without_points_says_so():
    assert "no values" in chart([], Axis("x"), Axis("y"), alt="nothing")


@pytest.mark.parametrize(
    ("low", "high", "log", "wanted"),
    [
        (0, 10, False, [0, 2, 4, 6, 8, 10]),
        (1, 1000, True, [1, 10, 100, 1000]),
        (2, 40, True, [3, 10, 30]),
        (1, 4, True, [1, 2, 3, 4]),
        (0.9, 1.1, False, [0.9, 0.95, 1.0, 1.05, 1.1]),
    ],
)
def test_ticks_are_round(low, high, log, wanted):
    assert ticks(low, high, log) == pytest.approx(wanted)


def test_numbers_of_ticks_are_short():
    assert [number(x) for x in (2e6, 1500, 0.05, 3)] == ["2M", "1.5k", "0.05", "3"]
