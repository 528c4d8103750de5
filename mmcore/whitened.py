"""The rows of a linear mixed model with V taken out, and the Schur complement that they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from .kernels import Factor, Kernel, Profile
from .products import Block

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


def resummed(kernel: Kernel, factor: Factor, Sigma: list[np.ndarray]) -> Profile:
    """The profile of a factor with LS, its inverse and rss from a sum over rows, where S has lost digits.

    Kernels form S = M'V^-1M as M'M less what the random effects take, which is all but 1e-5 of it where they are large.
    G V G' over the whitened rows G = LS^-1 M'V^-1 is the identity but for that loss, and corrects it. Elsewhere the
    profile is returned as it is. Cost O(n (p + 1)(p + k)).
    """
    old, p = factor.profile, kernel.A.p
    variances = np.square(old.LS_inv[:p, :p]).sum(
        axis=0
    )  # diagonal of (Q'V^-1Q)^-1; 1 where V is the identity
    if min(1.0 / variances.max(initial=1.0), old.rss / kernel.A.A[p, p]) >= ENOUGH:
        return old
    C, info = dpotrf(_gram(kernel, Sigma, *whitened_rows(kernel, factor, old)), lower=1, clean=1)
    if info:
        return old
    rss = old.rss * float(C[p, p]) ** 2
    return replace(old, LS=old.LS @ C, LS_inv=dtrtri(C, lower=1)[0] @ old.LS_inv, rss=rss)


def _gram(kernel: Kernel, Sigma: list[np.ndarray], white: np.ndarray, random: list[np.ndarray]) -> np.ndarray:
    """(p + 1, p + 1) G V G' for whitened rows G."""
    m = len(white)
    out = white @ white.T
    for block, S, u in zip(kernel.A.blocks, Sigma, random, strict=True):
        s, rest = of_random(block, S, white, u)
        out += s.reshape(m, -1) @ u.reshape(m, -1).T + rest.reshape(m, -1) @ s.reshape(m, -1).T
    return out
