"""Parameters that are not in the likelihood: effects that never meet in a level, effects within the span of X."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmcore as mm
from mmcore.errors import IdentificationWarning, SingularWarning
from mmcore.kernels.identified import free_directions, linked_effects


@pytest.fixture(scope="module")
def orthodont():
    data = mm.load_dataset("Orthodont")
    return data.assign(m=(data.Sex == "Male") * 1.0, f=(data.Sex == "Female") * 1.0)


def quiet(formula, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (IdentificationWarning, SingularWarning))
        return mm.lmer(formula, data, **options)


def test_two_sexes_have_their_own_variance(orthodont):
    with pytest.warns(IdentificationWarning, match="SexMale and SexFemale") as caught:
        fit = mm.lmer("distance ~ age + (0 + Sex | Subject)", orthodont)
    assert len(caught) == 1
    assert fit.criterion == pytest.approx(446.152036298, abs=1e-8)  # lme4 1.1-31
    Sigma = fit.sigma**2 * fit.Lambda[0] @ fit.Lambda[0].T
    assert np.diag(Sigma) == pytest.approx([3.1610, 6.6241], abs=5e-5)
    assert fit.sigma**2 == pytest.approx(2.0495, abs=5e-5)
    assert Sigma[0, 1] == 0.0


@pytest.mark.parametrize(
    ("together", "separate", "options"),
    [
        ("(0 + Sex | Subject)", "(0 + m | Subject) + (0 + f | Subject)", {"reml": False}),
        ("(0 + m + f | Subject)", "(0 + m | Subject) + (0 + f | Subject)", {}),
        ("cs(0 + Sex | Subject)", "(0 + m | Subject) + (0 + f | Subject)", {}),
        ("ar1(0 + Sex | Subject)", "diag(0 + Sex | Subject, hom = TRUE)", {}),
        ("(0 + Sex:age | Subject)", "(0 + I(m * age) | Subject) + (0 + I(f * age) | Subject)", {}),
        ("(0 + Sex | Subject) + (1 | age)", "(0 + m | Subject) + (0 + f | Subject) + (1 | age)", {}),
        (
            "(0 + Sex + Sex:age | Subject)",
            "(0 + m + I(m * age) | Subject) + (0 + f + I(f * age) | Subject)",
            {},
        ),
    ],
)
def test_one_term_is_as_good_as_separate_terms(orthodont, together, separate, options):
    one = quiet(f"distance ~ age + {together}", orthodont, **options)
    two = quiet(f"distance ~ age + {separate}", orthodont, **options)
    assert one.converged
    assert one.criterion == pytest.approx(two.criterion, abs=1e-8)
    assert one.beta == pytest.approx(two.beta, abs=1e-5)


@st.composite
def separated_designs(draw):
    """Data of which each group has one level of a factor, and the two ways to write the model."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels, groups, size = draw(st.integers(2, 3)), draw(st.integers(6, 16)), draw(st.integers(4, 9))
    level = np.append(np.arange(levels), rng.integers(0, levels, groups - levels))
    g = np.repeat(np.arange(groups), size)
    slope = draw(st.booleans())
    x = rng.normal(size=len(g))
    column = x if slope else np.ones(len(g))
    sd = rng.uniform(0.0, 3.0, levels)
    y = x + (rng.normal(size=groups) * sd[level])[g] * column + rng.normal(size=len(g))
    data = pd.DataFrame(
        {"y": y, "x": x, "g": g, "A": [f"a{k}" for k in level[g]], "c": rng.integers(0, 4, len(g))}
    )
    for k in range(levels):
        data[f"d{k}"] = (level[g] == k) * column
    options = {"reml": draw(st.booleans())}
    if draw(st.booleans()):
        options["weights"] = rng.uniform(0.5, 2.0, len(g))
    crossed = draw(st.sampled_from(["", " + (1 | c)"]))
    one = f"y ~ x + (0 + {'A:x' if slope else 'A'} | g){crossed}"
    two = "y ~ x + " + " + ".join(f"(0 + d{k} | g)" for k in range(levels)) + crossed
    return one, two, data, options


