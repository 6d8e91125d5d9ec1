"""The tables of docs/settings.md, made from the keys: ``python -m tests.settings_page`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django_wspbus import conf
from django_wspbus.conf.keys import MISSING, Key, Option, keys_of

from .processes import ROOT

PAGE = ROOT / "docs" / "settings.md"
PART = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(page: str) -> str:
    """Return the page with every part between its markers made anew."""
    return PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}", page)


def example() -> str:
    """Return WSPBUS with every default, as a block of Python."""
    lines = ["WSPBUS = {", '    "SERVERS": {', '        "default": {']
    lines += [f'            "{key.name}": {literal(key.default)},' for key in keys_of(conf.ServerSettings)]
    lines += ["        },", "    },"]
    keys = [key for key in keys_of(conf.Settings) if key.name != "SERVERS"]
    lines += [f'    "{key.name}": {literal(key.default)},' for key in keys]
    return "\n".join(["```python", *lines, "}", "```", ""])


def table(section: Any) -> str:
    """Return the table of a section: key, default, value."""
    rows = [(f"`{key.name}`", default(key), key.doc) for key in keys_of(section)]
    return "\n".join(rows_of(("key", "default", "value"), rows))


def options() -> str:
    """Return the table of the options that override keys."""
    rows = [
        (f"`{usage(option)}`", f"`{overridden(key, option)}`", option.help)
        for section in (conf.ServerSettings, conf.Settings)
        for key in keys_of(section)
        for option in key.options
    ]
    return "\n".join(rows_of(("option", "overrides", "what it does"), rows))


PARTS = {
    "example": example,
    "options": options,
    "Settings": lambda: table(conf.Settings),
    "ServerSettings": lambda: table(conf.ServerSettings),
    "ProcessSettings": lambda: table(conf.ProcessSettings),
    "Recycle": lambda: table(conf.Recycle),
    "Autoreload": lambda: table(conf.Autoreload),
    "FleetSettings": lambda: table(conf.FleetSettings),
}


def rows_of(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def usage(option: Option) -> str:
    return option.name if option.metavar is None else f"{option.name} {option.metavar}"


def overridden(key: Key, option: Option) -> str:
    return key.name if option.within is None else f'{key.name}["{option.within}"]'


def default(key: Key) -> str:
    if key.default is not MISSING:
        return f"`{literal(key.default)}`"
    return "one server" if key.name == "SERVERS" else "required"


def literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    PAGE.write_text(write(PAGE.read_text()))
