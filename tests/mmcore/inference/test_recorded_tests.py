"""Degrees of freedom, F tests and adjusted covariances against lmerTest 3.1-3 and pbkrtest 0.5.2 at R's theta."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import mmcore as mm
from mmcore.inference.df.denominators import coefficient_table
from mmcore.inference.df.kenward_roger import vcov_kr
from mmcore.inference.tests.anova import anova
from mmcore.inference.tests.drop1 import drop1

CASES = {c["name"]: c for c in json.loads((Path(__file__).parent / "recorded" / "tests.json").read_text())}
DROPPED = {  # R's expression -> the same rows here; i counts from 1
    "seq_along(score) %% 5 == 2": lambda d, i: i % 5 == 2,
    "seq_along(yield) %% 6 == 3": lambda d, i: i % 6 == 3,
    "seq_along(angle) %% 7 %in% c(1, 4)": lambda d, i: np.isin(i % 7, [1, 4]),
    "recipe == 'B' & temperature == '205'": lambda d, i: (d.recipe == "B") & (d.temperature == "205"),
}
COLUMNS = {"estimate": "Estimate", "std.error": "Std. Error", "statistic": "t value", "p.value": "Pr(>|t|)"}
# R differentiates numerically; test_satterthwaite compares these with 60-digit arithmetic, which sides with mmcore
DIFFERENCED = {"nlschools_slopes": 4e-6, "machines_sum_weights": 2e-6}
# lmerTest does not see that Sex:Eth, in which Eth has all its levels, contains Sex: see hypotheses.containing
NOT_CONTAINED = {("quine_three_way", "II", "Sex"), ("quine_three_way", "III", "Sex")}


def data_of(case):
    name = case["dataset"]
    data = mm.load_dataset(name if name in mm.dataset_names() else f"MASS_{name}")
    if case["drop"] is None:
        return data
    gone = np.asarray(DROPPED[case["drop"]](data, np.arange(1, len(data) + 1)))
    return data[~gone].reset_index(drop=True)


def fit_of(case):
    data = data_of(case)
    i = np.arange(1, len(data) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.RankWarning)
        return mm.fit_at(
            case["formula"],
            data,
            case["theta"],
            reml=case["reml"],
            contrasts=case["contrasts"],
            weights=0.5 + (i % 5) / 2 if case["weights"] else None,
            offset=10 * np.sin(i) if case["offset"] else None,
        )


def agree(table, want, rtol, skip=()):
    rows = [row for row in want["row"] if row and row not in skip]  # R names the row of an empty table ""
    assert len(table) == len([row for row in want["row"] if row])
    for column in (c for c in want if c != "row"):
        expected = np.array([v for r, v in zip(want["row"], want[column], strict=False) if r in rows], float)
        found = table.loc[rows, column].to_numpy(float)
        if column.startswith("Pr"):
            # d log p is about |log p| times the relative error of df or F
            slack = rtol * (2.0 + np.abs(np.log(np.maximum(expected, 1e-300))))
            np.testing.assert_array_less(np.abs(found - expected), slack * expected + 1e-300, err_msg=column)
        else:
            np.testing.assert_allclose(found, expected, rtol=rtol, err_msg=column)


@pytest.mark.parametrize("name", CASES)
def test_coefficients(name):
    case, fit = CASES[name], fit_of(CASES[name])
    assert fit.sigma == pytest.approx(case["sigma"], rel=1e-12)
    for ddf in ("satterthwaite", "kenward-roger"):
        if f"coefficients {ddf}" in case:
            table = coefficient_table(fit, ddf).rename(columns=COLUMNS)
            rtol = DIFFERENCED.get(name, 1e-6) if ddf == "satterthwaite" else 1e-8
            agree(table, case[f"coefficients {ddf}"], rtol)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("type", ["I", "II", "III"])
def test_anova(name, type):
    case, fit = CASES[name], fit_of(CASES[name])
    skip = {row for n, t, row in NOT_CONTAINED if (n, t) == (name, type)}
    for ddf in ("satterthwaite", "kenward-roger"):
        if f"anova {type} {ddf}" in case:
            with warnings.catch_warnings():
                if name == "cake_empty_cell":
                    warnings.simplefilter("ignore", mm.MixedModelWarning)
                table = anova(fit, type=type, ddf=ddf)
            # lmerTest rounds type III matrices to seven digits
            agree(table, case[f"anova {type} {ddf}"], DIFFERENCED.get(name, 1e-6), skip)


@pytest.mark.parametrize("name", CASES)
def test_drop1_without_refits(name):
    agree(drop1(fit_of(CASES[name]), test="F"), CASES[name]["drop1 F"], DIFFERENCED.get(name, 1e-6))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if "vcov_kr" in c])
def test_adjusted_covariance(name):
    found = vcov_kr(fit_of(CASES[name])).to_numpy()
    expected = np.reshape(CASES[name]["vcov_kr"], found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_both_kinds_of_fits_are_recorded():
    """Weights, ML, offsets, aliased columns and fits on the boundary are among the cases."""
    assert {c["reml"] for c in CASES.values()} == {c["weights"] for c in CASES.values()} == {True, False}
    assert any(c["offset"] for c in CASES.values())
    assert sum(c["singular"] for c in CASES.values()) >= 2
    assert len(CASES) == 31


def test_type_three_of_an_empty_cell_is_said():
    with pytest.warns(mm.MixedModelWarning, match="recipeB:temperature205"):
        anova(fit_of(CASES["cake_empty_cell"]), type=3)