@given(separated_designs())
def test_effects_that_never_meet_are_separate_terms(case):
    one, two, data, options = case
    together, separate = quiet(one, data, **options), quiet(two, data, **options)
    assert together.converged
    scales = [f"g.{effect}" for effect in together.design.terms[0].effects]
    others = together.theta[[name for name in together.theta.index if name == "c.(Intercept)"]]
    theta = np.concatenate([together.theta[scales], others])
    names = list(separate.theta.index)
    order = [names.index(f"g.d{k}") for k in range(len(scales))] + [
        i for i, n in enumerate(names) if n[0] == "c"
    ]
    at = np.empty(len(theta))
    at[order] = theta
    there = mm.fit_at(two, data, at, **options)
    assert there.criterion == pytest.approx(together.criterion, abs=1e-8)
    assert together.criterion <= separate.criterion + 1e-7  # a search may end in another optimum


def test_a_factor_constant_in_groups_has_a_flat_direction(orthodont):
    with pytest.warns(IdentificationWarning, match="1 combination"):
        fit = mm.lmer("distance ~ age + (Sex | Subject)", orthodont)
    assert fit.criterion == pytest.approx(446.152036298, abs=1e-7)


def test_a_grouping_factor_within_the_span_of_X():
    data = mm.load_dataset("sleepstudy").assign(h=lambda d: d.Subject)
    with pytest.warns(IdentificationWarning, match="span of the fixed effects"):
        fit = mm.lmer("Reaction ~ 0 + Subject + (1 | h)", data)
    other = mm.fit_at("Reaction ~ 0 + Subject + (1 | h)", data, [3.0])
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-8)
    with pytest.warns(IdentificationWarning, match=r"effects \(Intercept\) of"):
        mm.lmer("Reaction ~ Subject + (Days | h)", data)


@pytest.mark.parametrize("formula", ["Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (1 | Subject)"])
def test_an_ordinary_model_has_no_warning(formula):
    mm.lmer(formula, mm.load_dataset("sleepstudy"))  # warnings are errors


def test_links_go_through_other_effects():
    there = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    linked = linked_effects(there)
    assert linked[0, 2] and not linked[0, 3] and not linked[2, 3]


@given(st.integers(0, 2**32 - 1))
def test_free_directions_are_the_null_space_of_the_dense_map(seed):
    rng = np.random.default_rng(seed)
    k, L = int(rng.integers(2, 5)), int(rng.integers(1, 6))
    Z = [rng.normal(size=(3, k)) * (rng.random(k) < 0.6) for _ in range(L)]
    row, col = np.tril_indices(k)
    basis = [np.zeros((k, k)) for _ in row]
    for S, a, b in zip(basis, row, col, strict=True):
        S[a, b] = S[b, a] = 1.0
    dense = np.array([np.concatenate([(z @ S @ z.T).ravel() for z in Z]) for S in basis])
    gram = np.stack([z.T @ z for z in Z], axis=-1)
    assert free_directions(gram) == len(row) - np.linalg.matrix_rank(dense, tol=1e-9)


def test_generalized_models_have_separate_terms_too(orthodont):
    data = orthodont.assign(large=(orthodont.distance > 23) * 1.0)
    one = mm.glmer("large ~ age + (0 + Sex | Subject)", data, family="binomial")
    two = mm.glmer("large ~ age + (0 + m | Subject) + (0 + f | Subject)", data, family="binomial")
    assert one.criterion == pytest.approx(two.criterion, abs=1e-7)
    assert one.theta.to_numpy()[[0, 2]] == pytest.approx(two.theta.to_numpy(), abs=1e-4)
    assert one.theta.iloc[1] == 0.0
