"""Certified references: fits whose every number is known to 28 digits with a proved bound of its error.

A certificate says what was proved (one stationary point in a box, a positive definite Hessian over it, the
slope into the interior where the fit is singular, the rise of the criterion to its neighbours) and holds the
quantities as decimals. Making one needs python-flint; reading one needs nothing. The data and the columns of
the design enter as exact doubles, so what is certified is arithmetic, optimum included, not the reading of a
formula."""

import gzip
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from parity.case import Case, frame
from parity.quantities import NAMES
from parity.resources import certified_dir

SCHEMA = 1
DIGITS = 28  # significant digits of every number
COMPRESS_ABOVE = 60_000  # bytes of JSON
DELETE_ROWS = 60  # models of up to this many rows are refitted without each of them
DELETE_LEVELS = 180  # and up to this many, without each level

INSTALL = "certificates are made with python-flint: install mmparity[certify]"


class CertificateError(ValueError):
    """A certificate is missing, damaged, or made for other content; the message says which."""


class Number(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One quantity: decimals, and how far they can be from the truth at most."""

    labels: str  # a key of `label_sets`
    relative: str  # proved bound of |stored - true| / |true| over the elements that are not zero
    absolute: str  # proved bound of |stored - true| over all elements
    values: list[str]  # "NaN" where the model has no such number


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A proved fit as a file."""

    schema: int
    checksum: str  # SHA-256 of the canonical JSON without this field
    case: Case
    design_sha256: str  # of y, X, Z, weights and offset as doubles
    singular: bool
    proof: dict[str, Any]
    made_by: dict[str, str]
    label_sets: dict[str, list[str]]
    values: dict[str, Number]

    def labels(self, name: str) -> list[str]:
        """Labels of a quantity."""
        return self.label_sets[self.values[name].labels]

    def doubles(self, name: str) -> np.ndarray:
        """The doubles nearest to a quantity."""
        return np.array([float(text) for text in self.values[name].values])


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
    from mmcore.design import build
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


def signed(certificate: Certificate, **changes: Any) -> Certificate:
    """A certificate with changes, and the checksum of what it then says."""
    changed = msgspec.structs.replace(certificate, **changes)
    return msgspec.structs.replace(changed, checksum=_checksum(msgspec.to_builtins(changed)))


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


def certificate_path(directory: Path, case_name: str) -> Path:
    """Where the certificate of a case is, or would be written uncompressed."""
    packed = directory / f"{case_name}.json.gz"
    return packed if packed.exists() else directory / f"{case_name}.json"


def write_certificate(directory: Path, certificate: Certificate) -> Path:
    """Write a certificate, replacing one of the same name, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    data = _layout(msgspec.to_builtins(certificate))
    name = certificate.case.name
    packed = len(data) > COMPRESS_ABOVE
    path = directory / f"{name}.json{'.gz' if packed else ''}"
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(gzip.compress(data, 9, mtime=0) if packed else data)
    temporary.replace(path)
    (directory / f"{name}.json{'' if packed else '.gz'}").unlink(missing_ok=True)
    return path


def read_certificate(path: Path) -> Certificate:
    """Read and verify a certificate.

    Raises
    ------
    CertificateError
        if the file is missing, truncated, of another schema, or not what its checksum was made from.
    """
    try:
        data = path.read_bytes()
        content = msgspec.json.decode(gzip.decompress(data) if path.suffix == ".gz" else data)
        certificate = msgspec.convert(content, Certificate)
    except FileNotFoundError as error:
        raise CertificateError(f"there is no certificate {path.name}; `parity certify` makes one") from error
    except (OSError, EOFError, msgspec.DecodeError, ValueError) as error:
        raise CertificateError(f"certificate {path.name} is damaged: {error}; restore it") from error
    if certificate.schema != SCHEMA:
        raise CertificateError(
            f"certificate {path.name} has schema {certificate.schema}, this program reads {SCHEMA}"
        )
    if _checksum(content) != certificate.checksum:
        raise CertificateError(f"certificate {path.name} is damaged: its checksum does not match; restore it")
    unequal = [
        name for name, number in certificate.values.items()
        if len(number.values) != len(certificate.label_sets.get(number.labels, ()))
    ]  # fmt: skip
    if unequal:
        raise CertificateError(f"certificate {path.name}: labels and values of {unequal[0]} differ in number")
    return certificate


def certificates(directory: Path | None = None) -> tuple[Certificate, ...]:
    """All certificates of a directory (default: the shipped ones), in order of name."""
    folder = certified_dir() if directory is None else directory
    paths = sorted((*folder.glob("*.json"), *folder.glob("*.json.gz")), key=lambda path: path.name)
    return tuple(read_certificate(path) for path in paths)


def _checksum(content: Mapping[str, Any]) -> str:
    body = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def _layout(content: Mapping[str, Any]) -> bytes:
    """JSON with one quantity per line."""

    def text(value: Any) -> str:
        return msgspec.json.encode(value).decode()

    def block(key: str, value: Any) -> str:
        if key not in ("values", "label_sets", "proof") or not value:
            return text(value)
        return "{\n" + ",\n".join(f"  {text(k)}: {text(v)}" for k, v in value.items()) + "\n}"

    return ("{\n" + ",\n".join(f"{text(k)}: {block(k, v)}" for k, v in content.items()) + "\n}\n").encode()


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
