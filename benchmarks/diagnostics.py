"""Speed and memory of the diagnostics: `python -m benchmarks.diagnostics [NAME ...] [--all] [--json FILE]`.

One BLAS thread. Every figure stands beside the fastest known of HLMdiag 0.5.1 for the same work (recorded on R 4.2.2
with lme4 1.1-31, reference BLAS; "impossible" where HLMdiag refuses or would need n x n matrices beyond memory). A
time is shown only after an answer was checked: one-step measures against the trace of the hat matrix and a literal
deletion, refits against cold fits of the units that moved most.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import mmcore as mm  # noqa: E402
from parity.bench import measured  # noqa: E402

NOTE = (
    "`python -m benchmarks.diagnostics --json FILE`: CPU seconds of the best run of a fitted model's measures, beside "
    "the fastest known of HLMdiag 0.5.1 for the same work, where it can do it at all. A time is shown only after an "
    "answer was checked."
)


@dataclass(frozen=True)
class Work:
    """One line of the table."""

    name: str
    model: Callable[[], tuple[str, pd.DataFrame]]
    run: Callable[[mm.Fit], object]
    check: Callable[[str, pd.DataFrame, mm.Fit, object], str]
    reference: float | None  # seconds of HLMdiag, None where it cannot
    target: str
    repeats: int = 5
    slow: bool = False


def shipped(name: str, formula: str) -> Callable[[], tuple[str, pd.DataFrame]]:
    """A model of a shipped data set."""
    return lambda: (formula, mm.load_dataset(name))


def million() -> tuple[str, pd.DataFrame]:
    """A million rows in 50,000 groups, random intercept and slope."""
    rng = np.random.default_rng(0)
    n, L = 1_000_000, 50_000
    codes = rng.integers(0, L, n)
    x = rng.normal(size=n)
    y = x + rng.normal(size=L)[codes] + 0.5 * x * rng.normal(size=L)[codes] + rng.normal(size=n)
    group = pd.Categorical.from_codes(codes, [str(i) for i in range(L)])
    return "y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x, "g": group})


def one_step_is_right(formula: str, data: pd.DataFrame, fit: mm.Fit, table: object) -> str:
    """Fixed leverages sum to p; the most influential row by a fit at the same theta without it."""
    assert isinstance(table, pd.DataFrame)
    total = float(mm.leverage(fit)["fixef"].sum())
    assert abs(total - fit.design.p) < 1e-8 * fit.design.p, total
    worst = int(table["cooksd"].to_numpy().argmax())
    keep = np.delete(np.arange(fit.nobs), worst)
    rest = mm.fit_design_at(fit.design.take(keep), fit.theta.to_numpy(), reml=fit.reml)
    delta = fit.beta - rest.beta
    want = delta @ np.linalg.solve(fit.vcov.to_numpy(), delta) / fit.design.p
    got = float(table["cooksd"].iloc[worst])
    assert abs(got / want - 1) < 1e-6, (got, want)
    return f"row {table.index[worst]} deleted: relative error {abs(got / want - 1):.0e}"


def refits_are_right(level: object, number: int) -> Callable[[str, pd.DataFrame, mm.Fit, object], str]:
    """theta of the units that moved most, against fits from scratch."""

    def check(formula: str, data: pd.DataFrame, fit: mm.Fit, case: object) -> str:
        assert isinstance(case, mm.CaseDeletion)
        moved = np.abs(case.theta.to_numpy() - fit.theta.to_numpy()).max(axis=1)
        order = np.argsort(-moved)
        expanded = order[
            case.status.theta_error.to_numpy()[order] > 0
        ]  # rows that were not refitted one by one
        worst = 0.0
        for i in [*order[:number], *expanded[:5]]:
            label = case.theta.index[i]
            rest = data.drop(index=label) if level == 1 else data[data[level].astype(str) != label]
            cold = mm.lmer(formula, rest, control=mm.Control(decrement=1e-13))
            worst = max(worst, float(np.abs(cold.theta.to_numpy() - case.theta.to_numpy()[i]).max()))
        assert worst < 1e-6, worst
        extra = ", and of the 5 that moved most among the expanded" if len(expanded) else ""
        return f"theta of the {number} that moved most{extra}: error {worst:.0e} (shift {moved.max():.1e})"

    return check


SLEEP = shipped("sleepstudy", "Reaction ~ Days + (Days | Subject)")
HSB = shipped("Hsb82", "mAch ~ cses + (cses | school)")
EVALUATIONS = shipped("InstEval", "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)")
TABLE = [
    Work("one-step sleepstudy", SLEEP, mm.hlm_influence, one_step_is_right, 0.046, "100x", 200),
    Work("one-step Hsb82", HSB, mm.hlm_influence, one_step_is_right, 21.7, "5000x", 50),
    Work("one-step InstEval", EVALUATIONS, mm.hlm_influence, one_step_is_right, None, "1 s", 5),
    Work("one-step 1M rows", million, mm.hlm_influence, one_step_is_right, None, "2 s, 500 MB", 3, slow=True),
    Work("refits sleepstudy rows", SLEEP, mm.case_delete, refits_are_right(1, 20), 3.73, "100x", 20),
    Work("refits Hsb82 rows", HSB, mm.case_delete, refits_are_right(1, 20), 638.0, "1000x", 3),
    Work(
        "refits Hsb82 schools", HSB, lambda f: mm.case_delete(f, "school"), refits_are_right("school", 20), 14.0,
        "500x", 20,
    ),
    Work("refits InstEval rows", EVALUATIONS, mm.case_delete, refits_are_right(1, 20), None, "15 s, 1e-6", 1, True),
]  # fmt: skip


COLUMNS = ("work", "CPU seconds", "extra MB", "HLMdiag's time over it", "aim", "checked")
Cells = tuple[str, float, float, str, str, str]


def measure(work: Work) -> Cells:
    """One line: CPU seconds of the best run, extra memory of all, ratio, aim, what was checked."""
    formula, data = work.model()
    fit = mm.lmer(formula, data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(work.repeats):
        start = time.process_time()
        result = work.run(fit)
        times.append(time.process_time() - start)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    said = work.check(formula, data, fit, result)
    ratio = "impossible" if work.reference is None else f"{work.reference / min(times):,.0f}x"
    return work.name, min(times), extra, ratio, work.target, said


def line(cells: Cells) -> str:
    """One line of the table, as text."""
    name, seconds, extra, ratio, target, said = cells
    return f"{name:<24} {seconds:>10.5f} s {extra:>6.0f} MB {ratio:>11}  target {target:<12} {said}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "name", nargs="*", help="lines whose name contains one of these; default: all but the slow"
    )
    parser.add_argument("--all", action="store_true", help="the slow ones too")
    parser.add_argument(
        "--json", type=Path, help="also write the figures to this file, from which docs/speed.md is made"
    )
    arguments = parser.parse_args()
    before, rows = measured.load_average(), []
    warnings.simplefilter("ignore", mm.MixedModelWarning)
    for work in TABLE:
        named = any(part in work.name for part in arguments.name)
        if named or (not arguments.name and (arguments.all or not work.slow)):
            rows.append(measure(work))
            print(line(rows[-1]), flush=True)
    if arguments.json:
        conditions = measured.conditions(before, "HLMdiag 0.5.1 as recorded on R 4.2.2 with lme4 1.1-31")
        table = measured.Table("Diagnostics", NOTE, COLUMNS, tuple(rows), conditions)
        measured.write(arguments.json, table)
    sys.exit(0)


if __name__ == "__main__":
    main()
