"""Marginal means, contrasts and robust covariances against recorded values of R (see recorded/margins.R)."""

from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import mmcore as mm
from mmcore.inference.margins.emmeans import contrasts, emmeans
from mmcore.inference.margins.tukey import range_quantile, range_sf
from mmcore.inference.robust.robust import coef_test, vcov_robust

RECORDED = json.loads((Path(__file__).parent / "recorded" / "margins.json").read_text(encoding="utf-8"))
TABLES = RECORDED["emmeans"]
pytestmark = pytest.mark.filterwarnings("ignore:means of:mmcore.errors.MixedModelWarning")


@cache
def sleep() -> pd.DataFrame:
    data = mm.load_dataset("sleepstudy")
    return data.assign(w=1 + (np.arange(1, 181) % 5) / 2, late=(data.Days > 4).astype(float))


@cache
def oats() -> pd.DataFrame:
    data = mm.load_dataset("Oats")
    return data.assign(Variety=data.Variety.astype(str), nf=data.nitro.map("{:g}".format))


def gap() -> pd.DataFrame:
    return oats()[~((oats().Variety == "Victory") & (oats().nf == "0.6"))]


def pastes() -> pd.DataFrame:
    data = mm.load_dataset("Pastes")
    return data[data.batch.isin(["A", "B", "C"])].iloc[2:]


@cache
def model(name: str) -> mm.Fit:
    """The model that margins.R has under this name."""
    if name == "binomial":
        data = mm.load_dataset("cbpp")
        return mm.glm("cbind(incidence, size - incidence) ~ period", data, family="binomial")
    if name == "poisson":
        return mm.glm("incidence ~ period + offset(log(size))", mm.load_dataset("cbpp"), family="poisson")
    if name == "gamma":
        return mm.glm("Reaction ~ Days", sleep(), family="gamma", link="log", weights="w")
    if name == "gammanf":
        return mm.glm("yield ~ Variety + nf", oats(), family="gamma", link="log")
    formulas = {
        "lm": ("Reaction ~ Days", sleep, {}),
        "wlm": ("Reaction ~ Days", sleep, {"weights": "w"}),
        "quadratic": ("Reaction ~ poly(Days, 2) + Subject", sleep, {}),
        "late": ("Reaction ~ late + Subject", sleep, {}),
        "interaction": ("yield ~ Variety * nf", oats, {}),
        "slope": ("yield ~ Variety * nitro", oats, {}),
        "gap": ("yield ~ Variety * nf", gap, {}),
        "nested": ("strength ~ batch + sample", pastes, {}),
        "sums": ("yield ~ Variety * nf", oats, {"contrasts": {"Variety": "sum"}}),
        "coded": ("Reaction ~ factor(Days) + Subject", sleep, {}),
    }
    formula, data, options = formulas[name]
    if name in ("gap", "nested"):
        with pytest.warns(mm.RankWarning):
            return mm.lm(formula, data(), **options)
    return mm.lm(formula, data(), **options)


def numbers(values: list) -> np.ndarray:
    """Recorded text as numbers; R's NA and nonEst are NaN."""
    return np.array([np.nan if v in ("NA", "nonEst", None) else float(v) for v in values])


SAME = {
    "asymp.LCL": "lower.CL", "asymp.UCL": "upper.CL", "z.ratio": "t.ratio", "prob": "emmean",
}  # fmt: skip


def agree(got: pd.DataFrame, want: dict, rtol: float = 1e-8) -> None:
    """Every recorded column, row by row, by label where the rows have one variable."""
    assert len(got) == len(want[".row"])
    if not isinstance(got.index, pd.MultiIndex):
        assert [str(label) for label in got.index] == want[".row"]
    for column, values in want.items():
        if column == ".row":
            continue
        recorded = numbers(values)
        # R's ptukey is good to 8 digits after the point, no more.
        atol = (
            2e-8
            if column == "p.value"
            else 1e-10 * np.nanmax(np.abs(recorded[np.isfinite(recorded)]), initial=0)
        )
        assert_allclose(got[SAME.get(column, column)], recorded, rtol=rtol, atol=atol, err_msg=column)


@pytest.mark.parametrize(
    ("name", "specs", "options"),
    [
        ("binomial|period", "period", {}),
        ("binomial|period|response", "period", {"type": "response"}),
        ("poisson|period", "period", {}),
        ("gammanf|nf", "nf", {}),
        ("late|Subject", "Subject", {}),
        ("interaction|nf", "nf", {}),
        ("gap|Variety", "Variety", {}),
        ("sums|Variety", "Variety", {}),
        ("slope|Variety:nitro|at", "Variety:nitro", {"at": {"nitro": [0, 0.6]}}),
    ],
)
def test_means_are_those_of_emmeans(name, specs, options):
    agree(emmeans(model(name.split("|")[0]), specs, **options), TABLES[name])


