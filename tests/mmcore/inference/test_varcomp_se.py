"""Standard errors of variance components: Stata's, closed forms, dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

import mmcore as mm
from mmcore.inference.intervals.varcomp_se import varcomp_se


def test_published_high_school_and_beyond() -> None:
    """Stata's mixed, SOCY7708 lecture notes: its optimum is right to 4 or 5 digits."""
    formula = "mathach ~ ses*meanses + ses*sector + female*meanses + female*sector + (female | id)"
    got = varcomp_se(mm.lmer(formula, mm.load_dataset("HSB_merged"), reml=False))
    published = {
        "var_female|id": (0.9446425, 0.5677046, 0.2908830, 3.0677260),
        "var_(Intercept)|id": (2.8974320, 0.5543400, 1.9914090, 4.2156650),
        "cov_female.(Intercept)|id": (-1.0919210, 0.4762149, -2.0252850, -0.1585568),
        "var_Residual": (36.3782100, 0.6188368, 35.1853100, 37.6115500),
    }
    assert list(got.columns) == ["estimate", "std.error", "low", "high"]
    assert set(got.index) == set(published)
    for name, row in published.items():
        assert got.loc[name].tolist() == pytest.approx(row, rel=6e-4), name
    residual = got.loc["var_Residual"]
    assert residual.tolist() == pytest.approx(published["var_Residual"], rel=2e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_balanced_one_way(reml: bool) -> None:
    """Dyestuff: mean squares are independent, Var MS = 2 E(MS)^2 / df; ML has the mean as well."""
    fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"), reml=reml)
    got = varcomp_se(fit)
    n, groups = 5, 6
    within, df_between = fit.sigma**2, groups - 1 if reml else groups
    between = within + n * float(fit.varcorr["Batch"].cov[0, 0])
    var_within, var_between = 2.0 * within**2 / (groups * (n - 1)), 2.0 * between**2 / df_between
    assert got.loc["var_Residual", "std.error"] == pytest.approx(var_within**0.5, rel=1e-8)
    se = (var_between + var_within) ** 0.5 / n
    assert got.loc["var_(Intercept)|Batch", "std.error"] == pytest.approx(se, rel=1e-6)
    log_half = 1.959963984540054 * se / got.loc["var_(Intercept)|Batch", "estimate"]
    assert got.loc["var_(Intercept)|Batch", "high"] == pytest.approx(
        got.loc["var_(Intercept)|Batch", "estimate"] * np.exp(log_half), rel=1e-6
    )


CASES = {
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    "nested": ("strength ~ 1 + (1 | batch / cask)", "Pastes"),
    "slope": ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    "diagonal": ("Reaction ~ Days + (Days || Subject)", "sleepstudy"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reml", [True, False])
def test_dense_information(case: str, reml: bool) -> None:
    """Differences of the dense likelihood in the variances and covariances themselves, no chain rule."""
    formula, name = CASES[case]
    fit = mm.lmer(formula, mm.load_dataset(name), reml=reml)
    got, d = varcomp_se(fit), fit.design
    Z = [t.Z().toarray() for t in d.terms]
    names = list(got.index)

    def criterion(c: np.ndarray) -> float:
        at = dict(zip(names, c, strict=True))
        V = at["var_Residual"] * np.eye(d.n)
        for t, z in zip(d.terms, Z, strict=True):
            S = np.empty((len(t.effects),) * 2)
            for i, a in enumerate(t.effects):
                for j, b in enumerate(t.effects[: i + 1]):
                    key = f"var_{a}|{t.group}" if i == j else f"cov_{a}.{b}|{t.group}"
                    S[i, j] = S[j, i] = at[key]
            V += z @ np.kron(np.eye(len(t.levels)), S) @ z.T
        C = np.linalg.cholesky(V)
        X, y = np.linalg.solve(C, d.X), np.linalg.solve(C, d.y)
        r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        extra = np.linalg.slogdet(X.T @ X)[1] if reml else 0.0
        return float(2.0 * np.log(C.diagonal()).sum() + r @ r + extra)

    here, h = got["estimate"].to_numpy(), 2e-3 * got["std.error"].to_numpy()
    m, eye = len(here), np.eye(len(here))
    H = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            a, b = eye[i] * h[i], eye[j] * h[j]
            four = criterion(here + a + b) - criterion(here + a - b) - criterion(here - a + b)
            H[i, j] = (four + criterion(here - a - b)) / (4.0 * h[i] * h[j])
    want = np.sqrt(np.diag(2.0 * np.linalg.inv(H)))
    np.testing.assert_allclose(got["std.error"], want, rtol=2e-4)


@pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")
def test_on_the_boundary() -> None:
    """A variance of zero has no standard error; the residual's is that of the model without the term."""
    got = varcomp_se(mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2")))
    assert got.loc["var_(Intercept)|Batch", "estimate"] == 0.0
    assert np.isnan(got.loc["var_(Intercept)|Batch", "std.error"])
    residual = got.loc["var_Residual"]
    assert residual["std.error"] == pytest.approx(residual["estimate"] * (2.0 / 29.0) ** 0.5, rel=1e-9)


def test_structures_and_generalized() -> None:
    """cs with two effects is the unstructured model with one correlation; cbpp by the Hessian of the criterion."""
    data = mm.load_dataset("sleepstudy")
    free = varcomp_se(mm.lmer("Reaction ~ Days + (Days | Subject)", data))
    same = varcomp_se(mm.lmer("Reaction ~ Days + cs(Days | Subject)", data))
    for row in ("var_(Intercept)|Subject", "var_Days|Subject", "var_Residual"):
        np.testing.assert_allclose(same.loc[row], free.loc[row], rtol=1e-5)
    rho = same.loc["cor_rho|Subject"]
    assert np.arctanh(rho["high"]) - np.arctanh(rho["estimate"]) == pytest.approx(
        1.959963984540054 * rho["std.error"] / (1.0 - rho["estimate"] ** 2), rel=1e-9
    )
    fit = mm.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", mm.load_dataset("cbpp"), family="binomial"
    )
    sd, p = float(fit.theta.iloc[0]), fit.design.p
    got = varcomp_se(fit).loc["var_(Intercept)|herd"]
    h = 1e-3
    beta = fit.beta

    def f(x: np.ndarray) -> float:
        at = mm.fit_at(
            "cbind(incidence, size - incidence) ~ period + (1 | herd)", mm.load_dataset("cbpp"), [x[-1]],
            beta=x[:-1], family="binomial",
        )  # fmt: skip
        return at.criterion

    x0, eye = np.append(beta, sd), np.eye(p + 1) * h
    H = np.array(
        [
            [(f(x0 + a + b) - f(x0 + a - b) - f(x0 - a + b) + f(x0 - a - b)) / (4 * h * h) for a in eye]
            for b in eye
        ]
    )
    se_sd = float(np.sqrt(2.0 * np.linalg.inv(H)[-1, -1]))
    assert got["std.error"] == pytest.approx(2.0 * sd * se_sd, rel=1e-4)


def test_refusals() -> None:
    data = mm.load_dataset("sleepstudy")
    with pytest.raises(mm.UnsupportedError, match="needs random effects"):
        varcomp_se(mm.lm("Reaction ~ Days", data))
    with pytest.raises(mm.DataError, match="level must be a number between 0 and 1"):
        varcomp_se(mm.lmer("Reaction ~ Days + (1 | Subject)", data), level=95)
    with pytest.raises(mm.DataError, match="needs a fitted model"):
        varcomp_se("fit")  # type: ignore[arg-type]
