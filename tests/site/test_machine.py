from __future__ import annotations

import grp
import os
import pwd
import socket

import pytest
from django.core import checks

from django_wspbus import Plugin, conf
from django_wspbus.site.machine import check_applications, check_backends, check_machine, server_class

SERVER = {"BIND": "127.0.0.1:0"}


class Small(Plugin):
    def __init__(self, bus, *, size=1):
        super().__init__(bus)
        self.size = size

    def check(self):
        if self.size > 10:
            yield checks.Error(
                f"a size of {self.size} is too much.", hint="It takes up to 10.", id="shop.E001"
            )
        elif self.size > 5:
            yield checks.Warning(f"a size of {self.size} is much.", id="shop.W001")


class Careful(Plugin):
    def __init__(self, bus, *, path):
        super().__init__(bus)
        if not path:
            raise ValueError("it needs a path")

    def check(self):
        return ()


class WithoutSubscribe:
    pass


def make_small(bus, **options):
    return Small(bus, **options)


@pytest.fixture
def read(settings):
    """Set WSPBUS; return the settings."""

    def read(**wspbus):
        settings.WSPBUS = {"SERVERS": {"default": SERVER}, **wspbus}
        return conf.get()

    return read


@pytest.fixture
def backends(read):
    return lambda **wspbus: list(check_backends(read(**wspbus)))


@pytest.fixture
def machine(read):
    return lambda **wspbus: list(check_machine(read(**wspbus)))


def plugin(name, **options):
    return [{"BACKEND": f"{__name__}.{name}", "OPTIONS": options}]


# Backends


@pytest.mark.parametrize("backend", ["os.path.join", "django_wspbus.Bus", f"{__name__}.Small"])
def test_a_server_backend_must_be_a_class_of_servers(read, backends, backend):
    wspbus = {"SERVERS": {"default": {**SERVER, "BACKEND": backend}}}
    (problem,) = backends(**wspbus)
    assert (problem.id, problem.path) == ("E014", 'WSPBUS["SERVERS"]["default"]["BACKEND"]')
    assert (
        problem.message
        == f"{backend} is no server: it must be a subclass of django_wspbus.servers.base.Server."
    )
    with pytest.raises(TypeError, match="is no server"):
        server_class(read(**wspbus).servers["default"])


@pytest.mark.parametrize("backend", [conf.GUNICORN, conf.THREADED])
def test_our_own_servers_are_servers(read, backend):
    settings = read(SERVERS={"default": {**SERVER, "BACKEND": backend}})
    assert server_class(settings.servers["default"]).__name__ == backend.rpartition(".")[2]
    assert list(check_backends(settings)) == []


def test_no_workers_are_too_few(backends):
    (problem,) = backends(SERVERS={"default": {**SERVER, "OPTIONS": {"workers": 0}}})
    assert (problem.id, problem.path) == ("E012", 'WSPBUS["SERVERS"]["default"]["OPTIONS"]["workers"]')


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"workers": 2}, "It knows backlog, threading."),
        ({"threads": 2}, "Each connection has a thread of its own."),
        ({"backlogs": 2}, "Did you mean 'backlog'?"),
        ({"backlog": 0}, "above 0"),
    ],
)
def test_options_that_the_threaded_server_does_not_take(backends, options, says):
    (problem,) = backends(SERVERS={"default": {**SERVER, "BACKEND": conf.THREADED, "OPTIONS": options}})
    assert (problem.id, problem.path) == (
        "E012",
        f'WSPBUS["SERVERS"]["default"]["OPTIONS"]["{next(iter(options))}"]',
    )
    assert says in problem.hint


@pytest.mark.parametrize(("name", "says"), [("nowhere.Plugin", "No module"), ("nothing", "attribute")])
def test_a_plugin_backend_that_does_not_import(backends, name, says):
    (problem,) = backends(PLUGINS=plugin(name))
    assert (problem.id, problem.path) == ("E005", 'WSPBUS["PLUGINS"][0]["BACKEND"]')
    assert says in problem.message


@pytest.mark.parametrize("name", ["WithoutSubscribe", "SERVER"])
def test_a_plugin_backend_must_subscribe(backends, name):
    (problem,) = backends(PLUGINS=plugin(name))
    assert (problem.id, problem.path) == ("E014", 'WSPBUS["PLUGINS"][0]["BACKEND"]')


@pytest.mark.parametrize("name", ["Small", "make_small"])
def test_a_plugin_may_be_a_class_or_a_function_that_makes_one(backends, name):
    assert backends(PLUGINS=plugin(name, size=2)) == []


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("Small", {"sise": 2}, "unexpected keyword argument 'sise'"),
        ("Careful", {}, "missing"),
        ("Careful", {"path": ""}, "it needs a path"),
    ],
)
def test_options_that_a_plugin_does_not_take(backends, name, options, says):
    (problem,) = backends(PLUGINS=plugin(name, **options))
    assert (problem.id, problem.path) == ("E012", 'WSPBUS["PLUGINS"][0]["OPTIONS"]')
    assert says in problem.message


def test_a_plugin_contributes_checks_of_its_own(backends):
    problems = backends(PLUGINS=plugin("Small", size=11) + plugin("Small", size=6) + plugin("Small"))
    assert [(each.full_id, each.path, each.is_error) for each in problems] == [
        ("shop.E001", 'WSPBUS["PLUGINS"][0]', True),
        ("shop.W001", 'WSPBUS["PLUGINS"][1]', False),
    ]
    assert (
        problems[0].line == 'WSPBUS["PLUGINS"][0]: a size of 11 is too much. It takes up to 10. (shop.E001)'
    )
    assert [problem.as_check().level for problem in problems] == [checks.ERROR, checks.WARNING]


