"""A case: one model on one data set, as data. Every engine gets the same case and nothing else.

A case is a JSON file in `parity/cases/`. It holds no code: the formula is text that the engines parse,
columns that the data set lacks are given as numbers. Its `id` is a hash of what defines the model, so that
a recording made for an older content of the case is noticed.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pandas as pd

from parity.resources import cases_dir
from parity.schema.spec import Spec, arguments, formula, settled
from parity.schema.spec import data as generated_data

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
Family = Literal["gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "negative.binomial"]
Kind = Literal["lm", "glm", "lmm", "glmm"]  # generalised or not, with random effects or not
Contrast = Literal["contr.treatment", "contr.sum", "contr.helmert", "contr.poly", "contr.SAS"]


GENERATED = "generated"


class CaseError(ValueError):
    """A case file cannot be read, or a case asked for does not exist; the message names file and field."""


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model on one data set. Not a result, and not tied to any engine."""

    name: Name  # unique among the cases; file name without ".json"
    data: Name  # name of a shipped data set; "generated" for data that `generated` describes
    formula: str  # lme4's language; parsed by the engines, never evaluated
    family: Family = "gaussian"
    link: str | None = None  # None: the family's default in R
    reml: bool = True  # Gaussian models only
    size: float | None = None  # theta of a negative binomial family; None: estimated
    nagq: int = 1  # quadrature points (generalised mixed models); 0: fixed effects at the joint mode
    weights: str | None = None  # name of a column
    offset: str | None = None  # name of a column
    contrasts: dict[str, Contrast] = {}  # factor -> coding; R's defaults elsewhere
    columns: dict[str, tuple[float, ...]] = {}  # columns added to the data, values recycled over its rows
    rows: tuple[int, int, int] | None = None  # start, stop, step of a slice of the data; None: all
    generated: Spec | None = None  # made-up data
    expect: Literal["fit", "refuse"] = "fit"  # "refuse": an invalid model that both sides must reject
    tags: tuple[str, ...] = ()  # "lmm", "slow", ...: for selection only
    note: str = ""  # what this case is there to show

    def __post_init__(self) -> None:
        if not self.formula.strip():
            raise ValueError("`formula` is empty")
        if self.size is not None and self.family != "negative.binomial":
            raise ValueError(f"`size` is of a negative binomial family, not of {self.family}")
        if self.rows is not None and self.rows[2] < 1:
            raise ValueError(f"`rows` has step {self.rows[2]}; rows are taken in data order, step 1 or more")
        if (self.data == GENERATED) != (self.generated is not None):
            raise ValueError(f"`generated` and `data` = {GENERATED!r} come together")
        empty = [name for name, values in self.columns.items() if not values]
        if empty:
            raise ValueError(f"`columns` gives no values for {', '.join(empty)}")

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of all that defines the model (not name, tags and
        note)."""
        return hashlib.sha256(canonical(self)).hexdigest()[:12]

    @property
    def estimates_size(self) -> bool:
        """Whether the size of a negative binomial family is one of the parameters."""
        return self.family == "negative.binomial" and self.size is None

    @property
    def kind(self) -> Kind:
        """What kind of model it is: which quantities exist and what an engine must be capable of."""
        plain = self.family == "gaussian" and self.link in (None, "identity")
        if "|" in self.formula:
            return "lmm" if plain else "glmm"
        return "lm" if plain else "glm"


_DESCRIPTIVE = ("name", "tags", "note")


def canonical(case: Case) -> bytes:
    """The defining content of a case as canonical JSON (sorted keys, defaults omitted)."""
    content = {key: value for key, value in msgspec.to_builtins(case).items() if key not in _DESCRIPTIVE}
    return msgspec.json.encode(content, order="sorted")


def load_case(path: Path) -> Case:
    """Read one case file.

    Raises
    ------
    CaseError
        if the file cannot be read, is not JSON, has an unknown or missing field, or is not named after its
        case.
    """
    try:
        case = msgspec.json.decode(path.read_bytes(), type=Case)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise CaseError(f"case file {path.name}: {error}") from error
    if case.name != path.stem:
        raise CaseError(f"case file {path.name}: `name` is {case.name!r}; the two must be equal")
    return case


def load_cases(directory: Path | None = None) -> tuple[Case, ...]:
    """All cases of a directory (default: the shipped ones), in order of name."""
    folder = cases_dir() if directory is None else directory
    return tuple(load_case(path) for path in sorted(folder.glob("*.json")))


def select(cases: Sequence[Case], wanted: Iterable[str] = (), *, slow: bool = False) -> tuple[Case, ...]:
    """The cases that match any of `wanted`: a name, a shell pattern of names, an id or `tag:TAG`.

    With nothing wanted, all cases except those tagged "slow" (unless `slow`). A case asked for by its name
    is always included.

    Raises
    ------
    CaseError
        if an entry of `wanted` matches no case; the message lists the nearest names.
    """
    wanted = tuple(wanted)
    if not wanted:
        return tuple(case for case in cases if slow or "slow" not in case.tags)
    found = [_matching(cases, entry, slow) for entry in wanted]
    chosen = {case.name for group in found for case in group}
    return tuple(case for case in cases if case.name in chosen)


def _matching(cases: Sequence[Case], entry: str, slow: bool) -> list[Case]:
    exact = [case for case in cases if entry in (case.name, case.id)]
    if exact:
        return exact
    if entry.startswith("tag:"):
        found = [case for case in cases if entry[4:] in case.tags]
        return _or_unknown(found if slow or entry == "tag:slow" else _quick(found), cases, entry)
    pattern = re.compile(_glob(entry))
    found = [case for case in cases if pattern.fullmatch(case.name)]
    return _or_unknown(found if slow else _quick(found), cases, entry)


def _quick(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if "slow" not in case.tags]


def _glob(entry: str) -> str:
    return "".join(".*" if ch == "*" else "." if ch == "?" else re.escape(ch) for ch in entry)


def _or_unknown(found: list[Case], cases: Sequence[Case], entry: str) -> list[Case]:
    if found:
        return found
    import difflib

    near = difflib.get_close_matches(entry, [case.name for case in cases], n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise CaseError(f"no case is named {entry!r}{hint} (`parity list cases` shows all)")


def frame(case: Case) -> pd.DataFrame:
    """The data of a case: the data set, the added columns, then the rows asked for.

    The index holds the 1-based row numbers of the data set, so that row labels survive a subset.

    Raises
    ------
    CaseError
        if the data set is missing or an added column would replace one of its own.
    """
    data = _loaded(case) if case.generated is None else generated_data(case.generated)
    clash = [name for name in case.columns if name in data.columns]
    if clash:
        raise CaseError(f"case {case.name}: `columns` would replace {', '.join(clash)} of {case.data}")
    for name, values in case.columns.items():
        data[name] = [values[i % len(values)] for i in range(len(data))]
    return data if case.rows is None else data.iloc[slice(*case.rows)]


def _loaded(case: Case) -> pd.DataFrame:
    from mmcore.datasets import load_dataset

    try:
        data = load_dataset(case.data)
    except (OSError, KeyError, ValueError) as error:
        raise CaseError(f"case {case.name}: data set {case.data!r} cannot be loaded: {error}") from error
    return data.set_axis(pd.RangeIndex(1, len(data) + 1))


def case_of(spec: Spec) -> Case:
    """The case of a spec, named by the hash of its content."""
    spec = settled(spec)
    case = Case(
        name="fuzz", data="generated", generated=spec, formula=formula(spec), tags=("fuzz",),
        note="made up from a seed", **arguments(spec),  # type: ignore[arg-type]
    )  # fmt: skip
    return msgspec.structs.replace(case, name=f"fuzz-{case.id}")
