"""Generalised linear models: R's numbers, maximum likelihood by another route, brute-force deletion, edge
cases.

Numbers of R 4.2.2 are of fits at epsilon = 1e-14 (R's default stops after fewer digits).
"""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

import mmcore as mm
from mmcore.diagnostics.influence.glm import (
    glm_covratio,
    glm_dfbeta,
    glm_dfbetas,
    glm_dffits,
    glm_rows,
    rstandard,
)
from mmcore.families.names import family_named


def quine():
    data = mm.load_dataset("MASS_quine")
    data["y1"] = data["Days"] + 1
    return data


def ships():
    data = mm.load_dataset("MASS_ships")
    return data[data["service"] > 0]


MODELS = {
    "poisson": ("Days ~ Eth + Sex + Age + Lrn", quine, {"family": "poisson"}),
    "gamma": ("y1 ~ Eth + Sex", quine, {"family": "Gamma"}),
    "inverse gaussian": ("y1 ~ Eth + Age", quine, {"family": "inverse.gaussian"}),
    "binomial": (
        "cbind(Deaths, N - Deaths) ~ Species + Exposure + Rel.Hum + Temp",
        lambda: mm.load_dataset("MASS_snails"),
        {"family": "binomial"},
    ),
    "offset": (
        "incidents ~ type + factor(year) + factor(period) + offset(log(service))",
        ships,
        {"family": "poisson"},
    ),
}

R = {  # deviance, null deviance, AIC, BIC, dispersion; then the extremes of row measures: (position, value)
    "poisson": {
        "numbers": (1696.70655249359, 2073.5327609655, 2299.18363028536, 2320.06887663732, 1.0),
        "coef": [2.71538022, -0.533604325, 0.161596589, -0.333901364, 0.257828352, 0.427693829, 0.348942964],
        "se": [0.0646831156, 0.0418831058, 0.0425345526, 0.070093498, 0.062419395, 0.0676863722, 0.0520431401],
        "rows": {"deviance": (71, 9.90909647), "pearson": (71, 13.59333), "hat": (2, 0.104323617),
                 "rstandard": (71, 10.2576285), "rstudent": (71, 10.5554347), "cook": (71, 2.02483398),
                 "dffits": (71, 0.808146018), "covratio": (2, 1.14269565)},
        "anova": ([181.557755300913, 16.8839201970038, 132.586524858819, 45.7980081151661],
                  [2.21465995389499e-41, 3.97367870063928e-05, 1.49841107219423e-28, 1.31096776502409e-11]),
        "ci": (2.58716543, 2.84074636),
    },
    "gamma": {
        "numbers": (122.854130678808, 133.630274085396, 1118.63616618573, 1130.57059267257, 0.848957317427439),
        "coef": [0.0491818229, 0.0307638415, -0.00846504042],
        "se": [0.00676436309, 0.0093810731, 0.00844948189],
        "rows": {"deviance": (103, 2.18791101), "pearson": (103, 4.00364367), "hat": (30, 0.0281040354),
                 "rstandard": (103, 2.39688802), "rstudent": (103, 2.47505833), "cook": (103, 0.121052523),
                 "dffits": (60, -0.339153904), "covratio": (26, 1.0507939)},
        "anova": ([9.92422034564005, 0.851923060947243], [0.000628405069185895, 0.316466682374991]),
        "ci": (0.0369457848, 0.063444968),
    },
    "inverse gaussian": {
        "numbers": (14.9377656270463, 15.9490325250481, 1145.66059997296, 1163.56223970321, 0.0555242727441729),
        "coef": [0.00276701916, 0.00322475229, 0.00247032514, -0.00158140793, -0.0013802991],
        "se": [0.00139769972, 0.00122032982, 0.00211262677, 0.00151053037, 0.00157621326],
        "rows": {"deviance": (60, -0.96276131), "pearson": (71, 1.18623238), "hat": (3, 0.0604319541),
                 "rstandard": (60, -4.20539574), "rstudent": (60, -3.05270665), "cook": (71, 0.139579406),
                 "dffits": (60, -0.764931904), "covratio": (6, 1.10267228)},
        "anova": ([0.582534800930137, 0.428732097071672], [0.00119922757820586, 0.0521315512840306]),
        "ci": None,
    },
    "binomial": {
        "numbers": (55.0697503670529, 539.720655572978, 223.932348980678, 236.754089938017, 1.0),
        "coef": [-1.40494729, 1.30863784, 1.50338916, -0.106842561, 0.0940412557],
        "se": [0.97070227, 0.163496997, 0.102351015, 0.013877243, 0.0192675073],
        "rows": {"deviance": (73, 1.75096759), "pearson": (73, 1.79589707), "hat": (38, 0.171555681),
                 "rstandard": (73, 1.8304287), "rstudent": (73, 1.83446483), "cook": (38, 0.115368846),
                 "dffits": (38, -1.00207828), "covratio": (84, 1.25957723)},
        "anova": ([53.6028788965711, 343.465631812179, 62.942128350216, 24.6402661469589],
                  [2.45399540410206e-13, 1.1223510942319e-76, 2.12870093312934e-15, 6.90928561611557e-07]),
        "ci": (-3.31438237, 0.494297216),
    },
    "offset": {
        "numbers": (38.6950515355548, 146.328336532458, 154.56154285918, 168.298787580725, 1.0),
        "coef": [-6.40590156, -0.543344301, -0.687401647, -0.0759614219, 0.325579456, 0.697140427, 0.818426577,
                 0.453426639, 0.384466958],
        "se": [0.217444106, 0.177589907, 0.329047216, 0.290578659, 0.235879403, 0.149641393, 0.169773649,
               0.233170478, 0.118272163],
        "rows": {"deviance": (18, 2.79121039), "pearson": (18, 3.727063), "hat": (7, 0.695489224),
                 "rstandard": (18, 3.00918573), "rstudent": (18, 3.16941066), "cook": (26, 0.521956155),
                 "dffits": (19, -1.82405112), "covratio": (9, 3.6258583)},
        "anova": ([55.4390571096369, 41.534089143302, 10.6601387439642],
                  [2.62868782791753e-11, 5.03769664505592e-09, 0.00109469181452518]),
        "ci": (-6.84305161, -5.98968373),
    },
}  # fmt: skip


