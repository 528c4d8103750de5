"""The gate tested: faults put into mmcore's mathematics on purpose, one at a time; each must be caught.

A mutant is a replacement of text in one file of mmcore (`mutants.toml`), made while the file is imported in a
process of its own: nothing on disk changes. The process runs a quick gate, small cases against the recorded
and the certified references, and says what it found first. Models of several factors run twice, with the
dense and with the structured factor of V, so that the faults of both are seen."""

import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Annotated, Any

import msgspec

from parity.schema.quantities import REGISTRY

MUTANTS_FILE = Path(__file__).resolve().parent / "mutants.toml"
TIME_LIMIT = 120.0  # seconds for one mutant; a fault that makes a fit endless is caught by its time
PACKAGE = "mmcore"
WITHOUT_REFITS = tuple(row.name for row in REGISTRY.values() if not row.refits)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the quick gate."""

    cases: tuple[str, ...]
    reference: str
    lanes: tuple[str, ...]
    structured: bool = False  # small models through the kernels of large ones
    refits: bool = False  # deletion refits too, which take most of the time


STEPS = (
    Step(
        ("dyestuff_ml", "sleepstudy_slope_reml", "penicillin_crossed_ml", "pastes_nested_reml"),
        "recorded", ("at_theta",),
    ),
    Step(
        (
            "sleepstudy_weights_offset_reml", "orthodont_weights_ml", "machines_contrasts_ml",
            "machines_factor_slope_reml", "cake_polynomial_reml", "sleepstudy_aliased_reml",
            "sleepstudy_slope_crossed_ml", "pixel_nested_slope_reml", "sleepstudy_unbalanced_ml",
        ),
        "recorded", ("at_theta",),
    ),
    Step(
        (
            "penicillin_crossed_ml", "pastes_nested_reml", "machines_nested_reml", "pixel_nested_slope_reml",
            "sleepstudy_slope_crossed_ml", "penicillin_crossed_reml", "pastes_nested_ml",
        ),
        "recorded", ("at_theta", "optimum"), structured=True,
    ),
    Step(
        (
            "dyestuff_reml", "dyestuff_ml", "dyestuff2_singular_reml", "sleepstudy_slope_ml", "pastes_nested_ml",
            "pastes_nested_reml", "penicillin_crossed_reml", "sleepstudy_doublebar_reml",
        ),
        "certified", ("certified",),
    ),
    Step(
        (
            "cbpp_laplace", "cbpp_agq9", "cbpp_probit", "cbpp_nagq0", "ratpup_gamma", "epil_slope", "glm_snails_logit",
            "glm_gasoline_gamma", "glm_quine_nb_given", "glm_epil_sqrt",
        ),
        "recorded", ("at_theta", "optimum"),
    ),
    Step(("dyestuff_reml", "rail_ml", "machines_nested_reml"), "certified", ("certified",), refits=True),
)  # fmt: skip


class MutantError(ValueError):
    """The list of mutants cannot be used, or the gate is not green without any; the message says which."""


class Mutant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault: a text that stands once in a file of mmcore, and what replaces it."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]+$")]
    file: str  # below mmcore/
    old: str
    new: str
    what: str  # the slip that it stands for


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mutant: tuple[Mutant, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutant."""

    mutant: str
    caught: bool
    by: str  # where the gate saw it first; "" if it did not
    seconds: float = 0.0


