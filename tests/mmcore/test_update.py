"""update: the same call with something changed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mmcore as mm

SLEEP = mm.load_dataset("sleepstudy")
DATA = SLEEP.assign(w=np.resize([0.5, 1.0, 2.0], 180), z=np.resize([0.0, 1.0, 3.0, 2.0, 2.5], 180))
FORMULA = "Reaction ~ Days + (Days | Subject)"


def same(one, other):
    assert one.formula == other.formula
    assert_allclose(one.criterion, other.criterion, rtol=1e-12)
    assert_allclose(one.fixef, other.fixef, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "formula", "options"),
    [
        ({"reml": False}, FORMULA, {"reml": False}),
        ({"formula": ". ~ . - Days"}, "Reaction ~ Days + (Days | Subject) - Days", {}),
        ({"formula": "log(.) ~ ."}, "log(Reaction) ~ Days + (Days | Subject)", {}),
        (
            {"formula": "~ . + I(Days^2)", "reml": False},
            "Reaction ~ Days + (Days | Subject) + I(Days^2)",
            {"reml": False},
        ),
        ({"formula": "~ . + z", "data": DATA}, "Reaction ~ Days + (Days | Subject) + z", {}),
        ({"data": DATA, "weights": "w"}, FORMULA, {"weights": "w"}),
        ({"sigma": 30.0}, FORMULA, {"sigma": 30.0}),
    ],
)
def test_update_is_the_call_with_changes(changes, formula, options):
    fit = mm.lmer(FORMULA, SLEEP)
    changes = dict(changes)
    same(fit.update(changes.pop("formula", None), **changes), mm.lmer(formula, DATA, **options))


def test_weights_and_offset_are_kept():
    fit = mm.lmer(FORMULA, DATA, weights="w", offset=DATA.z)
    same(fit.update(reml=False), mm.lmer(FORMULA, DATA, weights="w", offset=DATA.z, reml=False))


def test_new_variables_need_data():
    with pytest.raises(mm.DataError, match="z"):
        mm.lmer(FORMULA, SLEEP).update("~ . + z")
    with pytest.raises(mm.DataError, match="'REML'"):
        mm.lmer(FORMULA, SLEEP).update(REML=False)
    with pytest.raises(mm.DataError, match="'~'"):
        mm.lmer(FORMULA, SLEEP).update("x + z")
