"""From a design to its criterion, and to parameters to start from."""

from __future__ import annotations

import numpy as np

from ..covariance.blocks import BlockCovariance, structure_for
from ..design.build import Design
from ..errors import DataError, DesignError
from ..kernels import kernel_for
from ..kernels.criterion import Criterion
from ..kernels.products import CrossProducts, cross_products
from ..kernels.profile import Likelihood
from .start import start_covariance

__all__ = ["charted", "covariance_of", "criterion_for"]

EXACT = 16 * np.finfo(float).eps  # relative residual that is rounding of the response


def charted(criterion: Criterion) -> tuple[Criterion, np.ndarray]:
    """The criterion in the coordinates of its products, and parameters to start from."""
    work = Criterion(criterion.kernel, criterion.covariance.charted(), criterion.like)
    return work, work.covariance.start(start_covariance(criterion.kernel, criterion.like.sigma))


def criterion_for(design: Design, like: Likelihood, products: CrossProducts | None = None) -> Criterion:
    """The criterion of a design; ``products`` may be given when they exist already.

    Raises DataError for a weight of zero and a response out of range, DesignError when the fixed effects alone
    reproduce the response.
    """
    if design.weights is not None and design.terms and not design.weights.all():
        raise DataError(
            f"row {design.index[int(np.argmin(design.weights))]!r} has weight 0: it says nothing about the model "
            "and its log-likelihood is not finite; drop the rows of weight 0"
        )
    products = cross_products(design) if products is None else products
    if design.terms:
        _refuse_perfect(products)
    return Criterion(kernel_for(products), covariance_of(design, products), like)


def covariance_of(design: Design, products: CrossProducts) -> BlockCovariance:
    """The structures of a design's terms, with standard parameters, in the frames of its products."""
    structures = [structure_for(t.structure, len(t.effects), t.homogeneous) for t in design.terms]
    for block in products.blocks:
        at = 0
        for t in block.terms:
            rows = slice(at, at + structures[t].k)
            if block.frame is not None:
                structures[t] = structures[t].framed(block.frame[rows, rows])
            at = rows.stop
    return BlockCovariance([b.terms for b in products.blocks], structures)


def _refuse_perfect(A: CrossProducts) -> None:
    """A response without a residual after the fixed effects, or too large or small to be squared."""
    left, total = float(A.A[-1, -1]), float(A.A[-1, -1] + A.gamma0 @ A.gamma0)
    if not 1e-200 < total / A.n < 1e200:
        size = (total / A.n) ** 0.5
        raise DataError(
            f"the response (less the offset) is of size {size:g}: bring it nearer to 1 by rescaling"
        )
    if left <= EXACT**2 * total:
        raise DesignError(
            f"the fixed effects reproduce the response exactly (relative residual {(left / total) ** 0.5:.1g}): "
            "there is no variance left to model"
        )
