"""Generalised linear models proved in ball arithmetic: against formulas, published numbers, mmcore and live R."""

import warnings

import numpy as np
import pandas as pd
import pytest
from flint import arb

from mmcore.design.build import build
from mmcore.families.names import family_named
from mmcore.glmm.response import reader, with_trials
from parity.compare.run import run_case
from parity.engines.adapter import design_of
from parity.engines.load import load
from parity.exact.balls import NotEnclosed, precision
from parity.exact.glm import LINKS, Data, Point, is_separated, proved_glm
from parity.exact.lmm import NotCertifiable
from parity.schema.case import case_of, load_cases
from parity.schema.policy import default_policy
from parity.schema.spec import Spec
from parity.schema.verdicts import NO_MAXIMUM

EXACT, MMCORE = load("first-principles"), load("mmcore")
CASES = {case.name: case for case in load_cases()}


@pytest.mark.parametrize("link", list(LINKS))
@pytest.mark.parametrize("eta", [-3.0, 0.25, 1.5])
def test_derivatives_of_means_are_those_of_differences(link, eta):
    h = arb(2) ** -60
    with precision(400):
        below, here, above = (LINKS[link](arb(eta) + k * h) for k in (-1, 0, 1))
        assert float(abs((above.mu - below.mu) / (2 * h) - here.m1)) < 1e-30
        assert float(abs((above.m1 - below.m1) / (2 * h) - here.m2)) < 1e-30
        assert float(abs(here.mu + here.c - 1)) < 1e-100


@pytest.mark.parametrize(
    ("family", "link"),
    [("binomial", ""), ("binomial", "probit"), ("binomial", "cloglog"), ("poisson", ""), ("Gamma", "log")],
)
def test_gradient_and_hessian_are_those_of_the_deviance(family, link):
    case = case_of(Spec(family=family, link=link, mixed=False, covariates=2, seed=3, offset=True, rows=6))
    design = design_of(case)
    with precision(300):
        data = Data(design, case.family, case.link or {"binomial": "logit", "poisson": "log"}[family])
        beta = [arb(0.1) * (k + 1) for k in range(design.p)]
        here, h = Point(data, beta), arb(2) ** -50
        for k in range(design.p):
            up, down = (Point(data, [b + s * h * (j == k) for j, b in enumerate(beta)]) for s in (1, -1))
            slope = (up.criterion - down.criterion) / (2 * h)
            assert float(abs(slope - here.gradient[k, 0])) < 1e-25 * (1 + float(abs(slope)))
            bend = (up.gradient - down.gradient) / (2 * h)
            for j in range(design.p):
                assert float(abs(bend[j, 0] - here.hessian[j, k])) < 1e-25 * (1 + float(abs(bend[j, 0])))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("family", "link"),
    [("binomial", ""), ("binomial", "probit"), ("binomial", "cloglog"), ("poisson", ""), ("Gamma", "log")],
)
def test_mmcore_agrees_with_the_proof(family, link, seed):
    case = case_of(
        Spec(family=family, link=link, mixed=False, covariates=1, factor=2, seed=seed, levels=6, rows=6)
    )
    rows = run_case(case, MMCORE, (EXACT,), ("optimum",), (), default_policy()).rows
    assert [row.quantity for row in rows if row.outcome == "fail"] == []
    judged = {row.quantity for row in rows if row.outcome == "pass"}
    assert judged >= {
        "fixef", "vcov_fixef", "deviance", "resid_pearson", "resid_deviance", "resid_working", "hatvalues",
        "cooks_distance_plugin", "rstandard_pearson", "rstandard_deviance", "rstudent_glm", "dfbeta_one_step",
        "dfbeta_r", "dfbetas_r", "dffits_r", "dispersion_pearson", "working_weights",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("family", "link"), [("binomial", ""), ("binomial", "cloglog"), ("poisson", ""), ("Gamma", "log")]
)
def test_modes_of_a_mixed_model_are_proved_at_given_parameters(family, link):
    case = case_of(Spec(family=family, link=link, slopes="x", levels=5, rows=5, seed=2, covariates=1))
    fit = MMCORE.run(case, ["theta", "fixef"])
    at = np.concatenate([fit.values["theta"].values * 1.1 + 0.2, fit.values["fixef"].values - 0.1])
    names = [
        "eta",
        "fitted",
        "working_weights",
        "resid_pearson",
        "resid_working",
        "resid_deviance",
        "deviance",
        "penalty",
    ]
    got, want = (engine.run(case, names, at) for engine in (MMCORE, EXACT))
    assert want.status == "ok", want.message
    for name in names:
        assert got.values[name].labels == want.values[name].labels
        np.testing.assert_allclose(got.values[name].values, want.values[name].values, rtol=1e-11, atol=1e-12)


