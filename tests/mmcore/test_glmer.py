"""Generalised linear mixed models: published numbers, lme4 at fixed parameters, optima, edge cases.

Published values of lme4 defaults carry the noise of its inner iteration (tolPwrss = 1e-7): they are met at
the digits that a tight lme4 confirms; standard errors are those of tight lme4, numDeriv and glmmTMB.
"""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.families.continuous import Gaussian
from mmcore.families.links import link_named
from mmcore.families.names import family_named
from mmcore.glmm.glmer import _design


def cbpp():
    return mm.load_dataset("cbpp")


CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp_fit():
    return mm.glmer(CBPP, cbpp(), family="binomial")


# --- published ----------------------------------------------------------------------------------------------


def test_cbpp_laplace(cbpp_fit):
    """lme4's tests (test-glmer.R, test-resids.R, test-ranef.R) and MixedModels.jl (pirls.jl)."""
    f = cbpp_fit
    published = [-1.39854982537216, -0.992335519118859, -1.12867532780426, -1.58030423764517]
    assert_allclose(f.beta, published, rtol=1.5e-5)
    assert_allclose(f.theta.iloc[0], 0.64226, atol=2e-5)
    assert_allclose(f.loglik, -92.0262818724738, rtol=2e-10)
    assert_allclose((f.aic, f.bic), (194.05256, 204.17932), atol=5e-6)
    assert_allclose(f.deviance, 73.4717159795606, rtol=2e-7)
    modes = f.solution.point.modes
    assert_allclose(modes.factor.logdet, 16.9011279822752, rtol=1e-5)
    assert_allclose(modes.penalty, 9.72301224524056, rtol=2e-5)
    assert_allclose(f.deviance + modes.penalty + modes.factor.logdet, 100.095856207076, rtol=1e-9)
    assert_allclose(f.condvar["herd"][[0, 8], 0, 0], [0.12128867, 0.21289738], rtol=1.5e-6)
    deviance, pearson = f.resid("deviance"), f.resid("pearson")
    assert_allclose((deviance.min(), deviance.max()), (-3.1975034, 2.35668826), rtol=2e-4)
    assert_allclose((pearson.min(), pearson.max()), (-2.38163599828335, 2.87908806084918), rtol=2e-4)
    assert_allclose(f.resid().min(), -0.194674747774946, rtol=2e-4)
    assert_allclose(f.resid("working").max(), 5.41064465283686, rtol=6e-4)


def test_cbpp_quadrature():
    f = mm.glmer(CBPP, cbpp(), nagq=25, family="binomial")
    assert_allclose(f.criterion, 100.010030538022, rtol=2e-11)
    published = [-1.39922533406847, -0.991407294757321, -1.12782184600404, -1.57946627431248]
    assert_allclose(f.beta, published, rtol=4e-6)
    assert_allclose(f.deviance, 73.373, atol=5e-5)
    laplace = mm.glmer(CBPP, cbpp(), family="binomial")
    assert_allclose(
        f.loglik_full, laplace.loglik, atol=0.05
    )  # the same constants: approximations of one number
    assert laplace.loglik_full == laplace.loglik


def test_cbpp_standard_errors(cbpp_fit):
    """glmmTMB 1.1.5 and numDeriv on tight lme4; lme4's default prints 0.2312 and 0.3032 for the first two."""
    assert_allclose(cbpp_fit.se, [0.232472, 0.306642, 0.326638, 0.427436], atol=6e-7)
    assert cbpp_fit.vcov_type == "hessian"
    assert_allclose(np.sqrt(np.diag(cbpp_fit.vcov_rx))[:2], [0.22785, 0.30535], atol=5e-5)


def test_bacteria_with_differences_of_levels():
    data = mm.load_dataset("MASS_bacteria")
    f = mm.glmer("y ~ C(trt, contr.sdif) + (week > 2) + (1 | ID)", data, family="binomial")
    assert_allclose(f.loglik, -96.13069, atol=5e-6)
    assert_allclose(f.beta, [2.83160949, -1.366722631, 0.5840147802, -1.598591346], rtol=4e-5)