# Users and groups


@pytest.mark.parametrize("key", ["USER", "GROUP"])
def test_a_name_that_this_machine_does_not_know(machine, key):
    (problem,) = machine(**{key: "no-such-name"})
    assert (problem.id, problem.path) == ("E009", f'WSPBUS["{key}"]')
    assert problem.message == f"there is no {key.lower()} 'no-such-name' on this machine."


def test_who_is_not_root_may_stay_who_he_is(machine, monkeypatch):
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    monkeypatch.setattr(os, "geteuid", lambda: user.pw_uid or 4711)
    assert machine(GROUP=group.gr_name) == machine(GROUP=group.gr_gid) == []
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert machine(USER=4711) == []


@pytest.mark.parametrize("key", ["USER", "GROUP"])
@pytest.mark.parametrize("name", ["root", 0])
def test_only_root_may_become_another(machine, monkeypatch, key, name):
    if key == "GROUP" and name == "root":
        name = grp.getgrgid(0).gr_name
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    (problem,) = machine(**{key: name})
    assert (problem.id, problem.path) == ("E009", f'WSPBUS["{key}"]')
    assert problem.message == f"only root may become {name!r}."
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert machine(**{key: name}) == []


# Files


@pytest.fixture
def nothing_is_writable(monkeypatch):
    """Root may write anything, so the permissions of real files show nothing to it."""
    monkeypatch.setattr(os, "access", lambda *args: False)


def test_a_pid_file_and_output_files_may_be_new_or_there(machine, tmp_path):
    (tmp_path / "there").touch()
    for name in ("there", "new"):
        path = str(tmp_path / name)
        assert machine(PIDFILE=path, DAEMONIZE={"STDOUT": path, "STDERR": path}) == []


def test_a_directory_in_the_place_of_a_file(machine, tmp_path):
    path = str(tmp_path)
    problems = machine(PIDFILE=path, DAEMONIZE={"STDOUT": path, "STDERR": path})
    assert [(problem.id, problem.path) for problem in problems] == [
        ("E010", 'WSPBUS["PIDFILE"]'),
        ("E011", 'WSPBUS["DAEMONIZE"]["STDOUT"]'),
        ("E011", 'WSPBUS["DAEMONIZE"]["STDERR"]'),
    ]
    assert all(problem.message == f"{path!r} is a directory." for problem in problems)


@pytest.mark.parametrize("log", ["accesslog", "errorlog"])
def test_a_log_of_gunicorn_that_cannot_be_written(machine, tmp_path, log):
    def logging_to(value):
        return machine(SERVERS={"default": {**SERVER, "OPTIONS": {log: value}}})

    (problem,) = logging_to(str(tmp_path / "nowhere" / "log"))
    assert (problem.id, problem.path) == ("E011", f'WSPBUS["SERVERS"]["default"]["OPTIONS"]["{log}"]')
    assert logging_to("-") == logging_to(str(tmp_path / "log")) == []


def test_a_directory_that_is_not_there(machine, tmp_path):
    (problem,) = machine(PIDFILE=str(tmp_path / "nowhere" / "site.pid"))
    assert problem.message == f"there is no directory {str(tmp_path / 'nowhere')!r}."


@pytest.mark.usefixtures("nothing_is_writable")
def test_files_that_cannot_be_written(machine, tmp_path):
    (tmp_path / "there").touch()
    there, new = str(tmp_path / "there"), str(tmp_path / "new")
    problems = machine(PIDFILE=there, DAEMONIZE={"STDOUT": there, "STDERR": new})
    assert [(problem.id, problem.message) for problem in problems] == [
        ("E010", f"the directory {str(tmp_path)!r} cannot be written."),  # it is replaced as a whole
        ("E011", f"the file {there!r} cannot be written."),
        ("E011", f"the directory {str(tmp_path)!r} cannot be written."),
    ]


def test_the_folder_of_a_unix_socket_must_be_there(machine, tmp_path):
    def bound_to(path):
        return machine(SERVERS={"default": {"BIND": f"unix:{path}"}})

    (problem,) = bound_to(tmp_path / "nowhere" / "site.sock")
    assert (problem.id, problem.path) == ("E011", 'WSPBUS["SERVERS"]["default"]["BIND"]')
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "site.sock"))
    assert bound_to(tmp_path / "site.sock") == bound_to(tmp_path / "new.sock") == []


# Applications


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)

    return write


def test_applications_and_the_urlconf_are_imported(read, module, settings):
    module("machine_app", "def app(environ, start_response): ...\nnothing = None\n")
    module("machine_urls", "urlpatterns = [1 / 0]\n")
    keys = {"APPLICATION": "machine_app.app", "MOUNTS": {"/x": "machine_app.nothing"}}
    wspbus = read(SERVERS={"default": {**SERVER, **keys}})
    (problem,) = check_applications(wspbus)
    assert (problem.id, problem.path) == ("E006", 'WSPBUS["SERVERS"]["default"]["MOUNTS"]["/x"]')
    settings.ROOT_URLCONF = "machine_urls"
    with pytest.raises(ZeroDivisionError):
        list(check_applications(wspbus))
