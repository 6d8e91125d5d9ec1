"""Readers of single values: each returns the typed value.

A reader of a wrong value adds a finding, and returns a value that causes no further findings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import addresses
from .addresses import Address
from .findings import Place, shown

MOST_SECONDS = 10**9
"""A timeout of 31 years; the system's clocks cannot count much longer ones."""

MOST_IDENTITY = 2**32 - 2
"""The highest number of a user or group; the next one means "none" to the system."""

MOST_COUNT = 2**63 - 1
"""The highest number of requests or bytes."""

UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
"""Bytes in a unit: a kilobyte is 1,000, a kibibyte 1,024."""

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?((?:[KMGT]i?)?B|)", re.IGNORECASE | re.ASCII)

LONGEST_NAME = 200
"""Characters of a name that is shown, and sent, in full."""

EMPTY: Mapping[Any, Any] = MappingProxyType({})


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_path(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str))


# Switches


def boolean(place: Place, raw: Any) -> bool:
    if not isinstance(raw, bool):
        place.wrong(raw, "True or False")
    return raw is True


def optional_boolean(place: Place, raw: Any) -> bool | None:
    if raw is None or isinstance(raw, bool):
        return raw
    place.wrong(raw, "None, True or False")
    return None


def static_files(place: Place, raw: Any) -> bool | None:
    if raw is None or isinstance(raw, bool):
        return raw
    place.wrong(raw, "None, which is as DEBUG, or True or False")
    return None


# Names


def dotted(place: Place, raw: Any) -> str:
    if isinstance(raw, str) and raw.count(".") and all(part.isidentifier() for part in raw.split(".")):
        return raw
    takes = 'a dotted path to a name in a module, like "package.module.name"'
    if isinstance(raw, str) and raw.count(":") == 1:
        takes += f", so {raw.replace(':', '.')!r} here"
    place.wrong(raw, takes)
    return ""


def optional_dotted(place: Place, raw: Any) -> str | None:
    return None if raw is None else dotted(place, raw)


def name(place: Place, raw: Any) -> str:
    if isinstance(raw, str) and 0 < len(raw) <= LONGEST_NAME and raw.isprintable():
        return raw
    place.wrong(raw, f"a text of 1 to {LONGEST_NAME} printable characters")
    return ""


def optional_name(place: Place, raw: Any) -> str | None:
    return None if raw is None else name(place, raw)


def choice(place: Place, raw: Any, *choices: str) -> str:
    """Read one of several texts; the first one stands for a wrong value."""
    if raw in choices:
        return str(raw)
    place.wrong(raw, "one of " + ", ".join(f'"{each}"' for each in choices))
    return choices[0]


def modules(place: Place, raw: Any) -> tuple[str, ...]:
    if is_list(raw) and all(isinstance(name, str) and _is_module(name) for name in raw):
        return tuple(raw)
    place.wrong(raw, 'a list of packages or modules: ["numpy", "PIL.Image"]')
    return ()


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def identity(place: Place, raw: Any) -> str | int | None:
    """Read the name or the number of a user or group."""
    if raw is None or (isinstance(raw, str) and raw):
        return raw
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 0:
        place.wrong(raw, "a name or a number, or None")
        return None
    if raw > MOST_IDENTITY:
        _out_of_range(place, raw, f"a name, or a number up to {MOST_IDENTITY}")
    return raw


def number_or_name(text: str) -> str | int:
    """Return the name or number that a command line gives for a user or group."""
    return int(text) if text.isdecimal() else text


# Numbers


def timeout(place: Place, raw: Any) -> float:
    takes = "a number of seconds above 0"
    return _seconds(place, raw, takes, lambda number: number > 0, otherwise=MOST_SECONDS)


def optional_timeout(place: Place, raw: Any) -> float | None:
    if raw is None:
        return None
    takes = "a number of seconds above 0, or None"
    return _seconds(place, raw, takes, lambda number: number > 0, otherwise=MOST_SECONDS)


def delay(place: Place, raw: Any) -> float:
    takes = "a number of seconds from 0"
    return _seconds(place, raw, takes, lambda number: number >= 0, otherwise=0)


def _seconds(
    place: Place, raw: Any, takes: str, is_in_range: Callable[[float], bool], *, otherwise: float
) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        place.wrong(raw, takes)
    elif not raw <= MOST_SECONDS or not is_in_range(raw):  # NaN is not below any number
        _out_of_range(place, raw, f"{takes}, up to {MOST_SECONDS}")
    else:
        return raw
    return otherwise


def optional_count(place: Place, raw: Any) -> int | None:
    takes = "a whole number above 0, or None"
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int):
        place.wrong(raw, takes)
    elif not 0 < raw <= MOST_COUNT:
        _out_of_range(place, raw, takes)
    else:
        return raw
    return None


