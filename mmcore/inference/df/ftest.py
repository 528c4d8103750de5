"""An F test of a linear hypothesis, and the approximate degrees of freedom of its denominator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["NO_TEST", "FTest", "pooled_df"]

EQUAL = 1e-8  # degrees of freedom that differ by less than this are one number


@dataclass(frozen=True, slots=True)
class FTest:
    """F of a hypothesis of ``num_df`` independent rows; with infinite ``den_df`` chi-squared over its df."""

    statistic: float  # compared with the F distribution
    unscaled: float  # Wald statistic / num_df, before a scale that a method applies
    num_df: float
    den_df: float

    @property
    def p_value(self) -> float:
        """Probability of a larger F."""
        if np.isinf(self.den_df):
            return float(stats.chi2.sf(self.num_df * self.statistic, self.num_df))
        return float(stats.f.sf(self.statistic, self.num_df, self.den_df))


NO_TEST = FTest(np.nan, np.nan, np.nan, np.nan)


def pooled_df(df: np.ndarray) -> float:
    """Denominator df of a mean of squared t statistics, each with its own ``df``.

    With E = sum df / (df - 2), the mean of the sum of squares, it is 2 E / (E - q): the df at which q F has that mean.
    2 where some df is not above 2, unless all are alike. lmerTest's rule (Fai & Cornelius 1996).
    """
    if np.isinf(df).all():
        return np.inf
    if np.ptp(df) < EQUAL:
        return float(df.mean())
    if (df <= 2.0).any():
        return 2.0
    excess = float(np.sum(2.0 / (df - 2.0)))
    return 2.0 * (len(df) + excess) / excess
