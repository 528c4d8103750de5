"""The R side: equal numbers by both ways in, first principles against literal deletion, what R refuses."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from parity.engines.r_live import HLMDIAG, RLive, r_code_hash, request_of
from parity.engines.recorded import engines as recorded_engines
from parity.r.columns import r_column
from parity.r.script import RscriptWorkers
from parity.r.worker import RWorkers
from parity.resources import r_dir
from parity.schema.case import Case, frame, load_cases
from parity.schema.quantities import REGISTRY, of_kind

NAMES = of_kind("lmm")

CASES = {case.name: case for case in load_cases()}
MEASURES = ("cooks_distance_marginal", "mdffits_marginal", "covtrace_marginal", "covratio_marginal")


@pytest.fixture(scope="module")
def workers():
    with RWorkers(timeout=120) as workers:
        yield workers


@pytest.fixture(scope="module")
def lme4(workers):
    return RLive(workers=workers)


@pytest.fixture(scope="module")
def lme4_by_program():
    with RscriptWorkers(timeout=120) as program:
        yield RLive(workers=program)


def by_label(value):
    return dict(zip(value.labels, value.values.tolist(), strict=True))


def answer(workers, text, data, **more):
    """R's reply for a formula given as text, past our own parser."""
    request = {
        "columns": {name: r_column(data[name]) for name in data.columns},
        "row_labels": [str(i + 1) for i in range(len(data))],
        "formula": text, "reml": True, "how": "default", "quantities": ["criterion"], "source": "lme4",
    }  # fmt: skip
    return workers.call("answer", {"request": request | more})


def small_data(n=24):
    rng = np.random.default_rng(4)
    return pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": list("abcd") * (n // 4)})


# --- the registry ---------------------------------------------------------------------------------------


@pytest.mark.live
def test_each_quantity_of_the_registry_has_its_function_and_no_function_is_without_a_quantity(workers):
    covered = workers.call("covered_quantities").value
    named = {
        f"{source}.R::{name}"
        for source in ("quantities", "first_principles", "group_residuals", "deletion", "glm", "glmm")
        for name in covered[source]
    }
    assert {row.r_source for row in REGISTRY.values()} <= named
    assert {source.partition("::")[2] for source in named} == set(REGISTRY)
    for name in of_kind("glmm"):
        assert name in covered["glmm"] or name in covered["quantities"]
    assert set(covered["glm"]) == {*of_kind("lm"), *of_kind("glm")}
    assert set(covered["hlmdiag"]) == set(HLMDIAG)


@pytest.mark.live
@pytest.mark.parametrize(
    "name", ["sleepstudy_weights_offset_reml", "pastes_three_level_slope_reml", "dyestuff2_singular_ml"]
)
def test_labels_are_unique_and_of_the_kind_the_registry_says(lme4, name):
    results = lme4.run(CASES[name], NAMES)
    assert results.status == "ok"
    assert set(NAMES) - set(results.values) == {
        q for q, why in results.missing.items() if why.kind == "skipped"
    }
    assert all(REGISTRY[q].refits for q in results.missing)
    bars = {
        "scalar": 0, "coef": 0, "obs": 0, "x_cell": 1, "x_moment": 1, "coef_pair": 1, "level": 1,
        "level_row": 1, "level_effect": 2, "level_effect_pair": 3, "component": 0,
        "obs_coef": 1, "obs_coef_pair": 2, "obs_covariance": 3, "obs_component": 1,
        "level_coef": 2, "level_coef_pair": 3, "level_covariance": 4, "level_component": 2,
    }  # fmt: skip
    for quantity, value in results.values.items():
        assert len(set(value.labels)) == len(value.labels), quantity
        kind = REGISTRY[quantity].index
        if kind in bars:
            assert {label.count("|") for label in value.labels} == {bars[kind]}, quantity


# --- two ways in ------------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize(
    "name", ["sleepstudy_weights_offset_reml", "dyestuff2_singular_reml", "machines_nested_reml"]
)
def test_both_ways_of_running_r_agree_to_the_last_bit(lme4, lme4_by_program, name):
    other = lme4_by_program.run(CASES[name], NAMES)
    one = lme4.run(CASES[name], NAMES)
    assert (one.status, one.warnings, one.singular) == (other.status, other.warnings, other.singular)
    assert list(one.values) == list(other.values)
    for quantity in one.values:
        assert one.values[quantity].labels == other.values[quantity].labels
        assert one.values[quantity].values.tobytes() == other.values[quantity].values.tobytes(), quantity
    where = ("session", "lapack")  # paths, which depend on how R was started
    assert {k: v for k, v in one.provenance.items() if k not in where} == {
        k: v for k, v in other.provenance.items() if k not in where
    }


