"""Prediction and simulation: numbers of lme4, the joint covariance written out, and moments of draws."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from tests.models import SMALL, frame
from tests.oracles import dense_Z


@pytest.fixture(scope="module")
def sleep():
    return mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))


NEW = pd.DataFrame({"Days": [0, 5.5, 12], "Subject": ["308", "372", "999"]})


# predict() of lme4 1.1-31 at a tight optimum, sleepstudy and Penicillin
@pytest.mark.parametrize(
    ("re_form", "expected"),
    [
        (None, [253.663670349, 328.351880578, 377.012536364]),
        ("~0", [251.405104848, 308.975177626, 377.012536364]),
        ("NA", [251.405104848, 308.975177626, 377.012536364]),
        (False, [251.405104848, 308.975177626, 377.012536364]),
        ("~ (1 | Subject)", [253.663670349, 321.289716979, 377.012536364]),
        ("~ (0 + Days | Subject)", [251.405104848, 316.037341226, 377.012536364]),
    ],
)
def test_new_rows_as_lme4(sleep, re_form, expected):
    assert_allclose(sleep.predict(NEW, re_form=re_form, allow_new_levels=True), expected, rtol=1e-6)


def test_one_of_two_factors_as_lme4():
    fit = mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"))
    new = pd.DataFrame({"plate": ["a", "x"], "sample": ["F", "B"]})
    assert_allclose(fit.predict(new), [20.7730251045, 20.7419489217], rtol=1e-7)
    assert_allclose(fit.predict(new, re_form="~ (1 | sample)"), [19.9684780482, 21.9617460715], rtol=1e-7)
    only = fit.predict(new[["sample"]], re_form="~ (1 | sample)")  # the other factor may be absent
    assert_allclose(only, [19.9684780482, 21.9617460715], rtol=1e-7)


def model(name):
    formula, theta, options = SMALL[name]
    data = frame()
    return data, mm.fit_at(formula, data, theta, **options)


@pytest.mark.parametrize("name", SMALL)
def test_rows_of_the_fit_and_the_same_rows_as_new_data(name):
    data, fit = model(name)
    assert_allclose(fit.predict(), fit.fitted, rtol=1e-12)
    offset = data["off"].to_numpy() if fit.design.offset is not None else None
    assert_allclose(fit.predict(data, offset=offset), fit.fitted, rtol=1e-10)
    assert_allclose(fit.predict(re_form="~0"), fit.fitted_marginal, rtol=1e-12)


def joint_covariance(fit):
    """sigma^2 times the inverse of Henderson's matrix for (beta, b), through the prior covariance of b."""
    d = fit.design
    Z = np.hstack([dense_Z(t) for t in d.terms])
    prior = np.zeros((Z.shape[1],) * 2)
    at = 0
    for t, L in zip(d.terms, fit.Lambda, strict=True):
        size = len(t.levels) * len(L)
        prior[at : at + size, at : at + size] = np.kron(np.eye(len(t.levels)), L @ L.T)
        at += size
    W = np.diag(np.ones(d.n) if d.weights is None else d.weights)
    V = np.linalg.inv(W) + Z @ prior @ Z.T
    Vinv = np.linalg.inv(V)
    C = np.linalg.inv(d.X.T @ Vinv @ d.X)
    G = prior @ Z.T @ Vinv
    P = Vinv - Vinv @ d.X @ C @ d.X.T @ Vinv
    b = prior - prior @ Z.T @ P @ Z @ prior
    cross = -C @ d.X.T @ G.T
    return fit.sigma**2 * np.block([[C, cross], [cross.T, b]]), np.hstack([d.X, Z])


@pytest.mark.parametrize("name", SMALL)
def test_standard_errors_are_those_of_the_joint_covariance(name):
    _, fit = model(name)
    S, T = joint_covariance(fit)
    want = np.sqrt(np.einsum("ij,jk,ik->i", T, S, T))
    assert_allclose(fit.predict(se_fit=True)["se_fit"], want, rtol=1e-8)
    X, C = fit.design.X, S[: fit.design.p, : fit.design.p]
    fixed = np.sqrt(np.einsum("ij,jk,ik->i", X, C, X))
    assert_allclose(fit.predict(se_fit=True, re_form="~0")["se_fit"], fixed, rtol=1e-9)


def test_a_new_level_adds_the_variance_of_its_effects(sleep):
    rows = pd.DataFrame({"Days": [3.0], "Subject": ["new"]})
    got = sleep.predict(rows, se_fit=True, allow_new_levels=True)["se_fit"].iloc[0]
    x = np.array([1.0, 3.0])
    cov = sleep.varcorr["Subject"].cov + sleep.vcov.to_numpy()
    assert_allclose(got**2, x @ cov @ x, rtol=1e-10)


