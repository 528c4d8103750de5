"""Certified references: fits whose every number is known to 28 digits with a proved bound of its error.

A certificate says what was proved (one stationary point in a box, a positive definite Hessian over it, the
slope into the interior where the fit is singular, the rise of the criterion to its neighbours) and holds the
quantities as decimals. Making one needs python-flint; reading one needs nothing. The data and the columns of
the design enter as exact doubles, so what is certified is arithmetic, optimum included, not the reading of a
formula."""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np

from parity.references.certificates import (
    SCHEMA,
    Certificate,
    CertificateError,
    Number,
    certificate_path,
    certificates,
    read_certificate,
    signed,
    write_certificate,
)
from parity.schema.case import Case, frame
from parity.schema.quantities import NAMES

DIGITS = 28  # significant digits of every number
DELETE_ROWS = 60  # models of up to this many rows are refitted without each of them
DELETE_LEVELS = 180  # and up to this many, without each level

INSTALL = "certificates are made with python-flint: install mmparity[certify]"


# --- making ---------------------------------------------------------------------------------------------


def certify(case: Case) -> Certificate:
    """Prove the fit of a case and compute its quantities.

    Raises
    ------
    CertificateError
        if python-flint is missing, the case is not a linear mixed model, or no proof was found.
    """
    try:
        from parity.exact.balls import NotEnclosed, precision
        from parity.exact.lmm import NotCertifiable
        from parity.exact.measures import measures
        from parity.exact.prove import prove
    except ImportError as error:
        raise CertificateError(INSTALL) from error
    design = design_of(case)
    try:
        fit = prove(design, reml=case.reml, digits=DIGITS + 4)
        with precision(fit.bits):
            values = measures(fit.at) | _deletions(fit)
            return _certificate(case, design, fit, _numbers(values))
    except (NotEnclosed, NotCertifiable) as error:
        raise CertificateError(f"case {case.name} could not be certified: {error}") from error


def design_of(case: Case) -> Any:
    """The design of a linear mixed model.

    Raises
    ------
    CertificateError
        if the case is of another kind.
    """
    from mmcore.design.build import build
    from mmcore.errors import RankWarning

    if case.family != "gaussian" or "|" not in case.formula or case.expect != "fit":
        raise CertificateError(f"case {case.name} is not a linear mixed model that can be fitted")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the names of the columns kept are in the certificate
        return build(
            case.formula,
            frame(case),
            weights=case.weights,
            offset=case.offset,
            contrasts=case.contrasts or None,
        )


def design_hash(design: Any) -> str:
    """SHA-256 of the doubles and codes that define a model without its parameters."""
    digest = hashlib.sha256()
    parts = [design.y, design.X, design.weights, design.offset]
    for term in design.terms:
        parts += [term.columns, term.codes.astype(np.float64)]
    for part in parts:
        array = np.ascontiguousarray(np.empty(0) if part is None else part, dtype="<f8")
        digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def _deletions(fit: Any) -> dict[str, Any]:
    from parity.exact.deletion import deletion_measures, refits, row_units
    from parity.exact.measures import Dense

    dense, n = Dense(fit.at), fit.at.data.n
    out: dict[str, Any] = {}
    if n <= DELETE_ROWS:
        out |= deletion_measures(fit, refits(fit, row_units(dense), DIGITS + 4), "")
    if n <= DELETE_LEVELS:
        out |= deletion_measures(fit, refits(fit, dense.sets, DIGITS + 4), "_group")
    return out


def _certificate(
    case: Case, design: Any, fit: Any, numbers: tuple[dict[str, Number], dict[str, list[str]]]
) -> Certificate:
    values, label_sets = numbers
    unsigned = Certificate(
        schema=SCHEMA, checksum="", case=case, design_sha256=design_hash(design), singular=fit.singular,
        proof=_proof(fit), made_by=_made_by(), label_sets=label_sets, values=values,
    )  # fmt: skip
    return signed(unsigned)


def _proof(fit: Any) -> dict[str, Any]:
    proof = fit.proof
    ranks = [[chart.rank, chart.effects] for chart in fit.at.charts]
    said: dict[str, Any] = {
        "method": "Newton in ball arithmetic from the best start, then a Krawczyk test about the result",
        "bits": fit.bits,
        "ranks of the terms (of how many effects)": ranks,
        "criteria that the starts led to": list(fit.starts),
    }
    if proof.par:
        said |= {
            "exactly one stationary point within": _short(proof.radius),
            "the same holds within": proof.unique_within,
            "gradient there, at most": _short(proof.gradient),
            "Hessian positive definite, least pivot of its Cholesky factor": _short(proof.least_pivot),
            "criterion rises at least, by step along each parameter": {
                f"{step:g}": _short(rise) for step, rise in proof.rises
            },
        }
    slopes = {f"term {t + 1}": _short(slope) for t, slope in enumerate(fit.slopes) if slope is not None}
    if slopes:
        said["on the boundary, least slope of the criterion into the interior"] = slopes
    return said


def _short(ball: Any) -> str:
    return str(ball.str(6, radius=False))


def _made_by() -> dict[str, str]:
    from importlib.metadata import version

    return {"python-flint": version("python-flint"), "start": f"mmcore {version('mmparity')}"}


