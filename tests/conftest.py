"""Settings of the whole suite: one BLAS thread, live tests only where R is, counted where it is not."""

import os

# Before NumPy loads its BLAS: sums in a fixed order, and no contention between processes on small machines.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import pytest  # noqa: E402

_not_run = 0


def _r_available() -> bool:
    try:
        from parity.rworker import r_available
    except ImportError:
        return False
    return bool(r_available())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect live tests where R with lme4 is absent."""
    global _not_run
    live = [item for item in items if item.get_closest_marker("live")]
    if not live or _r_available():
        return
    _not_run = len(live)
    config.hook.pytest_deselected(items=live)
    items[:] = [item for item in items if not item.get_closest_marker("live")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many live tests were not run, and what mends it."""
    if _not_run:
        terminalreporter.write_line(
            f"{_not_run} live tests not run: R with lme4 and rpy2 not found; see `parity doctor`",
            yellow=True,
        )