def test_verbagg_crossed():
    data = mm.load_dataset("VerbAgg")
    f = mm.glmer("r2 ~ 1 + Anger + Gender + btype + situ + (1 | id) + (1 | item)", data, family="binomial")
    assert_allclose(f.criterion, 8151.39972, atol=5e-6)
    assert f.criterion < 8151.400478  # glmer's default stops here
    assert_allclose(f.solution.point.modes.penalty, 273.296463469408, rtol=2e-5)
    assert_allclose(f.deviance, 7156.55094144631, rtol=1e-6)


def test_mmec_offset_and_quadrature():
    data = mm.load_dataset("Mmmec")
    data["log_expected"] = np.log(data["expected"])
    f = mm.glmer("deaths ~ 1 + uvb + (1 | region)", data, family="poisson", offset="log_expected", nagq=11)
    assert_allclose(f.criterion, 655.253353301606, rtol=1e-11)
    assert_allclose(f.theta.iloc[0], 0.412168, atol=1e-6)
    assert_allclose(f.beta, [-0.138603, -0.0344145], rtol=2e-5)


def test_matched_pairs():
    """lme4 issue 47: two rows per group; the published numbers are at lme4's own optimum."""
    data = mm.load_dataset("lme4_issue47")
    f = mm.glmer("event ~ group + (1 | id)", data, nagq=21, family="binomial")
    assert_allclose(f.se, [0.42542855, 0.42492581], rtol=1e-5)
    assert_allclose(np.sqrt(np.diag(f.vcov_rx)), [0.3840921, 0.3768747], rtol=5e-5)


GROUSE = "TICKS ~ YEAR + ch + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)"


def grouse():
    data = mm.load_dataset("grouseticks")
    data["ch"] = data["HEIGHT"] - data["HEIGHT"].mean()
    return data


def test_grouseticks_three_nested_factors_one_per_row():
    f = mm.glmer(GROUSE, grouse(), family="poisson")
    assert_allclose(
        f.fixef[["YEAR96", "YEAR97", "ch"]], [1.1804105508475, -0.978704, -0.02376057], rtol=1.2e-5
    )
    variances = [f.varcorr[g].cov[0, 0] for g in ("INDEX", "BROOD", "LOCATION")]
    assert_allclose(variances, [0.293232458048324, 0.562551624933584, 0.279548178949372], rtol=1.5e-5)
    assert f.varcorr.sigma is None


def test_grouseticks_fixed_effects_at_the_joint_mode():
    f = mm.glmer(GROUSE, grouse(), family="poisson", nagq=0)
    modes = f.solution.point.modes
    assert_allclose(f.deviance + modes.penalty + modes.factor.logdet, 851.4046, atol=1e-4)
    assert f.vcov_type == "rx"
    assert mm.glmer(GROUSE, grouse(), family="poisson").criterion < f.criterion


# --- against another route --------------------------------------------------------------------------------


def test_joint_mode_equals_lme4():
    f = mm.glmer(CBPP, cbpp(), nagq=0, family="binomial")
    assert_allclose(f.criterion, 184.108590946, rtol=1e-10)
    assert_allclose(f.beta, [-1.360471755, -0.976177471, -1.111076893, -1.559680516], rtol=1e-7)
    assert_allclose(f.se, [0.227574622, 0.303287349, 0.323511803, 0.424455501], rtol=1e-6)


