"""Variance inflation: how much correlation among the fixed effects costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import UnsupportedError
from ..results.argument import of_fit
from ..results.fit import Fit

__all__ = ["vif"]


@of_fit
def vif(fit: Fit) -> pd.DataFrame:
    """Generalised variance inflation factors of the terms of the fixed part (Fox & Monette 1992).

    With R the correlation matrix of the coefficients but the intercept, GVIF = det R_11 det R_22 / det R
    for a term's coefficients (1) and the others (2); for one coefficient it is the familiar VIF. Invariant
    to the coding. Works on ``vcov``, hence for mixed models too; car::vif in R.

    Returns
    -------
    DataFrame by term: ``gvif``, ``df`` and ``gvif_scaled`` = gvif^(1 / (2 df)), comparable between terms
    (the square root of the VIF for one coefficient).
    """
    assign = np.array(fit.design.assign)
    slopes = assign > 0
    labels = fit.design.formula.term_labels
    terms = [t for t in range(1, len(labels) + 1) if (assign == t).any()]
    if len(terms) < 2:
        raise UnsupportedError(
            "variance inflation compares terms of the fixed part: the model needs at least two"
        )
    V = fit.vcov.to_numpy()[np.ix_(slopes, slopes)]
    sd = np.sqrt(np.diag(V))
    R, own = V / np.outer(sd, sd), assign[slopes]
    total = np.linalg.slogdet(R)[1]
    rows = []
    for t in terms:
        inside = own == t
        part = (
            np.linalg.slogdet(R[np.ix_(inside, inside)])[1]
            + np.linalg.slogdet(R[np.ix_(~inside, ~inside)])[1]
        )
        df = int(inside.sum())
        gvif = float(np.exp(part - total))
        rows.append((gvif, df, gvif ** (0.5 / df)))
    index = pd.Index([labels[t - 1] for t in terms], name="term")
    return pd.DataFrame(rows, index=index, columns=["gvif", "df", "gvif_scaled"])
