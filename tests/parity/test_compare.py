"""The comparison itself: what must not pass does not, whatever form it comes in."""

from dataclasses import replace

import numpy as np
import pytest

from parity.compare.distance import digits, errors, log_relative_error, scales
from parity.compare.judge import WHOLE_MODEL, Pair, apply_known, compare
from parity.compare.run import run
from parity.schema.case import Case
from parity.schema.known import Known
from parity.schema.quantities import REGISTRY
from parity.schema.results import Results, Value, scalar
from parity.schema.verdicts import Verdict


@pytest.fixture
def judge(case, fake, policy):
    """Verdict by quantity of an engine that changes its answer, in a lane, against the unchanged one."""

    def of(change, lane="at_theta", reference=lambda results: results, **more):
        names = ("ours", "theirs")
        ours, theirs = (side.run(case, _ALL) for side in (fake(names[0], change), fake(names[1], reference)))
        return {row.quantity: row for row in compare(Pair(case, lane, ours, theirs, policy, **more))}

    from parity.schema.quantities import NAMES as _ALL

    return of


def test_equal_answers_agree_in_every_quantity(judge):
    rows = judge(lambda results: results)
    assert {row.verdict for row in rows.values()} == {Verdict.AGREE}
    assert all(row.digits == 15 and row.compared > 0 for row in rows.values())


def test_an_engine_of_zeros_fails_every_quantity(judge):
    def zeros(results):
        values = {name: Value(v.labels, np.zeros(len(v.labels))) for name, v in results.values.items()}
        return replace(results, values=values)

    rows = judge(zeros)
    assert {row.outcome for row in rows.values()} == {"fail"}


def test_order_of_labels_does_not_matter_but_their_names_do(judge, change):
    def reversed_(results):
        v = results.values["ranef"]
        return change.values(results, ranef=Value(v.labels[::-1], v.values[::-1]))

    def permuted(results):
        v = results.values["ranef"]
        return change.values(results, ranef=Value(v.labels, v.values[::-1]))

    assert judge(reversed_)["ranef"].verdict is Verdict.AGREE
    assert judge(permuted)["ranef"].verdict is Verdict.DISAGREE


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            ("g|a|(Intercept)", "g|b|(Intercept)", "g|z|(Intercept)"),
            "lacks 'g|c|(Intercept)'; the engine adds 'g|z",
        ),
        (("g|a|(Intercept)", "g|b|(Intercept)"), "lacks 'g|c|(Intercept)'"),
        (("g|a|(Intercept)", "g|b|(Intercept)", "g|b|(Intercept)"), "not unique: 'g|b|(Intercept)'"),
        ((), "lacks"),
    ],
)
def test_labels_that_differ_are_told(judge, change, labels, told):
    row = judge(lambda r: change.values(r, ranef=Value(labels, np.ones(len(labels)))))["ranef"]
    assert row.verdict is Verdict.DISAGREE
    assert told in row.message


def test_a_difference_in_the_design_leaves_nothing_to_compare(judge, change):
    rows = judge(lambda r: change.values(r, n_obs=scalar(7.0)))
    assert rows["n_obs"].verdict is Verdict.DESIGN_DIFFERS
    assert rows["n_obs"].got == 7.0
    assert rows["fixef"].verdict is Verdict.DESIGN_DIFFERS
    assert rows["fixef"].message == "not compared: n_obs differ"
    assert rows["x_matrix"].verdict is Verdict.AGREE