@pytest.mark.parametrize("nagq", [1, 9])
def test_fit_at_repeats_the_fit(cbpp_fit, nagq):
    f = cbpp_fit if nagq == 1 else mm.glmer(CBPP, cbpp(), nagq=nagq, family="binomial")
    g = mm.fit_at(CBPP, cbpp(), f.theta, beta=f.fixef, family="binomial", nagq=nagq)
    assert_allclose(g.criterion, f.criterion, rtol=1e-13)
    assert_allclose(g.fitted, f.fitted, rtol=1e-9)
    assert np.abs(g.optinfo.gradient).max() < 1e-3
    assert_allclose(g.se, f.se, rtol=1e-6)


def test_optimum_from_many_starts_is_one():
    want = mm.glmer(CBPP, cbpp(), family="binomial").criterion
    for theta in (0.01, 0.2, 3.0, 20.0):
        f = mm.glmer(CBPP, cbpp(), start={"theta": [theta], "beta": [0.0, 0.0, 0.0, 0.0]}, family="binomial")
        assert_allclose(f.criterion, want, rtol=1e-10)
    assert_allclose(mm.glmer(CBPP, cbpp(), start=[1.5], family="binomial").criterion, want, rtol=1e-10)


def test_hessian_covariance_is_that_of_the_profile_in_beta(cbpp_fit):
    """2 H^-1: second differences of the criterion along a direction of beta, the rest at its optimum,
    agree.
    """
    f = cbpp_fit
    step = 0.02 * f.se.iloc[1]

    def profiled(shift):
        data = cbpp()
        data["o"] = (data["period"] == "2") * (f.beta[1] + shift)
        formula = "cbind(incidence, size - incidence) ~ I(period == '3') + I(period == '4') + offset(o) + (1 | herd)"
        return mm.glmer(formula, data, family="binomial").criterion

    curvature = (profiled(step) - 2 * f.criterion + profiled(-step)) / step**2
    assert_allclose(2 / curvature, f.vcov.iloc[1, 1], rtol=2e-3)


def mirrored():
    """Slopes differ by group, intercepts do not: what x = -1 gives, x = 1 takes."""
    k = np.array([1, 4, 7, 9, 13, 18])
    return pd.DataFrame(
        {"g": np.tile(list("abcdef"), 2), "x": np.repeat([-1.0, 1.0], 6), "one": 1.0, "k": [*k, *(20 - k)]}
    )


def test_there_is_no_hessian_of_one_theta_of_many():
    """Lambda = [[0, 0], [b, c]]: every (b, c) of this length is the same model, each has its own Hessian."""
    formula = "cbind(k, 20 - k) ~ x + (1 + x | g)"
    with pytest.warns(mm.SingularWarning):
        f = mm.glmer(formula, mirrored(), family="binomial")
    t = f.theta.iloc[2]
    assert_allclose(f.theta, [0, 0, t], atol=1e-6)
    with pytest.raises(mm.UnsupportedError, match="one of many"):
        _ = f.vcov_hessian
    with pytest.warns(mm.MixedModelWarning, match="one of many"):
        assert f.vcov_type == "rx"
    seen = []
    for angle in (0.0, 0.6, 1.2):
        same = [0.0, t * np.sin(angle), t * np.cos(angle)]
        at = mm.fit_at(formula, mirrored(), same, beta=f.beta, family="binomial")
        assert_allclose(at.criterion, f.criterion, rtol=1e-12)
        seen.append(2 * np.linalg.pinv(at.hessian, rcond=1e-5)[0, 0])
    assert seen[1] > 1.003 * seen[0] and seen[2] > 1.003 * seen[1]


def test_a_hessian_of_a_singular_fit_whose_theta_is_unique():
    """With the effect that varies first, Lambda = [[b, 0], [0, 0]] is the only one."""
    with pytest.warns(mm.SingularWarning):
        f = mm.glmer("cbind(k, 20 - k) ~ x + (0 + x + one | g)", mirrored(), family="binomial")
    assert_allclose(f.theta.iloc[1:], 0, atol=1e-6)
    assert f.vcov_type == "hessian"
    # y and 20 - y are mirror images: the intercept moves with the covariance of the effects, the slope with b
    H = f.hessian
    assert_allclose(H[[0, 0, 1], [1, 2, 3]], 0, atol=1e-6 * H.max())
    assert_allclose(f.vcov_hessian.iloc[0, 0], 2 / (H[0, 0] - H[0, 3] ** 2 / H[3, 3]), rtol=1e-6)
    assert_allclose(f.vcov_hessian.iloc[1, 1], 2 / (H[1, 1] - H[1, 2] ** 2 / H[2, 2]), rtol=1e-6)


