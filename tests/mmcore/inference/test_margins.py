"""Marginal effects against differences of predictions on altered data, their errors against numerical gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.inference.margins.margins import margins, predictive_margins
from tests.models import frame


def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return frame(n=90, groups=9).assign(count=lambda d: rng.poisson(np.exp(0.4 * d.x + 0.2)))


FORMULA = "count ~ x * h + I(x^2) + z"
FITS: dict[str, Callable[[], mm.Fit]] = {
    "poisson": lambda: mm.glm(FORMULA, data(), family="poisson"),
    "offset": lambda: mm.glm(FORMULA, data(), family="poisson", offset="off"),
    "lm": lambda: mm.lm(FORMULA, data(), weights="w"),
    "lmer": lambda: mm.fit_at(FORMULA + " + (1 | g)", data(), [0.8]),
}


def mean_response(fit: mm.Fit, rows: pd.DataFrame, beta: np.ndarray) -> float:
    """Mean over altered rows, for any coefficients: design rows, offset, inverse link."""
    eta = fit.design.new(rows, terms=[]).X @ beta
    eta = eta if fit.design.offset is None else eta + fit.design.offset
    link = getattr(fit.family, "link", None)
    return float((eta if link is None else link.mu(eta)).mean())


def standard_error(fit: mm.Fit, value: Callable[[np.ndarray], float]) -> float:
    """Delta method with a numerical gradient."""
    steps = 1e-5 * np.maximum(np.abs(fit.beta), 0.1)
    gradient = np.array(
        [
            (value(fit.beta + h * e) - value(fit.beta - h * e)) / (2 * h)
            for h, e in zip(steps, np.eye(len(steps)), strict=True)
        ]
    )
    return float(np.sqrt(gradient @ fit.vcov.to_numpy() @ gradient))


@pytest.mark.parametrize("name", FITS)
def test_effects_are_differences_of_mean_predictions(name):
    fit, rows, h = FITS[name](), data(), 1e-5
    got = margins(fit)

    def slope(beta: np.ndarray) -> float:
        return (
            mean_response(fit, rows.assign(x=rows.x + h), beta)
            - mean_response(fit, rows.assign(x=rows.x - h), beta)
        ) / (2 * h)

    assert_allclose(got.loc["x", "AME"], slope(fit.beta), rtol=1e-7)
    assert_allclose(got.loc["x", "SE"], standard_error(fit, slope), rtol=1e-5)
    levels = sorted(rows.h.unique())

    def change(beta: np.ndarray) -> float:
        return mean_response(fit, rows.assign(h=levels[1]), beta) - mean_response(
            fit, rows.assign(h=levels[0]), beta
        )

    assert_allclose(got.loc[f"h{levels[1]}", "AME"], change(fit.beta), rtol=1e-9)
    assert_allclose(got.loc[f"h{levels[1]}", "SE"], standard_error(fit, change), rtol=1e-6)
    assert list(got.index) == ["x", *(f"h{level}" for level in levels[1:]), "z"]


@pytest.mark.parametrize("name", FITS)
def test_predictive_margins_are_mean_predictions(name):
    fit, rows = FITS[name](), data()
    got = predictive_margins(fit, {"h": ["h0", "h2"], "x": [-1, 1]})
    for (level, x), row in got.iterrows():
        altered = rows.assign(h=level, x=float(x))
        assert_allclose(row["margin"], mean_response(fit, altered, fit.beta), rtol=1e-10)
        assert_allclose(
            row["SE"], standard_error(fit, lambda b, a=altered: mean_response(fit, a, b)), rtol=1e-6
        )


def test_as_observed_is_the_mean_of_the_fit():
    fit = FITS["poisson"]()
    assert_allclose(predictive_margins(fit).loc["margin", "margin"], fit.fitted.mean(), rtol=1e-12)


def test_effects_at_values_are_those_of_altered_data():
    fit, rows, h = FITS["poisson"](), data(), 1e-5
    got = margins(fit, "x", at={"h": ["h0", "h1"]})
    for level in ("h0", "h1"):
        up, down = (mean_response(fit, rows.assign(h=level, x=rows.x + s * h), fit.beta) for s in (1, -1))
        assert_allclose(got.loc[(level, "x"), "AME"], (up - down) / (2 * h), rtol=1e-7)


def test_a_linear_model_without_interactions_has_its_coefficients():
    fit = mm.lm("y ~ x + z", data())
    got = margins(fit)
    assert_allclose(got["AME"], fit.fixef[["x", "z"]], rtol=1e-10)
    assert_allclose(got["SE"], fit.se[["x", "z"]], rtol=1e-10)
    assert (got["df"] == 87).all()


def test_on_the_link_scale_there_is_no_curvature():
    fit = mm.glm("count ~ x + z", data(), family="poisson")
    got = margins(fit, type="link")
    assert_allclose(got["AME"], fit.fixef[["x", "z"]], rtol=1e-10)
    assert_allclose(got["SE"], fit.se[["x", "z"]], rtol=1e-9)


def test_mixed_models_take_random_effects_as_zero():
    fit = mm.fit_at("count ~ x + (1 | g)", data(), [0.6], beta=[0.3, 0.4], family="poisson")
    X = fit.design.X
    want = (np.exp(X @ fit.beta) * fit.beta[1]).mean()
    assert_allclose(margins(fit, vcov=fit.vcov_rx).loc["x", "AME"], want, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": "nobody"}, "'nobody' is not a variable"),
        ({"at": {"nobody": 1}}, "at names 'nobody'"),
        ({"at": {"x": "far"}}, "must be numbers"),
        ({"type": "odds"}, "type='odds'"),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(mm.DataError, match=message):
        margins(FITS["poisson"](), **options)


def test_pictures_hold_the_numbers_of_the_table():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from mmcore.plots.effects import plot_effects

    table = predictive_margins(FITS["poisson"](), {"h": ["h0", "h2"], "x": [1, -1, 0]})
    axes = plot_effects(table, "x")
    for line, level in zip(axes.get_lines(), ("h0", "h2"), strict=True):
        assert line.get_label() == level
        assert_allclose(line.get_xdata(), [-1, 0, 1])
        assert_allclose(line.get_ydata(), table.loc[level].loc[[-1.0, 0.0, 1.0], "margin"])
    points = plot_effects(table.xs(0.0, level="x"))
    assert_allclose(points.get_lines()[0].get_ydata(), table.xs(0.0, level="x")["margin"])
    plt.close("all")
    with pytest.raises(mm.DataError, match="x='nobody' is not a variable of the table"):
        plot_effects(table, "nobody")
    with pytest.raises(mm.DataError, match=r"with columns lower\.CL"):
        plot_effects(table[["margin"]])
