"""From the shape of Z to the system that fits it."""

from __future__ import annotations

from collections.abc import Sequence

from ..products import Block
from ..shape import chain
from .crossed import CrossedSystem
from .nested import NestedSystem
from .one_factor import OneFactorSystem
from .system import System

__all__ = ["system_for"]


def system_for(blocks: Sequence[Block]) -> System:
    """The system that fits the shape of Z; blocks come largest first."""
    if len(blocks) == 1:
        return OneFactorSystem(blocks)
    parents = chain(blocks)
    return CrossedSystem(blocks) if parents is None else NestedSystem(blocks, parents)
