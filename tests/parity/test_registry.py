"""The registry: no row is a promise. Each has a definition, an R function, an engine entry and a gate."""

import re

import pytest

from parity.engines.mmcore.engine import QUANTITIES
from parity.resources import r_dir
from parity.schema.policy import LANES, PolicyError, default_policy, load_policy
from parity.schema.quantities import INDEXES, MEASURES, NAMES, REGISTRY, in_lane, of_kind, quantity


def _functions(file):
    return set(re.findall(r"^([a-z][a-z0-9_.]*) <- function\(", (r_dir() / file).read_text(), re.MULTILINE))


FUNCTIONS = {
    file: _functions(file)
    for file in ("quantities.R", "first_principles.R", "group_residuals.R", "deletion.R", "glm.R", "glmm.R")
}


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)
def test_row_is_complete(row):
    assert len(row.definition.split()) >= 3
    assert len(row.why.split()) >= 3
    assert row.index in INDEXES and row.measure in MEASURES
    file, _, function = row.r_source.partition("::")
    assert function == row.name
    assert function in FUNCTIONS[file], f"{file} has no function {function}"
    assert row.name in QUANTITIES
    assert row.lanes


def test_nothing_is_computed_that_the_registry_does_not_name():
    computed = set().union(*FUNCTIONS.values()) | set(QUANTITIES)
    assert computed - set(NAMES) == set()


def test_definitions_are_unique():
    definitions = [row.definition for row in REGISTRY.values()]
    assert len(set(definitions)) == len(definitions)


def test_theta_is_not_compared_where_it_is_given():
    assert "theta" not in in_lane("at_theta")
    assert "theta" in in_lane("optimum")


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="cooks_distance_marginal"):
        quantity("cook_distance_marginal")


# --- policy -------------------------------------------------------------------------------------------------


def test_every_quantity_of_every_lane_has_one_gate_with_a_reason():
    policy = default_policy()
    for lane in LANES:
        for name in in_lane(lane):
            gate = policy.gate(lane, name)
            assert len(gate.why.split()) >= 4 and gate.source


def test_no_gate_at_theta_is_wider_than_1e_9_and_none_of_refits_than_1e_6():
    policy = default_policy()
    for name in in_lane("at_theta"):
        assert policy.gate("at_theta", name).value <= (1e-6 if REGISTRY[name].refits else 1e-9)


def test_gates_grow_from_theta_to_optimum_to_default():
    policy = default_policy()
    lanes = ("at_theta", "optimum", "default")
    for name in in_lane("default"):
        for kind in REGISTRY[name].kinds:
            found = [policy.gate(lane, name, kind).value for lane in lanes if lane in REGISTRY[name].lanes]
            assert found == sorted(found), (name, kind)


@pytest.mark.parametrize(
    ("kind", "has", "has_not"),
    [
        ("lm", {"sigma", "dfbeta_r", "hatvalues"}, {"theta", "eta", "null_deviance", "mdffits_marginal"}),
        ("glm", {"null_deviance", "eta", "rstudent_glm"}, {"sigma", "theta", "penalty", "rvc"}),
        ("lmm", {"theta", "mdffits_marginal", "rvc"}, {"eta", "deviance", "dfbeta_r"}),
        (
            "glmm",
            {"theta", "eta", "penalty", "se_fixef_hessian"},
            {"null_deviance", "mdffits_marginal", "rvc"},
        ),
    ],
)
def test_each_kind_of_model_is_asked_for_what_it_has(kind, has, has_not):
    names = set(of_kind(kind))
    assert has <= names and not has_not & names
    assert {"fixef", "se_fixef", "fitted", "criterion"} <= names


def test_a_model_without_random_effects_has_nothing_to_compare_at_a_theta():
    plain = {row.name for row in REGISTRY.values() if not {"lmm", "glmm"} & set(row.kinds)}
    assert plain and not plain & set(in_lane("at_theta"))


def _text():
    from parity.schema.policy import POLICY_FILE

    return POLICY_FILE.read_text()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('quantities = ["sigma"]\nvalue = 1e-10', 'quantities = ["sigmma"]\nvalue = 1e-10', "sigmma"),
        (
            'quantities = ["sigma"]\nvalue = 1e-10',
            'quantities = ["sigma", "ranef"]\nvalue = 1e-10',
            "two gates for ranef",
        ),
        (
            'quantities = ["sigma"]\nvalue = 1e-10',
            "quantities = []\nvalue = 1e-10",
            "no gate for sigma (at_theta)",
        ),
        ('why = "50 times the spread of polished R"', 'why = ""', "why"),
        ("value = 1e-10", "value = -1.0", "value"),
        ('measure = "gap"', 'measure = "correlation"', "correlation"),
        ("schema = 1", "schema = 9", "schema 9"),
    ],
)
def test_a_policy_that_is_wrong_is_refused(tmp_path, old, new, told):
    assert old in _text()
    path = tmp_path / "policy.toml"
    path.write_text(_text().replace(old, new, 1))
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert told in str(caught.value)
