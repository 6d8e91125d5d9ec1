"""The frames in the text of a traceback."""

from __future__ import annotations

import re

# A name in angle brackets is no file: <frozen importlib._bootstrap>, <string>.
FRAME = re.compile(r'^[ |]*File "([^"<\n][^"\n]*)", line ([0-9]{1,9})(, in .*)?$', re.MULTILINE)


def mentioned(text: str) -> list[str]:
    """Return the paths of the files in a traceback."""
    return list(dict.fromkeys(match[1] for match in FRAME.finditer(text)))