@pytest.mark.live
def test_provenance_tells_versions_and_the_hash_of_the_code(lme4):
    provenance = lme4.run(CASES["dyestuff_reml"], ["theta"]).provenance
    assert re.fullmatch(r"\d+\.\d+\.\d+", provenance["r"])
    assert provenance["packages"]["lme4"]
    assert provenance["code_sha256"] == r_code_hash()
    assert any("lme4" in line for line in provenance["session"])


# --- at a given theta -------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize(("theta", "published"), [(1.0, 319.792389042002), (0.0, 326.023232155879)])
def test_the_criterion_at_theta_is_the_one_that_lme4_tests_itself_with(lme4, theta, published):
    results = lme4.run(CASES["dyestuff_reml"], ["criterion", "theta"], theta=np.array([theta]))
    assert results.values["criterion"].values[0] == pytest.approx(published, abs=1e-11)
    assert results.theta.tolist() == [theta]


@pytest.mark.live
def test_a_theta_of_the_wrong_length_is_refused(lme4):
    results = lme4.run(CASES["dyestuff_reml"], ["criterion"], theta=np.array([1.0, 2.0]))
    assert (results.status, "1 finite numbers" in results.message) == ("refused", True)


@pytest.mark.live
@pytest.mark.parametrize(
    "name", ["sleepstudy_quadratic_ml", "orthodont_slope_reml", "penicillin_crossed_reml"]
)
def test_the_polished_optimum_is_never_worse_and_flat(lme4, name):
    polished = lme4.run(CASES[name], ["criterion", "theta"])
    default = lme4.run(CASES[name], ["criterion"], polish=False)
    best = polished.values["criterion"].values[0]
    assert best <= default.values["criterion"].values[0]
    assert min(polished.provenance["starts"].values()) >= best
    for i in range(len(polished.theta)):
        for step in (-1e-3, 1e-3):
            moved = polished.theta.copy()
            moved[i] += step
            assert lme4.run(CASES[name], ["criterion"], theta=moved).values["criterion"].values[0] > best
    assert polished.provenance["theta_repeat_distance"] < 1e-5


@pytest.mark.live
@pytest.mark.parametrize("name", ["machines_nested_reml", "sleepstudy_quadratic_ml", "dyestuff2_singular_ml"])
def test_the_polished_model_is_the_model_at_its_theta(lme4, name):
    """lme4's criterion carries state: an evaluation after the fit was made would show here."""
    polished = lme4.run(CASES[name], NAMES)
    again = lme4.run(CASES[name], NAMES, theta=polished.theta)
    for quantity, value in polished.values.items():
        np.testing.assert_array_equal(value.values, again.values[quantity].values, err_msg=quantity)


@pytest.mark.live
def test_a_search_goes_on_after_a_criterion_that_was_not_a_number():
    """lme4's stays NaN after one NaN: searches ended there, and the model made afterwards had NaN throughout."""
    with RWorkers(timeout=120, sources=[Path(__file__).with_name("misbehave.R")]) as workers:
        before, there, after = workers.call("criterion_around_nan").value
    assert before == after == pytest.approx(1773.68, abs=0.01)
    assert there == 1e100


