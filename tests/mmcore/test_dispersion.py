"""The dispersion as a parameter: its density, the joint criterion, gradients, integrals by brute force."""

import numpy as np
import pytest
import scipy.stats as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

from mmcore.families.dispersion import Dispersion
from mmcore.families.names import family_named
from mmcore.glmm.agq import AdaptiveGaussHermite
from mmcore.glmm.laplace import JointLaplace, Laplace
from mmcore.kernels.products import Block
from mmcore.kernels.weighted.choose import system_for
from tests.glmm_problems import FAMILIES, SHAPES, covariance, dense_Sigma, dense_Z, differences, problem

LOGPDF = {
    "gaussian": lambda y, mu, phi: st.norm.logpdf(y, mu, np.sqrt(phi)),
    "Gamma": lambda y, mu, phi: st.gamma.logpdf(y, 1.0 / phi, scale=mu * phi),
    "inverse.gaussian": lambda y, mu, phi: (
        0.5 * (-np.log(2.0 * np.pi * phi * y**3) - (y - mu) ** 2 / (phi * mu**2 * y))
    ),
}
DISPERSED = [pair for pair in FAMILIES if pair[0] in LOGPDF]
DISPERSIONS = {"gaussian": 0.2, "Gamma": 0.12, "inverse.gaussian": 0.06}