def fit(name):
    formula, data, options = MODELS[name]
    return mm.glm(formula, data(), **options)


def row_measures(f):
    return {
        "deviance": f.resid("deviance"), "pearson": f.resid("pearson"), "hat": mm.hatvalues(f),
        "rstandard": rstandard(f), "rstudent": mm.rstudent(f), "cook": mm.cooks_distance(f),
        "dffits": glm_dffits(f), "covratio": glm_covratio(f),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(MODELS))
def test_estimates_equal_those_of_R(name):
    f, want = fit(name), R[name]
    got = (f.deviance, f.null_deviance, f.aic, f.bic, f.dispersion)
    assert_allclose(got, want["numbers"], rtol=1e-9)
    assert_allclose(f.beta, want["coef"], rtol=2e-8)
    assert_allclose(f.se, want["se"], rtol=2e-8)
    assert_allclose(f.loglik, f.df - f.aic / 2, rtol=1e-12)
    assert f.converged and f.df_resid == f.nobs - f.design.p


@pytest.mark.parametrize("name", list(MODELS))
def test_row_measures_equal_those_of_R(name):
    measures = row_measures(fit(name))
    for what, (position, value) in R[name]["rows"].items():
        values = measures[what].to_numpy()
        assert_allclose(values[position], value, rtol=3e-8, err_msg=what)
        assert np.abs(values).max() <= abs(value) * (1 + 1e-7), what


@pytest.mark.parametrize("name", list(MODELS))
def test_analysis_of_deviance_equals_that_of_R(name):
    deviance, p = R[name]["anova"]
    table = mm.anova(fit(name))
    assert_allclose(table["Deviance"].to_numpy()[1:], deviance, rtol=1e-8)
    assert_allclose(table["Pr(>Chi)"].to_numpy()[1:], p, rtol=1e-7)
    assert table.index[0] == "NULL"


def test_F_test_of_deviance_equals_that_of_R():
    table = mm.anova(fit("gamma"), test="F")
    assert_allclose(table["F"].to_numpy()[1:], [11.6898931688498, 1.00349339532026], rtol=1e-8)
    two = mm.anova(mm.glm("y1 ~ Eth", quine(), family="Gamma"), fit("gamma"), test="F")
    assert_allclose(two["F"].iloc[1], 1.00349339532026, rtol=1e-8)
    assert two["Df"].iloc[1] == 1


