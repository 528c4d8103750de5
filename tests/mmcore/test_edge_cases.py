"""Inputs that have bitten lme4, MixedModels.jl and their users: the right number, or an error that says what to do."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from tests.oracles import dense_criterion

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")  # not what these tests are about

RNG = np.random.default_rng(11)
N = 120


@pytest.fixture
def frame():
    rng = np.random.default_rng(4)
    g, h = rng.integers(0, 12, N), rng.integers(0, 5, N)
    x = rng.normal(size=N)
    y = 1 + 0.5 * x + rng.normal(size=12)[g] + 0.5 * rng.normal(size=5)[h] + rng.normal(size=N)
    return pd.DataFrame(
        {
            "y": y, "x": x, "z": rng.normal(size=N), "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h],
            "a": pd.Categorical(rng.choice(list("pqr"), N)), "w": rng.uniform(0.5, 2, N), "o": rng.normal(size=N),
        }
    )  # fmt: skip


def dense(fit, reml=True):
    """The criterion at the fit's theta from n x n matrices."""
    return dense_criterion(fit.design, [L @ L.T for L in fit.Lambda], reml)


def same_model(one, other, atol=1e-9):
    assert_allclose(one.criterion, other.criterion, rtol=0, atol=atol)
    assert_allclose(one.fitted, other.fitted, rtol=1e-6, atol=1e-7)


# --- rank and design ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "formula"),
    [
        (lambda d: d.x, "y ~ x + extra + (1 | g)"),  # a duplicate
        (lambda d: 0 * d.x, "y ~ x + extra + (1 | g)"),  # zero
        (lambda d: 3 - 2 * d.x, "y ~ x + extra + (1 | g)"),  # affine
        (lambda d: d.x, "y ~ extra + x + z + (1 | g)"),  # in front: the later one goes, order is kept
    ],
)
def test_aliased_columns_are_dropped_and_reported_as_nan(frame, column, formula):
    frame["extra"] = column(frame)
    with pytest.warns(mm.RankWarning, match="rank"):
        fit = mm.lmer(formula, frame)
    dropped = [n for n in fit.design.x_names_full if n not in fit.design.x_names]
    assert len(dropped) == 1
    full = fit.fixef_full
    assert list(full.index) == list(fit.design.x_names_full)
    assert np.isnan(full[dropped[0]]) and full.drop(dropped).notna().all()
    same_model(fit, mm.lmer(formula.replace(" + extra", "").replace("extra + ", ""), frame))
    assert_allclose(fit.predict(frame), fit.fitted, rtol=1e-10)


def test_empty_cells(frame):
    frame["b"] = np.where(frame.a == "r", "u", np.where(np.arange(N) % 2, "u", "v"))
    with pytest.warns(mm.RankWarning, match="ar:bv"):
        fit = mm.lmer("y ~ a * b + (1 | g)", frame, reml=False)
    frame["cell"] = frame.a.astype(str) + frame.b
    same_model(fit, mm.lmer("y ~ cell + (1 | g)", frame, reml=False))


@pytest.mark.parametrize("reml", [True, False])
def test_no_fixed_effects(frame, reml):
    fit = mm.lmer("y ~ 0 + (1 | g)", frame, reml=reml)
    assert fit.beta.shape == (0,) and fit.vcov.shape == (0, 0) and len(fit.fixef) == 0
    assert_allclose(
        fit.criterion, dense_criterion(fit.design, [L @ L.T for L in fit.Lambda], False), rtol=1e-12
    )
    assert_allclose(fit.criterion, mm.lmer("y ~ 0 + (1 | g)", frame, reml=not reml).criterion, rtol=1e-12)
    assert "Fixed effects" not in fit.summary()
    assert_allclose(fit.predict(frame), fit.fitted)


def test_offset_alone(frame):
    fit = mm.lmer("y ~ 0 + offset(o) + (1 | g)", frame)
    shifted = mm.lmer("u ~ 0 + (1 | g)", frame.assign(u=frame.y - frame.o))
    assert_allclose(fit.criterion, shifted.criterion, rtol=1e-13)
    assert_allclose(fit.fitted, shifted.fitted + frame.o)


def test_collinear_only_in_a_subset(frame):
    frame["late"] = np.where(np.arange(N) < 60, 0.0, frame.z)
    fit = mm.lmer("y ~ x + late + (1 | g)", frame)
    part = fit.design.take(np.arange(60))
    assert part.x_names == ("(Intercept)", "x")
    same_model(mm.fit_design(part), mm.lmer("y ~ x + (1 | g)", frame[:60]))


