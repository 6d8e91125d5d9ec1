"""The command line: the actions, their arguments, and the options of all of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from . import jobs, results
from . import status as site_status
from .results import Shape

INTERVAL = 2.0
"""Seconds between two reports of ``status --watch``."""

ELSEWHERE = {
    "systemd": "prints files for the settings of a project, so it needs them: run `manage.py wspbus systemd`."
}
"""The actions of ``manage.py wspbus`` that need the project, and why."""


def _no_arguments(options: argparse.Namespace) -> dict[str, Any]:
    return {}


def _of_deploy(options: argparse.Namespace) -> dict[str, Any]:
    """Return those of a deploy that are given."""
    given = {"fleet": options.fleet, "parallel": options.parallel, "skip_missing": options.skip_missing}
    return {name: value for name, value in given.items() if value}


def _always(result: Mapping[str, Any]) -> bool:
    return True


class Subcommand(NamedTuple):
    """An action of the control socket, as the command shows it."""

    help: str
    show: Shape
    """The result as blocks."""
    succeeds: Callable[[Mapping[str, Any]], bool] = _always
    """A function of the result: True for the exit status 0."""
    arguments: Callable[[argparse.Namespace], dict[str, Any]] = _no_arguments
    timeout: float | None = 10
    """Seconds without a reply after which the site does not answer; None for what has no limit."""


ACTIONS = {
    "status": Subcommand(
        "show whether the site, or the fleet, is well, and why not",
        site_status.report,
        site_status.is_well,
        arguments=lambda options: {"fleet": True} if options.fleet else {},
    ),
    "requests": Subcommand("show each request in flight", results.requests),
    "stacks": Subcommand(
        "show the stack of each thread of each process",
        results.stacks,
        arguments=lambda options: {} if options.process is None else {"pid": options.process},
    ),
    "listeners": Subcommand("show each listener, by channel", results.listeners),
    "jobs": Subcommand("show each job, and its last run", jobs.jobs, timeout=30),
    "graceful": Subcommand(
        "reload: replace the workers, and wait", results.message, arguments=_of_deploy, timeout=None
    ),
    "restart": Subcommand(
        "restart the site, the children of one server, or one program, and wait",
        results.message,
        arguments=lambda options: (
            _of_deploy(options) | ({} if options.alias is None else {"alias": options.alias})
        ),
        timeout=None,
    ),
    "stop": Subcommand("stop the site, and wait until it has ended", results.message, timeout=None),
    "scale": Subcommand(
        "change the number of workers of a server",
        results.scale,
        arguments=lambda options: {"server": options.server, "workers": options.workers},
        timeout=30,
    ),
    "reopen": Subcommand("open the log files again, after a rotation", results.reopen, results.is_reopened),
    "publish": Subcommand(
        "publish on a channel in each process, and show the results",
        results.publish,
        results.is_answered,
        arguments=lambda options: {"channel": options.channel, "args": options.values},
        timeout=30,
    ),
    "logs": Subcommand(
        "show the last log records of the site and its processes",
        results.logs,
        arguments=lambda options: {"follow": options.follow},
        timeout=None,
    ),
}


def add_actions(parser: argparse.ArgumentParser) -> Any:
    """Add the actions to a parser, each with the options of all actions; return its subparsers."""
    # Django's parsers have an error() of their own, for `call_command`: this one runs before it.
    kind = type(parser) if isinstance(parser, JsonErrors) else type("Action", (JsonErrors, type(parser)), {})
    actions: Any = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, title="actions", parser_class=kind
    )
    for name, action in ACTIONS.items():
        each = actions.add_parser(name, help=action.help, description=f"{action.help.capitalize()}.")
        _add_arguments(name, each)
        _add_options(each)
    return actions


def _add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    match name:
        case "status":
            parser.add_argument("--watch", action="store_true", help=f"show it again every {INTERVAL:.0f} s")
            parser.add_argument("--fleet", action="store_true", help="show the members of the fleet instead")
        case "stacks":
            parser.add_argument("process", metavar="PID", nargs="?", type=int, help="only of this process")
        case "graceful":
            _add_options_of_deploy(parser)
        case "restart":
            parser.add_argument(
                "alias", metavar="ALIAS", nargs="?", help="only the children of this server, or this program"
            )
            _add_options_of_deploy(parser)
        case "scale":
            parser.add_argument("server", metavar="SERVER", help="its name in SERVERS")
            parser.add_argument("workers", metavar="N", type=_number_of_workers)
        case "publish":
            parser.add_argument("channel", metavar="CHANNEL")
            parser.add_argument(
                "values", metavar="JSON", nargs="*", type=_json, help="arguments of the listeners"
            )
        case "logs":
            parser.add_argument("-f", "--follow", action="store_true", help="go on with new records")


def _add_options_of_deploy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", action="store_true", help="on each host of the fleet, one after another")
    parser.add_argument(
        "--parallel", metavar="N", type=_number_of_hosts, help="with --fleet: on N hosts at a time"
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="with --fleet: leave out hosts that cannot be reached"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of all actions")
    group.add_argument("--pid", type=int, metavar="PID", help="the site with this site process")
    group.add_argument("--project", metavar="NAME", help="the site of this project")
    group.add_argument("--socket", metavar="PATH", help="the site with this control socket (CONTROL)")
    group.add_argument("--json", action="store_true", help="print the result as JSON, as the site sends it")


def _number_of_workers(text: str) -> int:
    return _number(text, "a server has at least 1 worker")


def _number_of_hosts(text: str) -> int:
    return _number(text, "a deploy is done on at least 1 host at a time")


def _number(text: str, too_small: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(too_small)
    return number


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        example = json.dumps(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON (a string has quotes: '{example}')") from None


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads although they are not JSON."""
    raise ValueError(name)


class JsonErrors(argparse.ArgumentParser):
    """A parser that prints its error as JSON as well, if the command line asks for JSON."""

    def error(self, message: str) -> NoReturn:
        if "--json" in sys.argv[1:]:
            sys.stdout.write(json.dumps({"error": message, "status": 2}) + "\n")
            sys.stdout.flush()
        super().error(message)


def parse(arguments: list[str], version: str) -> argparse.Namespace:
    """Read the command line of ``python -m django_wspbus``; SystemExit if it is wrong."""
    program = "python -m django_wspbus"
    parser = JsonErrors(
        prog=program,
        description="Serve a site (runbus), or operate one that runs, also if its code on disk is broken.",
        epilog=f"`{program} runbus` takes the options of `manage.py runbus`.",
    )
    parser.add_argument("--version", action="version", version=version)
    actions = add_actions(parser)
    actions.add_parser("runbus", help="serve the site, as `manage.py runbus` does")
    word = arguments[0] if arguments else ""
    if word in ELSEWHERE:
        parser.error(f"`{word}` {ELSEWHERE[word]}")
    if word and not word.startswith("-") and word not in actions.choices:
        known = ", ".join(["runbus", *ACTIONS])
        parser.error(f"there is no action {word!r}, only {known}. For a command, use `manage.py {word}`.")
    return parser.parse_args(arguments)
