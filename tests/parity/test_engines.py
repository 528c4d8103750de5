"""Engines of others: in processes of their own, adapters in the box, and the template of the docs."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmcore as mm
from parity.check import check_engine
from parity.compare.run import run
from parity.engines.adapter import (
    QUANTITIES,
    Estimates,
    Unsupported,
    design_of,
    need_fixed_and_unstructured,
    values,
)
from parity.engines.isolated import Isolated
from parity.engines.load import load
from parity.engines.references import references
from parity.schema.case import Case, load_cases, select
from parity.schema.engine import EngineUnavailable
from parity.schema.quantities import NAMES
from parity.schema.verdicts import Verdict

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
CASES = {case.name: case for case in load_cases()}


def _against_certified(engine, *names):
    return run(select(load_cases(), names), engine, [load("certified")], lanes=["certified"])


def _digits(report, quantity):
    return min(row.digits for row in report.rows if row.quantity == quantity and row.digits is not None)


# --- a process of its own -----------------------------------------------------------------------------


@pytest.fixture
def odd(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    capabilities = frozenset({"lmm", "optimum", "n_obs"})
    engine = Isolated(
        "misbehaving_engines:engine", name="odd", version="1", capabilities=capabilities, timeout=2.0
    )
    yield engine
    engine.close()


def _case(name):
    return Case(name=name, data="Dyestuff", formula="Yield ~ 1 + (1 | Batch)")


def test_what_an_engine_does_in_its_process_is_a_status(odd):
    statuses = {name: odd.run(_case(name), ("n_obs",)) for name in ("fine", "dies", "raises", "talks")}
    assert {name: found.status for name, found in statuses.items()} == {
        "fine": "ok", "dies": "crashed", "raises": "error", "talks": "error"
    }  # fmt: skip
    assert "exit code 7" in statuses["dies"].message
    assert "RuntimeError: on purpose" in statuses["raises"].message
    again = odd.run(_case("fine"), ("n_obs",))
    assert again.status == "ok"
    assert again.values["n_obs"].values[0] != os.getpid()


def test_an_engine_that_hangs_is_stopped_and_the_next_case_runs(odd):
    stopped = odd.run(_case("hangs"), ("n_obs",))
    assert (stopped.status, stopped.message) == ("timeout", "stopped after 2 s")
    assert odd.run(_case("fine"), ("n_obs",)).status == "ok"


def test_a_library_that_cannot_be_imported_is_an_error_of_the_case(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    engine = Isolated("misbehaving_engines:broken", name="x", version="1", capabilities=frozenset({"lmm"}))
    found = engine.run(_case("fine"), ("n_obs",))
    engine.close()
    assert (found.status, "a library that is not there" in found.message) == ("error", True)


# --- estimates to values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "sleepstudy_slope_reml",
        "machines_factor_slope_reml",
        "sleepstudy_weights_offset_reml",
        "pastes_nested_ml",
    ],
)
def test_estimates_are_labelled_as_every_engine_labels_them(name):
    case = CASES[name]
    own = load("mmcore").run(case, NAMES)
    design = design_of(case)
    fit = mm.fit_at(
        case.formula, _frame(case), own.theta, reml=case.reml, weights=case.weights, offset=case.offset
    )
    found = values(
        design,
        Estimates(
            criterion=fit.criterion, beta=fit.beta, vcov=fit.vcov.to_numpy(), sigma=fit.sigma,
            covariances=tuple(fit.sigma**2 * L @ L.T for L in fit.Lambda), modes=fit.b,
            fitted=fit.fitted.to_numpy(), residuals=fit.resid().to_numpy(),
        ),
    )  # fmt: skip
    assert set(found) == QUANTITIES
    for quantity, value in found.items():
        want = own.values[quantity]
        got = dict(zip(value.labels, value.values, strict=True))
        assert got.keys() == set(want.labels), quantity
        numbers = np.array([got[label] for label in want.labels])
        assert np.allclose(numbers, want.values, rtol=1e-9, atol=1e-9 * np.abs(want.values).max()), quantity


def _frame(case):
    from parity.schema.case import frame

    return frame(case)


def test_designs_that_columns_cannot_describe_are_refused():
    structured = Case(name="x", data="sleepstudy", formula="Reaction ~ Days + cs(Days | Subject)")
    with pytest.raises(Unsupported, match="cs"):
        need_fixed_and_unstructured(design_of(structured))
    empty = Case(name="x", data="sleepstudy", formula="Reaction ~ 0 + (1 | Subject)")
    with pytest.raises(Unsupported, match="without fixed effects"):
        need_fixed_and_unstructured(design_of(empty))


# --- engines in the box -------------------------------------------------------------------------------

# Digits that each engine had against the certificates when this was written, less one; per quantity.
EXPECTED = {
    "statsmodels": {"criterion": 8, "fixef": 6, "se_fixef": 3, "sigma": 4},
    "interlace": {"criterion": 5, "fixef": 6, "se_fixef": 3, "sigma": 3, "leverage_fixef": 5},
    "mixedlm": {"criterion": 11, "fixef": 8, "se_fixef": 6, "sigma": 6, "ranef": 6, "hatvalues": 6},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_python_engines_have_the_digits_they_had(name):
    engine = load(name)
    try:
        report = _against_certified(
            engine, "dyestuff_reml", "sleepstudy_slope_ml", "sleepstudy_intercept_reml"
        )
    finally:
        engine.close()
    assert not [row for row in report.rows if row.verdict is Verdict.ENGINE_ERROR]
    for quantity, digits in EXPECTED[name].items():
        assert _digits(report, quantity) > digits, quantity


def test_mixedlm_agrees_with_the_certificates():
    engine = load("mixedlm")
    try:
        report = _against_certified(
            engine, "pastes_nested_reml", "penicillin_crossed_reml", "sleepstudy_weights_*"
        )
    finally:
        engine.close()
    assert report.exit_code == 0, report.headline
    assert {row.quantity for row in report.rows if row.outcome == "pass"} >= {
        "cooks_distance_plugin", "hatvalues", "varcorr"
    }  # fmt: skip


def test_statsmodels_has_the_algebra_of_lme4_at_its_theta():
    """One factor, nested, crossed: everything MixedLM reports, at R's theta."""
    engine = load("statsmodels")
    try:
        report = check_engine(
            engine, cases=["sleepstudy_slope_reml", "machines_nested_reml", "penicillin_crossed_ml"],
            lanes=["at_theta"],
        )  # fmt: skip
    finally:
        engine.close()
    assert report.exit_code == 0, report.headline
    assert min(row.digits for row in report.rows if row.digits is not None) > 10


