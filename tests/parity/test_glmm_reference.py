"""R as a reference for generalised models: exact where it is said to be exact, and what glmer leaves open."""

import math
import subprocess

import numpy as np
import pytest

import mmcore as mm
from parity.compare.run import run
from parity.engines.load import load
from parity.engines.mmcore.engine import MmcoreEngine
from parity.engines.r_live import RLive
from parity.engines.references import references
from parity.r.worker import RWorkers
from parity.schema.case import Case, CaseError, frame, load_case, load_cases
from parity.schema.engine import needs, point
from parity.schema.known import load_known
from parity.schema.quantities import REGISTRY, of_kind

CASES = {case.name: case for case in load_cases()}
CBPP = CASES["cbpp_laplace"]
TRUE_SE = (0.2324720, 0.3066425, 0.3266379, 0.4274366)  # cbpp: glmmTMB by automatic differentiation


@pytest.fixture(scope="module")
def lme4():
    with RWorkers(timeout=300) as workers:
        yield RLive(workers=workers)


def value(results, name):
    return results.values[name].values


# --- kinds of model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lm_sleepstudy", "lm"), ("glm_snails_logit", "glm"), ("glm_gasoline_gaussian_log", "glm"),
        ("sleepstudy_slope_ml", "lmm"), ("cbpp_laplace", "glmm"),
    ],
)  # fmt: skip
def test_a_case_knows_its_kind_and_engines_are_asked_for_it(name, kind):
    case = CASES[name]
    assert case.kind == kind
    assert kind in needs(case, "optimum")


def test_a_size_is_of_a_negative_binomial_only(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"name": "a", "data": "cbpp", "formula": "incidence ~ 1", "family": "poisson", "size": 2}'
    )
    with pytest.raises(CaseError, match="negative binomial"):
        load_case(path)


def test_the_point_of_a_generalised_mixed_model_is_theta_and_beta():
    results = MmcoreEngine().run(CBPP, of_kind("glmm"))
    where = point(CBPP, results)
    assert where.tolist() == [*results.theta, *value(results, "fixef")]
    again = MmcoreEngine().run(CBPP, of_kind("glmm"), where)
    np.testing.assert_allclose(value(again, "fitted"), value(results, "fitted"), rtol=1e-12)
    joint = CASES["cbpp_nagq0"]
    at = MmcoreEngine().run(joint, of_kind("glmm"))
    assert point(joint, at).tolist() == at.theta.tolist()
    assert point(CASES["glm_snails_logit"], results) is None


# --- recorded ---------------------------------------------------------------------------------------------


def test_mmcore_agrees_with_the_recordings_of_every_generalised_case():
    cases = [c for c in CASES.values() if "slow" not in c.tags and c.kind != "lmm" and c.expect == "fit"]
    assert len(cases) >= 30
    recorded = references("recorded")[0][0]
    report = run(cases, MmcoreEngine(), [recorded], known=load_known())
    bad = [
        (r.case, r.lane, r.quantity, r.error) for r in report.rows if r.outcome in ("fail", "infrastructure")
    ]
    assert bad == []
    compared = {row.quantity for row in report.rows if row.outcome == "pass"}
    assert compared == {*of_kind("lm"), *of_kind("glm"), *of_kind("glmm")}
    exact = [
        r.error for r in report.rows if r.lane == "at_theta" and r.error is not None and r.verdict != "known"
    ]
    assert len(exact) > 500 and max(exact) <= 1e-9


def test_recorded_standard_errors_are_those_of_automatic_differentiation():
    recorded = references("recorded")[0][0].run(CBPP, ["se_fixef_hessian", "se_fixef"])
    np.testing.assert_allclose(value(recorded, "se_fixef_hessian"), TRUE_SE, rtol=3e-7)
    assert value(recorded, "se_fixef")[0] == pytest.approx(
        0.22785, abs=1e-4
    )  # theta known; published by default glmer


# --- live -------------------------------------------------------------------------------------------------


@pytest.mark.live
def test_live_r_at_theta_and_beta_is_lme4s_formula_at_the_modes(lme4):
    """The Laplace criterion written out for one factor, with modes found by bisection."""
    theta, beta = 0.64, np.array([-1.39, -0.99, -1.12, -1.57])
    results = lme4.run(CBPP, of_kind("glmm"), np.array([theta, *beta]))
    data = frame(CBPP)
    X = value(results, "x_matrix").reshape(len(data), -1)
    k, n = data["incidence"].to_numpy(float), data["size"].to_numpy(float)
    herd = data["herd"].cat.codes.to_numpy()
    total, modes = 0.0, []
    for level in range(herd.max() + 1):
        rows = herd == level
        fixed = X[rows] @ beta
        low, high = -10.0, 10.0
        for _ in range(200):
            u = (low + high) / 2
            slope = theta * np.sum(k[rows] - n[rows] / (1 + np.exp(-fixed - theta * u))) - u
            low, high = (u, high) if slope > 0 else (low, u)
        mu = 1 / (1 + np.exp(-fixed - theta * u))
        loglik = sum(
            math.log(math.comb(int(b), int(a))) + a * math.log(p) + (b - a) * math.log1p(-p)
            for a, b, p in zip(k[rows], n[rows], mu, strict=True)
        )
        total += -2 * loglik + u * u + math.log1p(theta**2 * np.sum(n[rows] * mu * (1 - mu)))
        modes.append(theta * u)
    assert value(results, "criterion")[0] == pytest.approx(total, rel=1e-14)
    np.testing.assert_allclose(value(results, "ranef"), modes, rtol=0, atol=1e-14)


