"""Fits from partitions equal the fit in memory, and nothing that needs the rows pretends to have them."""

import dask
import dask.dataframe
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from tests.models import frame

MODELS = {
    "slope": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
    "ml": ("sleepstudy", "Reaction ~ Days + (Days || Subject)", {"reml": False}),
    "crossed": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
    "nested": ("Pastes", "strength ~ 1 + (1 | batch/cask)", {}),
    "factors": ("Machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", {}),
    "interaction": ("Oats", "yield ~ nitro * Variety + (1 | Block/Variety)", {}),
    "sum contrasts": ("Machines", "score ~ Machine + (1 | Worker)", {"contrasts": {"Machine": "sum"}}),
}


def parts_of(data, rows=23):
    return [data.iloc[i : i + rows] for i in range(0, len(data), rows)]


def assert_same(got, want, rtol=1e-10):
    """Estimates to 1e-10; theta, which the criterion determines to the root of that, to 1e-7 of its size."""
    assert got.nobs == want.nobs
    assert got.df == want.df
    assert_allclose(got.criterion, want.criterion, rtol=rtol)
    assert_allclose([got.aic, got.bic], [want.aic, want.bic], rtol=rtol)
    assert list(got.fixef.index) == list(want.fixef.index)
    assert_allclose(got.fixef, want.fixef, rtol=1e-8, atol=1e-8 * want.se.min())
    assert list(got.theta.index) == list(want.theta.index)
    assert_allclose(got.theta, want.theta, rtol=1e-6, atol=1e-6)
    for group, effects in want.ranef.items():
        assert list(got.ranef[group].index) == list(effects.index)
        assert_allclose(got.ranef[group], effects, rtol=1e-5, atol=1e-6 * want.sigma)


def at_the_same_theta(got, want):
    """Algebra alone: everything to 1e-10 at the theta of the fit in memory."""
    fn = got.criterion_fn
    par = fn.covariance.from_theta(want.theta.to_numpy())
    profile = fn.factor(par).profile
    assert_allclose(profile.f, want.criterion, rtol=1e-12)
    assert_allclose(np.sqrt(profile.rss / profile.nu), want.sigma, rtol=1e-10)
    p = want.design.p
    gamma = np.linalg.solve(profile.LS[:p, :p].T, profile.LS[p, :p])
    assert_allclose(fn.kernel.A.beta(gamma), want.beta, rtol=1e-10, atol=1e-10 * want.se.min())


@pytest.mark.parametrize("name", MODELS)
def test_partitions_equal_memory(name):
    data, formula, options = MODELS[name]
    data = mm.load_dataset(data)
    want = mm.lmer(formula, data, **options)
    got = mm.lmer(formula, parts_of(data), **options)
    assert_same(got, want)
    at_the_same_theta(got, want)


@pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")
def test_weights_offset_missing_rows_and_strings():
    data = frame(n=200)
    data.loc[data.index[[3, 50, 120]], "x"] = np.nan
    options = {"weights": "w", "offset": "off"}
    formula = "y ~ x + z + (x | g) + (1 | h)"
    want = mm.lmer(formula, data, **options)
    got = mm.lmer(formula, parts_of(data), **options)
    assert want.nobs == 197
    assert_same(got, want)
    at_the_same_theta(got, want)


def test_levels_that_come_late_and_numeric_groups():
    """A fixed level and a group that only the last partition has; numeric groups sort by value."""
    rng = np.random.default_rng(3)
    n = 5000
    data = pd.DataFrame({"g": np.sort(rng.integers(1, 120, n)), "x": rng.normal(size=n)})
    data["f"] = np.where(np.arange(n) < 4800, np.where(data.x > 0, "a", "b"), "late")
    data["y"] = 1e6 + data.x + 0.5 * rng.normal(size=120)[data.g] + rng.normal(size=n)
    want = mm.lmer("y ~ x + f + (1 | g)", data)
    got = mm.lmer("y ~ x + f + (1 | g)", parts_of(data, 700))
    assert_same(got, want)
    assert list(got.fixef.index) == ["(Intercept)", "x", "fb", "flate"]


def test_memory_does_not_grow_with_rows():
    data = mm.load_dataset("sleepstudy")
    many = mm.lmer("Reaction ~ Days + (Days | Subject)", lambda: (data for _ in range(50)))
    assert many.nobs == 50 * 180
    assert len(many.design.y) <= 18 * 5  # pseudo-rows: at most as many as products of a cell have dimensions


def test_a_function_a_parquet_file_and_a_dask_frame(tmp_path):
    data = mm.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    want = mm.lmer(formula, data)
    assert_same(mm.lmer(formula, lambda: iter(parts_of(data))), want)
    path = tmp_path / "sleep.parquet"
    data.assign(unused=1).to_parquet(path)
    assert_same(mm.lmer(formula, str(path)), want)
    partitions = dask.dataframe.from_pandas(data, npartitions=4)
    with dask.config.set(scheduler="synchronous"):
        assert_same(mm.lmer(formula, partitions), want)


def test_what_needs_rows_says_so():
    data = mm.load_dataset("sleepstudy")
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", parts_of(data))
    calls = [
        lambda: fit.fitted, lambda: fit.resid(), lambda: fit.predict(),
        lambda: fit.simulate(), lambda: fit.refit([1.0]), lambda: fit.update(reml=False),
        lambda: mm.hlm_influence(fit), lambda: mm.cooks_distance(fit),
        lambda: mm.leverage(fit), lambda: mm.hatvalues(fit), lambda: mm.hlm_resid(fit), lambda: mm.case_delete(fit),
        lambda: mm.influence(fit, "Subject"), lambda: mm.dfbetas(fit), lambda: mm.augment(fit),
        lambda: mm.rstudent(fit),
        lambda: mm.hlm_augment(fit), lambda: mm.pull_resid(fit), lambda: mm.mdffits(fit), lambda: mm.rvc(fit),
        lambda: mm.extract_design(fit), lambda: mm.r2(fit), lambda: mm.ls_residuals(fit),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(mm.UnsupportedError, match="rows"):
            call()
    memory = mm.lmer("Reaction ~ Days + (Days | Subject)", data)
    assert_allclose(fit.predict(data.iloc[:30]), memory.fitted.iloc[:30], rtol=1e-6)
    assert "Number of obs: 180" in fit.summary()


@pytest.mark.parametrize(
    ("formula", "source", "error", "message"),
    [
        ("y ~ x + (1 | g)", (p for p in []), mm.DataError, "generator"),
        ("y ~ x + (1 | g)", [], mm.DataError, "no partitions"),
        ("y ~ x + (1 | g)", "nowhere.parquet", mm.DataError, "no file"),
        ("y ~ x + (1 | g)", [3], mm.DataError, "a partition is a int"),
        ("y ~ nothing + (1 | g)", [frame()], mm.DataError, "'nothing'"),
        ("y ~ poly(x, 2) + (1 | g)", [frame()], mm.UnsupportedError, "depend on all rows"),
        ("y ~ . + (1 | g)", [frame()], mm.UnsupportedError, "'.'"),
    ],
)
def test_bad_sources_are_named(formula, source, error, message):
    with pytest.raises(error, match=message):
        mm.lmer(formula, source)
