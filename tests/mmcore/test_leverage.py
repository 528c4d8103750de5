"""Leverage against its matrices, and what must add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm
from tests.dense_influence import dense, levels_of, sets_of
from tests.models import NAMES, SMALL, any_model, frame, small


@pytest.mark.parametrize("name", NAMES)
def test_four_leverages_are_the_diagonals_of_their_matrices(name):
    fit = any_model(name)
    o, X = dense(fit), fit.design.X
    H1 = X @ o.C @ X.T @ o.Vinv
    H2 = fit.sigma**2 * o.G @ o.Vinv @ (np.eye(fit.nobs) - H1)
    want = np.column_stack([np.diag(H1) + np.diag(H2), np.diag(H1), np.diag(H2), np.diag(o.G)])
    for level in levels_of(fit):
        got = mm.leverage(fit, level)
        labels, sets = sets_of(fit, level)
        assert list(got.index) == labels
        assert list(got.columns) == ["overall", "fixef", "ranef", "ranef.uc"]
        assert_allclose(got, [want[rows].mean(axis=0) for rows in sets], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_hatvalues_map_y_to_fitted_values(name):
    """d fitted / d y, column by column, from the definition of the conditional fit."""
    fit = any_model(name)
    o, d = dense(fit), fit.design
    R = fit.sigma**2 * np.diag(np.ones(d.n) if d.weights is None else 1 / d.weights)
    H = np.eye(d.n) - R @ o.P
    y = d.y if d.offset is None else d.y - d.offset
    offset = 0 if d.offset is None else d.offset
    assert_allclose(H @ y + offset, fit.fitted, rtol=1e-8)
    assert_allclose(mm.hatvalues(fit), np.diag(H), rtol=1e-9, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.integers(0, 10_000))
def test_fixed_leverage_sums_to_p_and_all_of_it_stays_within_bounds(name, seed):
    fit = small(name, seed)
    t = mm.leverage(fit)
    assert_allclose(t.fixef.sum(), fit.design.p, rtol=1e-9)
    assert fit.design.p - 1e-9 <= t.overall.sum() <= fit.design.p + fit.design.q + 1e-9
    assert (t.overall <= 1 + 1e-12).all() and (t["ranef.uc"] >= 0).all()
    if name == "singular":
        assert_allclose(t.ranef, 0, atol=1e-12)


def test_lm_is_the_ordinary_hat_matrix():
    fit = mm.lm("y ~ x + z", frame(), weights="w")
    X, w = fit.design.X, fit.design.weights
    H = X @ np.linalg.inv(X.T @ (w[:, None] * X)) @ (X * w[:, None]).T
    assert_allclose(mm.hatvalues(fit), np.diag(H), rtol=1e-10)


def test_an_unknown_type_is_named():
    with pytest.raises(mm.UnsupportedError, match="'total'"):
        mm.hlm_influence(small("slope"), leverage="total")
