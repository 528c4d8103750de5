"""What has an index goes by its labels, what has none by position, what does not match is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.design import build
from mmcore.design.align import aligned

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")

FITTERS = {
    "lm": lambda d, **o: mm.lm("y ~ x", d, **o),
    "glm": lambda d, **o: mm.glm("c ~ x", d, family="poisson", **o),
    "lmer": lambda d, **o: mm.lmer("y ~ x + (1 | g)", d, **o),
    "glmer": lambda d, **o: mm.glmer("c ~ x + (1 | g)", d, family="poisson", **o),
}


def frame(missing=()):
    rng = np.random.default_rng(1)
    n = 60
    x = rng.normal(size=n)
    data = pd.DataFrame(
        {"y": x + rng.normal(size=n), "x": x, "c": rng.poisson(3, n), "g": np.arange(n) % 6},
        index=[f"row {i}" for i in rng.permutation(n)],
    )
    data["w"], data["o"] = rng.integers(1, 4, n) * 1.0, rng.normal(size=n) * 0.1
    data.loc[data.index[list(missing)], "x"] = np.nan
    return data


def shuffled(series, seed=2):
    return series.iloc[np.random.default_rng(seed).permutation(len(series))]


@pytest.fixture(params=[(), (3, 10, 50)], ids=["complete", "missing rows"])
def data(request):
    return frame(request.param)


@pytest.mark.parametrize("kind", FITTERS)
@pytest.mark.parametrize("argument", ["weights", "offset"])
def test_weights_and_offsets_go_by_their_labels(data, kind, argument):
    column = data.w if argument == "weights" else data.o
    want = FITTERS[kind](data, **{argument: column.name}).fixef
    for given_as in (
        column,
        shuffled(column),
        shuffled(column).to_frame(),
        column.to_numpy(),
        column.tolist(),
    ):
        assert_allclose(FITTERS[kind](data, **{argument: given_as}).fixef, want, rtol=1e-9)


@pytest.mark.parametrize("kind", FITTERS)
def test_a_response_goes_by_its_labels(data, kind):
    fit = FITTERS[kind](data)
    new = data.c + 1.0
    used = new[data.x.notna()]
    want = fit.refit(used.to_numpy()).fixef
    for y in (new, shuffled(new), used, shuffled(used), new.to_numpy(), shuffled(new).to_frame()):
        assert_allclose(fit.refit(y).fixef, want, rtol=1e-9)


@pytest.mark.parametrize("kind", FITTERS)
def test_an_offset_of_new_data_goes_by_its_labels(data, kind):
    fit = FITTERS[kind](data)
    new = data[data.x.notna()]
    want = fit.predict(new, offset="o")
    assert_allclose(fit.predict(new, offset=shuffled(new.o)), want)
    assert_allclose(fit.predict(new, offset=new.o.to_numpy()), want)


@pytest.mark.parametrize("kind", ["lm", "lmer"])
def test_a_mask_goes_by_its_labels(data, kind):
    fit = FITTERS[kind](data)
    mask = data.y > 0.5
    want = mm.cooks_distance(fit, delete=mask[data.x.notna()].to_numpy())
    assert_allclose(mm.cooks_distance(fit, delete=shuffled(mask)), want)
    assert_allclose(mm.cooks_distance(fit, delete=mask), want)


def test_the_mask_of_the_report():
    data = mm.load_dataset("sleepstudy")
    fit = mm.lmer("Reaction ~ Days + (Days | Subject)", data)
    mask = data.Reaction.gt(400)
    assert_allclose(mm.cooks_distance(fit, delete=mask.sort_index(ascending=False)), 0.1422, atol=5e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: s.set_axis(range(60)), "does not match"),
        (lambda s: s.iloc[:50], "it has 50 values, the data have 60 rows"),
        (lambda s: pd.concat([s.iloc[:59], s.iloc[:1]]), "repeated"),
        (lambda s: s.to_numpy()[:50], "50 values for 60 rows"),
        (lambda s: pd.DataFrame({"a": s, "b": s}), "frame of 2 columns"),
        (lambda s: np.ones((60, 2)), r"shape \(60, 2\)"),
        (lambda s: {"a": 1}, "is a dict"),
        (lambda s: 2.0, "is a float"),
        (lambda s: [[1], [1, 2]], "different lengths"),
    ],
)
@pytest.mark.parametrize("kind", FITTERS)
def test_what_does_not_match_is_refused(kind, wrong, message):
    data = frame()
    for argument in ("weights", "offset"):
        with pytest.raises(mm.DataError, match=message) as caught:
            FITTERS[kind](data, **{argument: wrong(data.w)})
        assert argument in str(caught.value)
    with pytest.raises(mm.DataError, match=message):
        FITTERS[kind](data).refit(wrong(data.w))


def test_repeated_labels_in_the_same_order_are_no_riddle():
    data = frame()
    data.index = [0] * 60
    assert_allclose(mm.lm("y ~ x", data, weights=data.w).fixef, mm.lm("y ~ x", data, weights="w").fixef)
    with pytest.raises(mm.DataError, match="repeated"):
        mm.lm("y ~ x", data, weights=data.w.set_axis([0] * 59 + [1]))


@settings(max_examples=40)
@given(st.lists(st.integers(), min_size=1, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_labels_does_not_matter(labels, random):
    index = pd.Index(labels)
    values = pd.Series(np.arange(len(labels)) * 1.5, index=index)
    order = random.sample(range(len(labels)), len(labels))
    assert aligned(values.iloc[order], index, "w").tolist() == values.tolist()


def test_a_design_aligns_to_the_rows_it_uses():
    data = frame((3, 10))
    design = build("y ~ x", data)
    assert design.align(shuffled(data.w), "w").index.equals(design.index)
    assert design.align(data.w.to_numpy(), "w").tolist() == data.w[data.x.notna()].tolist()
