"""What can go wrong: every message names the offending column, level or number and says what to do.

`MixedModelError` is a `ValueError`, so callers who only know the standard library can catch it too.
"""

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


class MixedModelError(ValueError):
    """Base class of every error that this package raises on purpose."""


class FormulaError(MixedModelError):
    """The text is not a formula of lme4's language, or uses a function outside the whitelist.

    `message` says what is wrong, `text` is the whole formula and `position` the offset of the offending
    character (None when the whole formula is meant). The printed form shows the text with a caret.
    """

    def __init__(self, message: str, text: str = "", position: int | None = None):
        self.message = message
        self.text = text
        self.position = position
        super().__init__(_with_caret(message, text, position))

    def __reduce__(self):
        return type(self), (self.message, self.text, self.position)


class DataError(MixedModelError):
    """The data do not fit the model: unknown column, no rows left, infinite values, wrong lengths."""


class DesignError(MixedModelError):
    """The design cannot be estimated: a one-level grouping factor, as many levels as rows, constant y."""


class FitError(MixedModelError):
    """The computation failed at a stated parameter value."""


class UnsupportedError(MixedModelError):
    """The combination asked for is not implemented; the message names it. Never a silent number."""


class MixedModelWarning(UserWarning):
    """Base class of every warning of this package."""


class RankWarning(MixedModelWarning):
    """Columns of X are linear combinations of earlier ones and were dropped, as R drops them."""


class ConvergenceWarning(MixedModelWarning):
    """The optimiser stopped without meeting its own criterion."""


class SingularWarning(MixedModelWarning):
    """The fit lies on the boundary: some linear combination of random effects has variance zero."""


class IdentificationWarning(MixedModelWarning):
    """A parameter is not in the likelihood: other values fit the data equally well."""


class SeparationWarning(MixedModelWarning):
    """Covariates split the response exactly: the likelihood rises without end along some coefficients."""


def warn(message: str, category: type[MixedModelWarning] = MixedModelWarning) -> None:
    """Warn, and point at the line outside this package that called it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _with_caret(message: str, text: str, position: int | None) -> str:
    if not text:
        return message
    if position is None:
        return f"{message}\n  {text}"
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start:] if end < 0 else text[start:end]
    return f"{message}\n  {line}\n  {' ' * (position - start)}^"
