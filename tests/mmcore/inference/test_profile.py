"""Profile limits: lme4's, dense algebra where lme4 interpolates too coarsely, closed forms, the boundary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import norm, t

import mmcore as mm
from mmcore.inference.intervals.confint import confint
from mmcore.inference.intervals.optimum import optimum_of
from mmcore.inference.intervals.parameters import Parameter, values
from mmcore.inference.intervals.profile import profile

Z = float(norm.ppf(0.975))
MODELS = json.loads((Path(__file__).parent / "lme4_profiles.json").read_text())["models"]
pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")


class Dense:
    """-2 log-likelihood as a function of covariance parameters and log sigma, V formed as an n x n matrix."""

    def __init__(self, fit: mm.Fit) -> None:
        d = fit.design
        self.fit, self.cov = fit, fit.criterion_fn.covariance
        self.Z = [term.Z().toarray() for term in d.terms]
        self.levels = [len(term.levels) for term in d.terms]
        self.w = np.ones(d.n) if d.weights is None else d.weights
        self.y = d.y if d.offset is None else d.y - d.offset

    def __call__(self, x: np.ndarray, held: tuple[int, float] | None = None) -> float:
        par, n = x[:-1], len(self.y)
        V = np.diag(np.exp(2.0 * x[-1]) / self.w)
        for Z, L, levels in zip(self.Z, self.cov.Lambda(par), self.levels, strict=True):
            V += np.exp(2.0 * x[-1]) * Z @ np.kron(np.eye(levels), L @ L.T) @ Z.T
        X, y = self.fit.design.X, self.y
        if held is not None:
            X, y = np.delete(X, held[0], axis=1), y - held[1] * X[:, held[0]]
        C = np.linalg.cholesky(V)
        r = np.linalg.solve(C, y)
        if X.shape[1]:
            white = np.linalg.solve(C, X)
            r = r - white @ np.linalg.lstsq(white, r, rcond=None)[0]
        return float(2.0 * np.log(C.diagonal()).sum() + n * np.log(2.0 * np.pi) + r @ r)

    def constrained(self, which: Parameter, v: float, start: np.ndarray) -> float:
        """The least value with one parameter at v."""
        options = {"maxiter": 500, "ftol": 1e-13}
        limits = self.cov.bounds or (np.full(len(start) - 1, -20.0), np.full(len(start) - 1, 20.0))
        low, high = np.maximum(limits[0], -20.0), np.minimum(limits[1], 20.0)
        near = [*zip(low, high, strict=True), (start[-1] - 3.0, start[-1] + 3.0)]
        if self.cov.bounds is not None:  # where a parameter is at its limit the constraint has no slope
            start = np.append(np.clip(start[:-1], low + 0.1, high - 0.1), start[-1])
        if which.kind == "beta":
            return float(
                minimize(self, start, ((which.i, v),), method="SLSQP", bounds=near, options=options).fun
            )

        def gap(x: np.ndarray) -> float:
            return float(values([which], self.cov.Lambda(x[:-1]), np.exp(x[-1]), np.zeros(0))[0]) - v

        found = minimize(
            self,
            start,
            method="SLSQP",
            bounds=near,
            constraints=[{"type": "eq", "fun": gap}],
            options=options,
        )
        assert abs(gap(found.x)) < 1e-6 * max(1.0, abs(v))
        return float(found.fun)


def zeta_by_dense_algebra(fit: mm.Fit, name: str, v: float, starts: int = 3) -> float:
    """|zeta| at v of an ML fit, minima found by another method from several starts."""
    dense, best = Dense(fit), optimum_of(fit)
    which = next(p for p in best.every if p.name == name)
    rng, here = np.random.default_rng(0), np.append(fit.par, np.log(fit.sigma))
    found = [dense.constrained(which, v, here)]
    for _ in range(starts - 1):
        found.append(dense.constrained(which, v, here * rng.uniform(0.5, 1.5, len(here))))
    return float(np.sqrt(max(min(found) - dense(here), 0.0)))


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m["formula"])
def test_limits_are_lme4s(model: dict) -> None:
    """To 1e-5, or lme4's interpolation is off: then the zeta of our limit is the quantile and that of lme4's is not."""
    data = mm.load_dataset(model["dataset"])
    fit = mm.lmer(model["formula"], data)
    ours, checked = confint(fit, method="profile"), 0
    ml = mm.lmer(model["formula"], data, reml=False)
    assert list(ours.index) == list(model["rows"])
    for name, limits in model["rows"].items():
        for side, theirs in zip(("low", "high"), map(float, limits), strict=True):
            got = float(ours.loc[name, side])
            if got == pytest.approx(theirs, rel=1e-5, abs=1e-5):
                checked += 1
            elif ml.nobs < 200:
                assert zeta_by_dense_algebra(ml, name, got) == pytest.approx(Z, abs=1e-5), (name, side)
                if np.isfinite(theirs):
                    assert abs(zeta_by_dense_algebra(ml, name, theirs) - Z) > 1e-6, (name, side)
                    assert got == pytest.approx(theirs, rel=0.1)
            else:
                assert got == pytest.approx(theirs, rel=2e-3), (name, side)
    assert checked >= len(ours)  # half of all limits at least agree


MIXED = {
    "(1 | g)": "y ~ x + (1 | g)", "(x | g)": "y ~ x + (x | g)", "(x || g)": "y ~ x + (x || g)",
    "no fixed effects": "y ~ 0 + (x | g)", "crossed": "y ~ x + (1 | g) + (1 | h)",
    "rank deficient": "y ~ x + I(2 * x) + (1 | g)", "cs": "y ~ 1 + cs(0 + k | g)", "ar1": "y ~ 1 + ar1(0 + k | g)",
    "diag": "y ~ 1 + diag(0 + k | g)", "nested": "y ~ x + (1 | g / h)",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::mmcore.RankWarning")
@pytest.mark.parametrize("formula", MIXED.values(), ids=MIXED.keys())
def test_limits_by_dense_algebra(formula: str) -> None:
    """Weights and an offset in every kind of model: zeta at each limit is the quantile."""
    rng = np.random.default_rng(5)
    n, g = 72, np.tile(np.arange(9), 8)
    x, h, k = rng.normal(size=n), rng.integers(0, 4, n), rng.integers(0, 3, n)
    y = 1 + 0.5 * x + 1.5 * rng.normal(size=9)[g] + rng.normal(size=9)[g] * x + rng.normal(size=4)[h]
    data = pd.DataFrame({"y": y + rng.normal(size=n), "x": x, "g": g.astype(str), "h": h.astype(str)})
    data["k"] = pd.Categorical(k.astype(str))
    options = {"weights": rng.uniform(0.5, 2.0, n), "offset": rng.normal(size=n)}
    fit = mm.lmer(formula, data, reml=False, **options)
    limits = confint(fit, method="profile")
    for name, (low, high) in limits.iterrows():
        for v in (low, high):
            if v in (0.0, 1.0, -1.0):
                continue
            assert zeta_by_dense_algebra(fit, str(name), v) == pytest.approx(Z, abs=2e-4), (name, v)
    assert not limits.isna().to_numpy().any()


def test_a_variance_of_zero() -> None:
    """lme4 1.1-31 on Dyestuff2, whose variance between batches is estimated as zero."""
    fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    want = {
        "sd_(Intercept)|Batch": [0.0, 2.08404348901], "sigma": [2.89283102010, 4.81583255245],
        "(Intercept)": [4.31210021674, 7.01909234684],
    }  # fmt: skip
    got = confint(fit, method="profile")
    for name, limits in want.items():
        assert got.loc[name].tolist() == pytest.approx(limits, rel=2e-4), name
    assert got.loc["sd_(Intercept)|Batch", "low"] == 0.0


def test_a_correlation_that_may_be_anything() -> None:
    """Effects without variance have any correlation: the whole domain, at once and not in 60 steps."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(6), 6), rng.normal(size=36)
    e = rng.normal(size=36)
    for level in range(6):  # residuals with neither mean nor slope within a level: both variances are zero
        X = np.column_stack([np.ones(6), x[g == level]])
        e[g == level] -= X @ np.linalg.lstsq(X, e[g == level], rcond=None)[0]
    data = pd.DataFrame({"y": 1 + x + e, "x": x, "g": g.astype(str)})
    got = confint(mm.lmer("y ~ x + (x | g)", data), method="profile")
    assert got.loc["cor_x.(Intercept)|g"].tolist() == [-1.0, 1.0]
    assert got.loc["sd_x|g", "low"] == 0.0 and got.loc["sd_x|g", "high"] > 0.0


