"""Exact deletion in R: refits against plain lmer on the rows left, lme4's influence(), and the recordings."""

from pathlib import Path

import numpy as np
import pytest

from parity.engines.mmcore.engine import MmcoreEngine
from parity.engines.r_live import RLive, request_of
from parity.engines.recorded import engines as recorded_engines
from parity.r.worker import RWorkers
from parity.schema.case import Case, load_cases
from parity.schema.policy import default_policy
from parity.schema.quantities import REGISTRY, of_kind

NAMES = of_kind("lmm")

HERE = Path(__file__).resolve().parent
CASES = {case.name: case for case in load_cases()}
REFITS = [name for name in NAMES if REGISTRY[name].refits]
HLMDIAG = next(source for source in recorded_engines() if source.directory.name.startswith("hlmdiag"))
WITH_REFITS = sorted(
    name for name in CASES
    if "deletion_fixef_group" in HLMDIAG.run(CASES[name], ["deletion_fixef_group"]).values
)  # fmt: skip


@pytest.fixture(scope="module")
def workers():
    with RWorkers(timeout=300, sources=[HERE / "refits.R"]) as workers:
        yield workers


def by_label(value):
    return dict(zip(value.labels, value.values.tolist(), strict=True))


def part(value, unit):
    """The numbers of one unit, in order."""
    return [x for label, x in by_label(value).items() if label == unit or label.startswith(f"{unit}|")]


# --- in R -------------------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "group", "level"),
    [
        ("sleepstudy_slope_reml", "Subject", "309"),
        ("sleepstudy_slope_ml", "Subject", "370"),
        ("sleepstudy_weights_offset_reml", "Subject", "308"),
        ("sleepstudy_doublebar_reml", "Subject", "335"),
        ("penicillin_crossed_ml", "sample", "B"),
        ("machines_contrasts_ml", "Worker", "6"),
        ("dyestuff_ml", None, "17"),
        ("dyestuff_reml", "Batch", "E"),
    ],
)
def test_a_refit_is_lmer_on_the_rows_left(workers, name, group, level):
    """REML or ML, weights, offset and coding are kept; `lmer` reads the data anew."""
    case = CASES[name]
    suffix = "" if group is None else "_group"
    asked = [f"deletion_{x}{suffix}" for x in ("criterion", "fixef", "vcov_fixef", "sigma")]
    ours = RLive(workers=workers, refits=4000).run(case, [*asked, "se_fixef"])
    assert ours.status == "ok" and set(asked) <= set(ours.values), ours.missing
    reply = workers.call(
        "refit_literally", {"request": request_of(case), "unit": level, **({"group": group} if group else {})}
    )
    assert reply.status == "ok", reply.message
    unit = level if group is None else f"{group}|{level}"
    criterion, fixef, vcov, sigma = (part(ours.values[name], unit) for name in asked)
    np.testing.assert_allclose(criterion, reply.value["criterion"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        fixef, reply.value["fixef"], rtol=0, atol=1e-6 * max(ours.values["se_fixef"].values)
    )
    np.testing.assert_allclose(vcov, reply.value["vcov"], rtol=0, atol=2e-6 * np.max(np.abs(vcov)))
    np.testing.assert_allclose(sigma, reply.value["sigma"], rtol=1e-6)


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "group"), [("sleepstudy_slope_reml", "Subject"), ("sleepstudy_weights_reml", "Subject")]
)
def test_lme4_influence_gives_the_same_within_its_noise(workers, name, group):
    """lme4 stops at its default tolerance in each refit; signs and scales are what is tested. (Its dfbetas
    fails for models of one coefficient.)"""
    names = ("dfbeta_lme4_group", "dfbetas_lme4_group", "cooks_distance_influence_lme4_group")
    ours = RLive(workers=workers).run(CASES[name], names)
    reply = workers.call("lme4_influence", {"request": request_of(CASES[name]), "group": group})
    assert reply.status == "ok", reply.message
    said = reply.value
    for quantity, key in zip(names[:2], ("dfbeta", "dfbetas"), strict=True):
        table = np.asarray(said[key]).reshape(len(said["names"]), len(said["units"]))
        got = by_label(ours.values[quantity])
        want = {
            f"{group}|{unit}|{coef}": table[j, i]
            for i, unit in enumerate(said["units"])
            for j, coef in enumerate(said["names"])
        }
        assert set(got) == set(want)
        scale = max(map(abs, want.values()))
        assert max(abs(got[k] - want[k]) for k in want) < 2e-3 * scale
    got = by_label(ours.values[names[2]])
    want = dict(zip((f"{group}|{unit}" for unit in said["units"]), said["cooks"], strict=True))
    assert max(abs(got[k] - want[k]) for k in want) < 2e-3 * max(want.values())


