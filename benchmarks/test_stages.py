"""The stages of a fit, one by one: `make bench`, or `pytest benchmarks --benchmark-only`. Not in the suite.

A stage is timed only after the fit it belongs to has given the criterion that is known for it.
"""

import pytest

import mmcore as mm
from mmcore.design import build
from mmcore.formula import parse
from mmcore.products import cross_products

MODELS = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", 1743.628271958491),
    "Penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", 330.86058899108656),
    "Hsb82": ("mAch ~ cses * sector + (cses | school)", 46638.60241667885),
}


@pytest.fixture(params=MODELS)
def model(request):
    """Formula, data and the fit, checked."""
    formula, criterion = MODELS[request.param]
    data = mm.load_dataset(request.param)
    fit = mm.lmer(formula, data)
    assert fit.criterion == pytest.approx(criterion, rel=1e-10)
    return formula, data, fit


def test_parse(benchmark, model):
    formula, _, _ = model
    assert benchmark(parse, formula).response is not None


def test_design(benchmark, model):
    formula, data, fit = model
    assert benchmark(build, formula, data).n == fit.design.n


def test_cross_products(benchmark, model):
    _, _, fit = model
    benchmark(cross_products, fit.design)


def test_criterion(benchmark, model):
    _, _, fit = model
    factor = benchmark(fit.criterion_fn.factor, fit.par)
    assert factor is not None


def test_derivatives(benchmark, model):
    _, _, fit = model
    factor = fit.criterion_fn.factor(fit.par)
    gradient, _ = benchmark(fit.criterion_fn.derivatives, fit.par, factor)
    assert abs(gradient).max() < 1e-3


def test_fit(benchmark, model):
    formula, data, fit = model
    assert benchmark(mm.lmer, formula, data).criterion == fit.criterion
