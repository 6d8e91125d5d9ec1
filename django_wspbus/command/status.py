"""The report of a site: well or not, its servers, the processes that need attention, the last deploy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .blocks import Block, Line, Table, Text
from .fleet import connection, has_members, members
from .jobs import leader
from .text import NOTHING, as_duration, as_size, as_text, cut, first_line, plural, quoted

SERVING = ("ready", "serving")
"""The states of a process that is as it should be."""

LONGEST_COMMAND = 60
"""Characters of the command line of a program."""

EXPECTED = (*SERVING, "standby")


def is_well(status: Mapping[str, Any]) -> bool:
    """Return whether the site is well, or with the members of its fleet in the report, whether that is."""
    shown = status["fleet"] if has_members(status) else status
    return bool(shown.get("well"))


def report(status: Mapping[str, Any]) -> Iterator[Block]:
    """Yield what an operator wants to know first, first."""
    if has_members(status):
        yield from members(status["fleet"])
        return
    yield from _condition(status)
    yield from _identity(status)
    servers: dict[str, Any] = status.get("servers") or {}
    if servers:
        yield Line("")
        yield _servers(servers)
    programs: dict[str, Any] = status.get("processes") or {}
    if programs:
        yield Line("")
        yield _programs(programs)
    rows = [row for alias, server in servers.items() for row in _unusual(alias, server)]
    if rows:
        yield Line("")
        yield _processes(rows)
    if fleet := status.get("fleet"):
        yield Line("")
        yield from connection(fleet)
    yield from leader(status.get("leader"))
    yield from _last_operation(status)


def _condition(status: Mapping[str, Any]) -> Iterator[Block]:
    reason = str(status.get("reason") or "")
    since = status.get("since")
    words = cut(str(status.get("condition") or status.get("state")))
    words += f", for {as_duration(since)}" if since is not None else ""
    words += f": {first_line(reason)}" if reason else ""
    yield Line(f"Well: {words}", "good") if is_well(status) else Line(f"Not well: {words}", "bad")
    if "\n" in reason.strip():
        yield Text(reason)
    if (operation := _failed_operation(status)) is not None:
        yield Line(
            f"The last {cut(operation['operation'])} failed {_ago(operation)}; the error is shown below",
            "bad",
        )
    elif failure := status.get("last_failure"):
        yield Line(f"Last failure: {first_line(failure)}", "bad")
        if "\n" in failure.strip():
            yield Text(failure)


def _failed_operation(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    operation: Mapping[str, Any] | None = status.get("last_operation")
    return operation if operation and not operation.get("succeeded") else None


def _identity(status: Mapping[str, Any]) -> Iterator[Block]:
    parts = [f"Site {as_text(status.get('pid'))}"]
    if project := status.get("project"):
        parts.append(f"project {quoted(project)}")
    if settings := status.get("settings"):
        parts.append(f"settings {quoted(settings)}")
    if directory := status.get("directory"):
        parts.append(f"directory {cut(str(directory))}")
    if (uptime := status.get("uptime")) is not None:
        parts.append(f"up {as_duration(uptime)}")
    yield Line(", ".join(parts))
    if versions := status.get("versions"):
        yield Line(
            ", ".join(f"{cut(str(name))} {cut(str(version))}" for name, version in versions.items()), "dim"
        )


def _servers(servers: Mapping[str, Any]) -> Table:
    rows = [_server(alias, server) for alias, server in servers.items()]
    return Table(
        ["Server", "Workers", "Standby", "Busy", "Queue", "Memory", "Served by", "URL"],
        rows,
        right=("Workers", "Standby", "Busy", "Queue", "Memory"),
        bad=frozenset(index for index, server in enumerate(servers.values()) if _lacks_workers(server)),
    )


def _server(alias: str, server: Mapping[str, Any]) -> list[str]:
    memory = [each["memory"] for each in server.get("processes") or () if each.get("memory") is not None]
    wanted = server.get("wanted")
    return [
        alias,
        NOTHING if wanted is None else f"{_count(server, SERVING)}/{wanted}",
        NOTHING if wanted is None else str(_count(server, ("standby",))),
        _busy(server),
        as_text(server.get("queue")),
        as_size(sum(memory) if memory else None),
        as_text(server.get("title")),
        " ".join(server.get("urls") or ()) or NOTHING,
    ]


def _command(program: Mapping[str, Any], instance: Mapping[str, Any]) -> str:
    words = " ".join(map(str, program.get("command") or ()))
    return words.replace("{index}", as_text(instance.get("index")))


def _programs(programs: Mapping[str, Any]) -> Table:
    """Return a row for each instance of a program."""
    rows = [
        [
            alias if len(program.get("instances") or ()) == 1 else f"{alias}.{each.get('index')}",
            as_text(each.get("pid")),
            as_text(each.get("state")),
            as_duration(each.get("age")),
            as_text(each.get("starts")),
            as_size(each.get("memory")),
            cut(_command(program, each), LONGEST_COMMAND),
            as_text(each.get("reason")),
        ]
        for alias, program in programs.items()
        for each in program.get("instances") or ()
    ]
    return Table(
        ["Program", "Process", "State", "Age", "Starts", "Memory", "Command", "Reason"],
        rows,
        right=("Process", "Age", "Starts", "Memory"),
        bad=frozenset(index for index, row in enumerate(rows) if row[2] in ("waiting", "suspended")),
    )


def _count(server: Mapping[str, Any], states: tuple[str, ...]) -> int:
    """Return the number of workers of a server that are in one of the states."""
    workers = (each for each in server.get("processes") or () if each.get("role") == "worker")
    return sum(each.get("state") in states for each in workers)


def _lacks_workers(server: Mapping[str, Any]) -> bool:
    wanted = server.get("wanted")
    return wanted is not None and _count(server, SERVING) < wanted


def _busy(values: Mapping[str, Any]) -> str:
    """Return the busy threads of a server or process, of all of its threads if their number is fixed."""
    busy, threads = values.get("busy"), values.get("threads")
    return as_text(busy) if busy is None or threads is None else f"{busy}/{threads}"


def _unusual(alias: str, server: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield a row for each process of a server that is not plainly serving."""
    for each in server.get("processes") or ():
        if each.get("state") not in EXPECTED or each.get("reason"):
            yield [
                as_text(each.get("pid")),
                alias,
                as_text(each.get("role")),
                as_text(each.get("state")),
                as_duration(each.get("age")),
                _busy(each),
                as_text(each.get("answered")),
                as_size(each.get("memory")),
                as_text(each.get("reason")),
            ]


