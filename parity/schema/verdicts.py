"""The closed set of verdicts and what each one means for the outcome of a run."""

from enum import StrEnum
from typing import Literal

Outcome = Literal["pass", "neutral", "fail", "infrastructure"]

# What an arbiter says of a model without estimates: then each side stops somewhere.
NO_MAXIMUM = "the responses are separated, so that the likelihood has no maximum"


class Verdict(StrEnum):
    """What was found for one quantity of one case in one lane."""

    AGREE = "agree"
    AGREE_WITHIN_R_NOISE = "agree_within_r_noise"
    BETTER_THAN_REFERENCE = "better_than_reference"
    WORSE_THAN_REFERENCE = "worse_than_reference"
    DISAGREE = "disagree"
    DEFINITION_DIFFERS = "definition_differs"
    REFERENCE_WRONG = "reference_wrong"
    DESIGN_DIFFERS = "design_differs"
    SINGULAR_AGREE = "singular_agree"
    SINGULAR_DIFFERS = "singular_differs"
    UNDEFINED_IN_REFERENCE = "undefined_in_reference"
    UNDEFINED_IN_ENGINE = "undefined_in_engine"
    BOTH_UNDEFINED = "both_undefined"
    BOTH_REFUSE = "both_refuse"
    UNSUPPORTED = "unsupported"
    ENGINE_NOT_CONVERGED = "engine_not_converged"
    REFERENCE_NOT_CONVERGED = "reference_not_converged"
    ENGINE_ERROR = "engine_error"
    REFERENCE_ERROR = "reference_error"
    REFERENCE_CRASHED = "reference_crashed"
    TIMEOUT = "timeout"
    KNOWN = "known"
    KNOWN_BUT_AGREES = "known_but_agrees"

    @property
    def outcome(self) -> Outcome:
        """Whether it counts for, against or not at all; "infrastructure": the comparison could not be
        made."""
        return _OUTCOMES[self]

    @property
    def meaning(self) -> str:
        """One sentence for tables and reports."""
        return _MEANINGS[self]


_MEANINGS = {
    Verdict.AGREE: "within the gate",
    Verdict.AGREE_WITHIN_R_NOISE: "within the measured spread of R's own optimisers, not within the gate",
    Verdict.BETTER_THAN_REFERENCE: "the engine's optimum is better, by R's own criterion at its theta",
    Verdict.WORSE_THAN_REFERENCE: "the engine stopped at a worse optimum",
    Verdict.DISAGREE: "outside the gate",
    Verdict.DEFINITION_DIFFERS: "the engine's numbers are those of another quantity of the registry",
    Verdict.REFERENCE_WRONG: "outside the gate; the reference is wrong, with evidence",
    Verdict.DESIGN_DIFFERS: "y, X or Z differ, so the estimates cannot be compared",
    Verdict.SINGULAR_AGREE: "both fits are singular and their covariances agree",
    Verdict.SINGULAR_DIFFERS: "the fits do not lie on the same boundary",
    Verdict.UNDEFINED_IN_REFERENCE: "the engine has a number where the reference has none",
    Verdict.UNDEFINED_IN_ENGINE: "the reference has a number where the engine has none",
    Verdict.BOTH_UNDEFINED: "neither side has a number",
    Verdict.BOTH_REFUSE: "both sides refuse the model, as they should",
    Verdict.UNSUPPORTED: "not claimed by the engine, or not held by the reference",
    Verdict.ENGINE_NOT_CONVERGED: "outside the gate, and the engine says it did not converge",
    Verdict.REFERENCE_NOT_CONVERGED: "outside the gate, but the reference did not converge",
    Verdict.ENGINE_ERROR: "the engine failed, or did not do what it claims",
    Verdict.REFERENCE_ERROR: "the reference failed",
    Verdict.REFERENCE_CRASHED: "the process of the reference died",
    Verdict.TIMEOUT: "the reference was stopped at its time limit",
    Verdict.KNOWN: "outside the gate, listed as a known difference",
    Verdict.KNOWN_BUT_AGREES: "listed as a known difference but agrees: the entry must go",
}

_OUTCOMES: dict[Verdict, Outcome] = {
    Verdict.AGREE: "pass",
    Verdict.AGREE_WITHIN_R_NOISE: "pass",
    Verdict.BETTER_THAN_REFERENCE: "pass",
    Verdict.WORSE_THAN_REFERENCE: "fail",
    Verdict.DISAGREE: "fail",
    Verdict.DEFINITION_DIFFERS: "fail",
    Verdict.REFERENCE_WRONG: "pass",
    Verdict.DESIGN_DIFFERS: "fail",
    Verdict.SINGULAR_AGREE: "pass",
    Verdict.SINGULAR_DIFFERS: "fail",
    Verdict.UNDEFINED_IN_REFERENCE: "neutral",
    Verdict.UNDEFINED_IN_ENGINE: "fail",
    Verdict.BOTH_UNDEFINED: "neutral",
    Verdict.BOTH_REFUSE: "pass",
    Verdict.UNSUPPORTED: "neutral",
    Verdict.ENGINE_NOT_CONVERGED: "fail",
    Verdict.REFERENCE_NOT_CONVERGED: "neutral",
    Verdict.ENGINE_ERROR: "fail",
    Verdict.REFERENCE_ERROR: "infrastructure",
    Verdict.REFERENCE_CRASHED: "infrastructure",
    Verdict.TIMEOUT: "infrastructure",
    Verdict.KNOWN: "pass",
    Verdict.KNOWN_BUT_AGREES: "fail",
}
