"""Satterthwaite's degrees of freedom: 60-digit arithmetic, dense algebra on every shape of Z, edges."""

import warnings

import numpy as np
import pandas as pd
import pytest

import mmcore as mm
from mmcore import kernels
from mmcore.inference.df.curvature import along_parameters, exact_hessian
from mmcore.inference.df.denominators import coefficient_table
from mmcore.inference.df.ftest import pooled_df
from mmcore.inference.df.satterthwaite import Satterthwaite, satterthwaite, singular_directions
from mmcore.inference.df.traces import traces
from mmcore.inference.tests.hypotheses import term_columns
from tests.mmcore.inference.dense import directions, model
from tests.mmcore.inference.exact import ExactModel
from tests.mmcore.inference.test_recorded_tests import CASES, DIFFERENCED
from tests.mmcore.inference.test_recorded_tests import fit_of as recorded_fit
from tests.oracles import dense_V, dense_Z

RNG = np.random.default_rng(20)
N = 240


def frame():
    """Crossed g, h, k; a holds b holds c; unbalanced, with levels of a single row."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({c: rng.normal(size=N) for c in ("x", "z")})
    for name, levels in (("g", 20), ("h", 9), ("k", 5)):
        data[name] = rng.integers(0, levels, N).astype(str)
    data["a"] = rng.integers(0, 4, N).astype(str)
    data["b"] = data.a + rng.integers(0, 4, N).astype(str)
    data["c"] = data.b + rng.integers(0, 6, N).astype(str)
    data["w"] = rng.uniform(0.3, 3, N)
    data["y"] = rng.normal(size=N) + 2 * data.x
    for name in ("g", "h", "k", "a", "b", "c"):
        codes = data[name].astype("category").cat.codes
        effects = rng.normal(size=(2, codes.max() + 1))
        data["y"] += effects[0][codes] + 0.5 * data.x * effects[1][codes]
    return data


FORMULAS = {
    "y ~ x + (x | g)": "OneFactor",
    "y ~ x + (x || g)": "OneFactor",
    "y ~ x + z + (1 | g) + (x | h)": "Crossed",
    "y ~ x + (x | g) + (1 | h) + (x | k)": "Crossed",
    "y ~ x + (x | c) + (1 | b) + (x | a)": "Nested",
    "y ~ x + (1 | b) + (1 | a)": "Nested",
    "y ~ x + cs(x | g)": "OneFactor",
    "y ~ x + ar1(0 + k | g)": "OneFactor",
    "y ~ 0 + (1 | g) + (1 | h)": "Crossed",
}


def fit_of(formula, monkeypatch, dense, reml=True, weights="w"):
    monkeypatch.setattr(kernels, "DENSE_Q", 10_000 if dense else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SingularWarning)
        base = mm.lmer(formula, frame(), reml=reml, weights=weights)
    return mm.fit_at(formula, frame(), base.theta * 0.9 + 0.0, reml=reml, weights=weights)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("formula", FORMULAS)
def test_traces_equal_their_dense_definition(formula, dense, monkeypatch):
    fit = fit_of(formula, monkeypatch, dense)
    kernel = fit.criterion_fn.kernel
    expected_kind = "Dense" if dense and FORMULAS[formula] != "OneFactor" else FORMULAS[formula]
    assert type(kernel).__name__ == expected_kind
    E = [RNG.normal(size=(2, b.K, b.K)) for b in kernel.A.blocks]
    E = [e + e.transpose(0, 2, 1) for e in E]
    Vinv = np.linalg.inv(directions(kernel.A, fit.criterion_fn.covariance.sigma(fit.par), identity=True))
    moved = [
        directions(kernel.A, [e if i == j else 0.0 * s[0] for j, s in enumerate(E)])
        for i, b in enumerate(E)
        for e in b
    ]
    expected = np.array([[np.trace(Vinv @ a @ Vinv @ b) for b in moved] for a in moved])
    np.testing.assert_allclose(traces(fit.state, E), expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("formula", FORMULAS)
def test_hessian_is_the_derivative_of_the_exact_gradient(formula, dense, reml, monkeypatch):
    """Also where the optimizer has average information only: nested chains and crossed factors."""
    fit = fit_of(formula, monkeypatch, dense, reml)
    criterion, par = fit.criterion_fn, np.array(fit.par)
    h = 1e-5
    gradient = lambda x: criterion.derivatives(x, criterion.factor(x))[0]
    expected = np.array([(gradient(par + h * e) - gradient(par - h * e)) / (2 * h) for e in np.eye(len(par))])
    found = exact_hessian(fit, along_parameters(fit))
    np.testing.assert_allclose(found, expected, atol=3e-8 * np.abs(expected).max())


EXACT = [
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)", True, False),
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)", False, True),
    ("MASS_nlschools", "lang ~ IQ * SES + COMB + (IQ | class)", True, False),
    ("Machines", "score ~ Machine + (0 + Machine | Worker)", True, True),
]


@pytest.mark.parametrize(("name", "formula", "reml", "weighted"), EXACT)
def test_sixty_digits(name, formula, reml, weighted):
    data = mm.load_dataset(name)
    weights = 0.5 + (np.arange(1, len(data) + 1) % 5) / 2 if weighted else None
    fit = mm.lmer(formula, data, reml=reml, weights=weights)
    found = satterthwaite(fit)
    exact = Satterthwaite(*ExactModel(fit.design, reml).satterthwaite(fit.theta.to_numpy(), fit.sigma))
    for row in np.eye(fit.design.p):
        assert found.df(row) == pytest.approx(exact.df(row), rel=1e-9)
    L = RNG.normal(size=(2, fit.design.p))
    assert found.f_test(L, L @ fit.beta).den_df == pytest.approx(
        exact.f_test(L, L @ fit.beta).den_df, rel=1e-9
    )


@pytest.mark.parametrize("name", DIFFERENCED)
def test_where_lmertest_differs_sixty_digits_side_with_mmcore(name):
    """Its derivatives are numerical; those of mmcore are exact."""
    case, fit = CASES[name], recorded_fit(CASES[name])
    exact = Satterthwaite(*ExactModel(fit.design, case["reml"]).satterthwaite(case["theta"], fit.sigma))
    found = satterthwaite(fit)
    rows = {t: np.eye(fit.design.p)[at] for t, at in term_columns(fit.design).items()}
    theirs = dict(zip(case["drop1 F"]["row"], case["drop1 F"]["DenDF"], strict=True))
    truth = {t: exact.f_test(rows[t], rows[t] @ fit.beta).den_df for t in theirs}
    for term, df in truth.items():
        assert found.f_test(rows[term], rows[term] @ fit.beta).den_df == pytest.approx(df, rel=1e-11)
    assert max(abs(theirs[t] / truth[t] - 1) for t in theirs) > 1e-6


def test_balanced_designs_have_whole_degrees_of_freedom():
    """Split plot: 5 whole-plot df for the intercept of sleepstudy-like designs, 10 within for Machines."""
    fit = mm.lmer("score ~ Machine + (1 | Worker/Machine)", mm.load_dataset("Machines"))
    np.testing.assert_allclose(coefficient_table(fit).loc[["MachineB", "MachineC"], "df"], 10.0, rtol=1e-7)
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    np.testing.assert_allclose(coefficient_table(fit)["df"], 17.0, rtol=1e-6)


@pytest.mark.parametrize("by", [1e-8, 1e8])
def test_unit_of_the_response_does_not_matter(by):
    data = mm.load_dataset("sleepstudy")
    theta = mm.lmer("Reaction ~ Days + (Days | Subject)", data).theta
    base = coefficient_table(mm.fit_at("Reaction ~ Days + (Days | Subject)", data, theta))
    scaled = coefficient_table(
        mm.fit_at("Reaction ~ Days + (Days | Subject)", data.assign(Reaction=data.Reaction * by), theta)
    )
    np.testing.assert_allclose(scaled["df"], base["df"], rtol=1e-10)


def test_zero_variance_gives_those_of_least_squares():
    """At theta = 0 the only variance parameter that moves vcov is sigma."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SingularWarning)
        fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert fit.theta.iloc[0] == 0.0
    assert coefficient_table(fit)["df"].iloc[0] == pytest.approx(29.0, rel=1e-12)
    assert list(singular_directions(fit)) == ["Batch"]


