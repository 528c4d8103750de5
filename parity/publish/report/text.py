"""The words of a report: numbers at full precision, a failure told completely, and R code that repeats a
reference."""

import json
from collections.abc import Iterable

from parity.compare.causes import Cause
from parity.compare.judge import WHOLE_MODEL, Row
from parity.compare.run import CaseReport, Report
from parity.compare.words import brief, exact, where
from parity.schema.case import Case
from parity.schema.quantities import MEASURES, REGISTRY

LISTED = 30  # rows of one cause that are listed, a line each


def cause_text(cause: Cause) -> str:
    """A cause and what it explains, a line for each row; one failing call is one block with its traceback."""
    lines = [cause.line]
    if cause.trace:
        return "\n".join([*lines, *_indented(cause.trace.rstrip())])
    lines += [f"  {row_line(row)}" for row in cause.rows[:LISTED]]
    if len(cause.rows) > LISTED:
        lines.append(f"  and {len(cause.rows) - LISTED} more")
    return "\n".join(lines)


def row_line(row: Row) -> str:
    """A row in one line: where, both numbers, the error and its gate."""
    if row.error is None or row.gate is None:
        return f"{where(row)}: {row.verdict}" + (f", {row.message}" if row.message else "")
    numbers = (
        f"{row.got:.10g} for {row.want:.10g}" if row.got is not None and row.want is not None else row.verdict
    )
    return f"{where(row)}: {numbers}, error {brief(row.error)} > {brief(row.gate)}"


def failure_text(report: Report, row: Row) -> str:
    """Everything needed to understand one failing comparison without running it again."""
    lines = [f"{row.verdict.upper()}  {where(row)}", f"  case id     {row.case_id}"]
    if row.quantity != WHOLE_MODEL:
        lines.append(f"  quantity    {row.quantity}: {REGISTRY[row.quantity].definition}")
    if row.error is not None and row.gate is not None:
        width = max(len(report.engine), len(row.reference), 10)
        lines += [
            f"  element     {row.label or '(the only one)'}",
            f"  {report.engine:<{width}}  {exact(row.got)}",
            f"  {row.reference:<{width}}  {exact(row.want)}",
            f"  error       {row.error:.3g} by {row.measure}: {MEASURES.get(row.measure, '')}",
            f"  gate        {row.gate:.3g}: {row.why}",
        ]
    if row.deviance_gap is not None:
        lines.append(f"  deviance    {report.engine} - {row.reference} = {row.deviance_gap:.6g}")
    if row.relation:
        lines.append(f"  cause       {row.relation}")
    if row.message:
        lines.append(f"  message     {row.message}")
    code = _snippet_of(report, row)
    if code:
        lines += ["  the reference again, in R at the root of a checkout:", *_indented(code)]
    return "\n".join(lines)


def _snippet_of(report: Report, row: Row) -> str:
    found = next((item for item in report.cases if item.case.name == row.case), None)
    return "" if found is None else r_snippet(found, row)


def _indented(code: str) -> list[str]:
    return [f"    {line}" for line in code.splitlines()]


def r_snippet(case_report: CaseReport, row: Row) -> str:
    """R code that gives the reference's value of a row, from the data set to the element."""
    case = case_report.case
    if case.family != "gaussian" or "|" not in case.formula:
        return ""
    lines = ["library(lme4)", *_data_lines(case), *_model_lines(case, case_report.theta)]
    if row.quantity != WHOLE_MODEL and case_report.theta:
        lines += _value_lines(row)
    return "\n".join(lines)


def _data_lines(case: Case) -> list[str]:
    from mmcore.datasets import dataset_source

    try:
        package, _, name = dataset_source(case.data)["source"].split()[0].partition("::")
    except (ValueError, KeyError, IndexError):
        package, name = "", case.data
    lines = [f'data("{name}", package = "{package}")', f"d <- as.data.frame({name})", "rownames(d) <- NULL"]
    for column, values in case.columns.items():
        lines.append(f"d[[{_string(column)}]] <- rep_len({_vector(values)}, nrow(d))")
    if case.rows is not None:
        start, stop, step = case.rows
        lines.append(f"d <- d[seq({start + 1}, min({stop}, nrow(d)), by = {step}), ]")
    return lines


def _model_lines(case: Case, theta: tuple[float, ...]) -> list[str]:
    arguments = [_formula(case.formula), "d", f"REML = {'TRUE' if case.reml else 'FALSE'}"]
    if case.weights:
        arguments.append(f"weights = {_name(case.weights)}")
    if case.offset:
        arguments.append(f"offset = {_name(case.offset)}")
    if case.contrasts:
        codings = ", ".join(f"{_name(name)} = {_string(kind)}" for name, kind in case.contrasts.items())
        arguments.append(f"contrasts = list({codings})")
    call = ", ".join(arguments)
    if not theta:
        return [f"m <- lmer({call})"]
    return [
        f"parsed <- lFormula({call})",
        "devfun <- do.call(mkLmerDevfun, parsed)",
        f"theta <- {_vector(theta)}",
        "opt <- list(par = theta, fval = devfun(theta), conv = 0L)",
        "m <- mkMerMod(environment(devfun), opt, parsed$reTrms, parsed$fr)",
    ]


# What the functions of an R file take, where it is not the fitted model.
_ARGUMENTS = {
    "first_principles": "reference$first_principles$.workspace(m)",
    "deletion": "reference$deletion$.deletions(m, Inf)",
}


def _value_lines(row: Row) -> list[str]:
    file, _, function = REGISTRY[row.quantity].r_source.partition("::")
    source = file.removesuffix(".R")
    argument = _ARGUMENTS.get(source, "m")
    lines = [
        'source("r_reference/R/load.R")',
        'reference <- load_reference("r_reference/R")',
        f"r <- reference${source}${function}({argument})",
    ]
    element = f"[r$labels == {_string(row.label)}]" if row.label else ""
    return [*lines, f'sprintf("%.17g", r$values{element})']


def _formula(text: str) -> str:
    """The formula as R text, rebuilt from its tree; as a string where it does not parse."""
    from mmcore.errors import FormulaError
    from mmcore.formula.parse import parse

    try:
        return parse(text).to_r()
    except FormulaError:
        return f"as.formula({_string(text)})"


def _vector(values: Iterable[float]) -> str:
    return f"c({', '.join(f'{x:.17g}' for x in values)})"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _name(column: str) -> str:
    return column if column.replace(".", "a").replace("_", "a").isalnum() else f"`{column}`"
