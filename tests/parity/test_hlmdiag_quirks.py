"""Where HLMdiag 0.5.1 is wrong: its formula restated, the right value from dense matrices or literal refits, and the
verdict that the harness gives. What it said is in tests/data/hlmdiag_quirks.json."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.design.grouping import level_text
from parity.compare.judge import Pair, compare
from parity.compare.run import run
from parity.engines.mmcore.engine import MmcoreEngine
from parity.schema.case import Case, frame, load_cases
from parity.schema.known import load_known
from parity.schema.policy import default_policy
from parity.schema.results import Missing, Value
from parity.schema.verdicts import Verdict
from tests.dense_influence import deletions, dense, sets_of
from tests.parity import as_shipped as shipped

pytestmark = [
    pytest.mark.filterwarnings("ignore::mmcore.SingularWarning"),
    pytest.mark.filterwarnings("ignore::mmcore.MixedModelWarning"),
]
SAID = json.loads((Path(__file__).parents[1] / "data" / "hlmdiag_quirks.json").read_text())
ITEMS = {item["id"]: item for item in SAID["items"]}
CASES = {case.name: case for case in load_cases()}
CASES["one_coefficient"] = Case(
    name="one_coefficient", data="Rail", formula="I(travel / 40) ~ 1 + (1 | Rail)"
)
SLOPE = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.load_dataset("sleepstudy")


def figure(item, name):
    return ITEMS[item]["figures"][name]


def by_label(value):
    return dict(zip(value.labels, value.values.tolist(), strict=True))


def gap(a, b):
    """Largest difference of two values, label by label."""
    other = by_label(b)
    return max(abs(x - other[label]) for label, x in by_label(a).items())


def test_each_item_has_a_test_and_a_verdict():
    for item in ITEMS.values():
        assert item["verdict"] in {str(verdict) for verdict in Verdict}, item["id"]
        assert item["test"] in globals(), item["id"]
        assert item.get("case", "one_coefficient") in CASES
    assert "HLMdiag 0.5.1" in SAID["provenance"]


# --- wrong numbers ------------------------------------------------------------------------------------------

# item -> formula as shipped, name of the reference, quantities that it spoils
WRONG = {
    "weights": (
        shipped.unweighted, "hlmdiag",
        ("cooks_distance_marginal", "mdffits_marginal_group", "covratio_marginal", "leverage_overall"),
    ),
    "offset": (
        shipped.raw_response, "hlmdiag",
        ("cooks_distance_marginal", "cooks_distance_marginal_group", "mdffits_marginal", "resid_marginal"),
    ),
    "reml_refits": (shipped.refitted_by_reml, "hlmdiag", ("rvc_group",)),
    "zeros_dropped": (shipped.zeros_dropped, "hlmdiag", ("rvc_group",)),
    "labels": (
        shipped.misaligned, "hlmdiag:hlm_influence", ("leverage_overall_group", "leverage_ranef_uc_group")
    ),
    "no_intercept": (shipped.intercept_invented, "hlmdiag", ("fitted_ls", "resid_ls")),
    "one_coefficient": (shipped.one_coefficient_unscaled, "hlmdiag", ("ranef_ls_std",)),
}  # fmt: skip


def verdicts(item, known):
    formula, name, quantities = WRONG[item]
    case = CASES[ITEMS[item]["case"]]
    reference = shipped.AsShipped(formula, name)
    report = run([case], MmcoreEngine(), [reference], lanes=["at_theta"], quantities=quantities, known=known)
    return {row.quantity: row for row in report.rows if row.quantity in quantities}


@pytest.mark.parametrize("item", WRONG)
def test_a_wrong_formula_is_told_from_the_right_one(item):
    """It fails the gate; the list of known differences says whose fault it is, with evidence."""
    quantities = WRONG[item][2]
    plain = verdicts(item, ())
    assert set(plain) == set(quantities)
    # our leverage is that of lme4's hatvalues, which the reference gives too: then it says so
    assert {row.verdict for row in plain.values()} <= {Verdict.DISAGREE, Verdict.DEFINITION_DIFFERS}
    explained = verdicts(item, load_known())
    assert {row.verdict for row in explained.values()} == {Verdict(ITEMS[item]["verdict"])}
    assert all("evidence:" in row.message for row in explained.values())


@pytest.mark.parametrize("item", ["weights", "offset"])
def test_one_step_measures_are_generalised_least_squares_on_the_rows_left(item):
    fit = shipped.fit_of(CASES[ITEMS[item]["case"]])
    wrong = WRONG[item][0](fit)
    for level, suffix in ((1, ""), ("Subject", "_group")):
        right = deletions(fit, sets_of(fit, level)[1])
        assert_allclose(mm.cooks_distance(fit, level), right["cooksd"], rtol=1e-7, atol=1e-12)
        assert_allclose(mm.mdffits(fit, level), right["mdffits"], rtol=1e-7, atol=1e-12)
        off = np.abs(wrong[f"cooks_distance_marginal{suffix}"].values - right["cooksd"]).max()
        assert off > 0.03 * right["cooksd"].max()


def test_leverage_with_weights_sums_to_the_number_of_coefficients():
    fit = shipped.fit_of(CASES["sleepstudy_weights_reml"])
    assert_allclose(mm.leverage(fit).fixef.sum(), 2.0)
    assert abs(shipped.unweighted(fit)["leverage_fixef"].values.sum() - 2.0) > 0.01


def test_figures_of_refits_without_the_offset(sleep):
    fit = mm.lmer("Reaction ~ Days + (1 | Subject)", sleep, offset=3.0 * sleep.Days.to_numpy())
    wrong = shipped.refitted_by_reml(fit)["cooks_distance_refit_group"].values.max()
    name = "largest Cook's distance, offset 3 Days, by Subject"
    assert_allclose(wrong, figure("offset_refits", name), atol=0.05)
    right = mm.cooks_distance(fit, "Subject", kind="refit")
    assert_allclose(right.max(), figure("offset_refits", "right"), atol=5e-4)
    plain = mm.lmer(
        "Reaction ~ Days + (1 | Subject)", sleep
    )  # a multiple of a column moves beta, nothing else
    assert_allclose(right, mm.cooks_distance(plain, "Subject", kind="refit"), rtol=1e-5)


def test_figures_of_refits_by_the_wrong_criterion():
    case = CASES["sleepstudy_slope_ml"]
    fit = shipped.fit_of(case)
    own = MmcoreEngine().run(case, ["rvc_group"]).values["rvc_group"]
    wrong = shipped.refitted_by_reml(fit)["rvc_group"]
    assert_allclose(gap(wrong, own), figure("reml_refits", "largest error of rvc, sleepstudy"), atol=5e-3)
    cold = mm.lmer(case.formula, frame(case).query("Subject != '337'"), reml=False)
    right = by_label(own)["Subject|337|D22"]
    assert_allclose(right, mm.varcomp(cold)["D22"] / mm.varcomp(fit)["D22"] - 1, atol=1e-5)


def test_figures_of_a_component_that_vanishes():
    case = CASES["pastes_nested_reml"]
    wrong = by_label(shipped.zeros_dropped(shipped.fit_of(case))["rvc_group"])
    own = by_label(MmcoreEngine().run(case, ["rvc_group"]).values["rvc_group"])
    assert_allclose(
        wrong["batch|E|D22"], figure("zeros_dropped", "rvc of D22 without batch E of Pastes"), atol=5e-4
    )
    assert_allclose(own["batch|E|D22"], figure("zeros_dropped", "right"), atol=1e-10)


def test_group_leverage_is_the_mean_over_the_rows_of_its_label():
    case = CASES["pixel_nested_slope_reml"]
    fit = shipped.fit_of(case)
    wrong = by_label(shipped.misaligned(fit)["leverage_overall_group"])
    worst = 0.0
    for group in dict.fromkeys(t.group for t in fit.design.terms):
        labels, sets = sets_of(fit, group)
        means = [mm.leverage(fit).overall.to_numpy()[A].mean() for A in sets]
        assert_allclose(mm.leverage(fit, group).overall.loc[labels], means)
        worst = max(
            worst, *(abs(wrong[f"{group}|{level_text(x)}"] - m) for x, m in zip(labels, means, strict=True))
        )
    assert worst > 0.1


def test_separate_fits_use_the_columns_of_the_model(sleep):
    fit = mm.lmer("Reaction ~ 0 + Days + (1 | Subject)", sleep)
    wrong = shipped.intercept_invented(fit)["resid_ls"].values
    mean = sleep.groupby("Subject", observed=True).Reaction.transform("mean")
    assert_allclose(wrong, sleep.Reaction - mean)  # those of y ~ 1
    right = mm.ls_residuals(fit)[".ls.resid"]
    one = sleep[sleep.Subject == "308"]
    slope = (one.Days @ one.Reaction) / (one.Days @ one.Days)
    assert_allclose(right[:10], one.Reaction - slope * one.Days)
    assert np.abs(wrong - right).max() > 300


def test_standardised_deviations_have_standard_deviation_one():
    case = CASES["one_coefficient"]
    own = MmcoreEngine().run(case, ["ranef_ls", "ranef_ls_std"]).values
    assert_allclose(np.std(own["ranef_ls_std"].values, ddof=1), 1.0)
    wrong = shipped.one_coefficient_unscaled(shipped.fit_of(case))["ranef_ls_std"]
    assert gap(wrong, own["ranef_ls"]) == 0.0  # as in HLMdiag at a standard deviation of 0.533


def test_sorted_and_recycled_rows(sleep):
    """Columns that are sorted or recycled no longer add up to the response, row by row."""
    fit = mm.lmer(SLOPE, sleep)
    names = np.random.default_rng(2).permutation(180) + 1
    table = mm.hlm_resid(mm.lmer(SLOPE, sleep.set_axis(names, axis=0)))
    assert_allclose(table[".ls.resid"] + table[".ls.fitted"], sleep.Reaction)
    moved = shipped.sorted_by_row_name(table[".ls.resid"].to_numpy(), names)
    assert np.abs(moved + table[".ls.fitted"] - sleep.Reaction.to_numpy()).max() > 50

    holes = sleep.assign(Reaction=sleep.Reaction.where(~sleep.index.isin([6, 40, 41])))
    excluded = mm.lmer(SLOPE, holes, na_action="exclude")
    right = mm.resid_marginal(excluded)
    assert list(np.flatnonzero(right.isna())) == [6, 40, 41]
    wrong = holes.Reaction.to_numpy() - shipped.recycled(excluded.fitted_marginal, 180)
    first = np.flatnonzero(~np.isclose(wrong, right, equal_nan=True))[0]
    assert first == 7  # wrong from the first missing row on
    assert fit.nobs - excluded.nobs == 3


def test_one_levels_variance_is_not_that_of_others(sleep):
    fit = mm.lmer(SLOPE, sleep.drop(index=[3, 25, 26, 111]))
    levels, wrong, right = shipped.first_level_for_all(fit)
    o = dense(fit)
    Z = np.asarray(fit.design.Z().todense())
    D = fit.sigma**2 * np.kron(np.eye(len(levels)), fit.Lambda[0] @ fit.Lambda[0].T)
    spread = np.sqrt(np.diag(D @ Z.T @ o.Vinv @ Z @ D)).reshape(-1, 2)
    assert_allclose(right, fit.b[0] / spread, rtol=1e-6)
    assert np.abs(wrong - right).max() > 0.01


def test_undetermined_coefficients_are_nan_not_huge():
    case = Case(
        name="own_dummy", data="Dyestuff", formula="Yield ~ lone + (1 | Batch)",
        columns={"lone": (1.0, *[0.0] * 29)},
    )  # fmt: skip
    fit = shipped.fit_of(case)
    huge = by_label(shipped.one_step_of(fit, dense(fit).V, fit.design.y)["covratio_marginal"])["1"]
    assert not abs(huge) < figure("own_dummy", "covratio at least")
    with pytest.warns(mm.MixedModelWarning, match="1"):
        assert np.isnan(mm.covratio(fit)).tolist() == [True, *[False] * 29]
    reference = shipped.AsShipped(lambda f: shipped.one_step_of(f, dense(f).V, f.design.y))
    row = one_row(case, reference, "covratio_marginal", load_known())
    assert row.verdict is Verdict(ITEMS["own_dummy"]["verdict"])
    assert one_row(case, reference, "covratio_marginal").verdict is Verdict.UNDEFINED_IN_ENGINE


def one_row(case, reference, quantity, known=()):
    report = run([case], MmcoreEngine(), [reference], lanes=["at_theta"], quantities=[quantity], known=known)
    return next(row for row in report.rows if row.quantity in (quantity, "*"))


def test_covariates_by_parts_of_names(sleep):
    """`S`, constant in no subject, is part of the name `SES`, which is: 180 rows instead of 18."""
    ses = sleep.Subject.cat.codes.astype(float) % 5
    data = sleep.assign(S=np.arange(180.0) % 7, SES=ses)
    columns = shipped.covariate_columns(["SES"], ["S", "SES"])
    wrong = len(data[["Subject", *columns]].drop_duplicates())
    table = mm.hlm_resid(mm.lmer("Reaction ~ S + SES + (1 | Subject)", data), "Subject")
    assert wrong > len(table) == figure("substring", "rows, right")
    assert wrong <= figure("substring", "rows, HLMdiag")
    assert "SES" in table and "S" not in table


def test_deleting_nothing_is_an_error(sleep):
    fit = mm.lmer(SLOPE, sleep)
    no_rows = np.array([], dtype=int)  # the rows of subjects named 1 to 10
    wrong = shipped.of_set(fit, dense(fit).V, fit.design.y, no_rows)
    assert_allclose(wrong["cooks_distance"], figure("delete_labels", "cooksd"), atol=1e-12)
    assert_allclose(wrong["covratio"], figure("delete_labels", "covratio"))
    with pytest.raises(mm.DataError, match="1, 2, 3"):
        mm.cooks_distance(fit, "Subject", delete=list(range(1, 11)))


# --- other definitions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given"),
    [("cooks_distance_plugin", "cooks_distance_marginal"), ("ranef_std_lme4", "ranef_std_nlme")],
)
def test_a_namesake_is_recognised(asked, given):
    """An engine that takes one definition for the other is told which one it has."""
    case = CASES["sleepstudy_slope_reml"]
    theta = shipped.fit_of(case).theta.to_numpy()
    names = [asked, given, "theta", "y_response", "se_fixef", "vcov_fixef", "criterion"]
    right = MmcoreEngine().run(case, names, theta)
    swapped = replace(right, values={**right.values, asked: right.values[given]})
    rows = compare(Pair(case, "at_theta", swapped, right, default_policy(), (asked,)))
    assert [row.verdict for row in rows] == [Verdict.DEFINITION_DIFFERS]
    assert given in rows[0].message


def test_figures_of_namesakes(sleep):
    fit = mm.lmer(SLOPE, sleep)
    between = np.abs(mm.cooks_distance(fit) - mm.cooks_distance(fit, kind="plugin")).max()
    assert_allclose(between, figure("cooks_distance_masked", "largest difference, sleepstudy"), atol=5e-3)
    values = MmcoreEngine().run(CASES["sleepstudy_slope_reml"], ["ranef_std_lme4", "ranef_std_nlme"]).values
    for name, key in (("ranef_std_lme4", "intercept of 308, lmer"), ("ranef_std_nlme", "lme")):
        assert_allclose(
            by_label(values[name])["Subject|308|(Intercept)"], figure("std_ranef", key), atol=5e-4
        )


def test_rvc_of_a_covariance_has_no_scale(sleep):
    rvc = mm.rvc(mm.lmer(SLOPE, sleep), "Subject").D21
    assert_allclose(rvc.min(), figure("rvc_covariances", "least rvc of D21, sleepstudy"), atol=5e-3)
    assert_allclose(rvc.max(), figure("rvc_covariances", "largest"), atol=5e-3)


def test_unconfounded_leverage_is_relative(sleep):
    fit = mm.lmer(SLOPE, sleep)
    G = dense(fit).G
    assert_allclose(mm.leverage(fit)["ranef.uc"], np.diag(G))
    assert np.diag(G).max() > 1  # not bounded by one, and not diag(Z D Z')


# --- what HLMdiag refuses -------------------------------------------------------------------------------------

REFUSED = {
    "crossed": ("penicillin_crossed_reml", "leverage_overall", "not implemented for crossed random effects"),
    "double_bar": ("sleepstudy_doublebar_reml", "ranef_std_lme4", "'dims' cannot be of length 0"),
    "p_one": ("dyestuff_reml", "cooks_distance_refit", "non-conformable arguments"),
    "delete_refits": ("dyestuff_reml", "mdffits_refit_group", "argument is of length zero"),
    "one_coefficient_stops": ("dyestuff_reml", "ranef_ls_std", "non-conformable arguments"),
}


@pytest.mark.parametrize("item", REFUSED)
def test_what_hlmdiag_refuses_is_a_value_here(item):
    name, quantity, message = REFUSED[item]
    reference = shipped.AsShipped(lambda fit: {quantity: Missing("undefined", message)})
    row = one_row(CASES[name], reference, quantity)
    assert row.verdict is Verdict(ITEMS[item]["verdict"])
    assert message in row.message
    ours = MmcoreEngine().run(CASES[name], [quantity])
    assert np.isfinite(ours.values[quantity].values).all()


def test_a_reference_that_dies_is_told():
    class Dies(shipped.AsShipped):
        def run(self, case, quantities, theta=None):
            return replace(
                super().run(case, [], theta), status="crashed", message="Mat::elem(): index out of bounds"
            )

    row = one_row(CASES["dyestuff_reml"], Dies(lambda fit: {}), "cooks_distance_marginal")
    assert row.verdict is Verdict(ITEMS["delete_abort"]["verdict"])
    fit = shipped.fit_of(CASES["dyestuff_reml"])
    for wrong in (0, 31, -1):
        with pytest.raises(mm.DataError, match=str(wrong)):
            mm.cooks_distance(fit, delete=[wrong])
    assert_allclose(mm.cooks_distance(fit, delete=[1, 1]), mm.cooks_distance(fit)[1])  # a set


def test_what_neither_side_does_is_not_compared():
    reference = shipped.AsShipped(
        lambda fit: {"cooks_distance_marginal": Missing("unsupported", "no method for this class")}
    )
    row = one_row(CASES["dyestuff_reml"], reference, "cooks_distance_marginal")
    assert (
        row.verdict
        is Verdict(ITEMS["glmm"]["verdict"])
        is Verdict(ITEMS["lme_residual_structure"]["verdict"])
    )


def test_values_are_never_taken_by_position():
    value = Value(("b", "a"), np.array([2.0, 1.0]))
    assert gap(value, Value(("a", "b"), np.array([1.0, 2.0]))) == 0.0
