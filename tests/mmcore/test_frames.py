"""Frames of Polars, Arrow and DuckDB, and mappings, give the same model as pandas; other things are refused."""

import datetime as dt
from functools import partial

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.design import build
from mmcore.design.table import as_frame

pytestmark = pytest.mark.filterwarnings("ignore::mmcore.SingularWarning")

MAKERS = {
    "polars": pl.from_pandas,
    "lazy polars": lambda d: pl.from_pandas(d).lazy(),
    "arrow": lambda d: pa.Table.from_pandas(d, preserve_index=False),
    "duckdb": lambda d: duckdb.from_arrow(pa.Table.from_pandas(d, preserve_index=False)),
    "mapping": lambda d: {name: d[name].tolist() for name in d},
}


@pytest.fixture(params=MAKERS)
def made(request):
    return MAKERS[request.param]


def rows():
    rng = np.random.default_rng(0)
    n = 80
    x = rng.normal(size=n)
    data = pd.DataFrame(
        {
            "y": x + rng.normal(size=n) + np.arange(n) % 8, "x": x, "g": np.arange(n) % 8,
            "f": np.array(["b", "a", "c"])[rng.integers(0, 3, n)], "t": rng.random(n) < 0.5, "c": rng.poisson(3, n),
            "w": rng.uniform(0.5, 2, n), "unused": [dt.date(2024, 1, 1)] * n,
        }
    )  # fmt: skip
    data.loc[[3, 40], "x"] = np.nan
    return data


def test_every_fitter_reads_every_frame(made):
    data = rows()
    other = made(data)
    calls = [
        lambda d: mm.lm("y ~ x + f + t", d, weights="w").fixef,
        lambda d: mm.lmer("y ~ x + f + (1 | g)", d, weights="w").fixef,
        lambda d: mm.fit_at("y ~ x + (1 | g)", d, [0.7]).fixef,
        lambda d: mm.glm("c ~ x + f", d, family="poisson").fixef,
        lambda d: mm.glmer("c ~ x + (1 | g)", d, family="poisson").fixef,
        lambda d: mm.lmer("y ~ x + (1 | g)", d, residual="varident(f)").fixef,
    ]
    for call in calls:
        want, got = call(data), call(other)
        assert list(got.index) == list(want.index)
        assert_allclose(got, want, rtol=1e-9)


def test_prediction_and_update_read_every_frame(made):
    data = rows()
    fit = mm.lmer("y ~ x + (1 | g)", data)
    assert_allclose(fit.predict(made(data)), fit.predict(data))
    assert_allclose(fit.update(data=made(data)).fixef, fit.fixef)


def test_group_labels_are_those_of_the_frame(made):
    fit = mm.lmer("y ~ x + (1 | g)", made(rows()))
    assert fit.ranef["g"].index.tolist() == list(range(8))


def test_columns_of_every_type():
    data = pl.DataFrame(
        {
            "y": np.arange(6.0), "date": [dt.date(2024, 1, i + 1) for i in range(5)] + [None],
            "id": [None, *range(10**17, 10**17 + 5)], "b": [True, None, False] * 2,
            "e": pl.Series(["lo", "hi", None] * 2, dtype=pl.Enum(["lo", "mid", "hi"])),
            "c": pl.Series(["z", "a", "m"] * 2, dtype=pl.Categorical), "f": [1.5, None, 2.0] * 2,
            "i8": pl.Series([1, 2, None] * 2, dtype=pl.Int8), "nothing": [None] * 6,
        }
    )  # fmt: skip
    frame = as_frame(data)
    assert frame.id.tolist()[1:] == list(range(10**17, 10**17 + 5))
    assert frame.e.cat.categories.tolist() == ["lo", "mid", "hi"] and frame.e.isna().sum() == 2
    assert frame.date.iloc[0] == dt.date(2024, 1, 1)
    assert frame.i8.tolist()[:2] == [1, 2] and frame.i8.isna().sum() == 2
    assert frame.b.isna().sum() == 2 and frame.f.isna().sum() == 2 and frame.nothing.isna().all()
    levels = [t.levels.tolist() for t in build("y ~ 1 + (1 | c)", data, allow_saturated=True).terms]
    assert levels == [["a", "m", "z"]]


def test_arrow_dictionaries_keep_the_order_of_their_levels():
    data = rows().assign(f=lambda d: pd.Categorical(d.f, categories=["c", "a", "b"]))
    table = pa.Table.from_pandas(data, preserve_index=False)
    assert list(mm.lm("y ~ f", table).fixef.index) == ["(Intercept)", "fa", "fb"]


def test_only_columns_that_are_used_are_converted():
    data = pl.DataFrame({"y": [1.0, 2.0, 4.0], "x": [1.0, 0.0, 3.0], "odd": [[1], [2], [3]]})
    assert mm.lm("y ~ x", data).nobs == 3
    with pytest.raises(mm.DataError, match=r"column 'odd' has type List"):
        mm.lm("y ~ odd", data)


def test_numbers_are_not_copied():
    data = pl.DataFrame({"y": np.arange(1000.0)})
    frame = as_frame(data)
    assert np.shares_memory(frame["y"].to_numpy(), data["y"].to_numpy())
    assert as_frame(frame) is frame


def test_pandas_keeps_its_index():
    data = rows().set_axis([f"r{i}" for i in range(80)])
    assert mm.lm("y ~ x", data).fitted.index[0] == "r0"


FITTERS = [mm.lmer, mm.lm, partial(mm.glmer, family="poisson"), partial(mm.glm, family="poisson")]


@pytest.mark.parametrize("fitter", FITTERS, ids=["lmer", "lm", "glmer", "glm"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("data.csv", "read the file first|no file"),
        (None, "not NoneType|not None"),
        (3, "not int"),
        (np.ones((3, 2)), "ndarray"),
        ({"y": [1, 2], "x": [1]}, "one length"),
        (pd.Series([1.0]), "Series"),
    ],
)
def test_what_is_no_frame_is_refused(fitter, data, message):
    with pytest.raises(mm.MixedModelError, match=message):
        fitter("y ~ x + (1 | g)", data)


def test_a_text_file_is_no_parquet(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("y,x,g\n1,2,3\n")
    with pytest.raises(mm.DataError, match=r"not a Parquet file.*read_csv"):
        mm.lmer("y ~ x + (1 | g)", str(path))


@pytest.mark.parametrize("fitter", FITTERS, ids=["lmer", "lm", "glmer", "glm"])
def test_swapped_arguments(fitter):
    with pytest.raises(mm.FormulaError, match="it comes first, the data second"):
        fitter(rows(), "y ~ x + (1 | g)")
