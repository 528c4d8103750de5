"""Other mixed-model packages of R as engines under test: lme4 as it stops by default, nlme, glmmTMB.

They run where live R runs, in processes with a time limit. nlme and glmmTMB get the design as columns; lme4
reads the formula itself, as the reference does."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmcore.design.build import Design
from mmcore.families.names import family_named
from parity.engines.adapter import (
    QUANTITIES,
    Estimates,
    Unsupported,
    answer,
    attempt,
    columns_of,
    design_of,
    has_intercept,
    level_name,
    need_fixed_and_unstructured,
    values,
)
from parity.r.call import Reply, Workers
from parity.r.worker import RWorkers, r_environment
from parity.resources import r_dir
from parity.schema.case import Case
from parity.schema.engine import Engine, EngineUnavailable
from parity.schema.quantities import NAMES
from parity.schema.results import Results

TIMEOUT = 120.0  # seconds that one case may take
MODELS = frozenset({"lmm", "partial", "contrasts", "optimum"})
HESSIAN = {"se_fixef_hessian", "vcov_fixef_hessian"}
FEATURES = {
    "nlme": frozenset({"weights"}),
    "glmmTMB": frozenset({"glmm", "offset", "weights", *HESSIAN}),  # weights: numbers of trials only
}
# Whose Laplace approximation is glmer's too: with other links glmmTMB takes observed weights, glmer expected ones.
CANONICAL = {"binomial": "logit", "poisson": "log"}
_STATUS = {"crashed": "crashed", "timeout": "timeout", "r_error": "error", "protocol": "error"}


class RPackage:
    """A package of R that fits the design it is given; `fit_PACKAGE` of `engines/others.R`."""

    def __init__(self, package: str, version: str, workers: Workers) -> None:
        self.name, self.version = package, f"{package} {version}, R {r_environment().r_version}"
        self.capabilities = MODELS | FEATURES[package] | QUANTITIES
        self._package, self._workers = package, workers

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case at the package's own optimum."""
        started = time.perf_counter()
        content = attempt(lambda: self._content(case, quantities))
        return Results(self.name, self.version, **content, seconds=time.perf_counter() - started)

    def close(self) -> None:
        """Stop R."""
        self._workers.close()

    def _content(self, case: Case, quantities: Sequence[str]) -> dict[str, Any]:
        _need_the_same_likelihood(self.name, case)
        design = design_of(case)
        need_fixed_and_unstructured(design)
        reply = self._workers.call(f"fit_{self._package}", {"request": _request(design, case)}, TIMEOUT)
        said = tuple(dict.fromkeys((*reply.warnings, *reply.messages)))
        if reply.status != "ok":
            unsupported = reply.status == "r_error" and "crossed" in reply.message
            status = "unsupported" if unsupported else _STATUS[reply.status]
            return {"status": status, "message": reply.message, "warnings": said}
        found = _estimates(design, reply, case.family)
        held, missing = answer(quantities, values(design, found), self.capabilities)
        ratio = min(np.linalg.eigvalsh(c)[0] for c in found.covariances) / found.sigma**2
        return {
            "values": held, "missing": missing, "warnings": said, "converged": found.converged,
            "singular": bool(ratio < 1e-8),
        }  # fmt: skip


def _request(design: Design, case: Case) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in columns_of(design).items():
        if name.startswith("g"):
            codes = design.terms[int(name[1:])].codes.astype(np.int32)
            levels = [level_name(i) for i in range(design.terms[int(name[1:])].n_levels)]
            columns[name] = {"kind": "factor", "codes": codes, "levels": levels}
        else:
            columns[name] = {"kind": "double", "values": np.asarray(column, dtype=np.float64)}
    request: dict[str, Any] = {
        "columns": columns, "reml": case.reml and case.kind == "lmm",
        "terms": {
            f"t{i}": {"effects": t.n_effects, "intercept": has_intercept(t)}
            for i, t in enumerate(design.terms)
        },
    }  # fmt: skip
    if case.kind == "glmm":
        family = family_named(case.family, case.link)
        request |= {"family": case.family, "link": family.link.name}
    for role, vector in (("weights", design.weights), ("offset", design.offset)):
        if vector is not None:
            columns[role] = {"kind": "double", "values": np.asarray(vector, dtype=np.float64)}
            request[role] = role
    return request