@pytest.mark.live
def test_default_glmer_has_noise_in_its_standard_errors_and_a_polished_one_has_not(lme4):
    default = lme4.run(CBPP, ["se_fixef_hessian", "criterion"], polish=False)
    polished = lme4.run(CBPP, ["se_fixef_hessian", "criterion"])
    noise = np.abs(value(default, "se_fixef_hessian") / np.array(TRUE_SE) - 1)
    assert noise.min() > 5e-3 and noise.max() < 1.4e-2
    np.testing.assert_allclose(value(polished, "se_fixef_hessian"), TRUE_SE, rtol=3e-7)
    assert value(polished, "criterion")[0] <= value(default, "criterion")[0]
    assert polished.provenance["theta_repeat_distance"] < 1e-7


@pytest.mark.live
@pytest.mark.parametrize("name", ["cbpp_probit", "cbpp_agq9", "glm_epil_sqrt", "lm_oats_weights"])
def test_live_and_recorded_are_the_same_numbers(lme4, name):
    recorded = references("recorded")[0][0]
    report = run([CASES[name]], lme4, [recorded], lanes=["optimum"])
    assert report.exit_code == 0, [row for row in report.rows if row.outcome == "fail"]


@pytest.mark.live
def test_a_point_of_the_wrong_length_is_refused(lme4):
    results = lme4.run(CBPP, ["criterion"], np.array([0.5]))
    assert (results.status, "5 finite numbers; there are 1" in results.message) == ("refused", True)


@pytest.mark.live
def test_quantities_of_linear_models_are_not_computed_for_generalised_ones(lme4):
    names = [name for name in REGISTRY if name not in of_kind("glmm")]
    results = lme4.run(CBPP, names, np.array([0.6, -1.4, -1.0, -1.1, -1.6]))
    assert not results.values
    assert {why.kind for why in results.missing.values()} == {"unsupported"}


@pytest.mark.live
@pytest.mark.parametrize("field, said", [({"nagq": 5}, "quadrature"), ({"link": "sqrt"}, "link log only")])
def test_sizes_that_lme4_cannot_estimate_are_not_claimed(field, said):
    engine = load("live")
    try:
        case = Case(
            name="nb",
            data="MASS_epil",
            formula="y ~ lbase + (1 | subject)",
            family="negative.binomial",
            **field,
        )
        found = engine.run(case, ["criterion"])
        assert found.status == "unsupported" and said in found.message
    finally:
        engine.close()


GLMER_NB = """
suppressMessages(library(lme4))
d <- MASS::epil
m <- glmer.nb(y ~ lbase * trt + lage + V4 + (1 | subject), d)
cat(sprintf("%.17g", c(getME(m, "glmer.nb.theta"), -2 * as.numeric(logLik(m)), sqrt(unlist(VarCorr(m))), fixef(m))))
"""


@pytest.mark.live
def test_a_negative_binomial_of_estimated_size_is_that_of_glmer_nb_and_no_less_likely():
    """glmer.nb searches the size to three digits by values of a likelihood with tolPwrss = 1e-7."""
    done = subprocess.run(
        ["Rscript", "-e", GLMER_NB], capture_output=True, text=True, check=True, timeout=300
    )
    size, minus2loglik, sd, *beta = map(float, done.stdout.split())
    fit = mm.glmer(
        "y ~ lbase * trt + lage + V4 + (1 | subject)",
        mm.load_dataset("MASS_epil"),
        family="negative.binomial",
    )
    assert fit.family.theta == pytest.approx(size, rel=1e-3)
    assert -1e-2 < -2 * fit.loglik - minus2loglik < 1e-6
    assert fit.varcorr.to_frame()["sdcor"].iloc[0] == pytest.approx(sd, rel=1e-3)
    assert np.abs((fit.fixef.to_numpy() - beta) / fit.se.to_numpy()).max() < 1e-3


@pytest.mark.live
def test_the_hessian_can_be_asked_for_at_a_point():
    """What judges a lower optimum: at the reference's own optimum it is the Hessian that it gave there."""
    engine = load("live")
    case = next(case for case in load_cases() if case.name == "cbpp_laplace")
    try:
        names = ["theta", "fixef", "se_fixef_hessian", "vcov_fixef_hessian"]
        own = engine.run(case, names)
        there = engine.run(case, names, point(case, own))
    finally:
        engine.close()
    for name in names[2:]:
        np.testing.assert_allclose(there.values[name].values, own.values[name].values, rtol=1e-5)
