"""Generalized linear models from hard starts: closed forms, scales over decades, maxima at the edge of the domain."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.families.links import link_named
from mmcore.families.names import family_named
from mmcore.glmm.irls import irls
from mmcore.kernels.basis import orthonormal_basis

KINDS = ("gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "negative.binomial")
PAIRS = [(kind, link) for kind in KINDS for link in family_named(kind).links]
WITH_DISPERSION = [pair for pair in PAIRS if not family_named(pair[0]).dispersion_known]


def family_of(kind, link, theta=0.7):
    return family_named(kind, link, **({"theta": theta} if kind == "negative.binomial" else {}))


def grouped(kind, rng, groups=4, n=32, decades=1.0):
    """Responses of groups whose means lie decades apart, and the groups."""
    g = np.resize(np.arange(groups), n)
    mu = np.exp(decades * rng.normal(size=groups))[g]
    if kind == "binomial":
        y = (rng.uniform(size=n) < rng.uniform(0.2, 0.8, groups)[g]).astype(float)
        y[:groups], y[groups : 2 * groups] = 0.0, 1.0
    elif kind in ("poisson", "negative.binomial"):
        y = rng.poisson(3.0 * mu).astype(float)
        y[:groups] += 1.0
    elif kind == "Gamma":
        y = np.maximum(rng.gamma(0.1, mu / 0.1), 1e-200)
    elif kind == "inverse.gaussian":
        y = rng.wald(mu, 0.1 * mu)
    else:
        y = mu * (1.0 + 0.2 * rng.normal(size=n))
    return y, g


@pytest.mark.parametrize(("kind", "link"), PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_coefficients_of_a_factor_without_intercept_are_the_links_of_the_group_means(kind, link, seed):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-9, 9) if (kind, link) in WITH_DISPERSION else 1.0
    decades = 1.0 if kind in ("gaussian", "binomial", "inverse.gaussian") else [0.0, 1.0, 3.0, 5.0][seed]
    y, g = grouped(kind, rng, decades=decades)
    data = pd.DataFrame({"y": scale * y, "g": [f"g{i}" for i in g]})
    family = family_of(kind, link)
    f = mm.glm("y ~ 0 + g", data, family=family)
    want = family.link.eta(data.groupby("g")["y"].mean().to_numpy())
    assert f.converged
    assert_allclose(f.beta, want, rtol=1e-8, atol=1e-8)


def test_the_mean_of_responses_over_ten_decades():
    data = pd.DataFrame({"y": [1e-5, 1e5, 1.0]})
    f = mm.glm("y ~ 1", data, family="Gamma", link="log")
    assert_allclose(f.beta[0], np.log(data["y"].mean()), rtol=1e-13)  # 10.4143
    wide = pd.DataFrame({"y": [1e-150, 1e150, 1.0]})
    f = mm.glm("y ~ 1", wide, family="Gamma", link="log")
    assert_allclose(f.beta[0], np.log(wide["y"].mean()), rtol=1e-13)


@pytest.mark.parametrize("link", ["log", "inverse", "identity"])
def test_no_fit_of_a_gamma_of_shape_a_tenth_is_above_the_deviance_of_the_truth(link):
    family = family_named("Gamma", link)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=200) if link == "log" else rng.uniform(size=200)
        eta = 4.0 + 3.0 * x if link == "log" else 0.1 + 2.0 * x
        y = np.maximum(rng.gamma(0.1, family.link.mu(eta) / 0.1), 1e-250)
        f = mm.glm("y ~ x", pd.DataFrame({"y": y, "x": x}), family=family)
        assert f.converged
        assert f.deviance <= family.bind(y).at(eta).D
        score = f.design.X.T @ f.solution.at.s
        assert np.sqrt(score @ f.XtVinvX_inv @ score) < 1e-8 * np.sqrt(f.deviance)


def test_where_the_deviance_has_several_minima_every_start_is_run():
    """Inverse Gaussian, log link: from the mean alone this ends at a deviance of 786.6."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = rng.wald(np.exp(4.0 + 3.0 * x), 0.3)
    f = mm.glm("y ~ x", pd.DataFrame({"y": y, "x": x}), family="inverse.gaussian", link="log")
    assert_allclose(f.deviance, 654.733889234, rtol=1e-10)  # Nelder-Mead from the true coefficients
    assert_allclose(f.beta, [4.80839142, 3.38093527], rtol=1e-7)


