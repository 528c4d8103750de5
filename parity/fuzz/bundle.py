"""A finding as a folder: the model, its data, both answers, the machine, and scripts in R and Python that
show it.

    case.json   the case (its `generated` spec makes the data again)     data.csv   the data, 17 digits
    engine.json, reference.json   both answers, all quantities           environment.json   versions
    finding.txt what differs                                             show.R, show.py   stand alone
"""

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from parity.compare.judge import Row
from parity.compare.run import ask, environment
from parity.compare.words import exact
from parity.references.recordings import write_recording
from parity.schema.case import Case, CaseError, frame, load_case, load_cases
from parity.schema.engine import Engine
from parity.schema.quantities import MEASURES
from parity.schema.results import Results

FOLDER = Path("parity-findings")
REGRESSIONS = Path("tests") / "regressions"


def write_case(case: Case, directory: Path) -> Path:
    """The case as a file of its own name."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{case.name}.json"
    text = json.dumps(msgspec.to_builtins(case), indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
    return path


def write_bundle(
    case: Case,
    rows: tuple[Row, ...],
    broken: tuple[str, ...],
    engine: Engine,
    reference: Engine | None,
    theta: np.ndarray | None,
    quantities: tuple[str, ...],
    directory: Path = FOLDER,
) -> Path:
    """Write the folder of a finding and return its path. `theta`: where both sides were asked; None: their optima."""
    folder = directory / case.name
    folder.mkdir(parents=True, exist_ok=True)
    write_case(case, folder).replace(folder / "case.json")
    data = _data(case)
    if data is not None:
        data.to_csv(folder / "data.csv", index_label="row", float_format="%.17g")
    for role, side in (("engine", engine), ("reference", reference)):
        if side is not None:
            _write_answer(folder, role, case, ask(side, case, quantities, theta))
    (folder / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n", encoding="utf-8")
    (folder / "finding.txt").write_text(_finding(case, rows, broken), encoding="utf-8")
    if data is not None:
        (folder / "show.R").write_text(r_script(case, data, theta), encoding="utf-8")
        (folder / "show.py").write_text(py_script(case, data, theta), encoding="utf-8")
    return folder


def _data(case: Case) -> pd.DataFrame | None:
    try:
        return frame(case)
    except CaseError:
        return None


def _write_answer(folder: Path, role: str, case: Case, results: Results) -> None:
    path = write_recording(folder / "answers", msgspec.structs.replace(case, name=role), results)
    path.replace(folder / path.name)
    (folder / "answers").rmdir()


def _finding(case: Case, rows: tuple[Row, ...], broken: tuple[str, ...]) -> str:
    lines = [f"{case.name}: {case.formula}", f"see it again: parity replay {case.name}", ""]
    for row in rows:
        lines += [
            f"{row.lane} / {row.quantity}[{row.label}]: {row.verdict} {row.message}".rstrip(),
            f"  engine {exact(row.got)}   {row.reference} {exact(row.want)}",
        ]
        if row.error is not None and row.gate is not None:
            lines.append(
                f"  error {row.error:.3g} by {row.measure} ({MEASURES.get(row.measure, '')}), gate {row.gate:.3g}"
            )
    return "\n".join([*lines, *broken]) + "\n"


# --- scripts --------------------------------------------------------------------------------------------


def r_script(case: Case, data: pd.DataFrame, theta: np.ndarray | None) -> str:
    """R code that reads data.csv and shows R's optimum, or a linear mixed model of lme4 at theta."""
    arguments = [f"formula = {case.formula}", "data = d"]
    if case.kind == "lmm":
        arguments.append(f"REML = {'TRUE' if case.reml else 'FALSE'}")
    if case.kind in ("glm", "glmm"):
        arguments.append(f"family = {case.family}({json.dumps(case.link) if case.link else ''})")
    arguments += [f"{role} = {name}" for role in ("weights", "offset") if (name := getattr(case, role))]
    if case.contrasts:
        codings = ", ".join(f"{name} = {kind!r}" for name, kind in case.contrasts.items())
        arguments.append(f"contrasts = list({codings})")
    call = ", ".join(arguments)
    lines = [
        "# Run in this folder: Rscript show.R",
        "library(lme4)",
        'd <- read.csv("data.csv", row.names = "row")',
    ]
    for name in data.columns:
        if not pd.api.types.is_numeric_dtype(data[name]):
            levels = ", ".join(json.dumps(level) for level in _levels(data[name]))
            lines.append(f"d${name} <- factor(as.character(d${name}), levels = c({levels}))")
    if theta is None:
        lines.append(f"m <- {_FITS[case.kind]}({call})")
    else:
        lines += [
            f"parsed <- lFormula({call})",
            "devfun <- do.call(mkLmerDevfun, parsed)",
            f"theta <- c({', '.join(f'{x:.17g}' for x in theta)})",
            "opt <- list(par = theta, fval = devfun(theta), conv = 0L)",
            "m <- mkMerMod(environment(devfun), opt, parsed$reTrms, parsed$fr)",
        ]
    mixed = case.kind in ("lmm", "glmm")
    criterion = "REMLcrit(m)" if case.kind == "lmm" and case.reml else "-2 * as.numeric(logLik(m))"
    shown = (criterion, *(('getME(m, "theta")', "fixef(m)", "sigma(m)") if mixed else ("coef(m)",)))
    lines += [f'cat({json.dumps(what)}, sprintf("%.17g", {what}), fill = TRUE)' for what in shown]
    lines += ["print(ranef(m))"] if mixed else []
    return "\n".join([*lines, "print(hatvalues(m))"]) + "\n"