def test_a_covariate_inside_a_basis_needs_the_data():
    with pytest.raises(mm.DataError, match="'Days' only inside poly"):
        emmeans(model("quadratic"), "Subject")
    agree(emmeans(model("quadratic"), "Subject", data=sleep()), TABLES["quadratic|Subject"])


def test_means_over_a_nested_factor_are_over_its_own_levels_and_it_is_said():
    with pytest.warns(mm.MixedModelWarning, match="sample is nested in batch"):
        got = emmeans(model("nested"), "batch")
    agree(got, TABLES["nested|batch"])


@pytest.mark.parametrize("adjust", ["tukey", "holm", "bonferroni", "sidak", "fdr", "none"])
def test_pairs_with_every_adjustment(adjust):
    agree(emmeans(model("interaction"), "nf").pairs(adjust), TABLES[f"interaction|nf|pairs|{adjust}"])


@pytest.mark.parametrize("method", ["poly", "eff", "trt.vs.ctrl", "consec"])
def test_other_contrasts(method):
    agree(contrasts(emmeans(model("interaction"), "nf"), method), TABLES[f"interaction|nf|contrast|{method}"])


@pytest.mark.parametrize(
    ("name", "specs", "options", "adjust"),
    [
        ("binomial|period|pairs", "period", {}, "tukey"),
        ("late|late|pairs", "late", {}, "tukey"),
        ("interaction|nf:Variety|pairs", "nf:Variety", {}, "tukey"),
        ("interaction|nf by Variety|pairs", "nf | Variety", {}, "tukey"),
        ("slope|Variety:nitro|at|pairs", "Variety:nitro", {"at": {"nitro": [0, 0.6]}}, "tukey"),
        ("gap|Variety|pairs", "Variety", {}, "tukey"),
        ("coded|Days|pairs", "Days", {}, "holm"),
    ],
)
def test_pairs_are_those_of_emmeans(name, specs, options, adjust):
    agree(emmeans(model(name.split("|")[0]), specs, **options).pairs(adjust), TABLES[name])


def test_families_are_the_levels_of_by():
    got = emmeans(model("interaction"), "nf", by="Variety").pairs()
    assert list(got.index.names) == ["contrast", "Variety"]
    assert got.index[0] == ("nf0 - nf0.2", "Golden Rain")
    pd.testing.assert_frame_equal(got, emmeans(model("interaction"), "~ nf | Variety").pairs())


def test_operators_in_levels_are_put_in_parentheses():
    data = oats().assign(v=oats().Variety.map({"Golden Rain": "a-b", "Marvellous": "c", "Victory": "d + e"}))
    got = emmeans(mm.lm("yield ~ v", data), "v").pairs()
    assert list(got.index) == ["(a-b) - c", "(a-b) - (d + e)", "c - (d + e)"]


def test_limits_of_pairs_hold_together():
    """Their width is the quantile of the studentized range over sqrt 2."""
    got = emmeans(model("interaction"), "nf").pairs(level=0.9)
    half = (got["upper.CL"] - got["lower.CL"]) / 2 / got["SE"] * np.sqrt(2)
    assert_allclose([range_sf(q, 4, 60.0) for q in half], 0.1, rtol=1e-10)


def test_means_of_a_mixed_model_are_contrasts_of_its_coefficients():
    """By hand: recipe means of an additive model, their variance and a Kenward-Roger df of the same contrast."""
    from mmcore.inference.df.kenward_roger import kenward_roger

    fit = mm.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", mm.load_dataset("cake"))
    got, known = emmeans(fit, "recipe"), kenward_roger(fit)
    mean = fit.design.X[:, list(fit.design.x_names).index("temp")].mean()
    for level in "ABC":
        row = np.array([1.0 * (name in ("(Intercept)", f"recipe{level}")) for name in fit.design.x_names])
        row[list(fit.design.x_names).index("temp")] = mean
        assert_allclose(got.loc[level, "emmean"], row @ fit.beta, rtol=1e-12)
        assert_allclose(got.loc[level, "SE"], np.sqrt(row @ known.vcov @ row), rtol=1e-12)
        assert_allclose(got.loc[level, "df"], known.df(row), rtol=1e-9)


def test_how_levels_are_coded_does_not_matter():
    for coding in ("sum", "helmert"):
        fit = mm.lm("yield ~ Variety * nf", oats(), contrasts={"Variety": coding, "nf": "poly"})
        assert_allclose(emmeans(fit, "nf"), emmeans(model("interaction"), "nf"), rtol=1e-9)