# --- decimals -------------------------------------------------------------------------------------------


def _numbers(values: Mapping[str, Any]) -> tuple[dict[str, Number], dict[str, list[str]]]:
    sets: dict[tuple[str, ...], str] = {}
    out: dict[str, Number] = {}
    for name, (labels, balls) in values.items():
        key = sets.setdefault(tuple(labels), f"L{len(sets)}")
        texts, relative, absolute = decimals(balls)
        out[name] = Number(labels=key, relative=relative, absolute=absolute, values=texts)
    return out, {key: list(labels) for labels, key in sets.items()}


def decimals(balls: Sequence[Any]) -> tuple[list[str], str, str]:
    """Balls as decimals of `DIGITS` digits, with proved bounds of their relative and absolute errors.

    Raises
    ------
    NotEnclosed
        if a ball is too wide for that many digits.
    """
    from parity.exact.balls import NotEnclosed

    texts, relative, absolute = [], Decimal(0), Decimal(0)
    for ball in balls:
        if ball.is_nan():
            texts.append("NaN")
            continue
        text, bound = _decimal(ball)
        value = Decimal(text)
        absolute = max(absolute, bound)
        texts.append(text)
        if value:
            relative = max(relative, bound / (abs(value) - bound))
        elif bound > Decimal(10) ** -DIGITS:
            raise NotEnclosed(f"a number is only known to be within {bound:.2g} of zero")
    if relative > Decimal(10) ** (2 - DIGITS):
        raise NotEnclosed(f"a number is only known to a relative error of {relative:.2g}")
    return texts, _up(relative), _up(absolute)


def _decimal(ball: Any) -> tuple[str, Decimal]:
    """A decimal and a bound of its distance to anything in the ball; "0" for a ball about zero."""
    middle, radius, exponent = (int(x) for x in ball.mid_rad_10exp(DIGITS + 4))
    if abs(middle) <= radius:
        return "0", Decimal(abs(middle) + radius).scaleb(exponent)
    surplus = max(len(str(abs(middle))) - DIGITS, 0)
    unit = 10**surplus
    kept = (abs(middle) + unit // 2) // unit
    error = abs(kept * unit - abs(middle)) + radius
    value = Decimal(int(math.copysign(1, middle)) * kept).scaleb(exponent + surplus, _WIDE).normalize(_WIDE)
    text = f"{value:f}" if -6 <= value.adjusted() <= 20 else str(value)
    return text, Decimal(error).scaleb(exponent, _WIDE)


_WIDE = Context(prec=4 * DIGITS)


def _up(bound: Decimal) -> str:
    """Two digits, rounded up."""
    return str(Context(prec=2, rounding=ROUND_UP).create_decimal(bound).normalize()) if bound else "0"


# --- files ----------------------------------------------------------------------------------------------


# --- many cases -----------------------------------------------------------------------------------------

Kind = Literal["new", "same", "changed", "failed"]


@dataclass(frozen=True, slots=True)
class Change:
    """What certifying a case did."""

    case: str
    kind: Kind  # "changed": other numbers than the stored ones, which are replaced only if that was asked for
    details: tuple[str, ...] = ()


def certify_all(cases: Sequence[Case], directory: Path, *, overwrite: bool = False) -> Iterator[Change]:
    """Certify cases one by one and store what is new."""
    for case in cases:
        path = certificate_path(directory, case.name)
        try:
            made = certify(case)
        except CertificateError as error:
            yield Change(case.name, "failed", (str(error),))
            continue
        details = differences(path, made) if path.exists() else ()
        if path.exists() and not details:
            yield Change(case.name, "same")
            continue
        kind: Kind = "changed" if path.exists() else "new"
        if kind == "new" or overwrite:
            write_certificate(directory, made)
        yield Change(case.name, kind, details)


def differences(path: Path, made: Certificate) -> tuple[str, ...]:
    """What a certificate made now says otherwise than the stored one, beyond the last places."""
    try:
        stored = read_certificate(path)
    except CertificateError as error:
        return (str(error),)
    parts = []
    if stored.case.id != made.case.id:
        parts.append(f"the case: id {stored.case.id} -> {made.case.id}")
    if stored.design_sha256 != made.design_sha256:
        parts.append("the design: other doubles")
    for name in sorted(set(stored.values) ^ set(made.values)):
        parts.append(f"{name}: {'added' if name in made.values else 'gone'}")
    for name in stored.values:
        if name in made.values and not _same(stored, made, name):
            parts.append(f"{name}: other numbers")
    return tuple(parts)


def _same(a: Certificate, b: Certificate, name: str) -> bool:
    if a.labels(name) != b.labels(name):
        return False
    slack = Decimal(a.values[name].absolute) + Decimal(b.values[name].absolute)
    pairs = zip(a.values[name].values, b.values[name].values, strict=True)
    return all(x == y or abs(Decimal(x) - Decimal(y)) <= slack for x, y in pairs)


def not_certified() -> tuple[str, ...]:
    """Quantities of the registry that certificates do not hold."""
    held = {name for certificate in certificates() for name in certificate.values}
    return tuple(name for name in NAMES if name not in held)
