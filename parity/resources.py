"""Where the harness keeps its own files: R sources, data sets, recorded references, cases.

A checkout has them in `r_reference/` beside the package; an installed wheel carries R sources and recordings
in `parity/_reference/` and the data sets in `mmcore/_data/`. The checkout wins, so that an edited R file is
what runs.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def reference_dir() -> Path:
    """The root of the reference tree (subfolders `R`, `recorded`, `certified`).

    Raises
    ------
    FileNotFoundError
        if neither place holds it: the installation is incomplete.
    """
    candidates = (PACKAGE.parent / "r_reference", PACKAGE / "_reference")
    for candidate in candidates:
        if (candidate / "R").is_dir():
            return candidate
    places = " nor ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"the reference files are missing: neither {places} exists; install mmparity again"
    )


def r_dir() -> Path:
    """The R sources, `*.R`."""
    return reference_dir() / "R"


def data_dir() -> Path:
    """The data sets (CSV) and their manifest."""
    from mmcore.datasets import data_dir as shipped  # not above: the command line should start without SciPy

    return shipped()


def r_libraries() -> str:
    """R_LIBS for our R processes: the checkout's own library (`make hlmdiag` fills it), then the user's."""
    own = PACKAGE.parent / ".r-library"
    places = [str(own)] if own.is_dir() else []
    return os.pathsep.join([*places, *filter(None, [os.environ.get("R_LIBS")])])


def recorded_dir() -> Path:
    """The recorded references (JSON)."""
    return reference_dir() / "recorded"


def certified_dir() -> Path:
    """The certified references (JSON)."""
    return reference_dir() / "certified"


def cases_dir() -> Path:
    """The cases (JSON); always inside the package."""
    return PACKAGE / "cases"


def template_file() -> Path:
    """The engine to start from: in docs/ of a checkout, in the package of a wheel.

    Raises
    ------
    FileNotFoundError
        if neither place holds it: the installation is incomplete.
    """
    for folder in (PACKAGE.parent / "docs", PACKAGE / "_reference"):
        if (folder / "engine_template.py").is_file():
            return folder / "engine_template.py"
    raise FileNotFoundError("engine_template.py is missing; install mmparity again")
