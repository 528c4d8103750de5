"""A design with other random terms, or fewer fixed ones: what deletion of terms is refitted with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...design.build import Design
from ...design.frame import kept_variables
from ...design.matrix import make_coding
from ...design.random import lme4_order, make_terms
from ...design.rank import independent_columns
from ...errors import MixedModelWarning
from ...formula.algebra import Term
from ...formula.parse import Bar

__all__ = ["with_bars", "without_fixed_term"]


def with_bars(design: Design, bars: Sequence[Bar]) -> Design:
    """The design with these random terms in place of its own; variables are those of its model frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)  # said when the design was built
        variables = kept_variables(design.source.variables, design.rows)
    made = lme4_order(make_terms(tuple(bars), variables, design.n, {}))
    return replace(
        design,
        formula=replace(design.formula, bars=tuple(bars)),
        terms=tuple(item.term for item in made),
        bars=tuple(item.bar for item in made),
        random_codings=tuple(item.coding for item in made),
    )


def without_fixed_term(design: Design, term: Term) -> Design:
    """The design without one fixed term; the coding of the others is made afresh, as an R formula without it would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        variables = kept_variables(design.source.variables, design.rows)
    terms = tuple(t for t in design.formula.terms if t != term)
    formula = replace(design.formula, terms=terms)
    coding = make_coding(terms, formula.intercept, variables, design.source.contrasts)
    X = coding.matrix(variables, design.n)
    kept = independent_columns(X)
    X = np.ascontiguousarray(X[:, kept])
    names = tuple(coding.names[j] for j in kept)
    return replace(design, formula=formula, coding=coding, X=X, x_names=names, x_names_full=coding.names)