@pytest.mark.live
@pytest.mark.parametrize("order", [(2, 1), (3, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("rank_one", [False, True])
def test_permuting_the_effects_of_a_term_permutes_its_covariance(workers, order, rank_one):
    k = len(order)
    rng = np.random.default_rng(8)
    L = np.tril(rng.normal(size=(k, k)))
    np.fill_diagonal(L, np.abs(np.diag(L)))
    if rank_one:
        L[:, 1:] = 0.0
    lower = np.tril_indices(k)
    by_column = np.lexsort((lower[0], lower[1]))
    theta = L[lower][by_column]
    arguments = {"theta": theta, "permutations": {"a": np.array(order, dtype=np.int32)}}
    moved = np.zeros((k, k))
    moved[lower[0][by_column], lower[1][by_column]] = workers.call("permute_theta", arguments).value
    index = np.array(order) - 1
    np.testing.assert_allclose(moved @ moved.T, (L @ L.T)[np.ix_(index, index)], atol=1e-14)
    assert (np.diag(moved) >= 0).all()


# --- first principles against their definitions -----------------------------------------------------------

MODELS = {
    "weights, offset, slope": ("sleepstudy_weights_offset_reml", [0.9, 0.3]),
    "slope, ML": ("sleepstudy_slope_ml", [1.1, -0.1, 0.2]),
    "crossed": ("penicillin_crossed_reml", [1.5, 3.0]),
    "nested": ("pastes_nested_ml", [3.5, 1.2]),
    "singular": ("sleepstudy_slope_reml", [0.9, 0.2, 0.0]),
    "no random part": ("dyestuff_reml", [0.0]),
    "no intercept": ("sleepstudy_no_intercept_reml", None),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, workers):
    """R's answers by both routes, and everything n x n, built here from the data alone."""
    name, theta = MODELS[request.param]
    case = CASES[name]
    if theta is None:
        theta = RLive(workers=workers).run(case, ["theta"]).theta
    theta = np.array(theta)
    routes = {
        route: RLive(workers=workers, route=route).run(case, NAMES, theta)
        for route in ("dense", "factor", "sparse")
    }
    return dense_model(case, frame(case), routes)


def dense_model(case, data, routes):
    values = routes["dense"].values
    n, p = int(values["n_obs"].values[0]), int(values["p_fixed"].values[0])
    X = values["x_matrix"].values.reshape(n, p)
    weights = np.ones(n) if case.weights is None else data[case.weights].to_numpy(float)
    offset = np.zeros(n) if case.offset is None else data[case.offset].to_numpy(float)
    y = values["y_response"].values
    G = sum(random_covariance(data, values, group) for group in groups(values))
    V = np.diag(1 / weights) + G
    Vinv = np.linalg.inv(V)
    beta = gls(X, V, y - offset)[0]
    r = y - offset - X @ beta
    sigma2 = r @ Vinv @ r / (n - (p if case.reml else 0))
    members = {label: np.flatnonzero(rows) for label, rows in level_rows(values, n).items()}
    return SimpleNamespace(
        routes=routes, n=n, p=p, X=X, y=y, offset=offset, weights=weights, G=G, V=sigma2 * V, sigma2=sigma2,
        r=r, beta=beta, C=gls(X, sigma2 * V, y - offset)[1], members=members,
        rows=values["y_response"].labels,
    )  # fmt: skip


def groups(values):
    return list(dict.fromkeys(label.split("|")[0] for label in values["z_rows"].labels))


def random_covariance(data, values, group):
    codes = np.array([x for label, x in by_label(values["z_rows"]).items() if label.startswith(f"{group}|")])
    same = codes[:, None] == codes
    G = np.zeros(same.shape)
    for label, value in by_label(values["lambda_crossprod"]).items():
        name, a, b = label.split("|")
        if name == group:
            G += same * np.outer(effect(data, a), effect(data, b)) * value
    return G


def effect(data, name):
    return np.ones(len(data)) if name == "(Intercept)" else data[name].to_numpy(float)


def level_rows(values, n):
    """Rows of each level, by the level's label: positions of z_rows matched with the levels of ranef."""
    levels = {}
    for label in values["ranef"].labels:
        group, level, _ = label.split("|")
        levels.setdefault(group, {}).setdefault(level, len(levels[group]))
    codes = by_label(values["z_rows"])
    rows = values["y_response"].labels
    return {
        f"{group}|{level}": np.array([codes[f"{group}|{row}"] == position for row in rows])
        for group, known in levels.items()
        for level, position in known.items()
    }


def gls(X, V, y):
    Vinv = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ Vinv @ X)
    return C @ X.T @ Vinv @ y, C


def literal_deletion(m, A):
    """The four measures by fitting again without the rows A, at the same V."""
    kept = np.setdiff1d(np.arange(m.n), A)
    beta, C = gls(m.X[kept], m.V[np.ix_(kept, kept)], (m.y - m.offset)[kept])
    change = m.beta - beta
    return {
        "cooks_distance_marginal": change @ np.linalg.solve(m.C, change) / m.p,
        "mdffits_marginal": change @ np.linalg.solve(C, change) / m.p,
        "covtrace_marginal": abs(np.trace(np.linalg.solve(m.C, C)) - m.p),
        "covratio_marginal": np.linalg.det(C) / np.linalg.det(m.C),
    }


def assert_scaled(got, want, tolerance, message):
    got, want = np.asarray(got, float), np.asarray(want, float)
    error = np.max(np.abs(got - want)) / max(np.max(np.abs(want)), 1e-300)
    assert error <= tolerance, f"{message}: {error:.2g} of the largest"


@pytest.mark.live
@pytest.mark.parametrize("route", ["dense", "factor"])
def test_row_deletion_is_a_fit_without_the_row(model, route):
    values = model.routes[route].values
    rows = np.unique(np.linspace(0, model.n - 1, 25).astype(int))
    literal = [literal_deletion(model, [i]) for i in rows]
    for name in MEASURES:
        assert values[name].labels == model.rows
        # the oracle's tr(C^-1 C_A) - p is a difference of numbers of order p, hence the absolute part
        want = np.array([deleted[name] for deleted in literal])
        np.testing.assert_allclose(values[name].values[rows], want, rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.live
@pytest.mark.parametrize("route", ["dense", "factor"])
def test_level_deletion_is_a_fit_without_the_rows_of_the_level(model, route):
    values = model.routes[route].values
    literal = {label: literal_deletion(model, A) for label, A in model.members.items()}
    for name in MEASURES:
        got = by_label(values[f"{name}_group"])
        assert set(got) == set(literal)
        assert_scaled([got[label] for label in literal], [d[name] for d in literal.values()], 1e-10, name)


@pytest.mark.live
@pytest.mark.parametrize("route", ["dense", "factor"])
def test_leverages_are_the_diagonals_of_their_matrices(model, route):
    values = model.routes[route].values
    Vinv = np.linalg.inv(model.V)
    H1 = model.X @ model.C @ model.X.T @ Vinv
    H2 = model.sigma2 * model.G @ Vinv @ (np.eye(model.n) - H1)
    want = {
        "overall": np.diag(H1 + H2),
        "fixef": np.diag(H1),
        "ranef": np.diag(H2),
        "ranef_uc": np.diag(model.G),
    }
    for part, diagonal in want.items():
        np.testing.assert_allclose(
            values[f"leverage_{part}"].values, diagonal, rtol=0, atol=1e-11, err_msg=part
        )
        means = {label: diagonal[A].mean() for label, A in model.members.items()}
        got = by_label(values[f"leverage_{part}_group"])
        assert got == pytest.approx(means, rel=0, abs=1e-11), part
    np.testing.assert_allclose(values["hatvalues"].values, want["overall"], rtol=0, atol=1e-11)


@pytest.mark.live
@pytest.mark.parametrize("route", ["dense", "factor"])
def test_residuals_are_standardised_by_their_covariances(model, route):
    m, values = model, model.routes[route].values
    Vinv = np.linalg.inv(m.V)
    P = Vinv - Vinv @ m.X @ m.C @ m.X.T @ Vinv
    R = np.diag(m.sigma2 / m.weights)
    e = R @ P @ (m.y - m.offset)
    want = {
        "resid_response": e,
        "resid_conditional_studentized": e / np.sqrt(np.diag(R @ P @ R)),
        "rstudent_lme4": e / np.sqrt(np.diag(R @ P @ R)),
        "resid_marginal": m.r,
        "fitted_marginal": m.X @ m.beta + m.offset,
        "resid_marginal_pearson": m.r / np.sqrt(np.diag(m.V)),
        "resid_marginal_studentized": m.r / np.sqrt(np.diag(m.V - m.X @ m.C @ m.X.T)),
        "resid_marginal_cholesky": np.linalg.solve(np.linalg.cholesky(m.V), m.r),
    }
    for name, expected in want.items():
        assert_scaled(values[name].values, expected, 1e-10, name)
    assert by_label(values["sigma"])[""] == pytest.approx(np.sqrt(m.sigma2), rel=1e-11)


@pytest.mark.live
def test_least_squares_residuals_come_from_a_fit_in_each_level(model):
    m, values = model, model.routes["dense"].values
    first = groups(values)[0]
    want = np.zeros(m.n)
    for label, A in m.members.items():
        if label.split("|")[0] != first:
            continue
        X, s = m.X[A], np.sqrt(m.weights[A])
        coef = np.linalg.lstsq(X * s[:, None], (m.y - m.offset)[A] * s)[0]
        want[A] = (m.y - m.offset)[A] - X @ coef
    np.testing.assert_allclose(values["resid_ls"].values, want, rtol=0, atol=1e-10 * np.ptp(m.y))
    np.testing.assert_allclose(values["fitted_ls"].values, m.y - want, rtol=1e-10)


@pytest.mark.live
def test_the_route_for_large_models_gives_what_it_can_and_skips_the_rest(model):
    dense, sparse = model.routes["dense"], model.routes["sparse"]
    there = {
        "fitted_marginal", "resid_marginal", "resid_marginal_pearson", "resid_marginal_studentized",
        "fitted_ls", "resid_ls", "leverage_fixef", "leverage_ranef_uc", "leverage_fixef_group",
        "leverage_ranef_uc_group",
    }  # fmt: skip
    own = {name for name in NAMES if REGISTRY[name].r_source.startswith("first_principles")}
    assert own & set(sparse.values) == there
    undefined = {name for name, why in sparse.missing.items() if why.kind == "undefined"}
    assert undefined == {name for name, why in dense.missing.items() if why.kind == "undefined"}
    assert {why.kind for name, why in sparse.missing.items() if name not in undefined} == {"skipped"}
    for name in there:
        assert sparse.values[name].labels == dense.values[name].labels
        assert_scaled(sparse.values[name].values, dense.values[name].values, 1e-10, name)


@pytest.mark.live
def test_rows_and_levels_without_which_beta_is_undetermined_are_nan(workers):
    data = small_data()
    data["own_row"] = (np.arange(len(data)) == 4).astype(float)
    data["own_level"] = (data["g"] == "b").astype(float)
    names = [*MEASURES, *(f"{name}_group" for name in MEASURES), "resid_conditional_studentized"]
    for route in ("dense", "factor"):
        reply = answer(
            workers, "y ~ x + own_row + own_level + (1 | g)", data, how="at_theta", theta=np.array([0.7]),
            quantities=names, workspace=route,
        )  # fmt: skip
        value = reply.value
        found = {name: dict(zip(value["label_sets"][int(q["labels"][0])], q["values"], strict=True))
                 for name, q in value["values"].items()}  # fmt: skip
        for name in (*MEASURES, "resid_conditional_studentized"):
            assert [row for row, x in found[name].items() if np.isnan(x)] == ["5"], name
        for name in MEASURES:
            assert [label for label, x in found[f"{name}_group"].items() if np.isnan(x)] == ["g|a", "g|b"], (
                name
            )
        assert any("row 5" in warning for warning in reply.warnings)


HLMDIAG_RECORDED = next(
    source for source in recorded_engines() if source.directory.name.startswith("hlmdiag")
)


@pytest.mark.live
def test_without_hlmdiag_its_quantities_are_unsupported_and_with_it_they_agree(workers, lme4):
    """Whichever this machine has; the recordings stand in where HLMdiag is absent."""
    installed = workers.call("installed_version", {"package": "HLMdiag"}).value != [None]
    case = CASES["pastes_nested_reml"]
    ours = lme4.run(case, [*HLMDIAG, "theta"])
    theirs = RLive("hlmdiag", workers=workers).run(case, [*HLMDIAG, "theta"], ours.theta)
    assert theirs.theta.tolist() == ours.theta.tolist()
    if not installed:
        assert {theirs.missing[name].message for name in HLMDIAG} == {"HLMdiag is not installed"}
        return
    for name in HLMDIAG:
        want = by_label(theirs.values[name])
        assert set(want) == set(ours.values[name].labels), name
        assert_scaled(
            [by_label(ours.values[name])[label] for label in want], list(want.values()), 1e-10, name
        )


@pytest.mark.live
@pytest.mark.parametrize(
    "name", sorted(path.name.partition(".")[0] for path in HLMDIAG_RECORDED.directory.glob("*.json*"))
)
def test_first_principles_equal_what_hlmdiag_said(lme4, name):
    """HLMdiag's own numbers, recorded; the worst seen is 5e-12 of the largest (covtrace, crossed model)."""
    recorded = HLMDIAG_RECORDED.run(CASES[name], NAMES)
    assert recorded.status == "ok"
    assert set(MEASURES) <= set(recorded.values)
    one_step = [
        quantity for quantity in recorded.values if not REGISTRY[quantity].refits
    ]  # refits: test_refits.py
    live = lme4.run(CASES[name], one_step, theta=recorded.theta)
    for quantity in one_step:
        value = recorded.values[quantity]
        want, got = by_label(value), by_label(live.values[quantity])
        assert set(got) == set(want), quantity
        defined = [label for label in want if not np.isnan(want[label])]
        assert defined, quantity
        assert_scaled([got[k] for k in defined], [want[k] for k in defined], 1e-11, quantity)


# --- what R refuses ---------------------------------------------------------------------------------------

CODE = [
    "y ~ system('touch MARK') + (1 | g)",
    "y ~ x + I(base::system('touch MARK')) + (1 | g)",
    "y ~ poly(x, {system('touch MARK'); 2}) + (1 | g)",
    "y ~ splines::ns(x, df = system('touch MARK')) + (1 | g)",
    "y ~ x + (1 | g); system('touch MARK')",
    "y ~ (function() system('touch MARK'))() + (1 | g)",
    "y ~ do.call('system', list('touch MARK')) + (1 | g)",
    "y ~ x + (1 | g) + offset(eval(parse(text = 'system(\"touch MARK\")')))",
    "system('touch MARK')",
    "y ~ MASS:::system('touch MARK') + (1 | g)",
    "y ~ x[system('touch MARK')] + (1 | g)",
    "y <- system('touch MARK')",
]


@pytest.mark.live
@pytest.mark.parametrize("text", CODE)
def test_code_in_a_formula_is_refused_and_not_run(workers, tmp_path, text):
    mark = tmp_path / "mark"
    reply = answer(workers, text.replace("MARK", str(mark)), small_data())
    assert reply.status == "ok"
    assert reply.value["status"] == ["refused"]
    assert "formula is refused" in reply.value["message"][0]
    assert not mark.exists()


@pytest.mark.live
@pytest.mark.parametrize(
    "text",
    [
        "y ~ poly(x, 2) + (x | g)",
        "y ~ splines::ns(x, df = 3) + I(x^2 > 0) + (1 | g)",
        "log(y + 10) ~ scale(x) * C(factor(g), contr.sum) + offset(x) + (0 + x | g)",
        "y ~ 0 + bs(x, degree = 2) + (1 | g) + (0 + x | g)",
        "y ~ x + (x || g)",
    ],
)
def test_the_language_of_formulas_is_not_refused(workers, text):
    reply = answer(workers, text, small_data(48))
    assert (reply.status, reply.value["status"]) == ("ok", ["ok"]), reply.value


@pytest.mark.live
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"formula": "y ~ nope + (1 | g)"}, "no column 'nope'"),
        ({"weights": "nope"}, "no column 'nope' (weights)"),
        ({"contrasts": {"g": "system"}}, "unknown contrasts 'system'"),
        ({"formula": "y ~ x + (1 | one)"}, "must have > 1 sampled level"),
        ({"formula": "y ~ x + (1 | each)"}, "must be < number of observations"),
    ],
)
def test_bad_models_are_refused_with_the_reason(workers, more, message):
    data = small_data().assign(one="a", each=[str(i) for i in range(24)])
    reply = answer(workers, "y ~ x + (1 | g)", data, **more)
    assert reply.value["status"] == ["refused"]
    assert message in reply.value["message"][0]


