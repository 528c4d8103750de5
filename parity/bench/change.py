"""Base against head: two checkouts of the project on one machine, stage by stage, in turns.

Each side is a process with its own mmcore (see `stages.py`). A stage is a regression by `timing.Rule`: the ratio,
the absolute excess and the interval must all say so. The number of evaluations of the criterion has no noise and
gates alone. Where the two sides give different numbers no time is judged.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from parity.bench import instructions, stages
from parity.bench.timing import Ratio, Rule, in_turns, ratio, repeats_for, slower

STAGES = stages.LINEAR
PLAN: tuple[
    tuple[str, tuple[str, ...]], ...
] = (  # what is compared: enough to see each stage at a size where it matters
    ("sleepstudy", STAGES),
    ("cbpp", stages.GENERALIZED),
    ("penicillin", ("design", "evaluation", "gradient", "fit", "influence", "deletion")),
    ("hsb82", ("design", "products", "evaluation", "gradient", "fit", "influence", "deletion")),
    ("insteval", ("design", "products", "evaluation", "gradient", "fit", "influence")),
)

Outcome = Literal[
    "same", "faster", "slower", "more evaluations", "more instructions", "answers differ", "only in head",
    "in neither", "failed",
]  # fmt: skip


EXTENSIONS = 4  # times that as many rounds again are run while the interval does not tell


class BenchError(RuntimeError):
    """A side could not be started or gave no answer; the message says which and why."""


@dataclass(frozen=True, slots=True)
class StageChange:
    """One stage of one problem, base and head."""

    problem: str
    stage: str
    outcome: Outcome
    ratio: Ratio | None = None  # head over base
    evaluations: tuple[int, int] | None = None  # base, head
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether this row fails the gate."""
        return self.outcome not in ("same", "faster", "only in head", "in neither")


class Side:
    """A process that times stages of the mmcore in a checkout."""

    def __init__(self, name: str, checkout: Path, slowdown: float = 0.0) -> None:
        self.name, self.slowdown = name, slowdown
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stages.py")), str(checkout)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | threads, cwd=checkout,
        )  # fmt: skip

    def ask(self, problem: str, stage: str, repeats: int) -> dict[str, Any]:
        """One timed round. Raises BenchError when the process is gone."""
        request = {"problem": problem, "stage": stage, "repeats": repeats, "slowdown": self.slowdown}
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(
                f"{self.name}: the process ended at {problem}/{stage} (exit code {self._process.poll()})"
            )
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # a process that died may leave a request unread
                    stream.close()


