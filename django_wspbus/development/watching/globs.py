"""Patterns of files, as `pathlib.Path.glob` has them."""

from __future__ import annotations

import re


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for the paths, relative to its folder, that a pattern matches."""
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", pattern, re.DOTALL)
    stand_for = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    translated = []
    for part in parts:
        if len(part) > 2 and part[0] == "[":
            negated, inner = part[1] in "!^", part[1:-1].lstrip("!^").replace("\\", r"\\")
            translated.append(f"(?!/)[{'^' * negated}{inner}]")
        else:
            translated.append(stand_for.get(part) or re.escape(part))
    return re.compile("".join(translated), re.DOTALL)
