"""Covariance of the random effects: parameters -> Lambda and Sigma, with the derivatives a Newton step needs."""

from .blocks import BlockCovariance, structure_for
from .compound import Compound
from .diagonal import Diagonal
from .structure import Structure
from .triangle import cholesky_psd
from .unstructured import Unstructured

__all__ = [
    "BlockCovariance",
    "Compound",
    "Diagonal",
    "Structure",
    "Unstructured",
    "cholesky_psd",
    "structure_for",
]
