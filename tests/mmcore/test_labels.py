"""Levels of grouping factors keep the user's types: results can be joined, filtered and mapped with one's own ids."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.design import build
from mmcore.design.grouping import level_text

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")

FORMULA = "y ~ x + (1 | g)"
KINDS = {
    "int": lambda i: 1000 + 7 * i,
    "large int": lambda i: 10**16 + i,
    "negative": lambda i: -i,
    "float": lambda i: i + 0.5,
    "text": lambda i: f"id {i}",
    "date": lambda i: dt.date(2024, 1, 1) + dt.timedelta(days=3 * i),
    "time": lambda i: pd.Timestamp("2024-01-01 12:00") + pd.Timedelta(hours=i),
    "bool": lambda i: i % 2 == 0,
}
WRAPPERS = {
    "list": list,
    "object": lambda v: pd.Series(v, dtype=object).to_numpy(),
    "category": pd.Categorical,
}


def frame(ids):
    rng = np.random.default_rng(3)
    n = len(ids)
    x = rng.normal(size=n)
    return pd.DataFrame({"y": x + rng.normal(size=n) + np.arange(n) % 6, "x": x, "g": ids})


@pytest.fixture(params=[(kind, wrap) for kind in KINDS for wrap in WRAPPERS], ids=" as ".join)
def labelled(request):
    kind, wrap = request.param
    return frame(WRAPPERS[wrap]([KINDS[kind](i % 6) for i in range(60)]))


def test_every_result_can_be_used_with_the_users_ids(labelled):
    fit = mm.lmer(FORMULA, labelled)
    own = set(labelled.g)
    modes = fit.ranef["g"]["(Intercept)"]
    for index in (
        modes.index,
        fit.coef()["g"].index,
        mm.cooks_distance(fit, "g").index,
        mm.leverage(fit, "g").index,
        mm.case_delete(fit, "g").fixef.index,
    ):
        assert set(index) == own
    assert labelled.g.map(modes.to_dict()).notna().all()
    joined = labelled.astype({"g": modes.index.dtype}).join(modes.rename("b"), on="g")
    assert joined.b.notna().all()
    worst = mm.cooks_distance(fit, "g").idxmax()
    rest = labelled[labelled.g != worst]
    assert 0 < len(rest) < len(labelled)


def test_values_belong_to_their_labels(labelled):
    fit = mm.lmer(FORMULA, labelled)
    codes = labelled.g.map({level: f"g{i}" for i, level in enumerate(dict.fromkeys(labelled.g))})
    text = mm.lmer(FORMULA, labelled.assign(g=list(codes)))
    names = dict(zip(labelled.g, codes, strict=True))
    for level, value in fit.ranef["g"]["(Intercept)"].items():
        assert_allclose(value, text.ranef["g"]["(Intercept)"][names[level]], rtol=1e-6, atol=1e-9)


def test_deletion_names_levels_as_the_user_does(labelled):
    fit = mm.lmer(FORMULA, labelled)
    level = labelled.g.iloc[0]
    if isinstance(level, bool | np.bool_):  # a list of truth values is a mask of rows
        with pytest.raises(mm.DataError, match="mask of 1 values"):
            mm.cooks_distance(fit, "g", delete=[level])
        return
    got = mm.cooks_distance(fit, "g", delete=[level])
    assert_allclose(got, mm.cooks_distance(fit, "g").loc[[level]].iloc[0])


@pytest.mark.parametrize(
    "ids",
    [
        pd.array([*([10**16 + i % 12 for i in range(59)]), None], dtype="Int64"),
        np.array([*([10**16 + i % 12 for i in range(59)]), None], dtype=object),
        pd.Series([10**16 + i % 12 for i in range(60)]).to_numpy(),
        pd.array([*([2**63 - 20 + i % 12 for i in range(59)]), None], dtype="Int64"),
    ],
)
def test_ids_of_seventeen_digits_stay_apart(ids):
    (term,) = build(FORMULA, frame(ids)).terms
    assert term.n_levels == 12
    assert all(isinstance(level, int) for level in term.levels)


@given(st.lists(st.integers(2**53 - 3, 2**53 + 40), min_size=8, max_size=30), st.booleans())
def test_integers_never_pass_through_floats_on_the_way_to_a_factor(ids, missing):
    values = [*ids, None] if missing else ids
    data = frame(pd.array(values, dtype="Int64"))
    (term,) = build(FORMULA, data, allow_saturated=True).terms if len(set(ids)) > 1 else (None,)
    if term is not None:
        assert sorted(set(ids)) == term.levels.tolist()


def test_covariates_beyond_what_a_float_holds_are_refused():
    data = frame(np.arange(60) % 6).assign(x=2**53 + np.arange(60))
    with pytest.raises(mm.DataError, match=r"x has integers up to .*2\^53.*subtract a constant"):
        mm.lmer(FORMULA, data)
    data["x"] = pd.array([None, *(2**53 + np.arange(59))], dtype="Int64")
    with pytest.raises(mm.DataError, match=r"x has missing values and integers beyond 2\^53"):
        mm.lmer(FORMULA, data)
    even = frame(np.arange(60) % 6).assign(x=2**53 + 2 * np.arange(60))  # exact as floats
    assert (build("y ~ 0 + x + (1 | g)", even).X[:, 0] == even.x.to_numpy(float)).all()


# --- nested levels -----------------------------------------------------------------------------------------


def test_pairs_of_equal_text_are_two_levels():
    rng = np.random.default_rng(5)
    pairs = [(a, b) for a in ("p:q", "p", "r", "s") for b in ("z", "q:z", "v", "w", "u")]
    a, b = zip(*(pairs * 4), strict=True)
    data = pd.DataFrame({"y": rng.normal(size=80), "a": a, "b": b})
    fit = mm.lmer("y ~ 1 + (1 | a:b)", data)
    assert fit.ngroups == {"a:b": 20}
    cell = mm.lmer("y ~ 1 + (1 | cell)", data.assign(cell=[f"{i}|{j}" for i, j in zip(a, b, strict=True)]))
    assert_allclose(fit.criterion, cell.criterion, rtol=1e-12)
    assert set(fit.ranef["a:b"].index) == set(pairs)
    one = pd.DataFrame({"a": ["p:q", "p"], "b": ["z", "q:z"]})
    want = fit.fixef.iloc[0] + fit.ranef["a:b"].loc[[("p:q", "z"), ("p", "q:z")], "(Intercept)"].to_numpy()
    assert_allclose(fit.predict(one), want)


def test_nested_levels_are_tuples_of_the_users_values():
    rng = np.random.default_rng(6)
    data = frame(np.repeat(np.arange(6), 10)).assign(h=[dt.date(2024, 1, 1 + i % 3) for i in range(60)])
    data["y"] += rng.normal(size=18)[data.g * 3 + np.arange(60) % 3]
    fit = mm.lmer("y ~ x + (1 | g / h)", data)
    group = next(name for name in fit.ranef if name != "g")
    assert set(fit.ranef[group].index) == set(zip(data.h, data.g, strict=True))
    cooks = mm.cooks_distance(fit, group)
    h, g = cooks.idxmax()
    rows = (data.g == g) & (data.h == h)
    assert rows.any()
    assert_allclose(mm.cooks_distance(fit, delete=data.index[rows]), cooks.max(), rtol=1e-7)


def test_R_writes_levels_as_text():
    assert level_text(308) == "308" and level_text(True) == "TRUE" and level_text(1e5) == "1e+05"
    assert level_text(("A", 2.0)) == "A:2" and level_text(dt.date(2024, 1, 2)) == "2024-01-02"
