"""The report names what is wrong: for engines with one planted fault each, its first line is the fault."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.compare.causes import causes
from parity.compare.judge import failures
from parity.compare.relations import Facts, named_factors, relation
from parity.compare.run import run
from parity.engines.load import load
from parity.engines.references import references
from parity.publish.report import to_html, to_json, to_junit, to_markdown
from parity.publish.report.text import cause_text
from parity.schema.case import load_cases, select
from tests.parity import wrong_engines

CASES = ("dyestuff_reml", "sleepstudy_offset_ml", "sleepstudy_weights_reml")

# The quantities that the first line names, and what it says of them.
PLANTED = {
    "ml_sigma": (
        ("se_fixef", "vcov_fixef", "varcorr"),
        "times sqrt((n - p) / n) or (n - p) / n: ML estimate of sigma",
    ),
    "twice": (("fixef",), "times 2: a factor of two"),
    "sign": (("ranef",), "times -1: the sign is turned"),
    "relative": (("varcorr",), "times 1 / sigma^2: relative for absolute scale"),
    "reverse": (("ranef",), "right in the reverse order of labels"),
    "neighbor": (("fitted",), "right with the labels shifted by 1"),
    "shuffled": (("resid_response",), "right in another order: a permutation of labels"),
    "transposed": (("x_matrix",), "right read by columns: a matrix is transposed"),
    "centered": (("fitted",), "minus their mean: centered"),
    "one_group": (("ranef",), "only the elements of Batch|A differ"),
    "nan": (("se_fixef",), "the engine gives NaN where the reference has numbers"),
    "silent": (("aic",), "the engine claims what it does not give"),
    "ml_for_reml": (("criterion", "loglik", "aic", "bic"), "fitted by ML where REML is asked for"),
    "unweighted": (("criterion", "loglik", "aic", "bic"), "the weights are left out"),
    "no_offset": (("criterion", "loglik", "aic", "bic"), "the offset is left out"),
}


@pytest.fixture(scope="module")
def judged():
    """Engine name -> report, made once."""
    made = {}
    recorded, _ = references("recorded")
    mmcore, cases = load("mmcore"), select(load_cases(), CASES)

    def report(name):
        if name not in made:
            made[name] = run(cases, getattr(wrong_engines, name)(), recorded[:1], explainer=mmcore)
        return made[name]

    return report


@pytest.mark.parametrize("name", PLANTED)
def test_first_line_names_the_fault(judged, name):
    report = judged(name)
    quantities, text = PLANTED[name]
    assert report.exit_code == 1
    assert report.first_line.startswith(", ".join(quantities))
    assert text in report.first_line
    assert len(report.causes) == 1, [cause.line for cause in report.causes]


def test_an_engine_without_fault_has_no_cause(judged):
    cases = select(load_cases(), CASES)
    report = run(cases, load("mmcore"), references("recorded")[0][:1], explainer=load("mmcore"))
    assert report.causes == ()
    assert report.first_line == report.headline


@pytest.mark.parametrize("name", ["ml_sigma", "raises"])
def test_every_view_begins_with_the_cause(judged, name):
    report = judged(name)
    fault = {"ml_sigma": "sqrt((n - p) / n)", "raises": "ZeroDivisionError: on purpose"}[name]
    assert fault in to_markdown(report).splitlines()[0].replace("\\", "")
    assert fault in to_json(report).split('"headline"')[0]
    assert fault in to_html(report).split("<main>")[0]
    assert fault in to_junit(report)


def test_one_failing_call_is_one_block_with_a_traceback(judged):
    (cause,) = judged("raises").causes
    text = cause_text(cause)
    assert text.splitlines()[0].startswith(
        "the engine failed: ZeroDivisionError: on purpose (wrong_engines.py:"
    )
    assert text.count("Traceback (most recent call last)") == 1
    assert 'raise ZeroDivisionError("on purpose")' in text
    assert len(cause.rows) == 2 * len(CASES)


def test_causes_hold_every_failure_once(judged):
    for name in ("ml_sigma", "unweighted", "raises"):
        report = judged(name)
        held = [id(row) for cause in report.causes for row in cause.rows]
        assert sorted(held) == sorted(id(row) for row in failures(report.rows))


def test_the_cause_that_explains_most_stands_first_and_the_unexplained_last(judged):
    rows = [
        replace(row, cause="", relation="") if row.quantity == "se_fixef" else row
        for row in judged("ml_sigma").rows
    ]
    found = causes(rows)
    assert [cause.explained for cause in found] == [True, False]
    assert found[1].quantities == ("se_fixef",)


# --- relations on plain numbers ---------------------------------------------------------------------------

GATE = 1e-8
LABELS = tuple(f"g|{i}" for i in range(6))
WANT = np.array([0.31, -1.7, 2.2, 0.05, 4.1, -0.6])
FACTS = Facts("y", "level", n=30.0, p=4.0, sigma=1.7, gate=GATE)


def found(got, want=WANT, facts=FACTS, labels=LABELS):
    def agrees(values):
        return bool((np.abs(values - want) <= GATE * np.maximum(1, np.abs(want))).all())

    return relation(np.asarray(got), np.asarray(want), labels, facts, agrees)


@pytest.mark.parametrize(
    "factor, named", [pytest.param(f, n, id=n.text[48:]) for f, n in named_factors(FACTS)]
)
def test_each_named_factor_is_named(factor, named):
    assert found(factor * WANT) == named


def test_a_factor_must_hold_for_all_elements():
    got = 2 * WANT
    got[3] *= 1 + 1e-6
    assert found(got) is None or found(got).cause not in ("twice", "factor 2")


def test_a_factor_that_the_gate_cannot_tell_from_one_is_not_named():
    facts = replace(FACTS, n=1e9, p=1.0)  # (n - p) / n is one to nine digits
    assert found(WANT * (1 - 1e-9) + 5e-8, facts=facts).cause == "constant difference"


def test_a_factor_without_name_is_told():
    assert found(1.25 * WANT).text == "the engine's numbers are the reference's times 1.25"


def test_constants_of_a_likelihood():
    facts = replace(FACTS, unit="log")
    want, labels = np.array([812.3]), ("",)
    assert (
        found(want - 30 * np.log(2 * np.pi), want, facts, labels).text
        == "the engine's numbers lack n log(2 pi)"
    )
    assert "(n - p) log(2 pi)" in found(want - 26 * np.log(2 * np.pi), want, facts, labels).text


def test_variance_for_standard_deviation():
    want = np.abs(WANT)
    assert found(want**2, want).cause == "squared"
    assert found(np.sqrt(want), want).cause == "root"


@given(st.permutations(range(6)))
def test_every_permutation_is_noticed_as_one(order):
    got = WANT[list(order)]
    same = found(got)
    if list(order) != sorted(order):
        assert same.cause in ("permuted labels", "shifted labels", "reversed", "transposed", "one place")


def test_a_transposed_matrix_that_is_not_square():
    want = np.arange(6.0) ** 2 + 0.1
    labels = tuple(f"{row}|{column}" for row in "123" for column in "ab")
    assert found(want.reshape(3, 2).T.ravel(), want, labels=labels).cause == "transposed"


@given(st.integers(0, 10_000))
def test_noise_has_no_relation(seed):
    noise = np.random.default_rng(seed).normal(size=6)
    assert found(WANT * (1 + 0.1 * noise)) is None


def test_numbers_that_are_not_finite_have_no_relation():
    assert found(WANT * np.nan) is None
    assert found(WANT * np.inf) is None
