"""Modes, Laplace and quadrature: dense oracles, numerical integration, gradients against differences.

Every family x link x structure is differentiated; the dense oracle minimises the joint density itself.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import minimize

import mmcore.kernels.weighted.crossed as weighted
from mmcore.errors import FitError, UnsupportedError
from mmcore.families.names import family_named
from mmcore.glmm.agq import AdaptiveGaussHermite, nodes_and_weights
from mmcore.glmm.laplace import JointLaplace
from mmcore.kernels.weighted.choose import system_for
from mmcore.optimize.quasinewton import hessian_by_differences
from tests.glmm_problems import (
    FAMILIES,
    ONE,
    SHAPES,
    X1,
    X2,
    G,
    N,
    block,
    dense_Sigma,
    dense_Z,
    differences,
    problem,
)  # fmt: skip


@pytest.mark.parametrize("columns", [(ONE, X1), (ONE, X1, X2)], ids=["two", "three"])
def test_weights_that_make_a_level_exactly_singular_are_refused_as_ours(columns):
    """I + Z'WZ Sigma = 0: a search turns back from there, and no error of NumPy comes through."""
    system, Sigma = system_for([block("g", 0, G, 12, *columns)]), np.eye(len(columns))
    system._gram = lambda j, w: np.repeat(-np.eye(len(columns))[:, :, None], 12, axis=2)
    with pytest.raises(FitError, match="not positive definite"), np.errstate(all="ignore"):
        system.at(np.ones(N), [Sigma])


def flat(parts):
    """Per block (r, K, L) -> (q, r), level-major."""
    return np.vstack([np.asarray(p).transpose(2, 1, 0).reshape(-1, len(p)) for p in parts])


# --- systems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_weighted_factors_equal_dense_algebra(shape, sparse, singular, monkeypatch):
    if sparse:
        monkeypatch.setattr(weighted, "DENSE_CELLS", 0)
    kind, blocks = SHAPES[shape]
    rng = np.random.default_rng(2)
    Sigma = []
    for b in blocks:
        L = np.tril(rng.normal(size=(b.K, b.K)))
        L[-1, -1] *= 0.0 if singular else 1.0
        Sigma.append(L @ L.T)
    system, w = system_for(blocks), rng.uniform(0.2, 2.0, N)
    assert type(system) is kind
    factor = system.at(w, Sigma)
    Z, S = dense_Z(blocks), dense_Sigma(blocks, Sigma)
    A = Z.T @ (w[:, None] * Z)
    T_inv = np.linalg.inv(np.eye(len(A)) + A @ S)
    inverse = S @ T_inv
    assert_allclose(factor.logdet, np.linalg.slogdet(np.eye(len(A)) + A @ S)[1], rtol=1e-12, atol=1e-12)
    g = [rng.normal(size=(2, b.K, b.L)) for b in blocks]
    white, solved = factor.solve(g)
    assert_allclose(flat(white), T_inv @ flat(g), atol=1e-11)
    assert_allclose(flat(solved), inverse @ flat(g), atol=1e-12)
    assert_allclose(factor.leverage(), np.einsum("ij,jk,ik->i", Z, inverse, Z), atol=1e-12)
    inner, at = A - A @ inverse @ A, 0
    for b, trace, part, level in zip(
        blocks, factor.trace(), factor.information(), factor.levels(), strict=True
    ):
        pieces = [slice(at + i * b.K, at + (i + 1) * b.K) for i in range(b.L)]
        assert_allclose(trace, sum(inner[s, s] for s in pieces), atol=1e-10)
        assert_allclose(part, np.stack([inner[s, s] for s in pieces], axis=2), atol=1e-10)
        assert_allclose(level, np.stack([inverse[s, s] for s in pieces], axis=2), atol=1e-12)
        at += b.L * b.K
    assert_allclose(flat(system.cross(np.vstack([X1, X2]))), Z.T @ np.column_stack([X1, X2]), atol=1e-12)
    assert_allclose(system.times([x[:1] for x in g]), Z @ flat(g)[:, 0], atol=1e-12)


