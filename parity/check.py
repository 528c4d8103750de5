"""For developers of other engines: compare an engine with the references from Python."""

from collections.abc import Mapping, Sequence

from parity.compare.run import Report, run
from parity.engines.load import checked, load
from parity.engines.references import references
from parity.schema.case import Case, load_cases, select
from parity.schema.engine import Engine
from parity.schema.known import faults_of_references, from_mapping
from parity.schema.quantities import Lane

EMPTY: Mapping[str, str] = {}


def check_engine(
    engine: Engine | str,
    *,
    cases: Sequence[str | Case] | None = None,
    reference: str = "recorded",
    lanes: Sequence[Lane] = ("at_theta", "optimum"),
    expected_differences: Mapping[str, str] = EMPTY,
) -> Report:
    """Compare an engine with R's numbers.

    Parameters
    ----------
    engine : an object with `name`, `version`, `capabilities` and `run`, or a name that `parity` knows.
    cases : names, patterns, `tag:TAG` or `Case` objects; None for all but the slow ones.
    reference : "recorded" needs no R; "live" is R itself; "recorded:SOURCE" is one source.
    expected_differences : `{"case:quantity": reason}`, patterns allowed. Strict: one that agrees is a
    failure.

    Returns
    -------
    Report
        `report.exit_code` is 0 if everything that was compared agrees; `report.causes` groups what differs;
        `report.rows` has every comparison; `parity.publish.report.write(report, directory)` makes the files.
        Where a recorded reference is known to be wrong, with evidence, a difference is `reference_wrong`.

    Raises
    ------
    EngineError, CaseError, KnownError
        if the engine, a case or an expected difference is not what it should be. Never for what the engine does.
    """
    tested = load(engine) if isinstance(engine, str) else checked(engine, "the engine given")
    known = (*from_mapping(expected_differences, tested.name), *faults_of_references())
    against, notes = references(reference)
    return run(
        _cases(cases), tested, against, lanes=lanes, known=known, notes=notes, explainer=load("mmcore")
    )


def _cases(cases: Sequence[str | Case] | None) -> tuple[Case, ...]:
    if cases is None:
        return select(load_cases())
    named = [case for case in cases if isinstance(case, str)]
    return (
        *(case for case in cases if isinstance(case, Case)),
        *(select(load_cases(), named) if named else ()),
    )