def _processes(rows: list[list[str]]) -> Table:
    return Table(
        ["Process", "Server", "Role", "State", "Age", "Busy", "Answered", "Memory", "Reason"],
        rows,
        right=("Process", "Age", "Busy", "Answered", "Memory"),
        bad=frozenset(index for index, row in enumerate(rows) if row[3] in ("stuck", "stopped")),
    )


def _last_operation(status: Mapping[str, Any]) -> Iterator[Block]:
    operation = status.get("last_operation")
    if not operation:
        return
    succeeded = operation.get("succeeded")
    outcome = "succeeded" if succeeded else "failed"
    took = f", after {as_duration(operation['seconds'])}" if operation.get("seconds") is not None else ""
    yield Line("")
    yield Line(
        f"Last {cut(operation['operation'])}: {outcome} {_ago(operation)}{took}", "" if succeeded else "bad"
    )
    if error := operation.get("error"):
        yield Text(str(error))


def _ago(operation: Mapping[str, Any]) -> str:
    return f"{as_duration(operation.get('ago'))} ago"


def in_a_word(status: Mapping[str, Any]) -> str:
    """Return the condition of a site for a list of sites."""
    workers = sum(_count(server, SERVING) for server in (status.get("servers") or {}).values())
    word = as_text(status.get("condition") or status.get("state"))
    return f"{word}, {plural(workers, 'worker')}" if workers else word
