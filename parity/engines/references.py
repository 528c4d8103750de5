"""From the word given to `--reference` to the engines it stands for."""

from parity.engines.load import load
from parity.resources import recorded_dir
from parity.schema.engine import Engine, EngineUnavailable

DEFAULT = "default"
FALLBACK = (
    "live R with lme4 is not here ({why}); compared with the recorded references instead "
    "(`parity doctor` says what is missing)"
)


def references(name: str) -> tuple[tuple[Engine, ...], tuple[str, ...]]:
    """The reference engines of a name, and what has to be said aloud about the choice.

    "default" is live R where it is, else all recordings. "live" is live R or an error. "recorded" is every
    source of recordings, the fullest first; "recorded:SOURCE" a single one. Any other name is an engine.

    Raises
    ------
    EngineError, EngineUnavailable
        if there is no such engine, or what it needs is not here.
    """
    if name == DEFAULT:
        return _live_or_recorded()
    if name == "recorded" or name.startswith("recorded:"):
        return _recorded(name.partition(":")[2]), ()
    return (load(name),), ()


def _live_or_recorded() -> tuple[tuple[Engine, ...], tuple[str, ...]]:
    try:
        return (load("live"),), ()
    except EngineUnavailable as error:
        return _recorded(""), (FALLBACK.format(why=error),)


def _recorded(source: str) -> tuple[Engine, ...]:
    from parity.engines.recorded import engines

    try:
        found = engines()
    except FileNotFoundError as error:
        raise EngineUnavailable(str(error)) from error
    chosen = tuple(engine for engine in found if source in ("", engine.version))
    if not chosen:
        known = ", ".join(engine.version for engine in found)
        raise EngineUnavailable(f"{recorded_dir()} has no source {source!r}; there are {known}")
    return chosen


def names() -> tuple[tuple[str, str], ...]:
    """The words for `--reference` and what each stands for."""
    from parity.engines.recorded import engines

    fixed = (
        ("live", "lme4 and first principles in live R, at a polished optimum"),
        ("r_refits", "live, and every deletion refitted however long it takes"),
        ("recorded", "all sources of recordings"),
    )
    try:
        sources = [(engine.name, f"recordings of {engine.version}") for engine in engines()]
    except FileNotFoundError:
        sources = []
    return (*fixed, *sources)
