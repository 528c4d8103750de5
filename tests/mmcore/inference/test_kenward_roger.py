"""Kenward-Roger against the formulas of the paper with n x n matrices, for every structure."""

import warnings

import numpy as np
import pytest

import mmcore as mm
from mmcore import kernels
from mmcore.inference.df.denominators import coefficient_table, denominator
from mmcore.inference.df.kenward_roger import kenward_roger, vcov_kr
from tests.mmcore.inference import dense
from tests.mmcore.inference.test_satterthwaite import frame

FORMULAS = [
    "y ~ x + (x | g)",
    "y ~ x + z + (x || g)",
    "y ~ x + z + h + (1 | g)",
    "y ~ x + z + (1 | g) + (x | h)",
    "y ~ x + (x | c) + (1 | b) + (1 | a)",
    "y ~ x + diag(1 + x | g)",
    "y ~ x + k + cs(0 + k | g, hom = TRUE)",
    "y ~ x * z + (1 | g) + (1 | h) + (0 + z | h)",
]


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_equals_the_paper(formula, weights, structured, monkeypatch):
    monkeypatch.setattr(kernels, "DENSE_Q", 0 if structured else 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SingularWarning)
        fit = mm.lmer(formula, frame(), weights=weights)
    p = fit.design.p
    for L in (np.eye(p)[1:2], np.eye(p)[-2:] + 0.3, np.random.default_rng(1).normal(size=(min(3, p), p))):
        if len(L) > p:
            continue
        L = L[: np.linalg.matrix_rank(L)]
        adjusted, F, df, scale = dense.kenward_roger(fit, L)
        found = kenward_roger(fit)
        np.testing.assert_allclose(found.vcov, adjusted, rtol=1e-7, atol=1e-9 * np.abs(adjusted).max())
        test = found.f_test(L, L @ fit.beta)
        assert (test.num_df, test.den_df, test.statistic) == (
            len(L),
            pytest.approx(df, rel=1e-6),
            pytest.approx(F, rel=1e-7),
        )
        assert test.statistic / test.unscaled == pytest.approx(scale, rel=1e-7)


def test_rows_that_repeat_others_do_not_count():
    fit = mm.lmer("y ~ x + z + (1 | g)", frame())
    method = denominator(fit, "kenward-roger")
    L = np.array([[0.0, 1, 0], [0, 0, 1]])
    twice = np.vstack([L, L.sum(axis=0)])
    one, two = method.f_test(L, L @ fit.beta), method.f_test(twice, twice @ fit.beta)
    assert (two.num_df, two.den_df) == (2, pytest.approx(one.den_df, rel=1e-10))
    assert two.statistic == pytest.approx(one.statistic, rel=1e-10)


def test_boundary():
    """A variance of zero is a component like any other; the adjusted covariance is that of pbkrtest there."""
    fit = mm.fit_at("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"), [0.0])
    adjusted, _, df, _ = dense.kenward_roger(fit, np.eye(2)[1:])
    np.testing.assert_allclose(vcov_kr(fit).to_numpy(), adjusted, rtol=1e-10)
    assert coefficient_table(fit, "kenward-roger").loc["Days", "df"] == pytest.approx(df, rel=1e-9)


def test_large_variances_keep_their_digits():
    """theta = 1e4: the residual variance as a component would lose eight digits, V does not."""
    fit = mm.fit_at("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"), [1e4])
    table = coefficient_table(fit, "kenward-roger")
    assert table.loc["Days", "df"] == pytest.approx(161.0, rel=1e-6)  # within subjects: 180 - 18 - 1
    assert table.loc["(Intercept)", "df"] == pytest.approx(17.0, rel=1e-6)


def test_equal_terms_twice_are_one_component():
    data = frame().assign(g2=lambda d: d.g)
    theta = 0.6 / np.sqrt(2.0)
    one = vcov_kr(mm.fit_at("y ~ x + (1 | g)", data, [0.6]))
    two = vcov_kr(mm.fit_at("y ~ x + (1 | g) + (1 | g2)", data, [theta, theta]))
    np.testing.assert_allclose(two, one, rtol=1e-8)


def test_refusals():
    data = mm.load_dataset("sleepstudy")
    with pytest.raises(mm.UnsupportedError, match="reml=True"):
        vcov_kr(mm.lmer("Reaction ~ Days + (1 | Subject)", data, reml=False))
    with pytest.raises(mm.UnsupportedError, match="linear mixed models"):
        vcov_kr(mm.lm("Reaction ~ Days", data))


def test_without_fixed_effects():
    assert vcov_kr(mm.lmer("Yield ~ 0 + (1 | Batch)", mm.load_dataset("Dyestuff"))).shape == (0, 0)
