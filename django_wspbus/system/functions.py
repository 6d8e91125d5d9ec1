"""Checks of the functions that `cron` and `every` decorate: both are called without arguments."""

from __future__ import annotations

import inspect
from typing import Any


def check_function(function: Any, decorator: str) -> None:
    """Raise TypeError for a function of which each call would fail, or do nothing."""
    if not callable(function):
        raise TypeError(f"{decorator} takes a function, and {function!r} is none.")
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds):
        raise TypeError(f"{decorator}: {place_of(function)} is async or a generator: its code would not run.")
    try:
        inspect.signature(function).bind()
    except ValueError:  # a function in C may have no signature
        return
    except TypeError as error:
        raise TypeError(f"{decorator} calls without arguments; {place_of(function)}: {error}.") from None


def place_of(function: Any) -> str:
    """Return where a function is, for a message."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
