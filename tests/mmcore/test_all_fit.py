"""Several optimizers, one model: they must meet, and say so where one does not."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mmcore as mm
from mmcore.lmm.all_fit import METHODS, STARTS


def test_all_meet_at_the_published_optimum():
    fit = mm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"), reml=False)
    table = mm.all_fit(fit)
    assert len(table) == len(METHODS) * len(STARTS)
    assert_allclose(table["criterion"], 332.188348668, atol=2e-6)
    assert table["excess"].min() >= 0
    assert (table["covariance_distance"] < 1e-3).all()
    newton = table[table.method == "newton"]
    assert (newton["covariance_distance"] < 1e-6).all()
    assert newton["evaluations"].max() < table[table.method == "Nelder-Mead"]["evaluations"].min()


def test_a_start_at_a_saddle_is_told():
    """L-BFGS from Lambda = identity stops on a false boundary of Hsb82; its row shows the excess."""
    fit = mm.lmer("mAch ~ 1 + cses + (cses | school)", mm.load_dataset("Hsb82"))
    table = mm.all_fit(fit, methods=("newton", "L-BFGS-B", "BFGS"))
    assert table["excess"].iloc[0] < 1e-6
    assert fit.criterion <= table["criterion"].min() + 1e-7
    assert (table[table.method == "newton"]["excess"] < 1e-5).all()


def test_what_it_cannot_do_is_said():
    data = mm.load_dataset("sleepstudy")
    fit = mm.lmer("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(mm.UnsupportedError, match="'bobyqa'"):
        mm.all_fit(fit, methods=("bobyqa",))
    with pytest.raises(mm.UnsupportedError, match="linear mixed model"):
        mm.all_fit(mm.lm("Reaction ~ Days", data))
    assert np.isfinite(mm.all_fit(fit, methods=("newton",), starts=(1.0,))["criterion"]).all()
