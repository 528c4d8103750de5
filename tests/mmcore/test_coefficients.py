"""Influence on coefficients, fitted values and functions of the fit; what needs no deletion."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import mmcore as mm
from tests.dense_influence import deletions, dense, levels_of, sets_of
from tests.models import frame, small

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")


@pytest.mark.parametrize("name", ["intercept", "weighted slope", "crossed slope", "nested"])
def test_dfbeta_and_dfbetas(name):
    fit = small(name)
    o = dense(fit)
    y = fit.design.y if fit.design.offset is None else fit.design.y - fit.design.offset
    for level in levels_of(fit):
        labels, sets = sets_of(fit, level)
        delta = deletions(fit, sets)["delta"]
        assert_allclose(mm.dfbeta(fit, level), delta, atol=1e-9)
        scaled = []
        for rows, d in zip(sets, delta, strict=True):
            keep = np.setdiff1d(np.arange(fit.nobs), rows)
            V, X = o.V[np.ix_(keep, keep)], fit.design.X[keep]
            r = y[keep] - X @ (o.beta - d)
            nu = len(keep) - fit.design.p
            sigma = np.sqrt(fit.sigma**2 * (r @ np.linalg.solve(V, r)) / nu)
            scaled.append(d / (sigma * np.sqrt(np.diag(o.C)) / fit.sigma))
        got = mm.dfbetas(fit, level)
        assert list(got.index) == labels and list(got.columns) == list(fit.design.x_names)
        assert_allclose(got, scaled, atol=1e-8)


def test_linear_models_have_the_classical_measures():
    """By the textbook formulas of a least-squares fit without each row."""
    data = frame()
    fit = mm.lm("y ~ x + z", data)
    X, y, n, p = fit.design.X, fit.design.y, fit.nobs, fit.design.p
    C = np.linalg.inv(X.T @ X)
    h = np.einsum("ij,jk,ik->i", X, C, X)
    for i in (0, 7, 33):
        keep = np.delete(np.arange(n), i)
        b = np.linalg.lstsq(X[keep], y[keep], rcond=None)[0]
        s = np.sqrt(np.sum((y[keep] - X[keep] @ b) ** 2) / (n - 1 - p))
        assert_allclose(mm.dfbeta(fit).iloc[i], fit.beta - b, rtol=1e-8)
        assert_allclose(mm.dfbetas(fit).iloc[i], (fit.beta - b) / (s * np.sqrt(np.diag(C))), rtol=1e-8)
        e = y[i] - X[i] @ fit.beta
        assert_allclose(mm.rstudent(fit).iloc[i], e / (s * np.sqrt(1 - h[i])), rtol=1e-9)
        assert_allclose(mm.dffits(fit).iloc[i], X[i] @ (fit.beta - b) / (s * np.sqrt(h[i])), rtol=1e-8)
        C_i = s**2 * np.linalg.inv(X[keep].T @ X[keep])
        ratio = np.linalg.det(C_i) / np.linalg.det(fit.sigma**2 * C)
        assert_allclose(mm.covratio(fit, refit=True).iloc[i], ratio, rtol=1e-9)


def test_dffits_of_a_mixed_model_is_the_change_of_its_own_fitted_value():
    fit = small("slope")
    o = dense(fit)
    h, e = mm.hatvalues(fit).to_numpy(), fit.resid().to_numpy()
    rss = fit.sigma**2 * fit.design.y @ o.P @ fit.design.y * fit.sigma**2 / fit.sigma**2
    left = (rss - e**2 / (1 - h)) / (fit.nobs - fit.design.p - 1)
    assert_allclose(mm.dffits(fit), e / np.sqrt(left * (1 - h)) * np.sqrt(h / (1 - h)), rtol=1e-9)


FUNCTIONS = {
    "x": lambda f: f.fixef["x"],
    "sigma2": lambda f: f.sigma**2,
    "D11": lambda f: mm.varcomp(f)["D11"],
    "share": lambda f: mm.varcomp(f)["D11"] / (mm.varcomp(f)["D11"] + f.sigma**2),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + (x | g)", {}),
        ("y ~ x + (1 | g) + (1 | h)", {"reml": False, "offset": "off"}),
        ("y ~ x + (1 | g)", {"sigma": 1.2}),
    ],
)
def test_local_influence_is_the_derivative_in_the_weight_of_a_row(formula, options, function):
    data = frame(80, 8, 11)
    data["y"] += data.g.str[1:].astype(int) * (1 + data.x) + data.h.str[1:].astype(int)
    fit = mm.lmer(formula, data, weights=data.w.to_numpy(), **options)
    what = function
    if function == "share":
        what = lambda e: e.varcomp["D11"] / (e.varcomp["D11"] + e.sigma**2)
    got = mm.local_influence(fit, what)
    for i in (0, 25, 61):
        values = []
        for step in (1e-4, -1e-4):
            w = data.w.to_numpy().copy()
            w[i] *= 1 + step
            values.append(FUNCTIONS[function](mm.lmer(formula, data, weights=w, **options)))
        brute = (values[0] - values[1]) / 2e-4
        assert_allclose(got.iloc[i], brute, rtol=1e-4, atol=1e-6 * np.abs(got).max())
    groups = mm.local_influence(fit, what, "g")
    assert_allclose(groups, got.groupby(data.g, sort=False).sum())


def test_local_influence_of_a_linear_model_is_exact():
    fit = mm.lm("y ~ x + z", frame())
    X, e = fit.design.X, fit.resid().to_numpy()
    C = np.linalg.inv(X.T @ X)
    assert_allclose(mm.local_influence(fit, "z"), (C @ X.T * e)[2], rtol=1e-6)


def test_local_influence_needs_a_known_name():
    with pytest.raises(mm.DataError, match=r"'q' is neither .* x, sigma2, D11"):
        mm.local_influence(small("slope"), "q")


def test_variance_inflation_by_auxiliary_regressions():
    data = frame(200).assign(u=lambda d: d.x + 0.3 * d.z)
    fit = mm.lm("y ~ x + z + I(u^2)", data)
    table = mm.vif(fit)
    X = fit.design.X[:, 1:]
    for j, name in enumerate(table.index):
        others = np.column_stack([np.ones(len(X)), np.delete(X, j, axis=1)])
        resid = X[:, j] - others @ np.linalg.lstsq(others, X[:, j], rcond=None)[0]
        r2 = 1 - resid @ resid / np.sum((X[:, j] - X[:, j].mean()) ** 2)
        assert_allclose(table.gvif[name], 1 / (1 - r2), rtol=1e-9)
    assert (table.df == 1).all() and list(table.gvif_scaled) == list(np.sqrt(table.gvif))
    with pytest.raises(mm.UnsupportedError, match="at least two"):
        mm.vif(mm.lm("y ~ x", data))


def test_generalised_variance_inflation_does_not_depend_on_the_coding():
    data = frame(200)
    a = mm.vif(mm.lmer("y ~ x + h + z + (1 | g)", data))
    b = mm.vif(mm.lmer("y ~ x + h + z + (1 | g)", data, contrasts={"h": "sum"}))
    assert list(a.df) == [1, data.h.nunique() - 1, 1]
    assert_allclose(a, b, rtol=1e-6)


def test_shares_of_variance():
    fit = small("intercept")
    v, s2 = fit.varcorr["g"].cov[0, 0], fit.sigma**2
    fixed = np.var(fit.design.X @ fit.beta, ddof=1)
    assert_allclose(mm.icc(fit).loc["g"], [v, v / (v + s2), v / (v + s2 + fixed)])
    assert_allclose(mm.r2(fit), [fixed / (fixed + v + s2), (fixed + v) / (fixed + v + s2)])
    slope = small("weighted slope")
    G = np.diag(dense(slope).G).mean() * slope.sigma**2
    noise = slope.sigma**2 * np.mean(1 / slope.design.weights)
    assert_allclose(mm.icc(slope).adjusted["all"], G / (G + noise))
    crossed = mm.icc(small("crossed"))
    assert list(crossed.index) == ["g", "h", "all"]
    assert_allclose(crossed.variance["all"], crossed.variance[["g", "h"]].sum())
    linear = mm.lm("y ~ x + z", frame())
    y = linear.design.y
    assert_allclose(mm.r2(linear)["r2"], 1 - np.sum(linear.resid() ** 2) / np.sum((y - y.mean()) ** 2))
    with pytest.raises(mm.UnsupportedError, match="grouping factor"):
        mm.icc(linear)


def test_singular_directions():
    assert mm.is_singular(small("singular slope")) and not mm.is_singular(small("slope"))
    pca = mm.re_pca(small("singular slope"))["g"]
    assert_allclose(pca.sdev, [np.hypot(0.8, 0.5), 0.0], atol=1e-12)
    assert_allclose(np.abs(pca.rotation.loc["x", "PC2"]), 0.8 / np.hypot(0.8, 0.5))
    assert_allclose(pca.to_frame().cumulative, [1.0, 1.0])
    both = mm.re_pca(small("double bar"))["g"]
    assert_allclose(both.sdev, [1.3, 0.7])
    assert np.isnan(mm.re_pca(small("singular"))["g"].proportion).all()


def test_ladder_gives_the_published_table():
    """The statistics that Stata prints for mathach of these data, and for mathach - min + 1."""
    x = mm.load_dataset("Hsb82").mAch
    table = mm.ladder(x)
    assert list(table.chi2[["cubic", "square", "identity"]].round(2)) == [758.08, 758.90, 914.19]
    assert table.chi2.iloc[3:].isna().all()
    shifted = mm.ladder(x - x.min() + 1)
    assert list(shifted.chi2[["cubic", "square", "identity", "square root"]].round(2)) == [
        595.26, 1029.42, 914.19, 380.40,
    ]  # fmt: skip
    assert shifted.notna().all().all()
    for bad in ([1.0] * 20, [1.0, 2.0], [1.0, np.inf] * 8):
        with pytest.raises(mm.DataError, match="at least 8 finite"):
            mm.ladder(bad)


def test_separate_models_and_their_limits():
    data = frame(150)
    models = mm.lm_list("y ~ x + z", data, "g")
    for label, own in data.groupby("g"):
        alone = mm.lm("y ~ x + z", own)
        assert_allclose(models.coef.loc[label], alone.fixef, rtol=1e-8)
        assert_allclose(models.sigma[label], alone.sigma, rtol=1e-8)
        assert_allclose(models.se(pool=False).loc[label], alone.se, rtol=1e-8)
    assert_allclose(models.se(), models.se(pool=False).div(models.sigma, axis=0) * models.pooled_sigma)
    from scipy import stats

    t = stats.t.ppf(0.975, models.df.sum())
    assert_allclose(models.confint()["x"]["upper"], models.coef.x + t * models.se().x)
    with pytest.raises(mm.DataError, match="'nobody' is not a column"):
        mm.lm_list("y ~ x", data, "nobody")


def test_a_factor_with_one_level_in_a_group_drops_out_of_its_model():
    data = frame(150)
    data["f"] = np.where(np.arange(150) % 2, "a", "b")
    data.loc[data.g == "g2", "f"] = "b"
    coef = mm.lm_list("y ~ x + f", data, "g").coef
    assert np.isnan(coef.loc["g2", "fb"])
    own = data[data.g == "g2"]
    slope = np.polyfit(own.x, own.y, 1)
    assert_allclose(coef.loc["g2", ["(Intercept)", "x"]].astype(float), slope[::-1], rtol=1e-8)


def test_shrunken_and_separate_coefficients_side_by_side():
    fit = mm.lmer("y ~ x + (x | g)", frame(150).assign(y=lambda d: d.y + d.x * d.g.str[1:].astype(int)))
    table = mm.compare_eb_ls(fit, identify=0.2)
    x = table[table.effect == "x"]
    assert_allclose(x.eb, fit.coef()["g"].loc[x.index, "x"])
    assert_allclose(x.ls, mm.lm_list(fit).coef.loc[x.index, "x"])
    assert_allclose(x.residual, x.ls - x.eb)
    assert set(x.index[x.unusual]) == set(x.residual.abs().nlargest(2).index)


def test_rotated_random_effects():
    fit = small("crossed slope")
    o, d = dense(fit), fit.design
    z = mm.rotate_ranef(fit)
    assert z["lambda"].is_monotonic_decreasing and ((z["lambda"] >= 0) & (z["lambda"] <= 1 + 1e-9)).all()
    parts = mm.extract_design(fit)
    Z, D = parts.Z.toarray(), parts.D.toarray()
    P = o.P * fit.sigma**2
    B, K = D @ Z.T @ P @ Z @ D, P @ Z @ D
    A = K.T @ np.diag(1 / d.weights) @ K
    assert_allclose(z["lambda"].sum(), np.trace(np.linalg.pinv(B, rcond=1e-10) @ A), rtol=1e-6)
    modes = np.concatenate([b.ravel() for b in fit.b])
    assert_allclose((z.z**2).sum(), modes @ np.linalg.pinv(B, rcond=1e-10) @ modes, rtol=1e-6)
    last = mm.rotate_ranef(fit, s=3)
    assert_allclose(last, z.tail(3), atol=1e-8)
    turned = mm.rotate_ranef(fit, s=3, varimax=True)
    assert_allclose((turned.z**2).sum(), (last.z**2).sum(), rtol=1e-9)
    assert len(mm.rotate_ranef(fit, "(Intercept)")) <= sum(len(t.levels) for t in d.terms)
    with pytest.raises(mm.DataError, match="'q' is not a random effect"):
        mm.rotate_ranef(fit, "q")
    with pytest.raises(mm.DataError, match="one row per random effect"):
        mm.rotate_ranef(fit, np.eye(3))


def test_matrices_of_a_fit():
    fit = small("nested slope")
    parts, o = mm.extract_design(fit), dense(fit)
    assert_allclose(parts.V.toarray(), o.V)
    assert_allclose((parts.Z @ parts.D @ parts.Z.T).toarray(), o.G, atol=1e-12)
    assert_allclose(parts.X, fit.design.X)
    assert_allclose(parts.X @ fit.beta + parts.Z @ np.concatenate([b.ravel() for b in fit.b]), fit.fitted)
    linear = mm.extract_design(mm.lm("y ~ x", frame()))
    assert linear.D.shape == (0, 0) and linear.V.shape == (60, 60)


def test_generalised_models_one_step_and_refits():
    data = mm.load_dataset("cbpp")
    counts = mm.glm("incidence ~ period", data, family="poisson")
    # R 4.2.2, stats: cooks.distance(glm), hatvalues, rstudent
    assert_allclose(mm.cooks_distance(counts)[:3], [0.02009451322, 0.05438565957, 0.18639052438], rtol=1e-7)
    assert_allclose(
        mm.cooks_distance(counts), mm.cooks_distance(counts, kind="plugin"), rtol=1e-9, atol=1e-20
    )
    assert_allclose(mm.hatvalues(counts)[:3], [0.06666666667, 0.07142857143, 0.07142857143], rtol=1e-7)
    assert_allclose(mm.rstudent(counts)[:3], [-1.170319153, 1.434333626, 2.404716697], rtol=1e-7)
    gamma = mm.glm("I(incidence + 1) ~ period", data, family="Gamma", link="log")
    assert_allclose(mm.cooks_distance(gamma)[:3], [0.007199555691, 0.030462971585, 0.105389696494], rtol=1e-6)
    assert_allclose(mm.rstudent(gamma)[:3], [-0.7820985092, 1.1024676051, 1.8793855259], rtol=1e-6)

    case = mm.case_delete(counts)
    for i in (0, 20):
        cold = mm.glm("incidence ~ period", data.drop(index=i), family="poisson")
        assert_allclose(case.fixef.loc[i], cold.fixef, rtol=1e-7)
        assert_allclose(case.criterion[i], cold.criterion, rtol=1e-9)
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    mixed = mm.glmer(formula, data, family="binomial")
    herds = mm.case_delete(mixed, "herd")
    for herd in ("1", "7"):
        cold = mm.glmer(formula, data[data.herd.astype(str) != herd], family="binomial")
        assert_allclose(herds.theta.loc[herd], cold.theta, atol=2e-5)
        assert_allclose(herds.fixef.loc[herd], cold.fixef, atol=2e-5)
    assert herds.status.converged.all()
    assert (mm.hlm_influence(mixed, "herd").covratio >= 1).all()
    for call in (mm.resid_marginal, mm.ls_residuals, mm.hlm_resid, mm.lm_list, mm.rotate_ranef):
        with pytest.raises(mm.UnsupportedError, match="not for family binomial"):
            call(mixed)
    assert_allclose(mm.icc(mixed).adjusted["herd"], 0.4125 / (0.4125 + np.pi**2 / 3), rtol=1e-3)


def test_tables():
    fit = small("weighted slope")
    t = mm.tidy(fit, conf_int=True)
    fixed = t[t.effect == "fixed"]
    assert_allclose(fixed.estimate, fit.fixef)
    assert_allclose(fixed["std.error"], fit.se)
    assert_allclose(fixed["conf.high"], fit.fixef + stats.norm.ppf(0.975) * fit.se)  # at no optimum: normal
    pars = t[t.effect == "ran_pars"].set_index("term").estimate
    v = fit.varcorr["g"]
    assert_allclose(pars["sd__(Intercept)"], v.sd[0])
    assert_allclose(pars["cor__(Intercept).x"], v.correlation[0, 1])
    assert_allclose(pars["sd__Observation"], fit.sigma)
    modes = mm.tidy(fit, "ran_vals").query("term == 'x'").set_index("level")
    assert_allclose(modes.estimate, fit.ranef["g"]["x"].loc[modes.index])
    assert_allclose(mm.tidy(fit, "ran_coefs").estimate[0], fit.coef()["g"].iloc[0, 0])
    g = mm.glance(fit).iloc[0]
    assert_allclose(g[["logLik", "AIC", "REMLcrit"]].astype(float), [fit.loglik, fit.aic, fit.criterion])
    assert g["df.residual"] == fit.nobs - 6
    a = mm.augment(fit)
    assert_allclose(a[".fitted"] + a[".resid"], fit.design.y)
    assert_allclose(a[".cooksd"], mm.cooks_distance(fit, kind="plugin"))
    with pytest.raises(mm.UnsupportedError, match="'random'"):
        mm.tidy(fit, "random")


def test_tables_have_degrees_of_freedom_at_an_optimum():
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    t = mm.tidy(fit, conf_int=True)
    fixed, df = t[t.effect == "fixed"], np.array([17.0, 17.0])  # balanced: subjects less one
    assert_allclose(fixed["df"], df, rtol=1e-6)
    assert_allclose(fixed["conf.high"], fit.fixef + stats.t.ppf(0.975, df) * fit.se, rtol=1e-6)
    assert_allclose(fixed["p.value"], 2 * stats.t.sf(fit.fixef / fit.se, df), rtol=1e-5)
    assert t["p.value"].isna().sum() == 4  # standard deviations and the correlation have none
    by_name = mm.tidy(fit, ddf="kenward-roger")
    assert list(by_name.index) == ["(Intercept)", "Days"]
    robust = mm.tidy(fit, ddf="satterthwaite", vcov=mm.vcov_robust(fit, type="CR2", cluster="Subject"))
    assert_allclose(
        robust.loc["Days", "std.error"], mm.coef_test(fit, type="CR2", cluster="Subject").loc["Days", "SE"]
    )
    for level in (95, 1, 0, "a", None):
        with pytest.raises(mm.DataError, match="between 0 and 1"):
            mm.tidy(fit, conf_int=True, conf_level=level)


def test_tables_of_linear_models():
    data = frame()
    fit = mm.lm("y ~ x + z", data, weights="w")
    t = mm.tidy(fit, conf_int=True)
    assert list(t.columns) == [
        "term",
        "estimate",
        "std.error",
        "statistic",
        "p.value",
        "conf.low",
        "conf.high",
    ]
    assert_allclose(t["p.value"], 2 * stats.t.sf(np.abs(fit.fixef / fit.se), 57))
    row = mm.glance(fit).iloc[0]
    assert_allclose(row["r.squared"], fit.r_squared)
    assert_allclose(row["deviance"], (data.w * fit.resid().to_numpy() ** 2).sum())
    h = mm.hatvalues(fit)
    want = np.sqrt(data.w.to_numpy()) * fit.resid() / (fit.sigma * np.sqrt(1 - h))
    assert_allclose(mm.augment(fit)[".std.resid"], want)
    counts = mm.glm("count ~ x", data.assign(count=np.arange(60) % 7), family="poisson")
    assert list(mm.glance(counts).columns)[:2] == ["null.deviance", "df.null"]
    assert_allclose(mm.tidy(counts)["p.value"], 2 * stats.norm.sf(np.abs(counts.fixef / counts.se)))
    assert isinstance(mm.augment(counts), pd.DataFrame)
