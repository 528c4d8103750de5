"""Live R as a reference: lme4's own numbers and first principles in R, or HLMdiag's functions.

A case becomes columns and a formula rebuilt from its parsed tree; R never sees the text of the case. Where R
fits, it is the polished optimum of several starts (`polish=True`) or what plain `lmer` gives.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmcore.errors import FormulaError
from mmcore.formula.parse import Formula, parse
from parity.r.call import Reply, Workers
from parity.r.columns import r_column
from parity.r.worker import open_workers, r_environment
from parity.resources import r_dir
from parity.schema.case import Case, CaseError, frame
from parity.schema.engine import EngineUnavailable
from parity.schema.quantities import NAMES, REGISTRY, of_kind
from parity.schema.results import Missing, Results, Value

TIMEOUT = 900.0  # seconds that one case may take in R
ALL_REFITS_TIMEOUT = 6 * 3600.0  # the same where every deletion is refitted
REFITS = (
    5000  # refits of a family (all rows, or the levels of one factor) times rows (125 at least) made unasked
)
HLMDIAG = tuple(
    name
    for name in NAMES
    if "refit" not in name and name.startswith(("cooks_distance_m", "mdffits", "cov", "leverage"))
)
HLMDIAG += (
    "resid_response", "resid_conditional_studentized", "resid_marginal", "resid_marginal_pearson",
    "resid_marginal_studentized", "resid_marginal_cholesky", "fitted_marginal", "fitted_ls", "resid_ls",
)  # fmt: skip

_MODELS = frozenset({"lm", "glm", "lmm", "glmm", "weights", "offset", "contrasts", "partial"}) | frozenset(
    {"at_theta", "optimum", "default"}
)
_STATUS = {"crashed": "crashed", "timeout": "timeout", "r_error": "error", "protocol": "error"}
_CODE = (
    "answer", "at_theta", "call", "deletion", "first_principles", "fit", "generalised", "glm", "glmm",
    "group_residuals", "hlmdiag", "load", "model", "quantities", "write",
)  # fmt: skip


class RLive:
    """R as an engine. Processes are started at the first case and kept; `close` stops them.

    Parameters
    ----------
    source : "lme4" or "hlmdiag"
        lme4's methods with first principles on its pieces, or HLMdiag's own functions on the same fit (and
        lme4's for what HLMdiag has nothing of its own for).
    workers : Workers or None
        how R is run; None takes the best way that this machine offers.
    route : "auto", "dense" or "factor"
        how first principles are computed (see `first_principles.R`).
    refits : int
        families of deletions with more refits, times rows, than this are skipped.
    """

    def __init__(
        self,
        source: str = "lme4",
        workers: Workers | None = None,
        route: str = "auto",
        refits: int = REFITS,
        timeout: float = TIMEOUT,
    ):
        packages = r_environment().packages
        self.name = "r_live" if source == "lme4" else source
        self.version = _version("HLMdiag" if source == "hlmdiag" else "lme4", packages)
        by_lme4 = {row.name for row in REGISTRY.values() if row.r_source.startswith("quantities.R")}
        offered = {"all_quantities"} if source == "lme4" else by_lme4 | set(HLMDIAG)
        self.capabilities = _MODELS | offered
        self._source, self._workers, self._route, self._refits = source, workers, route, refits
        self._timeout = timeout
        self._provenance: dict[str, Any] | None = None

    def run(
        self,
        case: Case,
        quantities: Sequence[str],
        theta: np.ndarray | None = None,
        *,
        polish: bool = True,
    ) -> Results:
        """The quantities of a case from R.

        Parameters
        ----------
        theta : (n_theta,) array or None
            where to evaluate, in lme4's order, without optimising; None: R's own optimum. For a generalised
            mixed model it goes on with beta (see `engine.Engine.run`).
        polish : bool
            whether that optimum is the best of several starts, tightened, or what plain `lmer` or `glmer`
            gives; for `glm` whether it iterates to the last digits.

        Never raises for what the case or R does: `Results.status` is "refused" for a model that R (or the
        grammar) rejects, "crashed" or "timeout" for a process that was lost.
        """
        started = time.perf_counter()
        try:
            request = request_of(case)
        except CaseError as error:
            return self._without("error", str(error), started)
        except (FormulaError, ValueError) as error:
            return self._without("refused", str(error), started)
        how = "at_theta" if theta is not None else "polished" if polish else "default"
        request |= {
            "how": how,
            "quantities": list(of_kind(case.kind, quantities)),
            "source": self._source,
            "workspace": self._route,
            "refits": float(self._refits),
        }
        if theta is not None:
            request["theta"] = np.asarray(theta, dtype=np.float64)
        reply = self._open().call("answer", {"request": request}, self._timeout)
        results = self._results(reply, started)
        other = Missing("unsupported", "not a quantity of this kind of model")
        strange = {name: other for name in quantities if case.kind not in REGISTRY[name].kinds}
        return replace(results, missing={**results.missing, **strange}) if results.status == "ok" else results

    def close(self) -> None:
        """Stop R."""
        if self._workers is not None:
            self._workers.close()

    def _open(self) -> Workers:
        if self._workers is None:
            self._workers = open_workers(self._timeout)
        return self._workers

    def _without(self, status: str, message: str, started: float) -> Results:
        seconds = time.perf_counter() - started
        return Results(self.name, self.version, status, message, seconds=seconds)  # type: ignore[arg-type]

    def _results(self, reply: Reply, started: float) -> Results:
        if reply.status != "ok":
            return self._without(_STATUS[reply.status], reply.message, started)
        answer = reply.value
        status, message = answer["status"][0], answer["message"][0]
        said = tuple(dict.fromkeys((*reply.warnings, *reply.messages)))
        if status != "ok":
            return replace(self._without(status, message, started), warnings=said)
        facts = answer["facts"]
        labels = [tuple(names) for names in answer["label_sets"]]
        return Results(
            engine=self.name,
            version=self.version,
            warnings=said,
            values={name: _value(part, labels) for name, part in answer["values"].items()},
            missing={name: _missing(part) for name, part in answer["missing"].items()},
            singular=facts["singular"][0],
            converged=facts["converged"][0],
            seconds=reply.seconds,
            provenance={**self._origin(), **_optimisation(facts)},
        )

    def _origin(self) -> dict[str, Any]:
        """Versions and session of R, asked once, and the hash of our R code."""
        if self._provenance is None:
            reply = self._open().call("provenance")
            said = _plain(reply.value) if reply.status == "ok" else {"problem": reply.message}
            self._provenance = {**said, "code_sha256": r_code_hash()}
        return self._provenance


def engine() -> RLive:
    """lme4 and first principles in live R.

    Raises
    ------
    EngineUnavailable
        if R with lme4 is not here, or neither rpy2 nor the R package jsonlite is.
    """
    try:
        return RLive(workers=open_workers(TIMEOUT))
    except RuntimeError as error:
        raise EngineUnavailable(f"engine r_live: {error}") from error


def refits() -> RLive:
    """As `engine`, with all deletions refitted: minutes to hours for models of thousands of rows.

    Raises
    ------
    EngineUnavailable
        as for `engine`.
    """
    try:
        return RLive(workers=open_workers(ALL_REFITS_TIMEOUT), refits=10**12, timeout=ALL_REFITS_TIMEOUT)
    except RuntimeError as error:
        raise EngineUnavailable(f"engine r_refits: {error}") from error


def hlmdiag() -> RLive:
    """HLMdiag's own functions in live R.

    Raises
    ------
    EngineUnavailable
        if HLMdiag is not installed, or R cannot be run.
    """
    if r_environment().packages.get("HLMdiag") is None:
        raise EngineUnavailable("engine hlmdiag: the R package HLMdiag is not installed")
    try:
        return RLive("hlmdiag", workers=open_workers(TIMEOUT))
    except RuntimeError as error:
        raise EngineUnavailable(f"engine hlmdiag: {error}") from error


def r_code_hash() -> str:
    """SHA-256 of the R sources that make numbers: a reference made by other code is another reference."""
    digest = hashlib.sha256()
    for name in _CODE:
        digest.update(name.encode() + b"\0" + (r_dir() / f"{name}.R").read_bytes())
    return digest.hexdigest()


# --- from a case to R -----------------------------------------------------------------------------------


def request_of(case: Case) -> dict[str, Any]:
    """What `answer.R` needs to know of a case: columns, formula, and how it is weighted and coded.

    Raises
    ------
    FormulaError
        if the formula is not in the grammar.
    CaseError
        if the data set is missing.
    """
    data = frame(case)
    formula = parse(case.formula).expand_dot(data.columns)
    request: dict[str, Any] = {
        "columns": {name: r_column(data[name]) for name in _used(formula, case) if name in data.columns},
        "row_labels": [str(label) for label in data.index],
        "formula": formula.to_r(),
        "family": case.family,
        "reml": case.reml,
        "contrasts": dict(case.contrasts),
    }
    if case.kind == "glmm":
        request["nagq"] = float(case.nagq)
    optional = ("weights", "offset", "link", "size")
    return request | {key: value for key in optional if (value := getattr(case, key)) is not None}


def _used(formula: Formula, case: Case) -> tuple[str, ...]:
    extra = (name for name in (case.weights, case.offset) if name is not None)
    return tuple(dict.fromkeys((*formula.variables, *extra)))


# --- from R to results ----------------------------------------------------------------------------------


def _value(part: Mapping[str, Any], labels: list[tuple[str, ...]]) -> Value:
    values = np.asarray(part["values"], dtype=np.float64)
    values = np.where(np.isnan(values), np.nan, values)  # 0/0 in R has a sign that text does not carry
    return Value(labels[int(part["labels"][0])], values)


def _missing(part: Mapping[str, Any]) -> Missing:
    return Missing(part["kind"][0], part["message"][0])


def _optimisation(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluations of the criterion; for a polished fit its starts, and how far a second one ended."""
    found: dict[str, Any] = {"evaluations": int(facts["evaluations"][0])}
    if facts["search"] is not None:
        search = facts["search"]
        distance = search["repeat_distance"][0]
        found["starts"] = dict(zip(list(search["starts"]), search["values"].tolist(), strict=True))
        found["theta_repeat_distance"] = None if np.isnan(distance) else float(distance)
    return found


def _plain(value: Any) -> Any:
    """R's vectors as lists, those of one element as that element: data for JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    items = value.tolist() if isinstance(value, np.ndarray) else value
    return items[0] if isinstance(items, list) and len(items) == 1 else items


def _version(package: str, packages: Mapping[str, str | None]) -> str:
    return f"{package} {packages.get(package) or 'not installed'}, R {r_environment().r_version}"