def _with_nan(results, name, where):
    value = results.values[name]
    values = value.values.copy()
    values[where] = np.nan
    return Value(value.labels, values)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "told"),
    [
        ([1], [], Verdict.UNDEFINED_IN_ENGINE, "1 of 6"),
        ([], [1, 2], Verdict.UNDEFINED_IN_REFERENCE, "2 of 6"),
        ([1], [1], Verdict.AGREE, ""),
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], Verdict.BOTH_UNDEFINED, "all 6"),
        ([1], [2], Verdict.UNDEFINED_IN_ENGINE, "1 of 6"),
        ([], [0, 1, 2, 3, 4, 5], Verdict.UNDEFINED_IN_REFERENCE, "6 of 6"),
    ],
)
def test_pattern_of_nan(judge, change, ours, theirs, verdict, told):
    rows = judge(
        lambda r: change.values(r, fitted=_with_nan(r, "fitted", ours)),
        reference=lambda r: change.values(r, fitted=_with_nan(r, "fitted", theirs)),
    )
    assert rows["fitted"].verdict is verdict
    assert told in rows["fitted"].message


def test_defined_elements_are_compared_where_the_reference_has_nan_elsewhere(judge, change):
    def wrong(results):
        value = results.values["fitted"]
        return change.values(results, fitted=Value(value.labels, value.values + 0.123))

    rows = judge(wrong, reference=lambda r: change.values(r, fitted=_with_nan(r, "fitted", [1])))
    assert rows["fitted"].verdict is Verdict.DISAGREE


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (np.inf, np.inf, Verdict.AGREE),
        (np.inf, -np.inf, Verdict.DISAGREE),
        (np.inf, 1.0, Verdict.DISAGREE),
        (1.0, np.inf, Verdict.DISAGREE),
        (np.inf, np.nan, Verdict.UNDEFINED_IN_REFERENCE),
    ],
)
def test_infinite_values_agree_only_with_themselves(judge, change, ours, theirs, verdict):
    def put(x):
        return lambda r: change.values(r, hatvalues=Value(("1", "2"), [0.5, x]))

    assert judge(put(ours), reference=put(theirs))["hatvalues"].verdict is verdict


def test_both_sides_empty_is_not_agreement(judge, change):
    def empty(results):
        return change.values(results, ranef=Value((), []))

    assert judge(empty, reference=empty)["ranef"].outcome == "neutral"


def test_a_value_in_the_wrong_place_is_called_by_its_name(judge, change):
    def other(results):
        return change.values(results, cooks_distance_marginal=results.values["cooks_distance_plugin"])

    row = judge(other)["cooks_distance_marginal"]
    assert row.verdict is Verdict.DEFINITION_DIFFERS
    assert "cooks_distance_plugin" in row.message


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ("undefined", None, Verdict.UNDEFINED_IN_ENGINE),
        (None, "undefined", Verdict.UNDEFINED_IN_REFERENCE),
        ("undefined", "undefined", Verdict.BOTH_UNDEFINED),
        ("error", None, Verdict.ENGINE_ERROR),
        ("unsupported", None, Verdict.ENGINE_ERROR),
        ("skipped", None, Verdict.ENGINE_ERROR),
        (None, "error", Verdict.REFERENCE_ERROR),
        (None, "skipped", Verdict.UNSUPPORTED),
        (None, "unsupported", Verdict.UNSUPPORTED),
        ("error", "skipped", Verdict.UNSUPPORTED),
    ],
)
def test_a_missing_value_needs_a_reason_that_fits(judge, change, ours, theirs, verdict):
    def lack(kind):
        return (lambda r: r) if kind is None else (lambda r: change.without(r, "condvar", kind))

    assert judge(lack(ours), reference=lack(theirs))["condvar"].verdict is verdict


def test_a_value_left_out_in_silence_is_an_error_of_that_side(judge):
    def silent(results):
        return replace(results, values={k: v for k, v in results.values.items() if k != "condvar"})

    assert judge(silent)["condvar"].verdict is Verdict.ENGINE_ERROR
    assert judge(lambda r: r, reference=silent)["condvar"].verdict is Verdict.REFERENCE_ERROR


