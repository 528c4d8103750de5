"""What must hold for every linear mixed model, whatever the data: no reference is needed.

Hypothesis draws a small specification; the data come from a seeded generator inside. Identities of algebra are
tested at a given theta to rounding; those of the estimates at the optimum, to what its stopping rule promises.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")

# shape -> formula, length of theta
MODELS = {
    "intercept": ("y ~ x + (1 | g)", 1),
    "slope": ("y ~ x + (x | g)", 3),
    "double bar": ("y ~ x + (x || g)", 2),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", 2),
    "nested": ("y ~ x + f + (1 | g/k)", 2),
    "crossed slope": ("y ~ x + (x | g) + (1 | h)", 4),
}


@dataclass(frozen=True)
class Spec:
    """A model and the seed of its data."""

    shape: str
    seed: int
    n: int
    groups: int
    sd: float  # of the random effects, relative to the residual
    reml: bool

    @property
    def formula(self) -> str:
        return MODELS[self.shape][0]

    @property
    def theta(self) -> np.ndarray:
        """Some theta of the right length, away from zero."""
        return np.random.default_rng(self.seed + 1).uniform(0.2, 1.5, MODELS[self.shape][1])

    def data(self) -> pd.DataFrame:
        """Unbalanced groups in which every level occurs, and prior weights."""
        rng = np.random.default_rng(self.seed)

        def labels(letter, levels):
            codes = np.concatenate([np.arange(levels), rng.integers(0, levels, self.n - levels)])
            codes = rng.permutation(codes)
            return codes, pd.Categorical([f"{letter}{i}" for i in codes])

        (g, g_labels), (h, h_labels), (_, k_labels) = labels("g", self.groups), labels("h", 5), labels("k", 3)
        x = rng.normal(size=self.n)
        b = self.sd * rng.normal(size=(self.groups, 2))
        y = 2 + x + b[g, 0] + b[g, 1] * x + self.sd * rng.normal(size=5)[h] + rng.normal(size=self.n)
        return pd.DataFrame(
            {
                "y": y,
                "x": x,
                "g": g_labels,
                "h": h_labels,
                "k": k_labels,
                "f": pd.Categorical(rng.choice(["u", "v", "w"], self.n)),
                "w": rng.uniform(0.5, 2.0, self.n),
            }
        )

    def at_theta(self, data, formula=None, theta=None):
        theta = self.theta if theta is None else theta
        return mm.fit_at(formula or self.formula, data, theta, reml=self.reml, weights="w")

    def fit(self, data):
        return mm.lmer(self.formula, data, reml=self.reml, weights="w")


specs = st.builds(
    Spec,
    shape=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, 10_000),
    n=st.integers(40, 90),
    groups=st.integers(4, 9),
    sd=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    reml=st.booleans(),
)
few = settings(max_examples=25, deadline=None)  # a fit is tens of milliseconds under load


@few
@given(specs, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(spec, random):
    data = spec.data()
    order = list(range(len(data)))
    random.shuffle(order)
    one, other = spec.at_theta(data), spec.at_theta(data.iloc[order])
    assert_allclose(other.criterion, one.criterion, rtol=1e-12)
    assert_allclose(other.fixef, one.fixef, rtol=1e-9, atol=1e-10)
    assert_allclose(other.fitted[one.fitted.index], one.fitted, rtol=1e-9, atol=1e-9)
    got, want = mm.hlm_influence(other), mm.hlm_influence(one)
    for column in ("cooksd", "mdffits", "covtrace", "covratio"):
        assert_allclose(got[column].to_numpy(), want[column].to_numpy()[order], rtol=1e-7, atol=1e-10)


@few
@given(specs)
def test_names_and_order_of_levels_do_not_matter(spec):
    data = spec.data()
    renamed = data.copy()
    for factor in ("g", "h", "k"):
        levels = list(data[factor].cat.categories)
        names = dict(zip(levels, [f"level {i}" for i in reversed(range(len(levels)))], strict=True))
        renamed[factor] = pd.Categorical(data[factor].astype(str).map(names))
    one, other = spec.at_theta(data), spec.at_theta(renamed)
    assert_allclose(other.criterion, one.criterion, rtol=1e-12)
    assert_allclose(other.beta, one.beta, rtol=1e-9, atol=1e-10)
    assert_allclose(other.fitted, one.fitted, rtol=1e-9, atol=1e-9)


@few
@given(specs, st.integers(-8, 8))
def test_scale_of_the_response(spec, exponent):
    """y -> a y: theta stays; sigma, beta and b grow with a; the criterion by 2 nu log a; influence stays."""
    data, a = spec.data(), 10.0**exponent
    one, other = spec.at_theta(data), spec.at_theta(data.assign(y=a * data.y))
    nu = one.nobs - one.design.p * spec.reml
    assert_allclose(other.criterion, one.criterion + 2 * nu * np.log(a), rtol=1e-11, atol=1e-8)
    assert_allclose(other.sigma, a * one.sigma, rtol=1e-10)
    assert_allclose(other.fixef, a * one.fixef, rtol=1e-9, atol=1e-10 * a)
    for got, want in zip(other.b, one.b, strict=True):
        assert_allclose(got, a * want, rtol=1e-8, atol=1e-9 * a)
    assert_allclose(mm.cooks_distance(other), mm.cooks_distance(one), rtol=1e-7, atol=1e-11)


@few
@given(specs, st.integers(-8, 8))
def test_scale_of_the_response_at_the_optimum(spec, exponent):
    data, a = spec.data(), 10.0**exponent
    one, other = spec.fit(data), spec.fit(data.assign(y=a * data.y))
    for got, want in zip(other.Lambda, one.Lambda, strict=True):
        assert_allclose(got @ got.T, want @ want.T, rtol=1e-4, atol=1e-5)
    nu = one.nobs - one.design.p * spec.reml
    assert_allclose(other.criterion - 2 * nu * np.log(a), one.criterion, rtol=1e-8, atol=1e-6)


@few
@given(specs, st.floats(-1e6, 1e6))
def test_a_shift_moves_the_intercept_alone(spec, shift):
    data = spec.data()
    one, other = spec.at_theta(data), spec.at_theta(data.assign(y=data.y + shift))
    size = 1 + abs(shift)
    assert_allclose(
        other.fixef["(Intercept)"] - shift, one.fixef["(Intercept)"], atol=1e-11 * size, rtol=1e-9
    )
    assert_allclose(other.fixef["x"], one.fixef["x"], rtol=1e-8, atol=1e-10 * size)
    assert_allclose(other.criterion, one.criterion, rtol=1e-8)


@few
@given(specs, st.floats(-50, 50), st.sampled_from([1e-6, 0.1, 3.0, 1e6]))
def test_another_basis_of_the_fixed_effects(spec, origin, unit):
    """x -> (x - c)/s in the fixed part: the slope times s, the same fit; the REML criterion shifts by 2 log s."""
    data = spec.data()
    data["u"] = (data.x - origin) / unit
    one = spec.at_theta(data)
    other = spec.at_theta(data, spec.formula.replace("~ x", "~ u", 1))
    assert_allclose(other.fixef["u"], one.fixef["x"] * unit, rtol=1e-6, atol=1e-9 * unit)
    assert_allclose(other.fitted, one.fitted, rtol=1e-7, atol=1e-7)
    assert_allclose(other.criterion, one.criterion - 2 * np.log(unit) * spec.reml, rtol=1e-8, atol=1e-7)


@few
@given(specs)
def test_theta_zero_is_weighted_least_squares(spec):
    data = spec.data()
    fit = spec.at_theta(data, theta=np.zeros(len(spec.theta)))
    sw = np.sqrt(data.w.to_numpy())
    X, y = fit.design.X * sw[:, None], data.y.to_numpy() * sw
    beta, *_ = np.linalg.lstsq(X, y, rcond=None)
    rss = float(np.sum((y - X @ beta) ** 2))
    assert_allclose(fit.beta, beta, rtol=1e-9, atol=1e-10)
    assert_allclose(fit.sigma**2, rss / (len(y) - X.shape[1] * spec.reml), rtol=1e-10)
    assert_allclose(mm.hatvalues(fit), np.sum(np.linalg.qr(X)[0] ** 2, axis=1), rtol=1e-9)
    assert all(not b.any() for b in fit.b)


@few
@given(specs)
def test_trace_of_the_hat_matrix(spec):
    """tr H = n - tr(sigma^2 W^-1 P): between p and p + q; each value in [0, 1]; and H is a derivative."""
    data = spec.data()
    fit = spec.at_theta(data)
    h = np.asarray(mm.hatvalues(fit))
    assert fit.design.p - 1e-9 <= h.sum() <= fit.design.p + fit.design.q + 1e-9
    assert h.min() >= -1e-12 and h.max() <= 1 + 1e-12
    row = spec.seed % len(data)
    moved = data.copy()
    moved.loc[moved.index[row], "y"] += 1.0
    change = spec.at_theta(moved).fitted.iloc[row] - fit.fitted.iloc[row]
    assert_allclose(change, h[row], rtol=1e-7, atol=1e-9)


@few
@given(specs)
def test_the_optimum_is_one(spec):
    """No point nearby is better: the criterion does not fall along any coordinate, in either direction."""
    data = spec.data()
    fit = spec.fit(data)
    best = fit.criterion
    for k in range(len(fit.theta)):
        for step in (-0.05, -0.003, 0.003, 0.05):
            theta = fit.theta.to_numpy().copy()
            theta[k] += step
            assert spec.at_theta(data, theta=theta).criterion >= best - 1e-8 * (1 + abs(best))
    assert_allclose(spec.at_theta(data, theta=fit.theta.to_numpy()).criterion, best, rtol=1e-13)


@few
@given(specs, st.integers(2, 4))
def test_equal_weights_change_only_sigma(spec, weight):
    """All weights equal to w: the same model with sigma^2 / w in the place of sigma^2, theta in units of it."""
    data = spec.data().assign(w=1.0)
    heavy = spec.at_theta(data.assign(w=float(weight)), theta=spec.theta / np.sqrt(weight))
    plain = spec.at_theta(data)
    assert_allclose(heavy.beta, plain.beta, rtol=1e-9, atol=1e-10)
    assert_allclose(heavy.sigma, plain.sigma * np.sqrt(weight), rtol=1e-10)
    assert_allclose(heavy.criterion, plain.criterion, rtol=1e-11)