@pytest.mark.parametrize("unit", [1e-6, 1e6, 1e8])
def test_columns_of_any_scale(frame, unit):
    plain = mm.lmer("y ~ x + (x | g)", frame)
    scaled = mm.lmer("y ~ x + (x | g)", frame.assign(x=frame.x * unit))
    assert_allclose(scaled.criterion, plain.criterion + 2 * np.log(unit), rtol=1e-10)
    assert_allclose(scaled.fixef["x"] * unit, plain.fixef["x"], rtol=1e-8)
    assert_allclose(scaled.varcorr["g"].sd * [1, unit], plain.varcorr["g"].sd, rtol=1e-4)


@pytest.mark.parametrize("origin", [1e3, 1e6])
def test_a_covariate_far_from_its_origin(frame, origin):
    """Mean / sd of 1e6 leaves ten digits of x, and its coefficient has nearly as many."""
    near = frame.assign(x=(frame.x + origin) - origin)
    plain, far = (mm.lmer("y ~ x + (1 | g)", d) for d in (near, frame.assign(x=frame.x + origin)))
    assert_allclose(far.fixef["x"], plain.fixef["x"], rtol=1e-8)
    assert_allclose(far.criterion, plain.criterion, rtol=1e-10)


def test_a_covariate_that_is_constant_to_eight_digits_is_dropped_as_r_does(frame):
    with pytest.warns(mm.RankWarning, match="dropped 1.*: x"):
        mm.lmer("y ~ x + (1 | g)", frame.assign(x=frame.x + 1e8))


def test_a_random_slope_in_calendar_years(frame):
    """The covariance of intercept and slope is nearly singular at year zero, and only there."""
    frame["year"] = 2000.0 + RNG.integers(0, 9, N)
    frame["y"] += RNG.normal(size=12)[frame.g.str[1:].astype(int)] * (frame.year - 2004)
    plain = mm.lmer("y ~ year + (year | g)", frame.assign(year=frame.year - 2004))
    far = mm.lmer("y ~ year + (year | g)", frame)
    assert_allclose(far.criterion, plain.criterion, rtol=0, atol=1e-7)
    assert_allclose(far.varcorr["g"].sd[1], plain.varcorr["g"].sd[1], rtol=1e-3)
    assert_allclose(far.fitted, plain.fitted, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e4, 1e8])
def test_theta_does_not_depend_on_the_unit_of_y(frame, scale):
    plain, scaled = (mm.lmer("y ~ x + (x | g)", frame.assign(y=frame.y * s)) for s in (1.0, scale))
    assert_allclose(scaled.theta, plain.theta, rtol=1e-6, atol=1e-9)
    assert_allclose(scaled.sigma, plain.sigma * scale, rtol=1e-9)
    assert_allclose(scaled.criterion, plain.criterion + 2 * (N - 2) * np.log(scale), rtol=1e-11)


