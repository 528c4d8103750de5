"""The shipped data sets: CSV files and a manifest of their types, exported from the R packages that own them.

A wheel carries them inside the package (`_data`); a checkout reads `r_reference/data`.
"""

import difflib
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import DataError

_PACKAGE = Path(__file__).resolve().parent
_SCHEMA = "mmparity-data/1"


def data_dir() -> Path:
    """Folder of the CSV files and of `MANIFEST.json`.

    Raises
    ------
    DataError
        neither the package nor the checkout around it has the manifest.
    """
    candidates = (_PACKAGE / "_data", _PACKAGE.parent / "r_reference" / "data")
    for candidate in candidates:
        if (candidate / "MANIFEST.json").is_file():
            return candidate
    raise DataError(
        f"the data sets are missing: neither {candidates[0]} nor {candidates[1]} has a MANIFEST.json; "
        "install mmparity again"
    )


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` knows, sorted."""
    return tuple(sorted(_manifest()))


def dataset_source(name: str) -> dict[str, str]:
    """Where a data set comes from: `source` (R package, object, version) and `licence` of that package."""
    entry = _entry(name)
    return {"source": entry["source"], "licence": entry["licence"]}


def load_dataset(name: str) -> pd.DataFrame:
    """One shipped data set, as R holds it.

    Factors are Categoricals in R's level order (ordered ones flagged, so they get `contr.poly`), numbers are
    the same doubles as in R, integers int64 (Int64 where values are missing). Rows keep R's order; the index
    is 0..n-1. It is R's object, not a cleaned one: nlme's grouping factors are ordered there, and so here.

    Parameters
    ----------
    name : str
        one of `dataset_names()`; data sets of MASS start with `MASS_`.

    Raises
    ------
    DataError
        unknown name (near matches are listed), or a missing, altered or misfitting file.

    Cost: reads the file each time; 0.2 s for InstEval (73,421 rows), milliseconds otherwise.
    """
    entry = _entry(name)
    text = _text(name, entry)
    columns = entry["columns"]
    # As text: float() rounds correctly whatever pandas' own number parser does.
    frame = pd.read_csv(io.StringIO(text), dtype="str", keep_default_na=False, na_values=["NA"])
    if list(frame.columns) != list(columns) or len(frame) != entry["rows"]:
        raise DataError(
            f"{entry['file']} does not fit its entry in MANIFEST.json (columns or number of rows)"
        )
    for column, kind in columns.items():
        frame[column] = _typed(frame[column], kind)
    return frame


def _manifest() -> dict[str, Any]:
    path = data_dir() / "MANIFEST.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] == _SCHEMA:
            return content["datasets"]
        problem = f"its schema is {content['schema']!r}"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        problem = f"it cannot be read ({error})"
    raise DataError(f"{path} is not a manifest of {_SCHEMA}: {problem}; install mmparity again")


def _entry(name: str) -> dict[str, Any]:
    manifest = _manifest()
    if name in manifest:
        return manifest[name]
    by_lower = {known.lower(): known for known in manifest}
    near = [
        by_lower[match] for match in difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.6)
    ]
    hint = f"near matches: {', '.join(near)}" if near else f"{len(manifest)} names: mmcore.dataset_names()"
    raise DataError(f"no data set {name!r} is shipped; {hint}")


def _text(name: str, entry: dict[str, Any]) -> str:
    path = data_dir() / entry["file"]
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = error.strerror
        raise DataError(
            f"data set {name!r}: cannot read {path} ({reason}); install mmparity again"
        ) from error
    if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
        raise DataError(f"data set {name!r}: {path} is not what was exported (its checksum differs)")
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")


def _typed(column: pd.Series, kind: dict[str, Any]) -> pd.Series:
    if "levels" in kind:
        return _categorical(column, kind["levels"], kind["type"] == "ordered")
    if kind["type"] == "number":
        values = [float(cell) for cell in column.fillna("nan")]
        return pd.Series(values, index=column.index, name=column.name, dtype="float64")
    if kind["type"] == "integer":
        integers = column.astype("Int64")
        return integers if column.isna().any() else integers.astype("int64")
    return column


def _categorical(column: pd.Series, levels: list[str], ordered: bool) -> pd.Series:
    known = column.isna() | column.isin(levels)
    if not known.all():
        label = column[~known].iloc[0]
        raise DataError(f"column {column.name!r} has the label {label!r}, which is no level in MANIFEST.json")
    values = pd.Categorical(column, categories=levels, ordered=ordered)
    return pd.Series(values, index=column.index, name=column.name)