def test_singular_direction_is_the_combination_without_variance():
    fit = mm.fit_at("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"), [0.8, 0.4, 0.0])
    (direction,) = singular_directions(fit)["Subject"]
    np.testing.assert_allclose(np.abs(direction), np.array([1.0, 2.0]) / np.sqrt(5.0))
    regular = mm.fit_at("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"), [0.8, 0.4, 0.2])
    assert singular_directions(regular) == {}


def test_not_an_optimum_is_said():
    """Far off the optimum the criterion curves downwards along theta."""
    data = mm.load_dataset("sleepstudy")
    fit = mm.fit_at("Reaction ~ Days + (1 | Subject)", data, [60.0])
    with pytest.warns(mm.MixedModelWarning, match="no minimum"):
        coefficient_table(fit)


def test_known_sigma_counts_as_known():
    data = mm.load_dataset("Dyestuff")
    fit = mm.lmer("Yield ~ 1 + (1 | Batch)", data, sigma=50.0)
    s, design, theta = satterthwaite(fit), fit.design, float(fit.theta.iloc[0])
    assert s.jacobian.shape == (1, 1, 1)

    def parts(t):
        V = dense_V(design, [np.array([[t * t]])])
        Vinv, one = np.linalg.inv(V), np.ones(30)
        C = 1.0 / (one @ Vinv @ one)
        r = design.y - C * (one @ Vinv @ design.y)
        return np.linalg.slogdet(V)[1] - np.log(C) + r @ Vinv @ r / 2500.0, 2500.0 * C

    h = 1e-4
    (f0, v0), (f1, v1), (f2, v2) = parts(theta), parts(theta + h), parts(theta - h)
    slope, curve = (v1 - v2) / (2 * h), (f1 - 2 * f0 + f2) / h**2
    assert s.df(np.ones(1)) == pytest.approx(2 * v0**2 / (slope**2 * 2 / curve), rel=1e-5)