def test_thirteen_constant_leading_digits():
    """As NIST's SmLs07: all the information is in the last three digits. Eighths are exact in binary."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(9), 21)
    small = (rng.integers(-3, 4, 189) + 4 * rng.integers(-2, 3, 9)[g]) / 8.0
    data = pd.DataFrame({"small": small, "large": 1e12 + small, "g": pd.Categorical(g)})
    near, far = mm.lmer("small ~ 1 + (1 | g)", data), mm.lmer("large ~ 1 + (1 | g)", data)
    assert_allclose(far.sigma, near.sigma, rtol=1e-10)
    assert_allclose(far.theta, near.theta, rtol=1e-8)
    assert_allclose(far.criterion, near.criterion, rtol=1e-10)


# --- missing and infinite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["y", "x", "g", "w", "o"])
def test_rows_with_missing_values(frame, column):
    holed = frame.copy()
    holed.loc[[3, 50], column] = None if column == "g" else np.nan
    arguments = {"weights": "w", "offset": "o"}
    fit = mm.lmer("y ~ x + (1 | g)", holed, **arguments)
    same_model(fit, mm.lmer("y ~ x + (1 | g)", frame.drop(index=[3, 50]), **arguments))
    padded = mm.lmer("y ~ x + (1 | g)", holed, na_action="exclude", **arguments)
    for values in (padded.fitted, padded.resid(), padded.predict()):
        assert len(values) == N and list(np.flatnonzero(np.isnan(values))) == [3, 50]
    assert_allclose(padded.fitted.dropna(), fit.fitted)
    with pytest.raises(mm.DataError, match=column):
        mm.lmer("y ~ x + (1 | g)", holed, na_action="fail", **arguments)


def test_missing_values_elsewhere_do_not_drop_rows(frame):
    frame.loc[:50, "z"] = np.nan
    assert mm.lmer("y ~ x + (1 | g)", frame).nobs == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.inf}, "inf"),
        ({"y": np.inf}, "infinite"),
        ({"w": np.inf}, "weights is infinite in row 7"),
        ({"o": -np.inf}, "offset is infinite in row 7"),
        ({"w": -1.0}, "negative: row 7"),
        ({"w": 0.0}, "row 7 has weight 0"),
    ],
)
def test_values_that_mean_nothing(frame, change, message):
    for name, value in change.items():
        frame.loc[7, name] = value
    with pytest.raises(mm.DataError, match=message):
        mm.lmer("y ~ x + (1 | g)", frame, weights="w", offset="o")


def test_log_of_zero_and_no_rows_left(frame):
    frame["positive"] = np.abs(frame.x)
    frame.loc[5, "positive"] = 0.0
    with pytest.raises(mm.DataError, match=r"log\(positive\) is -inf in row 5"):
        mm.lmer("y ~ log(positive) + (1 | g)", frame)
    frame["x"] = np.nan
    with pytest.raises(mm.DataError, match="no rows are left"):
        mm.lmer("y ~ x + (1 | g)", frame)


def test_missing_rows_of_training_data_do_not_follow_new_data(frame):
    frame.loc[0, "x"] = np.nan
    fit = mm.lmer("y ~ x + (1 | g)", frame)
    new = frame[1:11].copy()
    new.loc[4, "x"] = np.nan
    got = fit.predict(new)
    assert list(np.flatnonzero(np.isnan(got))) == [3]
    assert_allclose(got.dropna(), fit.fitted.loc[got.dropna().index])


# --- groups -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "error"),
    [
        (lambda n: ["only"] * n, "has one level"),
        (lambda n: [f"r{i}" for i in range(n)], f"{N} levels for {N} rows"),
    ],
)
def test_groups_that_cannot_be_used(frame, group, error):
    frame["k"] = group(N)
    with pytest.raises(mm.DesignError, match=error):
        mm.lmer("y ~ x + (1 | k)", frame)


def test_more_effects_than_rows_is_an_error(frame):
    frame["k"] = [f"k{i // 2}" for i in range(N)]
    with pytest.raises(mm.DesignError, match="random effects for 120 rows"):
        mm.lmer("y ~ x + (x | k)", frame)


def test_singletons(frame):
    """All but one level with a single row: every number is finite and the likelihood is the dense one."""
    frame["k"] = ["pair", "pair", *(f"s{i}" for i in range(N - 2))]
    fit = mm.lmer("y ~ x + (1 | k)", frame)
    assert_allclose(
        fit.criterion, dense_criterion(fit.design, [L @ L.T for L in fit.Lambda], True), rtol=1e-11
    )


@pytest.mark.parametrize(
    "values",
    [
        lambda c: c,
        lambda c: c.astype(float),
        lambda c: pd.to_datetime("2024-01-01") + pd.to_timedelta(c, unit="D"),
        lambda c: pd.Categorical([f"g{i}" for i in c], categories=[f"g{i}" for i in range(40)]),
        lambda c: [f"NA{i}" if i else "NA" for i in c],
    ],
    ids=["integer", "float", "date", "categorical with unused levels", "the string NA"],
)
def test_groups_of_every_type_are_the_same_groups(frame, values):
    codes = frame.g.str[1:].astype(int).to_numpy()
    fit = mm.lmer("y ~ x + (1 | k)", frame.assign(k=values(codes)))
    assert fit.ngroups == {"k": 12}
    same_model(fit, mm.lmer("y ~ x + (1 | g)", frame))


def test_two_levels(frame):
    fit = mm.lmer("y ~ x + (1 | k)", frame.assign(k=frame.x > 0))
    assert fit.ngroups == {"k": 2} and list(fit.ranef["k"].index) == [False, True]
    assert_allclose(
        fit.criterion, dense_criterion(fit.design, [L @ L.T for L in fit.Lambda], True), rtol=1e-11
    )


def test_reused_labels_of_nested_groups(frame):
    """a/b makes cells; b alone would pool the first cask of every batch."""
    nested = mm.lmer("y ~ x + (1 | g / h)", frame)
    frame["cell"] = frame.g + frame.h
    same_model(nested, mm.lmer("y ~ x + (1 | g) + (1 | cell)", frame))
    assert nested.ngroups["h:g"] == frame.cell.nunique()
    same_model(mm.lmer("y ~ x + (1 | g:h)", frame), mm.lmer("y ~ x + (1 | cell)", frame))
    three = mm.lmer("y ~ x + (1 | g / h / a)", frame)
    assert list(three.ngroups) == ["a:(h:g)", "h:g", "g"] or len(three.ngroups) == 3


def test_products_of_groups_are_refused(frame):
    with pytest.raises(mm.MixedModelError):
        mm.lmer("y ~ x + (1 | g * h)", frame)


def test_many_groups():
    rng = np.random.default_rng(1)
    g = np.concatenate([np.arange(100_000), rng.integers(0, 100_000, 100_000)])
    frame = pd.DataFrame({"y": 0.7 * rng.normal(size=100_000)[g] + rng.normal(size=200_000), "g": g})
    fit = mm.lmer("y ~ 1 + (1 | g)", frame)
    assert_allclose(fit.theta, 0.7, atol=0.02)


def test_interaction_of_large_factors():
    """10^4 x 10^4 levels of which 30,000 combinations occur."""
    rng = np.random.default_rng(1)
    cell = rng.integers(0, 10_000, (15_000, 2))[rng.integers(0, 15_000, 40_000)]
    frame = pd.DataFrame({"y": rng.normal(size=40_000), "a": cell[:, 0], "b": cell[:, 1]})
    fit = mm.lmer("y ~ 1 + (1 | a:b)", frame)
    assert fit.ngroups["a:b"] == len(frame[["a", "b"]].drop_duplicates())


def test_one_factor_in_two_terms(frame):
    both = mm.lmer("y ~ x + (1 | g) + (0 + x | g)", frame)
    same_model(both, mm.lmer("y ~ x + (x || g)", frame))
    assert list(both.varcorr) == ["g", "g.1"] and list(both.ranef) == ["g"]
    assert list(both.ranef["g"].columns) == ["(Intercept)", "x"]


def test_a_group_that_is_also_a_fixed_effect(frame):
    """Nothing is left for the random effects: theta has no say, and everything else is least squares."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelWarning)
        fit = mm.lmer("y ~ g + (1 | g)", frame)
    simple = mm.lm("y ~ g", frame)
    assert_allclose(fit.fixef, simple.fixef, rtol=1e-8)
    assert_allclose(fit.sigma, simple.sigma, rtol=1e-8)
    assert_allclose(fit.ranef["g"], 0.0, atol=1e-8)


