"""Cases: what is shipped, how they are read, and that a bad file says what is bad."""

import json
from collections import Counter

import pytest

from mmcore.datasets import dataset_source
from mmcore.formula.parse import parse
from parity.schema.case import Case, CaseError, canonical, frame, load_case, load_cases, select

SHIPPED = load_cases()
DATA_SETS = {
    "sleepstudy", "Dyestuff", "Dyestuff2", "Penicillin", "Pastes", "Machines", "cake", "Oats", "Orthodont",
    "Rail", "Hsb82", "Exam", "ScotsSec", "InstEval", "Pixel", "Gcsemv",
}  # fmt: skip


def test_shipped_cases_cover_the_data_sets_and_the_kinds_of_model():
    fits = [case for case in SHIPPED if case.expect == "fit" and case.kind == "lmm"]
    assert len(fits) >= 25
    assert {case.data for case in fits} == DATA_SETS
    tags = Counter(tag for case in fits for tag in case.tags)
    for tag in (
        "slope",
        "doublebar",
        "nested",
        "crossed",
        "singular",
        "weights",
        "offset",
        "contrasts",
        "slow",
    ):
        assert tags[tag], tag
    assert {case.reml for case in fits} == {True, False}
    assert all(case.note for case in SHIPPED)


def test_generalised_cases_cover_families_links_and_shapes():
    fits = [case for case in SHIPPED if case.expect == "fit" and case.kind in ("glm", "glmm")]
    families = {"gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "negative.binomial"}
    assert {case.family for case in fits if case.kind == "glm"} == families
    assert families - {"gaussian"} == {case.family for case in fits if case.kind == "glmm"}
    links = {case.link for case in fits if case.family == "binomial"}
    assert links >= {None, "probit", "cloglog", "cauchit"}
    assert {case.nagq for case in fits} >= {0, 1, 9}
    assert any(case.formula.startswith("cbind(") for case in fits)
    assert any(case.weights for case in fits) and any(case.offset for case in fits)
    bars = {case.formula.count("|") for case in fits}
    assert bars >= {0, 1, 2, 3}


def test_ids_are_unique_and_depend_on_the_content_only():
    assert len({case.id for case in SHIPPED}) == len(SHIPPED)
    one = Case(name="a", data="Rail", formula="travel ~ 1 + (1 | Rail)", tags=("x",), note="n")
    assert one.id == Case(name="b", data="Rail", formula="travel ~ 1 + (1 | Rail)").id
    assert one.id != Case(name="a", data="Rail", formula="travel ~ 1 + (1 | Rail)", reml=False).id
    assert b"note" not in canonical(one)


@pytest.mark.parametrize("case", SHIPPED, ids=lambda case: case.name)
def test_every_shipped_case_has_its_data_and_a_formula_that_parses(case):
    if case.expect == "refuse":
        return
    data = frame(case)
    used = {*parse(case.formula).variables, *filter(None, (case.weights, case.offset))}
    assert used <= set(data.columns)
    assert dataset_source(case.data)["source"].split("::")[0] in ("lme4", "nlme", "mlmRev", "MASS")


def test_rows_keep_their_numbers_and_columns_are_recycled():
    case = Case(
        name="a",
        data="Rail",
        formula="travel ~ 1 + (1 | Rail)",
        rows=(1, 8, 3),
        columns={"w": (1.0, 2.0, 3.0)},
    )
    data = frame(case)
    assert list(data.index) == [2, 5, 8]
    assert list(data["w"]) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "bad.json"),
        ({"name": "bad", "data": "Rail"}, "formula"),
        ({"name": "bad", "data": "Rail", "formula": "y ~ 1", "frmula": 1}, "frmula"),
        ({"name": "other", "data": "Rail", "formula": "y ~ 1"}, "`name` is 'other'"),
        ({"name": "bad", "data": "../Rail", "formula": "y ~ 1"}, "data"),
        ({"name": "bad", "data": "Rail", "formula": "y ~ 1", "family": "normal"}, "family"),
        ({"name": "bad", "data": "Rail", "formula": " "}, "`formula` is empty"),
        ({"name": "bad", "data": "Rail", "formula": "y ~ 1", "rows": [0, 5, 0]}, "step 0"),
        ({"name": "bad", "data": "Rail", "formula": "y ~ 1", "columns": {"w": []}}, "no values for w"),
        ({"name": "bad", "data": "Rail", "formula": "y ~ 1", "contrasts": {"g": "quit"}}, "contrasts"),
    ],
)
def test_a_bad_case_file_says_what_is_bad(tmp_path, content, told):
    path = tmp_path / "bad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CaseError, match=r"bad\.json") as caught:
        load_case(path)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"data": "Raill"}, "Rail"), ({"columns": {"travel": (1.0,)}}, "would replace travel")],
)
def test_data_that_cannot_be_had(changed, told):
    fields = {"name": "a", "data": "Rail", "formula": "travel ~ 1 + (1 | Rail)", **changed}
    with pytest.raises(CaseError, match=told):
        frame(Case(**fields))


def test_cases_are_selected_by_name_pattern_id_and_tag():
    def names(*wanted, **options):
        return [case.name for case in select(SHIPPED, wanted, **options)]

    slow = {case.name for case in SHIPPED if "slow" in case.tags}
    assert slow and slow.isdisjoint(names())
    assert slow <= set(names(slow=True))
    assert names("rail_ml") == ["rail_ml"]
    assert names(next(case.id for case in SHIPPED if case.name == "rail_ml")) == ["rail_ml"]
    assert names("rail_re*", "rail_ml", "dyestuff_ml") == ["dyestuff_ml", "rail_ml", "rail_reml"]
    assert set(names("tag:singular")) == {"dyestuff2_singular_ml", "dyestuff2_singular_reml"}
    assert names(*slow) == sorted(slow)
    assert slow.isdisjoint(names("insteval*"))
    with pytest.raises(CaseError, match="did you mean rail_reml"):
        names("rail_remll")