def _need_the_same_likelihood(package: str, case: Case) -> None:
    """Raise `Unsupported` for models whose criterion the package defines otherwise than lme4, or not at all."""
    if case.kind != "glmm":
        if package == "glmmTMB" and case.weights is not None:
            raise Unsupported(
                "prior weights of a Gaussian model: glmmTMB multiplies the log-likelihood by them"
            )
        return
    family = family_named(case.family, case.link)
    if CANONICAL.get(case.family) != family.link.name:
        raise Unsupported(f"{family.label()}: its Laplace approximation is defined otherwise by glmer")
    if case.nagq != 1:
        raise Unsupported(f"{case.nagq} quadrature points: only the Laplace approximation")
    if case.weights is not None and case.family != "binomial":
        raise Unsupported("prior weights that are no numbers of trials")


def _estimates(design: Design, reply: Reply, family: str) -> Estimates:
    said = reply.value
    p = design.p
    sizes = [t.n_effects for t in design.terms]
    fitted = said["fitted"]
    return Estimates(
        criterion=float(said["criterion"][0]), beta=said["beta"], vcov=said["vcov"].reshape(p, p),
        sigma=float(said["sigma"][0]),
        covariances=tuple(c.reshape(k, k) for c, k in zip(said["covariances"], sizes, strict=True)),
        modes=tuple(b.reshape(-1, k) for b, k in zip(said["modes"], sizes, strict=True)),
        fitted=fitted, residuals=design.y - fitted, converged=bool(said["converged"][0]), family=family,
    )  # fmt: skip


class Lme4Default:
    """Plain `lmer` as an engine under test: where its default settings stop."""

    name = "lme4"

    def __init__(self, live: Any) -> None:
        self._live = live
        self.version = live.version
        self.capabilities = frozenset(live.capabilities) - {"default"}

    def run(self, case: Case, quantities: Sequence[str], theta: np.ndarray | None = None) -> Results:
        """The quantities of a case at lmer's default optimum, or at `theta`."""
        results = self._live.run(case, quantities or NAMES, theta, polish=False)
        return replace(results, engine=self.name)

    def close(self) -> None:
        """Stop R."""
        self._live.close()


def lme4() -> Engine:
    """Plain lmer.

    Raises
    ------
    EngineUnavailable
        if R with lme4 is not here.
    """
    from parity.engines.load import load

    return Lme4Default(load("r_live"))


def nlme() -> Engine:
    """nlme::lme.

    Raises
    ------
    EngineUnavailable
        if R with nlme, or rpy2, is not here.
    """
    return _package("nlme")


def glmmTMB() -> Engine:
    """glmmTMB::glmmTMB.

    Raises
    ------
    EngineUnavailable
        if R with glmmTMB, or rpy2, is not here.
    """
    return _package("glmmTMB")


def _package(name: str) -> Engine:
    if not r_environment().embedded:
        raise EngineUnavailable(f"engine {name}: R with lme4 and rpy2 is not here; see `parity doctor`")
    workers = RWorkers(TIMEOUT, sources=[r_dir() / "engines" / "others.R"])
    reply = workers.call("utils::packageVersion", {"pkg": name})
    if reply.status != "ok":
        workers.close()
        raise EngineUnavailable(f"engine {name}: the R package {name} is not installed")
    return RPackage(name, _version(reply), workers)


def _version(reply: Reply) -> str:
    parts = reply.value[0] if isinstance(reply.value, list) else reply.value
    return ".".join(f"{int(part)}" for part in parts)