@pytest.mark.parametrize(
    "formula", ["Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (Days || Subject)"]
)
def test_the_joint_criterion_of_a_gaussian_identity_model_is_that_of_lmer(formula):
    """There Laplace is exact: all estimates are those of lmer by maximum likelihood, theta times sigma."""
    data = mm.load_dataset("sleepstudy")
    data["w"] = np.resize([1.0, 2.0, 0.5], len(data))
    family = Gaussian(link_named("identity"))
    f = mm.fit_generalized(_design(formula, data, family, weights="w"), family)
    g = mm.lmer(formula, data, reml=False, weights="w")
    assert_allclose(f.criterion, g.criterion, rtol=1e-11)
    assert_allclose(f.theta, g.theta * g.sigma, rtol=1e-5)
    assert_allclose(f.beta, g.beta, rtol=1e-7)
    assert_allclose(f.sigma, g.sigma, rtol=1e-6)
    assert_allclose(f.varcorr.to_frame()["vcov"], g.varcorr.to_frame()["vcov"], rtol=2e-5)
    h = mm.fit_generalized_at(f.design, family, g.theta * g.sigma, g.beta, sigma=g.sigma)
    assert_allclose(h.criterion, g.criterion, rtol=1e-12)
    assert_allclose(h.vcov_rx, g.vcov, rtol=1e-8, atol=1e-8 * np.abs(g.vcov.to_numpy()).max())
    assert_allclose(h.ranef["Subject"], g.ranef["Subject"], atol=1e-7)
    for name, values in h.condvar.items():
        assert_allclose(values, g.condvar[name], rtol=1e-7, atol=1e-7)
    assert_allclose(mm.hatvalues(h), mm.hatvalues(g), rtol=1e-8)
    assert_allclose(mm.icc(h.working), mm.icc(g), rtol=1e-8)


def test_lme4s_criterion_has_the_determinant_of_the_linear_model():
    data = mm.load_dataset("sleepstudy")
    family = Gaussian(link_named("identity"))
    design = _design("Reaction ~ Days + (Days | Subject)", data, family)
    f = mm.fit_generalized(design, family, criterion="lme4")
    # that criterion is not profiled over the dispersion: theta differs from lmer's, the modes at theta do not
    h = mm.fit_at("Reaction ~ Days + (Days | Subject)", data, f.theta, reml=False)
    assert_allclose(
        f.solution.point.modes.factor.logdet,
        h.criterion_fn.kernel.at(h.criterion_fn.covariance.sigma(h.par), h.state.like).profile.f
        - _gaussian_rest(h),
        rtol=1e-9,
    )
    assert_allclose(f.working.beta, h.beta, rtol=1e-9)


def _gaussian_rest(h):
    n, rss = h.design.n, h.state.profile.rss
    return n * (1 + np.log(2 * np.pi * rss / n))