def optional_size(place: Place, raw: Any) -> int | None:
    """Read a number of bytes, or a text like "500MB"."""
    takes = 'a number of bytes above 0, or a size like "500MB" or "512MiB", or None'
    if raw is None:
        return None
    number = raw
    if isinstance(raw, str):
        match = _SIZE.fullmatch(raw.strip())
        number = None if match is None else int(float(match[1]) * UNITS[match[2].upper()])
    if isinstance(number, bool) or not isinstance(number, int):
        place.wrong(raw, takes)
    elif not 0 < number <= MOST_COUNT:
        _out_of_range(place, raw, takes)
    else:
        return number
    return None


def umask(place: Place, raw: Any) -> int | None:
    takes = 'a number from 0 to 0o777, also as an octal string like "027", or None'
    number = raw
    if isinstance(raw, str):
        try:
            number = int(raw, 8)
        except ValueError:
            number = None
    if raw is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        place.wrong(raw, takes)
        return None
    if not 0 <= number <= 0o777:
        place.add("E015", f"got {number:#o}.", f"It takes {takes}.")
    return number


def octal(number: int | None) -> str | None:
    return None if number is None else f"{number:03o}"


def _out_of_range(place: Place, raw: Any, takes: str) -> None:
    place.add("E015", f"got {shown(raw)}.", f"It takes {takes}.")


# Addresses


def binds(place: Place, raw: Any) -> tuple[Address, ...]:
    texts = [raw] if isinstance(raw, str) else raw
    if not is_list(texts) or not texts:
        place.wrong(raw, f"an address or a list of addresses: {addresses.FORMS}")
        return ()
    found = []
    for text in texts:
        if not isinstance(text, str):
            place.wrong(text, f"addresses as strings: {addresses.FORMS}")
        elif (address := _address(place, text)) is not None:
            found.append(address)
    return tuple(found)


def optional_address(place: Place, raw: Any) -> Address | None:
    if raw is None:
        return None
    if not isinstance(raw, str):
        place.wrong(raw, f"one address, {addresses.FORMS}, or None")
        return None
    return _address(place, raw)


def _address(place: Place, text: str) -> Address | None:
    try:
        return addresses.parse(text)
    except ValueError as error:
        place.add("E003", str(error), f"It takes {addresses.FORMS}.")
        return None


# Files


def optional_path(place: Place, raw: Any) -> Path | None:
    return None if raw is None else _path(place, raw, "a path, or None")


def boolean_or_path(place: Place, raw: Any) -> bool | Path:
    if isinstance(raw, bool):
        return raw
    return _path(place, raw, "True, False or a path") or False


def _path(place: Place, raw: Any, takes: str) -> Path | None:
    if not is_path(raw) or not os.fspath(raw) or "\0" in os.fspath(raw):
        place.wrong(raw, takes)
        return None
    return Path(raw)


def paths(place: Place, raw: Any) -> tuple[Path, ...]:
    if is_list(raw) and all(map(is_path, raw)):
        return tuple(map(Path, raw))
    place.wrong(raw, "a list of paths")
    return ()


def globs(place: Place, raw: Any) -> Mapping[Path, str]:
    """Read {directory: glob}."""
    if not isinstance(raw, Mapping) or not all(
        is_path(folder) and isinstance(glob, str) for folder, glob in raw.items()
    ):
        place.wrong(raw, 'a dict of directory -> glob: {BASE_DIR / "texts": "*.md"}')
        return EMPTY
    return MappingProxyType({Path(folder): glob for folder, glob in raw.items()})


# Applications and backends


def mounts(place: Place, raw: Any) -> Mapping[str, str]:
    """Read {prefix: dotted path of an application}."""
    if not isinstance(raw, Mapping):
        place.wrong(raw, 'a dict of prefix -> dotted path: {"/legacy": "other.wsgi.app"}')
        return EMPTY
    found = {}
    for prefix, application in raw.items():
        here = place.at(prefix)
        if not isinstance(prefix, str) or not prefix.startswith("/") or prefix.endswith("/"):
            here.wrong(prefix, 'a prefix that begins with a slash and ends without one: "/legacy"')
        else:
            found[prefix] = dotted(here, application)
    return MappingProxyType(found)


def options(place: Place, raw: Any) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
        place.wrong(raw, "a dict whose keys are the names of options")
        return EMPTY
    return MappingProxyType(dict(raw))


def urls(place: Place, raw: Any) -> tuple[str, ...]:
    if is_list(raw) and all(isinstance(url, str) and url.startswith("/") for url in raw):
        return tuple(raw)
    place.wrong(raw, 'a list of paths that begin with a slash: ["/"]')
    return ()
