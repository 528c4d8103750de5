"""The command line: exit codes, what is said, and that no command needs more than it uses."""

import json
import subprocess
import sys
from types import ModuleType

import pytest
from click.testing import CliRunner

from parity.commands import main as cli
from parity.schema.engine import EngineUnavailable
from parity.schema.results import Results, scalar


@pytest.fixture
def engines(monkeypatch, fake, change):
    """A module of engines, by the name that `--engine` takes."""
    module = ModuleType("engines_for_tests")
    module.good = lambda: fake("good")
    module.wrong = lambda: fake("wrong", lambda r: change.values(r, sigma=scalar(99.0)))
    module.dying = lambda: fake("dying", lambda r: Results("dying", "1", "crashed", "the process died"))
    module.idle = lambda: fake("idle", capabilities=frozenset())
    module.nothing = lambda: 5

    def unavailable():
        raise EngineUnavailable("engine unavailable: needs what is not here")

    module.unavailable = unavailable
    monkeypatch.setitem(sys.modules, "engines_for_tests", module)
    return "engines_for_tests:{}".format


@pytest.fixture
def parity(engines):
    """Runs the command line on one small case; `engine` and `reference` are names among `engines`."""

    def call(command, *arguments, engine="good", reference="good", cases=("rail_reml",)):
        options = ["--engine", engines(engine), "--no-isolate", "--reference", engines(reference)]
        return CliRunner().invoke(cli.main, [command, *cases, *options, *arguments])

    return call


@pytest.mark.parametrize("command", ["run", "gate"])
@pytest.mark.parametrize(
    ("engine", "reference", "code"),
    [
        ("good", "good", 0),
        ("wrong", "good", 1),
        ("dying", "good", 1),
        ("good", "dying", 3),
        ("idle", "good", 3),
        ("nothing", "good", 2),
        ("absent", "good", 2),
        ("unavailable", "good", 3),
        ("good", "unavailable", 3),
    ],
)
def test_exit_codes(parity, command, engine, reference, code):
    result = parity(command, engine=engine, reference=reference)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "rail_remll"], "did you mean rail_reml"),
        (["run", "tag:nonesuch"], "no case is named 'tag:nonesuch'"),
        (["run", "--quantity", "sigmma"], "did you mean sigma"),
        (["run", "--lane", "fast"], "'fast' is not one of"),
        (["run", "--engine", "lme5"], "no engine is named 'lme5'; known: mmcore"),
        (["run", "--engine", "no.such.module:engine"], "there is no module 'no'"),
        (["run", "--engine", "json:no_such"], "has no function 'no_such'"),
        (["run", "--jobs", "0"], "0 is not in the range"),
        (["list", "everything"], "is not one of"),
        (["explain"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_what_is_wrong(arguments, told):
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert told in result.output


def test_gate_tells_a_difference_in_full(parity):
    output = parity("gate", engine="wrong").output
    for part in (
        "DISAGREE  rail_reml / at_theta / sigma", "case id", "wrong       99", "good        13",
        "relative: |x - c| / |c|", "gate        1e-10: ", "deviance    wrong - good = 0",
        "library(lme4)", "reference$quantities$sigma(m)", "differ",
    ):  # fmt: skip
        assert part in output, part


def test_table_names_the_case_and_the_verdict(parity):
    output = parity("run", engine="wrong").output
    assert "rail_reml" in output and "sigma: disagree" in output
    assert "2 differ" in output


def test_formats_for_programs_are_whole_documents(parity):
    content = json.loads(parity("run", "--format", "json", engine="wrong").stdout)
    assert content["exit_code"] == 1
    assert content["counts"]["disagree"] == 2
    assert parity("run", "--format", "junit").stdout.startswith("<?xml")
    assert parity("run", "--format", "markdown").stdout.startswith("# Parity: agree")


def test_report_writes_four_files(parity, tmp_path):
    result = parity("gate", "--report", str(tmp_path / "new" / "report"))
    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "new" / "report").iterdir()} == {
        "index.html", "parity.json", "parity.xml", "summary.md",
    }  # fmt: skip


def test_a_report_that_cannot_be_written_is_said_and_the_verdict_is_still_printed(parity, tmp_path):
    (tmp_path / "file").write_text("")
    result = parity("gate", "--report", str(tmp_path / "file" / "below"))
    assert result.exit_code == 3
    assert "comparisons agree" in result.output
    assert "could not be written" in result.output


def test_lanes_and_quantities_are_chosen(parity):
    result = parity("run", "--lane", "optimum", "--quantity", "fixef", "--format", "json")
    rows = json.loads(result.stdout)["rows"]
    assert [(row["lane"], row["quantity"]) for row in rows] == [("optimum", "fixef")]


def test_without_r_the_recordings_are_used_and_that_is_said(monkeypatch):
    def load(name):
        raise EngineUnavailable("R is not installed")

    monkeypatch.setattr("parity.engines.references.load", load)
    result = CliRunner().invoke(cli.main, ["gate", "dyestuff_reml", "--quantity", "fixef"])
    assert "live R with lme4 is not here (R is not installed)" in result.output
    assert "compared with the recorded references instead" in result.output
    assert result.exit_code == 0
    asked_for = CliRunner().invoke(cli.main, ["gate", "dyestuff_reml", "--reference", "live"])
    assert asked_for.exit_code == 3
    assert "R is not installed" in asked_for.output


def test_a_source_of_recordings_that_is_not_there():
    result = CliRunner().invoke(cli.main, ["gate", "rail_reml", "--reference", "recorded:none"])
    assert result.exit_code == 3
    assert "no source 'none'; there are" in result.output


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("cases", ["rail_reml", "travel ~ 1"]),
        ("quantities", ["cooks_distance_marginal", "fixef"]),
        ("engines", ["mmcore", "recorded"]),
        ("references", ["live", "recorded"]),
    ],
)
def test_lists(monkeypatch, what, names):
    monkeypatch.setenv("COLUMNS", "400")
    result = CliRunner().invoke(cli.main, ["list", what])
    assert result.exit_code == 0
    assert all(name in result.output for name in names)


def test_record_tells_each_change_and_leaves_what_differs(engines, tmp_path):
    def record(engine, *more):
        arguments = [
            "record",
            "rail_reml",
            "rail_ml",
            "--out",
            str(tmp_path),
            "--engine",
            engines(engine),
            *more,
        ]
        return CliRunner().invoke(cli.main, arguments)

    assert record("good").output.split() == ["new", "rail_ml", "new", "rail_reml"]
    assert record("good").output.split() == ["same", "rail_ml", "same", "rail_reml"]
    changed = record("wrong")
    assert changed.exit_code == 1
    assert "sigma[]: 13 -> 99" in changed.output and "--overwrite" in changed.output
    assert record("wrong", "--overwrite").exit_code == 0
    dead = record("dying")
    assert dead.exit_code == 3
    assert "crashed: the process died" in dead.output


def test_doctor_answers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert result.exit_code == 0
    assert "NumPy" in result.output and "What can be done here" in result.output


def test_help_needs_neither_numpy_nor_pandas():
    code = (
        "import sys; from click.testing import CliRunner; from parity.commands.main import main;"
        "r = CliRunner().invoke(main, ['run', '--help']); assert r.exit_code == 0, r.output;"
        "print([name for name in ('numpy', 'pandas', 'mmcore', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
