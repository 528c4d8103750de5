"""Bootstrap: fits in step are the single fits, seeds, what is drawn, intervals, failures; and the verb confint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import mmcore as mm
from mmcore.inference.bootstrap.bootstrap import Bootstrap, bootstrap
from mmcore.inference.bootstrap.replicate import Plan
from mmcore.inference.bootstrap.resample import of_clusters, parametric, residual
from mmcore.inference.intervals.confint import confint
from mmcore.inference.intervals.parameters import parameters, values

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")
RECORDED_BOOTMER = {  # set.seed(1); quantile(type = 6)
    "sd_(Intercept)|Subject": (12.2544343, 36.37116597), "cor_Days.(Intercept)|Subject": (-0.4823692, 0.89817504),
    "sd_Days|Subject": (3.4082614, 8.33239682), "sigma": (22.6813940, 28.46444321),
    "(Intercept)": (237.7554705, 264.39526229), "Days": (7.4946564, 13.57444580),
}  # fmt: skip
FORMULA = "Reaction ~ Days + (Days | Subject)"


def own(fit: Any) -> np.ndarray:
    """The parameters of a fit."""
    return values(parameters(fit), fit.Lambda, fit.sigma, fit.beta)


def unbalanced() -> tuple[pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(1)
    data = mm.load_dataset("sleepstudy").iloc[rng.permutation(180)[:140]]
    return data, {"weights": rng.uniform(0.5, 2.0, 140), "offset": rng.normal(size=140)}


CASES = {
    "balanced": lambda: mm.lmer(FORMULA, mm.load_dataset("sleepstudy")),
    "unbalanced, weights, offset": lambda: mm.lmer(FORMULA, unbalanced()[0], **unbalanced()[1]),
    "scalar, ML": lambda: mm.lmer(
        "Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"), reml=False
    ),
    "no fixed effects": lambda: mm.lmer("Reaction ~ 0 + (Days || Subject)", mm.load_dataset("sleepstudy")),
    "three effects": lambda: mm.lmer("score ~ Machine + (0 + Machine | Worker)", mm.load_dataset("Machines")),
    "often singular": lambda: mm.lmer("distance ~ age * Sex + (age | Subject)", mm.load_dataset("Orthodont")),
    "known sigma": lambda: mm.lmer(FORMULA, mm.load_dataset("sleepstudy"), sigma=25.0),
    "crossed": lambda: mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin")),
    "cs": lambda: mm.lmer("score ~ Machine + cs(0 + Machine | Worker)", mm.load_dataset("Machines")),
}


@pytest.mark.parametrize("case", CASES)
def test_replicates_are_single_fits(case: str) -> None:
    """Every replicate is the fit of its response: same criterion, same parameters."""
    fit, n = CASES[case](), 40
    boot = bootstrap(fit, n, 3)
    seed = np.random.SeedSequence(3).spawn(1)[0]
    Y = parametric(fit, n, np.random.default_rng(seed))
    assert boot.converged.all() and not len(boot.failures)
    for y, row in zip(Y, boot.replicates.to_numpy(), strict=True):
        single = fit.refit(y)
        want = own(single)
        if (
            np.isnan(want).any() or single.is_singular
        ):  # there a correlation may be anything, a variance 1e-12
            np.testing.assert_allclose(row[~np.isnan(want)], want[~np.isnan(want)], atol=2e-3)
            continue
        np.testing.assert_allclose(row, want, rtol=2e-4, atol=1e-6)
    assert boot.singular.sum() == sum(fit.refit(y).is_singular for y in Y)


def test_seeds_and_executors() -> None:
    """The same seed gives the same replicates wherever they are fitted, and a longer run begins with them."""
    fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    first = bootstrap(fit, 200, 7).replicates
    longer = bootstrap(fit, 300, 7, executor="threading").replicates
    np.testing.assert_array_equal(first, longer.iloc[:200])
    with ThreadPoolExecutor(2) as pool:
        np.testing.assert_array_equal(first, bootstrap(fit, 200, 7, executor=pool).replicates)
    sequence = np.random.SeedSequence(7)
    for _ in range(2):  # a sequence is not used up
        np.testing.assert_array_equal(first, bootstrap(fit, 200, sequence).replicates)
    a = bootstrap(fit, 20, np.random.default_rng(1)).replicates
    np.testing.assert_array_equal(a, bootstrap(fit, 20, np.random.default_rng(1)).replicates)
    assert not np.array_equal(first.iloc[:20], a)


def test_parametric_draws_have_the_fitted_covariance() -> None:
    """Moments of 20,000 draws against V, within five Monte-Carlo standard errors."""
    data, options = unbalanced()
    fit = mm.lmer(FORMULA, data, **options)
    Y = parametric(fit, 20_000, np.random.default_rng(0))
    V = np.diag(fit.sigma**2 / fit.design.weights)
    Z = fit.design.terms[0].Z().toarray()
    V += Z @ np.kron(np.eye(18), fit.varcorr["Subject"].cov) @ Z.T
    mean = fit.design.X @ fit.beta + fit.design.offset
    assert np.abs((Y.mean(axis=0) - mean) / np.sqrt(np.diag(V) / len(Y))).max() < 5
    S = np.cov(Y.T)
    error = np.sqrt((V**2 + np.outer(np.diag(V), np.diag(V))) / len(Y))
    assert np.abs((S - V) / error).max() < 5.5


def test_residual_draws_have_the_estimated_variances() -> None:
    """What is drawn from has variances sigma^2 Lambda Lambda' and sigma^2 exactly, not the shrunken ones."""
    fit = mm.lmer("Reaction ~ 1 + (1 | Subject)", mm.load_dataset("sleepstudy"))
    Y = residual(fit, 4000, np.random.default_rng(0)) - fit.beta[0]
    blocks = Y.reshape(4000, 18, 10)
    between = float((blocks[:, :, :1] * blocks[:, :, 1:]).mean())
    total = float(np.square(Y).mean())
    want = float(fit.varcorr["Subject"].cov[0, 0])
    assert between == pytest.approx(want, rel=0.02)
    assert total == pytest.approx(want + fit.sigma**2, rel=0.02)
    assert len(bootstrap(fit, 50, 1, type="residual").replicates.dropna()) == 50


