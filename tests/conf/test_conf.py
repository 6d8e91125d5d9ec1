from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_wspbus import conf
from django_wspbus.conf import project, reading
from django_wspbus.conf.addresses import Address


@pytest.fixture
def wspbus(settings):
    """Set WSPBUS for the test."""

    def set_to(value=None, **keys):
        settings.WSPBUS = keys if value is None else value

    return set_to


def server(**keys):
    return {"default": keys}


# Typed, and frozen


def test_a_site_without_the_setting_has_every_default(settings):
    del settings.WSPBUS
    settings.DEBUG = False
    assert conf.get() == conf.Settings(
        servers={
            "default": conf.ServerSettings(
                alias="default",
                backend="django_wspbus.servers.gunicorn.GunicornServer",
                bind=(Address("inet", "127.0.0.1", 8000),),
                application=None,
                mounts={},
                options={},
                request_timeout=None,
                recycle=conf.Recycle(requests=None, memory=None, age=None),
            )
        },
        autoreload=None,
        signals={},
        daemonize=None,
        pidfile=None,
        user=None,
        group=None,
        umask=None,
        plugins=(),
        warmup=(),
        ready_timeout=30,
        drain_delay=0,
        stop_timeout=25,
        graceful_timeout=300,
        health=None,
        control=True,
    )


@pytest.mark.parametrize("wspbus", [None, {}, {"PIDFILE": "x"}], ids=["left out", "empty", "without servers"])
@pytest.mark.parametrize(("debug", "backend"), [(True, conf.THREADED), (False, conf.GUNICORN)])
def test_debug_chooses_the_server_where_the_settings_name_none(settings, wspbus, debug, backend):
    del settings.WSPBUS
    if wspbus is not None:
        settings.WSPBUS = wspbus
    settings.DEBUG = debug
    assert [each.backend for each in conf.get().servers.values()] == [backend]
    assert (conf.get().autoreload is not None) is debug


def test_servers_that_are_named_and_empty_are_an_error(wspbus):
    wspbus(SERVERS={})
    assert [problem.path for problem in conf.problems()] == ['WSPBUS["SERVERS"]']


def test_values_are_typed(wspbus):
    wspbus(
        SERVERS=server(BIND=":80", MOUNTS={"/old": "old.wsgi.app"}, OPTIONS={"workers": 2}),
        DAEMONIZE={"STDOUT": "out.log"},
        PIDFILE="site.pid",
        PLUGINS=[{"BACKEND": "shop.plugins.Cache", "OPTIONS": {"size": 3}}],
        HEALTH="127.0.0.1:8001",
        WARMUP=["/"],
    )
    settings = conf.get()
    assert settings.servers["default"].bind == (Address("inet", "0.0.0.0", 80),)
    assert settings.servers["default"].mounts == {"/old": "old.wsgi.app"}
    assert settings.servers["default"].options == {"workers": 2}
    assert settings.daemonize == conf.Daemonize(stdout=Path("out.log"))
    assert settings.pidfile == Path("site.pid")
    assert settings.plugins == (conf.PluginSettings(backend="shop.plugins.Cache", options={"size": 3}),)
    assert settings.health == Address("inet", "127.0.0.1", 8001)
    assert settings.warmup == ("/",)


def test_the_settings_cannot_be_changed(wspbus):
    wspbus(
        SERVERS=server(MOUNTS={}, OPTIONS={}),
        SIGNALS={},
        AUTORELOAD={"EXTRA_FILES": []},
        PLUGINS=[{"BACKEND": "shop.plugins.Cache"}],
    )
    settings = conf.get()
    default, plugin = settings.servers["default"], settings.plugins[0]
    objects = (settings, default, plugin, settings.autoreload, default.bind[0])
    for each in objects:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(each, dataclasses.fields(each)[0].name, None)
    mappings = (settings.servers, settings.signals, settings.autoreload.extra_dirs)
    for mapping in (*mappings, default.mounts, default.options, plugin.options):
        with pytest.raises(TypeError):
            mapping["key"] = "value"


def test_a_later_change_of_the_projects_own_dict_has_no_effect(wspbus):
    options = {"workers": 2}
    wspbus(SERVERS=server(OPTIONS=options))
    before = conf.get()
    options["workers"] = 3
    assert before.servers["default"].options == {"workers": 2}


# Read once, and forgotten


def test_the_settings_are_read_once(wspbus, monkeypatch):
    wspbus(PIDFILE="a")
    first = conf.get(), conf.problems()
    monkeypatch.setattr(reading, "django_settings", SimpleNamespace())
    assert conf.get() is first[0]
    assert conf.problems() is first[1]


def test_they_are_forgotten_when_the_setting_changes(wspbus):
    wspbus(PIDFILE="a")
    assert conf.get().pidfile == Path("a")
    wspbus(PIDFILE="b")
    assert conf.get().pidfile == Path("b")
    wspbus(PIDFILE=1)
    assert len(conf.problems()) == 1


