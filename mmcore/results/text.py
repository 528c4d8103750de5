"""Plain-text layouts: numbers to text, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .fit import Fit

__all__ = ["correlation_table", "format_columns", "random_table", "significant"]


def significant(values: Sequence[float] | np.ndarray, digits: int = 4) -> list[str]:
    """Common number of decimals such that the entry that needs most shows ``digits`` significant ones."""
    v = np.asarray(values, float)
    finite = np.abs(v[np.isfinite(v) & (v != 0)])
    if not len(finite):
        return [f"{x:.{digits - 1}f}" if np.isfinite(x) else "NaN" for x in v]
    if finite.max() >= 1e15 or finite.min() < 1e-5:
        return [f"{x:.{digits - 1}e}" for x in v]
    needed = 0
    for x in finite:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        kept = mantissa.replace(".", "").rstrip("0")
        needed = max(needed, len(kept) - 1 - int(exponent))
    return [f"{x:.{max(needed, 0)}f}" for x in v]


def format_columns(header: Sequence[str], columns: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns of text under a header; the first ``left`` are left-aligned."""
    widths = [
        max(len(h), *(len(c) for c in col)) if col else len(h) for h, col in zip(header, columns, strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return " ".join(parts).rstrip()

    return "\n".join([line(header), *(line(row) for row in zip(*columns, strict=True))])


def random_table(fit: Fit) -> str:
    """Variances, standard deviations and correlations of the random effects, as lme4 prints them."""
    groups, names, variances, sds, corrs = [], [], [], [], []
    for name, term in fit.varcorr.items():
        correlation = term.correlation
        for i, effect in enumerate(term.effects):
            groups.append(name if i == 0 else "")
            names.append(effect)
            variances.append(term.cov[i, i])
            sds.append(term.sd[i])
            corrs.append(" ".join(f"{correlation[i, j]:5.2f}" for j in range(i)))
    if fit.varcorr.sigma is not None:
        groups.append("Residual")
        names.append("")
        variances.append(fit.sigma**2)
        sds.append(fit.sigma)
        corrs.append("")
    header = [" Groups", "Name", "Variance", "Std.Dev."]
    columns: list[list[str]] = [[f" {g}" for g in groups], names, significant(variances), significant(sds)]
    if any(corrs):
        header.append("Corr")
        columns.append(corrs)
    return format_columns(header, columns, left=2)


def correlation_table(fit: Fit) -> str:
    """Lower triangle of the correlations of the fixed effects."""
    names = list(fit.design.x_names)
    V = fit.vcov.to_numpy()
    sd = np.sqrt(np.diag(V))
    R = V / np.outer(sd, sd)
    short = [n[:6] if n != "(Intercept)" else "(Intr)" for n in names]
    columns = [[n[:12] for n in names[1:]]]
    columns += [
        [f"{R[i, j]:.3f}" if i > j else "" for i in range(1, len(names))] for j in range(len(names) - 1)
    ]
    return format_columns(["", *short[:-1]], columns)


def notes(fit: Fit) -> list[str]:
    """What was done to the data: rows left out, columns dropped, contrasts other than R's default."""
    design, out = fit.design, []
    if fit.has_rows and design.n_input > design.n:
        out.append(f"rows left out for missing values: {design.n_input - design.n}")
    if design.x_names_full != design.x_names:
        dropped = [n for n in design.x_names_full if n not in design.x_names]
        out.append(f"dropped, rank deficient: {', '.join(dropped)}")
    if design.source.contrasts:
        kinds = {
            name: kind if isinstance(kind, str) else "by a matrix"
            for name, kind in design.source.contrasts.items()
        }
        coded = [f"{name} {kind}" for name, kind in kinds.items()]
        out.append(f"contrasts: {', '.join(coded)}")
    return ["\n".join(out)] if out else []


def format_p(p: float) -> str:
    """A p-value as R prints it: three digits, `<2e-16` at the limit."""
    if not np.isfinite(p):
        return "NaN"
    return "<2e-16" if p < 2e-16 else f"{p:.3g}"


def coefficient_text(table: pd.DataFrame) -> str:
    """A table of estimates, standard errors, test statistics and p-values."""
    columns = [
        list(table.index),
        significant(table.iloc[:, 0]),
        significant(table.iloc[:, 1]),
        [f"{x:.3f}" for x in table.iloc[:, 2]],
        [format_p(x) for x in table.iloc[:, 3]],
    ]
    return format_columns(["", *table.columns], columns)


def quantile_text(values: np.ndarray) -> str:
    """Minimum, quartiles and maximum of residuals."""
    found = np.quantile(values[np.isfinite(values)], [0, 0.25, 0.5, 0.75, 1])
    return format_columns(["Min", "1Q", "Median", "3Q", "Max"], [[x] for x in significant(found)], left=0)
