"""Reading order is the architecture: the modules of this package import one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import django_wspbus

PACKAGE = Path(django_wspbus.__file__).parent
NAME = PACKAGE.name

# wspbus <- plugin <- {plugins, servers} <- assembly <- {commands, wsgi}: a module imports what is above it.
LAYERS = [
    ["wspbus", "phases", "servers.address", "problems", "handover", "ownership", "messages", "guard_program"],
    ["modules", "mounts", "terminal", "streams", "threads", "statuses"],
    ["libraries", "unfinished", "interfaces", "launch", "pairs"],
    ["tracebacks"],
    ["reports"],
    ["successor", "successor.*"],
    ["debuggers"],
    ["plugin", "switchboard", "inheritance", "validation", "doubts", "launcher.*", "error_page.*"],
    ["conf", "site", "spare", "launcher", "error_page"],
    ["process", "launched", "asking", "answering"],
    ["plugins.*"],
    ["application"],
    ["warmup"],
    ["servers.*"],
    ["machine"],
    ["checks", "assembly", "development"],
    ["apps", "wsgi", "pytest_plugin", "management.commands.*"],
    ["__main__"],
]


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node):
    """Yield the nodes of a tree, but for what is imported for the sake of types only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if is_type_checking(node) and child in node.body:
            continue
        yield from walk(child)


def imported(name, node):
    """Return the absolute names that a node imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        is_package = MODULES[name].name == "__init__.py"
        parts = [NAME, *(name.split(".") if name else [])]
        parents = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parents, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def ours(dotted):
    """Return which of our modules a name is, or is in; None if it is somebody else's."""
    if dotted.split(".")[0] != NAME:
        return None
    inner = dotted.removeprefix(NAME).removeprefix(".")
    while inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner


GRAPH = {
    name: {
        module
        for node in walk(tree)
        for dotted in imported(name, node)
        if (module := ours(dotted)) not in (None, name)
    }
    for name, tree in TREES.items()
}


def layer(name):
    """Return the index of the first layer that names a module, or else its folder."""
    folder = f"{name.rpartition('.')[0]}.*"
    for pattern in (name, folder):
        for index, layer in enumerate(LAYERS):
            if pattern in layer:
                return index
    return None


EMPTY = {name for name, tree in TREES.items() if not tree.body}
NAMED = sorted(set(MODULES) - EMPTY - {""})


def test_there_is_a_graph():
    assert len(NAMED) > 20
    assert sum(map(len, GRAPH.values())) > 40
    assert "wspbus" in GRAPH["process"]
    assert "plugin" in GRAPH["plugins.monitor"]


@pytest.mark.parametrize("name", NAMED)
def test_each_module_has_its_place_and_imports_what_is_above_it(name):
    place = layer(name)
    assert place is not None, f"{name} is in no layer"
    for other in GRAPH[name]:
        if other == "":  # the package itself, which imports nothing before it is asked
            continue
        above = layer(other)
        beside = name.rpartition(".")[0] == other.rpartition(".")[0] != ""
        assert above < place or (beside and above == place), f"{name} imports {other}"


def test_nothing_imports_in_a_circle():
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, " <- ".join([*under_way[under_way.index(name) :], name])
        if name not in done:
            under_way.append(name)
            for other in GRAPH[name]:
                visit(other)
            under_way.pop()
            done.add(name)

    for name in MODULES:
        visit(name)
    assert done == set(MODULES)


def test_the_idea_imports_the_standard_library_only():
    names = {dotted.split(".")[0] for node in walk(TREES["wspbus"]) for dotted in imported("wspbus", node)}
    assert names
    assert names <= set(sys.stdlib_module_names) | {"__future__"}


@pytest.mark.parametrize("module", ["", "wspbus", "plugin"])
def test_the_bus_and_the_base_of_plugins_import_without_django(module):
    source = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("django", "gunicorn"):
            raise ImportError(f"{{name}} is not to be imported")

sys.meta_path.insert(0, Block())
import {NAME}{module and "." + module}
from {NAME} import Bus, ChannelFailures, Plugin, Refusal, states
with Bus().running():
    print("runs")
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=20, check=False
    )
    assert (result.stdout, result.stderr) == ("runs\n", "")


def importers(package):
    """Return the modules that import a package of somebody else's, in a function and for types, too."""
    return {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        for dotted in imported(name, node)
        if f"{dotted}.".startswith(f"{package}.")
    }


def test_only_conf_reads_the_settings_of_the_project():
    assert importers("django.conf") == {"conf"}


def test_an_optional_dependency_is_imported_in_the_files_that_are_named_after_it():
    users = importers("gunicorn")
    assert users
    assert all("gunicorn" in name for name in users)
    assert importers("pytest") == {"pytest_plugin"}