def test_clusters() -> None:
    """Copies of a cluster are clusters of their own, nested levels too; every cluster once is the fit itself."""
    fit = mm.lmer("strength ~ 1 + (1 | batch / cask)", mm.load_dataset("Pastes"))
    codes = next(t.codes for t in fit.design.terms if t.group == "batch")
    again = mm.fit_design(of_clusters(fit.design, codes, np.arange(10)[::-1]), reml=True)
    assert again.criterion == pytest.approx(fit.criterion, abs=1e-9)
    twice = of_clusters(fit.design, codes, np.array([3, 3, 5]))
    assert twice.n == 18
    assert [len(t.levels) for t in twice.terms] == [9, 3]
    one_way = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    boot = bootstrap(one_way, 400, 2, type="cluster")
    assert boot.se["Days"] == pytest.approx(1.5, abs=0.2)  # of 18 slopes by subject: 6.6 / sqrt(18)
    crossed = mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"))
    with pytest.raises(mm.DataError, match="crossed; name the one"):
        bootstrap(crossed, 10, 1, type="cluster")
    assert bootstrap(crossed, 10, 1, type="cluster", cluster="plate").converged.all()


def test_linear_models_have_the_known_distribution() -> None:
    """lm: the covariance of the replicates is sigma^2 (X'X)^-1, within Monte-Carlo error; each is a refit."""
    data = mm.load_dataset("sleepstudy")
    fit = mm.lm("Reaction ~ Days", data, weights=np.linspace(1, 2, 180))
    boot = bootstrap(fit, 4000, 5)
    ratio = boot.se[["(Intercept)", "Days"]] / fit.se.to_numpy()
    np.testing.assert_allclose(ratio, 1.0, atol=0.05)
    y = parametric(fit, 1, np.random.default_rng(np.random.SeedSequence(5).spawn(1)[0]))[0]
    again = fit.refit(y)
    np.testing.assert_allclose(boot.replicates.iloc[0], [again.sigma, *again.beta], rtol=1e-10)


