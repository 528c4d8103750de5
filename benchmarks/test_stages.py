"""The stages of a fit by size: `make bench`, or `pytest benchmarks --benchmark-only`. Not in the suite.

A stage is timed only after the fit it belongs to has given the criterion that is known for it, and must give the same
number each time. `extra_info` has the evaluations of the fit and, from a process of its own, its peak memory.
`--benchmark-json FILE` keeps all of it. MMPARITY_BENCH_LARGE=0 leaves out what takes minutes.
"""

import os

import pytest

import mmcore as mm
from parity.bench import memory, stages
from parity.bench.problems import PROBLEMS

# What a stage is timed at: enough to see each one at the sizes where it matters.
SIZES = {
    "sleepstudy": stages.LINEAR,
    "cbpp": stages.GENERALIZED,
    "hsb82": stages.LINEAR,
    "insteval": ("design", "products", "evaluation", "gradient", "fit", "influence"),
    "ratings_100k": ("design", "products", "evaluation", "gradient", "fit"),
    "slopes_1m": ("design", "products", "evaluation", "gradient", "fit"),
    "nested_1m": ("evaluation", "gradient", "fit"),
}
LARGE = os.environ.get("MMPARITY_BENCH_LARGE", "1") != "0"
PLAN = [
    (name, stage) for name, some in SIZES.items() for stage in some if LARGE or PROBLEMS[name].size != "large"
]
LONG = 1.0  # seconds of one run from which on three rounds are enough


@pytest.fixture(scope="module")
def made():
    """Stages and facts of the problem at hand; one problem is kept at a time, the plan being in their order."""
    kept = {}

    def make(name):
        if name not in kept:
            kept.clear()
            problem = PROBLEMS[name]
            functions, evaluations = stages.stages(mm, problem, problem.data())
            criterion = functions["fit"]()
            if problem.criterion is not None:
                assert criterion == pytest.approx(problem.criterion, rel=1e-9)
            facts = {"evaluations": evaluations, "criterion": criterion, "peak_mb": memory.of_mmcore(problem)}
            kept[name] = functions, facts
        return kept[name]

    return make


@pytest.mark.parametrize(("name", "stage"), PLAN, ids=lambda value: value)
def test_stage(benchmark, made, name, stage):
    functions, facts = made(name)
    work = functions[stage]
    known, start = work(), benchmark._timer()
    again = work()
    seconds = benchmark._timer() - start
    assert again == pytest.approx(known, rel=1e-9)
    benchmark.extra_info |= facts | {"size": PROBLEMS[name].size}
    benchmark.group = name
    long = seconds > LONG
    value = benchmark.pedantic(work, rounds=3, iterations=1) if long else benchmark(work)
    assert value == pytest.approx(known, rel=1e-9)