def test_what_the_engine_does_not_claim_is_not_asked_of_it(judge, change):
    rows = judge(lambda r: change.without(r, "condvar", "unsupported"), claims=frozenset({"fixef"}))
    assert rows["condvar"].verdict is Verdict.UNSUPPORTED
    assert rows["fixef"].verdict is Verdict.AGREE


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("crashed", Verdict.REFERENCE_CRASHED),
        ("timeout", Verdict.TIMEOUT),
        ("error", Verdict.REFERENCE_ERROR),
        ("missing", Verdict.REFERENCE_ERROR),
        ("refused", Verdict.REFERENCE_ERROR),
        ("unsupported", Verdict.UNSUPPORTED),
    ],
)
def test_a_reference_that_failed(judge, status, verdict):
    rows = judge(lambda r: r, reference=lambda r: Results("theirs", "1", status, "said so"))
    assert [row.verdict for row in rows.values()] == [verdict]
    assert "said so" in rows[WHOLE_MODEL].message


@pytest.mark.parametrize("status", ["error", "crashed", "timeout", "refused", "unsupported", "missing"])
def test_an_engine_that_failed_where_it_claims_the_model(judge, status):
    rows = judge(lambda r: Results("ours", "1", status, "said so"))
    assert [row.verdict for row in rows.values()] == [Verdict.ENGINE_ERROR]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ("refused", "refused", Verdict.BOTH_REFUSE),
        ("refused", "error", Verdict.BOTH_REFUSE),
        ("ok", "refused", Verdict.ENGINE_ERROR),
        ("error", "refused", Verdict.ENGINE_ERROR),
        ("refused", "ok", Verdict.REFERENCE_ERROR),
        ("refused", "crashed", Verdict.REFERENCE_CRASHED),
    ],
)
def test_an_invalid_model_must_be_refused_by_both(policy, ours, theirs, verdict):
    case = Case(name="bad", data="sleepstudy", formula="Reaction ~ nothing + (1 | Subject)", expect="refuse")
    pair = Pair(case, "optimum", Results("ours", "1", ours), Results("theirs", "1", theirs), policy)
    assert [row.verdict for row in compare(pair)] == [verdict]


# --- optimum ----------------------------------------------------------------------------------------------


def _run(case, engine, reference):
    return {row.quantity: row for row in run([case], engine, [reference], lanes=["optimum"]).rows}


def _at_optimum(results):
    """`fitted` moves with theta, so that another optimum shows in more than the criterion."""
    theta, fitted = results.values["theta"].values, results.values["fitted"]
    moved = Value(fitted.labels, fitted.values + theta[0])
    return replace(results, values={**results.values, "fitted": moved})


def test_a_worse_optimum_explains_what_differs(case, fake):
    rows = _run(case, fake("ours", _at_optimum, own_shift=0.1), fake("theirs", _at_optimum))
    assert rows["criterion"].verdict is Verdict.WORSE_THAN_REFERENCE
    assert rows["fitted"].verdict is Verdict.WORSE_THAN_REFERENCE
    assert rows["fixef"].verdict is Verdict.AGREE
    assert rows["criterion"].deviance_gap == pytest.approx(0.01)
    assert "0.01 worse" in rows["criterion"].message


def test_a_better_optimum_counts_when_the_reference_confirms_it(case, fake):
    rows = _run(case, fake("ours", _at_optimum), fake("theirs", _at_optimum, own_shift=0.1))
    assert rows["criterion"].verdict is Verdict.BETTER_THAN_REFERENCE
    assert rows["fitted"].verdict is Verdict.BETTER_THAN_REFERENCE
    assert "0.01 lower at the engine's theta" in rows["criterion"].message


def test_a_better_optimum_is_not_believed_without_the_reference(case, fake):
    recorded = fake("theirs", _at_optimum, own_shift=0.1, capabilities=frozenset({"lmm", "all_quantities"}))
    rows = _run(case, fake("ours", _at_optimum), recorded)
    assert rows["criterion"].verdict is Verdict.DISAGREE
    assert "could not evaluate" in rows["criterion"].message


