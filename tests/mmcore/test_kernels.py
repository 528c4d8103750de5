"""Every kernel against its dense definition; derivatives against differences of the criterion."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mmcore import kernels
from mmcore.kernels import Likelihood
from mmcore.kernels.coupling import Gemm, Pairs
from mmcore.kernels.criterion import Criterion
from mmcore.kernels.downdate import without
from mmcore.kernels.products import cross_products
from mmcore.lmm.criterion import criterion_for
from tests.oracles import dense_criterion, dense_gls, exact_criterion

N = 150


def term(group, codes, n_levels, columns, structure="us", homogeneous=False):
    return SimpleNamespace(
        group=group,
        levels=np.arange(n_levels).astype(str),
        codes=codes,
        columns=columns,
        effects=tuple("abc"[: columns.shape[1]]),
        structure=structure,
        homogeneous=homogeneous,
    )


def designs():
    """Name -> (kernel expected, design): all shapes of Z, with and without weights and offset."""
    rng = np.random.default_rng(5)
    one, x, z = np.ones((N, 1)), rng.normal(size=N), rng.normal(size=N)
    slope, three = np.column_stack([np.ones(N), x]), np.column_stack([np.ones(N), x, z])
    g, h, k = (rng.integers(0, levels, N) for levels in (12, 7, 5))
    inner = rng.integers(0, 30, N)
    outer = rng.integers(0, 4, 30)
    top = np.array([0, 1, 0, 1])
    shapes = {
        "intercept": ("OneFactor", [term("g", g, 12, one)]),
        "slope": ("OneFactor", [term("g", g, 12, slope)]),
        "three": ("OneFactor", [term("g", g, 12, three)]),
        "double bar": ("OneFactor", [term("g", g, 12, one), term("g", g, 12, x[:, None])]),
        "cs": ("OneFactor", [term("g", g, 12, three, "cs")]),
        "ar1": ("OneFactor", [term("g", g, 12, three, "ar1", True)]),
        "diag": ("OneFactor", [term("g", g, 12, three, "diag", True)]),
        "small": ("Dense", [term("g", g, 12, one), term("h", h, 7, one)]),
        "small vector": ("Dense", [term("g", g, 12, slope), term("h", h, 7, slope)]),
        "crossed": ("Crossed", [term("g", g, 12, one), term("h", h, 7, one), term("k", k, 5, one)]),
        "crossed vector": (
            "Crossed",
            [term("g", g, 12, slope), term("h", h, 7, slope), term("k", k, 5, three), term("h", h, 7, x[:, None])],
        ),
        "nested": ("Nested", [term("a:b", inner, 30, one), term("b", outer[inner], 4, one)]),
        "nested vector": (
            "Nested",
            [
                term("a:b:c", inner, 30, slope),
                term("b:c", outer[inner], 4, slope),
                term("c", top[outer[inner]], 2, one),
            ],
        ),
    }  # fmt: skip
    for name, (kernel, terms) in shapes.items():
        weighted = len(name) % 2 == 0
        yield pytest.param(
            kernel,
            SimpleNamespace(
                y=rng.normal(size=N) + 1e3,
                X=np.column_stack([np.ones(N), rng.normal(size=N) * 100 + 500]),
                terms=terms,
                weights=rng.uniform(0.5, 2, N) if weighted else None,
                offset=rng.normal(size=N) if weighted else None,
                n=N,
                p=2,
            ),
            id=name,
        )


@pytest.mark.parametrize("reml", [True, False])
def test_a_slope_far_from_its_origin_and_large_effects_keep_their_digits(reml):
    """Covariances that are nearly singular in the user's coordinates: the criterion against 60-digit arithmetic."""
    rng = np.random.default_rng(3)
    n, g = 60, rng.integers(0, 8, 60)
    year = 2000.0 + rng.integers(0, 9, n)
    Lambda = np.array([[4000.0, 0.0], [-2.0, 0.3]])
    design = SimpleNamespace(
        y=rng.normal(size=n), X=np.ones((n, 1)), weights=None, offset=None, n=n, p=1,
        terms=[term("g", g, 8, np.column_stack([np.ones(n), year]))],
    )  # fmt: skip
    fn = criterion_for(design, Likelihood(reml))
    got = fn.factor(fn.covariance.from_theta([4000.0, -2.0, 0.3])).profile.f
    assert_allclose(got, exact_criterion(design, [Lambda], reml), rtol=1e-10)


