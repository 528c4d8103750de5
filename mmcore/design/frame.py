"""Formula + data frame -> ModelFrame: the variables of the model on every input row, and which rows are
complete.

Variables are evaluated on all rows before any are dropped, as R does: a basis such as poly(x, 2) sees every
row.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import DataError, FormulaError, MixedModelWarning
from ..formula.parse import Formula, column_names
from ..formula.syntax import Name, deparse, parse_expression
from .align import aligned, shown
from .columns import Column, Factor, as_numbers, drop_unused, from_series, is_missing, take_rows, to_pandas
from .evaluate import Evaluator

NA_ACTIONS = ("omit", "exclude", "fail")


@dataclass(frozen=True, slots=True)
class ModelFrame:
    """Variables of the model on all input rows, and what prediction must repeat."""

    variables: Mapping[str, Column]  # label -> column, R's model-frame order, response first
    names: tuple[str, ...]  # R's names of these columns: labels, without backquotes around plain names
    weights: np.ndarray | None  # (n_input,) or None
    offset: np.ndarray | None  # (n_input,) sum of the offset argument and offset() terms, or None
    offset_argument: np.ndarray | None  # (n_input,) the argument alone, as the model frame shows it
    memory: dict[tuple[str, str], object]  # fitted bases and levels of the training data
    contrasts: Mapping[str, object] | None  # as given
    index: pd.Index  # (n_input,) row labels


def read_frame(
    formula: Formula,
    data: pd.DataFrame,
    weights: object,
    offset: object,
    contrasts: Mapping[str, object] | None,
) -> ModelFrame:
    """All variables of `formula` (without '.') over `data`; see `build` for the arguments and errors."""
    evaluator = Evaluator(data)
    variables = {deparse(v): evaluator.variable(v) for v in formula.frame_variables}
    _check_contrasts(contrasts, variables)
    prior = argument(weights, data, "weights")
    if prior is not None and (prior < 0).any():
        where = shown(data.index[int(np.argmax(prior < 0))])
        raise DataError(f"weights must not be negative: row {where} has {prior[prior < 0][0]:g}")
    extra = argument(offset, data, "offset")
    total = total_offset(formula, variables, extra)
    for values, what in ((prior, "weights"), (total, "offset")):
        if values is not None and np.isinf(values).any():
            where = shown(data.index[int(np.argmax(np.isinf(values)))])
            raise DataError(f"{what} is infinite in row {where}: drop or correct the row")
    names = tuple(v.id if isinstance(v, Name) else deparse(v) for v in formula.frame_variables)
    return ModelFrame(variables, names, prior, total, extra, evaluator.memory, contrasts, data.index)


def _check_contrasts(contrasts: object, variables: Mapping[str, Column]) -> None:
    if contrasts is None:
        return
    if not isinstance(contrasts, Mapping):
        raise DataError(
            f"contrasts is a {type(contrasts).__name__}: give a mapping of factors to contrasts, such as {{'g': 'sum'}}"
        )
    for name in contrasts:
        if name not in variables:
            raise DataError(f"contrasts are given for {name!r}, which is not a variable of the formula")
        if not isinstance(variables[name], Factor):
            raise DataError(
                f"contrasts are given for {name!r}, which is not a factor: write factor({name}) in the formula"
            )


def used_columns(formula: Formula, *arguments: object) -> set[str]:
    """Columns that `formula` and arguments such as weights read, where these are names or expressions."""
    found = set(formula.variables)
    for text in arguments:
        if isinstance(text, str):
            found.add(text)
            with suppress(FormulaError):
                found.update(column_names(parse_expression(text)))
    return found


def argument(value: object, data: pd.DataFrame, what: str) -> np.ndarray | None:
    """Weights or offset (n_input,) given row by row, as the name of a column or as an expression such as "log(t)".

    Row by row: see `aligned`.
    """
    if value is None:
        return None
    if isinstance(value, str):
        expr = Name(value) if value in data.columns else parse_expression(value)
        return as_numbers(Evaluator(data).variable(expr), f"{what} {value!r}")
    return as_numbers(from_series(aligned(value, data.index, what), what), what)


def total_offset(
    formula: Formula, variables: Mapping[str, Column], extra: np.ndarray | None
) -> np.ndarray | None:
    """Sum of `extra` and the offset() terms of `formula`, None when there is neither."""
    total = extra
    for call in formula.offsets:
        part = as_numbers(variables[deparse(call)], deparse(call))
        total = part if total is None else total + part
    return total


def complete_rows(frame: ModelFrame, na_action: str) -> np.ndarray | None:
    """Positions of the rows without missing values, None when no row has any."""
    missing: np.ndarray | None = None
    offenders: list[str] = []
    for label, column in (*frame.variables.items(), ("weights", frame.weights), ("offset", frame.offset)):
        mask = None if column is None else is_missing(column)
        if mask is not None:
            offenders.append(f"{label} ({int(mask.sum())})")
            missing = mask if missing is None else missing | mask
    if missing is None:
        if not len(frame.index):
            raise DataError("the data have no rows")
        return None
    if na_action == "fail":
        raise DataError(f"missing values in {', '.join(offenders)}: drop these rows or use na_action='omit'")
    rows = np.flatnonzero(~missing)
    if not len(rows):
        raise DataError(f"no rows are left: each has a missing value in one of {', '.join(offenders)}")
    return rows


def kept_variables(variables: Mapping[str, Column], rows: np.ndarray | None) -> dict[str, Column]:
    """The variables on `rows` (None: all), factors without the levels that do not occur there."""
    kept: dict[str, Column] = {}
    for label, column in variables.items():
        if rows is not None:
            column = take_rows(column, rows)
        kept[label] = _without_unused(column, label) if isinstance(column, Factor) else column
    return kept


def _without_unused(column: Factor, label: str) -> Factor:
    dropped = drop_unused(column)
    if dropped is not column and column.contrasts is not None:
        message = f"contrasts of {label} are reset to the default: some of its levels do not occur"
        warnings.warn(message, MixedModelWarning, stacklevel=4)
    return dropped


def frame_table(frame: ModelFrame, rows: np.ndarray | None) -> pd.DataFrame:
    """R's model frame of `rows`: the variables, then `(weights)` and `(offset)` where they are arguments."""
    index = frame.index if rows is None else frame.index[rows]
    return pd.DataFrame(frame_columns(frame, rows, index), index=index)


def frame_columns(frame: ModelFrame, rows: np.ndarray | None, index: pd.Index) -> dict[str, pd.Series]:
    """The columns of `frame_table` by name, for those who put more beside them."""
    columns: dict[str, pd.Series] = {}
    for name, column in zip(frame.names, frame.variables.values(), strict=True):
        kept = column if rows is None else take_rows(column, rows)
        columns |= to_pandas(drop_unused(kept) if isinstance(kept, Factor) else kept, name, index)
    for name, values in (("(weights)", frame.weights), ("(offset)", frame.offset_argument)):
        if values is not None:
            columns[name] = pd.Series(values if rows is None else values[rows], index=index)
    return columns
