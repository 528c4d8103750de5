"""Models that would not fit in memory are refused before memory is spent, by the name of the term."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.covariance.unstructured import Unstructured
from mmcore.design.memory import readable


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    n = 6000
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "A": [f"a{i}" for i in rng.integers(0, 3000, n)],
            "B": [f"b{i}" for i in rng.integers(0, 3000, n)],
            "f": [f"f{i}" for i in rng.integers(0, 624, n)],
            "h": [f"h{i:02d}" for i in rng.integers(0, 12, n)],
            "g": rng.integers(0, 8, n),
        }
    )


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda d: mm.lm("y ~ A:B", d), r"the fixed term A:B has [\d,]+ columns .*TiB.*Write \(1 \| A:B\)"),
        (lambda d: mm.lmer("y ~ A * B + (1 | g)", d), r"the fixed term A:B"),
        (lambda d: mm.glm("y ~ A:B", d, family="gaussian"), r"the fixed term A:B"),
        (
            lambda d: mm.lmer("y ~ 1 + (f | g)", d),
            r"\(f \| g\) has 624 effects .*195,000 covariance.*Write \(1 \| g\) \+ \(1 \| g:f\)",
        ),
        (lambda d: mm.lmer("y ~ 1 + (0 + A:B | g)", d), r"\(A:B \| g\) has [\d,]+ effects"),
    ],
)
def test_what_would_not_fit_is_named_before_memory_is_spent(wide, fit, message):
    tracemalloc.start()
    try:
        with pytest.raises(mm.DesignError, match=message):
            fit(wide)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_thirty_effects_take_megabytes():
    """Constants of the Jacobian grew with the sixth power: 2.8 GiB."""
    tracemalloc.start()
    try:
        structure = Unstructured(30)
        par = structure.start()
        assert structure.jacobian(par).shape == (465, 30, 30)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("k", [3, 8, 9, 12])
def test_the_jacobian_is_the_derivative_of_sigma(k):
    rng = np.random.default_rng(k)
    chart = np.triu(rng.normal(size=(k, k))) + 2 * np.eye(k)
    for structure in (Unstructured(k), Unstructured(k, chart)):
        par = rng.normal(size=structure.n_par)
        E = structure.jacobian(par)
        for t in range(0, structure.n_par, 5):
            step = np.zeros(structure.n_par)
            step[t] = 1e-6
            slope = (structure.sigma(par + step) - structure.sigma(par - step)) / 2e-6
            assert_allclose(E[t], slope, atol=1e-7)


@pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")
def test_many_effects_still_fit(wide):
    fit = mm.lmer("y ~ 1 + (h | g)", wide[wide.h < "h10"])
    assert fit.converged and len(fit.theta) == 55
    assert fit.criterion <= mm.lmer("y ~ 1 + (1 | g)", wide[wide.h < "h10"]).criterion + 1e-8


def test_sizes_are_readable():
    assert readable(2.8 * 2**30) == "2.8 GiB"
    assert readable(100) == "100 bytes"