@pytest.mark.live
def test_models_out_of_scope_are_unsupported_not_refused(workers):
    data = small_data().assign(y=lambda d: np.round(np.exp(d.y)))
    sizes = answer(workers, "y ~ x + (1 | g)", data, family="negative.binomial", nagq=9.0)
    assert (sizes.value["status"], "size" in sizes.value["message"][0]) == (["unsupported"], True)
    assert answer(workers, "y ~ x + (1 | g)", data, family="quasipoisson").value["status"] == ["unsupported"]
    assert answer(workers, "y ~ x + cs(x | g)", small_data()).value["status"] == ["unsupported"]


@pytest.mark.live
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].expect == "refuse"])
def test_cases_to_refuse_are_refused(lme4, name):
    results = lme4.run(CASES[name], NAMES)
    assert results.status == "refused"
    assert results.message


# --- rows, levels, warnings -------------------------------------------------------------------------------


@pytest.mark.live
def test_rows_keep_their_numbers_through_a_subset_and_missing_values(lme4, workers):
    case = Case(name="part", data="sleepstudy", formula="Reaction ~ Days + (1 | Subject)", rows=(3, 60, 2))
    labels = lme4.run(case, ["fitted"]).values["fitted"].labels
    assert labels == tuple(str(i) for i in range(4, 61, 2))
    data = small_data()
    data.loc[[2, 7], "x"] = np.nan
    data.loc[11, "g"] = None
    reply = answer(workers, "y ~ x + (1 | g)", data, quantities=["y_response", "n_obs"])
    expected = [str(i + 1) for i in range(24) if i not in (2, 7, 11)]
    assert expected in reply.value["label_sets"]