def _design(formula, data, family):
    chosen = family_named(family)
    return with_trials(build(formula, pd.DataFrame(data), response=reader(chosen)), chosen)


def test_a_fit_in_closed_form():
    """Dobson's trial (R's help page of glm): margins give the estimates; R prints a residual deviance of 5.1291."""
    data = {
        "counts": [18.0, 17, 15, 20, 10, 20, 25, 13, 12],
        "outcome": list("123" * 3),
        "treatment": np.repeat(list("ABC"), 3),
    }
    found = proved_glm(_design("counts ~ outcome + treatment", data, "poisson"), "poisson", None, 40)
    beta = [float(b.mid()) for b in found["fixef"][1]]
    np.testing.assert_allclose(
        beta, [np.log(21), np.log(40 / 63), np.log(47 / 63), 0, 0], rtol=1e-15, atol=1e-30
    )
    assert float(found["deviance"][1][0].mid()) == pytest.approx(5.1291, abs=5e-5)
    assert all(float(b.rad()) < 1e-40 for b in found["fixef"][1])


def test_a_probability_beside_one_keeps_its_digits():
    """R holds it eps away: Pearson's residual 2.6e-8 where it is 4.8e-19, the working one 1 where it is 0.0117."""
    spec_eta = 4.44813354
    with precision(300):
        mean = LINKS["cloglog"](arb(spec_eta))
        rate = np.exp(spec_eta)
        assert float(mean.c) == pytest.approx(np.exp(-rate), rel=1e-12)
        assert float(mean.c / mean.m1) == pytest.approx(1 / rate, rel=1e-14)


def test_what_has_no_functions_here_is_not_certified():
    case = CASES["glm_epil_sqrt"]
    with pytest.raises(NotCertifiable, match="link sqrt"):
        proved_glm(design_of(case), case.family, case.link, 40)
    assert EXACT.run(case, ["fixef"]).status == "unsupported"


@pytest.mark.parametrize(
    ("y", "separated"),
    [([0, 0, 0, 1, 1, 1], True), ([0, 0, 1, 0, 1, 1], False), ([0, 0, 0.5, 1, 1, 1], True),
     ([0, 0.5, 0.25, 1, 1, 1], False)],
)  # fmt: skip
def test_separation_is_found_by_linear_programming(y, separated):
    data = {"y": np.array(y, dtype=float), "x": [1.0, 2, 3, 4, 5, 6]}
    assert is_separated(_design("y ~ x", data, "binomial"), "binomial") is separated


def test_counts_are_separated_where_a_level_has_none():
    data = {"y": [3.0, 1, 2, 0, 0, 0], "f": list("aaabbb")}
    assert is_separated(_design("y ~ f", data, "poisson"), "poisson")
    assert not is_separated(_design("y ~ 1", data, "poisson"), "poisson")


def test_separated_responses_have_no_maximum_to_prove():
    data = {"y": [0.0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6]}
    with pytest.raises(NotEnclosed, match=NO_MAXIMUM), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proved_glm(_design("y ~ x", data, "binomial"), "binomial", None, 40)
