"""Where HLMdiag 0.5.1 is wrong or stops: what it does, and that the value here is right.

HLMdiag's numbers were read off on R 4.2.2 with lme4 1.1-31. "As shipped" formulas are evaluated here where they are
simple, so that the size of the difference is seen too.
"""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from tests.dense_influence import deletions, dense, sets_of
from tests.models import frame

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")
SLOPE = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.load_dataset("sleepstudy")


def shuffled(data, seed=1):
    """The levels of Subject in another order than that of their first rows."""
    levels = list(data.Subject.cat.categories)
    return data.assign(
        Subject=data.Subject.cat.reorder_categories(list(np.random.default_rng(seed).permutation(levels)))
    )


def test_group_labels_in_any_order_of_levels(sleep):
    """HLMdiag labels groups by appearance but puts leverages and refits in the order of the levels."""
    data = sleep.drop(index=[3, 25, 26, 111])
    fit = mm.lmer(SLOPE, shuffled(data))
    table = mm.hlm_influence(fit, "Subject", approx=False)
    assert list(table.index) == list(dict.fromkeys(sleep.Subject))
    for subject in ("308", "337"):
        cold = mm.lmer(SLOPE, data[data.Subject != subject])
        d = fit.beta - cold.beta
        assert_allclose(table.cooksd[subject], d @ np.linalg.solve(fit.vcov, d) / 2, rtol=1e-6)
    shipped = table.cooksd.loc[list(fit.design.terms[0].levels)].to_numpy()  # values in order of the levels
    assert np.abs(shipped - table.cooksd).max() > 0.1
    assert_allclose(
        table["leverage.overall"], mm.leverage(mm.lmer(SLOPE, data), "Subject")["overall"], rtol=1e-5
    )
    assert_allclose(mm.hlm_augment(fit, "Subject")["leverage.overall"], table["leverage.overall"])


def test_nested_labels_of_the_pastes_data_belong_to_their_values():
    """HLMdiag pairs labels a:A, b:A, c:A with values of a:A, a:B, a:C."""
    fit = mm.lmer("strength ~ 1 + (1 | batch/cask)", mm.load_dataset("Pastes"))
    case = mm.case_delete(fit, "cask:batch")
    rows = fit.design.frame()
    for label in [("b", "A"), ("a", "B"), ("c", "J")]:
        cask, batch = label
        keep = ~((rows.cask == cask) & (rows.batch == batch))
        cold = mm.lmer("strength ~ 1 + (1 | batch/cask)", mm.load_dataset("Pastes")[keep.to_numpy()])
        assert_allclose(case.fixef.loc[[label]].iloc[0], cold.fixef, rtol=1e-7)


def test_least_squares_residuals_keep_the_order_of_the_rows(sleep):
    """HLMdiag sorts them by row name and pastes them beside unsorted rows; names that are text make them NA."""
    named = sleep.set_axis([f"r{i}" for i in np.random.default_rng(2).permutation(180)], axis=0)
    plain, other = (mm.hlm_resid(mm.lmer(SLOPE, d)) for d in (sleep, named))
    assert_allclose(other[".ls.resid"] + other[".ls.fitted"], sleep.Reaction)
    assert_allclose(other[".ls.resid"], plain[".ls.resid"])
    assert list(other[".id"]) == list(named.index)


def test_prior_weights_are_in_the_covariance(sleep):
    """HLMdiag takes V = sigma^2 (I + G) and with it another beta."""
    w = np.random.default_rng(3).uniform(0.2, 3.0, 180)
    fit = mm.lmer(SLOPE, sleep, weights=w)
    want = deletions(fit, sets_of(fit, 1)[1])["cooksd"]
    assert_allclose(mm.cooks_distance(fit), want, rtol=1e-8, atol=1e-12)
    o = dense(fit)
    V = fit.sigma**2 * (np.eye(180) + o.G)  # as shipped
    X, y = fit.design.X, fit.design.y
    beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
    assert np.abs(beta - fit.beta).max() > 0.01
    assert_allclose(mm.leverage(fit).fixef.sum(), 2.0)
    assert_allclose(mm.resid_conditional(fit, "pearson"), np.sqrt(w) * fit.resid() / fit.sigma)


def test_an_offset_is_taken_off_the_response(sleep):
    """HLMdiag puts the raw response into its formulas, and refits without the offset: distances up to 12.7."""
    intercept = "Reaction ~ Days + (1 | Subject)"
    shifted = mm.lmer(intercept, sleep, offset=3.0 * sleep.Days.to_numpy())
    assert_allclose(mm.cooks_distance(shifted, "Subject", kind="refit").max(), 0.526, atol=5e-4)
    fit = mm.lmer(SLOPE, sleep, offset=3.0 * sleep.Days.to_numpy())
    table = mm.hlm_resid(fit)
    assert_allclose(table[".mar.resid"] + table[".mar.fitted"], sleep.Reaction)
    noise = np.random.default_rng(4).normal(scale=20, size=180)
    other = mm.lmer(SLOPE, sleep, offset=noise)
    want = deletions(other, sets_of(other, "Subject")[1])["cooksd"]
    assert_allclose(mm.cooks_distance(other, "Subject"), want, rtol=1e-8)


