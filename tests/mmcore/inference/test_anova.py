"""Tables of anova, drop1 and ranova against R's, and against refits written by hand."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mmcore as mm
from mmcore.inference.tests.against_linear import MIXTURE, lrt_vs_linear, orthant_weights
from mmcore.inference.tests.anova import anova
from mmcore.inference.tests.drop1 import drop1
from mmcore.inference.tests.hypotheses import containing, hypotheses
from mmcore.inference.tests.information import aicc, parameter_counts
from mmcore.inference.tests.ranova import ranova
from mmcore.inference.tests.wald import wald_test

R = json.loads((Path(__file__).parent / "recorded" / "tables.json").read_text())
SLEEP, CAKE, QUINE = (mm.load_dataset(n) for n in ("sleepstudy", "cake", "MASS_quine"))
WEIGHTS = 0.5 + (np.arange(1, 147) % 5) / 2


def agree(table: pd.DataFrame, name: str, rtol: float, by_position: bool = False) -> None:
    want = R[name]
    columns = [c for c in want if c != "row"]
    assert list(table.columns) == columns
    if not by_position:
        assert list(table.index) == want["row"]
    assert len(table) == len(want["row"])
    for column in columns:
        expected = np.array(want[column], float)
        np.testing.assert_allclose(table[column].to_numpy(float), expected, rtol=rtol, err_msg=column)


def sleep(**options):
    return mm.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, **options)


def glmer():
    return mm.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", mm.load_dataset("cbpp"), family="binomial"
    )


def glm():
    return mm.glm("cbind(incidence, size - incidence) ~ period", mm.load_dataset("cbpp"), family="binomial")


# ---- against R -------------------------------------------------------------------------------------------


def test_models_are_refitted_by_ml_and_ordered():
    table = anova(sleep(), mm.lmer("Reaction ~ 1 + (1 | Subject)", SLEEP), mm.lm("Reaction ~ Days", SLEEP))
    agree(table, "lmer", 1e-7, by_position=True)
    assert [label[0] for label in table.index] == ["2", "3", "1"]


def test_without_refit_the_restricted_likelihoods_are_compared():
    table = anova(sleep(), mm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP), refit=False)
    agree(table, "lmer_reml", 1e-7, by_position=True)


def test_glmer_against_glm():
    agree(anova(glmer(), glm()), "glmer_two", 1e-6, by_position=True)


def test_table_without_denominators_is_lme4s():
    fit = mm.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", CAKE)
    agree(anova(fit, ddf=None), "lme4", 1e-6)


def test_ranova():
    agree(
        ranova(mm.lmer("distance ~ age * Sex + (age || Subject)", mm.load_dataset("Orthodont"))),
        "ranova_double",
        1e-5,
    )
    agree(
        ranova(
            mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"), reml=False)
        ),
        "ranova_ml",
        1e-7,
    )
    pixel = mm.lmer("pixel ~ day + I(day^2) + (day | Dog) + (1 | Side:Dog)", mm.load_dataset("Pixel"))
    agree(ranova(pixel), "ranova_slopes", 1e-6)


def test_drop1():
    agree(drop1(mm.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", CAKE)), "drop1_cake", 1e-7)
    agree(drop1(glm()), "glm_drop1", 1e-8)
    agree(drop1(glmer()), "glmer_drop1", 1e-6)


def test_linear_models():
    fit = mm.lm("Days ~ Sex * Age + Lrn", QUINE)
    agree(anova(fit), "lm", 1e-9)
    agree(drop1(fit, test="F"), "lm_drop1", 1e-9)
    agree(drop1(fit), "lm_drop1_chisq", 1e-9)
    agree(anova(mm.lm("Days ~ Sex", QUINE), fit), "lm_two", 1e-9, by_position=True)
    agree(anova(mm.lm("Days ~ Age + Sex + Lrn", QUINE, weights=WEIGHTS)), "lm_weights", 1e-9)


def test_generalized_linear_models():
    agree(anova(glm()), "glm", 1e-9)
    quasi = mm.glm("Days ~ Sex + Age + Lrn", QUINE, family="quasipoisson")
    agree(drop1(quasi, test="F"), "quasi_drop1_f", 1e-8)


def test_contests():
    fit = mm.fit_at("Reaction ~ Days + (Days | Subject)", SLEEP, R["theta"])
    found = wald_test(fit, [[1, 0], [1, 5]], [250, 300])
    for name, column in (
        ("NumDF", "NumDF"),
        ("DenDF", "DenDF"),
        ("F value", "F value"),
        ("Pr(>F)", "Pr(>F)"),
    ):
        assert found.joint[name] == pytest.approx(R["contest"][column][0], rel=1e-6)
    row = wald_test(fit, "(Intercept) + 5 * Days = 300").contrasts.iloc[0]
    for name, column in (
        ("estimate", "Estimate"),
        ("std.error", "Std. Error"),
        ("df", "df"),
        ("statistic", "t value"),
    ):
        assert row[name] == pytest.approx(R["contest_row"][column][0], rel=1e-6)


# ---- against refits and identities -----------------------------------------------------------------------


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("type", [2, 3])
def test_types_two_and_three_do_not_depend_on_the_coding(type, ddf):
    """F and its df; of type III because it is carried over, of type II because the spaces are the same."""
    data = CAKE[np.arange(270) % 7 != 3]
    text = "angle ~ recipe * temperature + (1 | replicate)"
    codings = [{}, {"recipe": "sum", "temperature": "helmert"}, {"recipe": "SAS", "temperature": "treatment"}]
    tables = [anova(mm.fit_at(text, data, [1.3], contrasts=c or None), type=type, ddf=ddf) for c in codings]
    for table in tables[1:]:
        np.testing.assert_allclose(table["F value"], tables[0]["F value"], rtol=1e-9)
        np.testing.assert_allclose(table["NumDF"], tables[0]["NumDF"])
        if ddf == "kenward-roger":  # Satterthwaite's df of several rows depend on how they are scaled
            np.testing.assert_allclose(table["DenDF"], tables[0]["DenDF"], rtol=1e-8)


def test_type_one_of_least_squares_is_the_drop_in_residual_sum_of_squares():
    parts = ["1", "Age", "Age + Sex", "Age + Sex + Lrn", "Age + Sex + Lrn + Age:Sex"]
    rss = [mm.lm(f"Days ~ {part}", QUINE).deviance for part in parts]
    table = anova(mm.lm(f"Days ~ {parts[-1]}", QUINE))
    np.testing.assert_allclose(table["Sum Sq"].iloc[:-1], -np.diff(rss), rtol=1e-9)


def test_type_two_of_least_squares_compares_with_the_model_without_the_term_and_what_contains_it():
    full, without = mm.lm("Days ~ Age + Sex + Lrn", QUINE), mm.lm("Days ~ Sex + Lrn", QUINE)
    table = anova(mm.lm("Days ~ Age * Sex + Lrn", QUINE), type=2)
    assert table.loc["Age", "Sum Sq"] == pytest.approx(without.deviance - full.deviance, rel=1e-9)


def test_containment():
    design = mm.lm("Days ~ Sex / Age + Lrn", QUINE).design
    assert containing(design) == {"Sex": ["Sex:Age"], "Lrn": [], "Sex:Age": []}
    numeric = mm.lm("angle ~ recipe * temp", CAKE).design
    assert containing(numeric) == {"recipe": [], "temp": ["recipe:temp"], "recipe:temp": []}
    basis = mm.lm("angle ~ recipe * poly(temp, 2)", CAKE).design
    assert containing(basis)["recipe"] == []


def test_marginal_hypotheses_of_numbers_are_their_coefficients():
    L = hypotheses(mm.lm("height ~ age + I(age^2)", mm.load_dataset("Oxboys")).design, 3)
    np.testing.assert_array_equal(np.vstack(list(L.values())), np.eye(3)[1:])


def test_generalized_terms_get_wald_tests():
    fit = glmer()
    table, V = anova(fit, type=3), fit.vcov.to_numpy()[1:, 1:]
    expected = fit.beta[1:] @ np.linalg.solve(V, fit.beta[1:])
    assert table.loc["period", "Chisq"] == pytest.approx(expected, rel=1e-10)
    assert table.loc["period", "Df"] == 3


def test_other_rows_and_responses_are_refused():
    fit = sleep()
    with pytest.raises(mm.DataError, match="170 rows"):
        anova(fit, mm.lmer("Reaction ~ 1 + (1 | Subject)", SLEEP.iloc[10:]))
    with pytest.raises(mm.DataError, match="another response"):
        anova(fit, mm.lmer("log(Reaction) ~ 1 + (1 | Subject)", SLEEP))
    with pytest.raises(mm.DataError, match="family"):
        anova(fit, mm.glm("Reaction ~ Days", SLEEP, family="gamma"))
    with pytest.raises(mm.DataError, match="type=4"):
        anova(fit, type=4)
    with pytest.raises(mm.UnsupportedError, match="'F'"):
        anova(fit, mm.lmer("Reaction ~ 1 + (1 | Subject)", SLEEP), test="F")


def test_models_of_equal_size_are_not_tested():
    table = anova(
        mm.lmer("mAch ~ cses + (1 | school)", mm.load_dataset("Hsb82"), reml=False),
        mm.lmer("mAch ~ meanses + (1 | school)", mm.load_dataset("Hsb82"), reml=False),
    )
    assert table["Df"].iloc[1] == 0
    assert np.isnan(table["Pr(>Chisq)"].iloc[1])


def test_scope_of_drop1():
    fit = mm.lmer("angle ~ recipe * temp + (1 | replicate)", CAKE)
    assert list(drop1(fit).index) == ["<none>", "recipe:temp"]
    with pytest.raises(mm.DataError, match="'recipe' cannot be deleted alone"):
        drop1(fit, ["recipe"])
    assert list(drop1(mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"))).index) == ["<none>"]


def test_drop1_keeps_transformed_variables_weights_and_offset():
    n = np.arange(1, 181)
    options = {"weights": 1 + n % 3, "offset": 0.01 * np.sin(n)}
    fit = mm.lmer("log(Reaction) ~ Days + I(Days^2) + (1 | Subject)", SLEEP, **options)
    by_hand = mm.lmer("log(Reaction) ~ I(Days^2) + (1 | Subject)", SLEEP, reml=False, **options)
    assert drop1(fit).loc["Days", "AIC"] == pytest.approx(by_hand.aic, rel=1e-9)


def test_ranova_equals_refits_by_hand():
    fit = mm.lmer("Reaction ~ Days + (0 + Days | Subject) + (1 | Subject)", SLEEP)
    table = ranova(fit)
    intercept = mm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP)
    slope = mm.lmer("Reaction ~ Days + (0 + Days | Subject)", SLEEP)
    assert table.loc["Days in (0 + Days | Subject)", "logLik"] == pytest.approx(intercept.loglik, rel=1e-10)
    assert table.loc["(1 | Subject)", "logLik"] == pytest.approx(slope.loglik, rel=1e-10)
    whole = ranova(sleep(), reduce_terms=False)
    assert list(whole.index) == ["<none>", "(Days | Subject)"]
    assert whole.loc["(Days | Subject)", "Df"] == 3
    with pytest.raises(mm.UnsupportedError, match="lmer"):
        ranova(mm.lm("Reaction ~ Days", SLEEP))


# ---- against the linear model ----------------------------------------------------------------------------


def test_one_variance_is_half_a_chi_squared():
    fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"), reml=False)
    row = lrt_vs_linear(fit).loc["mixed"]
    assert row["Chisq"] == pytest.approx(
        2 * (fit.loglik - mm.lm("Yield ~ 1", mm.load_dataset("Dyestuff")).loglik)
    )
    assert row[MIXTURE] == pytest.approx(row["Pr(>Chisq)"] / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SingularWarning)
        zero = lrt_vs_linear(mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))).loc["mixed"]
    assert (zero["Chisq"], zero["Pr(>Chisq)"], zero[MIXTURE]) == (0.0, 1.0, 1.0)


def test_balanced_crossed_variances_are_nearly_independent():
    """Penicillin: weights 1/4, 1/2, 1/4 up to what the residual variance ties together."""
    row = lrt_vs_linear(
        mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"))
    ).loc["mixed"]
    assert row["Df"] == 2
    assert row[MIXTURE] < row["Pr(>Chisq)"]
    assert np.isnan(lrt_vs_linear(sleep()).loc["mixed", MIXTURE])


@pytest.mark.parametrize("r", [2, 3])
def test_weights_are_frequencies_of_positive_estimates(r):
    """Projection of normal estimates on the orthant, 40,000 draws: each weight within four standard errors."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(r, r))
    covariance = A @ A.T + 0.3 * np.eye(r)
    precision, root = np.linalg.inv(covariance), np.linalg.cholesky(covariance)
    counts, draws = np.zeros(r + 1), 40_000
    subsets = [[j for j in range(r) if code >> j & 1] for code in range(2**r)]
    for z in (root @ rng.normal(size=(r, draws))).T:
        best = (np.inf, 0)
        for subset in subsets:
            x = np.zeros(r)
            if subset:
                inside = np.ix_(subset, subset)
                x[subset] = np.linalg.solve(precision[inside], (precision @ z)[subset])
            if (x >= 0).all():
                best = min(best, (float((z - x) @ precision @ (z - x)), len(subset)))
        counts[best[1]] += 1
    weights = orthant_weights(covariance)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.abs(counts / draws - weights) < 4 * np.sqrt(weights * (1 - weights) / draws)).all()


def test_glmm_against_glm():
    row = lrt_vs_linear(glmer()).loc["mixed"]
    assert row["Chisq"] == pytest.approx(2 * (glmer().loglik - glm().loglik), rel=1e-9)


# ---- counts ----------------------------------------------------------------------------------------------


def test_aicc_and_counts():
    fit = sleep(reml=False)
    assert aicc(fit) == pytest.approx(fit.aic + 2 * 6 * 7 / (180 - 7))
    assert parameter_counts(fit).to_dict() == {"k": 6, "k_f": 2, "k_r": 4, "k_rs": 3, "k_rc": 1}
    double = mm.lmer("Reaction ~ Days + (Days || Subject)", SLEEP)
    assert parameter_counts(double).to_dict() == {"k": 5, "k_f": 2, "k_r": 3, "k_rs": 3, "k_rc": 0}
