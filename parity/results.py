"""What an engine says about a case: named quantities, each with labels and values, in one schema for every
engine.

Labels are mandatory: engines are compared label by label, never position by position. How each kind of
quantity is labelled (scalars `""`, pairs `"a|b"`, rows by their 1-based number in the data set, levels
`"group|level"`) is written in `quantities.INDEXES`.

A recording is a `Results` and where it came from, in one JSON file (compressed where large) with a
checksum.
"""

import gzip
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np

from parity.case import Case

SCHEMA = 1
COMPRESS_ABOVE = 1_000_000  # bytes of JSON

Status = Literal[
    "ok",
    "refused",  # the model was rejected on purpose, with a message for the user
    "unsupported",  # the engine does not do this kind of model
    "error",  # it failed
    "crashed",  # its process died
    "timeout",  # it was stopped
    "missing",  # a recording that does not exist, is damaged, or belongs to another content of the case
]
MissingKind = Literal["unsupported", "undefined", "error", "skipped"]


class RecordingError(ValueError):
    """A recording cannot be used: damaged, of another schema, or made for other content; the message says
    which."""


@dataclass(frozen=True, slots=True)
class Value:
    """One quantity of one model: numbers that carry their own labels."""

    labels: tuple[str, ...]  # (m,) unique within the quantity
    values: np.ndarray  # (m,) float64, read-only; NaN where the engine leaves the element undefined

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 1 or len(values) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels for values of shape {values.shape}")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", tuple(self.labels))


@dataclass(frozen=True, slots=True)
class Missing:
    """Why an engine has no value for a quantity."""

    kind: MissingKind  # "undefined": this model has no such number; "skipped": too costly
    message: str


def _frozen() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Results:
    """What one engine says about one case. Engines never raise for a bad case: `status` and `message`
    tell."""

    engine: str
    version: str
    status: Status = "ok"
    message: str = ""
    warnings: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=_frozen)  # quantity -> Value
    missing: Mapping[str, Missing] = field(default_factory=_frozen)  # quantity -> why there is no value
    singular: bool | None = None  # the fit is on the boundary of the parameter space; None: not said
    converged: bool | None = None  # None: nothing was optimised, or not said
    seconds: float | None = None  # wall time of the fit and its measures
    provenance: Mapping[str, Any] = field(default_factory=_frozen)  # versions, hash of the code, checks made

    def __post_init__(self) -> None:
        for name in ("values", "missing", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "warnings", tuple(self.warnings))

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: getattr(self, name) for name in self.__slots__}
        state |= {name: dict(state[name]) for name in ("values", "missing", "provenance")}
        return _rebuild, (state,)

    @property
    def theta(self) -> np.ndarray | None:
        """(n_theta,) covariance parameters in lme4's order, or None."""
        value = self.values.get("theta")
        return None if value is None else value.values


def joint(results: Results) -> np.ndarray | None:
    """(n_theta + p,) theta, then the fixed effects: where the likelihood of a generalised model was
    evaluated."""
    theta, beta = results.theta, results.values.get("fixef")
    return None if theta is None or beta is None else np.concatenate([theta, beta.values])


def _rebuild(state: dict[str, Any]) -> Results:
    return Results(**state)


def scalar(number: float) -> Value:
    """A quantity of one number, with the label `""`."""
    return Value(("",), np.array([number], dtype=np.float64))


# --- recordings --------------------------------------------------------------------------------


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    labels: str  # a key of `label_sets`
    values: list[float | Literal["NaN", "Inf", "-Inf"]]


class _StoredMissing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: MissingKind
    message: str


class _Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `label_sets` holds each tuple of labels once: most quantities of a model share a few."""

    schema: int
    checksum: str  # SHA-256 of the file's canonical JSON without this field
    case: Case
    engine: str
    version: str
    status: Status
    message: str
    warnings: list[str]
    singular: bool | None
    converged: bool | None
    provenance: dict[str, Any]
    label_sets: dict[str, list[str]]
    values: dict[str, _Stored]
    missing: dict[str, _StoredMissing]


@dataclass(frozen=True, slots=True)
class Recording:
    """A stored reference: the case as it was when recorded, and what the engine said."""

    case: Case
    results: Results


def recording_path(directory: Path, case_name: str) -> Path:
    """Where the recording of a case is (or would be written, uncompressed) in `directory`."""
    plain = directory / f"{case_name}.json"
    packed = directory / f"{case_name}.json.gz"
    return packed if packed.exists() else plain


def write_recording(directory: Path, case: Case, results: Results) -> Path:
    """Write a recording, replacing one of the same name, and return its path.

    Numbers are written as the shortest text that reads back to the same double (17 digits at most); NaN and
    the infinities as strings. Files above 1 MB are compressed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = _content(case, results)
    content["checksum"] = _checksum(content)
    data = _layout(content)
    packed = len(data) > COMPRESS_ABOVE
    path = directory / f"{case.name}.json{'.gz' if packed else ''}"
    other = directory / f"{case.name}.json{'' if packed else '.gz'}"
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(gzip.compress(data, 9, mtime=0) if packed else data)
    temporary.replace(path)
    other.unlink(missing_ok=True)
    return path


