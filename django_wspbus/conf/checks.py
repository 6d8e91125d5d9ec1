"""Checks that servers and plugins share: names and values of their OPTIONS, and files that they write."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .findings import Problem, shown


def check_option_names(
    path: str, options: Mapping[str, Any], known: Iterable[str], server: str
) -> Iterable[Problem]:
    """Find the OPTIONS that a server does not know."""
    known = list(known)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else None
            if near == [] and len(known) <= 10:
                hint = f"It knows {', '.join(known)}."
            yield Problem("E012", f'{path}["{name}"]', f"{server} has no option {name!r}.", hint)


def check_boolean(path: str, options: Mapping[str, Any], name: str) -> Iterable[Problem]:
    """Find an option that is neither True nor False."""
    value = options.get(name, True)
    if not isinstance(value, bool):
        yield Problem("E012", f'{path}["{name}"]', f"got {shown(value)}.", "It takes True or False.")


def check_positive(path: str, options: Mapping[str, Any], name: str) -> Iterable[Problem]:
    """Find an option that is not a whole number above 0."""
    value = options.get(name, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        yield Problem("E012", f'{path}["{name}"]', f"got {shown(value)}.", "It takes a whole number above 0.")


def check_seconds(
    path: str, options: Mapping[str, Any], name: str, least: float, most: float
) -> Iterable[Problem]:
    """Find an option that is not a number of seconds, or out of a range."""
    value = options.get(name, least)
    takes = f"It takes a number of seconds from {least} to {most}."
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield Problem("E012", f'{path}["{name}"]', f"got {shown(value)}.", takes)
    elif not least <= value <= most:  # NaN is not
        yield Problem("E015", f'{path}["{name}"]', f"got {shown(value)}.", takes)


def check_text(path: str, options: Mapping[str, Any], name: str) -> Iterable[Problem]:
    """Find an option that is not a text; the message does not show it, as it may hold a password."""
    value = options.get(name, "text")
    if not isinstance(value, str) or not value:
        message = f"got {type(value).__name__ if value else 'nothing'}."
        yield Problem("E012", f'{path}["{name}"]', message, "It takes a text.")


def check_writable(id: str, path: str, file: Path, *, replaces: bool = False) -> Iterable[Problem]:  # noqa: A002
    """Find a file that cannot be written or, if it ``replaces`` the file as a whole, its directory."""
    directory = file.absolute().parent
    if not directory.is_dir():
        yield Problem(id, path, f"there is no directory {str(directory)!r}.")
    elif file.is_dir():
        yield Problem(id, path, f"{str(file)!r} is a directory.")
    elif not replaces and file.exists():
        if not os.access(file, os.W_OK):
            yield Problem(id, path, f"the file {str(file)!r} cannot be written.")
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield Problem(id, path, f"the directory {str(directory)!r} cannot be written.")