@pytest.mark.parametrize(("kind", "link"), WITH_DISPERSION)
@pytest.mark.parametrize("c", [1e-9, 1e-3, 1e9])
def test_a_glm_follows_the_unit_of_the_response(kind, link, c):
    rng = np.random.default_rng(5)
    x = rng.uniform(size=80)
    family = family_named(kind, link)
    mu = family.link.mu(0.5 + x)
    y = mu * rng.gamma(5.0, 0.2, 80)
    data = pd.DataFrame({"x": x, "y": y, "yc": c * y})
    one, other = mm.glm("y ~ x", data, family=family), mm.glm("yc ~ x", data, family=family)
    assert one.converged and other.converged
    if link == "log":
        want, se = one.beta + np.array([np.log(c), 0.0]), one.se
    else:
        factor = {"identity": c, "inverse": 1.0 / c, "1/mu^2": c**-2}[link]
        want, se = factor * one.beta, factor * one.se
    assert_allclose(other.beta, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
    assert_allclose(other.se, se, rtol=1e-8)
    assert_allclose(other.loglik, one.loglik - 80 * np.log(c), rtol=1e-10)


def test_a_gaussian_mean_that_runs_to_zero_is_not_converged():
    y = np.array([-1.0, -0.5, 0.25, -0.75, 0.5])
    with pytest.warns(mm.SeparationWarning, match=r"\(Intercept\) run off to infinity"):
        f = mm.glm("y ~ 1", pd.DataFrame({"y": y}), family="gaussian", link="log")
    assert not f.converged
    data = pd.DataFrame({"y": [*y, 4.0, 5.0, 6.0], "g": list("aaaaabbb")})
    with pytest.warns(mm.SeparationWarning, match="estimates of ga run off"):
        f = mm.glm("y ~ 0 + g", data, family="gaussian", link="log")
    assert_allclose(f.beta[1], np.log(5.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "link", "y"),
    [
        ("poisson", "identity", [0, 0, 1, 2, 3, 5, 5, 8]),
        ("negative.binomial", "identity", [0, 0, 0, 3, 5, 9, 5, 14]),
        ("binomial", "identity", [0, 0, 0, 1, 0, 1, 1, 1]),
        ("binomial", "log", [0, 0, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_a_maximum_at_the_edge_of_the_domain_says_so_and_is_the_maximum(kind, link, y):
    """The best of 200,000 feasible lines is not better than the fit by more than the grid explains."""
    x = np.arange(8.0)
    family = family_of(kind, link)
    with pytest.warns(mm.ConvergenceWarning, match="edge of the domain"):
        f = mm.glm("y ~ x", pd.DataFrame({"y": np.array(y, float), "x": x}), family=family)
    assert f.status is mm.Status.AT_EDGE
    conditional = family.bind(np.array(y, float))
    rng = np.random.default_rng(0)
    ends = family.link.eta(f.fitted.to_numpy()[[0, -1]]) + 0.02 * rng.normal(size=(20_000, 2))
    eta = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * x / 7.0
    low, high = family.domain()
    eta = eta[((eta > low) & (eta < high)).all(axis=1)]
    with np.errstate(all="ignore"):
        assert len(eta) > 100
        assert conditional.terms(eta)[0].sum(axis=1).min() >= f.deviance - 1e-6


def test_a_start_inside_the_domain_is_found_where_one_exists():
    """Neither the response nor the mean gives one: the covariates have both signs and there is no intercept."""
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(30), rng.uniform(-1.0, 1.0, (30, 2))]) @ rng.normal(size=(3, 3))
    beta = np.linalg.lstsq(X, np.full(30, 1.0) + 0.9 * np.sin(np.arange(30.0)) * 0.1, rcond=None)[0]
    eta = X @ beta
    assert (eta > 0).all()
    y = rng.gamma(0.05, 1.0 / eta / 0.05)
    f = mm.glm(
        "y ~ 0 + a + b + c", pd.DataFrame({"y": np.maximum(y, 1e-250), "a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}),
        family="Gamma",
    )  # fmt: skip
    assert f.converged
    assert_allclose(X.T @ f.resid("response"), 0.0, atol=1e-7 * np.abs(y).max())


def test_a_model_that_has_no_means_in_the_domain_is_an_error():
    data = pd.DataFrame({"y": [1.0, 2.0, 3.0, 4.0], "x": [-1.0, 1.0, -2.0, 2.0]})
    with pytest.raises(mm.FitError, match="no coefficients give means inside the domain"):
        mm.glm("y ~ 0 + x", data, family="Gamma")


def test_an_offset_over_decades_is_taken_off():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"o": rng.uniform(-20.0, 20.0, 60), "x": rng.normal(size=60)})
    data["y"] = np.exp(data["o"] + 0.5 * data["x"]) * rng.gamma(2.0, 0.5, 60)
    data["r"] = data["y"] / np.exp(data["o"])
    with_offset = mm.glm("y ~ x + offset(o)", data, family="Gamma", link="log")
    ratio = mm.glm("r ~ x", data, family="Gamma", link="log")
    assert_allclose(with_offset.beta, ratio.beta, rtol=1e-9)
    assert_allclose(with_offset.deviance, ratio.deviance, rtol=1e-9)


@pytest.mark.parametrize("function", [mm.glm, mm.glmer])
def test_a_family_has_to_be_named(function):
    data = pd.DataFrame({"y": [1.0, 2.0, 3.0], "g": list("aab")})
    with pytest.raises(mm.DataError, match='needs a family: family="binomial"'):
        function("y ~ 1 + (1 | g)", data)


@pytest.mark.parametrize(("kind", "link"), PAIRS)
def test_every_converged_fit_has_a_score_of_zero(kind, link):
    """Random models, weights over decades: the score in standard errors of the fit."""
    family = family_of(kind, link)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y, _ = grouped(kind, rng, groups=6, n=36)
        X = np.column_stack([np.ones(36), rng.uniform(size=36), rng.uniform(size=36) < 0.4])
        Q, _ = orthonormal_basis(np.ascontiguousarray(X.T))
        w = np.exp(rng.normal(size=36))
        conditional = family.bind(y, w)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = irls(conditional, Q)
        if not found.converged:
            assert found.at_edge or (kind, link) == (
                "Gamma",
                "identity",
            )  # there a response near zero has no edge
            continue
        score = Q @ found.at.s
        information = (Q * found.at.W) @ Q.T
        unit = 1.0 if family.dispersion_known else found.at.D / 36
        assert score @ np.linalg.solve(information, score) <= 1e-10 * unit


def test_links_of_a_domain():
    assert family_named("Gamma", "identity").domain() == (0.0, np.inf)
    assert family_named("binomial", "log").domain() == (-np.inf, 0.0)
    assert family_named("binomial", "identity").domain() == (0.0, 1.0)
    assert family_named("poisson", "sqrt").domain() == (-np.inf, np.inf)
    assert family_named("quasi", "identity", variance_name="mu(1-mu)").domain() == (0.0, 1.0)
    assert family_named("quasi", "1/mu^2", variance_name="mu^3").domain() == (0.0, np.inf)
    assert link_named("log").name == "log"
