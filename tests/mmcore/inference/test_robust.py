"""Cluster-robust covariances against their definition with n x n matrices, and what must hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.inference.robust.clusters import clusters_of
from mmcore.inference.robust.robust import coef_test, vcov_robust
from tests.mmcore.inference.dense_sandwich import Dense
from tests.models import SMALL, frame, small
from tests.oracles import dense_gls

KINDS = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")
CLUSTER = {"nested": "batch", "nested slope": "batch"}
CROSSED = ("crossed", "crossed slope")
NAMES = [name for name in SMALL if name not in CROSSED]


def factor(kind: str, m: int, n: int, p: int) -> float:
    """Factor of the meat, written out."""
    return {"CR1": m / (m - 1), "CR1p": m / (m - p), "CR1S": m * (n - 1) / ((m - 1) * (n - p))}.get(kind, 1.0)


def sets_of(values: np.ndarray) -> list[np.ndarray]:
    """Rows of each distinct value."""
    return [np.flatnonzero(values == value) for value in pd.unique(values)]


def mixed_definition(fit: mm.Fit, values: np.ndarray) -> Dense:
    """Working covariance V, weights V^-1."""
    V, Vinv, _, _, r = dense_gls(fit.design, [L @ L.T for L in fit.Lambda])
    return Dense(fit.design.X, Vinv, V, r, sets_of(values))


def check(fit: mm.Fit, cluster: object, definition: Dense, rtol: float = 1e-9, kinds=KINDS) -> None:
    """Every kind, element by element."""
    n, p = definition.X.shape
    m = len(definition.sets)
    for kind in kinds:
        V, df = definition.vcov_and_df(kind if kind in ("CR2", "CR3") else "CR0")
        got = vcov_robust(fit, kind, cluster)
        assert list(got.index) == list(got.columns) == list(fit.design.x_names)
        want = factor(kind, m, n, p) * V
        scale = np.sqrt(np.outer(want.diagonal(), want.diagonal()))
        assert_allclose(got / scale, want / scale, atol=rtol, rtol=0, err_msg=kind)
        table = coef_test(fit, kind, cluster)
        assert_allclose(table["df"], df, rtol=10 * rtol, err_msg=kind)
        assert_allclose(table["SE"] ** 2, want.diagonal(), rtol=rtol)
        assert_allclose(table["tstat"], fit.beta / np.sqrt(want.diagonal()), rtol=rtol)


# --- mixed models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_mixed_models_follow_the_definition(name):
    fit, cluster = small(name), CLUSTER.get(name, "g")
    values = frame()[cluster].to_numpy()
    check(fit, values, mixed_definition(fit, values))
    assert_allclose(vcov_robust(fit, "CR2", cluster), vcov_robust(fit, "CR2", values), rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10_000), theta=st.floats(0.0, 50.0), weighted=st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_data_and_theta_follow_the_definition(seed, theta, weighted):
    data = frame(n=40, groups=6, seed=seed)
    options = {"weights": "w"} if weighted else {}
    fit = mm.fit_at("y ~ x + (x | g)", data, [theta, 0.3, 0.1], **options)
    check(fit, "g", mixed_definition(fit, data["g"].to_numpy()), rtol=1e-8, kinds=("CR0", "CR2", "CR3"))


def test_clusters_larger_than_their_columns_are_rotated_and_smaller_ones_are_not():
    """One cluster of forty rows, several of one and two."""
    data = frame(n=70, groups=9)
    size = np.repeat(np.arange(9), [40, 1, 1, 1, 2, 2, 3, 10, 10])
    data["g"] = [f"k{i}" for i in size]
    for weights in (None, "w"):
        fit = mm.fit_at("y ~ x + (x | g)", data, [0.9, -0.4, 0.5], weights=weights)
        check(fit, "g", mixed_definition(fit, data["g"].to_numpy()))


def test_weights_equal_within_clusters_are_rotated_too():
    data = frame()
    data["w"] = data["g"].str[1:].astype(float) + 0.5
    fit = mm.fit_at("y ~ x + (1 | g)", data, [0.9], weights="w")
    check(fit, "g", mixed_definition(fit, data["g"].to_numpy()))


def test_clusters_coarser_than_every_grouping_factor():
    data = frame(n=80, groups=24)
    fit = mm.fit_at("y ~ x + (1 | cask)", data, [1.2])
    check(fit, data["batch"].to_numpy(), mixed_definition(fit, data["batch"].to_numpy()))


@pytest.mark.parametrize(
    ("formula", "theta"),
    [
        ("y ~ x + cs(x | g)", [0.9, 0.3, 0.5]),
        ("y ~ x + diag(x | g)", [0.9, 0.5]),
        ("y ~ h + (0 + h | g)", np.linspace(0.9, 0.2, 10)),
    ],
)
def test_covariance_structures_and_factor_slopes(formula, theta):
    data = frame(n=120, groups=9)
    fit = mm.fit_at(formula, data, theta)
    check(fit, "g", mixed_definition(fit, data["g"].to_numpy()), rtol=1e-8)


def test_residual_variances_by_group_are_part_of_the_working_model():
    fit = mm.lmer("y ~ x + (1 | g)", frame(n=120), residual="varident(h)")
    check(fit, "g", mixed_definition(fit, frame(n=120)["g"].to_numpy()), rtol=1e-8)


def test_rank_deficient_model_matrix_is_that_without_the_aliased_columns():
    data = frame().assign(x2=lambda d: 2 * d.x)
    with pytest.warns(mm.RankWarning):
        fit = mm.fit_at("y ~ x + x2 + (1 | g)", data, [0.8])
    lean = mm.fit_at("y ~ x + (1 | g)", data, [0.8])
    pd.testing.assert_frame_equal(vcov_robust(fit, "CR2", "g"), vcov_robust(lean, "CR2", "g"))


def test_covariates_far_from_zero_lose_no_digits():
    """The same space of columns, so the same variance of the slope."""
    data = frame().assign(year=lambda d: d.x + 1e6)
    near = vcov_robust(mm.fit_at("y ~ x + (1 | g)", data, [0.8]), "CR2", "g")
    far = vcov_robust(mm.fit_at("y ~ year + (1 | g)", data, [0.8]), "CR2", "g")
    assert_allclose(far.loc["year", "year"], near.loc["x", "x"], rtol=1e-8)


def test_units_of_the_response_do_not_matter():
    """clubSandwich's limit for a zero eigenvalue has the unit of y^4; ours has none."""
    data = frame()
    tiny = data.assign(y=data.y * 1e-6)
    one, other = (mm.fit_at("y ~ x + (x | g)", d, [0.9, -0.4, 0.5]) for d in (data, tiny))
    assert_allclose(vcov_robust(other, "CR2", "g") * 1e12, vcov_robust(one, "CR2", "g"), rtol=1e-8)


