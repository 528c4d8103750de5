"""The map of docs/architecture.toml holds: who imports whom, in both packages, by every kind of import."""

import ast
import re
from pathlib import Path

import pytest

from tests.parity import layers

PLAN = layers.table()
FILES = layers.sources()
ROOMS = [row["name"] for row in PLAN["room"]]


def planted(file, statement):
    """The sources with one more statement at the end of a file."""
    return FILES | {file: FILES.get(file, "") + "\n" + statement + "\n"}


def a_file_of(place):
    return next(file for file in sorted(FILES) if file not in layers.DOORS and layers.inside(file, place))


def test_no_import_breaks_the_map():
    assert layers.faults(PLAN, FILES) == []


def test_every_file_has_a_room_and_every_room_a_file():
    used = {layers.room(file) for file in FILES} - layers.DOORS
    assert used == set(ROOMS)


def test_rooms_stand_from_the_ground_up():
    for i, row in enumerate(PLAN["room"]):
        package = row["name"].split(".")[0]
        for name in row["may"]:
            place = name if name == "mmcore" else f"{package}.{name}"
            below = [layers.room(r) for r in ROOMS[:i]]
            assert place == "mmcore" or place in below, f"{row['name']} names {place}, which is not below it"


@pytest.mark.parametrize("rooms", [False, True], ids=["files", "rooms"])
def test_there_is_no_circle(rooms):
    assert layers.circle(layers.graph(FILES, PLAN, rooms=rooms)) == []


def test_every_rule_about_a_library_is_about_one_that_is_imported():
    used = {
        one.module.split(".")[0] for file, text in FILES.items() for one in layers.imports(file, text, FILES)
    }
    assert {rule["name"] for rule in PLAN["library"]} <= used


def test_importing_mmcore_loads_no_library_of_pictures_or_of_the_harness():
    heavy = {rule["name"] for rule in PLAN["library"]} - {"numpy", "scipy", "pandas"}
    for file, text in FILES.items():
        if layers.inside(file, "mmcore"):
            at_once = {name for node in ast.parse(text).body for name in _loaded(node)}
            assert not at_once & heavy, f"{file} loads {at_once & heavy}"


def _loaded(node):
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return (
        {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()
    )


# --- each rule is broken once, and noticed ----------------------------------------------------------------

NEVER = [(rule, a, b) for rule in PLAN["never"] for a in rule["from"] for b in rule["to"]]


@pytest.mark.parametrize("rule, a, b", NEVER, ids=[f"{a}-{b}" for _, a, b in NEVER])
def test_an_import_that_never_happens_is_noticed(rule, a, b):
    file, other = a_file_of(a), a_file_of(b)
    found = layers.faults(PLAN, planted(file, f"def planted():\n    import {other}"))
    assert f"{file} imports {other}: never, {rule['why']}" in found


@pytest.mark.parametrize("row", PLAN["room"], ids=ROOMS)
def test_an_import_from_above_is_noticed(row):
    """From each room, the first room of its package that it may not import."""
    package = row["name"].split(".")[0]
    others = [name for name in ROOMS if name.startswith(f"{package}.") and name != row["name"]]
    refused = [name for name in others if name.split(".")[1] not in row["may"]]
    if not refused:
        assert row["name"] == "parity.commands"
        return
    file, other = a_file_of(row["name"]), a_file_of(refused[-1])
    found = layers.faults(PLAN, planted(file, f"from {other} import anything"))
    assert any(line.startswith(f"{file} imports {other}: ") for line in found)


@pytest.mark.parametrize("rule", PLAN["library"], ids=[rule["name"] for rule in PLAN["library"]])
def test_a_library_out_of_place_is_noticed(rule):
    outside = [name for name in ROOMS if not any(layers.inside(name, place) for place in rule["rooms"])]
    if not outside:
        assert rule["rooms"] == ["mmcore", "parity"]
        return
    file = a_file_of(outside[0])
    found = layers.faults(PLAN, planted(file, f"def planted():\n    import {rule['name']}"))
    assert f"{file} imports {rule['name']}: it belongs in {', '.join(rule['rooms'])}" in found


def test_a_library_without_a_line_is_noticed():
    found = layers.faults(PLAN, planted("mmcore.errors", "import formulaic"))
    assert "mmcore.errors imports formulaic: the library has no line in docs/architecture.toml" in found


def test_a_room_without_a_place_is_noticed():
    found = layers.faults(PLAN, planted("mmcore.attic.box", "import mmcore.errors"))
    assert "mmcore.attic has no place in docs/architecture.toml" in found


def test_an_engine_that_knows_another_is_noticed():
    found = layers.faults(PLAN, planted("parity.engines.zeros", "import parity.engines.statsmodels"))
    said = "parity.engines.zeros imports parity.engines.statsmodels: an engine does not know another engine"
    assert said in found


def test_an_import_for_types_only_counts():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..lmm.lmer import lmer"
    found = layers.faults(PLAN, planted("mmcore.kernels.dense", text))
    assert any(line.startswith("mmcore.kernels.dense imports mmcore.lmm.lmer: never") for line in found)


def test_an_import_by_name_counts():
    text = "from importlib import import_module\nimport_module('parity.engines.load')"
    found = layers.faults(PLAN, planted("parity.compare.judge", text))
    assert any(line.startswith("parity.compare.judge imports parity.engines.load: never") for line in found)


@pytest.mark.parametrize(
    "text",
    [
        "from .crossed import _planted",
        "from . import crossed as k\nk._planted",
        "def f(x):\n    return x._planted",
    ],
)
def test_a_private_name_in_another_file_is_noticed(text):
    files = planted("mmcore.kernels.crossed", "_planted = 1")
    files["mmcore.kernels.dense"] += "\n" + text + "\n"
    found = [line for line in layers.faults(PLAN, files) if "_planted" in line]
    assert found and all(line.startswith("mmcore.kernels.dense ") for line in found)


def test_a_circle_within_a_room_is_noticed():
    files = planted("mmcore.kernels.shape", "def planted():\n    from .dense import anything")
    files["mmcore.kernels.dense"] += "\nfrom . import shape\n"
    found = layers.circle(layers.graph(files, PLAN))
    assert found[0] == found[-1] and {"mmcore.kernels.shape", "mmcore.kernels.dense"} <= set(found)


def test_a_circle_of_rooms_is_noticed():
    files = planted("mmcore.errors", "def planted():\n    import mmcore.formula.syntax")
    assert layers.circle(layers.graph(files, PLAN, rooms=True)) == [
        "mmcore.errors",
        "mmcore.formula",
        "mmcore.errors",
    ]


def test_a_debt_that_is_paid_is_noticed():
    plan = PLAN | {
        "debt": [*PLAN.get("debt", ()), {"file": "mmcore.errors", "imports": "mmcore.plots", "why": "no"}]
    }
    assert layers.faults(plan, FILES) == ["debt is paid, remove it: mmcore.errors imports mmcore.plots"]


def test_paths_on_the_page_exist():
    words = " ".join(row["touch"] for row in PLAN["new"]) + " ".join(
        f"`{row['where']}`" for row in PLAN["step"]
    )
    paths = [p for text in re.findall(r"`([^`]+)`", words) for p in text.split(", ") if "/" in p]
    missing = [path for path in paths if not (Path(layers.ROOT) / path).exists()]
    assert len(paths) > 15 and missing == []