def test_refits_keep_the_criterion_of_the_fit(sleep):
    """HLMdiag refits by REML whatever the fit was: its rvc of an ML fit is off by up to 0.28."""
    ml, reml = (mm.lmer(SLOPE, sleep, reml=r) for r in (False, True))
    right = mm.rvc(ml, "Subject")
    shipped = mm.case_delete(reml, "Subject").varcomp / mm.varcomp(ml) - 1
    variances = ["sigma2", "D11", "D22"]
    assert_allclose(np.abs(shipped - right)[variances].max().max(), 0.28, atol=0.2)
    one = sleep[sleep.Subject != "337"]
    cold = mm.varcomp(mm.lmer(SLOPE, one, reml=False)) / mm.varcomp(ml) - 1
    assert_allclose(right.loc["337"], cold, atol=1e-5)


def test_refits_keep_contrasts_and_weights():
    """HLMdiag compares coefficients under two codings, and refits without the weights."""
    data = frame(90)
    options = {"contrasts": {"h": "sum"}, "weights": "w"}
    fit = mm.lmer("y ~ x + h + (1 | g)", data, **options)
    case = mm.case_delete(fit, "g")
    cold = mm.lmer("y ~ x + h + (1 | g)", data[data.g != "g4"], **options)
    assert list(case.fixef.columns) == list(cold.fixef.index)
    assert_allclose(case.fixef.loc["g4"], cold.fixef, rtol=1e-5)


def test_variances_of_zero_stay_in_the_vector():
    """HLMdiag drops them, so that a refit's vector is shorter and recycled: batch E of Pastes gets -0.567."""
    fit = mm.lmer("strength ~ 1 + (1 | batch/cask)", mm.load_dataset("Pastes"))
    case = mm.case_delete(fit, "batch")
    assert_allclose(case.sigma["E"] ** 2 / mm.varcomp(fit)["D22"] - 1, -0.567, atol=5e-4)  # as shipped
    assert case.rvc().D22["E"] == -1.0
    flat = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert list(mm.varcomp(flat).index) == ["sigma2", "D11"] and mm.varcomp(flat).D11 == 0.0


def test_missing_rows_are_put_back_where_they_were(sleep):
    """With na.exclude HLMdiag recycles short vectors against long ones: wrong from the first missing row on."""
    holes = sleep.assign(Days=sleep.Days.where(~sleep.index.isin([3, 50, 120])))
    out, gone = (mm.lmer(SLOPE, holes, na_action=a) for a in ("exclude", "omit"))
    for kind in ("raw", "pearson", "studentized", "cholesky"):
        for residual in (mm.resid_marginal, mm.resid_conditional):
            full = residual(out, kind)
            assert list(np.flatnonzero(full.isna())) == [3, 50, 120]
            assert_allclose(full.dropna(), residual(gone, kind))
    assert len(mm.pull_resid(out, "marginal")) == len(mm.pull_resid(out, "eb")) == 180
    assert len(mm.hlm_influence(out)) == 180


def test_models_without_intercept_have_none_in_the_least_squares_fits(sleep):
    """HLMdiag drops the first column of X and adds an intercept: residuals of y ~ 1, off by up to 342."""
    fit = mm.lmer("Reaction ~ 0 + Days + (0 + Days | Subject)", sleep)
    got = mm.ls_residuals(fit)[".ls.resid"]
    for _, rows in sleep.groupby("Subject", observed=True):
        b = (rows.Days @ rows.Reaction) / (rows.Days @ rows.Days)
        assert_allclose(got[rows.index], rows.Reaction - b * rows.Days, rtol=1e-9)


def test_one_coefficient_is_standardized_and_refitted():
    """HLMdiag stops ("non-conformable arguments"), or returns unstandardized values as standardized."""
    fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"))
    table = mm.hlm_resid(fit, "Batch", standardize=True)[".std.ls.intercept"]
    assert_allclose([table.mean(), table.std()], [0.0, 1.0], atol=1e-12)
    assert mm.case_delete(fit).cooks_distance().notna().all()


def test_covariates_that_are_constant_in_a_group_do_not_spoil_the_others():
    """One such column makes all of HLMdiag's standardized least-squares residuals NA."""
    data = frame(200).assign(size=lambda d: d.g.str[1:].astype(float))
    fit = mm.fit_at("y ~ x + size + (x | g)", data, [0.9, -0.4, 0.5])
    table = mm.hlm_resid(fit, "g", standardize=True)
    assert table[[".std.ls.intercept", ".std.ls.x"]].notna().all().all()
    assert list(table["size"]) == [float(g[1:]) for g in table.index]


def test_group_covariates_are_found_by_value_not_by_parts_of_their_names():
    """A covariate S next to SES gives HLMdiag 180 rows instead of 18."""
    data = frame(200).assign(SES=lambda d: d.g.str[1:].astype(float), S=lambda d: d.z)
    table = mm.hlm_resid(mm.fit_at("y ~ S + SES + (1 | g)", data, [0.8]), "g")
    assert len(table) == data.g.nunique() and "SES" in table and "S" not in table