def test_large_random_effects_are_not_taken_for_directions_without_variance():
    """V has eigenvalues over ten decades; K S K over twenty."""
    data = frame()
    fit = mm.fit_at("y ~ x + (1 | g)", data, [1e4])
    within = data[["y", "x"]] - data.groupby("g")[["y", "x"]].transform("mean")
    ols = mm.lm("y ~ 0 + x", within)
    definition = Dense(
        within[["x"]].to_numpy(), np.eye(60), np.eye(60), ols.resid().to_numpy(), sets_of(data.g.to_numpy())
    )
    V, _ = definition.vcov_and_df("CR2")
    assert_allclose(vcov_robust(fit, "CR2", "g").loc["x", "x"], V[0, 0], rtol=1e-6)


# --- models without random effects ------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, "w"])
def test_linear_models_follow_the_definition(weights):
    data = frame()
    fit = mm.lm("y ~ x + z + h", data, weights=weights)
    W = np.eye(60) if weights is None else np.diag(data[weights])
    values = data["g"].to_numpy()
    check(fit, values, Dense(fit.design.X, W, np.eye(60), fit.resid().to_numpy(), sets_of(values)))


def test_rows_of_weight_zero_count_for_nothing():
    data = frame()
    data.loc[data.index[[3, 7, 20]], "w"] = 0.0
    fit, lean = mm.lm("y ~ x", data, weights="w"), mm.lm("y ~ x", data[data.w > 0], weights="w")
    for kind in (*KINDS, "HC1", "HC3"):
        options = {} if kind.startswith("HC") else {"cluster": data["g"]}
        assert_allclose(vcov_robust(fit, kind, **options), vcov_robust(lean, kind, **options), rtol=1e-10)


GLM = {
    "poisson": ("poisson", None, lambda d, rng: rng.poisson(np.exp(0.3 * d.x + 0.7))),
    "binomial": ("binomial", "probit", lambda d, rng: rng.integers(0, 2, len(d))),
    "gamma": ("gamma", "log", lambda d, rng: rng.gamma(2.0, np.exp(0.2 * d.x))),
}


