"""``delete=`` names rows: by label, by level or by a mask, which is aligned by its index if it has one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmcore as mm

S = mm.load_dataset("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"
FIT = mm.lmer(FORMULA, S)
LM = mm.lm("Reaction ~ Days", S)
HOLES = S.assign(Days=S.Days.where(S.index % 7 != 3).astype(float))
WITH_HOLES = mm.lmer(FORMULA, HOLES)

# every function that takes delete=, as a number or a vector of numbers
MEASURES = {
    "cooks_distance": mm.cooks_distance,
    "mdffits": mm.mdffits,
    "covtrace": mm.covtrace,
    "covratio": mm.covratio,
    "dfbeta": mm.dfbeta,
    "dfbetas": mm.dfbetas,
    "rvc": mm.rvc,
    "refits": lambda fit, **options: mm.case_delete(fit, **options).fixef.iloc[0],
    "table": lambda fit, **options: mm.hlm_influence(fit, **options).iloc[0],
}


def without(fit, data, gone):
    """One-step Cook's distance from dense algebra: V of the fit, rows ``gone`` (positions) left out."""
    V, X, y = np.asarray(mm.extract_design(fit).V.todense()), fit.design.X, fit.design.y
    keep = np.setdiff1d(np.arange(len(y)), gone)
    P = np.linalg.inv(V[np.ix_(keep, keep)])
    beta = np.linalg.solve(X[keep].T @ P @ X[keep], X[keep].T @ P @ y[keep])
    d = fit.beta - beta
    return d @ np.linalg.solve(fit.vcov.to_numpy(), d) / len(d)


def test_a_shuffled_mask_is_aligned_by_its_index():
    mask = S.Reaction.gt(400)
    want = without(FIT, S, np.flatnonzero(mask))
    assert want == pytest.approx(0.14219612346745, rel=1e-10)
    for shuffled in (mask, mask.sort_index(ascending=False), mask.sample(frac=1, random_state=3)):
        assert mm.cooks_distance(FIT, delete=shuffled) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("fit", [FIT, LM, WITH_HOLES], ids=["lmer", "lm", "rows left out"])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_shuffling_a_mask_with_its_index_changes_nothing(name, fit, data):
    rows = data.draw(st.lists(st.integers(0, 179), min_size=1, max_size=20, unique=True))
    order = data.draw(st.permutations(range(180)))
    kind = data.draw(st.sampled_from(["bool", "boolean", "object"]))
    mask = pd.Series(np.isin(np.arange(180), rows), index=S.index)
    used = fit.design.index.intersection(mask.index[mask])
    if not len(used):
        return
    want = np.asarray(MEASURES[name](fit, delete=list(used)))
    for given_mask in (
        mask.iloc[order].astype(kind),
        mask.to_numpy(),
        mask.iloc[order].loc[fit.design.index],
    ):
        np.testing.assert_array_equal(np.asarray(MEASURES[name](fit, delete=given_mask)), want)


def test_a_mask_over_the_users_rows_works_where_rows_were_left_out():
    mask = HOLES.Days.gt(6) | HOLES.Days.isna()  # names rows that the model does not use as well
    gone = np.flatnonzero(np.isin(WITH_HOLES.design.index, mask.index[mask]))
    want = without(WITH_HOLES, HOLES, gone)
    for given_mask in (mask, mask.to_numpy(), mask.iloc[::-1], mask.loc[WITH_HOLES.design.index].iloc[::-1]):
        assert mm.cooks_distance(WITH_HOLES, delete=given_mask) == pytest.approx(want, rel=1e-8)


def test_masks_of_repeated_labels_go_by_position():
    twice = S.set_index(S.Subject.astype(str))
    fit, mask = mm.lmer(FORMULA, twice), twice.Reaction.gt(400)
    assert mm.cooks_distance(fit, delete=mask) == pytest.approx(0.14219612346745, rel=1e-9)
    with pytest.raises(mm.DataError, match="delete is a mask whose index does not match"):
        mm.cooks_distance(fit, delete=mask.iloc[::-1])


def test_a_data_frame_with_levels_in_its_index():
    both = S.set_index(["Subject", "Days"], drop=False).rename_axis(["s", "d"])
    fit, mask = mm.lmer(FORMULA, both), both.Reaction.gt(400)
    assert mm.cooks_distance(fit, delete=mask.iloc[::-1]) == pytest.approx(0.14219612346745, rel=1e-9)
    by_label = mm.cooks_distance(fit, delete=list(mask.index[mask]))
    assert by_label == pytest.approx(0.14219612346745, rel=1e-9)
    row = [("308", 0)]
    assert mm.cooks_distance(fit, delete=row) == pytest.approx(mm.cooks_distance(FIT, delete=[0]), rel=1e-9)


WRONG = {
    "slice": slice(0, 3),
    "mapping": {},
    "two dimensions": np.ones((180, 2), dtype=bool),
    "frame": S,
    "object": object(),
    "short mask": [True] * 3,
    "short labelled mask": S.Reaction.gt(400).iloc[:10],
    "mask with other labels": S.Reaction.gt(400).rename(lambda i: i + 7),
    "mask with gaps": pd.Series([True, None] * 90),
    "nested": [[0, [1]]],
    "mixed": [0, [1]],
    "empty": [],
    "all": [True] * 180,
    "unknown": [999],
    "text": "nobody",
    "mapping of a slice": {"a": slice(0, 2)},
    "list of mappings": [{}],
}


@pytest.mark.parametrize("level", [1, "Subject"])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_names_no_rows_is_refused(wrong, level):
    with pytest.raises(mm.DataError, match="delete"):
        mm.cooks_distance(FIT, level, delete=WRONG[wrong])