def test_generalized_models_are_refitted() -> None:
    fit = mm.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", mm.load_dataset("cbpp"), family="binomial"
    )
    boot = bootstrap(fit, 12, 1)
    seed = np.random.SeedSequence(1).spawn(1)[0]
    for y, row in zip(
        parametric(fit, 12, np.random.default_rng(seed)), boot.replicates.to_numpy(), strict=True
    ):
        np.testing.assert_allclose(row, own(fit.refit(y)), rtol=2e-4, atol=2e-4)
    with pytest.raises(mm.UnsupportedError, match="use type='parametric'"):
        bootstrap(fit, 10, 1, type="residual")


def _of(draws: list[float], y: list[float]) -> Bootstrap:
    fit = mm.lm("y ~ 1", pd.DataFrame({"y": y}))
    frame = pd.DataFrame({"mean": draws})
    estimate = pd.Series({"mean": float(np.mean(y))})
    yes = np.ones(len(draws), bool)
    plan = Plan(fit, "parametric", None, lambda f: {"mean": f.fixef.iloc[0]})
    return Bootstrap(frame, estimate, yes, ~yes, pd.Series(dtype=object), plan)


def test_intervals_are_boots() -> None:
    """R's boot.ci (boot 1.3-28) of a mean: percentile and basic exactly, BCa within a gap of its draws."""
    y = [3.1, 2.7, 5.9, 4.4, 1.2, 8.8, 3.3, 2.2, 6.1, 4.9, 3.8, 7.7]
    rng = np.random.default_rng(0)
    draws = sorted(np.array(y)[rng.integers(0, 12, (199, 12))].mean(axis=1).tolist())
    boot = _of(draws, y)
    assert boot.confint().loc["mean"].tolist() == pytest.approx([draws[4], draws[194]])  # ranks 200 p
    center = 2.0 * np.mean(y)
    assert boot.confint(method="basic").loc["mean"].tolist() == pytest.approx(
        [center - draws[194], center - draws[4]]
    )
    x = np.array(y) - np.mean(y)
    a = (x**3).sum() / (6.0 * (x**2).sum() ** 1.5)
    below = np.mean(np.array(draws) < np.mean(y)) + 0.5 * np.mean(np.array(draws) == np.mean(y))
    z0 = norm.ppf(below)
    z = z0 + norm.ppf([0.05, 0.95])
    ranks = 200.0 * norm.cdf(z0 + z / (1.0 - a * z))
    want = [np.interp(r, np.arange(1, 200), draws) for r in ranks]
    assert boot.confint(0.9, "bca").loc["mean"].tolist() == pytest.approx(want, rel=1e-9)
    with pytest.warns(mm.MixedModelWarning, match="too few for this level"):
        boot.confint(0.999)
    with pytest.raises(mm.UnsupportedError, match="'percentile', 'basic', 'bca'"):
        boot.confint(method="t")


def test_percentile_limits_are_lme4s() -> None:
    """bootMer(nsim = 4000) of sleepstudy, lme4 1.1-31: percentile limits within Monte-Carlo error of both."""
    fit = mm.lmer(FORMULA, mm.load_dataset("sleepstudy"))
    got = bootstrap(fit, 4000, 11).confint()
    want = RECORDED_BOOTMER
    for name, (low, high) in want.items():
        se = (high - low) / 3.92
        # a 2.5 % quantile of 4,000 normal draws has standard error 0.042 se; of the difference sqrt(2) as much
        assert got.loc[name].tolist() == pytest.approx([low, high], abs=5 * 0.06 * se), name