def test_without_fixed_effects_the_table_is_empty():
    fit = mm.lmer("Yield ~ 0 + (1 | Batch)", mm.load_dataset("Dyestuff"))
    table = coefficient_table(fit)
    assert table.shape == (0, 5)
    assert list(table.columns) == ["estimate", "std.error", "statistic", "df", "p.value"]


def test_pooled_df():
    assert pooled_df(np.array([7.0, 7.0])) == 7.0
    assert pooled_df(np.array([1.5, 9.0])) == 2.0
    # E = 10/8 + 20/18, 2 E / (E - 2)
    assert pooled_df(np.array([10.0, 20.0])) == pytest.approx(2 * (1.25 + 20 / 18) / (1.25 + 20 / 18 - 2))
    assert pooled_df(np.array([np.inf, np.inf])) == np.inf


def test_refusals():
    data = mm.load_dataset("sleepstudy")
    glmm = mm.glmer("r2 ~ Gender + (1 | id)", mm.load_dataset("VerbAgg").iloc[:600], family="binomial")
    with pytest.raises(mm.UnsupportedError, match="linear mixed models"):
        satterthwaite(glmm)
    grouped = mm.lmer(
        "distance ~ age + (1 | Subject)", mm.load_dataset("Orthodont"), residual="varident(Sex)"
    )
    with pytest.raises(mm.UnsupportedError, match="varident"):
        satterthwaite(grouped)
    chunked = mm.lmer("Reaction ~ Days + (1 | Subject)", [data.iloc[:90], data.iloc[90:]])
    with pytest.raises(mm.UnsupportedError, match="rows"):
        satterthwaite(chunked)
    with pytest.raises(mm.DataError, match="'satterthwaite'"):
        coefficient_table(mm.lmer("Reaction ~ Days + (1 | Subject)", data), "kr")


def test_dense_helpers_agree():
    """The oracle of this folder builds the V of tests/oracles.py."""
    fit = mm.lmer("score ~ Machine + (1 | Worker/Machine)", mm.load_dataset("Machines"))
    Sigma = [L @ L.T for L in fit.Lambda]
    np.testing.assert_allclose(model(fit)[0], dense_V(fit.design, Sigma), rtol=1e-12)
    assert dense_Z(fit.design.terms[0]).shape == (54, 18)
