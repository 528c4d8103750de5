"""Certified results as files: numbers with proved digits."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from parity.resources import certified_dir
from parity.schema.case import Case

__all__ = [
    "COMPRESS_ABOVE",
    "SCHEMA",
    "Certificate",
    "CertificateError",
    "Number",
    "certificate_path",
    "certificates",
    "read_certificate",
    "signed",
    "write_certificate",
]

SCHEMA = 1


COMPRESS_ABOVE = 60_000  # bytes of JSON


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


def signed(certificate: Certificate, **changes: Any) -> Certificate:
    """A certificate with changes, and the checksum of what it then says."""
    changed = msgspec.structs.replace(certificate, **changes)
    return msgspec.structs.replace(changed, checksum=_checksum(msgspec.to_builtins(changed)))


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