def zeta_of_a_glmer(fit: mm.Fit, value: float) -> float:
    """|zeta| of period2 of the cbpp model: the other periods as dummies, period2 an offset."""
    data = mm.load_dataset("cbpp")
    dummies = {f"p{k}": (data["period"].astype(str) == k).astype(float) for k in "234"}
    held = mm.glmer(
        "cbind(incidence, size - incidence) ~ p3 + p4 + (1 | herd)", data.assign(**dummies), family="binomial",
        offset=value * dummies["p2"].to_numpy(),
    )  # fmt: skip
    return float(np.sqrt(held.criterion - fit.criterion))


def test_generalized_mixed_model() -> None:
    """lme4 1.1-31 on cbpp (tolPwrss 1e-10), interpolated to about 5e-5; zeta at the limits by refits elsewhere."""
    fit = mm.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", mm.load_dataset("cbpp"), family="binomial"
    )
    got = confint(fit, method="profile")
    want = {
        "sd_(Intercept)|herd": [0.3460944698, 1.0998817156], "(Intercept)": [-1.9011560663, -0.9477945522],
        "period2": [-1.6166788929, -0.4078402706], "period3": [-1.8009177334, -0.5116102054],
        "period4": [-2.5006006973, -0.8008310511],
    }  # fmt: skip
    assert list(got.index) == list(want)
    for name, limits in want.items():
        assert got.loc[name].tolist() == pytest.approx(limits, rel=2e-4), name
    assert zeta_of_a_glmer(fit, got.loc["period2", "low"]) == pytest.approx(Z, abs=1e-6)


