"""First principles in ball arithmetic as a reference: proves the optimum of a small model on the spot.

It shares the reading of formulas with mmcore, and nothing else: dense matrices, exact doubles, hundreds of
bits. A model of a few dozen rows costs some tenths of a second. Where no proof is found (a flat criterion)
it says so.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcore.errors import MixedModelError, MixedModelWarning
from parity.engines.adapter import design_of
from parity.schema.case import Case
from parity.schema.engine import EngineUnavailable
from parity.schema.quantities import NAMES
from parity.schema.results import Missing, Results, Value

ROWS = 400  # beyond, n x n matrices of balls take too long
DIGITS = 40  # of theta; measures of near-singular systems keep fewer
WIDEST = 1e-13  # relative radius of an enclosure that still is a number
NOTHING = 1e-28  # absolute radius of one that is zero but for what was rounded
BITS = 400  # at a given theta
LEAST_SQUARES = ("fitted_ls", "resid_ls")


class Exact:
    """Dense ball arithmetic, at a proved optimum or at a given theta."""

    name = "first-principles"
    version = "ball arithmetic"
    capabilities = frozenset(
        {"lmm", "glm", "glmm", "partial", "weights", "offset", "contrasts", "at_theta", "optimum", *NAMES}
    ) - frozenset(LEAST_SQUARES)

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case, as the doubles nearest to their enclosures."""
        from parity.exact.balls import NotEnclosed
        from parity.exact.lmm import NotCertifiable

        at_modes = case.kind == "glmm" and theta is not None and case.nagq > 0 and not case.estimates_size
        if not (case.kind == "lmm" or at_modes or (case.kind == "glm" and theta is None)):
            return self._without(
                "unsupported", "of generalised mixed models only the rows at given parameters"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MixedModelWarning)
                design = design_of(case)
                if design.n > ROWS:
                    return self._without("unsupported", f"{design.n} rows; balls are for {ROWS} at most")
                if case.kind != "lmm":
                    return self._results(_generalised(design, case, theta), quantities)
                found = _proved(design, case) if theta is None else _given(design, case, theta)
                return self._results(found, quantities)
        except MixedModelError as error:
            return self._without("refused", f"{type(error).__name__}: {error}")
        except NotCertifiable as error:
            return self._without("unsupported", str(error))
        except NotEnclosed as error:
            return self._without("unsupported", f"not proved: {error}")

    def _results(self, found: tuple[Mapping[str, Any], bool | None], quantities: Sequence[str]) -> Results:
        values, singular = found
        if "p_fixed" in values and not values["p_fixed"][1][0] > 0:
            return self._without("unsupported", "a model without fixed effects has no influence on them")
        absent = Missing("unsupported", "not computed here")
        missing = {name: absent for name in quantities if name not in values}
        empty = Missing("undefined", "no element of the model has it")
        missing |= {name: empty for name in quantities if name in values and not values[name][0]}
        held = {name: _value(name, *values[name]) for name in quantities if name not in missing}
        return Results(
            self.name, self.version, values=held, missing=missing, singular=singular, converged=True
        )

    def _without(self, status: str, message: str) -> Results:
        return Results(self.name, self.version, status, message)  # type: ignore[arg-type]


def engine() -> Exact:
    """The reference.

    Raises
    ------
    EngineUnavailable
        if python-flint is not installed.
    """
    try:
        import parity.exact.balls  # noqa: F401
    except ImportError as error:
        raise EngineUnavailable("engine first-principles: install mmparity[certify]") from error
    return Exact()


def _value(name: str, labels: Sequence[str], balls: Sequence[Any]) -> Value:
    from parity.exact.balls import NotEnclosed

    middle = np.array([float(ball.mid()) for ball in balls])
    radius = np.array([0.0 if ball.is_nan() else float(ball.rad()) for ball in balls])
    scale = np.max(np.abs(middle[np.isfinite(middle)]), initial=1e-300)
    allowed = np.maximum(WIDEST * np.maximum(np.abs(np.nan_to_num(middle)), 1e-3 * scale), NOTHING)
    if not (radius <= allowed).all():
        raise NotEnclosed(f"{name} is enclosed to {radius.max():.2g} only")
    return Value(tuple(labels), middle)


def _proved(design: Any, case: Case) -> tuple[Mapping[str, Any], bool]:
    from parity.exact.balls import precision
    from parity.exact.lmm import lower_factors
    from parity.exact.prove import prove

    fit = prove(design, reml=case.reml, digits=DIGITS, most_bits=640, evidence=False)
    with precision(fit.bits):
        values = _measures(fit.at)
        if any(ball.is_nan() for ball in values["theta"][1]):
            values["theta"] = values["theta"][0], lower_factors(fit.at)
        return values, fit.singular


def _generalised(design: Any, case: Case, theta: np.ndarray | None) -> tuple[Mapping[str, Any], None]:
    from parity.exact.glm import proved_glm, proved_modes

    if theta is None:
        return proved_glm(design, case.family, case.link, DIGITS), None
    k = len(theta) - design.p
    return proved_modes(design, case.family, case.link, theta[:k], theta[k:], DIGITS), None


def _measures(at: Any) -> dict[str, Any]:
    from parity.exact.measures import measures, within_levels

    return {**measures(at), **within_levels(at)}


def _given(design: Any, case: Case, theta: np.ndarray) -> tuple[Mapping[str, Any], None]:
    """At theta as exact doubles; Lambda may have zeros on its diagonal."""
    from parity.exact.balls import precision
    from parity.exact.lmm import at_theta

    with precision(BITS):
        return _measures(at_theta(design, case.reml, theta)), None
