"""Residuals of rows and groups against n x n matrices and separate least-squares fits."""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.diagnostics.residuals import cholesky as whiten
from tests.dense_influence import dense, sets_of
from tests.models import NAMES, any_model, frame, small


@pytest.mark.parametrize("name", NAMES)
def test_conditional_and_marginal_residuals(name):
    fit = any_model(name)
    o, d = dense(fit), fit.design
    R = fit.sigma**2 * np.diag(np.ones(d.n) if d.weights is None else 1 / d.weights)
    y = d.y if d.offset is None else d.y - d.offset
    e = R @ o.P @ y
    var_e = np.diag(R @ o.P @ R)
    var_r = np.diag(o.V - d.X @ o.C @ d.X.T)
    scale = np.abs(o.r).max()
    for got, want in [
        (mm.resid_conditional(fit), e),
        (mm.resid_conditional(fit, "pearson"), e / np.sqrt(np.diag(R))),
        (mm.resid_conditional(fit, "cholesky"), e / np.sqrt(np.diag(R))),
        (mm.resid_conditional(fit, "studentized"), e / np.sqrt(var_e)),
        (mm.rstudent(fit), e / np.sqrt(var_e)),
        (mm.resid_marginal(fit), o.r),
        (mm.resid_marginal(fit, "pearson"), o.r / np.sqrt(np.diag(o.V))),
        (mm.resid_marginal(fit, "studentized"), o.r / np.sqrt(var_r)),
        (mm.resid_marginal(fit, "cholesky"), np.linalg.solve(np.linalg.cholesky(o.V), o.r)),
    ]:
        assert list(got.index) == list(d.index)
        assert_allclose(got, want, rtol=0, atol=1e-9 * max(scale, np.abs(want).max()))


def exact_residuals(X, y, w):
    """Weighted least squares in rational arithmetic: residuals and hat diagonal."""
    X, y, w = (
        [[Fraction(v) for v in row] for row in X.tolist()],
        *([Fraction(v) for v in c] for c in (y, w)),
    )
    p = len(X[0])
    rows = [
        [sum(wi * x[i] * x[j] for x, wi in zip(X, w, strict=True)) for j in range(p)]
        + [sum(wi * x[i] * yi for x, yi, wi in zip(X, y, w, strict=True))]
        + [Fraction(i == j) for j in range(p)]
        for i in range(p)
    ]
    for i in range(p):  # Gauss and Jordan on [X'WX, X'Wy, I]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for k in range(p):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    residuals = [yi - sum(a * r[p] for a, r in zip(x, rows, strict=True)) for x, yi in zip(X, y, strict=True)]
    hat = [
        wi * sum(x[i] * rows[i][p + 1 + j] * x[j] for i in range(p) for j in range(p))
        for x, wi in zip(X, w, strict=True)
    ]
    return np.array([float(r) for r in residuals]), np.array([float(1 - h) for h in hat])


def test_a_row_that_fixes_its_own_mean_keeps_its_digits():
    """Weights over ten decades: the residual of the heaviest row is 1e-4 of y, and 1 - h is 1e-5."""
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"x": rng.normal(size=14), "f": list("ab") * 7, "g": list("ssttuuvvwwxxyy")})
    d["w"] = 10 ** rng.uniform(-5, 5, 14)
    d["y"] = d["x"] + rng.normal(size=14) / np.sqrt(d["w"])
    fit = mm.fit_at("y ~ x * f + (1 | g)", d, theta=[0.0], weights="w")
    r, left = exact_residuals(fit.design.X, fit.design.y, fit.design.weights)
    assert left.min() < 1e-4
    assert_allclose(mm.resid_marginal(fit), r, rtol=1e-11)
    assert_allclose(mm.resid_conditional(fit), r, rtol=1e-11)
    studentized = r * np.sqrt(fit.design.weights / left) / fit.sigma
    assert_allclose(mm.resid_marginal(fit, "studentized"), studentized, rtol=1e-10)
    assert_allclose(mm.resid_conditional(fit, "studentized"), studentized, rtol=1e-10)


def test_cholesky_residuals_of_too_many_connected_rows_are_refused(monkeypatch):
    monkeypatch.setattr(whiten, "CONNECTED_ROWS", 20)
    with pytest.raises(mm.UnsupportedError, match="60 rows here, the limit is 20"):
        mm.resid_marginal(small("crossed"), "cholesky")