@pytest.mark.parametrize("name", [n for n in MODELS if R[n]["ci"]])
def test_profile_limits_are_roots_and_close_to_those_R_interpolates(name):
    f = fit(name)
    lower, upper = mm.confint(f, "(Intercept)", method="profile").to_numpy()[0]
    assert_allclose((lower, upper), R[name]["ci"], atol=5e-4 * f.se.iloc[0])


def test_wald_limits():
    f = fit("binomial")
    want = np.column_stack([f.beta - 1.6448536269514722 * f.se, f.beta + 1.6448536269514722 * f.se])
    assert_allclose(mm.confint(f, method="wald", level=0.9), want, rtol=1e-12)
    assert list(mm.confint(f, method="wald", level=0.9).columns) == ["low", "high"]


# --- independent of R ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "link", "logpdf"),
    [
        ("poisson", "sqrt", lambda y, mu: st.poisson.logpmf(y, mu)),
        ("poisson", "identity", lambda y, mu: st.poisson.logpmf(y, mu)),
        ("binomial", "cauchit", lambda y, mu: st.binom.logpmf(y, 1, mu)),
        ("binomial", "cloglog", lambda y, mu: st.binom.logpmf(y, 1, mu)),
        ("negative.binomial", "log", lambda y, mu: st.nbinom.logpmf(y, 2.0, 2.0 / (2.0 + mu))),
    ],
)
def test_estimates_maximise_the_likelihood(kind, link, logpdf):
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, 300)
    family = family_named(kind, link, **({"theta": 2.0} if kind.startswith("neg") else {}))
    mu = rng.uniform(0.2, 0.8, 300) if kind == "binomial" else 6 + 2 * x
    y = family.simulate(mu, np.ones(300), 1.0, rng)
    f = mm.glm("y ~ x", pd.DataFrame({"y": y, "x": x}), family=family)

    def minus(beta):
        mu = family.link.mu(beta[0] + beta[1] * x)
        with np.errstate(invalid="ignore"):
            value = -logpdf(y, mu).sum()
        return value if np.isfinite(value) else 1e10

    best = minimize(
        minus, f.beta + np.array([0.01, -0.02]), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11}
    )
    assert_allclose(f.beta, best.x, atol=1e-6)
    assert f.loglik >= -best.fun - 1e-9


def test_size_of_a_negative_binomial_equals_glm_nb():
    f = mm.glm("Days ~ Eth + Sex + Age + Lrn", quine(), family="negative.binomial")
    assert_allclose(f.size, 1.27489264505362, rtol=1e-9)  # MASS::glm.nb at epsilon = 1e-14
    assert_allclose(f.loglik, -546.575509144992, rtol=1e-11)
    assert_allclose(f.aic, 1109.15101828998, rtol=1e-11)
    given = mm.glm(
        "Days ~ Eth + Sex + Age + Lrn", quine(), family=family_named("negative.binomial", theta=f.size)
    )
    assert_allclose(given.beta, f.beta, rtol=1e-8)
    assert given.df == f.df - 1


def test_size_runs_off_when_counts_are_not_overdispersed():
    y = np.tile([3, 4, 5], 20)
    with pytest.warns(mm.ConvergenceWarning, match="not overdispersed"):
        f = mm.glm("y ~ 1", pd.DataFrame({"y": y}), family="negative.binomial")
    poisson = mm.glm("y ~ 1", pd.DataFrame({"y": y}), family="poisson")
    assert_allclose(f.loglik, poisson.loglik, atol=1e-3)


@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_one_newton_step_is_nearer_to_the_refit_than_measures_with_deviance_residuals(name):
    formula, data, options = MODELS[name]
    f, data = fit(name), data()
    newton, from_deviance = glm_dfbeta(f, "pearson"), glm_dfbeta(f)
    rows = np.argsort(-mm.cooks_distance(f).to_numpy())[:6]
    refits = np.array([f.beta - mm.glm(formula, data.drop(data.index[i]), **options).beta for i in rows])
    errors = [np.abs(m.to_numpy()[rows] - refits).max() for m in (newton, from_deviance)]
    assert errors[0] < errors[1]
    assert_allclose(newton.to_numpy()[rows], refits, atol=0.35 * np.abs(refits).max())


