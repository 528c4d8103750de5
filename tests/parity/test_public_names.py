"""Every public number of mmcore has a row with a reference, or a printed reason why it has none."""

import html
import inspect
from fnmatch import fnmatchcase

import numpy as np
import pytest

import mmcore as mm
from parity.compare.run import run
from parity.engines.mmcore.engine import MmcoreEngine
from parity.publish.report import to_html
from parity.schema.case import load_cases
from parity.schema.public_names import HELD, WITHOUT_REFERENCE, reason
from parity.schema.quantities import REGISTRY

FITS = (mm.LinearMixedFit, mm.LinearFit, mm.GeneralizedFit, mm.ChunkedFit)
RESULTS = (
    mm.CaseDeletion, mm.LmeInfluence, mm.LmList, mm.RandomEffectsPCA, mm.VarCorr, mm.DesignMatrices,
    mm.Bootstrap, mm.LikelihoodProfile, mm.WaldTest, mm.Estimates, mm.OptInfo, mm.Status,
)  # fmt: skip
# Results that are tables, or say what a fit is of: their attributes are those of a DataFrame or of a family.
NO_WALK = {
    "ChunkedFit", "Control", "Family", "Fit", "GeneralizedFit", "LinearFit", "LinearMixedFit", "MarginalMeans",
}  # fmt: skip
# One small model of each kind, the first that has the row is broken.
CASES = (
    "dyestuff_reml", "sleepstudy_slope_reml", "lm_sleepstudy", "glm_gasoline_gamma", "cbpp_laplace", "glm_quine_nb",
    "epil_nb",
)  # fmt: skip


def _attributes(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def public_names():
    found = {name for name in mm.__all__ if not inspect.isclass(getattr(mm, name))}
    for kind in FITS:
        found |= {f"fit.{name}" for name in _attributes(kind)}
    for kind in RESULTS:
        found |= {f"{kind.__name__}.{name}" for name in _attributes(kind)}
    return found


def test_every_public_number_is_held_by_a_row_or_says_why_not():
    silent = sorted(name for name in public_names() if not HELD.get(name) and reason(name) is None)
    assert not silent, f"neither a row of the registry nor a reason (parity/schema/public_names.py): {silent}"


def test_no_class_of_results_is_left_out_of_the_walk():
    classes = {name for name in mm.__all__ if inspect.isclass(getattr(mm, name))}
    errors = {name for name in classes if issubclass(getattr(mm, name), Exception)}
    assert classes - errors - {kind.__name__ for kind in RESULTS} == NO_WALK


def test_nothing_is_listed_twice_or_of_a_name_that_is_gone():
    names = public_names()
    assert set(HELD) <= names
    assert not [name for name in HELD if reason(name) is not None]
    for pattern, why in WITHOUT_REFERENCE.items():
        assert any(fnmatchcase(name, pattern) for name in names), pattern
        assert len(why.split()) >= 1
    unknown = {row for rows in HELD.values() for row in rows} - set(REGISTRY)
    assert not unknown


def broken(*_, **__):
    raise RuntimeError("broken on purpose")


def _break(monkeypatch, name):
    owner, dot, attribute = name.partition(".")
    if not dot:
        monkeypatch.setattr(mm, name, broken)
        return
    for kind in FITS if owner == "fit" else (getattr(mm, owner),):
        if hasattr(kind, attribute):
            is_method = inspect.isfunction(inspect.getattr_static(kind, attribute, None))
            monkeypatch.setattr(kind, attribute, broken if is_method else property(broken), raising=False)


@pytest.fixture(scope="module")
def whole():
    """Case -> the rows that mmcore gives for it."""
    shipped = {case.name: case for case in load_cases()}
    engine = MmcoreEngine()
    return {name: (shipped[name], set(engine.run(shipped[name], list(REGISTRY)).values)) for name in CASES}


@pytest.mark.parametrize("name", HELD)
def test_a_row_is_made_with_the_name_that_it_holds(name, whole, monkeypatch):
    _break(monkeypatch, name)
    for row in HELD[name]:
        having = [case for case, values in whole.values() if row in values]
        assert having, f"no case here has {row}"
        assert any(_is_lost(row, case, name) for case in having), f"{row} does not call {name}"


def _is_lost(row, case, name):
    at = np.ones(1) if name == "fit_at" and case.name == "dyestuff_reml" else None
    try:
        return row not in MmcoreEngine().run(case, [row], at).values
    except RuntimeError:  # it could not even be fitted
        return True


def test_the_reasons_are_printed_in_the_report(fake, case):
    report = run([case], fake(), [fake("reference")])
    page = html.unescape(to_html(report))
    for pattern, why in WITHOUT_REFERENCE.items():
        assert f"<td>{pattern}</td><td>{why}</td>" in page
