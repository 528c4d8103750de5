"""Variances, standard deviations and correlations of the random effects, as lme4's VarCorr shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["TermCovariance", "VarCorr", "term_names"]


@dataclass(frozen=True, slots=True)
class TermCovariance:
    """Covariance of one random-effects term, on the scale of the response."""

    group: str
    effects: tuple[str, ...]
    cov: np.ndarray  # (k, k) sigma^2 Lambda Lambda'

    @property
    def sd(self) -> np.ndarray:
        """(k,) standard deviations."""
        return np.sqrt(np.diag(self.cov))

    @property
    def correlation(self) -> np.ndarray:
        """(k, k) correlations; NaN where a variance is zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.cov / np.outer(self.sd, self.sd)

    def frame(self) -> pd.DataFrame:
        """The covariance with the effects as labels."""
        return pd.DataFrame(self.cov, index=list(self.effects), columns=list(self.effects))


def term_names(groups: Sequence[str]) -> list[str]:
    """Names of the terms of these grouping factors: a second one on a factor is called ``g.1``, as in lme4."""
    names: list[str] = []
    for group in groups:
        name, copy = group, 0
        while name in names:
            copy += 1
            name = f"{group}.{copy}"
        names.append(name)
    return names


class VarCorr(Mapping[str, TermCovariance]):
    """Mapping from term name to :class:`TermCovariance`, with the residual standard deviation ``sigma``.

    Names are those of :func:`term_names`, in lme4's order.
    """

    def __init__(self, terms: list[TermCovariance], sigma: float | None) -> None:
        self.sigma = sigma
        self._terms = dict(zip(term_names([term.group for term in terms]), terms, strict=True))

    def __getitem__(self, name: str) -> TermCovariance:
        return self._terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def to_frame(self) -> pd.DataFrame:
        """One row per variance and covariance: columns grp, var1, var2, vcov, sdcor (lme4's as.data.frame)."""
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for name, term in self._terms.items():
            k = len(term.effects)
            corr = term.correlation
            rows += [(name, e, None, term.cov[i, i], term.sd[i]) for i, e in enumerate(term.effects)]
            rows += [
                (name, term.effects[j], term.effects[i], term.cov[i, j], corr[i, j])
                for j in range(k)
                for i in range(j + 1, k)
            ]
        if self.sigma is not None:
            rows.append(("Residual", None, None, self.sigma**2, self.sigma))
        return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])

    def __repr__(self) -> str:
        return self.to_frame().to_string(index=False)