def test_a_lower_criterion_at_the_same_theta_is_a_wrong_criterion(case, fake, change):
    def flattering(results):
        return change.values(results, criterion=scalar(results.values["criterion"].values[0] - 5))

    rows = _run(case, fake("ours", flattering), fake("theirs"))
    assert rows["criterion"].verdict is Verdict.DISAGREE
    assert "not the optimum" in rows["criterion"].message


def test_a_wrong_value_at_a_better_optimum_is_still_wrong(case, fake, change):
    def wrong(results):
        return change.values(_at_optimum(results), sigma=scalar(results.values["sigma"].values[0] * 2))

    rows = _run(case, fake("ours", wrong), fake("theirs", _at_optimum, own_shift=0.1))
    assert rows["criterion"].verdict is Verdict.BETTER_THAN_REFERENCE
    assert rows["sigma"].verdict is Verdict.DISAGREE


@pytest.mark.parametrize(
    ("who", "verdict"),
    [("ours", Verdict.ENGINE_NOT_CONVERGED), ("theirs", Verdict.REFERENCE_NOT_CONVERGED)],
)
def test_a_side_that_did_not_converge_is_named(judge, change, who, verdict):
    def wrong(results):
        return change.values(results, sigma=scalar(99.0))

    def stopped(results):
        return replace(results, converged=False)

    rows = judge(
        lambda r: stopped(wrong(r)) if who == "ours" else wrong(r),
        lane="optimum",
        reference=stopped if who == "theirs" else (lambda r: r),
    )
    assert rows["sigma"].verdict is verdict
    assert rows["fixef"].verdict is Verdict.AGREE


@pytest.mark.parametrize(
    ("covariance", "verdict"), [(0.64, Verdict.SINGULAR_AGREE), (0.7, Verdict.SINGULAR_DIFFERS)]
)
def test_theta_of_a_singular_fit_is_judged_by_its_covariance(judge, change, covariance, verdict):
    def singular(results):
        label = results.values["lambda_crossprod"].labels
        other = change.values(
            results, theta=Value(("g.(Intercept)",), [-0.8]), lambda_crossprod=Value(label, [covariance])
        )
        return replace(other, singular=True)

    rows = judge(singular, lane="optimum", reference=lambda r: replace(r, singular=True))
    assert rows["theta"].verdict is verdict


@pytest.mark.parametrize(
    ("theta", "verdict"), [(0.8, Verdict.SINGULAR_AGREE), (-0.8, Verdict.SINGULAR_DIFFERS)]
)
def test_theta_of_a_singular_fit_speaks_for_itself_where_nothing_else_can(judge, change, theta, verdict):
    def singular(results):
        return replace(change.values(results, theta=Value(("g.(Intercept)",), [theta])), singular=True)

    rows = judge(
        singular, lane="optimum", reference=lambda r: change.without(r, "lambda_crossprod", "skipped")
    )
    assert rows["theta"].verdict is verdict


def test_covariances_on_different_boundaries(judge, change):
    def zero(results):
        label = results.values["lambda_crossprod"].labels
        other = change.values(
            results, theta=Value(("g.(Intercept)",), [0.0]), lambda_crossprod=Value(label, [0.0])
        )
        return replace(other, singular=True)

    rows = judge(zero, lane="optimum")
    assert rows["theta"].verdict is Verdict.SINGULAR_DIFFERS
    assert rows["lambda_crossprod"].verdict is Verdict.SINGULAR_DIFFERS


def test_noise_of_plain_lmer_is_its_own_verdict(judge, change):
    def near(results):
        value = results.values["fixef"]
        return change.values(results, fixef=Value(value.labels, value.values + np.array([5e-5, 0])))

    assert judge(near, lane="default")["fixef"].verdict is Verdict.AGREE_WITHIN_R_NOISE
    assert judge(near, lane="optimum")["fixef"].verdict is Verdict.DISAGREE
    assert judge(lambda r: r, lane="default")["fixef"].verdict is Verdict.AGREE


