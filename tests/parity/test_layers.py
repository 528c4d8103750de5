"""The layering: a file imports only what stands to its left; third-party libraries stay where they belong."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up: a room may import those before it, never those after it.
ROOMS = {
    "mmcore": (
        "errors", "datasets", "formula", "covariance", "families", "design", "kernels", "optimize", "results", "lmm",
        "glmm", "diagnostics", "inference", "tables", "plots",
    ),
    "parity": (
        "resources", "schema", "r", "references", "compare", "exact", "engines", "bench", "fuzz", "publish", "proof",
        "commands", "check", "__main__",
    ),
}  # fmt: skip
# Where a library may be imported. Those not named may be imported anywhere in the package.
ONLY_IN = {
    "mmcore": {
        "matplotlib": {"plots"},
    },
    "parity": {
        "rpy2": {"r"},
        "pebble": {"engines", "r"},
        "flint": {"exact"},
        "mmcore": {"bench", "engines", "exact", "proof", "publish", "r", "resources", "schema"},
        "click": {"commands"},
        "rich": {"commands", "publish"},
        "jinja2": {"publish"},
    },
}


ENGINES = {
    "certified",
    "exact",
    "interlace",
    "mixedlm",
    "mmcore",
    "r_live",
    "r_others",
    "recorded",
    "statsmodels",
    "zeros",
}


def _files(package):
    return sorted(p for p in (ROOT / package).rglob("*.py"))


def _module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path, *, lazy=True):
    """Full names of the modules that a file imports; without `lazy`, only those at its top level."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else _top_level(tree)
    package = _module(path) if path.name == "__init__.py" else _module(path).rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            yield from (_resolved(name, alias.name) for alias in node.names)


def _top_level(tree):
    """Statements that run on import: not those in functions or under `if TYPE_CHECKING`."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def _resolved(module, name):
    """`from a import b` means the module a.b where there is one, else something in a."""
    path = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.with_suffix(".py").exists() or path.is_dir() else module


def _graph(package, *, lazy):
    names = {_module(path) for path in _files(package)}
    return {
        _module(path): {name for name in _imports(path, lazy=lazy) if name in names} - {_module(path)}
        for path in _files(package)
    }


def _layer(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("package", ["mmcore", "parity"])
def test_there_is_no_cycle(package):
    graph = {name: set(needs) for name, needs in _graph(package, lazy=False).items()}
    while free := [name for name, needs in graph.items() if not needs & set(graph) - {name}]:
        for name in free:
            del graph[name]
    assert not graph, f"these import each other: {graph}"


def test_mmcore_never_imports_parity():
    guilty = {
        _module(path)
        for path in _files("mmcore")
        for name in _imports(path)
        if name.split(".")[0] == "parity"
    }
    assert guilty == set()


@pytest.mark.parametrize("package", ROOMS)
def test_every_file_has_a_room(package):
    assert {_layer(_module(path)) for path in _files(package)} <= {*ROOMS[package], "__init__"}


def _upwards(package):
    order = ROOMS[package]
    for path in _files(package):
        own = _layer(_module(path))
        for name in _imports(path):
            room = _layer(name)
            known = own != "__init__" and name.startswith(f"{package}.") and room in order
            if known and order.index(room) > order.index(own):
                yield f"{_module(path)} imports {name}"


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_from_below(package):
    assert list(_upwards(package)) == []


def test_engines_do_not_know_each_other():
    for path in _files("parity/engines"):
        if path.stem not in ENGINES and path.parent.name != "mmcore":
            continue
        others = {name for name in _imports(path) if name.startswith("parity.engines.")} - {_module(path)}
        others = {name for name in others if name.split(".")[2] in ENGINES - {path.parent.name}}
        assert not others, f"{_module(path)} imports {others}"


@pytest.mark.parametrize("package", ["mmcore", "parity"])
def test_libraries_stay_where_they_belong(package):
    for path in _files(package):
        for name in _imports(path):
            places = ONLY_IN[package].get(name.split(".")[0])
            assert places is None or _layer(_module(path)) in places, f"{_module(path)} imports {name}"


def test_importing_mmcore_loads_no_library_of_the_harness_and_no_plots():
    heavy = {"matplotlib", "rpy2", "click", "rich", "msgspec", "jinja2", "pebble"}
    for path in _files("mmcore"):
        loaded = {name.split(".")[0] for name in _imports(path, lazy=False)}
        assert not loaded & heavy, f"{_module(path)} loads {loaded & heavy}"


def test_an_import_upwards_would_be_noticed(tmp_path, monkeypatch):
    for room in ("schema", "compare"):
        (tmp_path / "parity" / room).mkdir(parents=True)
    (tmp_path / "parity/schema/case.py").write_text(
        "def f():\n    from parity.compare.judge import compare\n"
    )
    (tmp_path / "parity/compare/judge.py").write_text("import parity.schema.case\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert list(_upwards("parity")) == ["parity.schema.case imports parity.compare.judge"]
