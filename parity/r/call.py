"""A call of an R function: what comes of it, and the surroundings in which R runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from parity.process import how_it_ended
from parity.r.values import RValue
from parity.resources import r_libraries

ReplyStatus = Literal["ok", "r_error", "crashed", "timeout", "protocol"]

_SURROUNDINGS = {
    "TZ": "UTC",  # else R asks `timedatectl`, also on machines that have none
    "LC_ALL": "C.UTF-8",  # the order of levels does not depend on the machine
    "LANGUAGE": "en",
    "OMP_NUM_THREADS": "1",  # sums in a fixed order
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "R_PROFILE_USER": "",  # options and packages are ours
    "R_ENVIRON_USER": "",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call of an R function."""

    status: ReplyStatus
    value: RValue = None  # what the function returned; None unless status is "ok"
    message: str = ""  # R's error message, or what happened to the process
    warnings: tuple[str, ...] = ()  # R's warnings, in order, each once
    messages: tuple[str, ...] = ()  # R's messages ("boundary (singular) fit ..."), in order, each once
    exit_code: int | None = None  # of a crashed process; negative: killed by that signal
    seconds: float = 0.0  # wall time, starting R included

    def timed(self, seconds: float) -> "Reply":
        """The same reply with its wall time."""
        return replace(self, seconds=seconds)


class Workers(Protocol):
    """The calls that both ways of running R offer. Safe to use from several threads."""

    name: str

    def call(
        self, function: str, arguments: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Reply:
        """Call an R function by name and wait for it. Never raises for what R or its process does."""
        ...

    def close(self) -> None:
        """Stop all processes, also those with a call under way."""
        ...


def surroundings() -> dict[str, str]:
    """Environment variables for a process that runs R."""
    return {**_SURROUNDINGS, "R_LIBS": r_libraries()}


def guarded_reply(guarded: Mapping[str, Any]) -> Reply:
    """The reply to what `guarded` of `call.R` returned."""
    ok = bool(guarded["ok"][0])
    return Reply(
        "ok" if ok else "r_error",
        value=guarded["value"] if ok else None,
        message="" if ok else str(guarded["error"][0]),
        warnings=tuple(guarded["warnings"]),
        messages=tuple(guarded["messages"]),
    )


def crashed(code: int | None) -> Reply:
    """The reply of a process that ended during the call."""
    return Reply(
        "crashed", message=f"the R process ended during the call ({how_it_ended(code)})", exit_code=code
    )


def stopped(limit: float, *, starting: bool = False) -> Reply:
    """The reply of a process that was stopped."""
    return Reply(
        "timeout", message=f"R was stopped after {limit:g} s{' while it started' if starting else ''}"
    )


def not_through(what: str, error: BaseException | str) -> Reply:
    """The reply to a call that never reached the R function, or whose answer never came back."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Reply("protocol", message=f"{what}: {text}")