def test_new_levels_are_named(sleep):
    with pytest.raises(mm.DataError, match=r"Subject has levels .* 999"):
        sleep.predict(NEW)


def test_missing_predictors_give_nan_and_nothing_else(sleep):
    rows = pd.DataFrame({"Days": [1.0, np.nan, np.nan], "Subject": ["308", "309", None]})
    got = sleep.predict(rows)
    assert_allclose(got, [sleep.predict(rows.iloc[:1]).iloc[0], np.nan, np.nan])
    assert np.isnan(sleep.predict(rows, se_fit=True)["se_fit"].to_numpy()[1:]).all()


def test_a_missing_group_has_the_population_value_if_asked_for(sleep):
    rows = pd.DataFrame({"Days": [1.0, 2.0], "Subject": ["308", None]}, index=["first", "second"])
    with pytest.raises(mm.DataError, match=r"Subject is missing in 1 row.*'second'"):
        sleep.predict(rows)
    got = sleep.predict(rows, allow_new_levels=True)
    assert_allclose(got["second"], sleep.predict(rows, re_form="~0")["second"])
    assert_allclose(got["first"], sleep.predict(rows.iloc[:1])["first"])


def test_one_part_of_a_nested_group_may_be_missing():
    data = mm.load_dataset("Pastes")
    fit = mm.lmer("strength ~ 1 + (1 | batch / cask)", data)
    rows = pd.DataFrame({"batch": ["A"], "cask": [None]})
    got = fit.predict(rows, allow_new_levels=True)
    assert_allclose(got, fit.fixef.iloc[0] + fit.ranef["batch"].loc["A"].iloc[0])


def test_unknown_terms_and_columns_are_named(sleep):
    with pytest.raises(mm.FormulaError, match="does not have"):
        sleep.predict(NEW, re_form="~ (1 | School)")
    with pytest.raises(mm.DataError, match="Days"):
        sleep.predict(NEW[["Subject"]])
    with pytest.raises(mm.UnsupportedError, match="'probability'"):
        sleep.predict(type="probability")


@pytest.mark.parametrize(
    "basis", ["poly(Days, 2)", "ns(Days, 3)", "bs(Days, 4)", "scale(Days)", "log1p(Days)"]
)
def test_bases_are_those_of_the_fit(basis):
    data = mm.load_dataset("sleepstudy")
    fit = mm.lmer(f"Reaction ~ {basis} + (1 | Subject)", data)
    assert_allclose(fit.predict(data.iloc[[3, 50]]), fit.fitted.iloc[[3, 50]], rtol=1e-9)


def test_left_out_rows_are_padded():
    data = mm.load_dataset("sleepstudy")
    data.loc[[2, 7], "Reaction"] = np.nan
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", data, na_action="exclude")
    got = fit.predict()
    assert len(got) == 180
    assert list(np.flatnonzero(got.isna())) == [2, 7]
    assert fit.predict(data.iloc[[2]]).notna().all()


@pytest.mark.parametrize("use_u", [False, True])
def test_simulated_responses_have_the_moments_of_the_model(use_u):
    """Mean and covariance of 4,000 draws; the largest of 100 entries of a sample covariance strays 4 sd."""
    data, fit = model("weighted slope")
    n, draws = 8, 4000
    got = fit.simulate(draws, 7, use_u=use_u).to_numpy()[:n]
    S = np.diag(fit.sigma**2 / data.w.to_numpy())
    if not use_u:
        Z, L = dense_Z(fit.design.terms[0]), fit.Lambda[0]
        S = S + fit.sigma**2 * Z @ np.kron(np.eye(len(fit.design.terms[0].levels)), L @ L.T) @ Z.T
    S = S[:n, :n]
    mean = fit.fitted if use_u else fit.fitted_marginal
    assert_allclose(got.mean(axis=1), np.asarray(mean)[:n], atol=5 * np.sqrt(S.max() / draws))
    error = np.abs(np.cov(got) - S) / np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / draws)
    assert error.max() < 5


def test_simulation_is_reproducible_and_labelled(sleep):
    one, two = sleep.simulate(2, 3), sleep.simulate(2, np.random.default_rng(3))
    assert one.equals(two)
    assert list(one.columns) == ["sim_1", "sim_2"]
    assert one.index.equals(sleep.design.index)
    again = sleep.refit(one["sim_1"])
    assert_allclose(again.fixef, sleep.fixef, atol=5 * sleep.se.max())
