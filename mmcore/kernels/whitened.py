"""The rows of a linear mixed model with V taken out, and the Schur complement that they add up to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from . import Factor, Kernel
from .products import Block
from .profile import Likelihood, Profile

__all__ = ["of_random", "resummed", "whitened_rows", "without_random"]

ENOUGH = 1e-2  # least part of the fixed effects (or of y) that V^-1 leaves at which S as a difference has its digits


def without_random(rows: np.ndarray, blocks: Sequence[Block], random: Sequence[np.ndarray]) -> np.ndarray:
    """(r, n) rows less u Z' of every block, u (r, K, L)."""
    out = rows.copy()
    for block, u in zip(blocks, random, strict=True):
        for k, column in enumerate(block.columns):
            for i in range(len(out)):
                out[i] -= column * u[i, k][block.codes]
    return out


def whitened_rows(kernel: Kernel, factor: Factor, profile: Profile) -> tuple[np.ndarray, list[np.ndarray]]:
    """(p + 1, n) LS^-1 [Q, r]'V^-1, and per block (p + 1, K, L) that times Z Sigma, LS of the ``profile``."""
    A, LS_inv = kernel.A, profile.LS_inv
    random = factor.solve_random(kernel.random_products())
    VM = without_random(A.M, A.blocks, random)
    return LS_inv @ VM, [np.tensordot(LS_inv, u, 1) for u in random]


def of_random(
    block: Block, Sigma: np.ndarray, white: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(m, K, L) s = G Z of whitened rows G, and u - s Sigma for their random effects u, which is rounding.

    A block adds s Sigma s' to G V G'. It is to be taken as s u' + (u - s Sigma) s': G = M - u Z', and in that form the
    rounding of u and of s cancels to first order (both are stationary there), which s Sigma s' alone multiplies by the
    size of Sigma Z'Z.
    """
    s = block.products(white)
    return s, u - np.matmul(Sigma, s)


def resummed(kernel: Kernel, factor: Factor, Sigma: list[np.ndarray], least: float = ENOUGH) -> Profile:
    """The profile of a factor from a sum over rows, where S keeps less than ``least`` of M'M and has lost digits.

    Kernels form S = M'V^-1M as M'M less what the random effects take, which is all but 1e-5 of it where they are large.
    G V G' over the whitened rows G = LS^-1 M'V^-1 is the identity but for that loss, and corrects it. Elsewhere the
    profile is returned as it is. Cost O(n (p + 1)(p + k)).
    """
    old, p = factor.profile, kernel.A.p
    if not factor.like.profiled or (old.LS.diagonal() ** 2 >= least * kernel.A.A.diagonal()).all():
        return old
    white, random = whitened_rows(kernel, factor, old)
    if kernel.A.gone is not None:
        white[:, kernel.A.gone] = 0.0
    C, info = dpotrf(_gram(kernel, Sigma, white, random), lower=1, clean=1)
    return old if info else _corrected(old, C, p, factor.like)


def _corrected(old: Profile, C: np.ndarray, p: int, like: Likelihood) -> Profile:
    """The profile with LS C in the place of LS."""
    by = C.diagonal()
    rss, f = old.rss * float(by[p]) ** 2, old.f
    if like.reml:
        f += 2.0 * float(np.log(by[:p]).sum())
    if like.sigma is not None:
        f += (rss - old.rss) * old.per_rss
        per_rss, curl = old.per_rss, 0.0
    else:
        f += 2.0 * old.nu * float(np.log(by[p]))
        per_rss, curl = old.nu / rss, old.nu / rss**2
    return Profile(f, old.LS @ C, dtrtri(C, lower=1)[0] @ old.LS_inv, rss, per_rss, curl, old.nu)


def _gram(kernel: Kernel, Sigma: list[np.ndarray], white: np.ndarray, random: list[np.ndarray]) -> np.ndarray:
    """(p + 1, p + 1) G V G' for whitened rows G."""
    m = len(white)
    out = white @ white.T
    for block, S, u in zip(kernel.A.blocks, Sigma, random, strict=True):
        s, rest = of_random(block, S, white, u)
        out += s.reshape(m, -1) @ u.reshape(m, -1).T + rest.reshape(m, -1) @ s.reshape(m, -1).T
    return out