def test_cooks_distance_is_the_newton_step_in_the_metric_of_the_coefficients():
    f = fit("offset")
    delta = glm_dfbeta(f, "pearson").to_numpy()
    want = np.einsum("ij,jk,ik->i", delta, np.linalg.inv(f.vcov), delta) / f.design.p
    assert_allclose(mm.cooks_distance(f), want, rtol=1e-9)
    rows = glm_rows(f)
    assert_allclose(rows.hat.sum(), f.design.p, rtol=1e-12)
    assert_allclose(
        glm_dfbetas(f), glm_dfbeta(f) / np.outer(rows.sigma, np.sqrt(np.diag(f.XtVinvX_inv))), rtol=1e-12
    )


def test_gaussian_identity_is_least_squares():
    data = mm.load_dataset("sleepstudy")
    data["w"] = np.resize([1.0, 2.0, 0.5], len(data))
    a = mm.glm("Reaction ~ Days", data, family="gaussian", weights="w")
    b = mm.lm("Reaction ~ Days", data, weights="w")
    assert_allclose(a.beta, b.beta, rtol=1e-12)
    assert_allclose(a.se, b.se, rtol=1e-12)
    assert_allclose((a.loglik, a.aic, a.bic, a.sigma), (b.loglik, b.aic, b.bic, b.sigma), rtol=1e-12)
    assert_allclose(mm.rstudent(a), mm.rstudent(b), rtol=1e-9)


def test_binomial_response_in_four_spellings():
    bacteria = mm.load_dataset("MASS_bacteria")
    bacteria["logical"] = bacteria["y"] == "y"
    bacteria["number"] = bacteria["logical"].astype(int)
    fits = [
        mm.glm(f"{name} ~ trt + week", bacteria, family="binomial") for name in ("y", "logical", "number")
    ]
    for other in fits[1:]:
        assert_allclose(other.beta, fits[0].beta, rtol=1e-13)
    snails = mm.load_dataset("MASS_snails")
    counts = mm.glm("cbind(Deaths, N - Deaths) ~ Temp", snails, family="binomial")
    shares = mm.glm("I(Deaths / N) ~ Temp", snails, family="binomial", weights="N")
    assert_allclose(counts.beta, shares.beta, rtol=1e-12)
    assert_allclose(counts.loglik, shares.loglik, rtol=1e-12)
    rows = np.repeat(np.arange(len(snails)), snails["N"])
    trial = pd.DataFrame({"Temp": snails["Temp"].to_numpy()[rows]})
    nth = np.concatenate([np.arange(n) for n in snails["N"]])
    trial["died"] = (nth < snails["Deaths"].to_numpy()[rows]).astype(int)
    single = mm.glm("died ~ Temp", trial, family="binomial")
    assert_allclose(single.beta, counts.beta, rtol=1e-10)
    assert_allclose(single.se, counts.se, rtol=1e-10)


def test_quasi_families_scale_standard_errors_and_have_no_likelihood():
    plain = mm.glm("Days ~ Eth * Age", quine(), family="poisson")
    quasi = mm.glm("Days ~ Eth * Age", quine(), family="quasipoisson")
    general = mm.glm("Days ~ Eth * Age", quine(), family=family_named("quasi", "log", variance_name="mu"))
    for f in (quasi, general):
        assert_allclose(f.beta, plain.beta, rtol=1e-9)
        assert_allclose(f.se, plain.se * np.sqrt(plain.dispersion_pearson), rtol=1e-10)
    assert_allclose(quasi.dispersion, 12.1155780163961, rtol=1e-9)  # summary.glm, R 4.2.2
    with pytest.warns(mm.MixedModelWarning, match="has no likelihood"):
        assert np.isnan(quasi.aic)
    assert "t value" in quasi.summary()


def test_fletcher_dispersion_from_its_definition():
    f = fit("poisson")
    mu, y = f.fitted.to_numpy(), f.design.y
    pearson = ((y - mu) ** 2 / mu).sum() / f.df_resid
    assert_allclose(f.dispersion_pearson, pearson, rtol=1e-12)
    assert_allclose(f.dispersion_fletcher, pearson / np.mean(y / mu), rtol=1e-12)


def test_counts_that_are_not_whole_fit_with_a_warning_and_say_why_there_is_no_aic():
    data = quine()
    data["Days"] = data["Days"] + 0.25
    with pytest.warns(mm.MixedModelWarning, match="not whole in 146 of 146"):
        f = mm.glm("Days ~ Eth", data, family="poisson")
    quasi = mm.glm("Days ~ Eth", data, family="quasipoisson")
    assert_allclose(f.beta, quasi.beta, rtol=1e-12)
    with pytest.warns(mm.MixedModelWarning, match="146 responses are not whole"):
        assert np.isnan(f.aic)
    assert "AIC: undefined" in f.summary()


