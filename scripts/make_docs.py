"""Writes the pages of docs/ that are tables of what the program itself holds, so that no fact stands twice.

python scripts/make_docs.py            writes docs/quantities.md, docs/verdicts.md, docs/data.md, docs/speed.md,
                                       docs/architecture.md
python scripts/make_docs.py --check    exit code 1, naming the page, if one of them is out of date
"""

import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmcore import datasets
from parity.publish import speed_page
from parity.schema.quantities import INDEXES, MEASURES, REGISTRY
from parity.schema.verdicts import Verdict

DOCS = Path(__file__).resolve().parents[1] / "docs"
MEASURED = DOCS.parent / "benchmarks" / "measured"
NOTE = "<!-- made by scripts/make_docs.py; edit the source it reads, not this page -->"


def main(arguments: Sequence[str]) -> int:
    stale = []
    for name, page in pages().items():
        path = DOCS / name
        if "--check" not in arguments:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
    if stale:
        print(f"out of date: {', '.join(stale)}; run: make docs", file=sys.stderr)
    return 1 if stale else 0


def pages() -> dict[str, str]:
    """File name -> content of every generated page."""
    return {
        "quantities.md": quantities_page(),
        "verdicts.md": verdicts_page(),
        "data.md": data_page(),
        "speed.md": speed_page.page(MEASURED),
        "architecture.md": architecture_page(),
    }


def quantities_page() -> str:
    groups = dict.fromkeys(row.group for row in REGISTRY.values())
    parts = [
        "# Quantities",
        NOTE,
        f"{len(REGISTRY)} numbers or vectors of numbers are compared, by name and label by label. A name is "
        "one definition: two R functions of one name that compute different things are two rows.",
    ]
    for group in groups:
        rows = [row for row in REGISTRY.values() if row.group == group]
        cells = [(f"`{q.name}`", q.index, q.unit, q.definition, f"`{q.r_source}`", q.measure) for q in rows]
        head = ("quantity", "index", "unit", "definition", "R function", "measure")
        parts += [f"## {group.capitalize()}", table(head, cells)]
    parts += ["## Index: how a quantity is labelled", table(("index", "labels"), INDEXES.items())]
    measures = [(name, f"`{text}`") for name, text in MEASURES.items()]
    parts += ["## Measure: how far two values are apart", table(("measure", "definition"), measures)]
    return joined(parts)


def verdicts_page() -> str:
    rows = [(f"`{verdict}`", verdict.outcome, verdict.meaning) for verdict in Verdict]
    return joined(
        [
            "# Verdicts",
            NOTE,
            "Every comparison of a quantity ends in one of these. *pass* and *fail* count for and against; "
            "*neutral* does neither; *infrastructure* means that the comparison could not be made.",
            table(("verdict", "outcome", "meaning"), rows),
            "## Exit codes of `parity run` and `parity gate`",
            table(
                ("code", "meaning"),
                [
                    ("0", "at least one comparison was made and none failed"),
                    ("1", "a difference"),
                    ("2", "a wrong call: unknown case, engine, option"),
                    ("3", "it could not be told: nothing compared, R missing or crashed, interrupted"),
                ],
            ),
        ]
    )


def data_page() -> str:
    rows = []
    for name in datasets.dataset_names():
        frame, source = datasets.load_dataset(name), datasets.dataset_source(name)
        columns = ", ".join(f"`{column}`" for column in frame)
        rows.append((f"`{name}`", str(len(frame)), columns, source["source"], source["licence"]))
    return joined(
        [
            "# Data sets",
            NOTE,
            "`mmcore.load_dataset(NAME)` gives each as R holds it: level order, ordered factors, the same "
            "doubles. `scripts/export_data.R` makes the files again from the R packages. The licence is the "
            "package's.",
            table(("name", "rows", "columns", "from", "licence"), rows),
        ]
    )


def architecture_page() -> str:
    plan = tomllib.loads((DOCS / "architecture.toml").read_text(encoding="utf-8"))
    parts = [
        "# The house: what stands where",
        NOTE.replace("edit the source it reads", "edit docs/architecture.toml"),
        "Two packages: `mmcore` fits models, `parity` compares engines with R. A room is a folder or a file. It "
        "imports only rooms below it. A test reads every import of both packages, those inside functions and "
        "those for types only included, and names the rule that an import breaks.",
    ]
    for package in ("mmcore", "parity"):
        rooms = [row for row in plan["room"] if row["name"].startswith(f"{package}.")]
        cells = [(f"`{_short(row)}`", row["holds"], ", ".join(row["may"]) or "nothing") for row in rooms]
        parts += [f"## {package}, from the ground up", f"```\n{picture(rooms)}\n```"]
        parts += [table(("room", "holds", "may import"), cells)]
    never = [(_listed(row["from"]), _listed(row["to"]), row["why"]) for row in plan["never"]]
    parts += ["## What never happens", table(("from", "to", "why"), never)]
    libraries = [(f"`{row['name']}`", _listed(row["rooms"])) for row in plan["library"]]
    parts += ["## Libraries and where they are imported", table(("library", "rooms"), libraries)]
    owed = [(f"`{row['file']}`", f"`{row['imports']}`", row["why"]) for row in plan.get("debt", ())]
    owed += [(f"`{row['file']}`", f"`{row['name']}`", row["why"]) for row in plan.get("private", ())]
    if owed:
        note = "Imports that break the map today. The test fails for an entry that is no longer needed."
        parts += ["## Debts", note, table(("file", "takes", "why"), owed)]
    steps = [
        f"{i}. **{row['from']} → {row['to']}** (`{row['where']}`). {row['what']}"
        for i, row in enumerate(plan["step"], 1)
    ]
    parts += ["## The way of a model, from text to verdict", "\n".join(steps)]
    parts += [
        "## Where new code goes",
        table(("to add", "touch"), [(row["add"], row["touch"]) for row in plan["new"]]),
    ]
    return joined(parts)


def picture(rooms: Sequence[dict[str, Any]]) -> str:
    """The rooms as floors, the ground at the bottom: each stands one floor above the highest that it imports."""
    floor: dict[str, int] = {}
    for row in rooms:
        floor[_short(row)] = 1 + max((floor[name] for name in row["may"] if name in floor), default=-1)
    floors = [[name for name, at in floor.items() if at == i] for i in range(max(floor.values()) + 1)]
    lines = ["   ".join(f"[ {name} ]" for name in names) for names in reversed(floors)]
    width = max(map(len, lines))
    return f"\n{'|'.center(width).rstrip()}\n".join(line.center(width).rstrip() for line in lines)


def _short(row: dict[str, Any]) -> str:
    return str(row["name"]).partition(".")[2]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def joined(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
