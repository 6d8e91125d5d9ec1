"""The results of the other actions, as blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .blocks import Block, Line, Style, Table, Text
from .text import as_duration, as_json, as_text, cut, plural, quoted

ERRORS = ("ERROR", "CRITICAL")


def requests(result: Mapping[str, Any]) -> Iterator[Block]:
    """Yield a row for each request in flight, the oldest first."""
    found = sorted(result.get("requests") or (), key=lambda each: -(each.get("age") or 0))
    if found:
        rows = [
            [
                as_duration(each.get("age")),
                as_duration(each.get("idle")),
                as_text(each.get("method")),
                as_text(each.get("path")),
                as_text(each.get("pid")),
                _thread(each.get("thread")),
                as_text(each.get("server")),
                "stuck" if each.get("stuck") else "",
            ]
            for each in found
        ]
        yield Table(
            ["Age", "Idle", "Method", "Path", "Process", "Thread", "Server", "State"],
            rows,
            right=("Age", "Idle", "Process"),
            bad=frozenset(index for index, each in enumerate(found) if each.get("stuck")),
        )
    else:
        yield Line("No request is in flight.")
    if unrecorded := result.get("unrecorded"):
        yield Line(f"{plural(unrecorded, 'more request')} in flight: not recorded, as the records are full")


def _thread(thread: object) -> str:
    """Return a thread as faulthandler has it, so that it can be found in the stacks."""
    return f"{thread:#018x}" if isinstance(thread, int) else as_text(thread)


def stacks(result: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the stacks of each process under its name."""
    for index, each in enumerate(result.get("processes") or ()):
        if index:
            yield Line("")
        yield Line(f"Process {as_text(each.get('pid'))}, {_part(each)}", "title")
        if each.get("stacks"):
            yield Text(each["stacks"])
        if error := each.get("error"):
            yield Line(f"    {cut(error)}", "bad")


def _part(process: Mapping[str, Any]) -> str:
    """Return the part that a process plays in the site."""
    role, server = as_text(process.get("role")), process.get("server")
    if role == server:  # the leader process
        return f"{cut(role)} process"
    return f"{cut(role)} of {quoted(server)}" if server else cut(role)


def listeners(result: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        [as_text(each.get(name)) for name in ("channel", "priority", "role", "listener")]
        for each in result.get("listeners") or ()
    ]
    yield Table(["Channel", "Priority", "Role", "Listener"], rows, right=("Priority",))


def publish(result: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the results of each process, and the processes that did not answer."""
    rows: list[list[str]] = []
    bad = set()
    for each in result.get("replies") or ():
        error = each.get("error")
        if error is not None:
            bad.add(len(rows))
        reply = as_json(each.get("results")) if error is None else f"failed: {error}"
        rows.append([*_place(each), reply])
    for each in result.get("missing") or ():
        bad.add(len(rows))
        rows.append([*_place(each), f"did not answer: {as_text(each.get('reason'))}"])
    yield Table(["Process", "Role", "Server", "Results"], rows, right=("Process",), bad=frozenset(bad))


def is_answered(result: Mapping[str, Any]) -> bool:
    """Return whether each process has answered a `publish` without an error."""
    replies = result.get("replies") or ()
    return not result.get("missing") and all(each.get("error") is None for each in replies)


def _place(process: Mapping[str, Any]) -> list[str]:
    return [as_text(process.get(name)) for name in ("pid", "role", "server")]


def logs(result: Mapping[str, Any]) -> Iterator[Block]:
    for each in result.get("records") or ():
        yield from log_record(each)


def log_record(record: Mapping[str, Any]) -> Iterator[Block]:
    """Yield a record: a line, and its further lines indented, so that no text can pretend to be a record."""
    first, *rest = str(record.get("text") or "").rstrip("\n").split("\n")
    level = as_text(record.get("level"))
    style: Style = "bad" if level in ERRORS else "dim" if level == "DEBUG" else ""
    place = f"{_moment(record.get('time'))} {as_text(record.get('pid'))}"
    yield Line(f"{place} {cut(level)} {cut(as_text(record.get('logger')))}: {first}", style)
    if rest:
        yield Text("\n".join(rest))


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return as_text(None)
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}"


def message(result: Mapping[str, Any]) -> Iterator[Block]:
    yield Line(str(result.get("message") or "Done."), "good")


def scale(result: Mapping[str, Any]) -> Iterator[Block]:
    before, workers = result.get("before"), result.get("workers")
    name = quoted(result.get("server"))
    if before == workers:
        yield Line(f"{name} has {plural(int(workers or 0), 'worker')} already.")
    else:
        yield Line(
            f"{name} is to have {plural(int(workers or 0), 'worker')} instead of {as_text(before)}.", "good"
        )


def reopen(result: Mapping[str, Any]) -> Iterator[Block]:
    """Yield a line for each file."""
    files, failures = result.get("files") or (), result.get("failures") or ()
    for path in files:
        yield Line(f"reopened {cut(str(path))}")
    for failure in failures:
        yield Line(f"failed: {cut(str(failure))}", "bad")
    if not files and not failures:
        yield Line("No log file is open.")


def is_reopened(result: Mapping[str, Any]) -> bool:
    return not result.get("failures")


Shape = Callable[[Mapping[str, Any]], Iterator[Block]]


def sites(rows: Sequence[Sequence[str]]) -> Table:
    """Return the list of sites, of which one has to be chosen."""
    return Table(["Site", "Project", "User", "Directory", "State"], rows, right=("Site",))
