"""What this machine has for a comparison, what each lane can do with it, and the command that mends a gap.

R is asked in a process of its own, so that a broken installation is reported, not suffered.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from parity.resources import PACKAGE, r_libraries, recorded_dir

R_PACKAGES = (
    "lme4", "nlme", "mlmRev", "MASS", "jsonlite", "lmerTest", "pbkrtest", "car", "sandwich", "clubSandwich",
    "glmmTMB",
)  # fmt: skip
NEEDED = ("lme4",)  # without these there is no live reference
BRIDGE = ("rpy2", "rpy2-rinterface", "rpy2-robjects")
NEW_R = (4, 5)  # from here on the extra `r-new`; below it `r`
OLDEST_R = (4, 2)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_ASK_R = """
wanted <- commandArgs(trailingOnly = TRUE)
cat("R", as.character(getRversion()), "\\n", sep = "\\t")
blas <- extSoftVersion()[["BLAS"]]
cat("BLAS", if (nzchar(blas)) blas else "R's own", "\\n", sep = "\\t")
for (name in wanted) {
  version <- if (nzchar(system.file(package = name))) utils::packageDescription(name)$Version else ""
  cat(name, version, "\\n", sep = "\\t")
}
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked for."""

    what: str
    found: str  # version or description; "" if it is missing
    ok: bool  # False: something below is not possible because of it
    mend: str = ""  # the command that mends it; "" if nothing is wrong or no command can


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing the harness can do, or not, here."""

    what: str
    possible: bool
    why: str  # with what, or what is missing


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All facts and what follows from them."""

    facts: tuple[Fact, ...]
    abilities: tuple[Ability, ...]

    @property
    def live(self) -> bool:
        """Whether live R can be the reference."""
        return any(ability.possible for ability in self.abilities if ability.what.startswith("live lme4"))


def diagnose() -> Diagnosis:
    """Look at this machine: R and its packages, rpy2, BLAS and threads, recordings. Takes a second or two."""
    r = _ask_r((*R_PACKAGES, "HLMdiag"))
    facts = (
        Fact("Python", f"{sys.version.split()[0]} ({sys.executable})", True),
        *_numerics(),
        *_r_facts(r),
        *_bridge_facts(_version(r.get("R", ""))),
        _recordings(),
    )
    return Diagnosis(facts, _abilities(facts))


def bridge_extra(r_version: tuple[int, ...]) -> str:
    """The extra of mmparity whose rpy2 fits an R version: `r` or `r-new`; "" if R is too old for either."""
    return "" if r_version < OLDEST_R else "r-new" if r_version >= NEW_R else "r"


def _abilities(facts: Sequence[Fact]) -> tuple[Ability, ...]:
    found = {fact.what: fact for fact in facts}
    lacking = _lacking(found)
    lme4 = not lacking
    way = "rpy2" if _good(found, "rpy2 starts R") else "Rscript (slower: one process per call)"
    why = f"lme4 {_found(found, 'R package lme4')} by {way}" if lme4 else f"missing: {', '.join(lacking)}"
    hlmdiag = _found(found, "R package HLMdiag")
    stand_in = "recorded HLMdiag results stand in for it"
    recordings = found["recordings"]
    return (
        Ability("live lme4: lanes at_theta, optimum, default", lme4, why),
        Ability("live first principles in R (models up to 1,500 rows)", lme4, why),
        Ability("live HLMdiag", lme4 and bool(hlmdiag), f"HLMdiag {hlmdiag}" if hlmdiag else stand_in),
        Ability("recorded references: lanes at_theta, optimum", recordings.ok, recordings.found or "none"),
    )


def _lacking(found: Mapping[str, Fact]) -> list[str]:
    """What live lme4 needs and this machine has not."""
    if not _good(found, "R"):
        return ["R 4.2 or later"]
    lacking = [f"R package {name}" for name in NEEDED if not _good(found, f"R package {name}")]
    if not _good(found, "rpy2 starts R") and not _found(found, "R package jsonlite"):
        lacking.append("rpy2 or the R package jsonlite, to talk to R")
    return lacking


def _good(facts: Mapping[str, Fact], what: str) -> bool:
    return what in facts and facts[what].ok


def _found(facts: Mapping[str, Fact], what: str) -> str:
    return facts[what].found if what in facts else ""


# --- Python side ----------------------------------------------------------------------------------------


def _numerics() -> list[Fact]:
    import numpy as np
    import scipy
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    kinds = sorted({f"{pool['internal_api']} {pool['version']}" for pool in pools})
    threads = max((pool["num_threads"] for pool in pools), default=1)
    several = threads > 1
    advice = f"export {' '.join(f'{name}=1' for name in THREADS)}"
    why = " (one is advised: timings, last digits)" if several else ""
    return [
        Fact("NumPy, SciPy", f"{np.__version__}, {scipy.__version__}", True),
        Fact("BLAS of NumPy", "; ".join(kinds) or "not recognised", True),
        Fact("BLAS threads", f"{threads} on {os.cpu_count()} cores{why}", True, advice if several else ""),
    ]


def _recordings() -> Fact:
    try:
        files = [path for path in recorded_dir().rglob("*.json*") if path.is_file()]
    except FileNotFoundError:
        files = []
    found = f"{len(files)} models in {recorded_dir()}" if files else ""
    return Fact("recordings", found, bool(files), "" if files else "pip install --force-reinstall mmparity")


def _bridge_facts(r_version: tuple[int, ...]) -> list[Fact]:
    versions = {name: _installed(name) for name in BRIDGE}
    extra = bridge_extra(r_version)
    pins = " ".join(f"'{pin}'" for pin in _pins(extra))
    mend = f"{sys.executable} -m pip install {pins}" if pins else ""
    complete = all(versions.values())
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    problem = _starts_r() if complete and r_version else "not tried"
    return [
        Fact("rpy2", text, complete, "" if complete else mend),
        Fact("rpy2 starts R", f"no: {problem}" if problem else "yes", not problem, mend if problem else ""),
    ]


def _pins(extra: str) -> list[str]:
    """What an extra of mmparity asks for, as its own metadata say."""
    try:
        requirements = metadata.requires("mmparity") or []
    except metadata.PackageNotFoundError:
        requirements = []
    wanted = [text.partition(";") for text in requirements]
    return [
        pin.strip() for pin, _, marker in wanted if extra and re.search(f"extra == ['\"]{extra}['\"]", marker)
    ]


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _starts_r() -> str:
    """Empty if an embedded R starts in a fresh process, else the last line of what went wrong."""
    code = "import rpy2.rinterface as r; r.initr(); assert r.evalr('1 + 1')[0] == 2"
    return _failure([sys.executable, "-c", code])


def _failure(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1]


# --- R side ---------------------------------------------------------------------------------------------


def _ask_r(packages: Sequence[str]) -> dict[str, str]:
    """Name -> version as R tells it ("" for a missing package); empty if there is no R that answers."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        return {}
    environment = os.environ | {"R_LIBS": r_libraries()}
    command = [rscript, "--no-init-file", "-e", _ASK_R, "--args", *packages]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") >= 2]
    return {row[0]: row[1] for row in rows}


