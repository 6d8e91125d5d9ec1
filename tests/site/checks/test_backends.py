from __future__ import annotations

import pytest
from django.core import checks

from django_wspbus import Plugin, conf
from django_wspbus.servers.base import server_class
from django_wspbus.site.checks.backends import check_applications, check_backends

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
def backends(read):
    return lambda **wspbus: list(check_backends(read(**wspbus)))


def plugin(name, **options):
    return [{"BACKEND": f"{__name__}.{name}", "OPTIONS": options}]


# Backends


@pytest.mark.parametrize("keys", [{"REQUEST_TIMEOUT": 5}, {"RECYCLE": {"AGE": 60}}])
def test_a_server_that_replaces_no_workers_rejects_the_keys_for_it(backends, keys):
    (key,) = keys
    (problem,) = backends(SERVERS={"default": {**SERVER, "BACKEND": conf.THREADED, **keys}})

    assert (problem.id, problem.path) == ("E020", f'WSPBUS["SERVERS"]["default"]["{key}"]')
    assert problem.message == "ThreadedServer serves in the site process."
    assert backends(SERVERS={"default": {**SERVER, "BACKEND": conf.GUNICORN, **keys}}) == []


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
