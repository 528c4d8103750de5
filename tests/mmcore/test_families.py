"""Families and links: every derivative against differences, extreme arguments, likelihoods against SciPy."""

import numpy as np
import pytest
import scipy.stats as st
from flint import arb
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.families.continuous import Gamma, InverseGaussian
from mmcore.families.counts import Binomial, NegativeBinomial, Poisson
from mmcore.families.links import LINKS
from mmcore.families.names import family_named
from parity.exact.balls import precision

N = 60
COMBINATIONS = [
    (kind, link)
    for kind in ("gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "negative.binomial", "quasi",
                 "quasibinomial", "quasipoisson")
    for link in family_named(kind).links
]  # fmt: skip


def response(kind, rng):
    if "binomial" in kind and not kind.startswith("negative"):
        w = rng.integers(1, 6, N).astype(float)
        return rng.binomial(w.astype(int), 0.4) / w, w
    w = rng.uniform(0.5, 2.0, N)
    if kind in ("poisson", "quasipoisson", "negative.binomial"):
        return rng.poisson(3.0, N).astype(float), w
    return rng.gamma(3.0, 0.5, N) + 0.1, w


def bound(kind, link, seed=0):
    """A family at a response, and a linear predictor well inside its domain."""
    rng = np.random.default_rng(seed)
    family = family_named(kind, link, **({"theta": 1.7} if kind == "negative.binomial" else {}))
    y, w = response(kind, rng)
    top = 0.9 if family.link.bounded or ("binomial" in kind and not kind.startswith("neg")) else 4.0
    mu = rng.uniform(0.1 if top < 1 else 0.5, top, N)
    return family, family.bind(y, w), family.link.eta(mu), mu


@pytest.mark.parametrize("name", list(LINKS))
def test_links_invert_and_their_slopes_are_derivatives(name):
    link = LINKS[name]
    mu = np.linspace(0.02, 0.98, 40)
    eta = link.eta(mu)
    assert_allclose(link.mu(eta), mu, rtol=1e-14)
    assert_allclose(link.complement(eta), 1 - mu, rtol=1e-13)
    h = 1e-6 * np.maximum(np.abs(eta), 0.05)
    m1, m2 = link.slopes(eta, mu)
    assert_allclose(m1, (link.mu(eta + h) - link.mu(eta - h)) / (2 * h), rtol=1e-8)
    up, down = link.slopes(eta + h, link.mu(eta + h))[0], link.slopes(eta - h, link.mu(eta - h))[0]
    assert_allclose(m2, (up - down) / (2 * h), rtol=1e-7, atol=1e-7 * np.abs(m2).max())


@pytest.mark.parametrize(("kind", "link"), COMBINATIONS)
def test_score_weights_and_curvature_are_derivatives_of_the_deviance(kind, link):
    family, conditional, eta, _ = bound(kind, link)
    at = conditional.at(eta)
    dW, H = conditional.curvature(at)
    terms, scores = conditional.terms(eta)
    assert_allclose(terms.sum(), at.D, rtol=1e-12)
    assert_allclose(scores, at.s, rtol=1e-12, atol=1e-13)
    h = 1e-5 * np.maximum(np.abs(eta), 0.01)
    up, down = conditional.at(eta + h), conditional.at(eta - h)
    slope = (conditional.terms(eta + h)[0] - conditional.terms(eta - h)[0]) / (2 * h)
    assert_allclose(at.s, -0.5 * slope, rtol=1e-6, atol=1e-7 * np.abs(at.s).max())
    assert_allclose(H, -(up.s - down.s) / (2 * h), rtol=1e-6, atol=1e-7 * np.abs(H).max())
    assert_allclose(dW, (up.W - down.W) / (2 * h), rtol=1e-6, atol=1e-7 * np.abs(at.W).max())
    expected = conditional.w * family.link.slopes(eta, at.mu)[0] ** 2
    assert_allclose(at.W, expected / family.variance(at.mu), rtol=1e-12)
    if family.is_canonical:
        assert_allclose(H, at.W, rtol=1e-12)


@pytest.mark.parametrize(("kind", "link"), COMBINATIONS)
def test_deviance_is_zero_at_the_data_and_positive_elsewhere(kind, link):
    family, conditional, eta, _ = bound(kind, link)
    assert (conditional.deviance_terms(conditional.at(eta)) >= 0).all()
    y = np.where(conditional.y == 0, 0.25, np.where(conditional.y == 1, 0.75, conditional.y))
    same = family.bind(y, conditional.w)
    at = same.at(family.link.eta(y)) if not (family.link.bounded and (y >= 1).any()) else None
    if at is not None and np.isfinite(at.D):
        assert_allclose(at.D, 0.0, atol=1e-12)


