"""Tukey's ladder of powers: which power of a variable is closest to normal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import DataError

__all__ = ["ladder"]

RUNGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cubic": lambda x: x**3,
    "square": lambda x: x**2,
    "identity": lambda x: x,
    "square root": np.sqrt,
    "log": np.log,
    "1/(square root)": lambda x: 1 / np.sqrt(x),
    "inverse": lambda x: 1 / x,
    "1/square": lambda x: x**-2.0,
    "1/cubic": lambda x: x**-3.0,
}


def ladder(x: Sequence[float] | np.ndarray | pd.Series) -> pd.DataFrame:
    """Test of normality of a variable after each power transformation; Stata's ``ladder``.

    Skewness and kurtosis test of D'Agostino, Belanger & D'Agostino (1990) with Royston's (1991) correction:
    columns ``chi2`` (2 degrees of freedom) and ``p``; NaN where a transformation is not defined (square
    root of a negative number, logarithm or inverse of one that is not positive). Missing values are left
    out; at least 8 are needed. In a large sample every transformation is rejected: compare the statistics,
    or plot.
    """
    values = np.asarray(x, float)
    values = values[~np.isnan(values)]
    if len(values) < 8 or not np.isfinite(values).all() or np.ptp(values) == 0:
        raise DataError(f"ladder needs at least 8 finite values that are not all equal, got {len(values)}")
    rows = []
    for name, transform in RUNGS.items():
        defined = name in ("cubic", "square", "identity") or (name == "square root" and values.min() >= 0)
        rows.append(_normality(transform(values)) if defined or values.min() > 0 else (np.nan, np.nan))
    return pd.DataFrame(rows, index=pd.Index(list(RUNGS), name="transformation"), columns=["chi2", "p"])


def _normality(x: np.ndarray) -> tuple[float, float]:
    """Adjusted chi-squared statistic and its p value."""
    n, scaled = len(x), x / np.abs(x).max()
    if np.ptp(scaled) == 0:
        return np.nan, np.nan
    raw = float(stats.skewtest(scaled).statistic ** 2 + stats.kurtosistest(scaled).statistic ** 2)
    z = _royston(raw, n)
    log_p = float(stats.norm.logsf(z))
    return -2.0 * log_p, float(np.exp(log_p))


def _royston(chi2: float, n: int) -> float:
    """Normal deviate of the statistic, corrected for the dependence of skewness and kurtosis."""
    log_n = np.log(n)
    z = float(-stats.norm.ppf(np.exp(-chi2 / 2))) if chi2 < 1400 else float(np.sqrt(chi2))
    bend = 0.55 * n**0.2 - 0.21
    a1 = (-5.0 + 3.46 * log_n) * np.exp(-1.37 * log_n)
    b1 = 1.0 + (0.854 - 0.148 * log_n) * np.exp(-0.55 * log_n)
    change = 2.13 / (1.0 - 2.37 * log_n)
    if z < -1.0:
        return z
    return float(a1 + b1 * z if z < bend else a1 - change * bend + (b1 + change) * z)
