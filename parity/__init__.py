"""parity: does an engine give R's numbers? Cases, references, gates and reports for mixed-model engines."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.check import check_engine

__all__ = ["check_engine"]


def __getattr__(name: str) -> Any:
    # On demand: the command line answers `--help` without loading NumPy and pandas.
    if name == "check_engine":
        from parity.check import check_engine

        return check_engine
    raise AttributeError(f"module 'parity' has no attribute {name!r}")
