"""What the harness adds to a fit: reading a case, asking mmcore through its adapter, comparing; a call of R."""

import pytest

from parity.bench.problems import PROBLEMS
from parity.compare.run import run
from parity.engines.load import load
from parity.r.worker import RWorkers, r_environment
from parity.schema.case import frame, load_cases, select


@pytest.fixture(scope="module")
def case():
    return select(load_cases(), [PROBLEMS["sleepstudy"].reference])[0]


def test_data_of_a_case(benchmark, case):
    assert len(benchmark(frame, case)) == 180


def test_adapter_of_mmcore(benchmark, case):
    results = benchmark(load("mmcore").run, case, ("criterion",))
    assert results.values["criterion"].values[0] == pytest.approx(PROBLEMS["sleepstudy"].criterion, rel=1e-9)


def test_comparison_with_a_recording(benchmark, case):
    engine, reference = load("mmcore"), load("recorded")
    quantities = ("criterion", "fixef", "theta")
    report = benchmark(run, [case], engine, [reference], lanes=["optimum"], quantities=quantities)
    assert report.exit_code == 0


def test_call_of_r(benchmark):
    if not r_environment().embedded:
        pytest.skip("no live R here")
    with RWorkers(timeout=60.0) as workers:
        workers.call("base::nchar", {"x": "a"})
        assert benchmark(workers.call, "base::nchar", {"x": "abc"}).status == "ok"