def test_generalized_linear_model() -> None:
    """R 4.2.2, confint of a binomial glm of cbpp: interpolated, so 1e-4."""
    fit = mm.glm("cbind(incidence, size - incidence) ~ period", mm.load_dataset("cbpp"), family="binomial")
    want = [
        [-1.56115876209, -0.992026553047], [-1.76953663005, -0.620479541278],
        [-1.95088310722, -0.715727097003], [-2.68065936024, -1.037551810521],
    ]  # fmt: skip
    np.testing.assert_allclose(confint(fit, method="profile"), want, rtol=2e-4)
    poisson = mm.glm("y ~ 1", pd.DataFrame({"y": [3.0, 1, 4, 1, 5]}), family="poisson")
    for limit in confint(poisson, method="profile").iloc[
        0
    ]:  # deviance of a mean: 2 (n mu - S log mu), S = 14
        rise = 2.0 * (5.0 * np.exp(limit) - 14.0 * limit) - 2.0 * (14.0 - 14.0 * np.log(2.8))
        assert rise == pytest.approx(Z**2, rel=1e-9)


def test_gaussian_glm_and_lm_are_parabolas() -> None:
    """zeta = (v - estimate) / se exactly, on twenty data sets; lm has t quantiles, R's confint of both."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        data = pd.DataFrame(
            {"x": rng.normal(size=25), "e": 10.0 ** rng.integers(-3, 4) * rng.normal(size=25)}
        )
        fit, ols = mm.glm("e ~ x", data, family="gaussian"), mm.lm("e ~ x", data)
        points = profile(fit, zeta_max=3.0, steps=3)["x"]
        straight = (points["x"] - fit.fixef["x"]) / fit.se["x"]
        np.testing.assert_allclose(points[".zeta"], straight, atol=1e-7)
        np.testing.assert_allclose(points[".zeta"], np.arange(-3.0, 4.0), atol=1e-7)
        half = float(t.ppf(0.975, 23)) * ols.se["x"]
        limits = [ols.fixef["x"] - half, ols.fixef["x"] + half]
        assert confint(ols, "x", method="profile").loc["x"].tolist() == pytest.approx(limits, rel=1e-9)
        assert confint(ols, "x").loc["x"].tolist() == pytest.approx(limits, rel=1e-12)


def test_separated_data_have_infinite_limits() -> None:
    x = np.linspace(-1.0, 1.0, 40)
    with pytest.warns(mm.SeparationWarning):
        fit = mm.glm("k ~ x", pd.DataFrame({"x": x, "k": (x > 0).astype(int)}), family="binomial")
    low, high = confint(fit, "x", method="profile").loc["x"]
    assert high == np.inf
    # the root of the deviance with the intercept at its optimum, zero by symmetry
    deviance = 2.0 * np.log1p(np.exp(-low * np.abs(x))).sum()
    assert deviance == pytest.approx(Z**2, rel=1e-6)


EXACT = {
    "gaussian": ("e ~ x", "gaussian", "identity"), "Gamma": ("p ~ x", "Gamma", "log"),
    "inverse gaussian": ("p ~ x", "inverse.gaussian", "log"), "quasi": ("k ~ factor(i)", "quasibinomial", "logit"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::mmcore.MixedModelWarning")
@pytest.mark.parametrize("method", ["wald", "profile", "boot"])
@pytest.mark.parametrize("kind", EXACT)
def test_no_interval_without_a_residual(kind: str, method: str) -> None:
    """An exact or saturated model ends in our own error, and at once."""
    x = np.linspace(-1.0, 1.0, 40)
    data = pd.DataFrame({"x": x, "e": 1 + 2 * x, "p": np.exp(x), "k": [0, 1] * 20, "i": np.arange(40)})
    formula, family, link = EXACT[kind]
    fit = mm.glm(formula, data, family=family, link=link)
    with pytest.raises(mm.FitError, match="no dispersion can be estimated"):
        confint(fit, method=method)
    with pytest.raises(mm.FitError, match="no dispersion can be estimated"):
        confint(mm.lm("e ~ x", data), method=method)


def test_a_profile_holds_what_it_says() -> None:
    """Each row is the optimum of a constrained model: parameter as given, zeta that of a refit."""
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"), reml=False)
    table = profile(fit, zeta_max=2.0, steps=2)
    assert list(table.frame.columns) == [".zeta", *table.estimate.index, ".par"]
    assert table.parameters == list(table.estimate.index)
    days = table["Days"]
    for _, row in days.iterrows():
        held = mm.lmer(
            "Reaction ~ 1 + (Days | Subject)", mm.load_dataset("sleepstudy"), reml=False,
            offset=row["Days"] * mm.load_dataset("sleepstudy")["Days"].to_numpy(dtype=float),
        )  # fmt: skip
        assert held.criterion - fit.criterion == pytest.approx(row[".zeta"] ** 2, abs=1e-6)
        assert held.sigma == pytest.approx(row["sigma"], rel=1e-4)
        assert held.fixef["(Intercept)"] == pytest.approx(row["(Intercept)"], rel=1e-5)
        assert held.varcorr["Subject"].sd[1] == pytest.approx(row["sd_Days|Subject"], rel=1e-3)
    sigma = table["sigma"]
    for _, row in sigma.iterrows():
        held = mm.lmer(
            "Reaction ~ Days + (Days | Subject)",
            mm.load_dataset("sleepstudy"),
            reml=False,
            sigma=row["sigma"],
        )
        assert held.criterion - fit.criterion == pytest.approx(row[".zeta"] ** 2, abs=1e-6)
    with pytest.raises(mm.DataError, match="was not profiled"):
        table["nope"]


def test_known_sigma_partitions_and_fit_at() -> None:
    data = mm.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    fit = mm.lmer(formula, data)
    want = confint(fit, method="profile")
    pd.testing.assert_frame_equal(
        confint(mm.fit_at(formula, data, [1.0, 0.0, 0.3]), method="profile"), want, rtol=1e-6
    )
    parts = [data.iloc[:100], data.iloc[100:]]
    pd.testing.assert_frame_equal(confint(mm.lmer(formula, parts), method="profile"), want, rtol=1e-6)
    known = mm.lmer(formula, data, sigma=25.0, reml=False)
    limits = confint(known, method="profile")
    assert "sigma" not in limits.index
    dense, best = Dense(known), optimum_of(known)
    which = best.every[0]
    start = np.append(known.par, np.log(25.0))

    def held(p: np.ndarray) -> float:
        return dense(np.array([limits.loc[which.name, "low"] / 25.0, p[0], p[1], np.log(25.0)]))

    found = minimize(held, start[1:3], method="BFGS", options={"gtol": 1e-7})
    assert np.sqrt(found.fun - known.criterion) == pytest.approx(Z, abs=1e-5)


def test_what_is_not_profiled_says_so() -> None:
    data = mm.load_dataset("sleepstudy")
    gamma = mm.glmer("Reaction ~ Days + (1 | Subject)", data, family="Gamma", link="log")
    with pytest.raises(mm.UnsupportedError, match="with a dispersion"):
        profile(gamma)
    ratios = mm.lmer(
        "Reaction ~ Days + (1 | Subject)", data.assign(z=(data.Days > 4).astype(str)), residual="varident(z)"
    )
    with pytest.raises(mm.UnsupportedError, match="varident"):
        profile(ratios)
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fast = mm.glmer(formula, mm.load_dataset("cbpp"), family="binomial", nagq=0)
    with pytest.raises(mm.UnsupportedError, match="nagq >= 1"):
        profile(fast)
    with pytest.raises(mm.DataError, match="zeta_max"):
        profile(mm.lm("Reaction ~ Days", data), zeta_max=-1.0)
