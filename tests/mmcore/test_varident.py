"""A residual standard deviation per group, against the dense likelihood and published Stata output."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import approx_fprime

import mmcore as mm
from mmcore.design.build import build
from mmcore.lmm.varident import _Search, residual_groups
from tests.oracles import dense_criterion

# Stata: mixed mathach c.ses##c.meanses ... || id: female, cov(unstr) mle residuals(independent, by(female))
HSB = "mathach ~ ses*meanses + ses*sector + female*meanses + female*sector + (1 + female | id)"


def data(seed=4, n=150):
    """Three groups whose residual standard deviations are as 1 : 2 : 0.5."""
    rng = np.random.default_rng(seed)
    g, s, x = rng.integers(0, 12, n), rng.integers(0, 3, n), rng.normal(size=n)
    y = 1 + x + rng.normal(size=12)[g] + np.array([1, 2, 0.5])[s] * rng.normal(size=n)
    return pd.DataFrame(
        {"y": y, "x": x, "g": [f"g{i}" for i in g], "s": [f"s{i}" for i in s], "w": rng.uniform(0.5, 2, n)}
    )


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g) + (1 | s)"])
def test_gradient_in_the_log_ratios(formula, reml):
    frame = data()
    design = build(formula, frame, weights="w")
    theta = np.array([0.8, 0.3, 0.5, 0.4])[: 1 if "x |" not in formula else 4]

    def at(weighted, start):
        return mm.fit_design_at(weighted, theta, reml=reml)

    search = _Search(design, residual_groups("varident(s)", frame, design), at, reml)
    delta = np.array([0.4, -0.3])
    assert_allclose(
        search(delta)[1], approx_fprime(delta, lambda d: search(d)[0], 1e-6), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("reml", [True, False])
def test_criterion_is_the_dense_one_and_no_ratio_nearby_is_better(reml):
    frame = data()
    fit = mm.lmer("y ~ x + (1 | g)", frame, reml=reml, weights="w", residual="varident(s)")
    assert fit.residual.levels == ("s0", "s1", "s2")
    ratio = fit.residual.ratio
    assert ratio[0] == 1.0

    def dense(ratio):
        weights = frame.w.to_numpy() / ratio[fit.residual.codes] ** 2
        return dense_criterion(replace(fit.design, weights=weights), [L @ L.T for L in fit.Lambda], reml)

    assert_allclose(fit.criterion, dense(ratio), rtol=1e-12)
    for level in (1, 2):
        for factor in (0.99, 1.01):
            other = ratio.copy()
            other[level] *= factor
            assert dense(other) > fit.criterion


def test_simulated_ratios_are_found():
    fit = mm.lmer("y ~ x + (1 | g)", data(n=3000), residual="varident(s)")
    assert_allclose(fit.residual.ratio, [1, 2, 0.5], rtol=0.08)  # standard error about 2 % each
    sds = fit.residual.to_dict(fit.sigma)
    assert_allclose(sds["s1"], fit.sigma * fit.residual.ratio[1])
    assert fit.df == 2 + 1 + 1 + 2


def test_published_high_school_and_beyond():
    """Stata's mixed, SOCY7708 lecture notes; its optimum is right to about five digits."""
    fit = mm.lmer(HSB, mm.load_dataset("HSB_merged"), reml=False, residual="varident(female)")
    assert fit.loglik == pytest.approx(-23213.302, abs=5e-4)
    assert fit.aic == pytest.approx(46454.6, abs=0.05)
    assert fit.bic == pytest.approx(46550.92, abs=0.005)
    variances = {level: sd**2 for level, sd in fit.residual.to_dict(fit.sigma).items()}
    assert variances == pytest.approx({"0": 38.572, "1": 34.43275}, rel=3e-6)
    id_ = fit.varcorr["id"]
    assert id_.cov[0, 0] == pytest.approx(2.79032, rel=3e-5)
    assert id_.cov[1, 1] == pytest.approx(0.9168451, rel=5e-4)
    assert id_.cov[0, 1] == pytest.approx(-0.9889858, rel=2e-4)
    published = {
        "ses": (2.869241, 0.1473036), "meanses": (3.193401, 0.4964206), "ses:meanses": (0.8249061, 0.2676124),
        "sector": (1.175409, 0.398656), "ses:sector": (-1.556612, 0.2219166), "female": (-1.219793, 0.2381591),
        "(Intercept)": (12.71989, 0.2440476),
    }  # fmt: skip
    for name, (estimate, se) in published.items():
        assert fit.fixef[name] == pytest.approx(estimate, rel=5e-6)
        assert fit.se[name] == pytest.approx(se, rel=5e-5)
    plain = mm.lmer(HSB, mm.load_dataset("HSB_merged"), reml=False)
    assert plain.criterion - fit.criterion == pytest.approx(11.10, abs=0.01)


def test_residuals_are_standardised_by_their_own_spread():
    frame = data()
    fit = mm.lmer("y ~ x + (1 | g)", frame, residual="varident(s)")
    sd = np.array([fit.residual.to_dict(fit.sigma)[s] for s in frame.s])
    assert_allclose(fit.resid("pearson", scaled=True), fit.resid() / sd, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("varident(nowhere)", mm.DataError, "no column 'nowhere'"),
        ("varident(one)", mm.DataError, "single level"),
        ("varident(gap)", mm.DataError, "missing in 1 of the rows"),
        ("varident(s", mm.FormulaError, "varident\\(g\\)"),
        ("varident(__import__('os'))", mm.FormulaError, "varident\\(g\\)"),
        ("ar1(s)", mm.FormulaError, "varident\\(g\\)"),
    ],
)
def test_bad_structures_are_named(text, error, message):
    frame = data().assign(one="a", gap=["a", None, *["b"] * 148])
    with pytest.raises(error, match=message):
        mm.lmer("y ~ x + (1 | g)", frame, residual=text)
