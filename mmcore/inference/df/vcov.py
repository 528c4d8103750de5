"""A covariance of the fixed effects that the user gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataError
from ...results.fit import Fit

__all__ = ["checked_vcov"]


def checked_vcov(fit: Fit, vcov: Any) -> np.ndarray:
    """``vcov`` as (p, p) numbers in the order of the coefficients; DataError if it has other labels or shape."""
    names = list(fit.design.x_names)
    if isinstance(vcov, pd.DataFrame):
        missing = [name for name in names if name not in vcov.index or name not in vcov.columns]
        if missing:
            raise DataError(
                f"vcov has no row or column {missing[0]!r}; the coefficients are {', '.join(names)}"
            )
        vcov = vcov.loc[names, names].to_numpy()
    values = np.asarray(vcov, float)
    if values.shape != (len(names), len(names)):
        raise DataError(f"vcov has shape {values.shape}; the model has {len(names)} coefficients")
    return values
