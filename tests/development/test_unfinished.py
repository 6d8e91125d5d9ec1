"""DEBUG of settings that fail half-way: known only if no later line can change it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from django_wspbus.development.unfinished import debug_of

FAILS = "SECRET = {}['missing']"

CASES = [
    (f"DEBUG = True\n{FAILS}\n", True),
    (f"DEBUG = False\n{FAILS}\n", False),
    (f"DEBUG = bool(1)\n{FAILS}\nA = DEBUG\n", True),
    (f"DEBUG = 1\n{FAILS}\n", None),
    (f"{FAILS}\n", None),
    (f"{FAILS}\nDEBUG = True\n", None),
    (f"DEBUG = True\n{FAILS}\nDEBUG = False\n", None),
    (f"DEBUG = True\n{FAILS}\nif 1:\n    DEBUG: bool = False\n", None),
    (f"DEBUG = True\n{FAILS}\nfrom local import *\n", None),
    (f"DEBUG = True\n{FAILS}\nfrom local import DEBUG\n", None),
    (f"DEBUG = True\n{FAILS}\nfrom local import live as DEBUG\n", None),
    (f"DEBUG = True\n{FAILS}\nglobals().update(a=1)\n", None),
    (f"DEBUG = True\n{FAILS}\nexec('DEBUG = False')\n", None),
    (f"DEBUG = True\n{FAILS}\ninclude('local.py')\n", None),
    (f"DEBUG = True\nfor A in 1, 2:\n    if A == 2:\n        {FAILS}\n    DEBUG = bool(A)\n", None),
    ("DEBUG = True\n(DEBUG := {}['missing'])\n", None),
    ("DEBUG = True\n\n\ndef read():\n    return {}['missing']\n\n\nA = read()\n", True),
    ("DEBUG = True\nexec(compile('A = {}[1]', 'local.py', 'exec'), globals())\n", None),
    (f"DEBUG = True\ntry:\n    {FAILS}\nexcept KeyError as error:\n    raise OSError from error\n", True),
    ("DEBUG = True\nA = [[\n", None),
]


@pytest.mark.parametrize(("source", "debug"), CASES)
def test_debug_counts_if_nothing_may_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, debug: bool | None
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "half_settings")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_settings.py").write_text(source)
    with pytest.raises((KeyError, OSError, SyntaxError)) as caught:
        import half_settings  # type: ignore[import-not-found]  # noqa: F401

    assert debug_of(caught.value) is debug
    wrapped = RuntimeError()
    wrapped.__context__, caught.value.__context__ = caught.value, wrapped  # in a circle, too
    assert debug_of(wrapped) is debug
    (tmp_path / "half_settings.py").unlink()
    assert debug_of(caught.value) is None


def test_of_another_module_that_fails_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "other")
    (tmp_path / "script.py").write_text(f"DEBUG = True\n{FAILS}\n")
    with pytest.raises(KeyError) as caught:
        runpy.run_path(str(tmp_path / "script.py"), run_name="script")

    assert debug_of(caught.value) is None
    assert debug_of(None) is None
    assert "half_settings" not in sys.modules
