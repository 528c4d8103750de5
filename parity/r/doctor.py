"""What this machine has for a comparison, what each lane can do with it, and the command that mends a gap."""

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from parity.r.worker import REnvironment, r_environment
from parity.resources import PACKAGE, recorded_dir

NEEDED = ("lme4",)  # without these there is no live reference
NEW_R = (4, 5)  # from here on the extra `r-new`; below it `r`
OLDEST_R = (4, 2)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
    live: bool  # live R can be the reference


def diagnose() -> Diagnosis:
    """Look at this machine: R and its packages, rpy2, BLAS and threads, recordings. Takes a second or two."""
    here = r_environment()
    recordings = _recordings()
    facts = (
        Fact("Python", f"{sys.version.split()[0]} ({sys.executable})", True),
        *_numerics(),
        *_r_facts(here),
        _bridge(here),
        recordings,
    )
    lacking = _lacking(here)
    return Diagnosis(facts, _abilities(here, lacking, recordings), not lacking)


def bridge_extra(r_version: tuple[int, ...]) -> str:
    """The extra of mmparity whose rpy2 fits an R version: `r` or `r-new`; "" if R is too old for either."""
    return "" if r_version < OLDEST_R else "r-new" if r_version >= NEW_R else "r"


def _abilities(here: REnvironment, lacking: Sequence[str], recordings: Fact) -> tuple[Ability, ...]:
    lme4, hlmdiag = not lacking, here.packages.get("HLMdiag")
    way = "rpy2" if here.embedded else "Rscript (slower: one process per call)"
    why = f"lme4 {here.packages['lme4']} by {way}" if lme4 else f"missing: {', '.join(lacking)}"
    stand_in = "recorded HLMdiag results stand in for it"
    return (
        Ability("live lme4: lanes at_theta, optimum, default", lme4, why),
        Ability("live first principles in R (models up to 1,500 rows)", lme4, why),
        Ability("live HLMdiag", lme4 and bool(hlmdiag), f"HLMdiag {hlmdiag}" if hlmdiag else stand_in),
        Ability("recorded references: lanes at_theta, optimum", recordings.ok, recordings.found or "none"),
    )


def _lacking(here: REnvironment) -> list[str]:
    """What live lme4 needs and this machine has not."""
    if here.r_version is None or _version(here.r_version) < OLDEST_R:
        return ["R 4.2 or later"]
    lacking = [f"the R package {name}" for name in NEEDED if here.packages.get(name) is None]
    if not lacking and not (here.embedded or here.by_rscript):
        lacking.append("rpy2 or the R package jsonlite, to talk to R")
    return lacking


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
    found = f"{len(files)} in {recorded_dir()}" if files else ""
    return Fact("recordings", found, bool(files), "" if files else "pip install --force-reinstall mmparity")


def _bridge(here: REnvironment) -> Fact:
    versions = ", ".join(f"{part} {version}" for part, version in here.rpy2.items() if version)
    if here.rpy2_problem is None:
        return Fact("rpy2", versions, True)
    pins = " ".join(f"'{pin}'" for pin in _pins(bridge_extra(_version(here.r_version))))
    mend = f"{sys.executable} -m pip install {pins}" if pins else ""
    return Fact("rpy2", f"{versions}: {here.rpy2_problem}" if versions else "", False, mend)


def _pins(extra: str) -> list[str]:
    """What an extra of mmparity asks for, as its own metadata say."""
    try:
        requirements = metadata.requires("mmparity") or []
    except metadata.PackageNotFoundError:
        requirements = []
    mark = re.compile(f"extra == ['\"]{extra}['\"]")
    parts = [text.partition(";") for text in requirements]
    return [pin.strip() for pin, _, marker in parts if extra and mark.search(marker)]


# --- R side ---------------------------------------------------------------------------------------------


def _r_facts(here: REnvironment) -> list[Fact]:
    if here.r_version is None:
        silent = "Rscript is there but does not answer" if here.rscript else ""
        return [Fact("R", silent, False, _install_r())]
    old = _version(here.r_version) < OLDEST_R
    remark = " (4.2 or later is needed)" if old else ""
    return [
        Fact("R", here.r_version + remark, not old, _install_r() if old else ""),
        Fact("BLAS of R", here.blas or "R's own", True),
        *_package_facts(here.packages),
    ]


def _package_facts(packages: Mapping[str, str | None]) -> list[Fact]:
    return [
        Fact(
            f"R package {name}",
            version or "",
            version is not None or name not in NEEDED,
            "" if version else _install(name),
        )
        for name, version in packages.items()
    ]


def _version(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (text or "").split(".")[:2] if part.isdigit())


def _install_r() -> str:
    if _in_checkout() and not _sudo():
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


def _sudo() -> str:
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "


def _in_checkout() -> bool:
    return (PACKAGE.parent / "Makefile").is_file()
