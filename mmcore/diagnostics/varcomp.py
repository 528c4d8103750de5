"""Variance components as one vector: sigma^2, then the covariances of the random effects by position."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..covariance.blocks import BlockCovariance, structure_for
from ..covariance.diagonal import Diagonal
from ..results.fit import Fit
from .refitted import measure

__all__ = ["component_names", "components", "full_components", "sigmas", "varcomp"]


@measure
def varcomp(fit: Fit) -> pd.Series:
    """``sigma2`` and the covariances ``D11``, ``D21``, ``D22``, ... of the random effects, absolute.

    D is the block-diagonal covariance of all terms in the order of the model; entries are its lower triangle,
    column by column. Entries that the model sets to zero (between terms, off the diagonal of ``||``) are left
    out; estimates that happen to be zero stay, unlike in HLMdiag's varcomp.mer. ``D10_1``: row 10, column 1.
    """
    return pd.Series(full_components(fit)[0], index=component_names(fit), name="varcomp")


def full_components(fit: Fit) -> np.ndarray:
    """(1, c) components of the fit itself."""
    par = fit.covariance.from_theta(fit.theta.to_numpy())
    return components(fit, par[None], np.array([fit.sigma]))


def _entries(fit: Fit) -> list[tuple[int, int, int]]:
    """(term, row, column) within the term of every component."""
    out = []
    for t, structure in enumerate(fit.covariance.structures):
        diagonal = isinstance(structure, Diagonal)
        k = structure.k
        out += [(t, i, j) for j in range(k) for i in range(j, k) if i == j or not diagonal]
    return out


def component_names(fit: Fit) -> list[str]:
    """Names of the components, ``sigma2`` first."""
    sizes = [len(t.effects) for t in fit.design.terms]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    joint = "_" if starts[-1] > 9 else ""
    return ["sigma2", *(f"D{starts[t] + i + 1}{joint}{starts[t] + j + 1}" for t, i, j in _entries(fit))]


def components(fit: Fit, par: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """(U, c) components at parameters par (U, n_par) and sigma (U,)."""
    cov = _standard(fit)
    blocks = sigmas(cov, par)
    place = {
        t: (b, rows) for b, terms in enumerate(cov.blocks) for t, rows in zip(terms, cov.rows[b], strict=True)
    }
    columns = [np.ones(len(par))]
    blocks = [C @ S @ C.T for C, S in zip(cov.frames, blocks, strict=True)]
    for t, i, j in _entries(fit):
        b, rows = place[t]
        columns.append(blocks[b][:, rows.start + i, rows.start + j])
    return np.column_stack(columns) * sigma[:, None] ** 2


def _standard(fit: Fit) -> BlockCovariance:
    """The covariance of the effects themselves: the criterion's is in the frames of its products."""
    structures = [structure_for(t.structure, len(t.effects), t.homogeneous) for t in fit.design.terms]
    return BlockCovariance(fit.covariance.blocks, structures)


def sigmas(cov: BlockCovariance, par: np.ndarray) -> list[np.ndarray]:
    """(U, K, K) relative covariance per block at U parameter vectors."""
    if cov.bounds is not None or not len(par):
        each = [cov.sigma(x) for x in par]
        return [np.array([e[b] for e in each]).reshape(len(par), K, K) for b, K in enumerate(cov.K)]
    # Sigma is quadratic in par: half of par times its Jacobian, and the Jacobian is linear
    unit = [cov.jacobian(e) for e in np.eye(cov.n_par)]
    out = []
    for b, index in enumerate(cov.index):
        tensor = np.stack([unit[i][b] for i in index], axis=-1)
        own = par[:, index]
        out.append(0.5 * np.einsum("uk,ul,kabl->uab", own, own, tensor, optimize=True))
    return out
