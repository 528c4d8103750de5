"""Variables called like a measure keep their values in every table, and the measure stands beside them."""

import numpy as np
import pytest

import mmcore as mm

S = mm.load_dataset("sleepstudy")
NAMES = [
    "cooksd",
    "mdffits",
    "covratio",
    "id",
    ".id",
    ".resid",
    ".fitted",
    ".mar.resid",
    ".ls.resid",
    "leverage.overall",
]
TABLES = {
    "hlm_augment": mm.hlm_augment,
    "hlm_influence": mm.hlm_influence,
    "hlm_resid": mm.hlm_resid,
    "augment": mm.augment,
}


def renamed(name):
    return S.rename(columns={"Days": name}), f"Reaction ~ `{name}` + (1 | Subject)"


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", NAMES)
def test_a_variable_keeps_its_name_and_the_measure_its_value(name, table, exclude):
    plain = TABLES[table](mm.lmer("Reaction ~ Days + (1 | Subject)", S))
    data, formula = renamed(name)
    options = {}
    if exclude:
        data, options = data.assign(Reaction=S.Reaction.where(S.index != 5)), {"na_action": "exclude"}
        kept = S.assign(Reaction=data.Reaction)
        plain = TABLES[table](mm.lmer("Reaction ~ Days + (1 | Subject)", kept, **options))
    got = TABLES[table](mm.lmer(formula, data, **options))
    assert got.columns.is_unique
    assert len(got.columns) == len(plain.columns)
    at = list(plain.columns).index("Days")
    assert got.columns[at] == name
    for i in range(len(plain.columns)):
        assert got.iloc[:, i].equals(plain.iloc[:, i])
        old, new = plain.columns[i], got.columns[i]
        assert new == old or old == "Days" or (old == name and new in (f".{name}", f"..{name}"))


@pytest.mark.parametrize("table", ["hlm_resid", "hlm_augment"])
def test_groups_too(table):
    data = S.assign(
        **{".ranef.intercept": S.Subject.cat.codes.astype(float), "cooksd": S.Subject.cat.codes % 3}
    )
    fit = mm.lmer("Reaction ~ Days + `.ranef.intercept` + cooksd + (1 | Subject)", data)
    got = TABLES[table](fit, "Subject")
    first = data.groupby("Subject", observed=True).first()
    np.testing.assert_array_equal(got[".ranef.intercept"], first[".ranef.intercept"])
    np.testing.assert_array_equal(got["..ranef.intercept"], fit.ranef["Subject"]["(Intercept)"])
    np.testing.assert_array_equal(got["cooksd"], first["cooksd"])
    if table == "hlm_augment":
        np.testing.assert_array_equal(got[".cooksd"], mm.cooks_distance(fit, "Subject"))
