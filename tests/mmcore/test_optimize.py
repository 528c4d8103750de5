"""The optimizer: never above the best of several starts of another method; boundaries, saddles, starts, errors."""

import os
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore import kernels
from mmcore.design.build import build
from mmcore.errors import FitError
from mmcore.kernels import Likelihood
from mmcore.lmm.criterion import criterion_for
from mmcore.lmm.start import start_covariance
from mmcore.optimize.newton import minimize

GAP = 1e-6  # units of deviance

BARS = {
    "intercept": "(1 | g)",
    "slope": "(x | g)",
    "three effects": "(x + z | g)",
    "double bar": "(x + z || g)",
    "crossed": "(1 | g) + (1 | h)",
    "crossed slopes": "(x | g) + (z | h)",
    "nested": "(1 | u / g)",
    "nested slopes": "(x | u / g)",
    "slope and factor": "(x | g) + (1 | h)",
}


def random_data(seed, singular):
    """Groups g in u, crossed with h; effects of very different sizes, some absent, some perfectly correlated."""
    rng = np.random.default_rng(seed)
    L, per = int(rng.integers(5, 25)), int(rng.integers(4, 9))
    n = L * per
    g = np.repeat(np.arange(L), per) if rng.random() < 0.4 else rng.integers(0, L, n)
    h, u = rng.integers(0, 7, n), rng.integers(0, max(3, L // 4), L)[g]
    x, z = rng.normal(size=n) * rng.choice([1.0, 10.0]) + rng.choice([0.0, 50.0]), rng.normal(size=n)
    y = 1.0 + 0.5 * x + rng.normal(size=n)
    for codes, columns in ((g, (np.ones(n), x, z)), (h, (np.ones(n), z)), (u, (np.ones(n), x))):
        k = len(columns)
        A = rng.normal(size=(k, k)) * rng.choice([0.1, 0.3, 1.0, 3.0], size=(k, 1))
        if singular and rng.random() < 0.7:
            A[:, rng.integers(0, k) :] = 0.0
        b = rng.normal(size=(codes.max() + 1, k)) @ A.T
        y += np.sum(np.column_stack(columns) * b[codes], axis=1)
    labels = {name: [f"{name}{c}" for c in codes] for name, codes in (("g", g), ("h", h), ("u", u))}
    return pd.DataFrame({"y": y, "x": x, "z": z, **labels}), rng


def best_of_bfgs(fn, starts):
    """Least value over BFGS runs of SciPy with the exact gradient, each run twice."""

    def value_and_gradient(par):
        try:
            factor = fn.factor(par)
        except FitError:
            return 1e10, np.zeros(len(par))
        return factor.profile.f, fn.derivatives(par, factor)[0]

    best = np.inf
    for start in starts:
        for _ in range(2):
            found = scipy.optimize.minimize(
                value_and_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-7}
            )
            start = found.x
        best = min(best, found.fun)
    return best


@pytest.mark.parametrize("singular", [False, True], ids=["regular", "singular"])
@pytest.mark.parametrize("shape", BARS)
@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_never_above_the_best_of_several_starts(shape, singular, seed, monkeypatch):
    frame, rng = random_data([seed, len(shape), singular], singular)
    if seed % 2:
        monkeypatch.setattr(kernels, "DENSE_Q", 0)  # the structured kernels, with average information
    reml = bool(rng.random() < 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SingularWarning)
        fit = mm.lmer(f"y ~ x + {BARS[shape]}", frame, reml=reml)
    assert fit.converged
    assert all(np.isfinite(v).all() for v in (fit.theta, fit.beta, fit.se, fit.sigma, *fit.b))
    fn = criterion_for(fit.design, Likelihood(reml))
    usual = fn.covariance.start()
    starts = [usual, 0.1 * usual, 4.0 * usual, *(usual + rng.normal(size=len(usual)) for _ in range(3))]
    assert fit.criterion <= best_of_bfgs(fn, starts) + GAP


@pytest.mark.live
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("singular", [False, True], ids=["regular", "singular"])
def test_never_above_polished_lmer(singular):
    """lme4's best optimum over several starts and parameterisations, tightened. MMPARITY_DESIGNS asks for more."""
    from parity.r.worker import RWorkers

    rounds = -(-int(os.environ.get("MMPARITY_DESIGNS", "1")) // (2 * len(BARS)))
    worse = []
    with RWorkers(timeout=120) as workers:
        for seed, (shape, bars) in product(range(rounds), BARS.items()):
            frame, _ = random_data([9 + seed, len(shape), singular], singular)
            best = polished_lmer(workers, f"y ~ x + {bars}", frame)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", mm.SingularWarning)
                fit = mm.lmer(f"y ~ x + {bars}", frame)
            assert all(np.isfinite(v).all() for v in (fit.theta, fit.beta, fit.se, fit.sigma, *fit.b))
            excess = fit.criterion - best
            worse += [(seed, shape, excess)] if excess > GAP else []
    assert not worse


def polished_lmer(workers, formula, frame, reml=True):
    """The criterion at lme4's polished optimum."""
    from mmcore.formula.parse import parse
    from parity.r.columns import r_column

    request = {
        "columns": {name: r_column(frame[name]) for name in frame.columns},
        "row_labels": [str(i + 1) for i in range(len(frame))],
        "formula": parse(formula).to_r(), "reml": reml, "how": "polished", "quantities": ["criterion"],
        "source": "lme4",
    }  # fmt: skip
    reply = workers.call("answer", {"request": request})
    assert reply.status == "ok", reply.message
    return float(np.asarray(reply.value["values"]["criterion"]["values"])[0])


# --- starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "formula"),
    [
        ("Dyestuff", "Yield ~ 1 + (1 | Batch)"),
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
        ("Pastes", "strength ~ 1 + (1 | batch / cask)"),
    ],
)
def test_moments_of_balanced_data_are_the_estimate(data, formula):
    fit = mm.lmer(formula, mm.load_dataset(data), control=mm.Control(restarts=False))
    relative = start_covariance(fit.criterion_fn.kernel)
    assert_allclose(np.sqrt([R[0, 0] for R in relative]), fit.theta, rtol=1e-6)
    assert fit.optinfo.iterations == 1


@pytest.mark.parametrize("kernel", ["OneFactor", "Dense", "Crossed", "Nested"])
def test_moments_are_those_of_dense_matrices(kernel, monkeypatch):
    """The equations of the first round, from n x n matrices."""
    if kernel in ("Crossed", "Nested"):
        monkeypatch.setattr(kernels, "DENSE_Q", 0)
    frame, _ = random_data([7, 3], False)
    bars = {"OneFactor": BARS["slope"], "Dense": BARS["crossed slopes"], "Crossed": BARS["crossed slopes"]}
    design = build(f"y ~ x + {bars.get(kernel, BARS['nested slopes'])}", frame)
    fn = criterion_for(design, Likelihood())
    assert type(fn.kernel).__name__ == kernel
    from mmcore.lmm.start import _rows

    A = fn.kernel.A
    P = np.eye(A.n) - A.M[:-1].T @ A.M[:-1]
    Z = []  # (n, L) per effect, in the frame
    for block in A.blocks:
        for column in block.columns:
            full = np.zeros((A.n, block.L))
            full[np.arange(A.n), block.codes] = column
            Z.append(full)
    for row, Zc in zip(_rows(fn.kernel), Z, strict=True):
        assert_allclose(row.size, np.diag(Zc.T @ Zc), rtol=1e-12)
        assert_allclose(row.noise, np.diag(Zc.T @ P @ Zc), rtol=1e-9, atol=1e-9)
        assert_allclose(row.score, (Zc.T @ A.M[-1]) ** 2, rtol=1e-9, atol=1e-9)
        want = [np.square(Zc.T @ P @ Zd).sum(axis=1) for Zd in Z]
        assert_allclose(row.squares, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("start", [[1.0, 0.0, 1.0], [5.0, 1.0, 0.1], [0.0, 0.0, 0.0], [0.01, 0.0, 3.0]])
def test_any_start_leads_to_the_optimum(start):
    sleep = mm.load_dataset("sleepstudy")
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", sleep, start=start)
    assert_allclose(fit.criterion, 1743.6282719584904, rtol=0, atol=1e-8)


def test_a_wrong_start_is_refused():
    sleep = mm.load_dataset("sleepstudy")
    with pytest.raises(mm.DataError, match="theta needs 3 finite values"):
        mm.lmer("Reaction ~ Days + (Days | Subject)", sleep, start=[1.0])


# --- boundaries and saddles ---------------------------------------------------------------------------------


def test_a_zero_scale_is_stationary_but_no_optimum():
    """Bounded quasi-Newton methods stop here on Hsb82, 9.7 units of deviance too high."""
    frame = mm.load_dataset("Hsb82")
    design = build("mAch ~ cses + (cses | school)", frame)
    fn = criterion_for(design, Likelihood())
    at = np.array([0.5, 0.0, 0.0])
    g = fn.derivatives(at, fn.factor(at))[0]
    assert g[2] == 0.0
    fit = mm.lmer("mAch ~ cses + (cses | school)", frame, start=at)
    assert fit.criterion < fn.factor(np.array([0.5, 0.0, 1e-3])).profile.f
    assert not fit.is_singular
    assert_allclose(fit.criterion, 46714.234, atol=5e-3)


def test_a_vanishing_variance_is_exactly_zero():
    with pytest.warns(mm.SingularWarning, match="Batch"):
        fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert fit.theta.iloc[0] == 0.0
    assert fit.status is mm.Status.CONVERGED_BOUNDARY
    assert_allclose(fit.criterion, mm.lm("Yield ~ 1", mm.load_dataset("Dyestuff2")).criterion, atol=20)


def test_a_perfect_correlation_ends_on_the_boundary():
    rng = np.random.default_rng(12)
    g, x = np.repeat(np.arange(15), 6), np.tile(np.arange(6.0), 15)
    b = rng.normal(size=15)
    frame = pd.DataFrame({"y": (1 + 0.5 * x) * b[g] + rng.normal(size=90), "x": x, "g": pd.Categorical(g)})
    frame["y"] -= 0.3 * (x - 2.5) * np.sign(b[g]) * 0
    fit = None
    for seed in range(20):
        frame["y"] = (1 + 0.5 * x) * b[g] + np.random.default_rng(seed).normal(size=90)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mm.SingularWarning)
            fit = mm.lmer("y ~ x + (x | g)", frame)
        if fit.is_singular:
            break
    assert fit.is_singular and fit.converged
    assert_allclose(abs(fit.varcorr["g"].correlation[0, 1]), 1.0, atol=1e-10)


def test_two_optima():
    """Two factors that compete for the same variance: moments alone lead to the higher optimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SingularWarning)
        frame = two_basins()
        fit = mm.lmer("y ~ 1 + (x + z || g)", frame, reml=False)
    fn = criterion_for(fit.design, Likelihood(False))
    lowest = best_of_bfgs(fn, [s * fn.covariance.start() for s in (0.1, 1.0, 5.0, 40.0)])
    assert fit.criterion <= lowest + GAP
    assert fit.optinfo.starts > 1


def two_basins():
    """Few rows per group and a huge slope variance, which the method of moments does not see."""
    rng = np.random.default_rng(21)
    g = rng.integers(0, 25, 60)
    x, z = 50.0 + 10.0 * rng.normal(size=60), rng.normal(size=60)
    y = 3.0 * rng.normal(size=25)[g] * x + rng.normal(size=60)
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": pd.Categorical(g)})


def test_known_sigma():
    """Only theta is estimated; the criterion is the likelihood at that sigma."""
    sleep = mm.load_dataset("sleepstudy")
    free = mm.lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
    same = mm.lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False, sigma=free.sigma)
    assert_allclose(same.criterion, free.criterion, rtol=0, atol=1e-7)
    assert_allclose(same.theta, free.theta, rtol=1e-5)
    assert same.df == free.df - 1 and same.sigma == free.sigma
    other = mm.lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False, sigma=20.0)
    assert other.criterion > free.criterion


# --- limits -------------------------------------------------------------------------------------------------


def test_an_iteration_limit_is_told():
    sleep = mm.load_dataset("sleepstudy")
    control = mm.Control(max_iterations=1, restarts=False)
    with pytest.warns(mm.ConvergenceWarning, match="iteration limit"):
        fit = mm.lmer("Reaction ~ Days + (Days | Subject)", sleep, control=control)
    assert not fit.converged and fit.status is mm.Status.MAX_ITERATIONS


def test_evaluations_are_counted():
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    assert fit.optinfo.evaluations <= 10 and fit.optinfo.iterations <= 10 and fit.optinfo.starts == 1
    assert np.abs(fit.optinfo.gradient).max() < 0.1


def test_nothing_to_optimize():
    fn = criterion_for(build("Reaction ~ Days", mm.load_dataset("sleepstudy")), Likelihood())
    found = minimize(fn, np.zeros(0), np.zeros(0, dtype=int), mm.Control())
    assert found.status is mm.Status.NO_PARAMETERS


@pytest.mark.parametrize(
    ("response", "formula", "error", "message"),
    [
        (
            lambda d: 2.0 * d.x,
            "y ~ x + (1 | g)",
            mm.DesignError,
            "fixed effects reproduce the response exactly",
        ),
        (lambda d: d.b, "y ~ x + (1 | g)", FitError, "random effects reproduce the response exactly"),
        (lambda d: d.b + d.b**2 * d.x, "y ~ x + (x | g)", FitError, "random effects reproduce the response"),
        (lambda d: d.b + d.c, "y ~ x + (1 | g) + (1 | h)", FitError, "random effects reproduce the response"),
        (lambda d: d.z * 1e-150, "y ~ x + (1 | g)", mm.DataError, "rescaling"),
        (lambda d: d.z * 1e150, "y ~ x + (1 | g)", mm.DataError, "rescaling"),
        (lambda d: d.z * 0 + 3, "y ~ x + (1 | g)", mm.DesignError, "constant"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(response, formula, error, message):
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(10), 6)
    frame = pd.DataFrame(
        {
            "g": pd.Categorical(g), "h": pd.Categorical(np.arange(60) % 4), "x": rng.normal(size=60),
            "z": rng.normal(size=60), "b": rng.normal(size=10)[g], "c": rng.normal(size=4)[np.arange(60) % 4],
        }
    )  # fmt: skip
    frame["y"] = response(frame)
    with pytest.raises(error, match=message):
        mm.lmer(formula, frame)


def test_a_trailing_dimension_beyond_dense_algebra_is_refused_before_memory_is_spent():
    """13,000 x 13,000 doubles are 1.4 GB; the refusal costs the columns of the data and nothing else."""
    import tracemalloc

    rng = np.random.default_rng(1)
    n = 60_000
    frame = pd.DataFrame(
        {"y": rng.normal(size=n), "a": rng.integers(0, 20_000, n), "b": rng.integers(0, 13_500, n)}
    )
    tracemalloc.start()
    with pytest.raises(
        mm.UnsupportedError, match=r"b \(13,\d\d\d levels x 1\).*dense algebra is limited to 12,000"
    ):
        mm.lmer("y ~ 1 + (1 | a) + (1 | b)", frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_start_at_which_the_model_breaks_down_costs_nothing_else(monkeypatch):
    """Singular: eight scattered starts follow, and one more that cannot be evaluated."""
    from mmcore.covariance.blocks import BlockCovariance
    from mmcore.kernels.criterion import Criterion

    def fitted():
        with pytest.warns(mm.SingularWarning):
            fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
        return fit.criterion, fit.optinfo.starts

    before = fitted()
    scattered, factor = BlockCovariance.scattered, Criterion.factor

    def breaks_down(self, par):
        if par[0] == -7.0:
            raise FitError("on purpose")
        return factor(self, par)

    monkeypatch.setattr(BlockCovariance, "scattered", lambda self: [np.array([-7.0]), *scattered(self)])
    monkeypatch.setattr(Criterion, "factor", breaks_down)
    assert fitted() == before
    assert before[1] == 9


def test_optima_on_both_sides_of_a_hill_are_found():
    """Weights over eight decades: in some of these the criterion has a minimum at zero and a lower one inside, or the
    other way round. A grid of theta over eight decades, fixed and free of any optimizer, is never lower."""
    from parity.schema.spec import Spec, data, formula, settled

    grid = np.r_[0.0, np.logspace(-4, 4, 60)]
    for seed in (6, 60, 97, 112, *range(8)):
        spec = settled(
            Spec(
                seed=seed,
                levels=3,
                rows=3,
                covariates=1,
                factor=3,
                weights="extreme",
                reml=bool(seed % 2),
                missing=seed % 4,
            )
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mm.SingularWarning)
            fit = mm.lmer(formula(spec), data(spec), weights="w", reml=spec.reml)
        fn = fit.criterion_fn
        least = min(fn.factor(fn.covariance.from_theta(np.array([t]))).profile.f for t in grid)
        assert fit.criterion <= least + GAP, seed
