"""Reads the imports of source files and says which of them break the map in docs/architecture.toml.

Everything here is a function of a table and of sources (module name -> text), so that a test can plant an import.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mmcore", "parity")
DOORS = frozenset({"mmcore", "parity", "parity.__main__"})  # they open the whole package


def table() -> dict:
    """The map as it is written."""
    return tomllib.loads((ROOT / "docs" / "architecture.toml").read_text(encoding="utf-8"))


def sources() -> dict[str, str]:
    """Module name -> text, for both packages. The name of a folder stands for its `__init__`."""
    return {_module(path): path.read_text() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def folders() -> frozenset[str]:
    """Modules that are folders."""
    return frozenset(_module(p) for name in PACKAGES for p in (ROOT / name).rglob("__init__.py"))


@dataclass(frozen=True)
class Import:
    """`file` imports `module`, and from it `name` unless the name is a module itself."""

    file: str
    module: str
    name: str | None


def imports(file: str, text: str, files: Mapping[str, str]) -> Iterator[Import]:
    """All imports of a file: those in functions and under `if TYPE_CHECKING` too."""
    package = file if file in folders() else file.rpartition(".")[0]
    for level, module, name in _read(text).imports:
        base = package.rsplit(".", level - 1)[0] if level else ""
        whole = ".".join(filter(None, (base, module)))
        full = f"{whole}.{name}"
        yield Import(file, full, None) if name and full in files else Import(file, whole, name)


@dataclass(frozen=True)
class _Read:
    """What a file says, read once."""

    imports: tuple[tuple[int, str, str | None], ...]  # level of a relative import, module, name
    attributes: tuple[tuple[str, str], ...]  # private attributes of other objects than self: name, expression
    defined: frozenset[str]  # private names that it makes


@cache
def _read(text: str) -> _Read:
    nodes = list(ast.walk(ast.parse(text)))
    found: list[tuple[int, str, str | None]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(0, alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.level, node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and _is_import_module(node.func):
            found += [(0, str(a.value), None) for a in node.args[:1] if isinstance(a, ast.Constant)]
    private = [
        n for n in nodes if isinstance(n, ast.Attribute) and _private(n.attr) and not _is_self(n.value)
    ]
    return _Read(tuple(found), tuple((n.attr, ast.unparse(n)) for n in private), _defined(nodes))


def _is_import_module(function: ast.expr) -> bool:
    """`import_module("a.b")` imports as well."""
    return getattr(function, "id", getattr(function, "attr", "")) == "import_module"


def _defined(nodes: list[ast.AST]) -> frozenset[str]:
    """Private names that a file makes: functions, classes, variables, fields, attributes of self."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return frozenset(name for name in names if _private(name))


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def room(module: str) -> str:
    """mmcore.design.build -> mmcore.design."""
    return ".".join(module.split(".")[:2])


def inside(module: str, place: str) -> bool:
    """Whether a module is the place or lies in it."""
    return module == place or module.startswith(f"{place}.")


# --- what is wrong ----------------------------------------------------------------------------------------


def faults(plan: Mapping, files: Mapping[str, str]) -> list[str]:
    """One line for each import that breaks the map, with the rule; empty if all is well."""
    owed = {(debt["file"], debt["imports"]) for debt in plan.get("debt", ())}
    used: set[tuple[str, str]] = set()
    lines = []
    for file, text in sorted(files.items()):
        for one in imports(file, text, files):
            wrong = _fault(plan, one, files)
            if wrong and (file, one.module) in owed:
                used.add((file, one.module))
            elif wrong:
                lines.append(wrong)
    owed_names = {(debt["file"], debt["name"]) for debt in plan.get("private", ())}
    found = dict(private_names(files))
    lines += [line for key, line in found.items() if key not in owed_names]
    used |= {key for key in owed if key not in used and _closes_a_circle(plan, files, key)}
    lines += [f"debt is paid, remove it: {a} imports {b}" for a, b in owed if (a, b) not in used]
    lines += [f"debt is paid, remove it: {a} uses {b}" for a, b in owed_names - set(found)]
    return list(dict.fromkeys(lines))