@pytest.mark.live
def test_nested_levels_carry_lme4_names(lme4):
    values = lme4.run(CASES["pastes_nested_reml"], ["ranef", "cooks_distance_marginal_group"]).values
    assert values["ranef"].labels[:2] == ("cask:batch|a:A|(Intercept)", "cask:batch|a:B|(Intercept)")
    assert "batch|A" in values["cooks_distance_marginal_group"].labels


@pytest.mark.live
@pytest.mark.parametrize("polish", [True, False])
def test_a_singular_fit_says_so(lme4, polish):
    results = lme4.run(CASES["dyestuff2_singular_reml"], ["theta"], polish=polish)
    assert (results.status, results.singular, results.converged) == ("ok", True, True)
    assert results.theta.tolist() == [0.0]
    assert any("boundary (singular) fit" in said for said in results.warnings)


@pytest.mark.live
def test_a_dropped_column_and_a_fit_that_did_not_converge_are_told(workers, lme4):
    data = small_data().assign(twice=lambda d: 2 * d.x)
    reply = answer(workers, "y ~ x + twice + (1 | g)", data)
    assert any("rank deficient" in said for said in reply.messages)
    results = lme4.run(CASES["sleepstudy_quadratic_ml"], ["theta"], polish=False)
    assert results.converged is False
    assert any("failed to converge" in said for said in results.warnings)


