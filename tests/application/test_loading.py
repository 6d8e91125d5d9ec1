from __future__ import annotations

import itertools
from wsgiref.util import setup_testing_defaults

import pytest
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler

from django_wspbus import Refusal, conf
from django_wspbus.application import loading as application
from django_wspbus.application.mounts import Mounts

COUNT = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module, and return its name, which no other test has."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source):
        name = f"application_of_test_{next(COUNT)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


@pytest.fixture
def server(settings):
    """Return the settings of a server."""

    def read(**keys):
        settings.WSPBUS = {"SERVERS": {"default": keys}}
        return conf.get().servers["default"]

    return read


@pytest.fixture(autouse=True)
def plain(settings):
    settings.DEBUG = False
    settings.WSGI_APPLICATION = None


def echo(name):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{name} {environ['SCRIPT_NAME']!r} {environ['PATH_INFO']!r}".encode()]

    return app


def get(app, path, **environ):
    environ = {"PATH_INFO": path, "SCRIPT_NAME": "", **environ}
    setup_testing_defaults(environ)
    return b"".join(app(environ, lambda status, headers: None)).decode()


# Which application


def test_it_is_djangos_where_the_project_names_none(server):
    assert isinstance(application.load(server()), WSGIHandler)


def test_it_is_the_projects_own_where_it_names_one(server, settings, module):
    settings.WSGI_APPLICATION = module("def app(environ, start_response): ...") + ".app"
    assert application.load(server()).__module__ == settings.WSGI_APPLICATION.partition(".")[0]


def test_that_of_the_server_goes_before_the_projects(server, settings, module):
    settings.WSGI_APPLICATION = "nowhere.app"
    name = module("def app(environ, start_response): ...")
    assert application.load(server(APPLICATION=f"{name}.app")).__module__ == name


def test_static_files_are_served_under_debug(server, settings):
    settings.DEBUG = True
    assert isinstance(application.load(server()), StaticFilesHandler)


# What is wrong with it


def test_names_that_do_not_import_refuse_in_a_line_each(server, module):
    name = module("")
    keys = {"APPLICATION": f"{name}.app", "MOUNTS": {"/a": "nowhere.app", "/b": f"{name}.deep.app"}}
    with pytest.raises(Refusal) as caught:
        application.load(server(**keys))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for line, key, named in zip(
        lines,
        ["APPLICATION", 'MOUNTS"]["/a', 'MOUNTS"]["/b'],
        [f"{name}.app", "nowhere.app", f"{name}.deep.app"],
        strict=True,
    ):
        assert line.startswith(f'WSPBUS["SERVERS"]["default"]["{key}"]: {named!r} does not import: ')
        assert line.endswith("(django_wspbus.E005)")


def test_the_projects_own_setting_is_named_where_it_is_the_wrong_one(server, settings):
    settings.WSGI_APPLICATION = "nowhere.app"
    with pytest.raises(Refusal, match=r"^WSGI_APPLICATION: 'nowhere.app' does not import: No module named"):
        application.load(server())


def test_what_is_not_callable_is_no_application(server, module):
    name = module("app = 7")
    with pytest.raises(Refusal, match=rf"{name}.app is not a WSGI application: 7 is not callable.*E006"):
        application.load(server(APPLICATION=f"{name}.app"))


KINDS = """
import functools

from asgiref.wsgi import WsgiToAsgi
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application

from django_wspbus.process.bus import ProcessBus
from django_wspbus.wsgi import WorkerApplication


def app(environ, start_response): ...


async def asgi(scope, receive, send): ...


def returns_a_coroutine(scope, receive, send):
    return asgi(scope, receive, send)


class Takes:
    def __call__(self, environ, start_response): ...


class IsOne:
    def __init__(self, environ, start_response): ...

    def __iter__(self): ...


class MakesOne:
    def __new__(cls, environ, start_response): ...


class Asgi2:
    def __init__(self, scope): ...

    async def __call__(self, receive, send): ...


def takes_any(*args, **kwargs): ...


def takes_more(environ, start_response, exc_info=None): ...


def factory(): ...


@functools.wraps(factory)
def made(environ, start_response): ...


taker, part = Takes(), functools.partial(lambda this, *both: ..., 1)
partial_asgi, handler = functools.partial(asgi), ASGIHandler()
to_asgi, of_worker = WsgiToAsgi(app), WorkerApplication(asgi, ProcessBus())
in_c = print
"""


@pytest.mark.parametrize(
    "name", ["app", "taker", "IsOne", "MakesOne", "takes_any", "takes_more", "part", "made", "in_c"]
)
def test_a_wsgi_application_may_be_any_kind_of_callable(server, module, name):
    application.load(server(APPLICATION=f"{module(KINDS)}.{name}"))


