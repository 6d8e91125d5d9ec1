"""gunicorn, in a child process: the plugin of the site process."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gunicorn

from ...children.child import Child
from ...conf.checks import check_option_names, check_writable
from ...conf.findings import Problem, shown
from ...wspbus import Refusal
from ..child import ChildServer
from .numbers import AT_LEAST_ONE, check_environment, check_number, default_workers
from .retirement import check_policy, check_requests

if TYPE_CHECKING:
    from ...conf import ServerSettings, Settings

# What the site decides, and which key to set instead.
OWNED = {
    "bind": 'WSPBUS["SERVERS"][alias]["BIND"]',
    "daemon": 'WSPBUS["DAEMONIZE"]',
    "pidfile": 'WSPBUS["PIDFILE"]',
    "user": 'WSPBUS["USER"]',
    "group": 'WSPBUS["GROUP"]',
    "initgroups": 'WSPBUS["USER"], which sets them',
    "umask": 'WSPBUS["UMASK"]',
    "reload": 'WSPBUS["AUTORELOAD"]',
    "reload_engine": 'WSPBUS["AUTORELOAD"]',
    "reload_extra_files": 'WSPBUS["AUTORELOAD"]',
    "reuse_port": "nothing: the site binds one socket, and its workers share it",
    "wsgi_app": 'WSPBUS["SERVERS"][alias]["APPLICATION"]',
    "paste": 'WSPBUS["SERVERS"][alias]["APPLICATION"]',
    "raw_paste_global_conf": 'WSPBUS["SERVERS"][alias]["APPLICATION"]',
    "graceful_timeout": 'WSPBUS["GRACEFUL_TIMEOUT"]',
    "chdir": "the directory in which manage.py is started",
    "pythonpath": "sys.path, or --pythonpath of manage.py",
    "check_config": "manage.py runbus --check",
    "print_config": "manage.py runbus --print-settings",
    "control_socket": 'WSPBUS["CONTROL"]',
    "control_socket_mode": 'WSPBUS["CONTROL"]',
    "control_socket_disable": 'WSPBUS["CONTROL"]',
}

ONE_AT_A_TIME = 'With {"workers": 1, "threads": 1} gunicorn answers one request at a time.'


class GunicornServer(ChildServer):
    """Serves with gunicorn. OPTIONS are gunicorn's settings, ``config`` its configuration file."""

    title = f"gunicorn {gunicorn.__version__}"
    run = "django_wspbus.servers.gunicorn.child:run"
    check_run = "django_wspbus.servers.gunicorn.child:check"
    replaces_workers = True

    @property
    def patch(self) -> str | None:
        # A configuration file may name another class: then the child starts again, patched.
        return "gevent" if "gevent" in str(self.settings.options.get("worker_class")) else None

    def reopen_log_files(self, child: Child) -> list[int]:
        # gunicorn's master would signal its workers, too, but not once it exits.
        signalled = [pid for pid in child.workers if _signal(pid, signal.SIGUSR1)]
        if child.ended or not _signal(child.pid, signal.SIGUSR1):
            return signalled
        # A master that is about to stop may miss the signal.
        return signalled if child.deadline is not None else [child.pid, *signalled]

    @classmethod
    def check_options(cls, settings: ServerSettings) -> Iterable[Problem]:
        is_overridden = "workers" in settings.options or "config" in settings.options
        found = list(check_environment(settings, least=0 if is_overridden else 1))
        yield from found or check_options(settings.path("OPTIONS"), settings.alias, settings.options)
        yield from check_policy(settings)

    @classmethod
    def check_machine(cls, settings: ServerSettings) -> Iterable[Problem]:
        path = settings.path("OPTIONS", "config")
        location = settings.options.get("config")
        if location and not str(location).startswith("python:"):
            file = Path(str(location).removeprefix("file:"))
            if not file.is_file():
                yield Problem(
                    "E016", path, f"there is no file {str(file)!r}.", "It takes gunicorn's own file."
                )
        for name in ("accesslog", "errorlog"):
            log = settings.options.get(name)
            if log is not None and log != "-":
                yield from check_writable("E011", settings.path("OPTIONS", name), Path(log))

    @classmethod
    def effective_options(cls, settings: ServerSettings, site: Settings) -> dict[str, Any]:
        options = read_config_file(settings) | as_texts(settings.options)
        # Under AUTORELOAD one developer is the only client, whatever the environment says.
        if "workers" not in options:
            options["workers"] = 1 if site.autoreload else default_workers(settings)
        return {"preload_app": True, **options}


def _signal(pid: int, number: int) -> bool:
    """Send a signal; return False if the process has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def read_config_file(settings: ServerSettings) -> dict[str, Any]:
    """Return the settings in gunicorn's configuration file; a `Refusal` says what is wrong with them."""
    from gunicorn.config import Config

    location = str(settings.options.get("config") or "")
    if not location:
        return {}
    if location.startswith("python:"):
        values = vars(import_module(location.removeprefix("python:")))
    else:
        values = runpy.run_path(location.removeprefix("file:"), run_name="__config__")
    known = Config().settings
    options = {name: value for name, value in values.items() if name in known}
    found = [*check_options(location, settings.alias, options), *check_requests(location, settings, options)]
    wrong = [problem.line for problem in found]
    if wrong:
        raise Refusal("\n".join(wrong))
    return options


def as_texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with their paths as text, which is all that gunicorn takes."""
    return {
        name: os.fspath(each) if isinstance(each, os.PathLike) else each for name, each in options.items()
    }


def check_options(path: str, alias: str, options: Mapping[str, Any]) -> Iterable[Problem]:
    """Find the options that gunicorn does not know, does not take, or that the site owns."""
    others = {}
    for name, value in as_texts(options).items():
        here = f'{path}["{name}"]'
        if name == "threading":
            yield Problem("E012", here, "this option is of Django's own server.", ONE_AT_A_TIME)
        elif name in OWNED:
            owner = OWNED[name].replace("alias", f'"{alias}"')
            yield Problem("E013", here, "the site owns this option.", f"Set {owner} instead.")
        elif name in AT_LEAST_ONE:
            yield from check_number(here, name, value)
        elif name != "config":
            others[name] = value
        elif value is not None and not isinstance(value, str):
            hint = 'It takes the path of gunicorn\'s own file, or "python:module".'
            yield Problem("E012", here, f"got {shown(value)}.", hint)
    if others:  # gunicorn's table of settings takes 1.6 MB: most sites do not need it here
        yield from check_others(path, others)


def check_others(path: str, options: Mapping[str, Any]) -> Iterable[Problem]:
    """Ask gunicorn about options that only gunicorn judges."""
    try:
        from gunicorn.config import Config
    except FileNotFoundError:  # gunicorn does not import in a removed directory, where migrate still runs
        return
    from .worker_class import find_problem

    known = Config().settings
    yield from check_option_names(path, options, known, "gunicorn")
    for name, value in options.items():
        if name not in known:
            continue
        here = f'{path}["{name}"]'
        try:
            Config().set(name, value)
        except Exception as error:  # gunicorn decides what its validators raise
            yield Problem("E012", here, f"gunicorn does not take {shown(value)}: {error}")
        else:
            if name == "worker_class" and (reason := find_problem(value)) is not None:
                yield Problem("E012", here, reason)