EXACT_DEVIANCE = {
    "poisson": lambda y, m: 2 * (y * (y / m).log() - (y - m)),
    "binomial": lambda y, m: 2 * (y * (y / m).log() + (1 - y) * ((1 - y) / (1 - m)).log()),
    "Gamma": lambda y, m: 2 * ((y - m) / m - (y / m).log()),
    "inverse.gaussian": lambda y, m: (y - m) ** 2 / (y * m * m),
    "negative.binomial": lambda y, m: (
        2 * (y * (y / m).log() - (y + arb(1.5)) * ((y + arb(1.5)) / (m + arb(1.5))).log())
    ),
}


@pytest.mark.parametrize("kind", list(EXACT_DEVIANCE))
def test_deviance_has_all_digits_however_close_the_mean_is_to_y(kind):
    """Against 60-digit arithmetic; as a difference of logarithms its root would lose half of them."""
    family = family_named(kind, **({"theta": 1.5} if kind == "negative.binomial" else {}))
    change = np.concatenate(
        [[s * 10.0**-k for k in range(1, 13) for s in (1, -1)], [0.2499, 0.2501, -0.7, 0.9]]
    )
    for y in (0.0625, 0.4375) if kind == "binomial" else (0.0625, 3.0, 700.0):
        mu = y * (1.0 + change)
        got = family.unit_deviance(np.full(len(mu), y), mu)
        with precision(200):
            exact = [float(EXACT_DEVIANCE[kind](arb(y), arb(m))) for m in mu]
        assert_allclose(got, exact, rtol=1e-12 if kind == "negative.binomial" else 4e-14)


def test_deviance_where_nothing_was_counted():
    mu, none = np.array([0.3]), np.zeros(1)
    assert_allclose(family_named("poisson").unit_deviance(none, mu), 0.6, rtol=1e-15)
    assert_allclose(family_named("binomial").unit_deviance(none, mu), -2 * np.log(0.7), rtol=1e-15)
    negative = family_named("negative.binomial", theta=1.5)
    assert_allclose(negative.unit_deviance(none, mu), 3 * np.log(1.2), rtol=1e-15)


@pytest.mark.parametrize(
    ("family", "logpdf"),
    [
        (Poisson(LINKS["log"]), lambda y, mu, phi: st.poisson.logpmf(y, mu)),
        (NegativeBinomial(LINKS["log"], 1.7), lambda y, mu, phi: st.nbinom.logpmf(y, 1.7, 1.7 / (1.7 + mu))),
        (Gamma(LINKS["log"]), lambda y, mu, phi: st.gamma.logpdf(y, 1 / phi, scale=mu * phi)),
        (
            InverseGaussian(LINKS["log"]),
            lambda y, mu, phi: 0.5 * (-np.log(2 * np.pi * phi * y**3) - (y - mu) ** 2 / (phi * mu**2 * y)),
        ),
    ],
    ids=lambda f: getattr(f, "name", ""),
)
def test_likelihood_with_its_constants(family, logpdf):
    rng = np.random.default_rng(3)
    y = rng.poisson(3, N).astype(float) if family.dispersion_known else rng.gamma(3, 1, N)
    mu = rng.uniform(1, 5, N)
    conditional = family.bind(y)
    at = conditional.at(family.link.eta(mu))
    phi = at.D / N
    assert_allclose(conditional.minus2loglik(at), -2 * logpdf(y, mu, phi).sum(), rtol=1e-12)


def test_binomial_likelihood_counts_trials_once():
    w = np.array([3.0, 8.0, 1.0, 0.0])
    y = np.array([1 / 3, 0.5, 1.0, 0.0])
    mu = np.array([0.2, 0.4, 0.9, 0.5])
    family = Binomial(LINKS["probit"])
    conditional = family.bind(y, w)
    want = -2 * st.binom.logpmf([1, 4, 1, 0], [3, 8, 1, 0], mu).sum()
    assert_allclose(conditional.minus2loglik(conditional.at(family.link.eta(mu))), want, rtol=1e-12)
    twice = family.bind(y, 2 * w, trials=w)  # prior weight two on every row of counts
    at = twice.at(family.link.eta(mu))
    assert_allclose(twice.minus2loglik(at), 2 * want, rtol=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "Gamma", "inverse.gaussian"])
def test_likelihood_as_a_function_of_the_deviance(kind):
    family = family_named(kind)
    w = np.random.default_rng(2).uniform(0.5, 2, N)
    D, h = 7.3, 1e-5
    slope = (family.of_deviance(D + h, w)[0] - family.of_deviance(D - h, w)[0]) / (2 * h)
    assert_allclose(family.of_deviance(D, w)[1], slope, rtol=1e-7)


