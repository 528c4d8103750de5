"""From text to a :class:`Formula`: lme4's language, parsed and never evaluated. No data here."""

from .algebra import Term
from .parse import Bar, Formula, column_names, is_word, parse, term_label

__all__ = ["Bar", "Formula", "Term", "column_names", "is_word", "parse", "term_label"]