# --- known differences --------------------------------------------------------------------------------------


def _known(**more):
    fields = {
        "case": "a_case",
        "quantity": "sigma",
        "reason": "another definition of sigma",
        "evidence": "a proof of it",
    }
    return Known(**{**fields, **more})


def test_a_known_difference_passes_and_one_that_agrees_fails(case, fake, change):
    def wrong(results):
        return change.values(results, sigma=scalar(99.0))

    def verdicts(engine, entry):
        rows = run([case], engine, [fake("theirs")], lanes=["at_theta"], known=[entry]).rows
        return {row.quantity: row.verdict for row in rows}

    assert verdicts(fake("ours", wrong), _known())["sigma"] is Verdict.KNOWN
    assert (
        verdicts(fake("ours", wrong), _known(verdict="reference_wrong"))["sigma"] is Verdict.REFERENCE_WRONG
    )
    assert verdicts(fake("ours"), _known())["sigma"] is Verdict.KNOWN_BUT_AGREES
    assert verdicts(fake("ours", wrong), _known(engine="other"))["sigma"] is Verdict.DISAGREE


def test_a_pattern_is_out_of_date_only_when_nothing_it_covers_differs(case, fake, change, policy):
    wrong = fake("ours", lambda r: change.values(r, sigma=scalar(99.0)))
    rows = run([case], wrong, [fake("theirs")], lanes=["at_theta"]).rows
    marked = {row.quantity: row.verdict for row in apply_known(rows, [_known(quantity="s*")], "ours")}
    assert marked["sigma"] is Verdict.KNOWN
    assert marked["se_fixef"] is Verdict.AGREE
    stale = {row.quantity: row.verdict for row in apply_known(rows, [_known(quantity="ran*")], "ours")}
    assert stale["ranef"] is Verdict.KNOWN_BUT_AGREES


def test_a_reference_without_a_criterion_has_judged_nothing(case, fake, change):
    """Its other numbers are NaN as well: undefined one by one, they would pass for an answer."""
    broken = fake("theirs", lambda r: change.values(r, criterion=scalar(np.nan)))
    (row,) = run([case], fake("ours"), [broken], lanes=["at_theta"]).rows
    assert row.verdict is Verdict.REFERENCE_ERROR
    assert "not a number" in row.message
    both = run(
        [case],
        fake("ours", lambda r: change.values(r, criterion=scalar(np.nan))),
        [broken],
        lanes=["at_theta"],
    )
    assert len(both.rows) > 1


# --- measures -----------------------------------------------------------------------------------------------


@pytest.fixture
def scale(values, policy):
    return scales(Results("theirs", "1", values=values()), policy)


def test_measures_against_their_definitions(scale):
    x, c = np.array([1.0, -2.5, 3.0]), Value(("a", "b", "c"), [1.0, -2.0, 4.0])
    cases = {
        "exact": 1.0 / 4,
        "gap": 1.0,
        "criterion": 1.0 / 5,
        "relative": 0.25,
        "scaled": 1.0 / 4,
        "mixed": 0.25,
        "scaled_by_sd_y": 1.0 / scale.sd_y,
        "scaled_by_modes": 1.0 / max(scale.modes, 4.0),
    }
    for measure, worst in cases.items():
        assert errors(measure, x, c, "1", scale).max() == pytest.approx(worst, rel=1e-15), measure
    assert errors(
        "standard_errors", np.array([1.0, 2.0]), Value(("(Intercept)", "x"), [1.5, 2.0]), "y", scale
    )[0] == (pytest.approx(0.5, rel=1e-15))


