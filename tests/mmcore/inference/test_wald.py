"""Linear hypotheses: what text, mappings and matrices mean, and that they give one answer."""

import numpy as np
import pandas as pd
import pytest

import mmcore as mm
from mmcore.inference.df.denominators import coefficient_table
from mmcore.inference.tests.hypothesis_text import parse_hypotheses
from mmcore.inference.tests.wald import wald_test

NAMES = ["(Intercept)", "x", "x:z", "z", "poly(t, 2)1", "I(x^2)", "a-b", "xx"]


@pytest.fixture(scope="module")
def fit():
    return mm.lmer("score ~ Machine + (1 | Worker/Machine)", mm.load_dataset("Machines"))


@pytest.mark.parametrize(
    ("text", "weights", "rhs"),
    [
        ("x", {"x": 1}, 0),
        ("x = 10", {"x": 1}, 10),
        ("x - z = 0", {"x": 1, "z": -1}, 0),
        ("x == z", {"x": 1, "z": -1}, 0),
        ("2*x + 3 * z/4 - 1 = x + 2", {"x": 1, "z": 0.75}, 3),
        ("(Intercept) + x:z = -1.5e1", {"(Intercept)": 1, "x:z": 1}, -15),
        ("-(x + 2 * (z - 1)) / 2 = 0", {"x": -0.5, "z": -1}, -1),
        ("poly(t, 2)1 = I(x^2)", {"poly(t, 2)1": 1, "I(x^2)": -1}, 0),
        ("`a-b` - xx", {"a-b": 1, "xx": -1}, 0),
        ("a-b = .5", {"a-b": 1}, 0.5),
        ("x*2-xx", {"x": 2, "xx": -1}, 0),
    ],
)
def test_text(text, weights, rhs):
    labels, L, right = parse_hypotheses(text, NAMES)
    assert labels == [text]
    np.testing.assert_allclose(L, [[weights.get(name, 0.0) for name in NAMES]])
    np.testing.assert_allclose(right, [rhs])


def test_commas_separate_hypotheses_but_not_inside_names():
    labels, L, rhs = parse_hypotheses("poly(t, 2)1 = 1, x = 2 , z", NAMES)
    assert labels == ["poly(t, 2)1 = 1", "x = 2", "z"]
    assert (L.shape, list(rhs)) == ((3, 8), [1.0, 2.0, 0.0])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("y = 1", "coefficients are"),
        ("x * z = 1", "not linear"),
        ("x = x", "involve a coefficient"),
        ("3 = 4", "involve a coefficient"),
        ("x = 1 z", "expected '='"),
        ("x / 0", "other than 0"),
        ("x,", "name of a coefficient"),
        ("(x", r"expected '\)'"),
        ("xxx", "name of a coefficient"),
        ("", "name of a coefficient"),
        ("__import__('os')", "name of a coefficient"),
    ],
)
def test_text_that_is_not_understood(text, match):
    with pytest.raises(mm.FormulaError, match=match):
        parse_hypotheses(text, NAMES)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual", "asymptotic"])
def test_every_way_to_write_it_is_the_same(fit, ddf):
    matrix = np.array([[0.0, 1, 0], [0, -1, 1]])
    ways = [
        ("MachineB = 8, MachineC - MachineB = 1",),
        (["MachineB = 8", "MachineC - MachineB = 1"],),
        ({"B": "MachineB = 8", "C - B": "MachineC - MachineB = 1"},),
        (matrix, [8, 1]),
        ({"B": {"MachineB": 1}, "C - B": {"MachineC": 1, "MachineB": -1}}, [8, 1]),
        (pd.DataFrame({"MachineB": [1, -1], "MachineC": [0, 1]}, index=["B", "C - B"]), [8, 1]),
    ]
    results = [wald_test(fit, *way, ddf=ddf) for way in ways]
    for result in results[1:]:
        np.testing.assert_allclose(result.contrasts, results[0].contrasts, rtol=1e-12)
        np.testing.assert_allclose(result.joint, results[0].joint, rtol=1e-12)
    value = matrix @ fit.beta - [8, 1]
    if ddf in ("residual", "asymptotic"):
        expected = value @ np.linalg.solve(matrix @ fit.vcov.to_numpy() @ matrix.T, value) / 2
        assert results[0].joint["F value"] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_one_row_is_the_square_of_t_and_the_line_of_the_coefficient_table(fit, ddf):
    result = wald_test(fit, "MachineC", ddf=ddf)
    row, table = result.contrasts.iloc[0], coefficient_table(fit, ddf).loc["MachineC"]
    assert result.joint["F value"] == pytest.approx(row["statistic"] ** 2, rel=1e-10)
    assert result.joint["DenDF"] == pytest.approx(row["df"], rel=1e-10)
    for column in table.index:
        assert row[column] == pytest.approx(table[column], rel=1e-12)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "asymptotic"])
def test_rows_that_repeat_others(fit, ddf):
    two = wald_test(fit, "MachineB, MachineC", ddf=ddf).joint
    three = wald_test(fit, "MachineB, MachineC, MachineC - MachineB", ddf=ddf).joint
    assert three["NumDF"] == 2
    assert three["F value"] == pytest.approx(two["F value"], rel=1e-9)
    with pytest.raises(mm.DataError, match="contradict"):
        wald_test(fit, "MachineB = 1, 2 * MachineB = 3", ddf=ddf)


def test_what_does_not_fit_is_said(fit):
    with pytest.raises(mm.DataError, match="'Machine'"):
        wald_test(fit, {"a": {"Machine": 1}})
    with pytest.raises(mm.DataError, match=r"shape \(2,\)"):
        wald_test(fit, [1, 2])
    with pytest.raises(mm.DataError, match="only zeros"):
        wald_test(fit, [0, 0, 0])
    with pytest.raises(mm.DataError, match="rhs needs 1"):
        wald_test(fit, [0, 0, 1], [1, 2])
    with pytest.raises(mm.DataError, match="without rhs"):
        wald_test(fit, "MachineB", 3)
    with pytest.raises(mm.DataError, match="neither text"):
        wald_test(fit, object())
    with pytest.raises(mm.DataError, match="empty"):
        wald_test(fit, {})


def test_models_without_random_effects():
    lm = mm.lm("score ~ Machine", mm.load_dataset("Machines"))
    assert wald_test(lm, "MachineB").joint["DenDF"] == 51
    glm = mm.glm("r2 ~ Gender", mm.load_dataset("VerbAgg"), family="binomial")
    result = wald_test(glm, "GenderM")
    assert result.joint["DenDF"] == np.inf
    assert result.joint["Pr(>F)"] == pytest.approx(result.contrasts["p.value"].iloc[0], rel=1e-10)
