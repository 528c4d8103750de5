"""What a linear mixed model cannot tell from its data: covariance parameters that are not in the criterion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..design.random import RandomTerm
from ..kernels.criterion import Criterion
from ..kernels.identified import free_directions, in_span, linked_effects, present

__all__ = ["not_identified"]

_MOST_NAMED = 5  # pairs of effects in a message


def not_identified(criterion: Criterion, terms: tuple[RandomTerm, ...]) -> list[str]:
    """One sentence for each random-effects term of which a parameter is not in the criterion."""
    kernel = criterion.kernel
    out = []
    for block, gram, ZM in zip(kernel.A.blocks, kernel.level_grams(), kernel.random_products(), strict=True):
        at = 0
        spanned = in_span(*_unframed(block.frame, gram, ZM), kernel.A.p) if criterion.like.reml else None
        for t in block.terms:
            rows = slice(at, at + len(terms[t].effects))
            if spanned is not None and spanned[rows].any():
                out.append(_of_span(terms[t], spanned[rows]))
            out += _of_pairs(terms[t], gram[rows, rows])
            at = rows.stop
    return out


def _unframed(frame: np.ndarray | None, gram: np.ndarray, ZM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z'Z and Z'M by level in the columns of the model: those of the frame are Z C."""
    if frame is None:
        return gram, ZM
    back = np.linalg.inv(frame)
    return np.einsum("ca,cdl,db->abl", back, gram, back), np.einsum("ca,mcl->mal", back, ZM)


def _of_span(term: RandomTerm, spanned: np.ndarray) -> str:
    named = ", ".join(name for name, inside in zip(term.effects, spanned, strict=True) if inside)
    return (
        f"the random effects {named} of {_term(term)} lie in the span of the fixed effects: the REML criterion does "
        "not depend on their variance, so theta and every standard error that uses it are arbitrary. Drop them or the "
        "fixed effects that repeat them"
    )


def _of_pairs(term: RandomTerm, gram: np.ndarray) -> Iterator[str]:
    k = len(gram)
    if k == 1 or term.structure == "diag":
        return
    apart = ~linked_effects(present(gram))
    if term.structure != "us" and apart.sum() != k * (k - 1):
        return
    pairs = [(term.effects[a], term.effects[b]) for b in range(k) for a in range(b) if apart[a, b]]
    if pairs:
        named = ", ".join(f"{a} and {b}" for a, b in pairs[:_MOST_NAMED])
        more = f" and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
        yield (
            f"in {_term(term)} no level of {term.group} has both {named}{more}: the covariance is not in the "
            "likelihood and is reported as zero. Separate terms leave it out"
        )
    free = free_directions(gram) - len(pairs) if term.structure == "us" else 0
    if free > 0:
        yield (
            f"{free} combination(s) of the variances and covariances of {_term(term)} are in no element of the "
            "covariance of the response: they are not in the likelihood, and the values reported are one choice of "
            "many. Use fewer effects"
        )


def _term(term: RandomTerm) -> str:
    return f"({' + '.join(term.effects)} | {term.group})"
