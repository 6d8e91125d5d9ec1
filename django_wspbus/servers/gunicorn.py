"""gunicorn, in a child process: the plugin of the site process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gunicorn

from ..problems import Problem
from ..validation import check_option_names, check_writable
from .child import ChildServer

if TYPE_CHECKING:
    from ..conf import ServerSettings

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
    "graceful_timeout": 'WSPBUS["STOP_TIMEOUT"]',
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
    run = "django_wspbus.servers.gunicorn_child:run"

    @classmethod
    def check_options(cls, settings: ServerSettings) -> Iterable[Problem]:
        yield from check_options(settings.path("OPTIONS"), settings.alias, settings.options)

    @classmethod
    def check_machine(cls, settings: ServerSettings) -> Iterable[Problem]:
        path = settings.path("OPTIONS", "config")
        location = settings.options.get("config")
        if isinstance(location, str) and not location.startswith("python:"):
            file = Path(location.removeprefix("file:"))
            if not file.is_file():
                yield Problem(
                    "E016", path, f"there is no file {str(file)!r}.", "It takes gunicorn's own file."
                )
        for name in ("accesslog", "errorlog"):
            log = settings.options.get(name)
            if isinstance(log, str) and log != "-":
                yield from check_writable("E011", settings.path("OPTIONS", name), Path(log))

    @classmethod
    def effective_options(cls, settings: ServerSettings) -> dict[str, Any]:
        from gunicorn.config import Config

        return {"workers": Config().workers, "preload_app": True, **settings.options}


def check_options(path: str, alias: str, options: Mapping[str, Any]) -> Iterable[Problem]:
    """Find the options that gunicorn does not know, does not take, or that the site owns."""
    from gunicorn.config import Config  # heavy, and not for the site process to carry

    known = Config().settings
    yield from check_option_names(path, options, [*known, "threading"], "gunicorn")
    for name, value in options.items():
        here = f'{path}["{name}"]'
        if name == "threading":
            yield Problem("E012", here, "this option is of Django's own server.", ONE_AT_A_TIME)
        elif name in OWNED:
            owner = OWNED[name].replace("alias", f'"{alias}"')
            yield Problem("E013", here, "the site owns this option.", f"Set {owner} instead.")
        elif name in known and name != "config":
            try:
                Config().set(name, value)
            except Exception as error:  # what its validators raise is up to gunicorn
                yield Problem("E012", here, f"gunicorn does not take {value!r}: {error}")
            else:
                if name == "workers" and int(value) < 1:
                    yield Problem("E012", here, "a site without workers serves nothing.")