def _r_facts(answers: dict[str, str]) -> list[Fact]:
    version = answers.get("R", "")
    if not version:
        why = "R is on the path but does not answer" if shutil.which("Rscript") else ""
        return [Fact("R", why, False, _install_r())]
    old = _version(version) < OLDEST_R
    remark = " (4.2 or later is needed)" if old else ""
    return [
        Fact("R", version + remark, not old, _install_r() if old else ""),
        Fact("BLAS of R", answers.get("BLAS", ""), True),
        *(_r_package(name, answers.get(name, "")) for name in (*R_PACKAGES, "HLMdiag")),
    ]


def _r_package(name: str, version: str) -> Fact:
    ok = bool(version) or name not in NEEDED
    return Fact(f"R package {name}", version, ok, "" if version else _install(name))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _sudo() -> str:
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "


def _install_r() -> str:
    if _in_checkout():
        return "make setup"
    if shutil.which("apt-get"):
        return f"{_sudo()}apt-get install r-base-core r-base-dev r-cran-lme4 r-cran-mlmrev r-cran-jsonlite"
    return "install R 4.2 or later, then in R: install.packages(c('lme4', 'mlmRev', 'jsonlite'))"


def _install(package: str) -> str:
    if package == "HLMdiag" and _in_checkout():
        return "make hlmdiag"
    if package != "HLMdiag" and shutil.which("apt-get"):
        return f"{_sudo()}apt-get install r-cran-{package.lower()}"
    return f"Rscript -e \"install.packages('{package}')\""


def _in_checkout() -> bool:
    return (PACKAGE.parent / "Makefile").is_file()
