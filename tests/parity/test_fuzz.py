"""The fuzzer: specs make valid models, planted faults are found and shrunk, findings can be seen again."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

import mmcore as mm
from mmcore.design.build import build
from parity.commands.main import main
from parity.engines.adapter import design_of
from parity.engines.load import load
from parity.exact.balls import precision
from parity.fuzz import bundle
from parity.fuzz import explore as fuzz
from parity.fuzz.bundle import find_case, regressions, write_bundle
from parity.fuzz.classes import CLASSES, GENERALISED
from parity.fuzz.explore import INVALID, FuzzError, Plan, checked_classes, judge_case, quota, specs
from parity.fuzz.invalid import MISTAKES, invalid_case
from parity.fuzz.properties import AT_THETA, STATEMENTS, violations
from parity.schema.case import Case, CaseError, case_of, frame
from parity.schema.results import Results, Value
from parity.schema.spec import SPREADS, Spec, blocks, data, formula, probe_theta, relabelled, settled
from parity.schema.verdicts import NO_MAXIMUM

REGRESSIONS = Path(__file__).resolve().parents[1] / "regressions"
MMCORE, EXACT = load("mmcore"), load("first-principles")


# --- specs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_draws_models_that_can_be_fitted(name):
    """Validity is built in: the design of whatever is drawn is accepted, and the class is what it says."""

    @settings(max_examples=15, derandomize=True, deadline=None, database=None)
    @given(specs(name))
    def check(spec):
        wanted = settled(Spec(**CLASSES[name]))
        assert all(getattr(spec, key) == getattr(wanted, key) for key in CLASSES[name])
        case = case_of(spec)
        design = build(case.formula, frame(case), weights=case.weights, offset=case.offset)
        assert design.n > design.p and case.family == wanted.family
        assert len(probe_theta(spec)) == sum(t.n_effects * (t.n_effects + 1) // 2 for t in design.terms)

    check()


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(specs("crossed_slope") | specs("factors") | specs("missing") | specs("labels"))
def test_a_spec_is_the_whole_model(spec):
    again = msgspec.json.decode(msgspec.json.encode(spec), type=Spec)
    assert again == spec
    assert data(again).equals(data(spec))
    assert settled(spec) == spec
    assert case_of(again).id == case_of(spec).id


def test_a_spec_is_short():
    assert msgspec.json.encode(Spec()) == b"{}"
    assert formula(Spec()) == "y ~ 1 + x + (1 | g)"
    assert case_of(Spec()).name == f"fuzz-{case_of(Spec()).id}"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"levels": 1}, Spec)


def test_pathologies_are_in_the_data():
    plain = data(Spec())
    assert data(Spec(x_exponent=6))["x"].to_numpy() == pytest.approx(plain["x"].to_numpy() * 1e6)
    assert data(Spec(y_exponent=-7))["y"].to_numpy() == pytest.approx(plain["y"].to_numpy() * 1e-7)
    assert data(Spec(y_shift=5))["y"].mean() == pytest.approx(1e5, rel=1e-4)
    assert data(Spec(missing=3)).isna().any(axis=1).sum() == 3
    sizes = data(Spec(imbalance="singletons", levels=6))["g"].value_counts()
    assert (sizes == 1).sum() >= 3 or sizes.min() < sizes.max()
    near = data(Spec(collinear=4, covariates=2))
    assert np.corrcoef(near["x"], near["z"])[0, 1] > 1 - 1e-7
    assert "g_unused" in data(Spec(labels="unused"))["g"].cat.categories
    assert list(data(Spec(labels="numeric"))["g"].cat.categories) == ["28", "21", "14", "7"]
    assert data(Spec(labels="text"))["g"].dtype == "str"
    weights = data(Spec(weights="extreme", levels=9))["w"]
    assert weights.max() / weights.min() > 1e4
    assert set(SPREADS) == {0.0, 0.05, 0.5, 1.0, 8.0}


@pytest.mark.parametrize("name", GENERALISED)
def test_generalised_models_are_of_their_family(name):
    spec = settled(Spec(seed=4, levels=8, rows=6, **CLASSES[name]))
    made, case = data(spec), case_of(spec)
    assert case.kind == ("glmm" if spec.mixed else "glm")
    y = made["y"].to_numpy()
    if spec.family == "binomial":
        successes = y * made["w"]
        assert case.weights == "w" and np.allclose(successes, np.round(successes)) and 0 < y.mean() < 1
    elif spec.family == "poisson":
        assert (y == np.round(y)).all() and y.max() > 1
    else:
        assert (y > 0).all() and case.link == "log"
    assert MMCORE.run(case, ["criterion"]).status == "ok"


def test_the_same_model_told_otherwise():
    spec = Spec(second="nested", labels="shuffled")
    shuffled = data(msgspec.structs.replace(spec, change="permute"))
    assert shuffled.sort_index().equals(data(spec)) and not shuffled.index.is_monotonic_increasing
    renamed = data(msgspec.structs.replace(spec, change="relabel"))["g"].cat.categories
    assert list(renamed) == [relabelled(level) for level in data(spec)["g"].cat.categories]


def test_theta_is_drawn_in_the_order_of_lme4():
    spec = Spec(second="nested", slopes="x", second_slope=True, probe="random", x_exponent=3)
    names = [f"{t.group}.{e}" for t in design_of(case_of(spec)).terms for e in t.effects]
    assert names == ["g:h.(Intercept)", "g:h.x", "g.(Intercept)", "g.x"]
    theta = probe_theta(spec)
    assert np.abs(theta[[1, 2, 4, 5]]).max() < 1e-2 < np.abs(theta[[0, 3]]).min()
    assert blocks(Spec(slopes="x", correlated=False)) == (("1",), ("x",))


# --- finding ------------------------------------------------------------------------------------------


def Planted():
    """mmcore with a fault that shows only where two features meet."""
    spec = importlib.util.spec_from_file_location(
        "planted_engine", Path(__file__).with_name("planted_engine.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.engine()


def _times(value, factor):
    return Value(value.labels, value.values * factor)


def test_a_planted_fault_is_found_and_shrunk():
    plan = Plan(Planted(), EXACT, examples=40, seed=3, properties=False)
    (report,) = fuzz.fuzz(plan, ["weights"])
    (finding,) = report.findings
    spec = finding.case.generated
    assert {row.quantity for row in finding.rows} == {"sigma"}
    assert spec.slopes == "x" and spec.weights == "random"
    small = msgspec.json.decode(msgspec.json.encode(spec))
    plain = {"slopes", "weights", "levels", "rows", "covariates", "second_levels", "seed", "reml", "labels"}
    assert set(small) <= plain
    assert spec.levels == 2 and spec.seed == 0
    assert "sigma" in finding.text and "disagree" in finding.text


def test_the_same_seed_finds_the_same():
    plan = Plan(Planted(), EXACT, examples=25, seed=5, properties=False)
    first, second = (next(fuzz.fuzz(plan, ["weights"])) for _ in range(2))
    assert first.findings[0].case == second.findings[0].case
    assert (first.examples, first.verdicts) == (second.examples, second.verdicts)


def test_quotas_and_classes():
    assert quota(2000, fuzz.NAMES) * len(fuzz.NAMES) >= 2000
    assert quota(1, fuzz.NAMES) == 1
    assert checked_classes(()) == (*CLASSES, INVALID)
    with pytest.raises(FuzzError, match="no class nonsense; there are intercept"):
        checked_classes(["nonsense"])


class Silent:
    """A reference that cannot answer: infrastructure, never a finding."""

    name, version, capabilities = "silent", "1", EXACT.capabilities

    def __init__(self, status):
        self.status = status

    def run(self, case, quantities, theta=None):
        return Results("silent", "1", self.status, "on purpose")


@pytest.mark.parametrize("status", ["crashed", "timeout", "error"])
def test_a_reference_that_dies_is_not_a_finding(status):
    plan = Plan(MMCORE, Silent(status), examples=2, properties=False)
    (report,) = fuzz.fuzz(plan, ["intercept"])
    assert report.findings == []
    assert report.not_judged == report.examples == 2


# --- statements that need no reference ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["crossed_slope", "nested_slope", "offset", "factors", "missing", "scale_of_y"]
)
def test_mmcore_keeps_the_statements(name):
    for seed in (1, 2):
        spec = settled(Spec(seed=seed, **CLASSES[name]))
        assert violations(spec, MMCORE) == ()


class Broken:
    """mmcore, changed."""

    name, version, capabilities = "broken", "1", MMCORE.capabilities

    def __init__(self, change):
        self._change = change

    def run(self, case, quantities, theta=None):
        found = MMCORE.run(case, quantities, theta)
        return replace(found, values=self._change(case, dict(found.values), theta))


def _first_row(case, values, theta):
    """Depends on which row comes first."""
    first = float(values["y_response"].values[0]) if "y_response" in values else 0.0
    return {k: _times(v, 1 + 1e-3 * first) if k == "sigma" else v for k, v in values.items()}


def _level_names(case, values, theta):
    """Depends on the names of levels."""
    factor = (
        1.001 if any("_new" in label for label in values.get("ranef", values["criterion"]).labels) else 1.0
    )
    return {k: _times(v, factor) if k == "ranef" else v for k, v in values.items()}


def _absolute_y(case, values, theta):
    """A constant with a unit."""
    return {k: Value(v.labels, v.values + 1e-3) if k == "sigma" else v for k, v in values.items()}


def _absolute_x(case, values, theta):
    factor = 1.001 if case.generated.x_exponent else 1.0
    return {k: _times(v, factor) if k == "hatvalues" else v for k, v in values.items()}


def _leverage(case, values, theta):
    return {k: _times(v, 1.001) if k == "leverage_fixef" else v for k, v in values.items()}


def _beta_at_zero(case, values, theta):
    factor = 1.01 if theta is not None and not np.any(theta) else 1.0
    return {k: _times(v, factor) if k == "fixef" else v for k, v in values.items()}


def _early(case, values, theta):
    shift = 0.1 if theta is None else 0.0
    return {k: Value(v.labels, v.values + shift) if k == "criterion" else v for k, v in values.items()}


FAULTS = (_first_row, _level_names, _absolute_y, _absolute_x, _leverage, _beta_at_zero, _early)


@pytest.mark.parametrize(
    ("change", "statement"), list(zip(FAULTS, STATEMENTS, strict=True)), ids=list(STATEMENTS)
)
def test_each_statement_notices_its_fault(change, statement):
    found = violations(Spec(seed=4, slopes="x"), Broken(change))
    assert statement in {violation.statement for violation in found}


# --- models that must be refused ----------------------------------------------------------------------


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_by_mmcore(mistake):
    for seed in range(3):
        case = invalid_case(mistake, Spec(seed=seed))
        answer = MMCORE.run(case, AT_THETA)
        assert answer.status == "refused", answer.message
        assert len(answer.message) > 20


@pytest.mark.live
def test_mistakes_are_refused_by_r():
    live = load("live")
    try:
        accepted = [m for m in MISTAKES if live.run(invalid_case(m, Spec()), ("fixef",)).status != "refused"]
    finally:
        live.close()
    assert accepted == []


def test_a_model_that_is_fitted_though_it_must_be_refused_is_a_finding():
    lenient = Broken(lambda case, values, theta: values)
    case = msgspec.structs.replace(case_of(Spec()), expect="refuse")
    judged = judge_case(Plan(lenient, None, 1), case)
    assert judged.finding is not None and "must be refused: ok" in judged.finding.text


# --- the profile of CI --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in fuzz.NAMES if name not in GENERALISED or "glm_" in name])
def test_no_disagreement_with_first_principles(name):
    """The same few models of each class on every machine, at the proved optimum and at thetas of the spec."""
    (report,) = fuzz.fuzz(Plan(MMCORE, EXACT, examples=2, derandomize=True), [name])
    assert [finding.text for finding in report.findings] == []
    assert report.examples - report.not_judged >= 1, "the reference judged none"


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_disagreement_with_live_r():
    live = load("live")
    try:
        plan = Plan(MMCORE, live, examples=6, derandomize=True, properties=False, arbiter=EXACT)
        reports = list(fuzz.fuzz(plan))
    finally:
        live.close()
    assert [finding.text for report in reports for finding in report.findings] == []
    verdicts = sum((report.verdicts for report in reports), Counter())
    assert verdicts["agree"] > 5000 and verdicts["both_refuse"] >= 4


KEPT = regressions(REGRESSIONS)


def test_regressions_are_cases_made_from_specs():
    assert all(case.generated is not None and case.note for case in KEPT)


PROVABLE = [case for case in KEPT if case.kind in ("lmm", "glm") and "separated" not in case.note]


@pytest.mark.parametrize("case", PROVABLE, ids=lambda case: case.name)
def test_what_was_once_found_stays_mended(case):
    judged = judge_case(Plan(MMCORE, EXACT, 1), case)
    assert judged.finding is None, judged.finding.text
    assert judged.answered


@pytest.mark.live
def test_what_was_once_found_stays_mended_beside_live_r():
    """Generalised mixed models too, of which first principles prove nothing; and one without any maximum."""
    live = load("live")
    try:
        judged = [judge_case(Plan(MMCORE, live, 1, arbiter=EXACT), case) for case in KEPT]
    finally:
        live.close()
    assert [one.finding.text for one in judged if one.finding is not None] == []
    assert all(one.answered for one in judged)
    assert sum(case.kind == "glmm" for case in KEPT) >= 5
    separated = [one for case, one in zip(KEPT, judged, strict=True) if "separated" in case.note]
    assert separated and all(one.flat and NO_MAXIMUM in str(one.rows) for one in separated)


def test_deviance_residual_where_y_is_mu():
    """mmcore's has all digits at the fitted mean; R's is the root of a difference rounded at eps."""
    case = next(case for case in KEPT if case.name == "fuzz-fd9f7ca2c35a")
    got = MMCORE.run(case, ["resid_deviance", "fitted", "y_response"]).values
    y, mu, r = (got[name].values for name in ("y_response", "fitted", "resid_deviance"))
    i = int(np.argmin(np.abs(y - mu)))
    assert y[i] > 0 and abs(y[i] / mu[i] - 1) < 1e-7
    with precision(300):
        a, m = arb(y[i]), arb(mu[i])
        square = 2 * (a * (a / m).log() - (a - m))
        assert abs(r[i] - np.sign(y[i] - mu[i]) * float(square.sqrt())) < 1e-15


def test_two_terms_that_are_zero_together_are_found():
    """Neither alone is: probes with one of them gone lie above the other optimum, 0.65 deviance units too high."""
    case = next(case for case in KEPT if case.name == "fuzz-ae1ee556d416")
    found = MMCORE.run(case, ["criterion", "theta"]).values
    assert found["criterion"].values[0] == pytest.approx(110.43980728794452, abs=1e-8)  # polished lme4
    assert (found["theta"].values[3:] == 0).all()


# --- seeing it again ----------------------------------------------------------------------------------


@pytest.fixture
def finding(tmp_path):
    plain = Spec(seed=7, levels=7, rows=6, spread=3, slopes="x", weights="random", labels="shuffled")
    spec = settled(msgspec.structs.replace(plain, factor=2, contrasts="contr.sum"))
    case = case_of(spec)
    judged = judge_case(Plan(Planted(), EXACT, 1, properties=False), case)
    folder = write_bundle(
        case,
        judged.finding.rows,
        (),
        Planted(),
        EXACT,
        None,
        ("sigma", "theta", "criterion"),
        tmp_path / "found",
    )
    return case, folder


def test_a_finding_is_a_folder_with_everything(finding):
    case, folder = finding
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "case.json", "data.csv", "engine.json", "reference.json", "environment.json", "finding.txt", "show.R", "show.py"
    }  # fmt: skip
    assert f"parity replay {case.name}" in (folder / "finding.txt").read_text()
    assert "sigma[]: disagree" in (folder / "finding.txt").read_text()
    assert json.loads((folder / "environment.json").read_text())["numpy"]
    assert msgspec.json.decode((folder / "case.json").read_bytes(), type=Case) == case


def test_the_python_script_stands_alone(finding):
    case, folder = finding
    done = subprocess.run(
        [sys.executable, "show.py"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines()[:4])
    fit = mm.lmer(case.formula, frame(case), weights="w", contrasts=dict(case.contrasts))
    assert float(said["criterion"]) == pytest.approx(fit.criterion, abs=1e-9)
    assert json.loads(said["theta"]) == pytest.approx(fit.theta.tolist(), abs=1e-9)


@pytest.mark.live
@pytest.mark.parametrize("theta", [None, np.array([0.7, 0.1, 0.4])], ids=["optimum", "theta"])
def test_the_r_script_stands_alone(finding, theta):
    case, folder = finding
    (folder / "show.R").write_text(bundle.r_script(case, frame(case), theta))
    done = subprocess.run(
        ["Rscript", "--vanilla", "show.R"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = {line.rsplit(" ", line.count(" "))[0]: line.split() for line in done.stdout.splitlines()}
    criterion = float(said["REMLcrit(m)"][-1])
    options = {"weights": "w", "contrasts": dict(case.contrasts)}
    if theta is None:
        assert criterion == pytest.approx(mm.lmer(case.formula, frame(case), **options).criterion, abs=1e-5)
    else:
        assert criterion == pytest.approx(
            mm.fit_at(case.formula, frame(case), theta, **options).criterion, abs=1e-9
        )


def test_a_case_is_found_again(finding, tmp_path):
    case, folder = finding
    places = (folder.parent,)
    for wanted in (case.name, case.id, str(folder), str(folder / "case.json")):
        assert find_case(wanted, places) == case
    kept = bundle.write_case(case, tmp_path / "regressions")
    assert find_case(case.id, (tmp_path / "regressions",)) == case
    assert regressions(kept.parent) == (case,)
    assert find_case("dyestuff_reml", ()).data == "Dyestuff"
    with pytest.raises(CaseError, match="no file, finding, regression"):
        find_case("nothing", places)
    (folder / "case.json").write_text("{")
    with pytest.raises(CaseError, match=r"case\.json"):
        find_case(str(folder))


# --- commands -----------------------------------------------------------------------------------------


@pytest.fixture
def parity(tmp_path, monkeypatch):
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_fuzz_command_says_what_it_did(parity, tmp_path):
    options = ("--reference", "first-principles", "--examples", "4", "--seed", "1", "--no-properties")
    done = parity("fuzz", "--class", "intercept", "--class", "invalid", *options)
    assert done.exit_code == 0, done.output
    assert "2 models in each of 2 classes, seed 1" in done.output
    assert "4 models, 4 judged, 0 findings" in done.output
    assert list(tmp_path.iterdir()) == []


def test_fuzz_command_explores_classes_together(parity):
    options = ("--reference", "none", "--examples", "2", "--seed", "1", "--jobs", "2")
    done = parity("fuzz", "--class", "intercept", "--class", "slope", *options)
    assert done.exit_code == 0, done.output
    assert "note: no reference" in done.output


def test_fuzz_command_writes_findings_and_replay_shows_them(parity, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    engine = ("--engine", "planted_engine:engine", "--reference", "first-principles")
    options = ("--class", "weights", "--examples", "12", "--seed", "3", "--no-properties", "--keep")
    found = parity("fuzz", *engine, *options)
    assert found.exit_code == 1, found.output
    assert "FOUND" in found.output and "1 findings" in found.output
    (folder,) = Path("parity-findings").iterdir()
    assert (Path("tests/regressions") / f"{folder.name}.json").exists()
    again = parity("replay", folder.name, *engine)
    assert again.exit_code == 1
    assert "optimum / sigma[]: disagree" in again.output
    mended = parity("replay", folder.name, "--reference", "first-principles")
    assert mended.exit_code == 0, mended.output


def test_commands_tell_mistakes_from_missing_parts(parity):
    assert parity("fuzz", "--class", "nonsense").exit_code == 2
    assert parity("replay", "nothing").exit_code == 2
    assert parity("fuzz", "--engine", "no_such_engine").exit_code == 2


def test_nothing_judged_is_not_success(parity, monkeypatch):
    monkeypatch.setattr(
        "parity.fuzz.program.load", lambda name: MMCORE if name == "mmcore" else Silent("timeout")
    )
    done = parity("fuzz", "--class", "intercept", "--examples", "2", "--reference", "x")
    assert done.exit_code == 3
    assert "nothing was judged in intercept" in done.output


@settings(max_examples=20, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(sorted(CLASSES)), st.integers(0, 50))
def test_scripts_are_written_for_any_model(name, seed):
    case = case_of(settled(Spec(seed=seed, **CLASSES[name])))
    d = frame(case)
    call = {"lmm": "lmer(", "glmm": "glmer(", "glm": "glm("}[case.kind]
    assert f"m <- {call}" in bundle.r_script(case, d, None)
    assert f"fit = mm.{call}" in bundle.py_script(case, d, None)
    for theta in (None, np.zeros(3)):
        compile(bundle.py_script(case, d, theta), "show.py", "exec")
