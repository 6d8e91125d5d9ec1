"""Reading order is the architecture: the modules of this package import one way."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import django_wspbus

PACKAGE = Path(django_wspbus.__file__).parent
NAME = PACKAGE.name

# A folder imports the folders before it, and no other.
FOLDERS = [
    "wspbus",
    "system",
    "project",
    "conf",
    "successor",
    "process",
    "fleet",
    "control",
    "command",
    "sockets",
    "application",
    "health",
    "development",
    "plugins",
    "children",
    "servers",
    "site",
    "management",
]
# What users import, and what starts a process: these files import the folders, and no folder imports them.
TOP = ["__main__", "apps", "pytest_plugin", "wsgi"]


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


@functools.cache  # rather than at import, which each process of pytest-xdist does
def trees():
    """Return the syntax tree of each module."""
    return {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


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
    """Return which of our modules a name is, or is in; None if it is not ours."""
    if dotted.split(".")[0] != NAME:
        return None
    inner = dotted.removeprefix(NAME).removeprefix(".")
    while inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner


@functools.cache
def graph():
    """Return the modules of ours that each module imports."""
    return {
        name: {
            module
            for node in ast.walk(tree)
            for dotted in imported(name, node)
            if (module := ours(dotted)) not in (None, name)
        }
        for name, tree in trees().items()
    }


def folder(name):
    """Return the folder at the top of the package that a module is in; None for the files beside them."""
    return name.partition(".")[0] if name not in TOP else None


NAMED = sorted(set(MODULES) - {""})


def test_there_is_a_graph():
    assert len(NAMED) > 20
    assert sum(map(len, graph().values())) > 40
    assert "wspbus" in graph()["process.process_bus"]
    assert "wspbus.plugin" in graph()["plugins.monitor"]


def test_the_listing_of_the_package_is_the_list_of_folders():
    assert {folder(name) for name in NAMED} == {*FOLDERS, None}


def test_each_module_imports_folders_above_its_own():
    # The package itself imports nothing before it is asked.
    edges = [(name, other) for name in NAMED for other in graph()[name] if other]
    for name, other in edges:
        assert other not in TOP or name == "__main__", f"{name} imports {other}"
        if name not in TOP and folder(other) != folder(name):
            assert FOLDERS.index(folder(other)) < FOLDERS.index(folder(name)), f"{name} imports {other}"


def test_nothing_imports_in_a_circle():
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, " <- ".join([*under_way[under_way.index(name) :], name])
        if name not in done:
            under_way.append(name)
            for other in graph()[name]:
                visit(other)
            under_way.pop()
            done.add(name)

    for name in MODULES:
        visit(name)
    assert done == set(MODULES)


def test_the_idea_imports_the_standard_library_only():
    ours_alone = [name for name in NAMED if folder(name) == "wspbus"]
    assert len(ours_alone) > 1
    for name in ours_alone:
        names = {dotted for node in ast.walk(trees()[name]) for dotted in imported(name, node)}
        others = {dotted.split(".")[0] for dotted in names if not dotted.startswith(f"{NAME}.wspbus")}
        assert others <= set(sys.stdlib_module_names) | {"__future__"}, name


@pytest.mark.parametrize("module", ["", "wspbus", "wspbus.plugin"])
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
    """Return the modules that import a package of another project, in a function and for types, too."""
    return {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        for dotted in imported(name, node)
        if f"{dotted}.".startswith(f"{package}.")
    }


def folder_of_file(name):
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def test_only_conf_reads_the_settings_of_the_project():
    assert {folder(name) for name in importers("django.conf")} == {"conf"}


def test_an_optional_dependency_is_imported_in_the_folder_that_is_named_after_it():
    users = importers("gunicorn")
    assert users
    assert {folder_of_file(name) for name in users} == {"servers.gunicorn"}
    assert importers("pytest") == {"pytest_plugin"}
    assert importers("rich") == {"command.pretty"}
    assert importers("redis") == {"fleet.redis"}
    assert {folder_of_file(name) for name in importers("psycopg")} == {"fleet.postgres"}


def test_the_command_imports_neither_django_nor_the_modules_of_a_site():
    ours_alone = [name for name in NAMED if folder(name) == "command"]
    assert len(ours_alone) > 1
    for name in ours_alone:
        others = {folder(other) for other in graph()[name] if other}
        assert others <= {"command", "control", "system"}, name
    assert importers("django").isdisjoint(ours_alone)


LONGEST_FILE, LONGEST_CLASS = 350, 300
"""Lines."""


def test_a_file_can_be_read_in_one_sitting():
    assert [name for name in NAMED if len(MODULES[name].read_text().splitlines()) > LONGEST_FILE] == []
    classes = [node for name in NAMED for node in ast.walk(trees()[name]) if isinstance(node, ast.ClassDef)]
    assert [each.name for each in classes if each.end_lineno - each.lineno >= LONGEST_CLASS] == []


def test_no_two_folders_import_each_other():
    pairs = {
        (folder(name), folder(other))
        for name in NAMED
        for other in graph()[name]
        if name not in TOP and other not in ("", *TOP) and folder(name) != folder(other)
    }
    assert len(pairs) > len(FOLDERS)
    assert {pair for pair in pairs if pair[::-1] in pairs} == set()
