"""Engines as guests of the command line: what one does costs its case, never the run or the report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import msgspec
import pytest
from click.testing import CliRunner

from parity.commands.main import main
from parity.engines.isolated import guest
from parity.publish.report.machine import ReportRecord
from parity.resources import PACKAGE

WRONG = "tests.parity.wrong_engines:{}"
CASES = ("dyestuff_reml", "rail_ml")


def gate(name, *options, command="gate", cases=CASES):
    """The program itself, in a process: standard output, standard error, exit code."""
    words = [
        command,
        *cases,
        "--engine",
        name if ":" in name else WRONG.format(name),
        "--reference",
        "recorded",
    ]
    return subprocess.run(
        [sys.executable, "-m", "parity", *words, *options],
        cwd=PACKAGE.parent, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def first_line(done):
    return done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "ml_sigma",
            (),
            r"se_fixef, .*varcorr.*: the engine's numbers are .*\(n - p\) / n: ML estimate of sigma",
        ),
        ("nan", (), "se_fixef: the engine gives NaN where the reference has numbers"),
        ("dies", (), r"the engine's process died: its process ended \(exit code 7\): dyestuff_reml"),
        ("hangs", ("--timeout", "3"), "the engine ran out of time: stopped after 3 s: dyestuff_reml"),
        ("slow", ("--timeout", "2"), "the engine ran out of time: stopped after 2 s: dyestuff_reml, rail_ml"),
        ("raises", (), r"the engine failed: ZeroDivisionError: on purpose \(wrong_engines.py:\d+\)"),
        (
            "noisy",
            (),
            r"\d+ of \d+ comparisons agree; the engine printed in 2 cases, .*'iteration 1: on standard",
        ),
    ],
)
def test_the_first_line_names_the_fault(name, options, said):
    done = gate(name, *options)
    assert re.match(said, first_line(done)), first_line(done)
    assert done.returncode == (0 if name == "noisy" else 1)


@pytest.mark.parametrize("name", ["dies", "hangs"])
def test_a_crash_or_a_hang_costs_one_case(name):
    done = gate(name, "--timeout", "3", "--format", "json", command="run")
    rows = json.loads(done.stdout)["rows"]
    assert {row["case"] for row in rows if row["verdict"] == "engine_error"} == {"dyestuff_reml"}
    assert {row["verdict"] for row in rows if row["case"] == "rail_ml"} <= {
        "agree",
        "both_undefined",
        "unsupported",
    }


@pytest.mark.parametrize("isolate", ["--isolate", "--no-isolate"])
def test_json_is_json_whatever_an_engine_prints(isolate):
    done = gate("noisy", isolate, "--format", "json", command="run")
    content = msgspec.json.decode(done.stdout, type=ReportRecord)
    assert content.exit_code == done.returncode == 0
    printed = "".join(case.printed for case in content.cases)
    assert ("from compiled code" in printed and "a warning" in printed) == (isolate == "--isolate")
    assert ("from compiled code" in done.stderr) == (isolate == "--no-isolate")


def test_junit_has_an_error_for_a_crash_with_totals_and_times():
    root = ElementTree.fromstring(gate("dies", "--format", "junit", command="run").stdout)
    assert int(root.get("errors")) == len(list(root.iter("error"))) > 0 and root.get("failures") == "0"
    assert {suite.get("name"): suite.get("errors") != "0" for suite in root} == {
        "dyestuff_reml": True,
        "rail_ml": False,
    }
    assert int(root.get("tests")) == len(root.findall("testsuite/testcase"))
    assert float(root.get("time")) > 0
    assert {node.get("message").partition(":")[0] for node in root.iter("error")} == {"engine_error"}
    assert all(float(test.get("time")) >= 0 for test in root.iter("testcase"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library", "needs 'no_such_library', which is not installed"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero (broken_engine.py:1)"),
        ("def engine(:", "cannot be imported: SyntaxError"),
        ("def engine(): raise RuntimeError('no licence')", "engine() failed: RuntimeError: no licence"),
        ("import os; os._exit(3)", "cannot be made: its process ended (exit code 3)"),
        ("def engine(): return 5", "is not an engine: int has no name"),
    ],
)
@pytest.mark.parametrize("isolate", [True, False])
def test_an_engine_that_cannot_be_imported_is_exit_code_2_with_its_name(tmp_path, text, said, isolate):
    if "_exit" in text and not isolate:
        return  # without isolation this ends the program itself
    (tmp_path / "broken_engine.py").write_text(text + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "parity", "gate", "rail_ml", "--engine", "broken_engine:engine",
         "--reference", "recorded",
         "--isolate" if isolate else "--no-isolate"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "broken_engine:engine" in done.stderr
    assert said in " ".join(done.stderr.split())


def test_an_interruption_leaves_a_report_of_what_was_done(tmp_path):
    folder = tmp_path / "report"
    running = subprocess.Popen(
        [sys.executable, "-m", "parity", "gate", "rail_ml", "dyestuff_reml", "--engine", WRONG.format("hangs"),
         "--reference", "recorded", "--report", str(folder)],
        cwd=PACKAGE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(15)  # the first of the two cases hangs or the second does: either way one is under way
    running.send_signal(signal.SIGTERM)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 3, errors
    assert "interrupted" in output
    content = msgspec.json.decode((folder / "parity.json").read_bytes(), type=ReportRecord)
    assert content.not_run


def test_the_guest_has_one_blas_thread():
    engine = guest("tests.parity.wrong_engines:threads")
    try:
        from parity.schema.case import load_cases, select

        (case,) = select(load_cases(), ["rail_ml"])
        assert engine.run(case, ("n_obs",)).values["n_obs"].values.tolist() == [1.0]
    finally:
        engine.close()


def test_expected_differences_from_a_file(tmp_path):
    file = tmp_path / "expected.toml"
    file.write_text('[expected]\n"*:fixef" = "this engine doubles on purpose"\n')
    assert gate("twice", "--expected", str(file)).returncode == 0
    file.write_text('[expected]\n"*:sigma" = "this one agrees, so the entry is out of date"\n')
    done = gate("twice", "--expected", str(file))
    assert done.returncode == 1 and "known_but_agrees" in done.stdout.lower()
    file.write_text("[wrong]\n")
    done = gate("twice", "--expected", str(file))
    assert done.returncode == 2 and "expected.toml" in done.stderr


def test_missing_quantities_say_how_to_give_them():
    done = gate("silent")
    assert first_line(done).startswith("aic: the engine claims what it does not give: add the values")
    assert "Results.missing" in done.stdout and "`capabilities`" in done.stdout


@pytest.mark.parametrize("what", ["cases", "quantities", "engines", "references"])
def test_lists_as_json(what):
    result = CliRunner().invoke(main, ["list", what, "--json"])
    rows = json.loads(result.stdout)
    assert result.exit_code == 0 and len(rows) > 3
    assert all(row["name"] for row in rows)


def test_what_is_piped_is_not_wrapped():
    done = subprocess.run(
        [sys.executable, "-m", "parity", "list", "quantities"],
        cwd=PACKAGE.parent, env={**os.environ, "COLUMNS": "40"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    from parity.schema.quantities import REGISTRY

    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.strip()]) == len(REGISTRY) + 3
    assert any(REGISTRY["sigma"].definition in line for line in lines)


@pytest.mark.parametrize("what", ["report", "recording"])
def test_schema_is_a_json_schema(what):
    made = json.loads(CliRunner().invoke(main, ["schema", what]).stdout)
    assert made["$ref"].startswith("#/$defs/") and made["$defs"]


def test_template_is_printed_whole():
    printed = CliRunner().invoke(main, ["template"]).stdout
    assert printed == (PACKAGE.parent / "docs" / "engine_template.py").read_text()
    compile(printed, "template", "exec")
