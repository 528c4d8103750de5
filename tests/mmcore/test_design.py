"""Design: rows, groups, subsets and refusals; every expected value is R's own or an identity."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import mmcore
from mmcore.design.build import build
from mmcore.design.columns import Factor
from mmcore.design.grouping import grouping_factor
from mmcore.errors import DataError, DesignError, FormulaError, MixedModelWarning, RankWarning
from tests.mmcore.test_modelmatrix import toy
from tests.oracles import dense_Z

SLOPE = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mmcore.load_dataset("sleepstudy")


def equal_designs(a, b, *, atol=0.0):
    assert (a.x_names, a.index.tolist()) == (b.x_names, b.index.tolist())
    assert_array_equal(a.y, b.y)
    assert_allclose(a.X, b.X, rtol=0, atol=atol)
    for s, t in zip(a.terms, b.terms, strict=True):
        assert (s.group, s.levels.tolist(), s.effects) == (t.group, t.levels.tolist(), t.effects)
        assert_array_equal(s.codes, t.codes)
        assert_allclose(s.columns, t.columns, rtol=0, atol=atol)
    for left, right in ((a.weights, b.weights), (a.offset, b.offset)):
        assert (left is None) == (right is None)
        assert left is None or np.array_equal(left, right)


# --- real data: facts printed by lFormula() of lme4 1.1-31 ---


def test_sleepstudy(sleep):
    design = build(SLOPE, sleep)
    assert (design.n, design.p, design.q) == (180, 2, 36)
    assert design.x_names == ("(Intercept)", "Days")
    (term,) = design.terms
    assert term.levels.tolist()[:3] == ["308", "309", "310"]
    assert (term.group, term.effects, term.structure) == ("Subject", ("(Intercept)", "Days"), "us")
    assert list(design.frame().columns) == ["Reaction", "Days", "Subject"]


def test_nested_groups_are_named_and_ordered_as_in_lme4():
    design = build("strength ~ 1 + (1 | batch/cask)", mmcore.load_dataset("Pastes"))
    assert [(t.group, t.n_levels) for t in design.terms] == [("cask:batch", 30), ("batch", 10)]
    # levels(getME(m, "flist")[["cask:batch"]])[1:12]
    assert design.terms[0].labels.tolist()[:12] == [
        "a:A", "a:B", "a:C", "a:D", "a:E", "a:F", "a:G", "a:H", "a:I", "a:J", "b:A", "b:B",
    ]  # fmt: skip


def test_terms_are_sorted_by_number_of_levels():
    data = mmcore.load_dataset("Penicillin")
    for formula in ("diameter ~ (1 | plate) + (1 | sample)", "diameter ~ (1 | sample) + (1 | plate)"):
        assert [(t.group, t.n_levels) for t in build(formula, data).terms] == [("plate", 24), ("sample", 6)]


def test_ties_are_reversed_when_terms_have_to_move(sleep):
    # names(lFormula(...)$reTrms$cnms): lme4 takes rev(order(levels)) when the order is not decreasing already
    data = sleep.assign(a=sleep.Subject, h=(sleep.Days % 3).astype(int))
    in_order = build("Reaction ~ (1 | Subject) + (1 | a) + (1 | h)", data)
    assert [t.group for t in in_order.terms] == ["Subject", "a", "h"]
    moved = build("Reaction ~ (1 | h) + (1 | Subject) + (1 | a)", data)
    assert [t.group for t in moved.terms] == ["a", "Subject", "h"]


def test_Z_has_lme4_column_order():
    design = build("y ~ x + (x | g) + (0 + f | h)", toy(), allow_saturated=True)
    dense = np.hstack([dense_Z(term) for term in design.terms])
    assert_array_equal(design.Z().toarray(), dense)
    assert build("y ~ x", toy()).Z().shape == (16, 0)


def test_structures():
    terms = build(
        "y ~ diag(x | g, hom = TRUE) + cs(f | h) + ar1(0 + o | b)", toy(), allow_saturated=True
    ).terms
    assert {t.group: (t.structure, t.homogeneous) for t in terms} == {
        "g": ("diag", True), "h": ("cs", False), "b": ("ar1", True),
    }  # fmt: skip
    assert build("y ~ cs(1 | g)", toy()).terms[0].structure == "us"


def test_assign_is_that_of_r():
    # attr(model.matrix(~ f * x + b, d), "assign")
    assert build("y ~ f * x + b", toy()).assign == (0, 1, 1, 2, 3, 4, 4)


# --- groups ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([3, 1, 2, 10, 1, 3], ["1", "2", "3", "10"]),
        ([0.5, 1e5, 2.0, 0.5, 1e5, 2.0], ["0.5", "2", "1e+05"]),
        ([10**12, 5, -7, 10**12, 5, -7], ["-7", "5", "1000000000000"]),
        ([True, False, True, True, False, True], ["FALSE", "TRUE"]),
        (["b", "A", "a", "_", "B", "b"], ["A", "B", "_", "a", "b"]),
        (["NA", "x", "NA", "x", "y", "y"], ["NA", "x", "y"]),
        (pd.Categorical(["u", "t", "u", "t", "u", "t"], ["v", "u", "t"]), ["u", "t"]),
        (pd.Categorical([2.0, 1.5, 2.0, 1.5, 2.0, 1.5], [2.0, 1.5]), ["2", "1.5"]),
        (pd.to_datetime(["2020-01-02", "2019-05-01"] * 3), ["2019-05-01", "2020-01-02"]),
        (pd.array([1, 2, 1, 2, 3, 3], dtype="Int64"), ["1", "2", "3"]),
        (pd.array([True, False] * 3, dtype="boolean"), ["FALSE", "TRUE"]),
        (pd.array(["b", "a"] * 3, dtype="string"), ["a", "b"]),
        (np.array(["b", "a"] * 3, dtype=object), ["a", "b"]),
    ],
)  # fmt: skip
def test_levels_of_every_type_of_group(values, levels):
    data = pd.DataFrame({"y": [1.0, 2, 4, 3, 5, 7], "g": values})
    (term,) = build("y ~ (1 | g)", data).terms
    assert term.labels.tolist() == levels
    assert set(term.index) <= set(pd.Series(values))  # the user's own values
    labels = build("y ~ g", data, na_action="fail") if not isinstance(values, pd.DatetimeIndex) else None
    assert labels is None or labels.n == 6
    assert (term.codes >= 0).all() and term.codes.dtype == np.intp


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 2)), min_size=2, max_size=40))
def test_interaction_groups_are_the_combinations_that_occur(rows):
    columns = np.array(rows).T
    factors = [Factor(c, tuple(f"{'abc'[i]}{v}" for v in range(6))) for i, c in enumerate(columns)]
    codes, levels = grouping_factor(factors)
    text = levels.labels.tolist()
    assert text == [f"a{i}:b{j}:c{k}" for i, j, k in sorted(set(rows))]
    assert [text[c] for c in codes] == [f"a{i}:b{j}:c{k}" for i, j, k in rows]
    assert levels.keys() == [tuple(label.split(":")) for label in text]


def test_large_interactions_do_not_build_the_cross():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 10_000, (2, 20_000))
    data = pd.DataFrame({"y": rng.normal(size=20_000), "a": a, "b": b})
    (term,) = build("y ~ (1 | a:b)", data, allow_saturated=True).terms
    pairs = sorted(set(zip(a.tolist(), b.tolist(), strict=True)))
    assert term.labels.tolist() == [f"{i}:{j}" for i, j in pairs]
    assert term.levels.tolist() == pairs


def test_combinations_of_equal_text_are_told_apart():
    # lme4 pastes the labels, and merges "a:b" with "c" and "a" with "b:c"
    data = pd.DataFrame({"y": [1.0, 2, 3, 4], "p": ["a:b", "a", "a", "d"], "q": ["c", "b:c", "b:c", "c"]})
    (term,) = build("y ~ (1 | p:q)", data).terms
    assert (term.labels.tolist(), term.codes.tolist()) == (["a:b:c", "a:b:c", "d:c"], [1, 0, 0, 2])
    assert term.index.tolist() == [("a", "b:c"), ("a:b", "c"), ("d", "c")]


# --- rows ------------------------------------------------------------------------------------------------


def test_rows_with_missing_values_are_dropped_only_where_used():
    data = toy().assign(nothing=np.nan)
    assert build("y ~ x + (1 | g)", data).n == 16
    for formula, dropped in (
        ("y ~ xna", [1, 6]),
        ("y ~ x + (1 | gna)", [2]),
        ("y ~ xna + (1 | gna)", [1, 2, 6]),
    ):
        for action in ("omit", "exclude"):
            design = build(formula, data, na_action=action)
            assert design.omitted.tolist() == dropped
            assert design.index.tolist() == [i for i in range(16) if i not in dropped]
            assert (design.n_input, design.na_action) == (16, action)


def test_missing_weights_offset_and_response_drop_rows():
    data = toy()
    weights = np.where(data.x > 2, np.nan, 2.0)
    offset = pd.Series(np.where(data.z == 0.5, np.nan, 1.0))
    data.loc[4, "y"] = np.nan
    design = build("y ~ x", data, weights=weights, offset=offset)
    assert design.omitted.tolist() == [0, 4, 11]
    assert_array_equal(design.weights, np.full(13, 2.0))
    assert_array_equal(design.offset, np.ones(13))


def test_bases_see_all_rows_before_any_are_dropped():
    # R evaluates poly() before na.omit(): the columns of the rows kept are not orthogonal
    design = build("y ~ poly(x, 2) + xna", toy())
    whole = build("y ~ poly(x, 2)", toy())
    assert_array_equal(design.X[:, 1:3], np.delete(whole.X, [1, 6], axis=0)[:, 1:])


def test_not_a_number_from_a_function_counts_as_missing():
    with pytest.warns(MixedModelWarning, match=r"log\(x\) is not a number in 7 row"):
        design = build("y ~ log(x)", toy())
    assert design.n == 9


def test_weights_and_offset_by_name_expression_and_array():
    data = toy()
    named = build("y ~ x + offset(x)", data, weights="z", offset="log(z)")
    arrays = build("y ~ x + offset(x)", data, weights=data.z.to_numpy(), offset=list(np.log(data.z)))
    equal_designs(named, arrays)
    assert_allclose(named.offset, data.x + np.log(data.z), rtol=1e-15)
    frame = named.take(np.arange(5)).frame()
    assert list(frame.columns) == ["y", "x", "offset(x)", "(weights)", "(offset)"]
    assert_allclose(frame["(offset)"], np.log(data.z[:5]), rtol=1e-15)


def test_frame_has_matrices_spread_and_levels_dropped():
    frame = build("log(y) ~ poly(x, 2) + f + b + `my x` + (1 | g)", toy()).frame()
    assert list(frame.columns) == ["log(y)", "poly(x, 2).1", "poly(x, 2).2", "f", "b", "my x", "g"]
    assert list(frame["f"].cat.categories) == ["z", "a", "m"]
    assert frame["b"].dtype == bool


def test_string_and_other_index_labels_are_kept():
    data = toy().set_index(pd.Index([f"row{i}" for i in range(16)]))
    assert build("y ~ xna", data).index.tolist()[:2] == ["row0", "row2"]
    with pytest.raises(DataError, match="'row3'"):
        build("y ~ x", data.assign(x=np.where(data.index == "row3", np.inf, data.x)))


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "change", "error", "message"),
    [
        ("Reaktion ~ Days", {}, DataError, "no column 'Reaktion'"),
        ("~ Days", {}, DataError, "no response"),
        (SLOPE, {"Reaction": 1.0}, DesignError, "response Reaction is constant"),
        (SLOPE, {"Reaction": np.nan}, DataError, "no rows are left.*Reaction \\(180\\)"),
        (SLOPE, {"Reaction": np.inf}, DataError, "Reaction is infinite in 180"),
        (SLOPE, {"Days": np.inf}, DataError, "column Days is inf in row 0"),
        ("Reaction ~ log(Days) + (1 | Subject)", {}, DataError, r"log\(Days\) is -inf in row 0"),
        ("Reaction ~ Days + (log(Days) | Subject)", {}, DataError, r"log\(Days\) is -inf in row 0"),
        (SLOPE, {"Subject": "one"}, DesignError, r"Subject has one level \('one'\)"),
        (SLOPE, {"Subject": True}, DesignError, r"Subject has one level \('TRUE'\)"),
        (SLOPE, {"Subject": np.arange(180)}, DesignError, "Subject has 180 levels for 180 rows"),
        (SLOPE, {"Subject": np.arange(180) // 2}, DesignError, "180 random effects for 180 rows"),
        ("Reaction ~ f", {"f": "only"}, DesignError, r"factor f has one level \('only'\)"),
        ("Reaction ~ t", {"t": pd.Timestamp("2020-01-01")}, DataError, "t holds times"),
        ("Reaction ~ t", {"t": 1j}, DataError, "complex128"),
        ("Reaction ~ t", {"t": [[1]] * 180}, DataError, "'t' holds mixed objects"),
    ],
)
def test_bad_data_are_refused(sleep, formula, change, error, message):
    with pytest.raises(error, match=message):
        build(formula, sleep.assign(**change))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1, 2]}, "weights has 2 values for 180 rows"),
        ({"weights": "w"}, "no column 'w'"),
        ({"weights": -np.ones(180)}, "row 0 has -1"),
        ({"weights": "Subject"}, "must be numeric"),
        ({"offset": np.full(180, np.inf)}, "offset is infinite in row 0"),
        ({"na_action": "pass"}, "omit, exclude, fail"),
    ],
)
def test_bad_arguments_are_refused(sleep, arguments, message):
    with pytest.raises(DataError, match=message):
        build(SLOPE, sleep, **arguments)


def test_other_refusals(sleep):
    with pytest.raises(DataError, match=r"missing values in xna \(2\)"):
        build("y ~ xna", toy(), na_action="fail")
    with pytest.raises(DataError, match="no rows"):
        build(SLOPE, sleep.iloc[:0])
    with pytest.raises(DataError, match="not list"):
        build(SLOPE, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(FormulaError, match="not int"):
        build(5, sleep)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="several columns named 'Days'"):
        build(SLOPE, pd.concat([sleep, sleep[["Days"]]], axis=1))


def test_saturated_groups_are_allowed_on_request(sleep):
    data = sleep.assign(row=np.arange(180))
    assert build("Reaction ~ (1 | row)", data, allow_saturated=True).q == 180


def test_structured_terms_may_have_as_many_effects_as_rows(sleep):
    # lme4 2.1-0 fits ar1(0 + fD | Subject) to these 180 rows
    design = build("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", sleep)
    assert design.q == design.n


def test_aliased_columns_are_named():
    with pytest.warns(RankWarning, match=r"X has 4 columns but rank 3: dropped 1.*: I\(2 \* x\)$"):
        design = build("y ~ x + I(2 * x) + z", toy())
    assert design.x_names == ("(Intercept)", "x", "z")
    assert design.x_names_full == ("(Intercept)", "x", "I(2 * x)", "z")


def test_a_mapping_of_columns_is_data_too():
    design = build("y ~ x", {"y": [1.0, 2.0, 4.0], "x": [0, 1, 2]})
    assert_array_equal(design.X, [[1, 0], [1, 1], [1, 2]])


def test_no_fixed_effects():
    design = build("y ~ 0 + (1 | g)", toy())
    assert (design.X.shape, design.x_names) == ((16, 0), ())


# --- subsets, permutations, new rows ---------------------------------------------------------------------

FORMULAS = [
    "y ~ x + (x | g)",
    "y ~ f * x + (1 | h/b)",
    "y ~ 0 + f + b + (f || h)",
    "y ~ o + (1 | s)",
    "y ~ xna + f:b + (1 | gna)",
    "y ~ factor(k) + s + offset(z) + (0 + b | h)",
    "y ~ (1 | g) + (1 | h) + (1 | f:b)",
]


@settings(max_examples=60)
@given(st.sampled_from(FORMULAS), st.integers(0, 10**6), st.integers(6, 16))
def test_take_is_the_design_of_the_subset(formula, seed, size):
    data = toy()
    data["y"] += np.random.default_rng(seed).normal(size=16)
    rows = np.sort(np.random.default_rng(seed).choice(16, size, replace=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = build(formula, data, weights="z", allow_saturated=True)
        kept = [i for i, label in enumerate(whole.index) if label in set(rows)]
        try:
            expected = build(formula, data.iloc[rows], weights="z", allow_saturated=True)
        except DesignError as refusal:
            with pytest.raises(DesignError, match=str(refusal)[:12]):
                whole.take(kept)
            return
        taken = whole.take(kept)
    by_group = {(t.group, t.effects): t for t in expected.terms}
    assert [t.group for t in taken.terms] == [t.group for t in whole.terms]
    for term in taken.terms:
        other = by_group[term.group, term.effects]
        assert term.levels.tolist() == other.levels.tolist()
        assert_array_equal(term.codes, other.codes)
        assert_array_equal(term.columns, other.columns)
    assert taken.x_names == expected.x_names
    assert_array_equal(taken.X, expected.X)
    assert_array_equal(taken.weights, expected.weights)
    assert taken.index.tolist() == expected.index.tolist()
    pd.testing.assert_frame_equal(taken.frame(), expected.frame(), check_dtype=False)


@given(st.sampled_from(FORMULAS), st.permutations(range(16)))
def test_rows_in_another_order_are_the_same_rows(formula, order):
    data = toy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)
        whole = build(formula, data, allow_saturated=True)
        shuffled = build(formula, data.iloc[list(order)], allow_saturated=True)
    position = {label: i for i, label in enumerate(shuffled.index)}
    back = [position[label] for label in whole.index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)
        equal_designs(shuffled.take(back), whole)


def test_take_accepts_masks_and_repeats(sleep):
    design = build(SLOPE, sleep)
    mask = (sleep.Subject != "308").to_numpy()
    taken = design.take(mask)
    assert (taken.n, taken.terms[0].n_levels, taken.terms[0].levels[0]) == (170, 17, "309")
    equal_designs(taken, design.take(np.flatnonzero(mask)))
    equal_designs(design.take(mask).take(np.arange(100)), design.take(np.flatnonzero(mask)[:100]))
    twice = design.take(np.repeat(np.arange(180), 2))
    assert_array_equal(twice.y, np.repeat(design.y, 2))
    with pytest.raises(DataError, match="no rows"):
        design.take([])
    with pytest.raises(DesignError, match="one level"):
        design.take(np.arange(10))


def test_take_keeps_bases_and_drops_new_aliases(sleep):
    design = build("Reaction ~ poly(Days, 2) + (1 | Subject)", sleep)
    kept = design.take(sleep.Days < 5)
    assert_array_equal(kept.X, design.X[sleep.Days < 5])
    two_days = design.take(sleep.Days < 2)
    assert two_days.x_names == ("(Intercept)", "poly(Days, 2)1")


def test_take_codes_a_factor_afresh_when_its_base_level_is_lost():
    data = mmcore.load_dataset("Machines")
    design = build("score ~ Machine + (Machine | Worker)", data, allow_saturated=True)
    assert design.x_names == ("(Intercept)", "MachineB", "MachineC")
    taken = design.take(data.Machine != "A")
    assert taken.x_names == taken.terms[0].effects == ("(Intercept)", "MachineC")


def test_new_rows_have_training_levels_and_unknown_ones(sleep):
    design = build(SLOPE, sleep)
    new = pd.DataFrame({"Days": [1.0, 2.0, np.nan, 4.0], "Subject": ["372", "999", "308", None]})
    rows = design.new(new)
    assert rows.codes[0].tolist() == [17, -1, 0, -1]
    assert rows.new_levels == (("999",),)
    assert_array_equal(rows.X, [[1, 1], [1, 2], [1, np.nan], [1, 4]])
    assert_array_equal(rows.columns[0], rows.X)
    population = design.new(new[["Days"]], terms=())
    assert population.codes == ()
    with pytest.raises(DataError, match="no column 'Subject'"):
        design.new(new[["Days"]])


def test_new_rows_of_nested_groups_and_dropped_columns():
    with pytest.warns(RankWarning):
        design = build("y ~ x + I(2 * x) + offset(z) + (1 | f/b)", toy(), allow_saturated=True)
    rows = design.new(toy().iloc[[5, 2]].drop(columns="y"), offset=[1.0, 2.0])
    assert_array_equal(rows.X, design.X[[5, 2]])
    assert_array_equal(rows.offset, toy().z.to_numpy()[[5, 2]] + [1, 2])
    for codes, term in zip(rows.codes, design.terms, strict=True):
        assert_array_equal(codes, term.codes[[5, 2]])


def test_a_response_can_be_replaced(sleep):
    design = build("log(Reaction) ~ Days + (1 | Subject)", sleep)
    other = design.with_response(design.y * 2)
    assert_array_equal(other.y, 2 * design.y)
    assert_array_equal(other.frame()["log(Reaction)"], 2 * design.y)
    assert_array_equal(other.take(np.arange(50)).y, other.y[:50])
    with pytest.raises(DataError, match="y has 3 values for 180 rows"):
        design.with_response(np.ones(3))
    with pytest.raises(DesignError, match="constant"):
        design.with_response(np.ones(180))


def test_a_formula_is_data(sleep):
    design = build("Reaction ~ . - Subject + (1 | Subject)", sleep)
    assert design.formula.to_r() == "Reaction ~ (Days + Subject) - Subject + (1 | Subject)"
    for other in (pickle.loads(pickle.dumps(design)), copy.deepcopy(design)):
        equal_designs(other, design)
        equal_designs(other.take(np.arange(60)), design.take(np.arange(60)))
