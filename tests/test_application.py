from __future__ import annotations

import itertools
from wsgiref.util import setup_testing_defaults

import pytest
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler

from django_wspbus import Refusal, application, conf
from django_wspbus.application import Mounts

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
    settings.WSGI_APPLICATION = module("def app(): ...") + ".app"
    assert application.load(server()).__module__ == settings.WSGI_APPLICATION.partition(".")[0]


def test_that_of_the_server_goes_before_the_projects(server, settings, module):
    settings.WSGI_APPLICATION = "nowhere.app"
    name = module("def app(): ...")
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
    with pytest.raises(Refusal, match=rf"{name}.app is no WSGI application: 7 is not callable.*E006"):
        application.load(server(APPLICATION=f"{name}.app"))


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
