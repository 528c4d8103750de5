"""Kenward and Roger's adjusted covariance of the fixed effects, and their scaled F test.

Kenward & Roger (1997), with the variance matrix linear in its parameters. V is relative to sigma^2, P_k and Q_kl are
those of :mod:`.curvature`, in coordinates where (X'V^-1X)^-1 is the identity. With W the inverse of the expected
information of the variance parameters, W_kl^-1 = tr(P V_k P V_l) / 2,
    vcov_kr = vcov + 2 sum_kl W_kl (Q_kl - P_k P_l)    in these coordinates.
Any basis of the space of variance matrices gives the same. Here it is the entries of Sigma and, for the residual
variance, V itself (a sum of all components), for which Q - P P = 0 and the traces are known: nothing cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...covariance.blocks import BlockCovariance
from ...covariance.compound import Compound
from ...covariance.diagonal import Diagonal
from ...covariance.structure import Structure
from ...errors import UnsupportedError
from ...results.fit import Fit
from .curvature import SecondOrder, second_order
from .ftest import NO_TEST, FTest
from .satterthwaite import need_linear_mixed

__all__ = ["KenwardRoger", "component_covariance", "kenward_roger", "vcov_kr"]

RANK = 1e-8  # relative singular value of L below which a row repeats others
INFORMATIVE = 1e-10  # relative eigenvalue of the information below which a direction is left out
EXACT = 1e-10  # numerator of rho that is rounding
NEAR_TWO = 0.01  # df so near to 2 that F is not scaled


@dataclass(frozen=True, slots=True)
class KenwardRoger:
    """What the tests of any hypothesis are made from."""

    vcov: np.ndarray  # (p, p) adjusted
    half: np.ndarray  # (p, p) vcov before the adjustment is half half'
    P: np.ndarray  # (r, p, p) in the coordinates of ``half``; symmetric
    W: np.ndarray  # (r, r) covariance of the variance parameters

    def df(self, contrast: np.ndarray) -> float:
        """Degrees of freedom of one contrast (p,)."""
        return self.f_test(contrast[None], np.zeros(1)).den_df

    def f_test(self, L: np.ndarray, estimate: np.ndarray) -> FTest:
        """Scaled F of L beta = rhs, L (q, p) and ``estimate`` (q,) L beta - rhs; depends on the space of L only."""
        left, size, basis = np.linalg.svd(L @ self.half, full_matrices=False)
        kept = size > RANK * size.max(initial=0.0)
        q = int(kept.sum())
        if not q:
            return NO_TEST
        rows = left[:, kept].T
        value, reduced = rows @ estimate, rows @ L
        F = float(value @ np.linalg.solve(reduced @ self.vcov @ reduced.T, value)) / q
        df, scale = self._denominator(basis[kept])
        return FTest(scale * F, F, q, df)

    def _denominator(self, basis: np.ndarray) -> tuple[float, float]:
        """Degrees of freedom and scale of F for an orthonormal basis (q, p) of the hypothesis.

        The names A1, A2, B, g, c1, c2, c3 and rho are those of Kenward & Roger (1997), section 3.
        """
        q, U = len(basis), basis @ self.P @ basis.T
        trace = np.einsum("kii->k", U)
        A1 = float(trace @ self.W @ trace)
        A2 = float(np.einsum("kl,kij,lji->", self.W, U, U))
        if q == 1:
            return 2.0 / A2, 1.0
        B = (A1 + 6.0 * A2) / (2.0 * q)
        g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
        c = 3.0 * q + 2.0 * (1.0 - g)
        top, left, right = 1.0 + g / c * B, 1.0 - (q - g) / c * B, 1.0 - (q + 2.0 - g) / c * B
        top = 0.0 if abs(top) < EXACT else top
        mean = 1.0 - A2 / q
        ratio = 1.0 if max(abs(mean), abs(left)) < 1e-14 else mean / left
        df = 4.0 + (q + 2.0) / (ratio**2 * top / right - 1.0)
        return df, 1.0 if abs(df - 2.0) < NEAR_TWO else df * mean / (df - 2.0)


def kenward_roger(fit: Fit) -> KenwardRoger:
    """Adjusted covariance and what Kenward-Roger tests need, of a linear mixed model fitted by REML.

    Raises
    ------
    UnsupportedError
        For fits by maximum likelihood, generalised models and ``residual="varident(...)"``.

    Notes
    -----
    Equals ``pbkrtest::vcovAdj`` and ``KRmodcomp``, but that these ignore prior weights. Covariances that are not linear
    in their parameters (``ar1``, heterogeneous ``cs``) enter by their tangents, without second derivatives, which makes
    the result free of how they are parametrised (SAS: ``ddfm=kr(linear)``). Cost: that of one Newton step.
    """
    need_linear_mixed(fit, "Kenward-Roger degrees of freedom")
    if not fit.reml:
        raise UnsupportedError(
            "Kenward-Roger is defined for fits by REML; this one is by maximum likelihood: use "
            "fit.update(reml=True), or ddf='satterthwaite'"
        )
    kernel, p = fit.kernel, fit.design.p
    E = _components(fit.working.covariance, fit.par)
    second = second_order(fit, E)
    W = _inverse(_information(fit, E, second))
    P = second.P[:, :p, :p]
    r = len(P)
    adjust = np.einsum("kl,klij->ij", W[:r, :r], second.Q[:, :, :p, :p])
    adjust -= np.einsum("kl,kij,ljm->im", W[:r, :r], P, P, optimize=True)
    half = (
        fit.sigma * np.linalg.solve(kernel.A.R, fit.working.profile.LS_inv[:p, :p].T)
        if p
        else np.zeros((0, 0))
    )
    vcov = half @ (np.eye(p) + adjust + adjust.T) @ half.T
    if len(W) > r:
        P = np.concatenate([P, np.eye(p)[None]])
    return KenwardRoger(0.5 * (vcov + vcov.T), half, P, W)


def component_covariance(fit: Fit) -> np.ndarray:
    """(r[+ 1], r[+ 1]) asymptotic covariance of the variance parameters: the inverse of their expected information
    under REML.

    In order the entries of the covariances of the random effects relative to sigma^2, in the coordinates of the
    products, and the scale of V, unless sigma is known.
    """
    E = _components(fit.working.covariance, fit.par)
    return _inverse(_information(fit, E, second_order(fit, E)))


def vcov_kr(fit: Fit) -> pd.DataFrame:
    """Kenward and Roger's adjusted covariance of the fixed effects.

    Parameters
    ----------
    fit : a linear mixed model fitted by REML.

    Returns
    -------
    DataFrame
        (p, p), labelled by coefficient; squared unit of the response over those of the covariates.

    Raises
    ------
    UnsupportedError
        For other models, and for fits by maximum likelihood (pbkrtest refits those by REML without a word).

    Notes
    -----
    Larger than ``fit.vcov``, which takes the variance parameters as known, by an estimate of the bias that this
    causes. R: ``pbkrtest::vcovAdj``, which ignores prior weights. For the degrees of freedom that go with it use
    ``anova(fit, ddf="kenward-roger")``.

    References
    ----------
    Kenward, M. G. & Roger, J. H. (1997). Small sample inference for fixed effects from restricted maximum likelihood.
    Biometrics 53, 983-997.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.df.kenward_roger import vcov_kr
    >>> fit = mm.lmer("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy"))
    >>> vcov_kr(fit).round(3)
                 (Intercept)   Days
    (Intercept)       46.575 -1.451
    Days              -1.451  2.389
    """
    names = list(fit.design.x_names)
    return pd.DataFrame(kenward_roger(fit).vcov, index=names, columns=names)


def _information(fit: Fit, E: list[np.ndarray], second: SecondOrder) -> np.ndarray:
    """(r[+ 1]) expected information tr(P V_k P V_l) / 2; the last direction is V, unless sigma is known."""
    info = 0.5 * second.expected()
    if fit.state.like.sigma is not None:
        return info
    r, p = len(info), second.p
    G = fit.state.derivatives(E)[0]
    own = np.concatenate([each.reshape(len(each), -1) @ g.ravel() for each, g in zip(E, G, strict=True)])
    out = np.empty((r + 1, r + 1))
    out[:r, :r] = info
    out[r, :r] = out[:r, r] = 0.5 * (own + second.P[:, p, p])  # G is of P less the part of the residual
    out[r, r] = 0.5 * fit.working.profile.nu
    return out


def _inverse(info: np.ndarray) -> np.ndarray:
    """The inverse of an information matrix; directions that repeat others, or change nothing, are left out."""
    size = np.sqrt(info.diagonal())
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(info / size / size[:, None])
    kept = values > INFORMATIVE
    root = vectors[:, kept] / size[:, None]
    return (root / values[kept]) @ root.T


def _components(cov: BlockCovariance, par: np.ndarray) -> list[np.ndarray]:
    """Per block (r_b, K, K) a basis of the space of its Sigma."""
    pieces, out = cov.split(par), []
    for b, terms in enumerate(cov.blocks):
        parts = []
        for t, rows in zip(terms, cov.rows[b], strict=True):
            own = _basis(cov.structures[t], pieces[t])
            parts.append(np.zeros((len(own), cov.K[b], cov.K[b])))
            parts[-1][:, rows, rows] = own
        out.append(np.concatenate(parts))
    return out


def _basis(structure: Structure, par: np.ndarray) -> np.ndarray:
    """(n_par, k, k) basis of the covariances of one term, or of their tangents where they are no linear space."""
    if isinstance(structure, Diagonal):
        return structure.jacobian(np.ones(structure.n_par))
    if isinstance(structure, Compound):
        return structure.jacobian(par)
    k, out = structure.k, []
    for j in range(k):
        for i in range(j, k):
            out.append(np.zeros((k, k)))
            out[-1][i, j] = out[-1][j, i] = 1.0
    return np.array(out)
