"""Kernels: the profiled criterion and its derivatives, one file per shape of Z."""

from __future__ import annotations

from .crossed import Crossed, CrossedFactor
from .dense import Dense, DenseFactor
from .fixed import Fixed, FixedFactor
from .nested import Nested, NestedFactor
from .one_factor import OneFactor, OneFactorFactor
from .products import CrossProducts
from .profile import Likelihood, Profile
from .shape import nesting

__all__ = ["Factor", "Kernel", "Likelihood", "Profile", "kernel_for"]

Kernel = Fixed | OneFactor | Dense | Nested | Crossed
Factor = FixedFactor | OneFactorFactor | DenseFactor | NestedFactor | CrossedFactor
DENSE_Q = 150  # total random effects up to which one dense factor beats structure


def kernel_for(A: CrossProducts) -> Kernel:
    """The kernel that fits the shape of Z: one factor, small, a nested chain, or crossed."""
    if not A.blocks:
        return Fixed(A)
    if len(A.blocks) == 1:
        return OneFactor(A)
    if sum(b.K * b.L for b in A.blocks) <= DENSE_Q:
        return Dense(A)
    parents = nesting(A)
    return Crossed(A) if parents is None else Nested(A, parents)
