"""Published numbers of linear (mixed) models: papers, books, manuals and other projects' tests.

`tests/data/published_lmm.json` has, per model, its source and per quantity the printed value and the number of
digits to which it is right: a printed value is rounded, and an optimiser may have stopped early, so the digits are
those to which R agrees with the source, and at most 6.5 for what depends on where an optimiser stopped.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import mmcore as mm

MODELS = json.loads((Path(__file__).parents[1] / "data" / "published_lmm.json").read_text())

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")


def fitted(model):
    data = mm.load_dataset(model["data"])
    if "|" not in model["formula"]:
        return mm.lm(model["formula"], data)
    return mm.lmer(model["formula"], data, reml=bool(model["reml"]))


def at(fit, theta):
    return mm.fit_design_at(fit.design, [theta], reml=fit.reml).criterion


def covariance(fit, what):
    effects, group = what.split("|")
    term = next(t for t in fit.varcorr.values() if t.group == group and effects.split(",")[0] in t.effects)
    return term, [term.effects.index(e) for e in effects.split(",")]


def log_det_L2(fit):
    """log |L|^2 of the random effects: the criterion less the residual's and the fixed effects' share."""
    profile, p = fit.state.profile, fit.design.p
    fixed = (
        2 * np.log(np.diag(profile.LS)[:p]).sum() + fit.criterion_fn.kernel.A.logdet_R if fit.reml else 0.0
    )
    return fit.criterion - fixed - profile.nu * (1 + np.log(2 * np.pi * profile.rss / profile.nu))


def predicted(fit, subject, day):
    fixed, random = fit.fixef, fit.ranef["Subject"].loc[subject]
    return (fixed["(Intercept)"] + random["(Intercept)"]) + day * (fixed["Days"] + random["Days"])


def wald(fit, side, name):
    coefficient = {"Int": "(Intercept)", "Days": "Days"}[name]
    return fit.fixef[coefficient] + {"lo": -1, "hi": 1}[side] * 1.959963984540054 * fit.se[coefficient]


def condvar(fit, term=0, level=0):
    return fit.condvar[list(fit.condvar)[term]][level]


def without(fit, row):
    return mm.fit_design(fit.design.take(np.delete(np.arange(fit.nobs), row)), reml=fit.reml)


def scaled_residuals(fit):
    return fit.resid("pearson", scaled=True)


def total_sum_of_squares(fit):
    return float(np.sum((fit.design.y - fit.design.y.mean()) ** 2))


def residual_sum_of_squares(fit):
    return float(np.sum(fit.resid() ** 2))


def f_statistic(fit):
    rss, total, p = residual_sum_of_squares(fit), total_sum_of_squares(fit), fit.design.p
    return (total - rss) / (p - 1) / (rss / (fit.nobs - p))


def tolerance(fit, name):
    return 1 / mm.vif(fit).loc[name, "gvif"]


# pattern of a quantity -> its value; groups of the pattern are passed on
VALUES = {
    r"m2ll|REMLcrit": lambda f: f.criterion,
    r"logLik": lambda f: f.loglik,
    r"AIC": lambda f: f.aic,
    r"BIC": lambda f: f.bic,
    r"(?:fixef|coef):(.*)": lambda f, name: f.fixef[name],
    r"se:(.*)": lambda f, name: f.se[name],
    r"theta:(\d)": lambda f, k: f.theta.iloc[int(k) - 1],
    r"sd:(.*)": lambda f, what: (lambda t, i: t.sd[i[0]])(*covariance(f, what)),
    r"var:(.*)": lambda f, what: (lambda t, i: t.cov[i[0], i[0]])(*covariance(f, what)),
    r"cov:(.*)": lambda f, what: (lambda t, i: t.cov[i[0], i[1]])(*covariance(f, what)),
    r"cor:(.*)": lambda f, what: (lambda t, i: t.correlation[i[0], i[1]])(*covariance(f, what)),
    r"sigma|RMSE": lambda f: f.sigma,
    r"sigma2": lambda f: f.sigma**2,
    r"pwrss": lambda f: f.state.profile.rss,
    r"deviance": residual_sum_of_squares,
    r"ldL2": log_det_L2,
    r"fit(\d+)": lambda f, i: f.fitted.iloc[int(i) - 1],
    r"resid(\d+)": lambda f, i: f.resid().iloc[int(i) - 1],
    r"resid_(min|max)": lambda f, side: getattr(f.resid(), side)(),
    r"sresid_(min|max)": lambda f, side: getattr(scaled_residuals(f), side)(),
    r"leverage_sum": lambda f: np.sum(mm.hatvalues(f)),
    r"(?:leverage|hat:)(\d+)": lambda f, i: np.asarray(mm.hatvalues(f))[int(i) - 1],
    r"cooksd:(\d+)": lambda f, i: np.asarray(mm.cooks_distance(f, kind="plugin"))[int(i) - 1],
    r"rstudent:(\d+).*": lambda f, i: np.asarray(mm.rstudent(f))[int(i) - 1],
    r"condVar_(?:cask|plate)1|condVar|postVar": lambda f: condvar(f)[0, 0],
    r"condVar_sampleF": lambda f: condvar(f, 1, -1)[0, 0],
    r"condVar(\d)(\d)": lambda f, i, j: condvar(f)[int(i) - 1, int(j) - 1],
    r"condsd_Int": lambda f: condvar(f, 0)[0, 0] ** 0.5,
    r"condsd_Days": lambda f: condvar(f, 1)[0, 0] ** 0.5,
    r"condval_308_Int|b308": lambda f: f.ranef["Subject"].loc["308", "(Intercept)"],
    r"condval_308_Days": lambda f: f.ranef["Subject"].loc["308", "Days"],
    r"b_sampleF": lambda f: f.ranef["sample"].loc["F", "(Intercept)"],
    r"ranef:(\d+)": lambda f, i: f.ranef["g"].iloc[int(i) - 1, 0],
    r"corr_fixef": lambda f: f.vcov.iloc[0, 1] / (f.se.iloc[0] * f.se.iloc[1]),
    r"var_fixef|vcov11": lambda f: f.vcov.iloc[0, 0],
    r"predict_(\d+)_d(\d)": lambda f, subject, day: predicted(f, subject, int(day)),
    r"REMLfun\((\d)\)": lambda f, theta: at(f, float(theta)),
    r"m2ll_at_theta_(.*)": lambda f, theta: at(f, float(theta)),
    r"Wald_(lo|hi)_(\w+)": wald,
    r"drop1_case1:(.*)": lambda f, name: without(f, 0).fixef[name],
    r"R2": lambda f: 1 - residual_sum_of_squares(f) / total_sum_of_squares(f),
    r"F": f_statistic,
    r"invVIF:(.*)": tolerance,
}


def value(fit, key):
    for pattern, function in VALUES.items():
        match = re.fullmatch(pattern, key)
        if match:
            return function(fit, *match.groups())
    raise KeyError(key)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m["name"])
def test_published_numbers(model):
    fit = fitted(model)
    wrong = []
    for key, (published, digits) in model["expected"].items():
        got = value(fit, key)
        if abs(got - published) > 10.0**-digits * max(abs(published), 1e-3):
            wrong.append(f"{key}: {got!r}, published {published!r}, right to {digits} digits")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("data", "small", "large", "statistic", "p"),
    [
        (
            "Pastes",
            "strength ~ 1 + (1 | batch:cask)",
            "strength ~ 1 + (1 | batch/cask)",
            None,
            0.523376796578088,
        ),
        (
            "sleepstudy",
            "Reaction ~ Days + (Days || Subject)",
            "Reaction ~ Days + (Days | Subject)",
            0.0639,
            0.8004,
        ),
        (
            "sleepstudy",
            "Reaction ~ 1 + (Days | Subject)",
            "Reaction ~ Days + (Days | Subject)",
            23.5365,
            None,
        ),
    ],
)
def test_published_likelihood_ratio_tests(data, small, large, statistic, p):
    from scipy.stats import chi2

    frame = mm.load_dataset(data)
    fits = [mm.lmer(formula, frame, reml=False) for formula in (small, large)]
    ratio = fits[0].criterion - fits[1].criterion
    if statistic is not None:
        assert ratio == pytest.approx(statistic, abs=0.5e-4)
    if p is not None:
        assert chi2.sf(ratio, fits[1].df - fits[0].df) == pytest.approx(
            p, abs=1e-9 if p > 0.52 and p < 0.53 else 0.5e-4
        )


def test_closed_form_of_a_balanced_one_way_layout():
    """ML and REML of a balanced one-way layout are functions of two mean squares (Searle, Casella & McCulloch)."""
    data = mm.load_dataset("Dyestuff")
    groups = data.groupby("Batch", observed=True)["Yield"]
    k, n = groups.ngroups, len(data) // groups.ngroups
    between = n * float(((groups.mean() - data.Yield.mean()) ** 2).sum())
    within = float(((data.Yield - groups.transform("mean")) ** 2).sum()) / (k * (n - 1))
    for reml, df in ((True, k - 1), (False, k)):
        fit = mm.lmer("Yield ~ 1 + (1 | Batch)", data, reml=reml)
        variance = (between / df - within) / n
        assert fit.sigma**2 == pytest.approx(within, rel=1e-9)
        assert fit.varcorr["Batch"].cov[0, 0] == pytest.approx(variance, rel=1e-7)