def criterion(design, like, kernel_name, monkeypatch):
    if kernel_name in ("Crossed", "Nested"):
        monkeypatch.setattr(kernels, "DENSE_Q", 0)
    fn = criterion_for(design, like)
    assert type(fn.kernel).__name__ == kernel_name
    return fn


def some_par(covariance, seed=1):
    rng = np.random.default_rng(seed)
    return covariance.start() + rng.uniform(-0.3, 0.6, covariance.n_par)


def term_sigmas(fn, par):
    return [L @ L.T for L in fn.covariance.Lambda(par)]


def large(covariance, kernel):
    """Parameters under which V^-1 leaves less than 1e-6 of an intercept, and the digits that are then to be had.

    Products alone have ten of them, fewer in dense kernels. What is lacking is lost in log|V|.
    """
    size, digits = {
        "OneFactor": (3000.0, 2e-14), "Dense": (3000.0, 2e-11), "Crossed": (300.0, 2e-12), "Nested": (300.0, 1e-9)
    }[kernel]  # fmt: skip
    return size * some_par(covariance), digits


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("kernel", "design"), [d for d in designs() if d.id not in ("cs", "ar1")])
def test_criterion_with_large_effects_against_exact_arithmetic(kernel, design, reml, monkeypatch):
    fn = criterion(design, Likelihood(reml), kernel, monkeypatch)
    par, digits = large(fn.covariance, kernel)
    want = exact_criterion(design, fn.covariance.Lambda(par), reml, digits=40)
    assert_allclose(fn.factor(par).profile.f, want, rtol=digits)


@pytest.mark.parametrize("sigma", [None, 1.3])
@pytest.mark.parametrize(("kernel", "design"), [d for d in designs() if d.id not in ("cs", "ar1")])
def test_derivatives_with_large_effects_are_those_of_the_criterion(kernel, design, sigma, monkeypatch):
    fn = criterion(design, Likelihood(True, sigma), kernel, monkeypatch)
    par, _ = large(fn.covariance, kernel)
    g, _ = fn.derivatives(par, fn.factor(par))
    for k, step in enumerate(0.01 * np.diag(par)):
        up, down = fn.factor(par + step).profile.f, fn.factor(par - step).profile.f
        assert_allclose(g[k], (up - down) / (2 * step[k]), rtol=1e-3, atol=1e-5 * np.abs(g).max())


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_a_lighter_kernel_has_the_criterion_of_the_rows_left(kernel, design, reml, monkeypatch):
    """Whether the products or the rows are summed: those that are gone count in neither."""
    fn = criterion(design, Likelihood(reml), kernel, monkeypatch)
    gone = np.array([3, 40, 41, 149])
    rows = np.setdiff1d(np.arange(N), gone)
    kept = {name: value if value is None else value[rows] for name, value in vars(design).items()
            if name in ("y", "X", "weights", "offset")}  # fmt: skip
    terms = [
        SimpleNamespace(**{**vars(t), "codes": t.codes[rows], "columns": t.columns[rows]})
        for t in design.terms
    ]
    rest = criterion(
        SimpleNamespace(**kept, terms=terms, n=N - 4, p=2), Likelihood(reml), kernel, monkeypatch
    )
    lighter = Criterion(without(fn.kernel, gone), fn.covariance, fn.like)
    par, digits = large(fn.covariance, kernel)
    for at, rtol in ((some_par(fn.covariance), 1e-12), (par, 5 * digits)):
        assert_allclose(lighter.factor(at).profile.f, rest.factor(at).profile.f, rtol=rtol)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_criterion_and_gls_equal_dense_definition(kernel, design, reml, monkeypatch):
    fn = criterion(design, Likelihood(reml), kernel, monkeypatch)
    par = some_par(fn.covariance)
    factor = fn.factor(par)
    Sigmas = term_sigmas(fn, par)
    assert_allclose(factor.profile.f, dense_criterion(design, Sigmas, reml), rtol=1e-13)
    _, Vinv, _, beta, r = dense_gls(design, Sigmas)
    gamma = np.linalg.solve(factor.S[:-1, :-1], factor.S[:-1, -1])
    assert_allclose(fn.kernel.A.beta(gamma), beta, rtol=1e-9)
    assert_allclose(factor.profile.rss, r @ Vinv @ r, rtol=1e-11)


