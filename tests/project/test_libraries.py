"""Which files are the developer's, and which belong to libraries."""

from __future__ import annotations

import logging

import pytest

from django_wspbus.project import libraries


@pytest.mark.parametrize(
    ("folder", "is_library"),
    [
        ("lib/requests-1.dist-info/METADATA", True),  # pip install --target
        ("lib/shop.egg-info/PKG-INFO", False),  # a checkout, installed in place
        ("lib/python3.9/site-packages/x.py", True),  # of another environment
        ("lib/python3/dist-packages/x.py", True),  # Debian's
        ("lib/shop/x.py", False),
    ],
)
def test_a_folder_on_the_path_is_of_libraries_if_pip_has_installed_into_it(
    tmp_path, monkeypatch, folder, is_library
):
    file = tmp_path / folder
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.syspath_prepend(tmp_path / "lib")
    path = file.with_name("x.py") if "site" in folder or "dist-p" in folder else tmp_path / "lib" / "x.py"
    assert libraries.is_library_file(str(path)) is is_library


def test_the_folder_of_the_project_is_not_of_libraries_whatever_is_installed_into_it(tmp_path, monkeypatch):
    (tmp_path / "requests-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert libraries.is_library_file(str(tmp_path / "x.py"))
    monkeypatch.chdir(tmp_path)
    assert not libraries.is_library_file(str(tmp_path / "x.py"))
    assert libraries.is_library_file(str(tmp_path / "wheels" / "requests.whl" / "requests.py"))


def test_files_of_the_project_are_neither_of_libraries_nor_ours():
    files = libraries.project_files()
    assert __file__ in files
    assert not [each for each in files if "site-packages" in each or "/django_wspbus/" in each]
    assert not libraries.is_project_file("<string>")
    assert not libraries.is_project_file(logging.__file__)