@pytest.mark.parametrize("name", GLM)
@pytest.mark.parametrize("weights", [None, "w"])
def test_generalized_models_follow_the_definition(name, weights):
    family, link, draw = GLM[name]
    data = frame()
    data["y"] = np.asarray(draw(data, np.random.default_rng(5)), float)
    if name == "binomial":
        weights = None
    fit = mm.glm("y ~ x + z", data, family=family, link=link, weights=weights)
    mu, prior = fit.fitted.to_numpy(), np.ones(60) if weights is None else data[weights].to_numpy()
    slope, _ = fit.family.link.slopes(fit.eta.to_numpy(), mu)[:2]
    variance = fit.family.variance(mu) / prior
    values = data["g"].to_numpy()
    X = slope[:, None] * fit.design.X
    definition = Dense(X, np.diag(1 / variance), np.diag(variance), fit.design.y - mu, sets_of(values))
    check(fit, values, definition, rtol=1e-8)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3", "HC4"])
@pytest.mark.parametrize("weights", [None, "w"])
def test_by_row_against_the_formulas(kind, weights):
    data = frame()
    fit = mm.lm("y ~ x + h", data, weights=weights)
    X, e, n, p = fit.design.X, fit.resid().to_numpy(), 60, fit.design.p
    w = np.ones(n) if weights is None else data[weights].to_numpy()
    bread = np.linalg.inv(X.T @ (w[:, None] * X))
    h = w * np.einsum("ij,jk,ik->i", X, bread, X)
    omega = {
        "HC0": np.ones(n),
        "HC1": np.full(n, n / (n - p)),
        "HC2": 1 / (1 - h),
        "HC3": 1 / (1 - h) ** 2,
        "HC4": 1 / (1 - h) ** np.minimum(4, n * h / p),
    }[kind]
    want = bread @ X.T @ np.diag(w**2 * e**2 * omega) @ X @ bread
    assert_allclose(vcov_robust(fit, kind), want, rtol=1e-10, atol=1e-14)
    table = coef_test(fit, kind)
    assert_allclose(table["df"], n - p)
    assert_allclose(table["SE"], np.sqrt(want.diagonal()), rtol=1e-10)


def test_singleton_clusters_are_the_corrections_by_row():
    """CR0, CR2 and CR3 of one row each are HC0, HC2 and HC3."""
    data = frame()
    fit = mm.lm("y ~ x + h", data)
    for cr, hc in (("CR0", "HC0"), ("CR2", "HC2"), ("CR3", "HC3")):
        got = vcov_robust(fit, cr, np.arange(60))
        assert_allclose(got, vcov_robust(fit, hc), rtol=1e-10, atol=1e-14)


def test_bias_reduced_is_unbiased_under_the_working_model():
    """E of sum_i g_i e_i e_i' g_i' under V is vcov: with A S A' = Phi, sum g_i S_ii g_i' = M."""
    fit = small("slope")
    definition = mixed_definition(fit, frame()["g"].to_numpy())
    M = np.linalg.inv(definition.X.T @ definition.W @ definition.X)
    left = np.eye(60) - definition.X @ M @ definition.X.T @ definition.W
    S, total = left @ definition.Phi @ left.T, np.zeros((2, 2))
    for i, A in zip(definition.sets, definition.adjustments("CR2"), strict=True):
        g = M @ (definition.W @ definition.X)[i].T @ A
        total += g @ S[np.ix_(i, i)] @ g.T
    assert_allclose(total, M, rtol=1e-9)


def test_tests_of_stata_and_statsmodels():
    """CR1S with clusters less one: Stata's vce(cluster), statsmodels' cov_type="cluster"."""
    data = frame()
    table = coef_test(mm.lm("y ~ x", data), "CR1S", data["g"], test="naive-t")
    assert (table["df"] == data["g"].nunique() - 1).all()
    from scipy.stats import t

    assert_allclose(table["p"], 2 * t.sf(np.abs(table["tstat"]), data["g"].nunique() - 1), rtol=1e-12)
    assert np.isinf(coef_test(mm.lm("y ~ x", data), "CR1S", data["g"], test="z")["df"]).all()


# --- what one cluster determines --------------------------------------------------------------------------


def test_a_direction_that_one_cluster_determines_is_left_out_of_cr2():
    data = frame().assign(only=lambda d: (d.g == "g3").astype(float))
    fit = mm.lm("y ~ x + only", data)
    values = data["g"].to_numpy()
    definition = Dense(fit.design.X, np.eye(60), np.eye(60), fit.resid().to_numpy(), sets_of(values))
    V, df = definition.vcov_and_df("CR2")
    got, table = vcov_robust(fit, "CR2", values), coef_test(fit, "CR2", values)
    assert_allclose(got.loc["x", "x"], V[1, 1], rtol=1e-9)
    assert_allclose(table.loc["x", "df"], df[1], rtol=1e-8)
    with pytest.raises(mm.FitError, match="CR3 does not exist: without cluster 'g3'"):
        vcov_robust(fit, "CR3", values)