def test_delete_names_rows_and_levels_and_unknown_ones_are_errors(sleep):
    """HLMdiag takes row numbers for labels (distance 0, no message) and aborts R outside 1..n."""
    fit = mm.lmer(SLOPE, sleep)
    for level, bad in ((1, [180]), (1, [-1]), (1, [0, 400]), ("Subject", [1, 2]), ("Subject", "999")):
        with pytest.raises(mm.DataError, match="delete names"):
            mm.cooks_distance(fit, level, delete=bad)
    assert mm.cooks_distance(fit, delete=[7, 7]) == mm.cooks_distance(fit, delete=[7])
    assert_allclose(
        mm.cooks_distance(fit, "Subject", delete=[308]), mm.cooks_distance(fit, "Subject")["308"], rtol=1e-9
    )


def test_exact_measures_of_a_set(sleep):
    """HLMdiag: "argument is of length zero", always."""
    fit = mm.lmer(SLOPE, sleep)
    table = mm.hlm_influence(fit, "Subject", approx=False, delete=["308", "309"])
    cold = mm.lmer(SLOPE, sleep[~sleep.Subject.isin(["308", "309"])])
    d = fit.beta - cold.beta
    assert_allclose(table.cooksd.item(), d @ np.linalg.solve(fit.vcov, d) / 2, rtol=1e-5)


def test_crossed_factors_have_leverage_refits_and_residuals():
    """HLMdiag: not implemented, four times."""
    fit = mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"))
    assert mm.leverage(fit, "sample").notna().all().all()
    assert mm.rvc(fit, "sample").shape == (6, 3)
    assert mm.hlm_resid(fit, "plate")[".ranef.intercept"].notna().all()
    assert mm.hlm_augment(fit).shape[0] == 144


@pytest.mark.parametrize(
    "formula",
    ["log(Reaction) ~ Days + (Days | Subject)", "Reaction ~ poly(Days, 2) + (1 | Subject)"],
    ids=["log response", "polynomial"],
)
def test_functions_in_the_formula_can_be_refitted(sleep, formula):
    """HLMdiag: "object 'Reaction' not found"; "Can't combine"."""
    case = mm.case_delete(mm.lmer(formula, sleep), "Subject")
    assert case.status.converged.all()
    assert len(mm.hlm_resid(mm.lmer(formula, sleep), "Subject")) == 18
    if "log" in formula:
        cold = mm.lmer(formula, sleep[sleep.Subject != "335"])
        assert_allclose(case.fixef.loc["335"], cold.fixef, rtol=1e-6)


def test_an_interaction_alone_as_grouping_factor():
    """HLMdiag: "undefined columns selected"."""
    fit = mm.lmer("strength ~ 1 + (1 | cask:batch)", mm.load_dataset("Pastes"))
    assert len(mm.case_delete(fit, "cask:batch").fixef) == 30
    assert len(mm.hlm_resid(fit, "cask:batch")) == 30


def test_uncorrelated_effects_can_be_standardized(sleep):
    """HLMdiag: "'dims' cannot be of length 0"."""
    fit = mm.lmer("Reaction ~ Days + (Days || Subject)", sleep)
    table = mm.hlm_resid(fit, "Subject", standardize=True)
    sd = {k: np.sqrt(v[:, 0, 0]) for k, v in fit.condvar.items()}
    assert_allclose(table[".std.ranef.days"], fit.ranef["Subject"].Days / sd["Subject.1"])


def test_rotation_with_two_terms_on_a_factor_and_with_three_levels(sleep):
    """HLMdiag orders b group by group whatever the terms are, and stops with three levels."""
    one = mm.rotate_ranef(mm.lmer("Reaction ~ Days + (Days || Subject)", sleep), "Days")
    swapped = mm.lmer("Reaction ~ Days + (0 + Days | Subject) + (1 | Subject)", sleep)
    assert_allclose(np.sum(mm.rotate_ranef(swapped, "Days").z ** 2), np.sum(one.z**2), rtol=1e-5)
    three = mm.lmer("strength ~ 1 + (1 | batch/cask)", mm.load_dataset("Pastes"))
    assert len(mm.rotate_ranef(three)) > 1


def test_rows_that_carry_a_column_are_undefined_not_huge():
    """HLMdiag: covratio 4e15, or R itself aborts."""
    data = frame().assign(only=lambda d: np.arange(len(d)) == 5)
    fit = mm.fit_at("y ~ x + only + (1 | g)", data, [0.8])
    with pytest.warns(mm.MixedModelWarning, match="not determined"):
        assert np.isnan(mm.covratio(fit).iloc[5])


def test_group_measures_of_inner_levels_take_semi(sleep):
    """HLMdiag: "argument is not interpretable as logical"."""
    fit = mm.lmer("strength ~ 1 + (1 | batch/cask)", mm.load_dataset("Pastes"))
    semi, raw = (mm.hlm_resid(fit, "cask:batch", standardize=s) for s in ("semi", False))
    pd.testing.assert_frame_equal(semi, raw)