@pytest.mark.parametrize("link", Binomial.links[:4])
def test_extreme_predictors_stay_finite_and_right(link):
    """Tails where 1 - mu rounds to zero: logarithms and scores come from the complement itself."""
    family = family_named("binomial", link)
    eta = np.array([-700.0, -30.0, -8.0, 5.0, 30.0, 700.0])
    for y in (0.0, 1.0):
        at = family.bind(np.full(6, y)).at(eta)
        for values in (at.mu, at.s, at.W):
            assert np.isfinite(values).all()
        assert np.isfinite(at.D)
    if link == "probit":
        at = family.bind(np.ones(1)).at(np.array([-10.0]))
        assert_allclose(at.D, -2 * st.norm.logcdf(-10.0), rtol=1e-12)
        assert_allclose(at.s, np.exp(st.norm.logpdf(-10.0) - st.norm.logcdf(-10.0)), rtol=1e-12)


def test_overflow_counts_as_outside_the_domain():
    with np.errstate(over="ignore"):
        at = family_named("poisson").bind(np.ones(2)).at(np.array([0.0, 800.0]))
    assert np.inf == at.D


def test_small_gamma_shape():
    """Shape 0.1: the likelihood of R's Gamma()$aic, whose dispersion is deviance / n, not 1 / shape."""
    rng = np.random.default_rng(5)
    y = np.maximum(rng.gamma(0.1, 10.0, 200), 1e-280)
    conditional = family_named("Gamma", "log").bind(y)
    at = conditional.at(np.zeros(200))
    phi = at.D / 200
    assert_allclose(
        conditional.minus2loglik(at), -2 * st.gamma.logpdf(y, 1 / phi, scale=phi).sum(), rtol=1e-10
    )


@pytest.mark.parametrize(
    ("family", "y", "words"),
    [
        ("binomial", [0.5, 1.5], "between 0 and 1"),
        ("poisson", [1.0, -1.0], "negative"),
        ("Gamma", [1.0, 0.0], "positive"),
        ("inverse.gaussian", [1.0, 0.0], "positive"),
        ("negative.binomial", [1.0, -2.0], "negative"),
    ],
)
def test_responses_outside_the_domain_are_refused(family, y, words):
    with pytest.raises(mm.DataError, match=words) as error:
        family_named(family).check(np.array(y), "y")
    assert "row 2" in str(error.value)


def test_names_and_aliases():
    assert family_named("gamma").name == "Gamma"
    assert family_named("negbin", theta=2.0).label() == "Negative Binomial(2) (log)"
    assert family_named("binomial", "cloglog").label() == "binomial (cloglog)"
    with pytest.raises(mm.UnsupportedError, match=r"'inverse.gaussian'"):
        family_named("weibull")
    with pytest.raises(mm.UnsupportedError, match="no link 'sqrt'"):
        family_named("Gamma", "sqrt")
    with pytest.raises(mm.UnsupportedError, match="'1/mu\\^2'"):
        family_named("quasi", "loglog")


def test_size_derivatives_of_the_negative_binomial():
    rng = np.random.default_rng(1)
    y, w, eta = rng.poisson(4, N).astype(float), rng.uniform(0.5, 2, N), rng.normal(1, 0.4, N)
    h = 1e-5

    def at(log_size):
        conditional = family_named("negative.binomial", theta=float(np.exp(log_size))).bind(y, w)
        point = conditional.at(eta)
        return conditional.minus2loglik(point), point.W, point.s, conditional, point

    up, down, here = at(0.4 + h), at(0.4 - h), at(0.4)
    slopes = here[3].family.size_slopes(y, w, here[4])
    for k in range(3):
        assert_allclose(slopes[k], (up[k] - down[k]) / (2 * h), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "kind", ["gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "negative.binomial"]
)
def test_simulated_moments(kind):
    family = family_named(kind, **({"theta": 2.0} if kind == "negative.binomial" else {}))
    rng = np.random.default_rng(11)
    mu = np.full(200_000, 0.3 if kind == "binomial" else 2.0)
    w = np.full(200_000, 5.0 if kind in ("binomial", "Gamma") else 1.0)
    phi = 1.0 if family.dispersion_known else 0.4
    y = family.simulate(mu, w, phi, rng)
    variance = phi * family.variance(mu[:1])[0] / w[0]
    assert_allclose(y.mean(), mu[0], atol=5 * np.sqrt(variance / len(mu)))
    assert_allclose(y.var(), variance, rtol=0.03)