@contextmanager
def worktree(repository: Path, revision: str) -> Iterator[Path]:
    """A checkout of a revision in a temporary folder, removed at the end.

    Raises BenchError if git does not know the revision.
    """
    with tempfile.TemporaryDirectory(prefix="mmparity-base-") as folder:
        path = Path(folder) / "base"
        made = subprocess.run(
            ["git", "-C", str(repository), "worktree", "add", "--detach", str(path), revision],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise BenchError(f"no checkout of {revision!r}: {made.stderr.strip().splitlines()[-1]}")
        try:
            yield path
        finally:
            subprocess.run(
                ["git", "-C", str(repository), "worktree", "remove", "--force", str(path)],
                capture_output=True, check=False,
            )  # fmt: skip


def compare_stage(
    base: Side, head: Side, problem: str, stage: str, rounds: int, rule: Rule, seed: int = 0
) -> StageChange:
    """Judge one stage. Answers first, then evaluations, then time, on a noisy machine in more rounds than asked for."""
    first = {side.name: side.ask(problem, stage, 1) for side in (base, head)}
    told = _unusable(problem, stage, first[base.name], first[head.name])
    if told is not None:
        return told
    evaluations = (int(first[base.name]["evaluations"]), int(first[head.name]["evaluations"]))
    repeats = repeats_for(first[base.name]["seconds"])
    sides = {s.name: (lambda s=s: s.ask(problem, stage, repeats)["seconds"]) for s in (base, head)}
    times = in_turns(sides, rounds)
    rng = np.random.default_rng(seed)
    change = ratio(times[head.name], times[base.name], rng, rule.level)
    for _ in range(EXTENSIONS):
        if not change.low < rule.ratio < change.high:  # the interval is on one side of what matters
            break
        more = in_turns(sides, rounds)
        times = {name: np.concatenate([times[name], more[name]]) for name in times}
        change = ratio(times[head.name], times[base.name], rng, rule.level)
    outcome: Outcome = "same"
    if slower(change, rule):
        outcome = "slower"
    elif stage == "fit" and evaluations[1] > rule.evaluations * evaluations[0]:
        outcome = "more evaluations"
    elif change.high < 1 / rule.ratio:
        outcome = "faster"
    return StageChange(problem, stage, outcome, change, evaluations)


def _unusable(problem: str, stage: str, base: dict[str, Any], head: dict[str, Any]) -> StageChange | None:
    for reply in (head, base):
        if "error" in reply:
            return StageChange(problem, stage, "failed", message=reply["error"])
    if "missing" in head:
        outcome: Outcome = "in neither" if "missing" in base else "failed"
        return StageChange(problem, stage, outcome, message=f"head: {head['missing']}")
    if "missing" in base:
        return StageChange(problem, stage, "only in head", message=f"base: {base['missing']}")
    a, b = base["value"], head["value"]
    if abs(a - b) > 1e-6 * (1 + abs(a)):
        return StageChange(problem, stage, "answers differ", message=f"base {a!r}, head {b!r}")
    return None


def compare(
    base: Path, head: Path, *, rounds: int = 11, rule: Rule | None = None,
    plan: Sequence[tuple[str, Sequence[str]]] = PLAN, slowdown: float = 0.0, observer: Any = None,
) -> list[StageChange]:  # fmt: skip
    """All stages of the plan for two checkouts; ``slowdown`` really slows the head, to test the gate."""
    sides = Side("base", base), Side("head", head, slowdown)
    changes = []
    try:
        for problem, stages in plan:
            for stage in stages:
                changes.append(compare_stage(*sides, problem, stage, rounds, rule or Rule()))
                if observer is not None:
                    observer(changes[-1])
    finally:
        for side in sides:
            side.close()
    return changes


def compare_instructions(base: Path, head: Path, problem: str, stage: str) -> StageChange:
    """Judge a stage by the number of instructions it executes, which has no noise."""
    name = f"{stage}, instructions"
    try:
        a, b = (instructions.of_stage(checkout, problem, stage) for checkout in (base, head))
    except instructions.CountError as error:
        return StageChange(problem, name, "failed", message=str(error))
    told = f"{a:,} -> {b:,} instructions ({b / a:.3f})"
    return StageChange(problem, name, judge_instructions(a, b), message=told)


def judge_instructions(base: int, head: int) -> Outcome:
    """The outcome of two counts."""
    return (
        "more instructions" if head > instructions.MORE * base
        else "faster" if base > instructions.MORE * head
        else "same"
    )  # fmt: skip


def markdown(changes: Sequence[StageChange], base: str) -> str:
    """A table for a pull request, failures first."""
    lines = [
        f"### Speed against `{base}`", "",
        "| problem | stage | verdict | head / base | interval | base ms | head ms | evaluations |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for c in sorted(changes, key=lambda c: not c.failed):
        r = c.ratio
        numbers = (
            f"{r.value:.3f} | {r.low:.3f} to {r.high:.3f} | {1e3 * r.b:.3f} | {1e3 * r.a:.3f}"
            if r
            else "| | | "
        )
        evaluations = f"{c.evaluations[0]} -> {c.evaluations[1]}" if c.evaluations else c.message
        verdict = f"**{c.outcome}**" if c.failed else c.outcome
        lines.append(f"| {c.problem} | {c.stage} | {verdict} | {numbers} | {evaluations} |")
    return "\n".join(lines) + "\n"
