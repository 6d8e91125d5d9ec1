"""The frames of a traceback, in its text."""

from __future__ import annotations

import re

# Python's own modules and what is made at run time are no files: <frozen importlib._bootstrap>, <string>.
FRAME = re.compile(r'^[ |]*File "([^"<\n][^"\n]*)", line ([0-9]{1,9})(, in .*)?$', re.MULTILINE)


def mentioned(text: str) -> list[str]:
    """Return the paths of the files that a traceback goes through."""
    return list(dict.fromkeys(match[1] for match in FRAME.finditer(text)))
