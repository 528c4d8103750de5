"""Known differences: expected mismatches as data, each with a reason and evidence. They are strict.

An entry that covers a comparison which agrees turns it into a failure (`known_but_agrees`), so that a
mended difference cannot stay on the list. Developers of other engines keep their own list and hand it to
`check_engine`.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from parity.schema.quantities import NAMES

KNOWN_FILE = Path(__file__).resolve().parent / "known_differences.toml"

Text = Annotated[str, msgspec.Meta(min_length=10)]


class KnownError(ValueError):
    """A list of known differences cannot be read; the message names file and entry."""


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One expected mismatch. `case`, `quantity`, `lane`, `engine`, `reference` are shell patterns."""

    case: str
    quantity: str
    reason: Text
    evidence: Text
    lane: str = "*"
    engine: str = "*"
    reference: str = "*"
    verdict: Literal["known", "reference_wrong"] = "known"
    versions: str = ""  # of R and its packages where the difference was seen

    def covers(self, *, case: str, quantity: str, lane: str, engine: str, reference: str) -> bool:
        """Whether the entry speaks of this comparison."""
        pairs = (
            (case, self.case), (quantity, self.quantity), (lane, self.lane),
            (engine, self.engine), (reference, self.reference),
        )  # fmt: skip
        return all(fnmatch.fnmatchcase(name, pattern) for name, pattern in pairs)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    difference: tuple[Known, ...] = ()


def load_known(path: Path = KNOWN_FILE) -> tuple[Known, ...]:
    """Read a list of known differences.

    Raises
    ------
    KnownError
        on an unreadable file, an entry without reason or evidence, or a quantity pattern that matches no
        quantity.
    """
    try:
        entries = msgspec.toml.decode(path.read_bytes(), type=_File).difference
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise KnownError(f"known differences {path.name}: {error}") from error
    return _checked(entries, path.name)


class _Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    expected: dict[str, str]


def load_expected(path: Path, engine: str) -> tuple[Known, ...]:
    """Read the differences that the author of an engine expects: `"case:quantity" = "reason"` under `[expected]`.

    Raises
    ------
    KnownError
        on an unreadable file, or an entry that `from_mapping` refuses.
    """
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=_Expected)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise KnownError(f"expected differences {path.name}: {error}") from error
    return from_mapping(content.expected, engine)


def faults_of_references() -> tuple[Known, ...]:
    """The known differences in which the reference is at fault, whichever engine is compared."""
    return tuple(
        entry for entry in load_known() if entry.verdict == "reference_wrong" and entry.engine == "*"
    )


def from_mapping(expected: Mapping[str, str], engine: str) -> tuple[Known, ...]:
    """Entries from `{"case:quantity": reason}`, both sides of the colon being patterns; the form of
    `check_engine`.

    Raises
    ------
    KnownError
        if a key is not of that form or the reason is missing.
    """
    entries = []
    for key, reason in expected.items():
        case, colon, name = key.partition(":")
        if not colon or len(reason) < 10:
            raise KnownError(
                f"expected difference {key!r}: write 'case:quantity' and a reason of at least 10 characters"
            )
        evidence = "stated by the engine's author"
        entries.append(Known(case=case, quantity=name, reason=reason, evidence=evidence, engine=engine))
    return _checked(entries, "expected_differences")


def _checked(entries: Iterable[Known], source: str) -> tuple[Known, ...]:
    entries = tuple(entries)
    for entry in entries:
        if not fnmatch.filter((*NAMES, "*"), entry.quantity):
            raise KnownError(f"{source}: no quantity matches {entry.quantity!r} (case {entry.case!r})")
    return entries