@pytest.mark.parametrize(
    ("formula", "family", "link"),
    [
        ("yg ~ x + (1 | g)", "Gamma", "log"),
        ("yg ~ x + (x || g)", "Gamma", "log"),
        ("yg ~ x + (1 | g)", "inverse.gaussian", "log"),
        ("cbind(yb, 6 - yb) ~ x + (x | g)", "binomial", "probit"),
        ("cbind(yb, 6 - yb) ~ x + (1 | g) + (1 | h)", "binomial", "cloglog"),
        ("yp ~ x + (1 | g / k)", "poisson", "log"),
        ("yp ~ x + (1 | g)", "negative.binomial", "log"),
        ("yp ~ x + diag(x | g)", "poisson", "log"),
        ("yp ~ x + cs(0 + k | g)", "poisson", "log"),
    ],
)
def test_optimum_is_stationary_and_no_neighbour_is_lower(formula, family, link):
    data = simulated()
    options = {"family": family_named(family, link, **({"theta": 2.0} if family.startswith("neg") else {}))}
    f = mm.glmer(formula, data, **options)
    g = mm.fit_at(formula, data, f.theta, beta=f.beta, **options)
    assert_allclose(g.criterion, f.criterion, rtol=1e-11)
    assert f.converged
    rng = np.random.default_rng(0)
    for _ in range(6):
        theta = f.theta * (1 + 0.02 * rng.normal(size=len(f.theta)))
        if "cs(" in formula:
            theta = f.theta * (1 + 0.02 * rng.normal())
        beta = f.beta + 0.1 * f.se * rng.normal(size=len(f.beta))
        assert mm.fit_at(formula, data, theta, beta=beta, **options).criterion > f.criterion - 1e-9


def simulated():
    rng = np.random.default_rng(21)
    g, h, k = np.repeat(np.arange(20), 12), rng.integers(0, 8, 240), np.tile(np.arange(3), 80)
    x = rng.normal(size=240)
    eta = 0.5 + 0.3 * x + rng.normal(0, 0.5, 20)[g] + rng.normal(0, 0.3, 20)[g] * x + rng.normal(0, 0.4, 8)[h]
    return pd.DataFrame(
        {
            "x": x, "g": g.astype(str), "h": h.astype(str), "k": k.astype(str),
            "yg": rng.gamma(4.0, np.exp(eta) / 4.0), "yb": rng.binomial(6, 1 / (1 + np.exp(-eta))),
            "yp": rng.poisson(np.exp(eta)),
        }
    )  # fmt: skip


def test_estimated_size_is_a_maximum_of_the_full_likelihood():
    data = simulated()
    f = mm.glmer("yp ~ x + (1 | g)", data, family="negative.binomial")
    for factor in (0.97, 1.03):
        other = mm.glmer(
            "yp ~ x + (1 | g)", data, family=family_named("negative.binomial", theta=f.size * factor)
        )
        assert other.loglik < f.loglik
        assert other.df == f.df - 1
    quadrature = mm.glmer("yp ~ x + (1 | g)", data, family="negative.binomial", nagq=7)
    assert_allclose(quadrature.size, f.size, rtol=0.02)


def test_dispersion_of_a_gamma_mixed_model():
    """lme4's sigma^2: (Pearson's X^2 + |u|^2) / n; covariances are scaled by it, the Hessian is not."""
    f = mm.glmer("yg ~ x + (1 | g)", simulated(), family="Gamma", link="log", criterion="lme4")
    y, mu = f.design.y, f.fitted.to_numpy()
    u = f.b[0][:, 0] / f.theta.iloc[0]
    assert_allclose(f.sigma**2, (((y - mu) / mu) ** 2).sum() / 240 + u @ u / 240, rtol=1e-9)
    assert_allclose(f.varcorr["g"].cov[0, 0], (f.sigma * f.theta.iloc[0]) ** 2, rtol=1e-12)
    assert f.df == 4
    assert_allclose(f.loglik_full, f.loglik + 1.0, rtol=1e-12)  # lme4's criterion carries a constant of 2


def test_prior_weights_and_repeated_rows():
    data = simulated()
    data["w"] = np.resize([1.0, 2.0, 3.0], len(data))
    weighted = mm.glmer("yp ~ x + (1 | g)", data, family="poisson", weights="w")
    repeated = mm.glmer(
        "yp ~ x + (1 | g)", data.loc[np.repeat(data.index, data["w"].astype(int))], family="poisson"
    )
    assert_allclose(weighted.beta, repeated.beta, rtol=1e-7)
    assert_allclose(weighted.criterion, repeated.criterion, rtol=1e-11)


