"""Covariance structures: numbers of lme4 2.1-0, identities between structures, bounds, names."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.covariance.blocks import BlockCovariance
from mmcore.covariance.compound import Compound
from mmcore.covariance.diagonal import Diagonal
from mmcore.covariance.triangle import cholesky_psd
from mmcore.covariance.unstructured import Unstructured

TRUTH = json.loads((Path(__file__).parents[1] / "data" / "lme4_structures.json").read_text())["fits"]


def data(name):
    frame = mm.load_dataset(name)
    if name == "sleepstudy":
        frame["fD"] = pd.Categorical(frame["Days"].astype(int).astype(str))
    return frame


@pytest.mark.parametrize("name", TRUTH)
def test_at_the_theta_of_lme4(name):
    want = TRUTH[name]
    fit = mm.fit_at(want["formula"], data(want["dataset"]), want["theta"], reml=want["reml"])
    assert_allclose(fit.loglik, want["loglik"], rtol=1e-13)
    assert_allclose(fit.theta, want["theta"], rtol=1e-12)
    assert_allclose(fit.sigma, want["sigma"], rtol=1e-12)
    assert_allclose(fit.fixef, list(want["fixef"].values()), rtol=1e-10)
    assert_allclose(fit.se, list(want["se"].values()), rtol=1e-10)
    (cov,) = (term.cov for term in fit.varcorr.values())
    assert_allclose(cov[0], want["re_cov_first_row"], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", TRUTH)
def test_at_the_optimum(name):
    """lme4 stops where the criterion is flat to 1e-9, which is 1e-5 in its parameters."""
    want = TRUTH[name]
    fit = mm.lmer(want["formula"], data(want["dataset"]), reml=want["reml"])
    assert fit.converged and not fit.is_singular
    assert -1e-11 < fit.loglik - want["loglik"] < 1e-8
    assert fit.df == want["npar"]
    assert_allclose(fit.par, want["par"], rtol=2e-5)
    assert list(fit.fixef.index) == list(want["fixef"])
    assert_allclose(fit.fixef, list(want["fixef"].values()), rtol=1e-8)
    assert_allclose(fit.se, list(want["se"].values()), rtol=2e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cs(Days | Subject)", "(Days | Subject)"),
        ("diag(Days | Subject)", "(Days || Subject)"),
        ("cs(0 + Days | Subject)", "(0 + Days | Subject)"),
        ("ar1(Days | Subject, hom = TRUE)", "cs(Days | Subject, hom = TRUE)"),
        ("ar1(Days | Subject, hom = FALSE)", "cs(Days | Subject)"),
        ("us(Days | Subject)", "(Days | Subject)"),
    ],
)
def test_structures_that_are_the_same_model(one, other):
    sleep = data("sleepstudy")
    first, second = (mm.lmer(f"Reaction ~ Days + {bar}", sleep) for bar in (one, other))
    assert_allclose(first.criterion, second.criterion, rtol=0, atol=1e-9)
    assert first.df == second.df
    assert_allclose(first.fitted, second.fitted, rtol=1e-6)


def test_compound_symmetry_is_a_random_intercept_and_an_interaction():
    """Homogeneous cs over machines: Cov(b) = tau^2 J + omega^2 I, the nested model of Pinheiro & Bates 2000, 1.3.2."""
    machines = data("Machines")
    cs = mm.lmer("score ~ Machine + cs(0 + Machine | Worker, hom = TRUE)", machines)
    nested = mm.lmer("score ~ Machine + (1 | Worker / Machine)", machines)
    assert_allclose(cs.criterion, nested.criterion, rtol=0, atol=1e-9)
    cov = cs.varcorr["Worker"].cov
    assert_allclose(cov[0, 1], nested.varcorr["Worker"].cov[0, 0], rtol=1e-5)
    assert_allclose(cov[0, 0] - cov[0, 1], nested.varcorr["Machine:Worker"].cov[0, 0], rtol=1e-5)


def test_names_are_those_of_lme4():
    effects = ("a", "b", "c")
    cs, ar1 = Compound(3, "cs", True), Compound(3, "ar1", True)
    assert cs.theta_names(effects) == ["a", "*.a", "b", "*.b", "c"]
    assert ar1.theta_names(effects) == ["a", "b.a", "c.a", "b", "c.b"]
    assert Compound(3, "cs", False).theta_names(effects) == ["a", "b.a", "c.a", "b", "c.b", "c"]
    assert Diagonal(3, True).theta_names(effects) == ["*"]
    assert cs.par_names(effects) == ["*", "rho"]
    assert Compound(3, "ar1", False).par_names(effects) == ["a", "b", "c", "rho"]


@pytest.mark.parametrize("homogeneous", [True, False])
@pytest.mark.parametrize("kind", ["cs", "ar1"])
def test_parameters_and_theta_are_inverse(kind, homogeneous):
    structure = Compound(4, kind, homogeneous)
    for rho in (-0.3, 0.0, 0.7, 1.0):
        par = np.append([0.8, 1.2, 0.5, 2.0][: structure.n_sd], rho)
        theta = structure.theta(par)
        assert len(theta) == structure.n_theta
        again = structure.from_theta(theta)
        assert_allclose(structure.sigma(again), structure.sigma(par), atol=1e-12)
        L = structure.Lambda(par)
        assert_allclose(L, np.tril(L))
        assert_allclose(L @ L.T, structure.sigma(par), atol=1e-13)


def test_a_theta_of_another_form_is_refused():
    with pytest.raises(mm.DataError, match="not the Cholesky factor of a covariance of the form cs"):
        mm.fit_at(
            "score ~ Machine + cs(0 + Machine | Worker)", data("Machines"), [1.0, 0.5, 0.1, 1.0, -0.4, 1.0]
        )


@pytest.mark.parametrize("kind", ["cs", "ar1"])
def test_the_correlation_may_be_one(kind):
    """Three copies of one random intercept: rho goes to its limit, and the fit is that of the intercept."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(20), 9)
    k = np.tile(np.arange(3), 60)
    y = 2.0 * rng.normal(size=20)[g] + 0.3 * rng.normal(size=180)
    y -= 1e-3 * np.tile([1.0, -2.0, 1.0], 60)
    frame = pd.DataFrame({"y": y, "g": pd.Categorical(g), "k": pd.Categorical(k)})
    with pytest.warns(mm.SingularWarning):
        fit = mm.lmer(f"y ~ 1 + {kind}(0 + k | g, hom = TRUE)", frame)
    simple = mm.lmer("y ~ 1 + (1 | g)", frame)
    assert fit.par[-1] == 1.0 and fit.is_singular and fit.converged
    assert_allclose(fit.criterion, simple.criterion, rtol=0, atol=1e-8)


