from __future__ import annotations

import pytest

from django_wspbus.development.watching.globs import compile_glob


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "b/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "b/c/a.py", True),
        ("**/*.py", "b/c/a.pyc", False),
        ("**", "b/c/a", True),
        ("b/**/a?.[!ch]", "b/a1.d", True),
        ("b/**/a?.[!ch]", "b/x/a1.c", False),
        ("[ch]", "h", True),
        ("[", "[", True),
        ("a.c", "abc", False),
    ],
)
def test_a_pattern_matches_as_those_of_a_path_do(pattern, path, matches):
    assert bool(compile_glob(pattern).fullmatch(path)) is matches