def test_rows_and_labels_may_come_in_any_order():
    data = simulated()
    f = mm.glmer("yp ~ x + (x | g)", data, family="poisson")
    rng = np.random.default_rng(3)
    shuffled = data.iloc[rng.permutation(len(data))]
    g = mm.glmer("yp ~ x + (x | g)", shuffled, family="poisson")
    assert_allclose(g.criterion, f.criterion, rtol=1e-10)
    assert_allclose(g.fitted.loc[data.index], f.fitted, rtol=1e-5)


# --- edges --------------------------------------------------------------------------------------------------


def test_boundary_is_exact_and_the_model_there_is_the_glm():
    x, y = np.tile([-2.0, -1, 0, 1, 2], 8), np.tile([1, 2, 3, 4, 5], 8)
    balanced = pd.DataFrame({"y": y, "x": x, "g": np.repeat(np.arange(8), 5)})
    with pytest.warns(mm.SingularWarning, match="variance of g is zero"):
        f = mm.glmer("y ~ x + (1 | g)", balanced, family="poisson")
    assert f.theta.iloc[0] == 0.0 and f.is_singular
    glm = mm.glm("y ~ x", balanced, family="poisson")
    assert_allclose(f.beta, glm.beta, rtol=1e-7)
    assert_allclose(f.criterion, glm.criterion, rtol=1e-12)
    assert_allclose(f.se, glm.se, rtol=1e-6)


def test_zero_start_does_not_hold_the_fit():
    """theta = 0 is always stationary; where it is no minimum the fit leaves it."""
    f = mm.glmer(CBPP, cbpp(), start=[1e-6], family="binomial")
    assert_allclose(f.theta.iloc[0], 0.64226, atol=2e-5)


def test_a_random_effect_per_row():
    f = mm.glmer("TICKS ~ YEAR + (1 | INDEX)", mm.load_dataset("grouseticks"), family="poisson")
    assert f.ngroups == {"INDEX": 403}
    assert f.converged


def test_no_fixed_effects():
    f = mm.glmer("cbind(incidence, size - incidence) ~ 0 + (1 | herd)", cbpp(), family="binomial")
    assert f.design.p == 0 and len(f.se) == 0
    g = mm.glmer("cbind(incidence, size - incidence) ~ 0 + (1 | herd)", cbpp(), nagq=0, family="binomial")
    assert_allclose(f.criterion, g.criterion, rtol=1e-9)


def test_gaussian_identity_calls_lmer():
    data = mm.load_dataset("sleepstudy")
    with pytest.warns(mm.MixedModelWarning, match="lmer is called"):
        f = mm.glmer("Reaction ~ Days + (1 | Subject)", data, family="gaussian")
    assert_allclose(f.criterion, mm.lmer("Reaction ~ Days + (1 | Subject)", data).criterion)


@pytest.mark.parametrize(
    ("formula", "options", "error", "words"),
    [
        (CBPP, {"nagq": 101}, mm.UnsupportedError, "between 1"),
        (CBPP.replace("(1 |", "(size |"), {"nagq": 3}, mm.UnsupportedError, "herd \\(2 effects\\)"),
        ("incidence ~ 1 + (1 | herd)", {"family": "quasipoisson"}, mm.UnsupportedError, "no likelihood"),
        ("size ~ 1 + (1 | herd)", {"family": "Gamma", "nagq": 5, "criterion": "lme4"}, mm.UnsupportedError, "has none"),
        ("size ~ 1 + (1 | herd)", {"family": "Gamma", "criterion": "glmmTMB"}, mm.UnsupportedError, "is not one of"),
        ("incidence ~ period", {"family": "poisson"}, mm.UnsupportedError, "use mm.glm"),
        ("cbind(size, 0 * size) ~ 1 + (1 | herd)", {}, mm.DesignError, "constant"),
        (CBPP, {"nagq": -1}, mm.UnsupportedError, "nagq"),
        (CBPP, {"start": [1.0, 2.0]}, mm.DataError, "theta needs 1"),
        (CBPP, {"start": {"beta": [1.0]}}, mm.DataError, "beta needs 4"),
        (CBPP, {"start": {"sigma": 1.0}}, mm.DataError, "unknown entries sigma"),
        ("I(incidence - 3) ~ 1 + (1 | herd)", {"family": "poisson"}, mm.DataError, "negative"),
    ],
)  # fmt: skip
def test_refusals(formula, options, error, words):
    options = {"family": "binomial", **options}
    with pytest.raises(error, match=words):
        mm.glmer(formula, cbpp(), **options)


