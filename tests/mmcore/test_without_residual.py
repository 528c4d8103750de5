"""Fits that leave no residual: measures that need a scale say so, the others have their values."""

import warnings

import numpy as np
import pandas as pd
import pytest

import mmcore as mm

X = np.linspace(-1, 1, 40)
DATA = pd.DataFrame({"x": X, "line": 1 + 2 * X, "curve": np.exp(1 + X), "one": 1.0})
TWO = DATA.iloc[[0, 7]]
EXACT = {
    "gaussian": lambda: mm.glm("line ~ x", DATA, family="gaussian"),
    "constant": lambda: mm.glm("one ~ 1", DATA, family="gaussian"),
    "Gamma": lambda: mm.glm("curve ~ x", DATA, family="Gamma", link="log"),
    "inverse.gaussian": lambda: mm.glm("curve ~ x", DATA, family="inverse.gaussian", link="log"),
    "quasipoisson": lambda: mm.glm("curve ~ x", DATA, family="quasipoisson"),
    "lm": lambda: mm.lm("line ~ x", DATA),
}
SATURATED = {
    "gaussian": lambda: mm.glm("curve ~ x", TWO, family="gaussian"),
    "quasipoisson": lambda: mm.glm("curve ~ x", TWO, family="quasipoisson"),
    "lm": lambda: mm.lm("curve ~ x", TWO),
}
NEED_SCALE = [
    "cooks_distance", "mdffits", "covtrace", "covratio", "dfbeta", "dfbetas", "dffits", "rstudent", "rstandard",
    "glm_covratio", "hlm_influence", "case_delete", "influence", "rvc", "augment",
]  # fmt: skip


@pytest.mark.parametrize("name", NEED_SCALE)
@pytest.mark.parametrize("model", EXACT)
def test_what_needs_a_scale_says_that_there_is_none(model, name):
    fit = EXACT[model]()
    with pytest.raises(mm.FitError, match="reproduces the response exactly: no dispersion"):
        getattr(mm, name)(fit)


@pytest.mark.parametrize("name", NEED_SCALE)
@pytest.mark.parametrize("model", SATURATED)
def test_saturated_models_too(model, name):
    with pytest.raises(mm.FitError, match="as many coefficients as rows"):
        getattr(mm, name)(SATURATED[model]())


@pytest.mark.parametrize("model", EXACT)
def test_leverage_and_residuals_do_not_need_one(model):
    fit = EXACT[model]()
    X = fit.design.X
    if fit.family is None or (fit.family.name != "quasipoisson" and model != "inverse.gaussian"):
        want = np.diag(X @ np.linalg.solve(X.T @ X, X.T))  # constant working weights
        np.testing.assert_allclose(mm.hatvalues(fit), want, rtol=1e-9)
    assert mm.hatvalues(fit).sum() == pytest.approx(fit.design.p)
    np.testing.assert_allclose(fit.resid("response"), 0, atol=1e-12)


@pytest.mark.parametrize("fit", [*EXACT.values(), *SATURATED.values()])
def test_tables_and_summaries_warn_of_nothing_foreign(fit):
    fit = fit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", mm.MixedModelWarning)
        assert "Coefficients" in fit.summary()
        np.testing.assert_allclose(mm.tidy(fit).estimate, fit.fixef)
        assert mm.glance(fit).shape[0] == 1


def test_a_residual_that_one_row_takes_with_it():
    """Three rows, two coefficients: without any row sigma is not determined, the coefficients are."""
    data = DATA.iloc[[0, 7, 20]]
    fit = mm.lm("curve ~ x", data)
    table = mm.case_delete(fit).measures()
    C = fit.vcov.to_numpy()
    for row in data.index:
        rest = data.drop(index=row)
        slope = np.diff(rest.curve)[0] / np.diff(rest.x)[0]
        beta = np.array([rest.curve.iloc[0] - slope * rest.x.iloc[0], slope])
        d = fit.beta - beta
        assert table.cooksd[row] == pytest.approx(d @ np.linalg.solve(C, d) / 2, rel=1e-9)
    assert table[["mdffits", "covratio", "rvc.sigma2"]].isna().all().all()
