"""Is the covariance of the random effects of full rank, and in which directions is it not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..covariance.structure import SINGULAR
from ..results.argument import of_fit
from ..results.fit import Fit

__all__ = ["RandomEffectsPCA", "is_singular", "re_pca"]


@of_fit
def is_singular(fit: Fit, tol: float = SINGULAR) -> bool:
    """Whether a diagonal entry of a relative covariance factor is below ``tol``: lme4's isSingular, blind to units.

    A variance is then zero, or a correlation +-1; :func:`re_pca` tells in which direction and
    :meth:`~mmcore.Fit.singular_terms` in which terms.
    """
    return bool(fit.singular_terms(tol))


@dataclass(frozen=True, slots=True)
class RandomEffectsPCA:
    """Principal components of the random effects of one grouping factor, relative to sigma."""

    sdev: np.ndarray  # (k,) standard deviations, decreasing; 0 for a direction without variance
    rotation: pd.DataFrame  # effects x components

    @property
    def proportion(self) -> np.ndarray:
        """(k,) shares of the total variance; NaN if there is none."""
        total = float((self.sdev**2).sum())
        return self.sdev**2 / total if total > 0 else np.full(len(self.sdev), np.nan)

    def to_frame(self) -> pd.DataFrame:
        """Components as rows: sdev, proportion, cumulative."""
        columns = {"sdev": self.sdev, "proportion": self.proportion, "cumulative": np.cumsum(self.proportion)}
        return pd.DataFrame(columns, index=self.rotation.columns)


@of_fit
def re_pca(fit: Fit) -> dict[str, RandomEffectsPCA]:
    """Principal components of the random effects, by grouping factor: lme4's rePCA.

    Singular value decomposition of the relative factor Lambda, all terms of a factor together. As many
    components with a standard deviation of zero as there are dimensions too many in the model.
    """
    out: dict[str, RandomEffectsPCA] = {}
    for group in dict.fromkeys(t.group for t in fit.design.terms):
        own = [(t, L) for t, L in zip(fit.design.terms, fit.Lambda, strict=True) if t.group == group]
        effects = [e for t, _ in own for e in t.effects]
        Lambda, at = np.zeros((len(effects), len(effects))), 0
        for _, L in own:
            Lambda[at : at + len(L), at : at + len(L)] = L
            at += len(L)
        rotation, sdev, _ = np.linalg.svd(Lambda)
        names = [f"PC{i + 1}" for i in range(len(sdev))]
        out[group] = RandomEffectsPCA(sdev, pd.DataFrame(rotation, index=effects, columns=names))
    return out
