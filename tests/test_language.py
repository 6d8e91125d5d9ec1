"""The words of the package: plain English, and one word for one thing."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import django_wspbus

PACKAGE = Path(django_wspbus.__file__).parent


@functools.cache  # rather than at import, which each process of pytest-xdist does
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of each file."""
    return {
        str(file.relative_to(PACKAGE)): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))
    }


NO_BEGINNING = re.compile(r"(Whether|What|Who|Have|Let|How|Where|When|Why)\b")
"""A first line is an imperative or a noun phrase."""

REPLACED = {
    "bequest": "hand over",
    "gate": "hold",
    "grace": "timeout",
    "heir": "generation",
    "leeway": "timeout",
    "news": "message",
    "parcel": "message",
    "patience": "timeout",
    "rehearse": "dry run",
    "told": "message",
    "trial": "dry run",
    "unrest": "interval",
}
"""A word that names nothing here, and the word that does."""

FIXED = {"grace"}
"""Names that users know from other programs: that argument of a job is called so in schedulers."""


def strings_that_explain(tree: ast.AST) -> list[str]:
    """Return the docstrings of modules, classes, functions and attributes."""
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    values = [each.value for each in statements if isinstance(each, ast.Constant)]
    return [each for each in values if isinstance(each, str)]


def names_in(tree: ast.AST) -> set[str]:
    """Return the names that a module gives: functions, classes, variables, attributes, arguments."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
    return found


def test_a_docstring_begins_with_an_imperative_or_a_noun():
    wrong = [
        f"{file}: {text.splitlines()[0]}"
        for file, tree in trees().items()
        for text in strings_that_explain(tree)
        if NO_BEGINNING.match(text)
    ]
    assert wrong == []


def test_a_name_is_of_the_vocabulary():
    wrong = [
        f"{file}: {name}, write {REPLACED[word]}"
        for file, tree in trees().items()
        for name in names_in(tree)
        for word in map(str.lower, re.split(r"_|(?<=[a-z])(?=[A-Z])", name))
        if word in REPLACED and name not in FIXED
    ]
    assert wrong == []


def test_there_are_names_and_docstrings_to_look_at():
    assert sum(len(names_in(tree)) for tree in trees().values()) > 1000
    assert sum(len(strings_that_explain(tree)) for tree in trees().values()) > 500