# --- the density ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(LOGPDF))
@pytest.mark.parametrize("phi", [1e-6, 0.01, 0.0499, 0.05, 0.7, 30.0])
def test_density_has_every_constant_and_weights_divide_the_dispersion(kind, phi):
    rng = np.random.default_rng(1)
    w = rng.uniform(0.3, 3.0, 12)
    mu = rng.uniform(1.0, 3.0, 12)
    y = mu * (1.0 + np.sqrt(phi) * 0.3 * rng.uniform(-1.0, 1.0, 12)) if phi < 1 else rng.gamma(2.0, 1.0, 12)
    w[3] = 0.0
    conditional = family_named(kind, "log").bind(y, w)
    dispersion = Dispersion(conditional)
    used = w > 0
    want = -2.0 * LOGPDF[kind](y[used], mu[used], phi / w[used]).sum()
    D = conditional.at(np.log(mu)).D
    assert_allclose(dispersion.minus2loglik(np.log(phi), D), want, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("kind", list(LOGPDF))
@pytest.mark.parametrize("log_phi", [-30.0, -8.0, -3.0, -2.9, 0.0, 3.0])
def test_derivatives_of_the_normalizer(kind, log_phi):
    w = np.array([1.0, 1.0, 0.5, 2.0])
    dispersion = Dispersion(family_named(kind).bind(np.array([1.0, 2.0, 3.0, 4.0]), w))
    h = 1e-4
    low, here, high = (dispersion.normalizer(log_phi + k * h) for k in (-1, 0, 1))
    assert_allclose(here[1], (high[0] - low[0]) / (2 * h), rtol=1e-7)
    # with D at its expectation the second derivative of D / phi + c is the information
    assert_allclose(here[2], here[1] + (high[1] - low[1]) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("kind", list(LOGPDF))
@pytest.mark.parametrize("D", [1e-9, 0.1, 3.0, 40.0, 4e3])
def test_estimate_is_the_maximum_likelihood_dispersion(kind, D):
    dispersion = Dispersion(family_named(kind).bind(np.linspace(1, 2, 20), np.linspace(0.5, 2.0, 20)))
    log_phi = dispersion.estimate(D)
    best = minimize_scalar(
        lambda v: dispersion.minus2loglik(v, D), bounds=(log_phi - 3, log_phi + 3), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert_allclose(log_phi, best.x, atol=1e-6)
    slope = D * np.exp(-log_phi) - dispersion.normalizer(log_phi)[1]
    assert abs(slope) < 1e-11 * 20


@pytest.mark.parametrize(
    ("kind", "link"), [p for p in FAMILIES if p not in (("binomial", "logit"), ("poisson", "log"))]
)
def test_slope_of_the_observed_weights(kind, link):
    family = family_named(kind, link, **({"theta": 1.7} if kind == "negative.binomial" else {}))
    mu = np.array([0.2, 0.5, 0.7]) if kind == "binomial" else np.array([0.5, 1.5, 4.0])
    conditional = family.bind(np.array([0.0, 1.0, 1.0]) if kind == "binomial" else np.array([1.0, 2.0, 3.0]))
    eta, h = family.link.eta(mu), 1e-5
    at = conditional.at(eta)
    up, down = (conditional.curvature(conditional.at(eta + k * h))[1] for k in (1, -1))
    slope = (up - down) / (2 * h)
    assert_allclose(conditional.observed_slope(at), slope, rtol=1e-6, atol=1e-8 + 1e-6 * np.abs(slope).max())


# --- the joint criterion ---------------------------------------------------------------------------------------


def joint(kind, link, shape, cls=Laplace, **options):
    """An objective with the dispersion as a coordinate, and a point."""
    plain, gamma, par, scale = problem(kind, link, shape)
    dispersion = Dispersion(plain.family, np.log(DISPERSIONS[kind]))
    objective = cls(
        plain.family, plain.Q, plain.offset, plain.system, plain.covariance, dispersion=dispersion, **options
    )
    return objective, gamma, np.log(DISPERSIONS[kind]) + 0.1, par, scale


def held_to_differences(objective, x, scale):
    point = objective.at(x, 1e-26)
    objective.keep(point)
    gradient = objective.gradient(point)
    assert_allclose(gradient, differences(objective, x, scale), rtol=1e-6, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize(("kind", "link"), DISPERSED)
def test_gradient_of_the_joint_criterion_equals_differences(kind, link, shape):
    objective, gamma, log_phi, par, scale = joint(kind, link, shape)
    held_to_differences(objective, np.concatenate([gamma, [log_phi], par]), scale)


@pytest.mark.parametrize("shape", ["intercept", "vector", "nested", "crossed vector"])
@pytest.mark.parametrize(("kind", "link"), DISPERSED)
def test_gradient_at_the_joint_mode_equals_differences(kind, link, shape):
    objective, gamma, log_phi, par, scale = joint(kind, link, shape, JointLaplace)
    objective.start_at(gamma)
    held_to_differences(objective, np.concatenate([[log_phi], par]), scale)


@pytest.mark.parametrize("shape", ["intercept", "scalar slope"])
@pytest.mark.parametrize(("kind", "link"), DISPERSED)
def test_gradient_of_the_quadrature_equals_differences(kind, link, shape):
    objective, gamma, log_phi, par, scale = joint(kind, link, shape, AdaptiveGaussHermite, n_nodes=7)
    held_to_differences(objective, np.concatenate([gamma, [log_phi], par]), scale)


@pytest.mark.parametrize("shape", ["intercept", "vector", "nested", "crossed"])
@pytest.mark.parametrize(("kind", "link"), DISPERSED)
def test_joint_criterion_equals_its_dense_definition(kind, link, shape):
    """Modes by Newton's method on the dense -2 log joint density; its Hessian by differences of the gradient."""
    objective, gamma, log_phi, par, _ = joint(kind, link, shape)
    x = np.concatenate([gamma, [log_phi], par])
    point = objective.at(x, 1e-26)
    Z, S = (
        dense_Z(objective.system.blocks),
        dense_Sigma(objective.system.blocks, objective.covariance.sigma(par)),
    )
    fixed, family, w, phi = (
        objective.predictor(x),
        objective.family.family,
        objective.family.w,
        np.exp(log_phi),
    )
    y, S_inv = objective.family.y, np.linalg.inv(S)

    def score(b):
        eta = fixed + Z @ b
        mu = family.link.mu(eta)
        return Z.T @ (w * (y - mu) * family.link.slopes(eta, mu)[0] / family.variance(mu)) / phi - S_inv @ b

    def hessian(b):
        h = 1e-6 * np.sqrt(np.diag(S))
        return np.column_stack([(score(b - e) - score(b + e)) / (2 * np.abs(e).sum()) for e in np.diag(h)])

    b = np.zeros(len(S))
    for _ in range(30):
        b = b + np.linalg.solve(hessian(b), score(b))
    mu = family.link.mu(fixed + Z @ b)
    data = -2.0 * LOGPDF[family.name](y, mu, phi / w).sum()
    want = data + b @ S_inv @ b + np.linalg.slogdet(hessian(b) @ S)[1]
    assert_allclose(point.f + objective.dispersion.reference + objective.dispersion.constant, want, rtol=2e-8)


@pytest.mark.parametrize(("kind", "link"), DISPERSED)
@pytest.mark.parametrize("seed", range(30))
def test_quadrature_equals_the_integral_by_brute_force(kind, link, seed):
    """Small random models with one scalar term: every level's integral on a grid of 4,001 points."""
    rng = np.random.default_rng(seed)
    family = family_named(kind, link)
    L, n = 4, 24
    codes = np.resize(np.arange(L), n)
    level = float(family.link.eta(np.array([2.0]))[0])
    unit = 1.0 if link == "log" else abs(level)
    sd = unit * rng.uniform(0.02, 0.12)
    phi = {"gaussian": 0.1, "Gamma": 0.05, "inverse.gaussian": 0.02}[kind] * rng.uniform(0.2, 2.0)
    w = rng.uniform(0.5, 2.0, n)
    column = np.ones(n) if seed % 2 else rng.uniform(0.5, 1.5, n)
    eta = level + 0.05 * unit * rng.normal(size=n) + column * (sd * rng.normal(size=L))[codes]
    y = family.simulate(family.link.mu(eta), w, phi, rng)
    block = Block("g", (0,), codes, L, np.array([column]))
    Q = np.full((1, n), n**-0.5)
    conditional = family.bind(y, w)
    objective = AdaptiveGaussHermite(
        conditional, Q, 0.0, system_for([block]), covariance([block]), Dispersion(conditional), n_nodes=25
    )
    point = objective.at(np.array([level * n**0.5, np.log(phi), sd]), 1e-26)
    got = point.f + objective.dispersion.reference + objective.dispersion.constant
    total, b = 0.0, np.linspace(-10.0 * sd, 10.0 * sd, 4001)
    low, high = family.domain()
    for i in range(L):
        rows = codes == i
        e = level + column[rows, None] * b
        with np.errstate(all="ignore"):
            f = LOGPDF[kind](y[rows, None], family.link.mu(e), phi / w[rows, None])
        f = np.where((e > low) & (e < high), f, -np.inf).sum(axis=0) + st.norm.logpdf(b, scale=sd)
        total += -2.0 * (np.log(np.trapezoid(np.exp(f - f.max()), b)) + f.max())
    assert_allclose(got, total, atol=1e-6)