@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_known_sigma_equals_dense_definition(kernel, design, monkeypatch):
    fn = criterion(design, Likelihood(True, 1.7), kernel, monkeypatch)
    par = some_par(fn.covariance)
    want = dense_criterion(design, term_sigmas(fn, par), True, 1.7)
    assert_allclose(fn.factor(par).profile.f, want, rtol=1e-13)


@pytest.mark.parametrize("like", [Likelihood(True), Likelihood(False), Likelihood(True, 1.3)], ids=str)
@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_gradient_equals_differences(kernel, design, like, monkeypatch):
    fn = criterion(design, like, kernel, monkeypatch)
    par = some_par(fn.covariance)
    g, H = fn.derivatives(par, fn.factor(par))
    h = 1e-5
    steps = h * np.eye(len(par))
    differences = [(fn.factor(par + s).profile.f - fn.factor(par - s).profile.f) / (2 * h) for s in steps]
    # rounding of f (about 1e-12) over h, plus h^2 times a third derivative
    assert_allclose(g, differences, rtol=1e-6, atol=5e-6)
    if kernel in ("OneFactor", "Dense"):
        second = [
            (fn.derivatives(par + s, fn.factor(par + s))[0] - fn.derivatives(par - s, fn.factor(par - s))[0])
            / (2 * h)
            for s in steps
        ]
        assert_allclose(H, second, rtol=1e-6, atol=1e-6 * np.abs(H).max())