def test_fit_at_needs_beta():
    with pytest.raises(mm.DataError, match="beta must be given"):
        mm.fit_at(CBPP, cbpp(), [0.5], family="binomial")
    with pytest.raises(mm.UnsupportedError, match="leave beta out"):
        mm.fit_at("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"), [1.0], beta=[1.0, 2.0])


def test_counts_that_are_not_whole():
    data = cbpp()
    data["y"] = data["incidence"] + 0.5
    with pytest.warns(mm.MixedModelWarning, match="not whole"):
        f = mm.glmer("y ~ period + (1 | herd)", data, family="poisson")
    with pytest.warns(mm.MixedModelWarning, match="undefined"):
        assert np.isnan(f.loglik)
    assert np.isfinite(f.beta).all()


def test_separation_in_a_mixed_model_is_named():
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 8), "x": np.tile([0.0, 1.0], 40)})
    by_group = rng.random(80) < np.where(data["g"] % 2, 0.9, 0.1)
    data["y"] = np.where(data["x"] == 1, 1, by_group.astype(int))
    with pytest.warns(mm.SeparationWarning, match="run off to infinity"):
        mm.glmer("y ~ x + (1 | g)", data, family="binomial")


# --- the working model ------------------------------------------------------------------------------------


def dense_hat(f):
    """Hat matrix of the working model from dense matrices: [X Z] [X'WX X'WZ; Z'WX Z'WZ + Sigma^-1]^-1 [X
    Z]'W.
    """
    from tests.oracles import dense_Z

    W = f.solution.at.W
    X, Z = f.design.X, np.hstack([dense_Z(t) for t in f.design.terms])
    prior = [
        np.kron(np.eye(len(t.levels)), np.linalg.inv(L @ L.T))
        for t, L in zip(f.design.terms, f.Lambda, strict=True)
    ]
    M = np.hstack([X, Z])
    P = np.zeros((M.shape[1],) * 2)
    at = X.shape[1]
    for block in prior:
        P[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return M @ np.linalg.solve(M.T @ (W[:, None] * M) + P, M.T * W)


@pytest.mark.parametrize(
    "formula", [CBPP, "cbind(incidence, size - incidence) ~ period + (1 | herd) + (1 | period)"]
)
def test_leverage_and_plugin_cooks_distance_of_the_working_model(formula):
    f = (
        mm.glmer(formula, cbpp(), start=None, family="binomial")
        if "period)" not in formula
        else mm.fit_at(formula, cbpp(), [0.6, 0.3], beta=[-1.4, -1.0, -1.1, -1.5], family="binomial")
    )
    h = np.diag(dense_hat(f))
    assert_allclose(mm.hatvalues(f), h, rtol=1e-9)
    assert f.design.p < h.sum() < f.design.p + f.design.q
    pearson = f.resid("pearson").to_numpy()
    want = (pearson / (1 - h)) ** 2 * h / f.design.p
    assert_allclose(mm.cooks_distance(f, kind="plugin"), want, rtol=1e-8)


def test_V_of_the_working_model(cbpp_fit):
    from tests.oracles import dense_Z

    f = cbpp_fit
    Z, W = dense_Z(f.design.terms[0]), f.solution.at.W
    V = np.diag(1 / W) + f.theta.iloc[0] ** 2 * Z @ Z.T
    assert_allclose(f.diag_Vinv(), np.diag(np.linalg.inv(V)), rtol=1e-9)
    B = np.random.default_rng(0).normal(size=(56, 3))
    assert_allclose(f.solve_V(B), np.linalg.solve(V, B), rtol=1e-8)
    assert_allclose(f.vcov_rx, np.linalg.inv(f.design.X.T @ np.linalg.solve(V, f.design.X)), rtol=1e-8)
    assert_allclose(f.working.condvar["herd"], f.condvar["herd"], rtol=1e-9)


def test_a_fit_copies_and_refits(cbpp_fit):
    for other in (pickle.loads(pickle.dumps(cbpp_fit)), copy.deepcopy(cbpp_fit)):
        assert other.summary() == cbpp_fit.summary()
        assert_allclose(other.vcov, cbpp_fit.vcov, rtol=1e-10)
    again = cbpp_fit.refit(cbpp_fit.design.y)
    assert_allclose(again.criterion, cbpp_fit.criterion, rtol=1e-10)


def test_summary_has_the_layout_of_lme4(cbpp_fit):
    text = cbpp_fit.summary()
    for piece in (
        "Generalized linear mixed model fit by maximum likelihood (Laplace approximation)",
        "Family: binomial (logit)", "194.1", "Scaled residuals", "herd", "0.6423",
        "Number of obs: 56, groups:  herd, 15",
        "z value", "Correlation of Fixed Effects",
    ):  # fmt: skip
        assert piece in text
    assert "Residual " not in text


def test_latent_correlations_and_design_effects(cbpp_fit):
    """Residual variance on the scale of the linear predictor, by family (Nakagawa, Johnson & Schielzeth 2017)."""
    variance = cbpp_fit.varcorr["herd"].cov[0, 0]
    for link, residual in (("logit", np.pi**2 / 3), ("probit", 1.0), ("cloglog", np.pi**2 / 6)):
        f = mm.glmer(CBPP, cbpp(), link=link, family="binomial")
        v = f.varcorr["herd"].cov[0, 0]
        assert_allclose(mm.icc(f).adjusted["herd"], v / (v + residual), rtol=1e-12)
    effect = mm.design_effect(cbpp_fit).loc["herd"]
    share = variance / (variance + np.pi**2 / 3)
    assert_allclose(effect, [56 / 15, share, 1 + (56 / 15 - 1) * share, (1 + (56 / 15 - 1) * share) ** 0.5])
    data = simulated()
    counts = mm.glmer("yp ~ 1 + (1 | g)", data, family="poisson")
    v, m = counts.varcorr["g"].cov[0, 0], np.exp(counts.beta[0] + 0.5 * counts.varcorr["g"].cov[0, 0])
    for distribution, residual in (("lognormal", np.log(1 + 1 / m)), ("delta", 1 / m), ("unit", 1.0)):
        assert_allclose(
            mm.icc(counts, distribution=distribution).adjusted["g"], v / (v + residual), rtol=1e-12
        )
    gamma = mm.glmer("yg ~ 1 + (1 | g)", data, family="Gamma", link="log")
    v = gamma.varcorr["g"].cov[0, 0]
    assert_allclose(mm.icc(gamma, distribution="delta").adjusted["g"], v / (v + gamma.dispersion), rtol=1e-12)
    with pytest.raises(mm.UnsupportedError, match="'lognormal', 'delta'"):
        mm.icc(gamma, distribution="probit")
    with pytest.raises(mm.UnsupportedError, match="Gamma with link inverse"):
        mm.icc(mm.glmer("yg ~ 1 + (1 | g)", data, family="Gamma"))
