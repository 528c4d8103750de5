"""Certified references as an engine: the doubles nearest to numbers that are proved to 28 digits.

There are certificates for small linear mixed models only. They answer at their proved optimum.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parity.references.certificates import Certificate, CertificateError, certificate_path, read_certificate
from parity.resources import certified_dir
from parity.schema.case import Case
from parity.schema.quantities import REGISTRY
from parity.schema.results import Missing, Results, Value


class Certified:
    """The certificates of a directory."""

    name = "certified"
    version = "ball arithmetic, 28 digits"
    capabilities = frozenset({"lmm", "glmm", "weights", "offset", "contrasts", "optimum", *REGISTRY})

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The certified values of a case, at its proved optimum only."""
        path = certificate_path(self.directory, case.name)
        if theta is not None:
            return self._without("unsupported", "a certificate holds the optimum, not another theta")
        if not path.exists():
            return self._without("unsupported", f"{case.name} has no certificate")
        try:
            found = read_certificate(path)
        except CertificateError as error:
            return self._without("missing", str(error))
        if found.case.id != case.id:
            return self._without("missing", f"certificate {path.name} is for another content of the case")
        return self._results(found, quantities)

    def _results(self, found: Certificate, quantities: Sequence[str]) -> Results:
        held = [name for name in quantities if name in found.values]
        return Results(
            self.name, self.version,
            values={name: Value(tuple(found.labels(name)), found.doubles(name)) for name in held},
            missing={name: Missing("skipped", "not certified") for name in quantities if name not in held},
            singular=found.singular, converged=True, provenance={**found.proof, **found.made_by},
        )  # fmt: skip

    def _without(self, status: str, message: str) -> Results:
        return Results(self.name, self.version, status, message)  # type: ignore[arg-type]


def engine() -> Certified:
    """The shipped certificates."""
    return Certified(certified_dir())