# --- objectives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize(("kind", "link"), FAMILIES)
def test_laplace_gradient_equals_differences(kind, link, shape):
    objective, gamma, par, scale = problem(kind, link, shape)
    x = np.concatenate([gamma, par])
    point = objective.at(x, 1e-26)
    objective.keep(point)
    gradient = objective.gradient(point)
    assert_allclose(gradient, differences(objective, x, scale), rtol=1e-7, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("shape", ["intercept", "vector", "nested", "crossed vector"])
@pytest.mark.parametrize(("kind", "link"), FAMILIES)
def test_joint_mode_gradient_equals_differences(kind, link, shape):
    objective, gamma, par, scale = problem(kind, link, shape, JointLaplace)
    objective.start_at(gamma)
    point = objective.at(par, 1e-26)
    objective.keep(point)
    gradient = objective.gradient(point)
    assert_allclose(
        gradient, differences(objective, par, scale), rtol=1e-6, atol=1e-7 * np.abs(gradient).max()
    )


@pytest.mark.parametrize("shape", ["intercept", "scalar slope"])
@pytest.mark.parametrize(("kind", "link"), [f for f in FAMILIES if family_named(f[0]).dispersion_known])
def test_quadrature_gradient_equals_differences(kind, link, shape):
    objective, gamma, par, scale = problem(kind, link, shape, AdaptiveGaussHermite, n_nodes=7)
    x = np.concatenate([gamma, par])
    point = objective.at(x, 1e-26)
    objective.keep(point)
    gradient = objective.gradient(point)
    assert_allclose(gradient, differences(objective, x, scale), rtol=1e-7, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("kind", ["poisson", "Gamma"])
@pytest.mark.parametrize("shape", ["vector", "three", "nested vector", "crossed vector"])
def test_gradient_where_a_variance_is_zero(kind, shape):
    """On the boundary: one scale of every block zero, the other parameters not."""
    objective, gamma, par, scale = problem(kind, "log", shape)
    par = par.copy()
    par[objective.covariance.scale_index()[-1]] = 0.0
    x = np.concatenate([gamma, par])
    point = objective.at(x, 1e-26)
    objective.keep(point)
    gradient = objective.gradient(point)
    assert_allclose(gradient, differences(objective, x, scale), rtol=1e-7, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("shape", ["vector", "nested", "crossed"])
@pytest.mark.parametrize(("kind", "link"), [("binomial", "probit"), ("poisson", "log"), ("Gamma", "log")])
def test_objective_equals_its_dense_definition(kind, link, shape):
    """Modes by minimising the joint density itself, curvature from dense matrices."""
    objective, gamma, par, _ = problem(kind, link, shape)
    x = np.concatenate([gamma, par])
    point = objective.at(x, 1e-26)
    blocks, conditional = SHAPES[shape][1], objective.family
    Z = dense_Z(blocks)
    Lambda = np.linalg.cholesky(dense_Sigma(blocks, objective.covariance.sigma(par)))
    fixed = objective.predictor(x)

    def joint(u):
        at = conditional.at(fixed + Z @ (Lambda @ u))
        return at.D + u @ u, 2 * u - 2 * Lambda.T @ (Z.T @ at.s)

    u = minimize(joint, np.zeros(Z.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-10}).x
    at = conditional.at(fixed + Z @ (Lambda @ u))
    M = np.eye(len(u)) + Lambda.T @ Z.T @ (at.W[:, None] * Z) @ Lambda
    h = conditional.family.of_deviance(at.D, conditional.w)[0]
    assert_allclose(point.f, h + u @ u + np.linalg.slogdet(M)[1], rtol=1e-8)  # BFGS finds u to about 1e-8
    assert_allclose(flat(point.modes.b)[:, 0], Lambda @ u, atol=1e-6)


def test_working_hessian_is_close_enough_to_start_from():
    objective, gamma, par, _ = problem("poisson", "log", "vector")
    point = objective.at(np.concatenate([gamma, par]))
    objective.keep(point)
    H = hessian_by_differences(objective, point)
    x, m = point.x, len(point.x)
    for i in range(m):
        e = 1e-5 * np.eye(m)[i]
        up, down = (objective.gradient(objective.at(x + s * e, 1e-26)) for s in (1, -1))
        assert_allclose(H[i], (up - down) / 2e-5, rtol=1e-5, atol=1e-6 * np.abs(H).max())
    B = objective.expected_hessian(point)
    p = objective.p
    assert_allclose(B[:p, :p], H[:p, :p], rtol=0.05, atol=0.05 * np.abs(H[:p, :p]).max())


@pytest.mark.parametrize(
    ("kind", "link"), [("binomial", "logit"), ("binomial", "cloglog"), ("poisson", "log")]
)
def test_quadrature_converges_to_the_integral(kind, link):
    """One factor: every level's integral by adaptive numerical integration."""
    few, gamma, par, _ = problem(kind, link, "intercept", AdaptiveGaussHermite, n_nodes=5)
    many = problem(kind, link, "intercept", AdaptiveGaussHermite, n_nodes=40)[0]
    x = np.concatenate([gamma, 3.0 * par])
    fixed, theta = few.predictor(x), float(x[-1])
    total = 0.0
    for level in range(12):
        rows = np.flatnonzero(level == G)
        part = few.family.family.bind(few.family.y[rows], few.family.w[rows])

        def density(u, part=part, rows=rows):
            return np.exp(-0.5 * (part.terms((fixed[rows] + theta * u)[None])[0].sum() + u * u))

        total -= 2 * np.log(quad(density, -12, 12, epsabs=0, epsrel=1e-12, limit=400)[0] / np.sqrt(2 * np.pi))
    assert_allclose(many.at(x).f, total, rtol=1e-11)
    assert abs(few.at(x).f - total) < 1e-2 * abs(total)


def test_one_node_is_the_laplace_approximation():
    laplace, gamma, par, _ = problem("binomial", "probit", "scalar slope")
    one = problem("binomial", "probit", "scalar slope", AdaptiveGaussHermite, n_nodes=1)[0]
    x = np.concatenate([gamma, par])
    assert_allclose(one.at(x).f, laplace.at(x).f, rtol=1e-12)


def test_nodes_are_those_of_the_normal_density():
    for k in (1, 2, 9, 100):
        z, log_w = nodes_and_weights(k)
        weight = np.exp(log_w - 0.5 * z * z)
        assert_allclose(weight.sum(), 1.0, rtol=1e-12)
        assert_allclose(z, -z[::-1], atol=0)
        if k > 1:
            assert_allclose(weight @ z**2, 1.0, rtol=1e-11)
    with pytest.raises(UnsupportedError, match="between 1"):
        nodes_and_weights(101)


def test_a_guess_of_the_modes_that_is_far_off_is_dropped():
    """Means of e^60 take sixty steps and their rounding stays; means of e^200 never come back."""
    from mmcore.errors import FitError
    from mmcore.glmm.pirls import find_modes

    objective, gamma, par, _ = problem("poisson", "log", "intercept")
    x = np.concatenate([gamma, par])
    Sigma = objective.covariance.sigma(par)
    args = (objective.system, objective.family, objective.predictor(x), Sigma)
    good = find_modes(*args, None, 1e-24)
    far = [np.full((1, 1, 12), 200.0 / Sigma[0][0, 0])]
    with np.errstate(all="ignore"), pytest.raises(FitError, match="not found in 200 iterations"):
        find_modes(*args, far, 1e-24)
    mended = find_modes(*args, far, 1e-24, most=3.0 * (1.0 + good.at.D + good.penalty))
    assert mended.iterations == good.iterations
    assert_allclose(mended.b[0], good.b[0], rtol=1e-14)


def test_start_outside_the_domain_is_mended_or_refused():
    from mmcore.errors import FitError
    from mmcore.glmm.pirls import find_modes

    objective, gamma, par, _ = problem("poisson", "identity", "intercept")
    x = np.concatenate([gamma, par])
    Sigma = objective.covariance.sigma(par)
    far = [np.full((1, 1, 12), -1e6)]
    good = find_modes(objective.system, objective.family, objective.predictor(x), Sigma, None, 1e-24)
    mended = find_modes(objective.system, objective.family, objective.predictor(x), Sigma, far, 1e-24)
    assert_allclose(mended.b[0], good.b[0], atol=1e-12)
    with pytest.raises(FitError, match="outside the domain"):
        find_modes(objective.system, objective.family, -objective.predictor(x), Sigma)