def _fault(plan: Mapping, one: Import, files: Mapping[str, str]) -> str:
    if one.file in DOORS and one.module.split(".")[0] == one.file.split(".")[0]:
        return ""
    if one.module.split(".")[0] not in PACKAGES:
        return _library_fault(plan, one)
    for rule in plan["never"]:
        if any(inside(one.file, a) for a in rule["from"]) and any(inside(one.module, b) for b in rule["to"]):
            return f"{one.file} imports {one.module}: never, {rule['why']}"
    return _room_fault(plan, one) or _engine_fault(one)


def _room_fault(plan: Mapping, one: Import) -> str:
    own, other = room(one.file), room(one.module)
    if own == other:
        return ""
    package = own.split(".")[0]
    row = next((row for row in plan["room"] if row["name"] == own), None)
    if row is None:
        return f"{own} has no place in docs/architecture.toml"
    may = {name if name == "mmcore" else f"{package}.{name}" for name in row["may"]}
    if other in may or (package == "parity" and inside(other, "mmcore") and "mmcore" in may):
        return ""
    return f"{one.file} imports {one.module}: {own} may import {', '.join(row['may']) or 'nothing'}"


# What engines share; everything else in the folder is one engine, alone.
SHARED = frozenset({"load", "references", "adapter", "isolated", "closing", "remembered", "guests"})


def _engine_fault(one: Import) -> str:
    if not (inside(one.file, "parity.engines") and inside(one.module, "parity.engines")):
        return ""
    own, other = (name.split(".")[2] if name.count(".") > 1 else "" for name in (one.file, one.module))
    if own == other or other in SHARED or own in SHARED:
        return ""
    return f"{one.file} imports {one.module}: an engine does not know another engine"


def _library_fault(plan: Mapping, one: Import) -> str:
    library = one.module.split(".")[0]
    if library in sys.stdlib_module_names or library in SCRIPTS:
        return ""
    rule = next((rule for rule in plan["library"] if rule["name"] == library), None)
    if rule is None:
        return f"{one.file} imports {library}: the library has no line in docs/architecture.toml"
    if any(inside(one.file, place) for place in rule["rooms"]):
        return ""
    return f"{one.file} imports {library}: it belongs in {', '.join(rule['rooms'])}"


SCRIPTS = frozenset({"problems"})  # benchmarks/problems.py of a checkout, asked for by parity.bench.stages


def private_names(files: Mapping[str, str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Names with a leading underscore that are used in another file than theirs, imported or as attributes.

    A class may use what it inherits, by `self`.
    """
    owners: dict[str, str] = {}
    for file, text in files.items():
        owners.update(dict.fromkeys(_read(text).defined, file))
    for file, text in files.items():
        for one in imports(file, text, files):
            if one.name and _private(one.name) and one.module in files:
                yield (
                    (file, one.name),
                    f"{file} takes {one.name} from {one.module}: the name is private there",
                )
        for name, expression in _read(text).attributes:
            if name in owners and name not in _read(text).defined:
                yield (file, name), f"{file} uses {expression}: the name is private in {owners[name]}"


# --- circles ----------------------------------------------------------------------------------------------


def graph(files: Mapping[str, str], plan: Mapping, *, rooms: bool = False) -> dict[str, set[str]]:
    """Who imports whom among the files, or among their rooms; without what is owed."""
    owed = {(debt["file"], debt["imports"]) for debt in plan.get("debt", ())}
    name = room if rooms else str
    needs: dict[str, set[str]] = {name(file): set() for file in files}
    for file, text in files.items():
        for one in imports(file, text, files):
            if one.module in files and (file, one.module) not in owed:
                needs[name(file)].add(name(one.module))
    return {key: others - {key} for key, others in needs.items()}


def circle(needs: Mapping[str, set[str]]) -> list[str]:
    """One circle of imports, first name repeated at the end; empty if there is none."""
    left = {name: set(others) for name, others in needs.items()}
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    if not left:
        return []
    way = [min(left)]
    while True:
        following = min(left[way[-1]] & set(left))
        if following in way:
            return [*way[way.index(following) :], following]
        way.append(following)


def _closes_a_circle(plan: Mapping, files: Mapping[str, str], key: tuple[str, str]) -> bool:
    """Whether an import that is owed would close a circle if it were not left out."""
    others = [debt for debt in plan["debt"] if (debt["file"], debt["imports"]) != key]
    return bool(circle(graph(files, {**plan, "debt": others})))
