"""Columns, names, coding and bases against recorded answers of R and against their definitions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mmcore.design.bases import Poly, Scale, Spline
from mmcore.design.build import build
from mmcore.design.contrasts import contrast_matrix
from mmcore.design.rank import independent_columns
from mmcore.errors import DataError, DesignError

RECORDED = Path(__file__).parent / "recorded"
# R's numbers are recorded with 15 digits; a basis of degree 3 over 16 points loses one more.
EXACT = dict(rtol=1e-13, atol=1e-13)


def toy() -> pd.DataFrame:
    text = dict.fromkeys(["o", "f", "h", "s", "g", "gna"], str)
    d = pd.read_csv(RECORDED / "designs.csv", keep_default_na=False, na_values=["NA"], dtype=text)
    d["o"] = pd.Categorical(d["o"], ["lo", "mid", "hi", "max", "top"], ordered=True)
    d["f"] = pd.Categorical(d["f"], ["z", "a", "m", "unused"])
    d["g"] = pd.Categorical(d["g"], ["g5", "g4", "g3", "g2", "g1"])
    d["b"] = d["b"].astype(bool)
    return d


CASES = json.loads((RECORDED / "designs.json").read_text())["cases"]


def case_id(case) -> str:
    return case["formula"] + ("" if case["contrasts"] is None else f" {case['contrasts']}")


@pytest.mark.filterwarnings("ignore::mmcore.errors.MixedModelWarning")
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_design_is_the_one_r_makes(case):
    design = build(case["formula"], toy(), contrasts=case["contrasts"], allow_saturated=True)
    assert list(design.x_names) == case["names"]
    assert_allclose(design.X, np.array(case["columns"], dtype=float).reshape(design.p, design.n).T, **EXACT)
    assert_allclose(design.y, case["y"], **EXACT)
    assert list(design.index) == case["rows"]
    assert list(design.source.names) == case["frame"]
    if case["offset"] is None:
        assert design.offset is None
    else:
        assert_allclose(design.offset, case["offset"], **EXACT)
    assert [(t.group, list(t.effects), list(t.labels), t.codes.tolist()) for t in design.terms] == [
        (t["group"], t["effects"], t["levels"], t["codes"]) for t in case["terms"]
    ]
    for term, recorded in zip(design.terms, case["terms"], strict=True):
        assert_allclose(term.columns, np.array(recorded["columns"]).T, **EXACT)


# Contrast matrices printed by R 4.2.2 and MASS 7.3
CONTRASTS = {
    "treatment": ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], ("b", "c", "d")),
    "SAS": ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], ("a", "b", "c")),
    "sum": ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]], ("1", "2", "3")),
    "helmert": ([[-1, -1, -1], [1, -1, -1], [0, 2, -1], [0, 0, 3]], ("1", "2", "3")),
    "sdif": (
        [[-0.75, -0.5, -0.25], [0.25, -0.5, -0.25], [0.25, 0.5, -0.25], [0.25, 0.5, 0.75]],
        ("b-a", "c-b", "d-c"),
    ),
    "poly": (
        [[-0.670820393249937, 0.5, -0.223606797749979], [-0.223606797749979, -0.5, 0.670820393249937],
         [0.223606797749979, -0.5, -0.670820393249937], [0.670820393249937, 0.5, 0.223606797749979]],
        (".L", ".Q", ".C"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTRASTS)
def test_contrast_matrices_are_those_of_r(kind):
    matrix, names = contrast_matrix(f"contr.{kind}", "abcd", "f")
    assert names == CONTRASTS[kind][1]
    assert_allclose(matrix, CONTRASTS[kind][0], rtol=1e-14, atol=1e-14)
    assert_array_equal(matrix, contrast_matrix(kind, "abcd", "f")[0])


def test_polynomial_contrasts_of_many_levels():
    matrix, names = contrast_matrix("poly", [str(i) for i in range(5)], "f")
    assert names == (".L", ".Q", ".C", "^4")
    quartic = [0.119522860933439, -0.478091443733757, 0.717137165600636]
    assert_allclose(matrix[:, 3], [*quartic, *quartic[1::-1]], rtol=1e-13)
    wide = contrast_matrix("poly", [str(i) for i in range(20)], "f")[0]
    assert_allclose(wide.T @ wide, np.eye(19), atol=1e-12)
    with pytest.raises(DesignError, match="96 levels"):
        contrast_matrix("poly", [str(i) for i in range(96)], "f")


def test_sdif_contrasts_estimate_successive_differences():
    coefficients = np.linalg.inv(np.column_stack([np.ones(6), contrast_matrix("sdif", "abcdef", "f")[0]]))
    assert_allclose(coefficients[1:], np.diff(np.eye(6), axis=0), atol=1e-13)


def test_given_contrast_matrices():
    given_matrix = pd.DataFrame({"low": [1.0, -1, 0], "high": [0.0, 1, -1]})
    design = build("y ~ f", toy(), contrasts={"f": given_matrix})
    assert design.x_names == ("(Intercept)", "flow", "fhigh")
    unnamed = build("y ~ f", toy(), contrasts={"f": given_matrix.to_numpy()[:, :1]})
    assert unnamed.x_names == ("(Intercept)", "f1")
    with pytest.raises(DataError, match=r"shape \(2, 2\).*3 rows"):
        build("y ~ f", toy(), contrasts={"f": np.eye(2)})
    with pytest.raises(DataError, match=r"unknown contrast 'contr\.foo' for f"):
        build("y ~ f", toy(), contrasts={"f": "contr.foo"})
    with pytest.raises(DataError, match="'g', which is not a variable"):
        build("y ~ f", toy(), contrasts={"g": "sum"})


def test_random_terms_keep_default_contrasts():
    # lFormula(y ~ f + (f | h), d, contrasts = list(f = "contr.sum"))$reTrms$cnms is (Intercept), fa, fm
    design = build("y ~ f + (f | h)", toy(), contrasts={"f": "contr.sum"})
    assert design.x_names == ("(Intercept)", "f1", "f2")
    assert design.terms[0].effects == ("(Intercept)", "fa", "fm")


@pytest.mark.parametrize("kind", CONTRASTS)
def test_column_space_does_not_depend_on_the_contrasts(kind):
    base = build("y ~ f * b * x", toy()).X
    other = build("y ~ f * b * x", toy(), contrasts={"f": kind, "b": "sum"}).X
    assert_allclose(base @ np.linalg.lstsq(base, other, rcond=None)[0], other, atol=1e-10)


# R: predict() of each basis made from X at NEW
X = np.array([1.0, 2, 4, 5, 7, 9])
NEW = np.array([0.0, 3, 10])


def test_poly_at_new_points_is_the_one_r_predicts():
    basis = Poly.fit(X, 3)
    columns = basis.columns(X)
    expected = [
        [-0.693103280083672, 1.05155848820079, -2.00440095805642],
        [-0.247536885744168, -0.239491069302275, 0.588940275638615],
        [0.79211803438134, 1.1157898094696, 1.91484195574165],
    ]
    assert_allclose(basis.columns(NEW), expected, rtol=1e-12)
    assert_allclose(columns.T @ columns, np.eye(3), atol=1e-13)
    assert_allclose(columns.sum(axis=0), 0, atol=1e-13)


def test_natural_spline_at_new_points_is_the_one_r_predicts():
    basis = Spline.fit(X, 3, None, 3, False, None, natural=True)
    expected = [
        [0.121597198048532, -0.328312434731037, 0.206715236682505],
        [-0.103736590304818, 0.528047977496479, -0.332474652497783],
        [-0.506261180679785, 0.466905187835421, 1.03935599284436],
    ]
    assert_allclose(basis.columns(NEW), expected, rtol=1e-12)
    outside = basis.columns(np.array([-4.0, -3, -2, 10, 11, 12]))
    assert_allclose(outside[1::3] - outside[::3], outside[2::3] - outside[1::3], atol=1e-12)


def test_b_spline_at_new_points_is_the_one_r_predicts():
    basis = Spline.fit(X, 4, None, 3, False, None, natural=False)
    expected = [
        [-1.24717565597668, 0.126275510204082, -0.00446428571428571, 0],
        [0.610058309037901, 0.275510204081633, 0.0357142857142857, 0],
        [-0.00347222222222222, 0.0964506172839506, -0.918767146776406, 1.82578875171468],
    ]
    assert_allclose(basis.columns(NEW), expected, rtol=1e-12, atol=1e-14)


def test_quadratic_b_spline_with_intercept_is_the_one_r_predicts():
    basis = Spline.fit(X, None, [3, 6], 2, True, None, natural=False)
    expected = [
        [2.25, -1.35, 0.1, 0, 0],
        [0, 0.6, 0.4, 0, 0],
        [0, 0, 0.0555555555555556, -0.833333333333333, 1.77777777777778],
    ]
    assert_allclose(basis.columns(NEW), expected, rtol=1e-12, atol=1e-14)
    assert_allclose(basis.columns(np.linspace(-3, 15, 40)).sum(axis=1), 1, atol=1e-11)


def test_scale_at_new_points_is_the_one_r_predicts():
    basis = Scale.fit(X, True, True)
    assert_allclose(basis.columns(NEW), [-1.54982604969517, -0.55350930346256, 1.77122977108019], rtol=1e-13)
    root_mean_square = Scale.fit(X, False, True)
    assert_allclose(root_mean_square.columns(X), X / np.sqrt((X**2).sum() / 5), rtol=1e-14)
    assert_array_equal(Scale.fit(X, 2.0, 4.0).columns(X), (X - 2) / 4)


BASES = "y ~ poly(x, 2) * b + ns(z, 3) + scale(x) + bs(x, df = 4) + factor(k) + o + s + log(z)"


@pytest.mark.filterwarnings("ignore::mmcore.errors.RankWarning")
def test_new_rows_repeat_the_training_basis():
    design = build(BASES, toy())
    again = design.new(toy())
    assert_allclose(again.X, design.X, atol=1e-12)
    part = design.new(toy().iloc[[3, 3, 7]])
    assert_allclose(part.X, design.X[[3, 3, 7]], atol=1e-12)


def test_new_factors_are_matched_by_label():
    design = build("y ~ f + as.numeric(f):x + s", toy())
    new = toy().iloc[:5].copy()
    new["f"] = pd.Categorical(new["f"].astype(str), ["m", "z", "a"])
    new["s"] = pd.Categorical(new["s"])
    assert_array_equal(design.new(new).X, design.X[:5])
    new["f"] = "other"
    with pytest.raises(DataError, match="f has levels that the model does not know: other"):
        design.new(new)


def test_missing_values_in_new_rows_give_missing_columns():
    new = toy().iloc[:3].copy()
    new.loc[1, "x"] = np.nan
    new["f"] = new["f"].astype(object)
    new.loc[2, "f"] = None
    X = build("y ~ x + f", toy()).new(new).X
    assert_array_equal(np.isnan(X), [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ poly(x, 16)", "needs more than 16 distinct"),
        ("y ~ poly(xna, 2)", "missing values"),
        ("y ~ poly(x, 0)", "degree of at least 1"),
        ("y ~ poly(x, z)", "several variables are not supported"),
        ("y ~ poly(x, power = 2)", "unknown or repeated argument 'power'"),
        ("y ~ poly(x, 2, NULL, TRUE, TRUE, 1)", "too many arguments"),
        ("y ~ exp(f)", "f in exp\\(f\\) must be numeric, but it is a factor with levels z, a, m"),
        ("y ~ log(x, z, 2)", "too many arguments"),
        ("y ~ C(h, foo)", "the contrast must be one of"),
        ("y ~ relevel(h, ref = \"w\")", "'w' is not a level of h"),
        ("y ~ I(f > 'a')", "== and != only"),
        ("y ~ I(x == 'a')", "compares a number with text"),
        ("y ~ I(b && b)", "write & to combine"),
        ("y ~ factor(k, labels = c('a', 'b'))", "2 labels for 4 levels"),
        ("y ~ abs(x, z)", "takes 1 unnamed argument"),
        ("y ~ scale(5)", "is not a column"),
        ("y ~ I('text')", "is not a column of 16 values"),
        ("f ~ x", "the response f must be numeric"),
        ("cbind(x, y) ~ z", "must be a single column"),
        ("y ~ nothing", "no column 'nothing' in the data; the columns are: y, x, z"),
    ],
)  # fmt: skip
def test_errors_name_the_expression(formula, message):
    with pytest.raises(DataError, match=message):
        build(formula, toy())


# qr(X, tol = 1e-7)$pivot[1:rank] - 1 of R 4.2.2 for X below
def test_aliased_columns_are_those_of_r():
    one, x = np.ones(6), np.array([1.0, 2, 4, 5, 7, 9])
    X = np.column_stack([one, x, 2 * x - one, np.zeros(6), x**2, one + x + x**2, np.cos(x)])
    assert_array_equal(independent_columns(X), [0, 1, 4, 6])
    assert_array_equal(independent_columns(X[:2]), [0, 1])
    nearly = np.column_stack([one, x, x + 1e-6 * np.cos(x), x + 1e-9 * np.sin(x)])
    assert_array_equal(independent_columns(nearly), [0, 1, 2])


@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 7))
def test_kept_columns_span_and_are_independent(seed, n, p):
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, size=(n, p)).astype(float)
    kept = independent_columns(X)
    assert len(kept) == np.linalg.matrix_rank(X) == np.linalg.matrix_rank(X[:, kept])
    for j in set(range(p)) - set(kept.tolist()):
        earlier = X[:, kept[kept < j]]
        assert np.linalg.matrix_rank(np.column_stack([earlier, X[:, j]])) == earlier.shape[1]
    scales = 10.0 ** rng.integers(-8, 9, size=p)
    assert_array_equal(independent_columns(X * scales), kept)
