"""Exact deletion against the same model fitted to ``data.drop(rows)`` from scratch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.diagnostics.deletion import batched
from mmcore.diagnostics.deletion import case_delete as deletion
from tests.dense_influence import levels_of, sets_of
from tests.models import frame

# deletions of small models do end at zero variances; that is part of what is compared
pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")

FORMULAS = {
    "intercept": ("y ~ x + z + (1 | g)", {}),
    "slope": ("y ~ x + (x | g)", {}),
    "ml": ("y ~ x + (x | g)", {"reml": False}),
    "three effects": ("y ~ x + z + (x + z | g)", {}),
    "double bar": ("y ~ x + (x || g)", {"reml": False}),
    "slope far from its origin": ("y ~ I(x + 30) + (I(x + 30) | g)", {}),
    "crossed, far": ("y ~ I(x + 30) + (I(x + 30) | g) + (1 | h)", {"weights": "w"}),
    "weights and offset": ("y ~ x + z + (1 | g)", {"weights": "w", "offset": "off"}),
    "weighted slope": ("y ~ x + (x | g)", {"weights": "w", "contrasts": None}),
    "one coefficient": ("y ~ 1 + (1 | g)", {}),
    "no fixed effects": ("y ~ 0 + (1 | g)", {}),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", {}),
    "crossed ml": ("y ~ x + (x | g) + (1 | h)", {"weights": "w", "offset": "off", "reml": False}),
    "nested": ("y ~ x + (1 | cask) + (1 | batch)", {}),
    "known sigma": ("y ~ x + (1 | g)", {"sigma": 1.1}),
    "compound symmetry": ("y ~ x + cs(1 + x | g)", {}),
}


def data_of(formula, n=90, groups=9, seed=5):
    """Data with variances well away from zero for the factors that the formula has."""
    data = frame(n, groups, seed)
    rng = np.random.default_rng(seed)
    y = 20 + data.x - 0.5 * data.z + rng.normal(size=n)
    for factor in ("g", "h", "batch", "cask"):
        levels = data[factor].unique()
        effects = 1.5 * rng.normal(size=(2, len(levels)))
        if f"| {factor})" in formula:
            y += data[factor].map(dict(zip(levels, effects[0], strict=True)))
        if any(f"{slope} {factor})" in formula for slope in ("x |", "z |", "x ||", "30) |")):
            y += data.x * data[factor].map(dict(zip(levels, effects[1], strict=True)))
    return data.assign(y=y)


def fitted(name, **kwargs):
    formula, options = FORMULAS[name]
    data = data_of(formula, **kwargs)
    return data, mm.lmer(formula, data, **options), lambda d: mm.lmer(formula, d, **options)


def same(case, i, fit, cold, tol=1e-6):
    """Estimate i of a family of deletions equals a fit from scratch."""
    assert case.criterion.iloc[i] <= cold.criterion + 1e-7
    if case.criterion.iloc[i] < cold.criterion - 1e-7:
        return  # from scratch ended in a worse optimum
    se = np.sqrt(np.diag(cold.vcov)) if len(cold.beta) else 1.0
    assert_allclose((case.fixef.iloc[i] - cold.fixef) / se, 0, atol=tol)
    assert_allclose(
        case.vcov[i], cold.vcov, rtol=0, atol=20 * tol * np.abs(cold.vcov.to_numpy()).max(initial=0)
    )
    assert_allclose(case.sigma.iloc[i], cold.sigma, rtol=tol)
    Sigma = [L @ L.T for L in cold.Lambda]
    full = case.varcomp.iloc[i] / cold.sigma**2
    parts = mm.varcomp(cold) / cold.sigma**2
    assert_allclose(full, parts, rtol=0, atol=20 * tol * max(1, max(np.abs(s).max() for s in Sigma)))
    assert list(full.index) == list(parts.index)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_level_and_rows_equal_fits_from_scratch(name):
    data, fit, again = fitted(name)
    for level in levels_of(fit):
        case = mm.case_delete(fit, level)
        labels, sets = sets_of(fit, level)
        assert list(case.fixef.index) == labels == list(case.status.index)
        assert case.status.converged.all() and case.status.determined.all()
        step = 11 if level == 1 else 2
        for i in range(0, len(sets), step):
            same(case, i, fit, again(data.drop(data.index[sets[i]])))


@pytest.mark.parametrize("name", ["slope", "crossed", "nested"])
def test_sets_of_rows_and_of_levels(name):
    data, fit, again = fitted(name)
    rows = list(data.index[[1, 2, 30, 31, 60]])
    case = mm.case_delete(fit, delete={"rows": rows, "one": rows[:1]})
    assert list(case.fixef.index) == ["rows", "one"]
    same(case, 0, fit, again(data.drop(rows)))
    same(case, 1, fit, again(data.drop(rows[:1])))
    group = fit.design.terms[-1].group
    levels = list(data[group].unique()[: 1 if group == "batch" else 2])
    same(mm.case_delete(fit, group, delete=levels), 0, fit, again(data[~data[group].isin(levels)]))


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + (1 | g) + (1 | h)", {}),
        ("y ~ x + (x | g) + (1 | h)", {"weights": "w", "reml": False}),
        ("y ~ x + (1 | cask) + (1 | batch)", {"weights": "w", "offset": "off"}),
        ("y ~ x + (1 | g)", {"sigma": 1.0}),
    ],
)
def test_expanded_rows_equal_fits_from_scratch(monkeypatch, formula, options):
    """Rows of crossed and nested models: shared points, checked by refits; error estimates hold."""
    monkeypatch.setattr(deletion, "can_batch", lambda fit, u: False)
    monkeypatch.setattr(deletion, "EACH", 0)
    data = data_of(formula, 900, 70, 3)
    fit = mm.lmer(formula, data, **options)
    case = mm.case_delete(fit)
    status = case.status
    assert (status.theta_error <= deletion.TOLERANCE).all() and status.converged.all()
    assert (status.theta_error > 0).sum() > 100  # most were expanded, not refitted
    moved = np.abs(case.theta.to_numpy() - fit.theta.to_numpy()).max(axis=1)
    expanded = np.flatnonzero(status.theta_error > 0)
    worst = expanded[np.argsort(-moved[expanded])[:6]]
    for i in [*worst, *expanded[::120]]:
        same(case, i, fit, mm.lmer(formula, data.drop(data.index[i]), **options), tol=5e-6)


def test_batched_chunks_and_careful_refits_agree(monkeypatch):
    _, fit, _ = fitted("weighted slope")
    whole = mm.case_delete(fit)
    monkeypatch.setattr(batched, "CACHE", 3000)
    small = mm.case_delete(fit)
    monkeypatch.setattr(deletion, "can_batch", lambda fit, u: False)
    each = mm.case_delete(fit)
    for other in (small, each):
        assert_allclose(other.theta, whole.theta, atol=1e-7)
        assert_allclose(other.vcov, whole.vcov, rtol=1e-6)
        assert_allclose(other.criterion, whole.criterion, atol=1e-9)


def test_measures_are_their_definitions():
    _, fit, _ = fitted("slope")
    case = mm.case_delete(fit, "g")
    C, p = fit.vcov.to_numpy(), fit.design.p
    for i, label in enumerate(case.fixef.index):
        d, C_i = fit.beta - case.fixef.loc[label].to_numpy(), case.vcov[i]
        assert_allclose(case.cooks_distance()[label], d @ np.linalg.solve(C, d) / p, rtol=1e-10)
        assert_allclose(case.mdffits()[label], d @ np.linalg.solve(C_i, d) / p, rtol=1e-10)
        assert_allclose(case.covtrace()[label], abs(np.trace(np.linalg.solve(C, C_i)) - p), rtol=1e-8)
        assert_allclose(case.covratio()[label], np.linalg.det(C_i) / np.linalg.det(C), rtol=1e-10)
        assert_allclose(case.dfbeta().loc[label], d)
    assert_allclose(case.rvc(), case.varcomp / mm.varcomp(fit) - 1)
    assert_allclose(mm.rvc(fit, "g"), case.rvc())
    assert_allclose(mm.cooks_distance(fit, "g", kind="refit"), case.cooks_distance())
    for function in (mm.mdffits, mm.covtrace, mm.covratio):
        assert_allclose(function(fit, "g", refit=True), getattr(case, function.__name__)())
    table = mm.hlm_influence(fit, "g", approx=False)
    assert list(table.columns) == [
        "cooksd", "mdffits", "covtrace", "covratio", "rvc.sigma2", "rvc.D11", "rvc.D21", "rvc.D22",
        "leverage.overall",
    ]  # fmt: skip
    assert_allclose(table.covratio, case.covratio())
    assert_allclose(table["rvc.D21"], case.rvc().D21)
    rows = mm.hlm_influence(fit, approx=False)
    assert_allclose(rows.cooksd, mm.case_delete(fit).cooks_distance())


def test_lme4_influence_has_its_own_signs_and_scales():
    _, fit, _ = fitted("slope")
    for groups in (None, "g"):
        inf, case = mm.influence(fit, groups), mm.case_delete(fit, groups or 1)
        K, p = len(case.units), fit.design.p
        assert_allclose(inf.dfbeta, case.fixef - fit.fixef)
        se = np.sqrt(np.array([np.diag(v) for v in case.vcov]))
        assert_allclose(inf.dfbetas, (case.fixef - fit.fixef) / se)
        assert_allclose(inf.cooks_distance, case.cooks_distance() * (K - p) / K)
        assert_allclose(inf.varcomp, case.varcomp - mm.varcomp(fit))


def test_one_set_gives_numbers():
    data, fit, _ = fitted("slope")
    case = mm.case_delete(fit, delete=data.index[3])
    row = mm.case_delete(fit)
    assert isinstance(case.cooks_distance(), float)
    assert_allclose(case.cooks_distance(), row.cooks_distance().iloc[3], rtol=1e-6)
    assert_allclose(case.rvc(), row.rvc().iloc[3], atol=1e-7)
    table = mm.hlm_influence(fit, delete=data.index[3], approx=False)
    assert_allclose(table.covtrace.item(), row.covtrace().iloc[3], rtol=1e-6)


def test_lm_refits_estimate_sigma_anew():
    data = frame()
    fit = mm.lm("y ~ x + z", data, weights="w")
    case = mm.case_delete(fit)
    for i in (0, 17, 42):
        cold = mm.lm("y ~ x + z", data.drop(data.index[i]), weights="w")
        assert_allclose(case.fixef.iloc[i], cold.fixef, rtol=1e-9)
        assert_allclose(case.sigma.iloc[i], cold.sigma, rtol=1e-10)
        assert_allclose(case.vcov[i], cold.vcov, rtol=1e-9)
        assert_allclose(case.criterion.iloc[i], cold.criterion, rtol=1e-10)
    assert_allclose(case.cooks_distance(), mm.cooks_distance(fit))
    assert list(case.varcomp.columns) == ["sigma2"]


def test_a_row_that_carries_a_column_leaves_its_coefficient_undetermined():
    for formula in ("y ~ x + only + (1 | g)", "y ~ x + only + (1 | g) + (1 | h)"):
        data = data_of(formula).assign(only=0.0)
        data.iloc[5, data.columns.get_loc("only")] = 1.0
        fit = mm.lmer(formula, data)
        with pytest.warns(mm.MixedModelWarning, match=f"1 of 90 refits do not determine .*{data.index[5]}"):
            case = mm.case_delete(fit)
        assert not case.status.determined.iloc[5] and case.status.determined.sum() == 89
        cold = mm.lmer(formula.replace(" + only", ""), data.drop(data.index[5]))
        assert np.isnan(case.fixef["only"].iloc[5])
        assert_allclose(case.fixef[["(Intercept)", "x"]].iloc[5], cold.fixef, rtol=1e-6)
        assert_allclose(case.criterion.iloc[5], cold.criterion, rtol=1e-9)
        assert np.isnan(case.cooks_distance().iloc[5]) and np.isnan(case.covratio().iloc[5])


def test_lost_levels_are_said():
    data = data_of("y ~ x + (1 | cask) + (1 | batch)")
    data.loc[data.index[0], ["cask", "batch"]] = ["alone", "b0"]
    fit = mm.lmer("y ~ x + (1 | cask) + (1 | batch)", data)
    rows = mm.case_delete(fit).status.lost
    assert rows.iloc[0] == "cask: alone" and (rows.iloc[1:] == "").sum() >= 80
    batches = mm.case_delete(fit, "batch").status.lost
    casks = data[data.batch == "b0"].cask.unique()
    assert batches["b0"] == "cask: " + ", ".join(sorted(casks)) or set(
        batches["b0"].removeprefix("cask: ").split(", ")
    ) == set(casks)
    sets = mm.case_delete(fit, delete={"a": data.index[:1], "b": data.index[:2]}).status.lost
    assert list(sets) == ["cask: alone", "cask: alone"]
    two = data[data.batch != "b2"]
    left = mm.case_delete(mm.lmer("y ~ x + (1 | cask) + (1 | batch)", two), "batch").status.lost
    assert left.str.endswith("batch has one level left").all()


def test_singular_refits_are_flagged_and_their_variance_change_is_minus_one():
    data = mm.load_dataset("Pastes")
    fit = mm.lmer("strength ~ 1 + (1 | batch/cask)", data)
    case = mm.case_delete(fit, "batch")
    assert list(case.status.index[case.status.singular]) == ["E"]
    assert case.rvc().D22["E"] == -1.0
    flat = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert flat.is_singular
    change = mm.rvc(flat)
    assert change.D11.isna().all() or np.isinf(change.D11[~change.D11.isna()]).all()
    assert np.isfinite(change.sigma2).all()


class Recorder:
    """A client in the manner of Dask: map gives futures, gather their results."""

    def __init__(self):
        self.tasks = 0

    def map(self, function, tasks):
        self.tasks += len(tasks)
        return [(function, task) for task in tasks]

    def gather(self, futures):
        return [function(task) for function, task in futures]


def test_executors_and_progress(capsys):
    _, fit, _ = fitted("crossed")
    here = mm.case_delete(fit, "g", progress=True)
    assert "9/9 refits" in capsys.readouterr().err
    client = Recorder()
    assert_allclose(mm.case_delete(fit, "g", executor=client).theta, here.theta, atol=1e-12)
    assert client.tasks == 9
    with ThreadPoolExecutor(2) as pool:
        assert_allclose(mm.case_delete(fit, "g", executor=pool).theta, here.theta, atol=1e-12)
    assert_allclose(mm.case_delete(fit, "g", executor="threading").theta, here.theta, atol=1e-12)
    with pytest.raises(mm.UnsupportedError, match="executor=3"):
        mm.case_delete(fit, "g", executor=3)
    assert capsys.readouterr().err == ""


def test_excluded_rows_are_there_as_missing():
    data = data_of("y ~ x + (1 | g)")
    data.loc[data.index[[4, 20]], "x"] = np.nan
    case = mm.case_delete(mm.lmer("y ~ x + (1 | g)", data, na_action="exclude"))
    for table in (case.fixef, case.rvc(), case.cooks_distance(), case.status):
        assert list(table.index) == list(data.index)
    assert case.fixef.iloc[4].isna().all() and case.cooks_distance().isna().sum() == 2


def test_variance_components_have_positions():
    fit = mm.lmer("y ~ x + (x || g) + (1 | h)", data_of("y ~ x + (x || g) + (1 | h)"))
    assert list(mm.varcomp(fit).index) == ["sigma2", "D11", "D22", "D33"]
    fit = fitted("slope")[1]
    assert list(mm.varcomp(fit).index) == ["sigma2", "D11", "D21", "D22"]
    cov = fit.varcorr["g"].cov
    assert_allclose(mm.varcomp(fit), [fit.sigma**2, cov[0, 0], cov[1, 0], cov[1, 1]])
    assert isinstance(mm.varcomp(fit), pd.Series)


DRAWN = ["intercept", "slope", "ml", "weights and offset", "double bar", "crossed", "nested"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(DRAWN), st.integers(0, 10_000), st.sampled_from(["row", "group", "set"]), st.data())
def test_any_deletion_of_any_model_equals_a_fit_from_scratch(name, seed, kind, data):
    frame_, fit, again = fitted(name, seed=seed)
    if kind == "group":
        level = fit.design.terms[0].group
        label = data.draw(st.sampled_from(sorted(frame_[level].unique())))
        case = mm.case_delete(fit, level)
        i, rest = list(case.fixef.index).index(label), frame_[frame_[level] != label]
    else:
        size = 1 if kind == "row" else 7
        rows = data.draw(st.lists(st.integers(0, len(frame_) - 1), min_size=1, max_size=size, unique=True))
        labels = frame_.index[rows]
        case = mm.case_delete(fit, delete={"drawn": labels})
        i, rest = 0, frame_.drop(labels)
    assert case.status.converged.iloc[i]
    same(case, i, fit, again(rest), tol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["intercept", "slope", "crossed"]), st.integers(0, 10_000), st.integers(0, 89))
def test_a_row_of_negligible_weight_is_missed_by_nothing(name, seed, row):
    """With a known sigma; an estimated one would change by the degree of freedom that the row counts for."""
    formula = FORMULAS[name][0]
    data = data_of(formula, seed=seed).assign(w=1.0)
    data.iloc[row, data.columns.get_loc("w")] = 1e-12
    fit = mm.lmer(formula, data, weights="w", sigma=1.0)
    case = mm.case_delete(fit, delete=data.index[row])
    assert_allclose(case.fixef.iloc[0], fit.fixef, rtol=1e-6, atol=1e-7)
    assert_allclose(case.varcomp.iloc[0], mm.varcomp(fit), rtol=1e-5, atol=1e-6)
    assert case.cooks_distance() < 1e-10
    assert_allclose(case.covratio(), 1.0, rtol=1e-5)


def test_rows_of_a_singular_fit():
    """A variance of exactly zero stays there where its curvature is positive, and leaves where it is not."""
    data = data_of("y ~ x + (1 | g)", n=120)
    fit = mm.lmer("y ~ x + (x | g)", data)
    assert fit.is_singular
    case = mm.case_delete(fit)
    for i in range(0, 120, 10):
        same(case, i, fit, mm.lmer("y ~ x + (x | g)", data.drop(data.index[i])), tol=1e-5)