@pytest.mark.live
def test_what_is_too_large_is_skipped_with_a_reason(lme4):
    results = lme4.run(CASES["hsb82_intercept_ml"], ["x_matrix", "n_obs"])
    assert results.missing["x_matrix"].kind == "skipped"
    assert "cells" in results.missing["x_matrix"].message
    assert by_label(results.values["n_obs"]) == {"": 7185.0}


@pytest.mark.live
def test_a_crash_costs_one_case_only(tmp_path):
    crash = tmp_path / "crash.R"
    crash.write_text("answer <- function(request) tools::pskill(Sys.getpid(), 11L)\n")
    with RWorkers(timeout=60, sources=[crash]) as workers:
        results = RLive(workers=workers).run(CASES["dyestuff_reml"], ["theta"])
        assert (results.status, "SIGSEGV" in results.message) == ("crashed", True)
        assert workers.call("provenance").status == "ok"


# --- what can be known without R ----------------------------------------------------------------------------


def test_a_request_carries_the_columns_that_are_used_and_a_rebuilt_formula():
    case = Case(
        name="a",
        data="sleepstudy",
        formula="Reaction~Days+( Days|Subject )",
        weights="w",
        columns={"w": (1.0, 2.0)},
    )
    request = request_of(case)
    assert list(request["columns"]) == ["Reaction", "Days", "Subject", "w"]
    assert request["formula"] == "Reaction ~ Days + (Days | Subject)"
    assert request["weights"] == "w"
    assert "offset" not in request


def test_r_sources_attach_no_package():
    for path in r_dir().glob("*.R"):
        code = [line.partition("#")[0] for line in path.read_text().splitlines()]
        assert not any(re.search(r"(?<![.\w])(library|require|attach)\(", line) for line in code), path.name
