"""Results and recordings: exact numbers, checksums, and damage that costs one case only."""

import gzip
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from parity.compare.run import run
from parity.engines.recorded import Recorded, engines
from parity.references.record import record
from parity.references.recordings import RecordingError, read_recording, recording_path, write_recording
from parity.schema.case import Case
from parity.schema.results import Missing, Results, Value, scalar
from parity.schema.verdicts import Verdict

HARD = np.array(
    [0.1 + 0.2, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, 251.40510484848497, np.pi * 1e-17, 2.0**53 + 2]
)


@pytest.fixture
def results():
    labels = tuple(f"L|{i}" for i in range(len(HARD)))
    return Results(
        "lme4", "lme4 1.1.31, R 4.2.2", warnings=("a warning",), singular=False, converged=True,
        values={"fitted": Value(labels, HARD), "hatvalues": Value(labels, HARD), "sigma": scalar(np.nan),
                "ranef": Value(("a", "b"), [np.inf, -np.inf])},
        missing={"condvar": Missing("skipped", "too large")},
        provenance={"versions": {"R": "4.2.2"}, "checks": {"two starts": True}},
    )  # fmt: skip


def test_a_recording_reads_back_to_the_last_bit(tmp_path, case, results):
    path = write_recording(tmp_path, case, results)
    back = read_recording(path)
    assert back.case == case
    for name, value in results.values.items():
        assert back.results.values[name].labels == value.labels
        assert back.results.values[name].values.tobytes() == value.values.tobytes()
    for field in (
        "engine",
        "version",
        "warnings",
        "missing",
        "singular",
        "converged",
        "provenance",
        "status",
    ):
        assert getattr(back.results, field) == getattr(results, field)


def test_equal_labels_are_stored_once_and_writing_is_repeatable(tmp_path, case, results):
    path = write_recording(tmp_path, case, results)
    content = json.loads(path.read_text())
    assert content["values"]["fitted"]["labels"] == content["values"]["hatvalues"]["labels"]
    first = path.read_bytes()
    assert write_recording(tmp_path, case, read_recording(path).results).read_bytes() == first


def test_a_large_recording_is_compressed_and_replaces_the_plain_one(tmp_path, case, results):
    plain = write_recording(tmp_path, case, results)
    big = Value(tuple(map(str, range(60_000))), np.random.default_rng(0).normal(size=60_000))
    packed = write_recording(tmp_path, case, replace(results, values={"fitted": big}))
    assert packed.suffix == ".gz" and not plain.exists()
    assert recording_path(tmp_path, case.name) == packed
    assert read_recording(packed).results.values["fitted"].values.tobytes() == big.values.tobytes()
    assert write_recording(tmp_path, case, results) == plain and not packed.exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace("251.40510484848497", "251.40510484848597"), "checksum"),
        (lambda text: text.replace('"lme4 1.1.31', '"lme4 1.1.32'), "checksum"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "", "damaged"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema 2"),
        (lambda text: text.replace('"L0"', '"L7"', 1), "damaged"),
        (lambda text: text.replace("Reaction ~", "reaction ~"), "checksum"),
    ],
)
def test_damage_is_noticed(tmp_path, case, results, damage, told):
    path = write_recording(tmp_path, case, results)
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    with pytest.raises(RecordingError, match=r"a_case\.json") as caught:
        read_recording(path)
    assert told in str(caught.value)


def test_a_truncated_compressed_recording_is_noticed(tmp_path, case, results):
    path = tmp_path / "a_case.json.gz"
    path.write_bytes(gzip.compress(write_recording(tmp_path, case, results).read_bytes())[:-20])
    with pytest.raises(RecordingError, match="damaged"):
        read_recording(path)


def test_a_damaged_recording_costs_its_case_only(tmp_path, fake):
    cases = [Case(name=name, data="Rail", formula="travel ~ 1 + (1 | Rail)") for name in ("a", "b")]
    list(record(cases, fake("lme4"), tmp_path / "source"))
    (tmp_path / "source" / "a.json").write_text("{}")
    report = run(cases, fake("ours"), engines(tmp_path))
    assert {row.case for row in report.rows if row.verdict is Verdict.REFERENCE_ERROR} == {"a"}
    assert {row.case for row in report.rows if row.verdict is Verdict.AGREE} == {"b"}
    assert report.exit_code == 3


