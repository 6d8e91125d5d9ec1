"""The checks of FLEET: its shape, its engine's class and options, and the engine itself."""

from __future__ import annotations

import sys

import pytest
from django.core.management import CommandError, call_command

from django_wspbus import conf
from django_wspbus.fleet.engines import check_engine, check_fleet, make_engine
from django_wspbus.fleet.local import LocalEngine

from ..processes import free_port

REDIS = "django_wspbus.fleet.redis.RedisFleet"
OWN = "tests.fleet.own_engine.OwnEngine"
POSTGRES = "django_wspbus.fleet.postgres.PostgresFleet"


@pytest.fixture
def problems(settings):
    """Return the problems of FLEET as "id: path without WSPBUS: message"."""

    def find(fleet):
        settings.WSPBUS = {"FLEET": fleet}
        found = conf.problems() or list(check_fleet(conf.get().fleet))
        return [f"{each.id}: {each.path.removeprefix('WSPBUS')}: {each.message}" for each in found]

    return find


def fleet(backend=REDIS, **options):
    return {"NAME": "shop", "BACKEND": backend, "OPTIONS": options}


def test_without_fleet_a_site_is_its_own_engine(settings):
    settings.WSPBUS = {}
    assert conf.get().fleet is None
    assert isinstance(make_engine(None), LocalEngine)
    assert list(check_fleet(None)) == list(check_engine(None)) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            {"BACKEND": REDIS},
            """E002: ["FLEET"]["NAME"]: got nothing.""",
        ),
        (
            {"NAME": "", "BACKEND": REDIS},
            """E002: ["FLEET"]["NAME"]: got ''.""",
        ),
        (
            {"NAME": "shop"},
            """E002: ["FLEET"]["BACKEND"]: got nothing.""",
        ),
        (
            {"NAME": "shop", "BACKEND": REDIS, "OPTION": {}},
            """E001: ["FLEET"]["OPTION"]: there is no key 'OPTION'.""",
        ),
        (
            "redis://shop:secret@127.0.0.1",
            """E002: ["FLEET"]: got 'redis://***@127.0.0.1'.""",
        ),
        (
            {"NAME": "shop", "BACKEND": REDIS, "OPTIONS": "redis://shop:secret@127.0.0.1"},
            """E002: ["FLEET"]["OPTIONS"]: got 'redis://***@127.0.0.1'.""",
        ),
    ],
)
def test_a_wrong_shape_is_found(problems, value, problem):
    assert problems(value) == [problem]


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (fleet("shop.fleet.Nothing"), """E005: ["FLEET"]["BACKEND"]: 'shop.fleet.Nothing' does not import"""),
        (
            fleet("collections.OrderedDict"),
            """E014: ["FLEET"]["BACKEND"]: collections.OrderedDict is no engine""",
        ),
        (
            fleet("django_wspbus.fleet.base.Engine"),
            """E014: ["FLEET"]["BACKEND"]: django_wspbus.fleet.base.Engine is no engine: it lacks beat,""",
        ),
        (fleet(url="unix://"), """E012: ["FLEET"]["OPTIONS"]["url"]: it lacks the path of the socket."""),
        (fleet(urls="x"), """E012: ["FLEET"]["OPTIONS"]["urls"]: RedisFleet has no option 'urls'."""),
        (fleet(OWN), """E012: ["FLEET"]["OPTIONS"]["store"]: got nothing, and OwnEngine needs it."""),
        (fleet(OWN, store="a", lease=0), """E015: ["FLEET"]["OPTIONS"]["lease"]: got 0."""),
        (fleet(url=7), """E012: ["FLEET"]["OPTIONS"]["url"]: got int."""),
        (fleet(url=""), """E012: ["FLEET"]["OPTIONS"]["url"]: got nothing."""),
        (
            fleet(url="redis://u:se#cret@h"),
            """E012: ["FLEET"]["OPTIONS"]["url"]: it is no URL that redis-py""",
        ),
        (
            fleet(url="redis://:se%23cret@h/x"),
            """E012: ["FLEET"]["OPTIONS"]["url"]: the database 'x' is no number.""",
        ),
        (
            fleet(url="rediss://:se%23cret@h/0?nonsense=1"),
            """E012: ["FLEET"]["OPTIONS"]["url"]: redis-py does not take it: got an unexpected keyword""",
        ),
        (fleet(url="http://h"), """E012: ["FLEET"]["OPTIONS"]["url"]: it is no URL that redis-py takes."""),
        (fleet(lease="15"), """E012: ["FLEET"]["OPTIONS"]["lease"]: got '15'."""),
        (fleet(lease=0.5), """E015: ["FLEET"]["OPTIONS"]["lease"]: got 0.5."""),
        (fleet(lease=float("nan")), """E015: ["FLEET"]["OPTIONS"]["lease"]: got nan."""),
        (fleet(POSTGRES, database=None), """E012: ["FLEET"]["OPTIONS"]["database"]: got nothing."""),
        (fleet(POSTGRES, database="shop"), """E023: ["FLEET"]["OPTIONS"]["database"]: got 'shop'."""),
        (
            fleet(POSTGRES),
            """E023: ["FLEET"]["OPTIONS"]["database"]: the database 'default' is SQLite, and not""",
        ),
    ],
)
def test_a_wrong_engine_or_option_is_found(problems, value, start):
    (first, *others) = problems(value)
    assert first.startswith(start)
    assert all("E024" in other for other in others)
    assert "cret" not in first


def test_the_app_of_postgresql_has_to_be_installed(problems):
    assert problems(fleet(POSTGRES))[-1] == (
        """E024: ["FLEET"]["OPTIONS"]: the app 'django_wspbus.fleet.postgres' is not installed."""
    )


@pytest.mark.parametrize(
    ("backend", "library", "extra"), [(REDIS, "redis", "redis"), (POSTGRES, "psycopg", "postgres")]
)
def test_a_missing_library_is_named_with_its_extra(settings, monkeypatch, backend, library, extra):
    for name in [name for name in sys.modules if name.startswith("django_wspbus.fleet.") and extra in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    settings.WSPBUS = {"FLEET": fleet(backend)}
    (problem,) = check_fleet(conf.get().fleet)
    assert (problem.id, problem.hint) == ("E022", f'Install it: pip install "django-wspbus[{extra}]"')


def test_an_engine_that_is_away_is_a_warning(settings, capsys):
    url = f"redis://shop:secret@127.0.0.1:{free_port()}/0"
    settings.WSPBUS = {"FLEET": fleet(url=url)}
    (problem,) = check_engine(conf.get().fleet)
    assert (problem.id, problem.is_error) == ("W003", False)
    assert "refused" in problem.message

    call_command("runbus", "--print-settings")
    output = capsys.readouterr()
    assert "W003" in output.err
    assert """WSPBUS["FLEET"] = {'NAME': 'shop'""" in output.out
    assert "secret" not in output.out + output.err


def test_runbus_refuses_a_wrong_option_of_the_engine(settings):
    settings.WSPBUS = {"FLEET": fleet(lease=0)}
    with pytest.raises(CommandError, match="E015"):
        call_command("runbus", "--check")