def test_new_data_by_label(frame):
    """Levels are matched by name, whatever their order or type; a group that is absent is named."""
    fit = mm.lmer("y ~ x + (1 | g)", frame)
    new = frame.assign(g=pd.Categorical(frame.g, categories=sorted(set(frame.g), reverse=True)))
    assert_allclose(fit.predict(new), fit.fitted)
    assert_allclose(fit.predict(new[::-1])[::-1], fit.fitted)
    with pytest.raises(mm.DataError, match="'g'"):
        fit.predict(frame[["x"]])
    assert_allclose(fit.predict(frame[["x"]], re_form="~0"), fit.fitted_marginal)


# --- formula ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y ~ x + (x - 1 | g)", "y ~ x + (0 + x | g)"),
        ("y ~ 1 + (1 | g)", "y ~ (1 | g)"),
        ("y ~ x + (1 + x | g)", "y ~ x + (x | g)"),
        ("y ~ x + I(x^2) + (1 | g)", "y ~ x + square + (1 | g)"),
        ("y ~ (x + z)^2 + (1 | g)", "y ~ x * z + (1 | g)"),
        ("y ~ . - g - h - a - w - o - square - `a name` + (1 | g)", "y ~ x + z + (1 | g)"),
        ("y ~ `a name` + (1 | g)", "y ~ x + (1 | g)"),
        ("y ~ x + (a || g)", "y ~ x + (1 | g) + (0 + a | g)"),
    ],
)
def test_ways_of_writing_the_same_model(frame, one, other):
    frame["square"], frame["a name"] = frame.x**2, frame.x
    same_model(mm.lmer(one, frame), mm.lmer(other, frame), atol=1e-6)


def test_a_bar_without_parentheses_is_explained(frame):
    with pytest.raises(mm.MixedModelError):
        mm.lmer("y ~ x + z | g + h", frame)


