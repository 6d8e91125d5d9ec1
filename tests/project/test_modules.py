from __future__ import annotations

import importlib.util
import json
import sys
import types
import weakref
from pathlib import Path

import pytest

from django_wspbus.development import spare
from django_wspbus.project import libraries, modules


class Raising:
    """An object that raises at any access."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Unhashable:
    __hash__ = None


def dead_proxy():
    return weakref.proxy(types.ModuleType("gone"))


def with_attributes(**attributes):
    module = types.ModuleType("odd")
    vars(module).update(attributes)
    return module


ODD = {
    "proxy": dead_proxy,
    "None": lambda: None,
    "raising": Raising,
    "class": lambda: type("Namespace", (), {}),
    "unhashable": Unhashable,
    "spec that raises": lambda: with_attributes(__spec__=Raising(), __file__="/shop/odd.py"),
    "file of bytes": lambda: with_attributes(__file__=b"/shop/odd.py"),
    "file with a NUL": lambda: with_attributes(__file__="/shop/a\0b.py"),
    "file with half a surrogate pair": lambda: with_attributes(__file__="/shop/\ud800.py"),
    "file of a number": lambda: with_attributes(__file__=7),
    "file that raises": lambda: with_attributes(__file__=Raising()),
    "name that raises": lambda: with_attributes(__spec__=types.SimpleNamespace(has_location=True)),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_entry_costs_only_itself(what, monkeypatch):
    monkeypatch.setitem(sys.modules, "odd", ODD[what]())
    assert __file__ in modules.files()
    assert __file__ in libraries.project_files()
    json.dumps(spare.describe([]).modules)


def test_a_file_may_be_a_path_or_bytes(monkeypatch):
    monkeypatch.setitem(sys.modules, "path", with_attributes(__file__=Path("/shop/path.py")))
    monkeypatch.setitem(sys.modules, "bytes", with_attributes(__file__=b"/shop/bytes.py"))
    assert {"/shop/path.py", "/shop/bytes.py"} <= set(libraries.project_files())


def test_a_lazy_module_stays_asleep_and_its_file_is_known(tmp_path, monkeypatch):
    path = tmp_path / "lazy.py"
    path.write_text("raise RuntimeError('awake')")
    spec = importlib.util.spec_from_file_location("lazy", path)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy", module)
    spec.loader.exec_module(module)
    assert modules.find("lazy").file == str(path)
    assert str(path) in libraries.project_files()


def test_an_attribute_of_a_module_that_is_not_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "odd", dead_proxy())
    assert modules.attribute("odd", "saved") is None
    assert modules.attribute("absent", "saved") is None
    assert modules.attribute("sys", "modules") is sys.modules