@pytest.mark.live
@pytest.mark.parametrize("first", ["ranef", "fitted", "condvar", "criterion", "ranef_std_lme4"])
def test_refits_leave_the_full_fit_as_it_was(workers, first):
    """lme4's objects share memory: refits once wrote into the full fit's Lambda."""
    request = {**request_of(CASES["sleepstudy_slope_reml"]), "how": "polished", "source": "lme4"}
    arguments = {"request": request, "first": first, "then": ["cooks_distance_refit_group", "rvc_group"]}
    reply = workers.call("order_of_asking", arguments)
    assert reply.status == "ok", reply.message
    np.testing.assert_array_equal(reply.value["alone"], reply.value["after"])


@pytest.mark.live
def test_more_refits_than_the_limit_are_skipped_and_can_be_asked_for(workers):
    case = CASES["sleepstudy_intercept_reml"]
    names = ["cooks_distance_refit", "cooks_distance_refit_group"]
    few = RLive(workers=workers).run(case, names)
    assert set(few.values) == {"cooks_distance_refit_group"}
    assert few.missing["cooks_distance_refit"].kind == "skipped"
    assert "180 refits" in few.missing["cooks_distance_refit"].message
    part = Case(name="part", data="sleepstudy", formula=case.formula, rows=(0, 60, 1))
    every = RLive(workers=workers, refits=7500).run(part, names)
    assert len(every.values["cooks_distance_refit"].labels) == 60


@pytest.mark.live
def test_rows_that_determine_a_coefficient_alone_are_nan_and_told(workers):
    case = Case(
        name="lonely", data="Dyestuff", formula="Yield ~ lone + (1 | Batch)",
        columns={"lone": (1.0, *[0.0] * 29)},
    )  # fmt: skip
    results = RLive(workers=workers, refits=4000).run(case, ["deletion_fixef", "cooks_distance_refit"])
    fixef = by_label(results.values["deletion_fixef"])
    assert [label for label, x in fixef.items() if np.isnan(x)] == ["1|lone"]
    cooks = by_label(results.values["cooks_distance_refit"])
    assert [label for label, x in cooks.items() if np.isnan(x)] == ["1"]
    ours = MmcoreEngine().run(case, ["deletion_fixef", "cooks_distance_refit"])
    assert np.isnan(by_label(ours.values["deletion_fixef"])["1|lone"])
    assert np.isnan(by_label(ours.values["cooks_distance_refit"])["1"])


# --- recordings -------------------------------------------------------------------------------------------


def test_there_are_recorded_refits():
    assert len(WITH_REFITS) == 10


@pytest.mark.parametrize("name", WITH_REFITS)
def test_measures_of_recorded_refits_are_those_of_mmcore(name):
    """Cook's distance, MDFFITS, COVTRACE, COVRATIO formed here from recorded estimates of each refit."""
    recorded = HLMDIAG.run(CASES[name], NAMES)
    ours = MmcoreEngine().run(CASES[name], [q for q in REFITS if q.endswith("_group")], recorded.theta)
    beta, names = recorded.values["fixef"].values, recorded.values["fixef"].labels
    p = len(names)
    C = recorded.values["vcov_fixef"].values.reshape(p, p)
    fixef, vcov = (by_label(recorded.values[f"deletion_{x}_group"]) for x in ("fixef", "vcov_fixef"))
    units = list(recorded.values["deletion_sigma_group"].labels)
    want = {"cooks_distance_refit": [], "mdffits_refit": [], "covtrace_refit": [], "covratio_refit": []}
    for unit in units:
        d = beta - [fixef[f"{unit}|{a}"] for a in names]
        C_i = np.array([[vcov[f"{unit}|{a}|{b}"] for b in names] for a in names])
        want["cooks_distance_refit"].append(d @ np.linalg.solve(C, d) / p)
        want["mdffits_refit"].append(d @ np.linalg.solve(C_i, d) / p)
        want["covtrace_refit"].append(abs(np.trace(np.linalg.solve(C, C_i)) - p))
        want["covratio_refit"].append(np.linalg.det(C_i) / np.linalg.det(C))
    for quantity, values in want.items():
        got = by_label(ours.values[f"{quantity}_group"])
        error = np.abs(np.array([got[unit] for unit in units]) - values)
        # a recorded covariance is right to 1e-6 of itself, which for COVTRACE counts against p
        scale = p if quantity == "covtrace_refit" else np.max(values)
        assert error.max() < 3e-6 * scale, (quantity, units[int(error.argmax())])


def test_the_gate_for_refits_is_1e_6_at_the_same_theta():
    policy = default_policy()
    assert {policy.gate("at_theta", name).value for name in REFITS} == {1e-6}