def test_models_that_an_engine_does_not_do_are_not_held_against_it():
    engine = load("statsmodels")
    try:
        pastes = _against_certified(engine, "sleepstudy_weights_reml")
        machines = engine.run(
            Case(
                name="x", data="Machines", formula="score ~ Machine + (0 + Machine | Worker) + (1 | Machine)"
            ),
            NAMES,
        )
    finally:
        engine.close()
    assert [row.verdict for row in pastes.rows] == [Verdict.UNSUPPORTED]
    assert (machines.status, "several random terms" in machines.message) == ("unsupported", True)


@pytest.mark.live
def test_lme4_by_default_agrees_within_its_own_noise():
    engine = load("lme4")
    try:
        report = check_engine(
            engine,
            cases=["sleepstudy_slope_reml", "dyestuff_*", "penicillin_crossed_reml"],
            lanes=["at_theta"],
        )
        own = _against_certified(engine, "dyestuff_reml", "sleepstudy_intercept_reml")
    finally:
        engine.close()
    assert report.exit_code == 0, report.headline
    assert own.exit_code == 0, own.headline


@pytest.mark.live
def test_nlme_agrees_where_it_fits():
    engine = load("nlme")
    try:
        report = _against_certified(
            engine, "sleepstudy_intercept_reml", "orthodont_weights_ml", "dyestuff_ml"
        )
        crossed = engine.run(CASES["penicillin_crossed_reml"], NAMES)
        nested = engine.run(CASES["pastes_nested_reml"], NAMES)
    finally:
        engine.close()
    assert report.exit_code == 0, report.headline
    assert crossed.status == "unsupported"
    certified = load("certified").run(CASES["pastes_nested_reml"], NAMES)
    got = dict(zip(nested.values["ranef"].labels, nested.values["ranef"].values, strict=True))
    want = certified.values["ranef"]
    assert np.allclose([got[label] for label in want.labels], want.values, atol=1e-3)


