"""The value of DEBUG in a settings module that failed half-way, if it is certain."""

from __future__ import annotations

import ast
import os
import traceback
from pathlib import Path
from types import CodeType

# Later lines can set DEBUG through these without naming it; include() is that of django-split-settings.
INDIRECT = {"exec", "eval", "globals", "locals", "vars", "setattr", "include"}


def debug_of(error: BaseException | None) -> bool | None:
    """Return the DEBUG that the settings module had set when it failed; None if later lines may change it.

    Settings of production often import those of development first, and set DEBUG to False after that. So a
    value counts only if neither the line that failed nor a later one can change it.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        module = os.environ.get("DJANGO_SETTINGS_MODULE")
        frames = [
            (frame, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == module
        ]
        if frames:
            frame, line = frames[0]
            is_certain = len(frames) == 1 and not _may_set_debug(frame.f_code, line)
            value = frame.f_globals.get("DEBUG")
            return value if is_certain and isinstance(value, bool) else None
        error = error.__cause__ or error.__context__
    return None


def _may_set_debug(code: CodeType, line: int) -> bool:
    """Return whether a statement that ends on a line or after it may set DEBUG."""
    try:
        body = ast.parse(Path(code.co_filename).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True
    left = [statement for statement in body if (statement.end_lineno or line) >= line]
    return not left or any(_sets_debug(node) for statement in left for node in ast.walk(statement))


def _sets_debug(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name, ctx=context):
            return name in INDIRECT or (name == "DEBUG" and not isinstance(context, ast.Load))
        case ast.alias(name=name, asname=other):
            return name == "*" or "DEBUG" in (name, other)
    return False