def load_mutants(path: Path = MUTANTS_FILE) -> tuple[Mutant, ...]:
    """Read the list.

    Raises
    ------
    MutantError
        if it cannot be read, a name is used twice, a replacement changes nothing, or its text does not stand exactly
        once in its file.
    """
    try:
        mutants = msgspec.toml.decode(path.read_bytes(), type=_File).mutant
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise MutantError(f"{path.name}: {error}") from error
    names = [mutant.name for mutant in mutants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MutantError(f"{path.name}: used twice: {', '.join(twice)}")
    trouble = [said for mutant in mutants if (said := _inapplicable(mutant))]
    if trouble:
        raise MutantError(f"{path.name}: " + "; ".join(trouble))
    return mutants


def _inapplicable(mutant: Mutant) -> str:
    source = _root() / mutant.file
    if not source.exists():
        return f"{mutant.name}: there is no {PACKAGE}/{mutant.file}"
    times = source.read_text(encoding="utf-8").count(mutant.old)
    if times != 1:
        return f"{mutant.name}: its text stands {times} times in {PACKAGE}/{mutant.file}: {mutant.old!r}"
    return f"{mutant.name}: changes nothing" if mutant.old == mutant.new else ""


def _root() -> Path:
    found = find_spec(PACKAGE)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


# --- in the process of a mutant -------------------------------------------------------------------------


class _Mutating(importlib.machinery.SourceFileLoader):
    """Compiles a file from its text with one replacement; neither reads nor writes compiled files."""

    mutant: Mutant

    def get_code(self, fullname: str) -> CodeType:
        text = self.get_data(self.path).decode("utf-8")
        return compile(text.replace(self.mutant.old, self.mutant.new), self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.module = f"{PACKAGE}." + mutant.file.removesuffix(".py").replace("/", ".").removesuffix(
            ".__init__"
        )

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            loader = _Mutating(fullname, spec.origin)
            loader.mutant = self.mutant
            spec.loader = loader
        return spec


def install(mutant: Mutant) -> None:
    """Make the fault part of mmcore in this process. mmcore must not have been imported."""
    if any(name == PACKAGE or name.startswith(f"{PACKAGE}.") for name in sys.modules):
        raise MutantError(f"{PACKAGE} is imported already; a mutant needs a process of its own")
    sys.meta_path.insert(0, _Finder(mutant))


def quick_gate() -> tuple[bool, str]:
    """Run the steps until something differs: whether anything did, and where."""
    from parity.compare.judge import failures
    from parity.compare.run import run
    from parity.compare.words import where
    from parity.engines.load import load
    from parity.engines.references import references
    from parity.schema.case import load_cases, select

    shipped = load_cases()
    for step in STEPS:
        against = references(step.reference)[0][:1]
        asked = () if step.refits else WITHOUT_REFITS
        for case in select(shipped, step.cases):
            with _structured() if step.structured else contextlib.nullcontext():
                report = run([case], load("mmcore"), against, lanes=step.lanes, quantities=asked)  # type: ignore[arg-type]
            if report.exit_code == 1:
                row = failures(report.rows)[0]
                return True, f"{where(row)}: {row.verdict}{' (structured)' if step.structured else ''}"
            if report.exit_code != 0:
                rows = [row for row in report.rows if row.outcome == "infrastructure"]
                raise MutantError(
                    f"the gate could not be run: {rows[0].message if rows else report.headline}"
                )
    return False, ""


@contextlib.contextmanager
def _structured() -> Iterator[None]:
    """Small models of several factors through the nested and crossed kernels."""
    from mmcore import kernels

    before = kernels.DENSE_Q
    kernels.DENSE_Q = 0
    try:
        yield
    finally:
        kernels.DENSE_Q = before


def blind_spots() -> tuple[str, ...]:
    """Where an engine that answers only zeros is not failed: quantities of the gate's cases that are not zero."""
    from parity.compare.run import run
    from parity.engines.load import load
    from parity.engines.references import references
    from parity.schema.case import load_cases, select

    names = {name for step in STEPS for name in step.cases}
    against = references("recorded")[0][:1]
    cases = select(load_cases(), sorted(names))
    report = run(cases, load("zeros"), against, lanes=["at_theta", "optimum"], quantities=WITHOUT_REFITS)
    blind = [row for row in report.rows if row.outcome == "pass" and row.want != 0]
    return tuple(f"{row.case} / {row.lane} / {row.quantity} ({row.verdict})" for row in blind)


def _main(name: str) -> None:
    """`python -m parity.proof.mutants NAME`: one mutant ("" for none), the outcome as JSON on the last line."""
    try:
        if name:
            install(next(mutant for mutant in load_mutants() if mutant.name == name))
        caught, by = quick_gate()
    except MutantError:
        raise
    except Exception as error:  # a fault that stops the program has been noticed
        caught, by = True, f"raises {type(error).__name__}: {error}"
    print(json.dumps({"caught": caught, "by": by}))


# --- the hunt -------------------------------------------------------------------------------------------


def hunt(mutants: Sequence[Mutant], *, jobs: int = 1) -> Iterator[Outcome]:
    """Try each mutant; yields outcomes in order.

    Raises
    ------
    MutantError
        if the gate is not green without any fault: then catching one would mean nothing.
    """
    clean = _one("")
    if clean.caught:
        raise MutantError(f"the gate is not green without any fault: {clean.by}")
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(lambda mutant: _one(mutant.name), mutants)


def _one(name: str) -> Outcome:
    started = time.perf_counter()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "parity.proof.mutants", name], capture_output=True, text=True, timeout=TIME_LIMIT,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(name, True, f"stopped after {TIME_LIMIT:g} s", time.perf_counter() - started)
    seconds = time.perf_counter() - started
    lines = done.stdout.strip().splitlines()
    if done.returncode < 0:
        return Outcome(name, True, f"its process died (signal {-done.returncode})", seconds)
    if done.returncode or not lines:
        raise MutantError(
            f"mutant {name or '(none)'}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}"
        )
    said = json.loads(lines[-1])
    return Outcome(name, said["caught"], said["by"], seconds)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The score, and what survived, for a report."""
    survivors = [outcome.mutant for outcome in outcomes if not outcome.caught]
    return {
        "mutants": len(outcomes), "caught": len(outcomes) - len(survivors), "survivors": survivors,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }  # fmt: skip


if __name__ == "__main__":
    _main(sys.argv[1])
