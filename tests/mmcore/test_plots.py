"""Plots show what they say: the points, the lines and the names on the axes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from numpy.testing import assert_allclose

import mmcore as mm
from tests.models import frame, small

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def points(ax):
    """All markers on the axes, as (n, 2)."""
    lines = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "None"]
    scatters = [np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
    return np.concatenate([x for x in [*lines, *scatters] if len(x)])


def names(ax):
    return [t.get_text() for t in ax.texts]


def test_residual_plots():
    fit = small("slope")
    ax = mm.plot_resid(fit)
    assert_allclose(points(ax), np.column_stack([fit.fitted, fit.resid(scaled=True)]))
    ax = mm.plot_qq(fit)
    assert_allclose(np.sort(points(ax)[:, 1]), np.sort(mm.rstudent(fit)))
    ax = mm.plot_qq(fit, "g", effect="x", band=False)
    assert_allclose(points(ax)[:, 1], np.sort(fit.ranef["g"]["x"]))
    with pytest.raises(mm.DataError, match="'q' is not a random effect"):
        mm.plot_qq(fit, "g", effect="q")


def test_cutoffs_are_quartiles_and_three_ranges():
    x = np.append(np.arange(11.0), 100.0)
    q1, q3 = np.quantile(x, [0.25, 0.75])
    assert mm.influence_cutoffs(x, "mdffits") == (-np.inf, q3 + 3 * (q3 - q1))
    assert mm.influence_cutoffs(x, "covratio") == (q1 - 3 * (q3 - q1), q3 + 3 * (q3 - q1))
    assert mm.influence_cutoffs(x, "leverage.fixef")[0] == -np.inf
    with pytest.raises(mm.UnsupportedError, match="'dfbetas'"):
        mm.influence_cutoffs(x, "dfbetas")


def test_dot_plot_marks_and_names_the_extremes():
    values = pd.Series([1.0, 1.1, 0.9, 1.05, 0.95, 9.0, -7.0, np.nan], index=list("abcdefgh"))
    ax = mm.dotplot_diag(values, name="covratio")
    assert names(ax) == ["f", "g"] and len(points(ax)) == 7
    assert_allclose(sorted(points(ax)[:, 0]), sorted(values.dropna()))
    ax = mm.dotplot_diag(values, name="cooksd")
    assert names(ax) == ["f"]
    ax = mm.dotplot_diag(values, cutoff=1.04, modify="dotplot")
    assert names(ax) == ["f", "b", "d"] and (points(ax)[:, 1] == 0).sum() == 4
    assert names(mm.dotplot_diag(values, cutoff=(0.0, 5.0), name="rvc")) == ["f", "g"]
    assert names(mm.dotplot_diag(values, cutoff=None)) == []
    assert mm.dotplot_diag(values, cutoff=1.04, modify="boxplot").get_title() == "Cook's distance"
    for bad in ({"modify": "violin"}, {"cutoff": "outer"}, {"cutoff": None, "modify": "dotplot"}):
        with pytest.raises(mm.UnsupportedError):
            mm.dotplot_diag(values, **bad)


def test_influence_plots():
    fit = small("crossed slope")
    for level in (1, "g"):
        table = mm.hlm_influence(fit, level)
        ax = mm.plot_influence(fit, level, label=2)
        assert_allclose(points(ax), table[["leverage.overall", "cooksd"]])
        assert names(ax)[0] == str(table.cooksd.idxmax())
    ax = mm.plot_dfbetas(fit)
    assert_allclose(np.sort(points(ax)[:, 0]), np.sort(mm.dfbetas(fit).to_numpy().ravel()))
    assert [t.get_text() for t in ax.get_yticklabels()] == list(fit.design.x_names)


def test_random_effect_plots():
    fit = small("slope")
    ax = mm.plot_ranef(fit, effect="x")
    modes = fit.ranef["g"]["x"].sort_values()
    assert_allclose(points(ax)[:, 0], modes)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(modes.index)
    data = frame(150).assign(y=lambda d: d.y + d.x * d.g.str[1:].astype(int))
    fit = mm.lmer("y ~ x + (x | g)", data)
    ax = mm.plot_eb_ls(fit, effect="x", identify=0.2)
    table = mm.compare_eb_ls(fit, identify=0.2).query("effect == 'x'")
    assert_allclose(points(ax), table[["eb", "ls"]])
    assert set(names(ax)) <= set(table.index[table.unusual])
    with pytest.raises(mm.UnsupportedError, match="no random effects"):
        mm.plot_ranef(mm.lm("y ~ x", data))


def test_a_given_axes_is_used():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert mm.plot_resid(small("slope"), ax=ax) is ax