def test_a_negative_correlation_at_its_limit():
    """cs is positive semi-definite down to rho = -1 / (k - 1), where the effects add up to zero."""
    rng = np.random.default_rng(5)
    g, k = np.repeat(np.arange(40), 6), np.tile(np.arange(3), 80)
    b = rng.normal(size=(40, 3))
    b = 2.0 * (b - b.mean(axis=1, keepdims=True))
    y = b[g, k] + 0.3 * rng.normal(size=240)
    y -= (np.bincount(g, y) / 6)[g]  # sums of effects vary less than the residuals alone would let them
    frame = pd.DataFrame({"y": y, "g": pd.Categorical(g), "k": pd.Categorical(k)})
    with pytest.warns(mm.SingularWarning):
        fit = mm.lmer("y ~ 1 + cs(0 + k | g, hom = TRUE)", frame)
    assert_allclose(fit.par[-1], -0.5, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_charts_are_the_same_model(k):
    """Sigma and its derivatives do not depend on chart and frame; standard parameters survive the round trip."""
    rng = np.random.default_rng(k)
    C = np.triu(rng.normal(size=(k, k))) + 2 * np.eye(k)
    theta = rng.normal(size=k * (k + 1) // 2)
    plain, framed = Unstructured(k), Unstructured(k).framed(C)
    L = plain.Lambda(theta)
    assert_allclose(framed.Lambda(theta), L)
    assert_allclose(C @ framed.sigma(theta) @ C.T, L @ L.T, rtol=1e-12, atol=1e-13)
    work = framed.charted(None)
    par = work.from_standard(theta)
    assert_allclose(work.sigma(par), framed.sigma(theta), rtol=1e-10, atol=1e-12)
    assert_allclose(work.to_standard(par), plain.canonical(theta), rtol=1e-8, atol=1e-10)
    h = 1e-6
    for structure, at in ((framed, theta), (work, par)):
        steps = h * np.eye(len(at))
        slopes = [(structure.sigma(at + s) - structure.sigma(at - s)) / (2 * h) for s in steps]
        assert_allclose(structure.jacobian(at), slopes, rtol=1e-7, atol=1e-8)


def test_a_better_chart_puts_the_small_effect_last():
    structure = Unstructured(3)
    Sigma = np.diag([1e-4, 4.0, 1.0]) + 1e-3
    par = np.concatenate([cholesky_psd(Sigma)[j:, j] for j in range(3)])
    better, new = structure.rechart(par)
    assert_allclose(better.sigma(new), Sigma, rtol=1e-12)
    pivots = np.abs(new[better.scale_index])
    assert (np.diff(pivots) < 0).all()
    assert better.rechart(new) is None
    assert_allclose(better.to_standard(new), par, rtol=1e-8)


# --- other starts -------------------------------------------------------------------------------------------


def test_scattered_starts_cover_every_parameter():
    """Spread evenly: of any parameter, no half of its range is without one."""
    covariance = BlockCovariance(
        [[0, 1], [2]], [Unstructured(2), Diagonal(2, False), Compound(3, "cs", False)]
    )
    starts = np.array(covariance.scattered())
    assert starts.shape == (8, 3 + 2 + 4)
    scales = covariance.scale_index()
    assert_allclose(np.abs(np.log(starts[:, scales] / 0.55)) <= 2.0, True)
    for column in np.log(starts[:, scales] / 0.55).T:
        assert column.min() < 0 < column.max()
    assert starts[:, 1].min() < 0 < starts[:, 1].max()  # the covariance of the first two
    assert starts[:, -1].min() > -0.5 and starts[:, -1].max() < 1.0  # a correlation that is possible
    (first, *rest) = BlockCovariance([[0]], [Unstructured(1)]).scattered()
    assert len(rest) == 7
    assert_allclose(
        first, 0.55 * np.exp(6 * (2 * (0.5 + 2 / (1 + 5**0.5) - 1) - 1)), rtol=1e-12
    )  # golden ratio


def test_filled_starts_have_full_rank():
    covariance = BlockCovariance([[0]], [Unstructured(3)])
    near, far = covariance.filled(np.array([2.0, -1.0, 0.5, 0.0, 0.0, 1.0]))
    assert_allclose(near, [2.0, -1.0, 0.5, 0.6, 0.0, 1.0])
    assert_allclose(far, [8.0, -4.0, 2.0, 2.4, 0.0, 4.0])
    assert covariance.filled(np.array([2.0, 0, 0, 1.0, 0, 1.0])) == []  # nothing to fill
    assert covariance.filled(np.zeros(6)) == []  # nothing to grow with
