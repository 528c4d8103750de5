"""Shares of variance of models of counts: the overall mean of the null model, or of the model itself."""

import numpy as np
import pandas as pd
import pytest

import mmcore as mm

TICKS = mm.load_dataset("grouseticks")
FIT = mm.glmer("TICKS ~ cHEIGHT + (1 | BROOD)", TICKS, family="poisson")


def shares(fit, m, size=np.inf):
    """Adjusted icc and both r2 with the lognormal residual variance at the overall mean m."""
    random, fixed = fit.varcorr["BROOD"].cov[0, 0], np.var(fit.design.X @ fit.beta, ddof=1)
    total = random + np.log1p(1 / m + 1 / size)
    return [random / total, fixed / (fixed + total), (fixed + random) / (fixed + total)]


def got(fit, **options):
    return [mm.icc(fit, **options).adjusted["BROOD"], *mm.r2(fit, **options)]


def test_the_default_is_the_null_model_of_nakagawa_2017():
    # lme4 1.1-31 with bobyqa to 1e-10: exp(fixef(null) + VarCorr(null) / 2) by hand
    recorded = [0.91492189585289774, 0.30708591248823119, 0.94104818309767935]
    np.testing.assert_allclose(got(FIT), recorded, rtol=1e-5)
    null = mm.glmer("TICKS ~ 1 + (1 | BROOD)", TICKS, family="poisson")
    m = np.exp(null.fixef.iloc[0] + null.varcorr["BROOD"].cov[0, 0] / 2)
    np.testing.assert_allclose(got(FIT), shares(FIT, m), rtol=1e-6)
    np.testing.assert_allclose(got(FIT, mean="null"), shares(FIT, m), rtol=1e-6)


def test_the_mean_of_the_model_itself_is_offered_too():
    eta, random = FIT.design.X @ FIT.beta, FIT.varcorr["BROOD"].cov[0, 0]
    m = np.exp(eta.mean() + (random + np.var(eta, ddof=1)) / 2)
    np.testing.assert_allclose(got(FIT, mean="model"), shares(FIT, m), rtol=1e-10)
    assert got(FIT, mean="model")[0] != pytest.approx(got(FIT)[0], rel=1e-5)
    effect = mm.design_effect(FIT, mean="model")
    assert effect["icc"]["BROOD"] == got(FIT, mean="model")[0]


def test_a_model_with_an_intercept_alone_is_its_own_null_model():
    null = mm.glmer("TICKS ~ 1 + (1 | BROOD)", TICKS, family="poisson")
    np.testing.assert_allclose(got(null), got(null, mean="model"), rtol=1e-12)


def test_an_offset_counts_by_its_mean():
    """Counts over an exposure of c are the same model with another intercept: the shares stay."""
    with_offset = mm.glmer(
        "TICKS ~ cHEIGHT + offset(o) + (1 | BROOD)", TICKS.assign(o=np.log(3.0)), family="poisson"
    )
    for mean in ("null", "model"):
        np.testing.assert_allclose(got(with_offset, mean=mean), got(FIT, mean=mean), rtol=1e-6)


def test_negative_binomial_adds_its_size():
    fit = mm.glmer("TICKS ~ cHEIGHT + (1 | BROOD)", TICKS, family="negative.binomial")
    null = mm.glmer("TICKS ~ 1 + (1 | BROOD)", TICKS, family="negative.binomial")
    m = np.exp(null.fixef.iloc[0] + null.varcorr["BROOD"].cov[0, 0] / 2)
    np.testing.assert_allclose(got(fit), shares(fit, m, fit.size), rtol=1e-5)


def test_what_is_not_offered_is_named():
    with pytest.raises(mm.UnsupportedError, match="mean='median' is not one of 'null', 'model'"):
        mm.icc(FIT, mean="median")
    with pytest.raises(mm.UnsupportedError, match="distribution='normal'"):
        mm.r2(FIT, distribution="normal")


def test_coefficients_of_groups_are_compared_like_with_like():
    """A covariate that is constant within groups is in the intercept of both sides."""
    data = mm.load_dataset("Orthodont")
    fit = mm.lmer("distance ~ age + Sex + (age | Subject)", data)
    table = mm.compare_eb_ls(fit)
    at = table[table.effect == "(Intercept)"]
    coef, sex = fit.coef()["Subject"], data.groupby("Subject", observed=True).Sex.first()
    female = (sex.loc[at.index] == "Female").to_numpy()
    assert 0 < female.sum() < len(female)
    want = coef.loc[at.index, "(Intercept)"] + female * fit.fixef["SexFemale"]
    np.testing.assert_allclose(at.eb, want, rtol=1e-12)
    for subject in ("M01", "F11"):
        rows = data[data.Subject == subject]
        slope, intercept = np.polyfit(rows.age, rows.distance, 1)
        assert at.ls[subject] == pytest.approx(intercept, rel=1e-9)
        assert table[table.effect == "age"].ls[subject] == pytest.approx(slope, rel=1e-9)
    assert abs(at.residual.mean()) < 1e-9  # both sides have the same mean: groups are balanced
    ages = table[table.effect == "age"]
    np.testing.assert_allclose(ages.eb, coef.loc[ages.index, "age"], rtol=1e-12)


def test_covariates_of_groups_that_interact_are_in_intercept_and_slope():
    data = mm.load_dataset("Orthodont")
    fit = mm.lmer("distance ~ age * Sex + (age | Subject)", data)
    table, coef = mm.compare_eb_ls(fit), fit.coef()["Subject"]
    for effect, more in (("(Intercept)", "SexFemale"), ("age", "age:SexFemale")):
        part = table[table.effect == effect]
        female = part.index.str.startswith("F")
        np.testing.assert_allclose(
            part.eb, coef.loc[part.index, effect] + female * fit.fixef[more], rtol=1e-10
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_glm_covratio_is_rs_covratio_of_a_linear_model(weighted):
    data = mm.load_dataset("sleepstudy")
    if weighted:
        fit = mm.lm("Reaction ~ Days + I(Days^2)", data, weights=1.0 + data.Days)
        recorded = [1.0375042236982754, 1.0250696384738183, 1.0561458105604888]
    else:
        fit = mm.lm("Reaction ~ Days", data)
        recorded = [1.0311028730861822, 1.0188067914591763, 1.0293431031755438]
    ratio = mm.glm_covratio(fit)
    np.testing.assert_allclose(ratio[[0, 57, 179]], recorded, rtol=1e-12)  # R 4.2.2
    np.testing.assert_allclose(ratio, mm.covratio(fit, refit=True), rtol=1e-9)
    np.testing.assert_allclose(mm.glm_dfbeta(fit), mm.dfbeta(fit), rtol=1e-7, atol=1e-12)
    assert isinstance(ratio, pd.Series)


def test_glm_covratio_says_that_mixed_models_have_another():
    fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    for name in ("glm_covratio", "glm_dfbeta"):
        with pytest.raises(mm.UnsupportedError, match=f"{name} is R's for models without random effects"):
            getattr(mm, name)(fit)