def test_a_recording_answers_for_its_own_case_and_theta_only(tmp_path, case, fake, names):
    list(record([case], fake("lme4"), tmp_path))
    source = Recorded(tmp_path)
    ok = source.run(case, names)
    assert ok.status == "ok" and ok.engine == f"recorded:{tmp_path.name}"
    assert source.run(case, names, ok.theta).status == "ok"
    assert source.run(case, names, ok.theta + 1).status == "unsupported"
    other = Case(name=case.name, data=case.data, formula=case.formula, reml=False)
    answer = source.run(other, names)
    assert answer.status == "missing"
    assert "another content of the case" in answer.message
    absent = Case(name="absent", data=case.data, formula=case.formula)
    assert source.run(absent, names).status == "missing"
    assert Recorded(tmp_path, partial=True).run(absent, names).status == "unsupported"


def test_quantities_that_were_not_recorded_are_missing_with_a_reason(tmp_path, case, results, names):
    write_recording(tmp_path, case, results)
    answer = Recorded(tmp_path).run(case, ("fitted", "condvar", "fixef"))
    assert set(answer.values) == {"fitted"}
    assert answer.missing["condvar"] == Missing("skipped", "too large")
    assert answer.missing["fixef"].kind == "skipped"


def test_the_fullest_source_comes_first(tmp_path, case, results):
    write_recording(tmp_path / "a-partial", case, results)
    for name in ("x", "y"):
        other = Case(name=name, data=case.data, formula=case.formula)
        write_recording(tmp_path / "z-full", other, results)
    assert [(e.version, e.partial) for e in engines(tmp_path)] == [("z-full", False), ("a-partial", True)]
    with pytest.raises(FileNotFoundError, match="parity record"):
        engines(tmp_path / "z-full")


# --- recording ---------------------------------------------------------------------------------


def test_recording_never_replaces_in_silence(tmp_path, case, fake, change):
    def only(changes):
        (single,) = changes
        return single

    other = fake("lme4", lambda r: change.values(r, sigma=scalar(99.0)))
    assert only(record([case], fake("lme4"), tmp_path)).kind == "new"
    assert only(record([case], fake("lme4"), tmp_path)).kind == "same"
    before = (tmp_path / "a_case.json").read_bytes()
    differing = only(record([case], other, tmp_path))
    assert differing.kind == "changed"
    assert differing.details[0].startswith("sigma[]: 13 -> 99 (")
    assert (tmp_path / "a_case.json").read_bytes() == before
    assert only(record([case], other, tmp_path, overwrite=True)).kind == "replaced"
    assert read_recording(tmp_path / "a_case.json").results.values["sigma"].values[0] == 99.0


def test_other_code_with_the_same_numbers_is_told_and_is_no_change(tmp_path, case, fake):
    def by(code):
        return fake("lme4", lambda r: replace(r, provenance={"code_sha256": code}))

    (first,) = record([case], by("a"), tmp_path)
    (second,) = record([case], by("b"), tmp_path)
    assert (first.kind, second.kind) == ("new", "same")
    assert second.details == ("the code that computes it has changed, the numbers have not",)
    assert read_recording(second.path).results.provenance["engine"] == "lme4"


def test_only_good_answers_are_recorded(tmp_path, case, fake):
    dead = fake("lme4", lambda r: Results("lme4", "1", "crashed", "gone"))
    (change,) = record([case], dead, tmp_path)
    assert (change.kind, change.details) == ("failed", ("crashed: gone",))
    assert not list(tmp_path.iterdir())


# --- results -----------------------------------------------------------------------------------


def test_values_cannot_be_changed_and_need_one_label_each():
    value = Value(("a",), [1.0])
    with pytest.raises(ValueError, match="read-only"):
        value.values[0] = 2.0
    with pytest.raises(ValueError, match="2 labels for values of shape"):
        Value(("a", "b"), [1.0])
    with pytest.raises(ValueError, match="shape"):
        Value(("a", "b"), np.eye(2))


def test_results_cross_processes(results):
    back = pickle.loads(pickle.dumps(results))
    assert back.values["fitted"].values.tobytes() == results.values["fitted"].values.tobytes()
    assert back.missing == results.missing and back.provenance == results.provenance