def test_a_difference_of_effects_is_measured_by_the_effects(scale):
    small = Value(("a",), [1e-6])
    large = replace(scale, modes=8.0)
    assert errors("scaled_by_modes", np.array([1.1e-6]), small, "y", large)[0] == pytest.approx(1e-7 / 8)
    assert errors("scaled", np.array([1.1e-6]), small, "y", large)[0] > 1e-4


def test_a_root_of_a_difference_is_compared_by_its_square_near_zero_only(scale):
    """Rounding of eps in a deviance is sqrt(eps) in its root where y = mu; anywhere else a root has all its digits."""
    want = Value(("exact fit", "small", "middle", "large"), [0.0, 1e-4, -0.01, 2.0])
    got = want.values + np.array([1.5e-8, 1.5e-8, 1.5e-8, -1.5e-8])
    floor = scale.floor * 2.0
    squares = [(1.5e-8) ** 2 / floor / 2.0, 1.5e-8 * 2e-4 / floor / 2.0]
    assert errors("root", got, want, "1", scale) == pytest.approx([*squares, 7.5e-9, 7.5e-9], rel=2e-4)
    assert errors("root", -want.values, want, "1", scale)[2:] == pytest.approx([0.01, 2.0])


def test_whitened_error_does_not_depend_on_the_coding_of_x(scale):
    rng = np.random.default_rng(1)
    A = rng.normal(size=(3, 3))
    want = A @ A.T + np.eye(3)
    half = np.linalg.cholesky(want)
    got = half @ (np.eye(3) + 1e-4 * np.diag([1.0, 2.0, -3.0])) @ half.T
    labels = tuple(f"{i}|{j}" for i in "abc" for j in "abc")
    for T in (np.eye(3), np.diag([1.0, 1e6, 1e-3])):
        error = errors(
            "whitened", np.ravel(T @ got @ T.T), Value(labels, np.ravel(T @ want @ T.T)), "y^2", scale
        )
        assert error.max() == pytest.approx(3e-4, rel=1e-6)


def test_covariance_error_is_free_of_units_and_safe_at_zero(scale):
    labels = ("g|a|a", "g|a|b", "g|b|a", "g|b|b")
    want = np.array([4.0, 1.0, 1.0, 9.0])
    got = np.array([4.0, 1.3, 1.3, 9.0])
    for s in (1.0, 1e-3):
        unit = np.array([1.0, s, s, s * s])
        error = errors("covariance", got * unit, Value(labels, want * unit), "1", scale)
        assert error.max() == pytest.approx(0.3 / 6, rel=1e-12)
    zero = Value(("g|a|a",), [0.0])
    assert errors("covariance", np.array([1e-9]), zero, "1", scale)[0] == pytest.approx(1e-5)
    assert errors("covariance", np.array([0.0]), zero, "1", scale)[0] == 0.0


def test_covariance_names_may_hold_the_separator(scale):
    labels = ("a|b:c|x|x", "a|b:c|x|y|z", "a|b:c|y|z|x", "a|b:c|y|z|y|z")
    want = Value(labels, [4.0, 1.0, 1.0, 9.0])
    error = errors("covariance", np.array([4.0, 1.6, 1.0, 9.0]), want, "1", scale)
    assert error[1] == pytest.approx(0.6 / 6)


def test_a_tiny_vector_is_measured_on_the_natural_scale_of_its_unit(scale):
    tiny = Value(("a", "b"), [0.0, 1e-17])
    assert errors("scaled", np.array([1e-16, 0.0]), tiny, "y", scale).max() < 1e-12
    assert errors("scaled", np.array([1e-3, 0.0]), tiny, "y", scale).max() > 0.5


def test_log_relative_error_and_digits():
    assert log_relative_error(np.array([1.0, 2.0002]), np.array([1.0, 2.0])) == pytest.approx(4.0)
    assert log_relative_error(np.array([1e-3]), np.array([0.0])) == pytest.approx(3.0)
    assert log_relative_error(np.array([-5.0]), np.array([5.0])) == 0.0
    assert log_relative_error(np.array([np.nan]), np.array([5.0])) == 0.0
    assert [digits(x) for x in (0.0, 1e-20, 1e-4, 3.0, np.inf)] == [15.0, 15.0, pytest.approx(4.0), 0.0, 0.0]


