"""Models that must be refused: one mistake each, in an otherwise valid made-up model."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from parity.schema.case import Case, case_of
from parity.schema.spec import Spec, settled


def _formula(text: str) -> Callable[[Case], Case]:
    return lambda case: msgspec.structs.replace(case, formula=text)


def _columns(formula: str, name: str, *values: float) -> Callable[[Case], Case]:
    return lambda case: msgspec.structs.replace(case, formula=formula, columns={name: values})


def _weights(*values: float) -> Callable[[Case], Case]:
    return lambda case: msgspec.structs.replace(case, weights="bad", columns={"bad": values})


MISTAKES: Mapping[str, Callable[[Case], Case]] = MappingProxyType(
    {
        "no such column": _formula("y ~ x + nothing + (1 | g)"),
        "no such group": _formula("y ~ x + (1 | nothing)"),
        "no such slope": _formula("y ~ x + (nothing | g)"),
        "a call": _formula("y ~ system('true') + (1 | g)"),
        "an assignment": _formula("y ~ x + (1 | g <- h)"),
        "an open bracket": _formula("y ~ x + (1 | g"),
        "no group": _formula("y ~ x + (1 | )"),
        "no left side of a bar": _formula("y ~ x + ( | g)"),
        "two tildes": _formula("y ~ x ~ (1 | g)"),
        "no response": _formula("~ x + (1 | g)"),
        "text after the end": _formula("y ~ x + (1 | g))"),
        "one level": _columns("y ~ x + (1 | k)", "k", 1.0),
        "a level per row": _columns("y ~ x + (1 | k)", "k", *(float(i) for i in range(1, 2000))),
        "more effects than rows": _columns(
            "y ~ x + (1 + x + z | k)", "k", *(float(i // 2) for i in range(2000))
        ),
        "a response that is a factor": _formula("g ~ x + (1 | h)"),
        "negative weights": _weights(1.0, -1.0),
        "no such weights": lambda case: msgspec.structs.replace(case, weights="nothing"),
        "no such offset": lambda case: msgspec.structs.replace(case, offset="nothing"),
        "an infinite response": _columns("k ~ x + (1 | g)", "k", 1.0, 2.0, float("inf")),
        "an infinite covariate": _columns("y ~ k + (1 | g)", "k", 1.0, 2.0, float("inf")),
        "nothing but missing rows": _columns("y ~ k + (1 | g)", "k", float("nan")),
    }
)


def invalid_case(mistake: str, spec: Spec) -> Case:
    """A case that both sides must refuse."""
    case = MISTAKES[mistake](case_of(settled(spec)))
    case = msgspec.structs.replace(case, expect="refuse", note=f"must be refused: {mistake}")
    return msgspec.structs.replace(case, name=f"fuzz-{case.id}")