def test_long_names_of_many_terms(frame):
    columns = [f"covariate_with_a_long_name_{i:02d}" for i in range(12)]
    for name in columns:
        frame[name] = RNG.normal(size=N)
    bars = " + ".join(f"(0 + {name} | g)" for name in columns)
    fit = mm.lmer(f"y ~ x + (1 | g) + {bars}", frame)
    assert len(fit.theta) == 13 and fit.converged
    assert all(name in fit.summary() for name in columns)


def test_offset_in_the_formula_and_as_an_argument_add_up(frame):
    both = mm.lmer("y ~ x + offset(o) + (1 | g)", frame, offset=frame.z)
    same_model(both, mm.lmer("y ~ x + (1 | g)", frame, offset=frame.o + frame.z))


# --- weights and offset -------------------------------------------------------------------------------------


def test_weights_of_a_constant_change_sigma_alone(frame):
    plain, weighted = (
        mm.lmer("y ~ x + (1 | g)", frame),
        mm.lmer("y ~ x + (1 | g)", frame, weights=np.full(N, 4.0)),
    )
    assert_allclose(weighted.criterion, plain.criterion, rtol=1e-12)
    assert_allclose(weighted.sigma, 2 * plain.sigma, rtol=1e-8)
    assert_allclose(weighted.fixef, plain.fixef, rtol=1e-8)
    assert_allclose(weighted.resid("pearson"), 2 * plain.resid("pearson"), rtol=1e-6)


def test_an_offset_of_three_x_lowers_the_slope_by_three(frame):
    plain, moved = (mm.lmer("y ~ x + (1 | g)", frame, offset=o) for o in (None, 3 * frame.x))
    assert_allclose(moved.fixef["x"], plain.fixef["x"] - 3, rtol=1e-8)
    same_model(moved, plain)
    assert_allclose(moved.predict(frame, offset=3 * frame.x), plain.fitted, rtol=1e-7)


# --- likelihood ---------------------------------------------------------------------------------------------


def test_false_zero():
    """Balanced one-way data with a small group variance: REML in closed form, which optimizers once missed."""
    rng = np.random.default_rng(0)
    groups, each = 30, 8
    g = np.repeat(np.arange(groups), each)
    y = 0.15 * rng.normal(size=groups)[g] + rng.normal(size=groups * each)
    means = np.bincount(g, y) / each
    within = np.sum((y - means[g]) ** 2) / (groups * (each - 1))
    between = each * np.var(means, ddof=1)
    fit = mm.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": pd.Categorical(g)}))
    assert between > within
    assert_allclose(fit.theta, [np.sqrt((between / within - 1) / each)], rtol=1e-6)
    assert_allclose(fit.sigma, np.sqrt(within), rtol=1e-8)


def test_signs_of_theta_are_canonical(frame):
    fit = mm.lmer("y ~ x + (x | g)", frame)
    flipped = mm.fit_at("y ~ x + (x | g)", frame, fit.theta * [-1, -1, -1])
    assert_allclose(flipped.criterion, fit.criterion, rtol=1e-12)
    again = mm.lmer("y ~ x + (x | g)", frame, start=fit.theta * [-1, -1, 1])
    assert (again.theta.iloc[[0, 2]] >= 0).all()
    assert_allclose(again.theta, fit.theta, rtol=1e-5, atol=1e-8)


def test_nlme_oxide_has_the_higher_of_its_two_optima():
    """Two variances of nested factors: the published optimum (Pinheiro & Bates 2000, p. 170)."""
    fit = mm.lmer("Thickness ~ 1 + (1 | Lot / Wafer)", mm.load_dataset("Oxide"))
    assert_allclose(fit.loglik, -227.011, atol=6e-4)
    assert_allclose([t.sd[0] for t in fit.varcorr.values()], [5.9888, 11.398], rtol=1e-4)
    assert_allclose(fit.sigma, 3.5453, rtol=2e-4)


def test_without_fixed_effects_deletion_measures_say_so_and_estimates_are_there(frame):
    """X has no column: refits exist, and are literal ones; what they do to the fixed effects does not."""
    fit = mm.lmer("y ~ 0 + (1 | g)", frame, reml=False)
    deletion = mm.case_delete(fit)
    left = mm.lmer("y ~ 0 + (1 | g)", frame.drop(index=[7]), reml=False)
    assert deletion.fixef.shape == (N, 0)
    assert_allclose(deletion.sigma[7], left.sigma, rtol=1e-7)
    for measure in (deletion.cooks_distance, deletion.mdffits, deletion.covtrace, deletion.covratio):
        with pytest.raises(mm.UnsupportedError, match="no fixed effects"):
            measure()