def test_gates_widen_with_the_condition_number_and_no_further_than_the_limit(policy):
    gate = policy.gate("at_theta", "fixef")
    assert policy.allowed(gate, 1.0) == gate.value == 1e-9
    assert policy.allowed(gate, 1e6) == pytest.approx(50 * 1e6 * 2.0**-52)
    assert policy.allowed(gate, np.inf) == policy.condition.limit
    assert policy.allowed(policy.gate("at_theta", "n_obs"), 1e12) == 0.0


def test_condition_number_ignores_the_units_of_the_columns(values, policy):
    def condition(unit):
        v = values()
        v["vcov_fixef"] = Value(v["vcov_fixef"].labels, v["vcov_fixef"].values * [1, unit, unit, unit**2])
        return scales(Results("theirs", "1", values=v), policy).condition

    assert condition(1e8) == pytest.approx(condition(1.0), rel=1e-9)
    r = 0.2 / np.sqrt(0.5)
    assert condition(1.0) == pytest.approx((1 + r) / (1 - r))


def test_a_row_of_leverage_near_one_costs_digits_of_influence_only(values, policy):
    v = values()

    def condition_of(largest):
        hat = Value(v["hatvalues"].labels, np.r_[largest, np.full(len(v["hatvalues"].labels) - 1, 0.2)])
        scale = scales(Results("theirs", "1", values={**v, "hatvalues": hat}), policy)
        return [
            scale.condition_of(REGISTRY[name])
            for name in ("cooks_distance_plugin", "rstudent_lme4", "hatvalues", "fixef", "resid_pearson")
        ]

    ordinary, near_one = condition_of(0.2), condition_of(1 - 1e-6)
    assert near_one[:2] == pytest.approx([1e6 * 0.8 * x for x in ordinary[:2]])
    assert near_one[2:] == ordinary[2:]
    assert condition_of(1.0)[0] == ordinary[0]  # a row that decides alone has no influence to compare


def test_a_level_that_takes_most_of_the_information_costs_digits_of_its_deletion_only(values, policy):
    v = values()

    def condition_of(covtrace):
        given = {"covtrace_marginal_group": Value(("g|a", "g|b"), [99.0, covtrace])}
        scale = scales(Results("theirs", "1", values={**v, **given}), policy)
        names = ("covratio_marginal_group", "covratio_marginal", "fixef")
        return [scale.condition_of(REGISTRY[name]) for name in names]

    ordinary, near_all = condition_of(0.0), condition_of(1e7)
    assert near_all[0] == pytest.approx(1e5 * ordinary[0], rel=1e-6)
    assert near_all[1:] == ordinary[1:]
    assert condition_of(np.nan) == ordinary  # a level without which beta is not determined


def test_a_mean_far_from_zero_costs_digits_once_it_exceeds_the_condition(values, policy):
    v = values()

    def condition_of(shift, weight):
        means, ones = v["fitted"].labels, np.ones(len(v["fitted"].labels))
        changed = {
            "fitted": Value(means, shift * ones), "resid_response": Value(means, 2.0 * ones),
            "resid_pearson": Value(means, 2.0 * weight**0.5 * ones), "sigma": scalar(0.5),
        }  # fmt: skip
        scale = scales(Results("theirs", "1", values={**v, **changed}), policy)
        return scale.condition_of(REGISTRY["fixef"])

    ordinary = condition_of(1e-6, 1.0)
    assert condition_of(1e5, 1.0) == pytest.approx(2e5)
    assert condition_of(1e5, 100.0) == pytest.approx(2e6)
    assert condition_of(0.1 * ordinary, 1.0) == ordinary >= 1.0
