"""The programs of PROCESSES in the action ``status``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...children.programs.program import Program
from ...children.programs.programs import Programs
from ...system.memory import private_memory
from ...system.processes import descendants, is_suspended


def described_programs(programs: Programs) -> dict[str, dict[str, Any]]:
    """Return the programs as the client sees them: alias -> command and instances."""
    found: dict[str, dict[str, Any]] = {}
    for program in programs.programs:
        settings = program.settings
        entry = found.setdefault(
            settings.alias, {"command": list(settings.program or settings.command), "instances": []}
        )
        entry["instances"].append(_described(program))
    return found


def _described(program: Program) -> dict[str, Any]:
    instance = program.instance
    pid = None if instance is None else instance.program
    return {
        "index": program.number,
        "pid": pid,
        "state": "suspended" if pid is not None and is_suspended(pid) else program.state,
        "age": None if instance is None else instance.age,
        "memory": None if instance is None else _memory(instance.pid),
        "starts": program.starts,
        "joined": [] if instance is None else instance.workers,
        "reason": program.trouble,
        "due": None if program.due is None else max(program.due - time.monotonic(), 0.0),
    }


def _memory(minder: int) -> int | None:
    """Return the private memory of a program with all that it has started."""
    sizes = [size for pid in descendants(minder) if (size := private_memory(pid)) is not None]
    return sum(sizes) if sizes else None


def troubles_of(programs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each instance that does not run, and is to."""
    for alias, program in programs.items():
        instances: Iterable[Mapping[str, Any]] = program["instances"]
        for each in instances:
            name = f"{alias}.{each['index']}" if len(program["instances"]) > 1 else alias
            if each["state"] == "waiting":
                yield f"the program {name!r} does not run: {each['reason'] or 'it is about to be started'}"
            elif each["state"] == "suspended":
                yield f"the program {name!r} is stopped (SIGSTOP)"
