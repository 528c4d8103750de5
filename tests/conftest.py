"""Settings of the whole suite: one BLAS thread, live tests only where R is, counted where it is not."""

import os

# Before NumPy loads its BLAS: sums in a fixed order, and no contention between processes on small machines.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import pytest  # noqa: E402

NOT_RUN = "live_not_run"
_counted = {NOT_RUN: 0}


def _r_available() -> bool:
    try:
        from parity.r.worker import r_available
    except ImportError:
        return False
    return r_available()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect live tests where R with lme4 is absent."""
    live = [item for item in items if item.get_closest_marker("live")]
    if not live or _r_available():
        return
    _counted[NOT_RUN] = len(live)
    config.hook.pytest_deselected(items=live)
    items[:] = [item for item in items if not item.get_closest_marker("live")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of a parallel run: hand the number to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput |= _counted


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """In that process: every worker has collected, and deselected, the same tests."""
    said = getattr(node, "workeroutput", {}).get(NOT_RUN, 0)
    _counted[NOT_RUN] = max(_counted[NOT_RUN], said)


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many live tests were not run, and what mends it."""
    if _counted[NOT_RUN]:
        terminalreporter.write_line(
            f"{_counted[NOT_RUN]} live tests not run: R with lme4 and rpy2 not found; see `parity doctor`",
            yellow=True,
        )