def test_complete_separation_is_named():
    data = pd.DataFrame({"y": [0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6], "z": [0.0, 1, 0, 1, 0, 1]})
    with pytest.warns(mm.SeparationWarning, match=r"6 of 6 rows.* x run off") as caught:
        mm.glm("y ~ x", data, family="binomial")
    assert "(Intercept)" in str(caught[0].message)
    overlap = pd.DataFrame({"y": [0, 1, 0, 1, 1, 0], "z": data["z"]})
    mm.glm("y ~ z", overlap, family="binomial")


def test_empty_cell_of_a_poisson_table_is_named():
    data = pd.DataFrame({"y": [0, 0, 0, 3, 4, 5], "g": list("aaabbb")})
    with pytest.warns(mm.SeparationWarning, match=r"means of 0 in 3 of 6"):
        mm.glm("y ~ g", data, family="poisson")


def test_zero_weights_count_for_nothing():
    data = quine()
    data["w"] = (np.arange(len(data)) % 5 != 0).astype(float)
    full = mm.glm("y1 ~ Eth + Sex", data, family="Gamma", link="log", weights="w")
    part = mm.glm("y1 ~ Eth + Sex", data[data["w"] > 0], family="Gamma", link="log")
    assert_allclose(full.beta, part.beta, rtol=1e-10)
    assert_allclose((full.deviance, full.dispersion), (part.deviance, part.dispersion), rtol=1e-10)
    assert (full.nobs, full.df_resid) == (part.nobs, part.df_resid)
    assert len(full.fitted) == len(data)


def test_domain_is_kept_by_halving():
    """Poisson with identity link: full steps leave the domain; the fit stays inside."""
    data = pd.DataFrame({"y": [3, 0, 1, 0, 2, 9, 14, 30], "x": np.arange(8.0)})
    f = mm.glm("y ~ x", data, link="identity", family="poisson")
    assert (f.fitted > 0).all()
    with np.errstate(invalid="ignore"):

        def minus(b):
            mu = b[0] + b[1] * data["x"].to_numpy()
            return -st.poisson.logpmf(data["y"], mu).sum() if (mu > 0).all() else 1e9

        best = minimize(minus, f.beta + 0.01, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert -f.loglik <= best.fun + 1e-6


def test_refusals_name_the_way_out():
    data = quine()
    with pytest.raises(mm.UnsupportedError, match=r"use mm\.glmer"):
        mm.glm("Days ~ Eth + (1 | Age)", data, family="poisson")
    with pytest.raises(mm.DataError, match="negative"):
        mm.glm("I(Days - 10) ~ Eth", data, family="poisson")
    with pytest.raises(mm.DataError, match="numeric"):
        mm.glm("Eth ~ Sex", data, family="poisson")
    with pytest.raises(mm.DataError, match="3 columns"):
        mm.glm("cbind(Days, y1, Days) ~ Sex", data, family="binomial")
    f = mm.glm("Days ~ Eth", data, family="poisson")
    with pytest.raises(mm.DataError, match="Sex"):
        mm.confint(f, "Sex")
    with pytest.raises(mm.DataError, match="rows"):
        mm.anova(f, mm.glm("Days ~ Eth", data[:100], family="poisson"))


def test_offset_argument_and_term_are_the_same():
    data = ships()
    data["log_service"] = np.log(data["service"])
    a = mm.glm("incidents ~ type + offset(log(service))", data, family="poisson")
    b = mm.glm("incidents ~ type", data, offset="log_service", family="poisson")
    assert_allclose(a.beta, b.beta, rtol=1e-12)
    assert_allclose(a.null_deviance, b.null_deviance, rtol=1e-12)


def test_a_fit_copies_and_refits():
    f = fit("binomial")
    for other in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        assert_allclose(other.beta, f.beta, atol=0)
        assert other.summary() == f.summary()
        assert_allclose(mm.hatvalues(other), mm.hatvalues(f), atol=0)
    again = f.refit(f.design.y)
    assert_allclose(again.beta, f.beta, rtol=1e-12)
    with pytest.raises(AttributeError):
        f.status = None


def test_summary_shows_the_numbers():
    text = fit("binomial").summary()
    for piece in (
        "family binomial (logit)",
        "Null deviance: 539.7207  on 95",
        "55.0698  on 91",
        "AIC: 223.93",
    ):
        assert piece in text