@pytest.mark.live
def test_glmmtmb_agrees_or_is_said_to_be_absent():
    from parity.r.worker import RWorkers

    workers = RWorkers(60)
    here = workers.call("requireNamespace", {"package": "glmmTMB"}).status == "ok"
    workers.close()
    if not here:
        with pytest.raises(EngineUnavailable, match="glmmTMB"):
            load("glmmTMB")
        return
    engine = load("glmmTMB")
    try:
        report = _against_certified(engine, "sleepstudy_intercept_reml", "penicillin_crossed_reml")
    finally:
        engine.close()
    assert _digits(report, "criterion") > 9
    assert _digits(report, "varcorr") > 4


@pytest.mark.live
def test_glmmtmb_confirms_laplace_fits_and_leaves_what_it_defines_otherwise():
    """A second program with derivatives of its own, by automatic differentiation: criterion and Hessian."""
    try:
        engine = load("glmmTMB")
    except EngineUnavailable:
        pytest.skip("glmmTMB is not installed")
    recorded = references("recorded")[0][:1]
    names = ["cbpp_laplace", "cbpp_weights", "cbpp_olre", "grouseticks_nested", "epil_offset", "cbpp_probit"]
    try:
        cases = select(load_cases(), names)
        theirs = run(cases, engine, recorded, lanes=["optimum"])
        ours = run(cases, load("mmcore"), [engine], lanes=["optimum"])
    finally:
        engine.close()
    for report in (theirs, ours):
        probit = [row for row in report.rows if row.case == "cbpp_probit"]
        assert [row.verdict for row in probit] == [Verdict.UNSUPPORTED]
        assert _digits(report, "criterion") > 8
        assert _digits(report, "se_fixef_hessian") > 5.5
        assert _digits(report, "varcorr") > 4.5
        assert _digits(report, "fixef") > 4.5


def test_an_engine_whose_library_is_absent_says_what_to_install(monkeypatch):
    from importlib import metadata

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    for name in EXPECTED:
        with pytest.raises(EngineUnavailable, match=r"install mmparity\[engines\]"):
            load(name)


# --- the template -------------------------------------------------------------------------------------


def _template():
    spec = importlib.util.spec_from_file_location("engine_template", DOCS / "engine_template.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_template_agrees_with_recorded_references():
    report = check_engine(
        _template().engine(), cases=["dyestuff_*", "pastes_nested_reml", "sleepstudy_weights_offset_reml"]
    )
    assert report.exit_code == 0, report.headline
    assert sum(row.outcome == "pass" for row in report.rows) > 100


def test_template_gives_a_report_from_an_empty_folder(tmp_path):
    """The page's own commands: copy the file, run it by name, read the report."""
    shutil.copy(DOCS / "engine_template.py", tmp_path)
    command = [sys.executable, "-m", "parity", "run", "--engine", "engine_template:engine"]
    command += ["--reference", "recorded", "dyestuff_*", "--report", "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert "template" in page and "dyestuff_reml" in page


def test_a_wrong_template_is_caught():
    """The slip that the page warns of: n for n - p."""
    module = _template()
    right = module.fit_at
    module.fit_at = lambda design, theta, reml: right(design, theta, False)
    report = check_engine(module.engine(), cases=["dyestuff_reml"], lanes=["at_theta"])
    assert report.exit_code == 1
    assert {row.quantity for row in report.rows if row.outcome == "fail"} >= {
        "criterion",
        "sigma",
        "se_fixef",
    }
