"""One-step influence against generalised least squares on the rows that are left."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.diagnostics.influence import loss
from tests.dense_influence import deletion, deletions, levels_of, sets_of
from tests.models import NAMES, SMALL, any_model, frame, small

MEASURES = {
    "cooksd": mm.cooks_distance,
    "mdffits": mm.mdffits,
    "covtrace": mm.covtrace,
    "covratio": mm.covratio,
}
# Scaled by the largest value of a measure. The oracle inverts n x n matrices: 1e-11 of its own error is usual.
TOL = 1e-9


def close(got, want):
    assert_allclose(got, want, rtol=0, atol=TOL * max(np.abs(want).max(), 1e-300))


@pytest.mark.parametrize("name", NAMES)
def test_every_unit_of_every_level(name):
    fit = any_model(name)
    for level in levels_of(fit):
        labels, sets = sets_of(fit, level)
        at = slice(None, None, 13 if name.startswith("large") else 1)
        want = deletions(fit, sets[at])
        for measure, function in MEASURES.items():
            got = function(fit, level)
            assert list(got.index) == labels
            close(got.to_numpy()[at], want[measure])
        got = mm.cooks_distance(fit, level, include_attr=True)
        assert list(got.columns) == ["cooksd", *fit.design.x_names]
        close(got.iloc[at, 1:].to_numpy(), want["delta"])


@pytest.mark.parametrize("name", NAMES)
def test_a_set_of_rows(name):
    fit = any_model(name)
    rows = np.array([3, 4, 11, 12, 30, 41])
    want = deletion(fit, rows)
    labels = list(fit.design.index[rows])
    mask = np.isin(np.arange(fit.nobs), rows)
    for measure, function in MEASURES.items():
        close(np.array(function(fit, delete=labels)), np.array(want[measure]))
        assert function(fit, delete=mask) == function(fit, delete=labels)


def test_a_joint_deletion_of_levels_and_named_sets():
    fit = small("crossed")
    labels, sets = sets_of(fit, "h")
    both = np.sort(np.concatenate(sets[:2]))
    close(mm.cooks_distance(fit, "h", delete=labels[:2]), deletion(fit, both)["cooksd"])
    several = mm.covratio(fit, "h", delete=[labels[:1], labels[:2]])
    named = mm.covratio(fit, "h", delete={"first": labels[0], "both": labels[:2]})
    assert list(several.index) == [0, 1] and list(several) == list(named)
    assert list(named.index) == ["first", "both"]
    close(named.to_numpy(), np.array([deletion(fit, sets[0])["covratio"], deletion(fit, both)["covratio"]]))


def test_large_sets_of_a_crossed_model_take_the_other_route_and_agree(monkeypatch):
    fit = any_model("large:crossed slopes")
    formed = mm.hlm_influence(fit, "h")
    monkeypatch.setattr(loss, "DENSE_ROWS", 3)
    assert_allclose(mm.hlm_influence(fit, "h"), formed, rtol=1e-9)


def test_lm_is_the_classical_cook_distance():
    fit = mm.lm("y ~ x + z", frame(), weights="w")
    want = deletions(fit, sets_of(fit, 1)[1])
    for measure, function in MEASURES.items():
        close(function(fit).to_numpy(), want[measure])
    # without random effects the definitions coincide
    close(mm.cooks_distance(fit, kind="plugin").to_numpy(), want["cooksd"])


def test_plugin_is_the_change_of_conditional_fitted_values():
    fit = small("weighted slope")
    h, r = mm.hatvalues(fit), fit.resid("pearson")
    close(mm.cooks_distance(fit, kind="plugin"), (r / (1 - h)) ** 2 * h / (fit.sigma**2 * fit.design.p))
    with pytest.raises(mm.UnsupportedError, match="single rows"):
        mm.cooks_distance(fit, "g", kind="plugin")


def test_a_row_or_a_group_that_carries_a_column_is_nan_and_said():
    data = frame()
    data["only"] = np.arange(len(data)) == 5
    fit = mm.fit_at("y ~ x + only + (1 | g)", data, [0.8])
    with pytest.warns(mm.MixedModelWarning, match=f"without row {data.index[5]} the fixed effects are not"):
        table = mm.hlm_influence(fit)
    measures = table[["cooksd", "mdffits", "covtrace", "covratio"]]
    assert measures.iloc[5].isna().all() and measures.drop(index=data.index[5]).notna().all().all()
    data["carried"] = np.where(data.g == "g3", np.arange(len(data)), 0)
    for formula in ("y ~ carried + (1 | g)", "y ~ carried + (1 | g) + (1 | h)"):
        fit = mm.fit_at(formula, data, [0.8, 0.3][: formula.count("|")])
        with pytest.warns(mm.MixedModelWarning, match="without g g3"):
            cook = mm.cooks_distance(fit, "g")
        assert list(cook.index[cook.isna()]) == ["g3"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((), {"delete": ["nobody"]}), "'nobody'"),
        (((), {"delete": []}), "empty"),
        (((), {"delete": np.ones(60, bool)}), "nothing would be left"),
        (((), {"delete": np.ones(3, bool)}), "60 rows"),
        ((("g",), {"delete": ["g99"]}), "'g99'"),
        ((("zzz",), {}), "level='zzz' is not a level"),
        (((True,), {}), "level=True"),
    ],
)
def test_bad_requests_name_the_offender(arguments, error):
    with pytest.raises(mm.DataError, match=error):
        mm.cooks_distance(small("crossed"), *arguments[0], **arguments[1])


def test_no_fixed_effects_is_an_error():
    fit = mm.fit_at("y ~ 0 + (1 | g)", frame(), [0.8])
    with pytest.raises(mm.UnsupportedError, match="no fixed effects"):
        mm.cooks_distance(fit)


def test_group_labels_survive_any_order_of_levels():
    data = frame()
    shuffled = data.assign(g=pd.Categorical(data.g, categories=sorted(data.g.unique(), reverse=True)))
    for measure in (mm.cooks_distance, mm.covratio, lambda f, g: mm.leverage(f, g)["overall"]):
        a = measure(mm.fit_at("y ~ x + (1 | g)", data, [0.8]), "g")
        b = measure(mm.fit_at("y ~ x + (1 | g)", shuffled, [0.8]), "g")
        assert list(a.index) == list(dict.fromkeys(data.g)) == list(b.index)
        assert_allclose(a, b, rtol=1e-10)


MODELS = st.sampled_from(
    ["intercept", "slope", "singular slope", "weights and offset", "crossed slope", "nested"]
)


@settings(max_examples=40, deadline=None)
@given(MODELS, st.integers(0, 10_000))
def test_bounds_that_hold_at_a_fixed_covariance(name, seed):
    fit = small(name, seed)
    for level in levels_of(fit):
        t = mm.hlm_influence(fit, level)
        assert (t.cooksd >= 0).all() and (t.mdffits <= t.cooksd * (1 + 1e-9)).all()
        assert (t.covratio >= 1 - 1e-12).all() and (t.covtrace >= 0).all()


@settings(max_examples=30, deadline=None)
@given(MODELS, st.integers(0, 10_000), st.floats(1e-6, 1e6), st.randoms(use_true_random=False))
def test_scale_of_y_and_order_of_rows_do_not_matter(name, seed, scale, random):
    formula, theta, options = SMALL[name]
    if "offset" in options:
        scale = 1.0
    data = frame(seed=seed)
    order = list(range(len(data)))
    random.shuffle(order)
    other = data.assign(y=data.y * scale).iloc[order]
    a, b = mm.fit_at(formula, data, theta, **options), mm.fit_at(formula, other, theta, **options)
    for level in levels_of(a):
        columns = ["cooksd", "mdffits", "covtrace", "covratio", "leverage.overall"]
        ta, tb = mm.hlm_influence(a, level)[columns], mm.hlm_influence(b, level)[columns]
        assert_allclose(tb.loc[ta.index], ta, rtol=1e-6, atol=1e-9 * ta.abs().to_numpy().max())


def test_deleting_a_row_of_negligible_weight_changes_nothing():
    data = frame()
    data.iloc[7, data.columns.get_loc("w")] = 1e-12
    step = mm.hlm_influence(mm.fit_at("y ~ x + (1 | g)", data, [0.8], weights="w")).iloc[7]
    assert_allclose(step[["cooksd", "mdffits", "covtrace"]].astype(float), 0, atol=1e-11)
    assert_allclose(step.covratio, 1, rtol=1e-11)