def test_unknown_types_are_named():
    fit = small("slope")
    for call in (mm.resid_conditional, mm.resid_marginal, mm.pull_resid):
        with pytest.raises(mm.UnsupportedError, match="'deviance'"):
            call(fit, "deviance")
    with pytest.raises(mm.UnsupportedError, match="semi"):
        mm.pull_resid(fit, "ls", "semi")
    with pytest.raises(mm.UnsupportedError, match="half"):
        mm.hlm_resid(fit, standardize="half")


def separate(fit, rows):
    """Weighted least squares on the rows, by pseudo-inverse: residuals, hat diagonal, s."""
    d = fit.design
    w = np.ones(len(rows)) if d.weights is None else np.sqrt(d.weights[rows])
    y = (d.y if d.offset is None else d.y - d.offset)[rows] * w
    X = d.X[rows] * w[:, None]
    H = X @ np.linalg.pinv(X, rcond=1e-9)
    r = y - H @ y
    df = len(rows) - np.linalg.matrix_rank(X, tol=1e-9)
    return r / w, np.diag(H), np.sqrt(r @ r / df) if df else np.nan, w


@pytest.mark.parametrize("name", ["slope", "weights and offset", "no intercept", "crossed slope", "nested"])
@pytest.mark.filterwarnings("ignore:.*no more rows than coefficients")
def test_least_squares_residuals_are_separate_fits(name):
    fit = small(name)
    group = fit.design.terms[0].group
    raw, std, semi = (mm.ls_residuals(fit, standardize=s) for s in (False, True, "semi"))
    assert [t.columns[0] for t in (raw, std, semi)] == [".ls.resid", ".std.ls.resid", ".semi.ls.resid"]
    for _, rows in zip(*sets_of(fit, group), strict=True):
        r, h, s, w = separate(fit, rows)
        assert_allclose(raw[".ls.resid"].to_numpy()[rows], r, atol=1e-9)
        assert_allclose(raw[".ls.fitted"].to_numpy()[rows], fit.design.y[rows] - r, rtol=1e-9)
        inside = h < 1 - 1e-10
        with np.errstate(invalid="ignore", divide="ignore"):
            want_semi = np.where(inside, r / np.sqrt(1 - h), np.nan)
            want_std = np.where(inside, r * w / (s * np.sqrt(1 - h)), np.nan)
        assert_allclose(semi.iloc[:, 0].to_numpy()[rows], want_semi, atol=1e-8)
        assert_allclose(std.iloc[:, 0].to_numpy()[rows], want_std, atol=1e-7)


def test_saturated_groups_are_said():
    data = frame()
    data.loc[data.index[:2], "g"] = "tiny"
    with pytest.warns(mm.MixedModelWarning, match="1 of .* levels of g have no more rows than coefficients"):
        table = mm.ls_residuals(mm.fit_at("y ~ x + (1 | g)", data, [0.8]), standardize=True)
    assert table[".std.ls.resid"].iloc[:2].isna().all()


def test_table_of_row_residuals():
    fit = small("weights and offset")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw, std, semi = (mm.hlm_resid(fit, standardize=s) for s in (False, True, "semi"))
    frame_columns = [".id", *fit.design.frame().columns]
    assert list(raw.columns) == [
        *frame_columns, ".resid", ".fitted", ".ls.resid", ".ls.fitted", ".mar.resid", ".mar.fitted",
    ]  # fmt: skip
    assert list(std.columns) == [
        *frame_columns, ".std.resid", ".fitted", ".std.ls.resid", ".ls.fitted", ".chol.mar.resid", ".mar.fitted",
    ]  # fmt: skip
    assert ".semi.ls.resid" in semi and ".resid" in semi and ".mar.resid" in semi
    assert list(raw[".id"]) == list(fit.design.index)
    for residual, fitted in (
        (".resid", ".fitted"),
        (".ls.resid", ".ls.fitted"),
        (".mar.resid", ".mar.fitted"),
    ):
        assert_allclose(raw[residual] + raw[fitted], fit.design.y, rtol=1e-12)
    assert_allclose(std[".chol.mar.resid"], mm.pull_resid(fit, "marginal", True))
    assert_allclose(std[".std.resid"], mm.pull_resid(fit, "eb", True))
    assert_allclose(std[".std.ls.resid"], mm.pull_resid(fit, "ls", True))
    assert ".ls.resid" not in mm.hlm_resid(fit, include_ls=False)


