"""Measures read from refits, and functions of a fit that are handed the data as well."""

import numpy as np
import pandas as pd
import pytest

import mmcore as mm

S = mm.load_dataset("sleepstudy")
FIT = mm.lmer("Reaction ~ Days + (Days | Subject)", S)
LM = mm.lm("Reaction ~ Days", S)
COUNTS = pd.DataFrame({"x": np.linspace(-1, 1, 40), "y": np.random.default_rng(1).poisson(3, 40)})
GLM = mm.glm("y ~ x", COUNTS, family="poisson")
NAMES = ["cooks_distance", "mdffits", "covtrace", "covratio", "rvc", "dfbeta", "dfbetas", "varcomp"]


@pytest.mark.parametrize("level", [1, "Subject"])
@pytest.mark.parametrize("name", NAMES)
def test_a_measure_of_refits_is_the_refits_measure(name, level):
    case = mm.case_delete(FIT, delete={"a": [0], "b": [57, 58]}) if level == 1 else mm.case_delete(FIT, level)
    own = getattr(case, name)
    want = own() if callable(own) else own
    got = getattr(mm, name)(case)
    np.testing.assert_array_equal(got, want)


def test_cooks_distance_of_refits_against_whole_fits():
    rows = [0, 57, 179]
    got = mm.cooks_distance(mm.case_delete(FIT, delete={i: [i] for i in rows}))
    C, p = FIT.vcov.to_numpy(), 2
    for i in rows:
        beta = mm.lmer("Reaction ~ Days + (Days | Subject)", S.drop(index=i)).fixef.to_numpy()
        d = FIT.fixef.to_numpy() - beta
        assert got[i] == pytest.approx(d @ np.linalg.solve(C, d) / p, rel=1e-4)
    assert got[57] == pytest.approx(mm.cooks_distance(FIT, kind="refit", delete={57: [57]})[57], rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_measures_of_lme4s_influence_have_its_signs_and_scales(name):
    result = mm.influence(FIT, "Subject")
    case, got = result.deletion, getattr(mm, name)(result)
    K, p = 18, 2
    want = {
        "cooks_distance": lambda: case.cooks_distance() * (K - p) / K,
        "dfbeta": lambda: case.fixef - FIT.fixef,
        "dfbetas": lambda: (case.fixef - FIT.fixef) / np.sqrt([np.diag(V) for V in case.vcov]),
        "varcomp": lambda: case.varcomp - mm.varcomp(FIT),
    }.get(name, getattr(case, name) if callable(getattr(case, name, None)) else None)
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(want(), float), rtol=1e-12, atol=1e-12)
    assert list(got.index) == list(case.units.labels)


def test_the_table_of_refits_is_that_of_the_fit():
    case = mm.case_delete(FIT, "Subject")
    table = mm.hlm_influence(FIT, "Subject", approx=False)
    got = mm.hlm_influence(case)
    np.testing.assert_allclose(got, table[list(got.columns)], rtol=1e-9)
    assert list(got.columns[:5]) == ["cooksd", "mdffits", "covtrace", "covratio", "rvc.sigma2"]


def test_refits_refuse_what_belongs_to_their_making():
    case = mm.case_delete(FIT, "Subject")
    for wrong in (
        lambda: mm.cooks_distance(case, 1),
        lambda: mm.cooks_distance(case, delete=["308"]),
        lambda: mm.mdffits(case, include_attr=True),
        lambda: mm.cooks_distance(case, kind="plugin"),
    ):
        with pytest.raises(mm.DataError, match="refits"):
            wrong()
    assert mm.cooks_distance(case, "Subject", kind="refit").equals(case.cooks_distance())


@pytest.mark.parametrize(("fit", "model", "data", "formula"), [
    (LM, mm.lm, S, "Reaction ~ Days"),
    (GLM, lambda f, d: mm.glm(f, d, family="poisson"), COUNTS, "y ~ x"),
])  # fmt: skip
def test_models_without_random_effects_have_tables_of_refits(fit, model, data, formula):
    table = mm.hlm_influence(fit, approx=False)
    C, p = fit.vcov.to_numpy(), 2
    for i in (0, 17, 39):
        other = model(formula, data.drop(index=i))
        d = (fit.fixef - other.fixef).to_numpy()
        assert table.cooksd[i] == pytest.approx(d @ np.linalg.solve(C, d) / p, rel=1e-5)
        ratio = np.linalg.det(other.vcov) / np.linalg.det(C)
        assert table.covratio[i] == pytest.approx(ratio, rel=1e-6)
        assert table["rvc.sigma2"][i] == pytest.approx(other.sigma**2 / fit.sigma**2 - 1, rel=1e-6, abs=1e-12)
    assert list(mm.varcomp(fit).index) == ["sigma2"]
    assert mm.varcomp(fit).sigma2 == pytest.approx(fit.sigma**2)
    assert list(mm.rvc(fit).columns) == ["sigma2"]
    change = mm.influence(fit).varcomp["sigma2"]
    np.testing.assert_allclose(change, mm.case_delete(fit).varcomp["sigma2"] - fit.sigma**2, atol=1e-9)


WITH_FRAME = [
    "hlm_augment", "hlm_resid", "hlm_influence", "cooks_distance", "mdffits", "covtrace", "covratio", "leverage",
    "hatvalues", "dfbeta", "dfbetas", "dffits", "rstudent", "rstandard", "icc", "r2", "varcomp",
    "resid_marginal", "resid_conditional", "ls_residuals", "is_singular",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_FRAME)
def test_the_data_may_be_handed_over_and_must_be_those_of_the_fit(name):
    function = getattr(mm, name)
    plain = function(FIT)
    for got in (function(FIT, S), function(FIT, data=S), function(FIT, data=None)):
        assert got is plain or np.all(np.asarray(got == plain) | pd.isna(np.asarray(plain)))
    with pytest.raises(mm.DataError, match="data is a pandas DataFrame and not the rows"):
        function(FIT, S.iloc[:9])
    with pytest.raises(mm.DataError, match=f"{name}: data is the text 'sleep'"):
        function(FIT, data="sleep")


@pytest.mark.parametrize("wrong", [None, "fit", S, 3, [FIT], np.zeros(3)], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("name", WITH_FRAME)
def test_what_is_no_fit_is_refused_by_name(name, wrong):
    with pytest.raises(mm.DataError, match=f"{name}: fit must be a fitted model, not"):
        getattr(mm, name)(wrong)