def test_failures_are_reported() -> None:
    """A statistic that cannot be had in some replicates: rows of NaN, messages by replicate, a warning."""
    fit = mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy"))

    def moody(f: Any) -> dict[str, float]:
        if f is not fit and f.fixef["Days"] > fit.fixef["Days"]:
            raise mm.FitError("too steep")
        return {"slope": float(f.fixef["Days"])}

    with pytest.warns(mm.MixedModelWarning, match="of 60 replicates could not be fitted"):
        boot = bootstrap(fit, 60, 1, statistic=moody)
    assert set(boot.failures) == {"too steep"}
    assert boot.replicates["slope"].isna().sum() == len(boot.failures)
    assert boot.replicates["slope"].isna().to_numpy().nonzero()[0].tolist() == list(boot.failures.index)
    assert boot.summary().loc["slope", "replicates"] == 60 - len(boot.failures)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap(mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy")), 10, 1, progress=True)
    assert "10/10 replicates" in capsys.readouterr().err


# ---- the verb --------------------------------------------------------------------------------------------------------


def test_wald() -> None:
    """Estimate plus or minus normal quantiles; nothing for variances, in lme4's order and names."""
    fit = mm.lmer("Reaction ~ Days + (Days || Subject)", mm.load_dataset("sleepstudy"))
    got = confint(fit)
    assert list(got.index) == ["sd_(Intercept)|Subject", "sd_Days|Subject", "sigma", "(Intercept)", "Days"]
    assert list(got.columns) == ["low", "high"]
    assert got.iloc[:3].isna().to_numpy().all()
    # lme4 1.1-31, confint(fm, method = "Wald")
    np.testing.assert_allclose(got.iloc[3:], [[237.910006, 264.90020], [7.410587, 13.52399]], rtol=1e-6)
    # R 4.2.2, confint of the lm
    want = [[238.36075318712, 264.4494565098], [8.02385502213, 12.9107168971]]
    np.testing.assert_allclose(
        confint(mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy"))), want, rtol=1e-10
    )


def test_parm_and_boot_of_the_verb() -> None:
    fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    assert list(confint(fit, "beta_").index) == ["(Intercept)", "Days"]
    assert list(confint(fit, "theta_").index) == ["sd_(Intercept)|Subject", "sigma"]
    assert list(confint(fit, ["Days", "sigma"], method="profile").index) == ["Days", "sigma"]
    got = confint(fit, "Days", 0.9, "boot", nsim=200, rng=4, interval="basic")
    want = bootstrap(fit, 200, 4).confint(0.9, "basic").loc[["Days"]]
    pd.testing.assert_frame_equal(got, want)


@pytest.mark.parametrize("level", [95, 1, 0, -0.5, "a", None, True, float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["wald", "profile", "boot"])
def test_levels_are_between_0_and_1(level: Any, method: str) -> None:
    fit = mm.lm("Reaction ~ Days", mm.load_dataset("sleepstudy"))
    with pytest.raises(mm.DataError, match="level must be a number between 0 and 1"):
        confint(fit, level=level, method=method)


def test_natural_mistakes() -> None:
    fit = mm.lmer("Reaction ~ Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    for bad, kind, text in [
        (lambda: confint(fit, "nope"), mm.DataError, "no parameter is named 'nope'; there are sd_"),
        (lambda: confint(fit, 3), mm.DataError, "give names of parameters"),
        (lambda: confint(fit, method="exact"), mm.UnsupportedError, "'wald', 'profile', 'boot'"),
        (lambda: confint(fit, nsim=3), mm.UnsupportedError, "no argument 'nsim'"),
        (lambda: confint("fit"), mm.DataError, "confint needs a fitted model"),
        (lambda: bootstrap([1], 10), mm.DataError, "bootstrap needs a fitted model"),
        (lambda: bootstrap(fit, 1), mm.DataError, "at least 2 replicates"),
        (lambda: bootstrap(fit, 2.5), mm.DataError, "whole number"),
        (lambda: bootstrap(fit, 10, "a"), mm.DataError, "rng must be a seed"),
        (lambda: bootstrap(fit, 10, -1), mm.DataError, "rng must be a seed"),
        (lambda: bootstrap(fit, 10, type="x"), mm.UnsupportedError, "'parametric', 'residual', 'cluster'"),
        (lambda: bootstrap(fit, 10, cluster="Subject"), mm.DataError, "is for type='cluster'"),
        (lambda: bootstrap(fit, 10, type="cluster", cluster="g"), mm.DataError, "there are Subject"),
        (lambda: bootstrap(fit, 10, type="cluster", cluster=[1, 2]), mm.DataError, "each of the 180 rows"),
        (lambda: bootstrap(fit, 10, executor="nope"), mm.UnsupportedError, "no backend of joblib"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=text):
            bad()