@pytest.mark.parametrize(("kernel", "design"), [d for d in designs() if d.values[0] in ("Crossed", "Nested")])
def test_average_information_is_its_definition(kernel, design, monkeypatch):
    """H - <G, d2Sigma> = per_rss f_a'P f_b - curl q_a q_b for the kernels that use it, from dense P."""
    fn = criterion(design, Likelihood(True), kernel, monkeypatch)
    par = some_par(fn.covariance)
    factor = fn.factor(par)
    _, H = factor.derivatives(fn.covariance.jacobian(par))
    _, Vinv, C, _, r = dense_gls(design, term_sigmas(fn, par))
    P = Vinv - Vinv @ design.X @ C @ design.X.T @ Vinv
    nu, rss = design.n - design.p, r @ Vinv @ r
    h = 1e-6
    f, q = [], []
    for k in range(fn.covariance.n_par):
        step = np.zeros(fn.covariance.n_par)
        step[k] = h
        up, down = (dense_gls(design, term_sigmas(fn, par + s))[0] for s in (step, -step))
        dV = (up - down) / (2 * h)
        f.append(dV @ Vinv @ r)
        q.append(r @ Vinv @ f[-1])
    want = nu / rss * np.array(f) @ P @ np.array(f).T - nu / rss**2 * np.outer(q, q)
    assert_allclose(fn.covariance.in_par_order(H), want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_inverse_of_V_equals_dense(kernel, design, monkeypatch):
    fn = criterion(design, Likelihood(True), kernel, monkeypatch)
    par = some_par(fn.covariance)
    factor = fn.factor(par)
    _, Vinv, *_ = dense_gls(design, term_sigmas(fn, par))
    sw = np.ones(N) if design.weights is None else np.sqrt(design.weights)
    assert_allclose(sw * (1 - factor.quadratic()) * sw, np.diag(Vinv), rtol=1e-10)
    rows = np.random.default_rng(2).normal(size=(3, N))
    blocks = fn.kernel.A.blocks
    out = rows.copy()
    for block, u in zip(blocks, factor.solve_random([b.products(rows) for b in blocks]), strict=True):
        for a in range(block.K):
            out -= block.columns[a] * u[:, a][:, block.codes]
    assert_allclose(out * sw, (Vinv @ (rows / sw).T).T, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_conditional_variance_equals_dense(kernel, design, monkeypatch):
    from tests.oracles import dense_Z

    fn = criterion(design, Likelihood(True), kernel, monkeypatch)
    par = some_par(fn.covariance)
    Z = np.hstack([dense_Z(t) for t in design.terms])
    Sigmas = term_sigmas(fn, par)
    prior = np.zeros((Z.shape[1],) * 2)
    at, place = 0, []
    for t, S in zip(design.terms, Sigmas, strict=True):
        size = len(t.levels) * len(S)
        prior[at : at + size, at : at + size] = np.kron(np.eye(len(t.levels)), S)
        place.append(at)
        at += size
    W = np.diag(np.ones(N) if design.weights is None else design.weights)
    posterior = np.linalg.inv(np.linalg.inv(prior) + Z.T @ W @ Z)
    for block, got in zip(fn.kernel.A.blocks, fn.factor(par).conditional(), strict=True):
        for level in (0, block.L - 1):
            index = np.concatenate(
                [
                    place[t]
                    + level * design.terms[t].columns.shape[1]
                    + np.arange(design.terms[t].columns.shape[1])
                    for t in block.terms
                ]
            )
            C = np.eye(block.K) if block.frame is None else block.frame
            assert_allclose(
                C @ got[:, :, level] @ C.T, posterior[np.ix_(index, index)], rtol=1e-8, atol=1e-10
            )


def test_both_eliminators_agree_with_dense():
    rng = np.random.default_rng(8)
    params = {p.id: p.values for p in designs()}
    design = params["crossed vector"][1]
    from mmcore.kernels.crossed import Crossed

    kernel = Crossed(cross_products(design))
    C = kernel.coupling
    full = np.zeros((C.K * C.L, C.q))
    for a in range(C.K):
        full[a :: C.K] = C.by_effect[a].toarray()
    K = rng.normal(size=(C.K, C.K, C.L))
    K = np.einsum("acl,bcl->abl", K, K)
    block = np.zeros((C.K * C.L,) * 2)
    for level in range(C.L):
        s = slice(level * C.K, (level + 1) * C.K)
        block[s, s] = K[:, :, level]
    S = rng.normal(size=(C.q, C.q))
    S = S + S.T
    spread = full @ S @ full.T
    for eliminator in (Pairs(C), Gemm(C)):
        assert_allclose(np.triu(eliminator.schur(K)), np.triu(full.T @ block @ full), atol=1e-11)
        got = eliminator.spread(np.triu(S))
        want = np.stack(
            [spread[i * C.K : (i + 1) * C.K, i * C.K : (i + 1) * C.K] for i in range(C.L)], axis=2
        )
        assert_allclose(got, want, atol=1e-10)
        left = rng.normal(size=K.shape)
        sums = sum(left[:, :, i] @ want[:, :, i] @ left[:, :, i].T for i in range(C.L))
        assert_allclose(eliminator.traces(left, np.triu(S)), sums, rtol=1e-10)


@pytest.mark.parametrize(("kernel", "design"), list(designs()))
def test_zero_covariance_is_ordinary_least_squares(kernel, design, monkeypatch):
    fn = criterion(design, Likelihood(False), kernel, monkeypatch)
    par = fn.covariance.start()
    par[fn.covariance.scale_index()] = 0.0
    w = np.ones(N) if design.weights is None else design.weights
    y = design.y if design.offset is None else design.y - design.offset
    sw = np.sqrt(w)
    beta, *_ = np.linalg.lstsq(design.X * sw[:, None], y * sw, rcond=None)
    rss = float(np.sum(w * (y - design.X @ beta) ** 2))
    want = N * (1 + np.log(2 * np.pi * rss / N)) - np.log(w).sum()
    assert_allclose(fn.factor(par).profile.f, want, rtol=1e-12)