def test_they_are_forgotten_when_debug_changes(settings):
    del settings.WSPBUS
    for debug in (True, False, True):
        settings.DEBUG = debug
        assert (conf.get().autoreload is not None) is debug


def test_they_are_kept_when_another_setting_changes(wspbus, settings):
    wspbus(PIDFILE="a")
    before = conf.get()
    settings.LANGUAGE_CODE = "de"
    assert conf.get() is before


def test_wrong_settings_are_improperly_configured_in_a_line_for_each_error(wspbus):
    wspbus(SERVERS=server(), PIDFILE=1, DRAIN_DELAY=3, UMASK="9")
    with pytest.raises(ImproperlyConfigured) as caught:
        conf.get()
    pidfile, umask = str(caught.value).splitlines()
    assert pidfile == 'WSPBUS["PIDFILE"]: got 1. It takes a path, or None. (django_wspbus.E002)'
    assert umask.startswith("""WSPBUS["UMASK"]: got '9'. It takes a number""")


# Laid over


def test_overrides_are_laid_over_dict_by_dict(wspbus):
    wspbus(
        SERVERS={"a": {"BIND": ":1", "OPTIONS": {"workers": 1, "threads": 2}}, "b": {"BIND": ":2"}},
        PIDFILE="a.pid",
    )
    settings, problems = conf.read({"SERVERS": {"a": {"OPTIONS": {"workers": 8}}}, "PIDFILE": "b.pid"})
    assert problems == []
    assert settings.servers["a"].options == {"workers": 8, "threads": 2}
    assert [str(address) for each in settings.servers.values() for address in each.bind] == [
        "0.0.0.0:1",
        "0.0.0.0:2",
    ]
    assert settings.pidfile == Path("b.pid")
    assert conf.get().pidfile == Path("a.pid")


def test_overrides_of_what_is_no_dict_leave_the_finding(wspbus):
    wspbus([1])
    settings, problems = conf.read({"PIDFILE": "x"})
    assert settings is None
    assert [problem.path for problem in problems] == ["WSPBUS"]


# The other settings that matter here


def test_paths_of_keys_are_written_as_in_python(wspbus):
    wspbus(SERVERS=server())
    assert conf.setting_path() == "WSPBUS"
    assert conf.setting_path("PLUGINS", 0, "BACKEND") == 'WSPBUS["PLUGINS"][0]["BACKEND"]'
    assert conf.get().servers["default"].path("BIND") == 'WSPBUS["SERVERS"]["default"]["BIND"]'


def test_static_files_are_served_under_debug_with_the_app(settings):
    settings.DEBUG = True
    assert conf.serves_static_files()
    settings.INSTALLED_APPS = ["django_wspbus"]
    assert not conf.serves_static_files()
    settings.DEBUG = False
    assert not conf.serves_static_files()


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_static_files_are_served_or_not_as_the_setting_says_whatever_debug_is(settings, debug, asked):
    settings.DEBUG = debug
    assert conf.serves_static_files(asked) is asked


def test_the_app_of_static_files_may_be_named_by_its_config(settings):
    settings.INSTALLED_APPS = ["django.contrib.staticfiles.apps.StaticFilesConfig"]
    assert conf.has_static_files()


def test_static_files_without_their_app_are_a_finding(wspbus, settings):
    settings.INSTALLED_APPS = ["django_wspbus"]
    wspbus(SERVERS=server(), STATIC_FILES=False)
    assert conf.read()[1] == []
    wspbus(SERVERS=server(), STATIC_FILES=True)
    read, (problem,) = conf.read()
    assert read is None
    assert (problem.id, problem.path) == ("E017", 'WSPBUS["STATIC_FILES"]')


def test_the_settings_module_is_known_unless_settings_were_configured(monkeypatch):
    assert conf.settings_module() == "testproject.settings"
    monkeypatch.setattr(project, "settings", SimpleNamespace())
    assert conf.settings_module() is None


def test_logging_names_the_loggers_of_its_dict(monkeypatch):
    for logging, speaks in (
        ({"loggers": {"shop": {}}}, True),
        ({"loggers": {}}, False),
        ({}, False),
        (None, False),
    ):
        monkeypatch.setattr(project, "settings", SimpleNamespace(LOGGING=logging))
        assert conf.logging_names("shop") is speaks
        assert not conf.logging_names("django_wspbus")


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (False, None),
        (True, conf.Autoreload()),
        ({}, conf.Autoreload()),
        (
            {"EXTRA_FILES": ["a.md"], "EXTRA_DIRS": {"texts": "*.md"}, "SPARE": False},
            conf.Autoreload(extra_files=(Path("a.md"),), extra_dirs={Path("texts"): "*.md"}, spare=False),
        ),
        ({"PRELOAD": ["numpy", "PIL.Image"]}, conf.Autoreload(preload=("numpy", "PIL.Image"))),
    ],
)
def test_a_dict_turns_autoreload_on_whatever_it_holds(wspbus, said, read):
    wspbus(AUTORELOAD=said)
    assert conf.get().autoreload == read