def read_recording(path: Path) -> Recording:
    """Read and verify a recording.

    Raises
    ------
    RecordingError
        if the file is missing, truncated, of another schema, or its checksum does not match its content.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        content = msgspec.json.decode(data)
        stored = msgspec.convert(content, _Recording)
    except FileNotFoundError as error:
        message = f"there is no recording {path.name}; `parity record` makes one from live R"
        raise RecordingError(message) from error
    except (OSError, EOFError, msgspec.DecodeError, ValueError) as error:
        message = f"recording {path.name} is damaged: {error}; restore it or record it again"
        raise RecordingError(message) from error
    if stored.schema != SCHEMA:
        raise RecordingError(f"recording {path.name} has schema {stored.schema}, this program reads {SCHEMA}")
    checksum = _checksum(content)
    if checksum != stored.checksum:
        raise RecordingError(
            f"recording {path.name} is damaged: its checksum is {stored.checksum[:12]}..., its content "
            f"hashes to {checksum[:12]}...; restore it or record it again"
        )
    return Recording(stored.case, _results(path, stored))


def _content(case: Case, results: Results) -> dict[str, Any]:
    sets: dict[tuple[str, ...], str] = {}
    values = {
        name: {
            "labels": sets.setdefault(value.labels, f"L{len(sets)}"),
            "values": [_number(x) for x in value.values.tolist()],
        }
        for name, value in results.values.items()
    }
    return {
        "schema": SCHEMA,
        "case": msgspec.to_builtins(case),
        "engine": results.engine,
        "version": results.version,
        "status": results.status,
        "message": results.message,
        "warnings": list(results.warnings),
        "singular": results.singular,
        "converged": results.converged,
        "provenance": msgspec.to_builtins(dict(results.provenance)),
        "label_sets": {key: list(labels) for labels, key in sets.items()},
        "values": values,
        "missing": {
            name: {"kind": why.kind, "message": why.message} for name, why in results.missing.items()
        },
    }


def _results(path: Path, stored: _Recording) -> Results:
    unknown = sorted({value.labels for value in stored.values.values()} - set(stored.label_sets))
    if unknown:
        raise RecordingError(f"recording {path.name} is damaged: no label sets {', '.join(unknown)}")
    labels = {key: tuple(names) for key, names in stored.label_sets.items()}
    try:
        values = {
            name: Value(labels[value.labels], np.array([float(x) for x in value.values]))
            for name, value in stored.values.items()
        }
    except ValueError as error:
        raise RecordingError(f"recording {path.name} is damaged: {error}") from error
    return Results(
        engine=stored.engine,
        version=stored.version,
        status=stored.status,
        message=stored.message,
        warnings=tuple(stored.warnings),
        values=values,
        missing={name: Missing(why.kind, why.message) for name, why in stored.missing.items()},
        singular=stored.singular,
        converged=stored.converged,
        provenance=stored.provenance,
    )


def _number(x: float) -> float | str:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Inf" if x > 0 else "-Inf"


def _checksum(content: Mapping[str, Any]) -> str:
    body = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def _layout(content: dict[str, Any]) -> bytes:
    """JSON with one quantity per line, so that a changed recording shows as changed lines."""
    lines: list[str] = []
    for key in ("schema", "checksum", *(k for k in content if k not in ("schema", "checksum"))):
        lines.append(f"{_text(key)}: {_block(key, content[key])}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _block(key: str, value: Any) -> str:
    if key not in ("values", "label_sets", "missing", "provenance") or not value:
        return _text(value)
    rows: Sequence[str] = [f"  {_text(name)}: {_text(entry)}" for name, entry in value.items()]
    return "{\n" + ",\n".join(rows) + "\n}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