def test_a_coefficient_of_which_clusters_say_nothing_has_no_degrees_of_freedom():
    data = frame()
    table = coef_test(mm.lm("y ~ 0 + g", data), "CR2", data["g"])
    assert table["df"].isna().all()
    assert table["p"].isna().all()
    assert (table["SE"] < 1e-12).all()


def test_a_row_of_leverage_one_has_no_hc3():
    data = frame()
    data["only"] = (data.index == "r7").astype(float)
    fit = mm.lm("y ~ x + only", data)
    with pytest.raises(mm.FitError, match="row 'r7' has leverage one"):
        vcov_robust(fit, "HC3")
    assert np.isfinite(vcov_robust(fit, "HC1").to_numpy()).all()


def test_a_factor_that_divides_by_zero_is_nan_and_says_so():
    data = frame(groups=9)
    fit = mm.lm("y ~ x + z", data)
    with pytest.warns(mm.MixedModelWarning, match="CR1p divides"):
        got = vcov_robust(fit, "CR1p", data["batch"])
    assert got.isna().all(axis=None)


# --- naming the clusters ----------------------------------------------------------------------------------


def test_clusters_by_name_array_and_label_are_the_same():
    data = frame()
    data.loc[data.index[5], "y"] = np.nan
    fit = mm.lmer("y ~ x + (1 | g)", data)
    want = vcov_robust(fit, "CR2", "g")
    shuffled = data["g"].sample(frac=1, random_state=3)
    every, used = data["g"].to_numpy(), data["g"].drop(data.index[5]).to_numpy()
    for given_as in (None, shuffled, every, used, list(every), data["g"].astype("category")):
        pd.testing.assert_frame_equal(vcov_robust(fit, "CR2", given_as), want)


def test_the_default_is_the_coarsest_grouping_factor():
    fit = small("nested")
    pd.testing.assert_frame_equal(vcov_robust(fit, "CR2"), vcov_robust(fit, "CR2", "batch"))
    assert clusters_of(fit, None).m == frame()["batch"].nunique()


def test_variables_of_the_model_frame_can_be_clusters():
    """recipe:replicate is the grouping factor, replicate a variable."""
    fit = mm.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", mm.load_dataset("cake"))
    assert clusters_of(fit, "replicate").m == 15


@pytest.mark.parametrize(
    ("cluster", "kind", "message"),
    [
        ("nobody", mm.DataError, "'nobody' is not a grouping factor or variable"),
        (np.zeros(7), mm.DataError, "7 values; the data have 60 rows"),
        (np.zeros((60, 2)), mm.DataError, r"shape \(60, 2\)"),
        (np.zeros(60), mm.DataError, "single value 0.0"),
        (pd.Series(np.zeros(60)), mm.DataError, "no value for 60 of the rows used, such as"),
    ],
)
def test_what_is_no_cluster_is_named(cluster, kind, message):
    with pytest.raises(kind, match=message):
        vcov_robust(small("intercept"), "CR2", cluster)


def test_missing_clusters_are_named():
    values = frame()["g"].where(frame()["g"] != "g2")
    with pytest.raises(mm.DataError, match=r"cluster is missing in .* first in row"):
        vcov_robust(mm.lm("y ~ x", frame()), "CR2", values)


def test_linear_models_need_a_cluster_and_rows_have_none():
    with pytest.raises(mm.DataError, match="cluster is needed"):
        vcov_robust(mm.lm("y ~ x", frame()), "CR2")
    with pytest.raises(mm.DataError, match="HC1 takes every row as independent"):
        vcov_robust(mm.lm("y ~ x", frame()), "HC1", frame()["g"])
    with pytest.raises(mm.UnsupportedError, match="rows of a mixed model depend"):
        vcov_robust(small("intercept"), "HC1")
    with pytest.raises(mm.DataError, match="type='CR9' is not one of"):
        vcov_robust(small("intercept"), "CR9")


@pytest.mark.parametrize(("name", "cluster"), [("crossed", "g"), ("nested", "cask"), ("intercept", "h")])
def test_clusters_that_cut_a_grouping_factor_are_refused(name, cluster):
    with pytest.raises(mm.UnsupportedError, match="cuts the grouping factor"):
        vcov_robust(small(name), "CR2", frame()[cluster])


def test_models_without_meaning_are_refused():
    data = frame()
    with pytest.raises(mm.UnsupportedError, match="no fixed effects"):
        vcov_robust(mm.fit_at("y ~ 0 + (1 | g)", data, [0.8]), "CR2", "g")
    data["count"] = np.random.default_rng(1).poisson(2.0, 60)
    fit = mm.fit_at("count ~ x + (1 | g)", data, [0.5], beta=[0.7, 0.0], family="poisson")
    with pytest.raises(mm.UnsupportedError, match="generalized linear mixed model"):
        vcov_robust(fit, "CR2", "g")