def test_a_robust_covariance_takes_the_place_of_the_models():
    fit = model("interaction")
    V = vcov_robust(fit, "CR0", oats()["Block"])
    L = np.eye(12)[0]
    got = emmeans(fit, "Variety:nf", vcov=V)
    assert_allclose(got["SE"].iloc[0], np.sqrt(L @ V.to_numpy() @ L), rtol=1e-12)


def test_means_survive_pickle_and_slices_are_plain_frames():
    means = emmeans(model("interaction"), "nf")
    again = pickle.loads(pickle.dumps(means))
    pd.testing.assert_frame_equal(again.pairs(), means.pairs())
    assert type(means[["emmean", "SE"]]) is pd.DataFrame


@pytest.mark.filterwarnings("default:means of:mmcore.errors.MixedModelWarning")
def test_means_over_an_interaction_are_said_to_mislead():
    with pytest.warns(mm.MixedModelWarning, match="means of nf are over Variety, with which"):
        emmeans(model("interaction"), "nf")


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ("nobody", {}, "'nobody' is not a variable of the fixed part"),
        ("nf", {"at": {"nf": ["0.3"]}}, "nf has no level '0.3'"),
        ("nf", {"at": {"x": 1}}, "at names 'x'"),
        ("nf", {"at": {"nf": []}}, "is empty"),
        ("nf", {"ddf": "guess"}, "ddf='guess' is not one of"),
        ("nf", {"type": "odds"}, "type='odds'"),
        ("nf", {"vcov": np.eye(3)}, r"shape \(3, 3\); the model has 12"),
        ("nf", {"level": 95}, "level must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_is_named(specs, options, message):
    with pytest.raises(mm.DataError, match=message):
        emmeans(model("interaction"), specs, **options)


def test_contrasts_that_cannot_be_are_named():
    means = emmeans(model("interaction"), "nf")
    with pytest.raises(mm.DataError, match="adjust='tukey' is not one of holm"):
        contrasts(means, "eff", adjust="tukey")
    with pytest.raises(mm.DataError, match=r"weights of shape \(2,\) for 4 means"):
        contrasts(means, {"odd": [1, -1]})
    with pytest.raises(mm.DataError, match="takes what emmeans returned"):
        contrasts(pd.DataFrame(means))
    got = contrasts(means, {"first less last": [1, 0, 0, -1]})
    assert_allclose(got.iloc[0], means.pairs("none").loc["nf0 - nf0.6"], rtol=1e-12)


# --- the studentized range --------------------------------------------------------------------------------


@pytest.mark.parametrize("df", [1.0, 2.0, 5.5, 24.0, 3000.0, np.inf])
@pytest.mark.parametrize("q", [0.1, 1.0, 3.5, 12.0])
def test_the_range_of_two_means_is_a_t_test(q, df):
    assert_allclose(range_sf(q, 2, df), 2 * stats.t.sf(q / np.sqrt(2), df), rtol=1e-10)


@pytest.mark.parametrize(("q", "k", "df"), [(3.5, 3, 8.0), (6.0, 4, 24.0), (12.0, 12, 5.5), (2.0, 40, 60.0)])
def test_the_range_of_more_means_is_scipys_integral(q, k, df):
    assert_allclose(range_sf(q, k, df), stats.studentized_range.sf(q, k, df), rtol=1e-9, atol=1e-12)


def test_quantiles_invert_the_tail():
    for p, k, df in [(0.05, 3, 42.0), (1e-6, 10, 7.0), (0.5, 2, 1.0), (0.05, 5, np.inf)]:
        assert_allclose(range_sf(range_quantile(p, k, df), k, df), p, rtol=1e-9)


# --- robust covariances of lm and glm ---------------------------------------------------------------------

ROBUST = [(m, kind) for m, kinds in RECORDED["robust"].items() for kind in kinds]


@pytest.mark.parametrize(("name", "kind"), ROBUST)
def test_robust_covariances_are_those_of_clubsandwich_and_sandwich(name, kind):
    fit, want = model(name), RECORDED["robust"][name][kind]
    p = fit.design.p
    matrix = numbers(want["vcov"]).reshape(p, p)
    scale = np.sqrt(np.outer(matrix.diagonal(), matrix.diagonal()))
    if kind.startswith("HC"):
        assert_allclose(vcov_robust(fit, kind) / scale, matrix / scale, rtol=0, atol=1e-9)
        return
    cluster = mm.load_dataset("cbpp")["herd"] if name in ("binomial", "poisson") else sleep()["Subject"]
    got, table = vcov_robust(fit, kind, cluster), coef_test(fit, kind, cluster)
    assert list(got.index) == want["rows"]
    assert_allclose(got / scale, matrix / scale, rtol=0, atol=1e-9)
    assert_allclose(table["df"], numbers(want["df"]), rtol=1e-8)
    assert_allclose(table["p"], numbers(want["p"]), rtol=1e-7)