_FITS = {"lm": "lm", "glm": "glm", "lmm": "lmer", "glmm": "glmer"}  # in R and in mmcore


def py_script(case: Case, data: pd.DataFrame, theta: np.ndarray | None) -> str:
    """Python code that reads data.csv and shows mmcore's optimum, or its linear mixed model at theta."""
    factors = {
        name: list(_levels(data[name]))
        for name in data.columns
        if not pd.api.types.is_numeric_dtype(data[name])
    }
    options = [f"reml={case.reml}"] if case.kind == "lmm" else []
    if case.kind in ("glm", "glmm"):
        options += [f"family={case.family!r}", f"link={case.link!r}"]
    options += [f"{role}={name!r}" for role in ("weights", "offset") if (name := getattr(case, role))]
    if case.contrasts:
        options.append(f"contrasts={dict(case.contrasts)!r}")
    at = "" if theta is None else f", {[float(x) for x in theta]!r}"
    function = _FITS[case.kind] if theta is None else "fit_at"
    call = f"mm.{function}({', '.join([repr(case.formula), f'd{at}', *options])})"
    of_mixed = 'print("theta", fit.theta.tolist())\nprint("sigma", repr(fit.sigma))\nprint(fit.ranef)\n'
    return f'''"""Run in this folder: python show.py"""
import pandas as pd

import mmcore as mm

factors = {factors!r}
d = pd.read_csv("data.csv", index_col="row", dtype={{name: str for name in factors}})
for name, levels in factors.items():
    d[name] = pd.Categorical(d[name], categories=levels)
fit = {call}
print("criterion", repr(fit.criterion))
print("fixef", fit.fixef.tolist())
{of_mixed if "|" in case.formula else ""}print(mm.hatvalues(fit))
'''


def _levels(column: pd.Series) -> tuple[str, ...]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return tuple(str(level) for level in column.cat.categories)
    return tuple(sorted({str(value) for value in column.dropna()}))


# --- finding a case again -------------------------------------------------------------------------------


def find_case(wanted: str, folders: tuple[Path, ...] = (FOLDER, REGRESSIONS)) -> Case:
    """The case of a file, a bundle's folder, or an id or name among findings, regressions and shipped cases.

    Raises
    ------
    CaseError
        if there is none.
    """
    path = Path(wanted)
    if path.is_dir() and (path / "case.json").exists():
        return _read(path / "case.json")
    if path.is_file():
        return _read(path)
    key = wanted.removeprefix("fuzz-")
    for folder in folders:
        for file in sorted((*folder.glob("*/case.json"), *folder.glob("*.json"))):
            case = _read(file)
            if key in (case.name.removeprefix("fuzz-"), case.id):
                return case
    for case in load_cases():
        if wanted in (case.name, case.id):
            return case
    raise CaseError(
        f"no file, finding, regression or case is called {wanted!r} (looked in {', '.join(map(str, folders))})"
    )


def _read(path: Path) -> Case:
    """A case from a file of any name."""
    if path.name != "case.json":
        return load_case(path)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Case)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise CaseError(f"case file {path}: {error}") from error


def regressions(directory: Path = REGRESSIONS) -> tuple[Case, ...]:
    """Cases that once were findings: they are run for ever."""
    return load_cases(directory)