ASGI = "it is an ASGI application"
CALL = r"it cannot be called with \(environ, start_response\): too many positional arguments"
CLASS = "it is a class whose instances are not iterable"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, ASGI) for name in ("asgi", "handler", "ASGIHandler", "partial_asgi", "Asgi2", "to_asgi")),
        *((name, ASGI) for name in ("returns_a_coroutine", "of_worker")),
        *((name, CALL) for name in ("factory", "get_asgi_application", "get_wsgi_application")),
        *((name, CLASS) for name in ("Takes", "WSGIHandler")),
    ],
)
@pytest.mark.parametrize("key", ["APPLICATION", "MOUNTS", "WSGI_APPLICATION"])
def test_what_is_no_wsgi_application_is_refused_with_the_reason(server, settings, module, key, name, fault):
    dotted = f"{module(KINDS)}.{name}"
    keys = {key: {"/x": dotted} if key == "MOUNTS" else dotted}
    if key == "WSGI_APPLICATION":
        settings.WSGI_APPLICATION, keys = dotted, {}
    with pytest.raises(Refusal, match=rf"{key}.*: {dotted} is not a WSGI application: {fault}\..*E006"):
        application.load(server(**keys))


@pytest.mark.parametrize("hosts", [[], [""], ["http://example.org"], ["example.org:8000", "."], [None]])
def test_hosts_that_let_django_answer_nothing_are_refused(server, settings, module, hosts):
    settings.ALLOWED_HOSTS = hosts
    name = module(f"{KINDS}\ndjangos = WorkerApplication(WSGIHandler(), ProcessBus())")
    for keys in (
        {},
        {"APPLICATION": f"{name}.djangos"},
        {"APPLICATION": f"{name}.app", "MOUNTS": {"/x": f"{name}.djangos"}},
    ):
        with pytest.raises(
            Refusal, match=r"^ALLOWED_HOSTS: .* Django would answer every request with 400.*E019"
        ):
            application.load(server(**keys))
    application.load(server(APPLICATION=f"{name}.app"))
    settings.DEBUG = True
    application.load(server())


@pytest.mark.parametrize("host", ["*", "Example.org", ".example.org", "127.0.0.1", "[::1]"])
def test_one_host_that_django_answers_will_do(server, settings, host):
    settings.ALLOWED_HOSTS = ["", host]
    application.load(server())


def test_middleware_may_set_the_hosts(server, settings, module):
    settings.ALLOWED_HOSTS = []
    name = module(
        """
from django.conf import settings
from django.core.wsgi import get_wsgi_application


def middleware(get_response):
    settings.ALLOWED_HOSTS = ["*"]
    return get_response


settings.MIDDLEWARE = [f"{__name__}.middleware"]
app = get_wsgi_application()
"""
    )
    settings.MIDDLEWARE = []
    settings.WSGI_APPLICATION = f"{name}.app"
    application.load(server())


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("from os import nothing", "ImportError: cannot import name 'nothing' from 'os'"),
        ("def app(:", "SyntaxError: "),
    ],
)
def test_an_error_in_the_projects_code_is_shown_with_its_place_and_without_ours(
    server, module, tmp_path, source, error
):
    name = module(f"\n{source}\n")
    with pytest.raises(Refusal) as caught:
        application.load(server(APPLICATION=f"{name}.app"))
    reason = str(caught.value)
    assert reason.startswith(f"its application does not load: {tmp_path / name}.py, line 2: {error}")
    assert f'File "{tmp_path / name}.py", line 2' in reason
    assert reason.splitlines()[-1].startswith(error)
    assert "django_wspbus/" not in reason


def test_a_mount_that_fails_is_an_error_like_that_of_the_application(server, module):
    name = module("1 / 0")
    with pytest.raises(Refusal, match="ZeroDivisionError"):
        application.load(server(MOUNTS={"/x": f"{name}.app"}))


def test_the_urlconf_is_imported_with_what_it_includes(server, module, settings):
    inner = module("raise RuntimeError('included')")
    outer = module(f"from django.urls import include, path\nurlpatterns = [path('', include('{inner}'))]")
    settings.ROOT_URLCONF = outer
    with pytest.raises(Refusal, match="RuntimeError: included"):
        application.load(server())


def test_a_project_without_a_urlconf_has_an_application_all_the_same(server, settings):
    del settings.ROOT_URLCONF
    assert isinstance(application.load(server()), WSGIHandler)


# Mounts


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", "main '' '/'"),
        ("", "main '' ''"),
        ("/oldest", "main '' '/oldest'"),
        ("/old", "old '/old' ''"),
        ("/old/", "old '/old' '/'"),
        ("/old/a/b", "old '/old' '/a/b'"),
        ("/old/deep/a", "deep '/old/deep' '/a'"),
        ("/old/deeper", "old '/old' '/deeper'"),
    ],
)
def test_the_longest_prefix_of_whole_segments_has_the_request(path, answer):
    app = Mounts(echo("main"), {"/old": echo("old"), "/old/deep": echo("deep")})
    assert get(app, path) == answer


def test_a_mount_below_another_prefix_keeps_it():
    app = Mounts(echo("main"), {"/old": echo("old")})
    environ = {"SCRIPT_NAME": "/site"}
    assert get(app, "/old/a", **environ) == "old '/site/old' '/a'"
    assert environ == {"SCRIPT_NAME": "/site"}


def test_what_is_mounted_is_beside_the_application(server, module, settings):
    name = module("def app(environ, start_response): return [environ['PATH_INFO'].encode()]")
    settings.DEBUG = True
    app = application.load(server(MOUNTS={"/x": f"{name}.app"}))
    assert get(app, "/x/y") == "/y"
    assert isinstance(app.application, StaticFilesHandler)