def test_table_of_group_residuals():
    data = frame(n=200)
    data["size"] = data.g.map({g: float(i) for i, g in enumerate(sorted(data.g.unique()))})
    fit = mm.fit_at("y ~ x + size + (x | g)", data, [0.9, -0.4, 0.5])
    table, std = mm.hlm_resid(fit, "g"), mm.hlm_resid(fit, "g", standardize=True)
    assert list(table.columns) == ["size", "g", ".ranef.intercept", ".ranef.x", ".ls.intercept", ".ls.x"]
    assert list(table.index) == list(dict.fromkeys(data.g)) == list(table.g)
    modes = fit.ranef["g"].loc[table.index]
    assert_allclose(table[[".ranef.intercept", ".ranef.x"]], modes)
    cov = fit.condvar["g"][[list(fit.design.terms[0].levels).index(g) for g in table.index]]
    assert_allclose(std[".std.ranef.x"], modes["x"] / np.sqrt(cov[:, 1, 1]))
    slopes = pd.Series({g: np.polyfit(d.x, d.y, 1)[0] for g, d in data.groupby("g")}).loc[table.index]
    assert_allclose(table[".ls.x"], slopes - slopes.mean(), rtol=1e-8)
    assert_allclose(std[".std.ls.x"], (slopes - slopes.mean()) / (slopes - slopes.mean()).std(), rtol=1e-8)


def test_group_residuals_of_an_inner_factor_are_centred_within_the_outer_one():
    data = frame(n=240, groups=12)
    table = mm.hlm_resid(mm.fit_at("y ~ x + (1 | cask) + (1 | batch)", data, [0.8, 0.6]), "cask")
    intercepts = pd.Series({c: np.polyfit(d.x, d.y, 1)[1] for c, d in data.groupby("cask")}).loc[table.index]
    want = intercepts - intercepts.groupby(table.batch).transform("mean")
    assert_allclose(table[".ls.intercept"], want, atol=1e-8)


def test_effects_without_a_fixed_counterpart_are_said():
    fit = mm.fit_at("y ~ 1 + (x | g)", frame(), [0.9, -0.4, 0.5])
    with pytest.warns(mm.MixedModelWarning, match="x vary by g"):
        assert ".ls.x" not in mm.hlm_resid(fit, "g")


def test_augment_joins_by_label():
    fit = small("crossed")
    for level in (1, "g", "h"):
        both = mm.hlm_augment(fit, level, include_ls=False)
        assert_allclose(both["cooksd"], mm.cooks_distance(fit, level))
        assert_allclose(both["leverage.overall"], mm.leverage(fit, level)["overall"])
        first = ".resid" if level == 1 else ".ranef.intercept"
        assert_allclose(both[first], mm.hlm_resid(fit, level, include_ls=False)[first])


def test_excluded_rows_are_there_as_missing():
    data = frame()
    data.loc[data.index[[4, 20]], "x"] = np.nan
    omit = mm.fit_at("y ~ x + (1 | g)", data, [0.8])
    exclude = mm.fit_at("y ~ x + (1 | g)", data, [0.8], na_action="exclude")
    for measure in (mm.cooks_distance, mm.hatvalues, mm.resid_marginal, mm.rstudent):
        a, b = measure(omit), measure(exclude)
        assert list(b.index) == list(data.index) and list(np.flatnonzero(b.isna())) == [4, 20]
        assert_allclose(b.dropna(), a)
    table = mm.hlm_augment(exclude, include_ls=False)
    assert len(table) == len(data) and table.iloc[4][[".resid", "cooksd"]].isna().all()
    assert_allclose(mm.cooks_distance(omit, "g"), mm.cooks_distance(exclude, "g"))


def test_a_column_called_id_keeps_its_name():
    data = frame().assign(id=lambda d: d.z)
    table = mm.hlm_influence(mm.fit_at("y ~ id + (1 | g)", data, [0.8]))
    assert_allclose(table["id"], data.z)
    assert list(table[".id"]) == list(range(1, 61))
