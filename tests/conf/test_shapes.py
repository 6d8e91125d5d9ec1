from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.utils.translation import gettext_lazy

from django_wspbus import conf
from django_wspbus.conf.keys import keys_of
from django_wspbus.conf.reading import read_raw

NOTHING_OF_THE_SORT = [object(), b"bytes", 3.5, -1, True, "\0", "", (), [None], {1: 2}, {"x": {}}]

SHOP = "shop.servers.Server"


def read(raw, debug=False):
    return read_raw(raw, debug=debug)


def only_problem(raw):
    """Return what is wrong with a WSPBUS in which one thing is: id, path, message and hint."""
    _, problems = read({"SERVERS": {"default": {}}, **raw} if isinstance(raw, dict) else raw)
    errors = [problem for problem in problems if problem.is_error]
    assert len(errors or problems) == 1, problems
    return (errors or problems)[0]


def of_server(**keys):
    return {"SERVERS": {"default": keys}}


# What is not known


@pytest.mark.parametrize(
    ("raw", "path", "hint"),
    [
        ({"SERVER": {}}, 'WSPBUS["SERVER"]', "'SERVERS'"),
        ({"pidfile": "x"}, 'WSPBUS["pidfile"]', "'PIDFILE'"),
        ({"STOP_TIME": 1}, 'WSPBUS["STOP_TIME"]', "'STOP_TIMEOUT'"),
        ({7: 1}, "WSPBUS[7]", "Known are SERVERS, PROCESSES"),
        (of_server(BINDS=":1"), 'WSPBUS["SERVERS"]["default"]["BINDS"]', "'BIND'"),
        (of_server(ENGINE="x.y"), 'WSPBUS["SERVERS"]["default"]["ENGINE"]', "Known are BACKEND, BIND"),
        ({"AUTORELOAD": {"EXTRA_FILE": []}}, 'WSPBUS["AUTORELOAD"]["EXTRA_FILE"]', "'EXTRA_FILES'"),
        ({"DAEMONIZE": {"STDOUTS": "x"}}, 'WSPBUS["DAEMONIZE"]["STDOUTS"]', "'STDOUT'"),
        ({"PLUGINS": [{"BACKEND": SHOP, "OPTION": {}}]}, 'WSPBUS["PLUGINS"][0]["OPTION"]', "'OPTIONS'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(raw, path, hint):
    problem = only_problem(raw)
    assert (problem.id, problem.path) == ("E001", path)
    assert hint in problem.hint


# Types and shapes


def test_a_lazy_string_is_called_one_as_it_looks_like_any_other():
    assert only_problem({"USER": gettext_lazy("shop")}).message == "got a lazy string, 'shop'."


@pytest.mark.parametrize("raw", [None, [], "gunicorn", 8000])
def test_a_setting_that_is_no_dict_is_one_finding(raw):
    settings, problems = read(raw)
    assert settings is None
    assert [(problem.id, problem.path, problem.hint) for problem in problems] == [
        ("E002", "WSPBUS", "It takes a dict.")
    ]


@pytest.mark.parametrize(
    ("raw", "path", "takes"),
    [
        ({"SERVERS": {}}, 'WSPBUS["SERVERS"]', "at least one server"),
        ({"SERVERS": ["default"]}, 'WSPBUS["SERVERS"]', "alias -> {BACKEND, BIND, ...}"),
        ({"SERVERS": {"": {}}}, 'WSPBUS["SERVERS"][""]', "a string as its alias"),
        ({"SERVERS": {1: {}}}, 'WSPBUS["SERVERS"][1]', "a string as its alias"),
        ({"SERVERS": {"a": ":8000"}}, 'WSPBUS["SERVERS"]["a"]', "a dict of BACKEND"),
        (of_server(BACKEND="gunicorn"), 'WSPBUS["SERVERS"]["default"]["BACKEND"]', "a dotted path"),
        (of_server(BIND=8000), 'WSPBUS["SERVERS"]["default"]["BIND"]', "an address or a list"),
        (of_server(BIND=[]), 'WSPBUS["SERVERS"]["default"]["BIND"]', "an address or a list"),
        (of_server(BIND=[8000]), 'WSPBUS["SERVERS"]["default"]["BIND"]', "addresses as strings"),
        (of_server(APPLICATION="a-b.c"), 'WSPBUS["SERVERS"]["default"]["APPLICATION"]', "a dotted path"),
        (
            of_server(APPLICATION="shop.wsgi:app"),
            'WSPBUS["SERVERS"]["default"]["APPLICATION"]',
            "like \"package.module.name\", so 'shop.wsgi.app' here",
        ),
        (of_server(MOUNTS=["/x"]), 'WSPBUS["SERVERS"]["default"]["MOUNTS"]', "a dict of prefix"),
        (of_server(MOUNTS={"x": "a.b"}), 'WSPBUS["SERVERS"]["default"]["MOUNTS"]["x"]', "a slash"),
        (of_server(MOUNTS={"/x/": "a.b"}), 'WSPBUS["SERVERS"]["default"]["MOUNTS"]["/x/"]', "a slash"),
        (of_server(MOUNTS={"/x": "a"}), 'WSPBUS["SERVERS"]["default"]["MOUNTS"]["/x"]', "a dotted path"),
        (of_server(OPTIONS={1: 1}), 'WSPBUS["SERVERS"]["default"]["OPTIONS"]', "the names of options"),
        (
            of_server(REQUEST_TIMEOUT="5"),
            'WSPBUS["SERVERS"]["default"]["REQUEST_TIMEOUT"]',
            "seconds above 0",
        ),
        (of_server(RECYCLE=[]), 'WSPBUS["SERVERS"]["default"]["RECYCLE"]', 'a dict like {"REQUESTS": 10000'),
        (
            of_server(RECYCLE={"MEMORY": "much"}),
            'WSPBUS["SERVERS"]["default"]["RECYCLE"]["MEMORY"]',
            'a size like "500MB"',
        ),
        (
            of_server(RECYCLE={"REQUESTS": 1.5}),
            'WSPBUS["SERVERS"]["default"]["RECYCLE"]["REQUESTS"]',
            "a whole number above 0",
        ),
        ({"GRACEFUL_TIMEOUT": None}, 'WSPBUS["GRACEFUL_TIMEOUT"]', "seconds above 0"),
        ({"AUTORELOAD": "yes"}, 'WSPBUS["AUTORELOAD"]', "None, True, False, or a dict of EXTRA_FILES"),
        ({"AUTORELOAD": {"EXTRA_FILES": "x"}}, 'WSPBUS["AUTORELOAD"]["EXTRA_FILES"]', "a list of paths"),
        ({"AUTORELOAD": {"EXTRA_FILES": [1]}}, 'WSPBUS["AUTORELOAD"]["EXTRA_FILES"]', "a list of paths"),
        ({"AUTORELOAD": {"EXTRA_DIRS": {"x": 1}}}, 'WSPBUS["AUTORELOAD"]["EXTRA_DIRS"]', "directory -> glob"),
        ({"AUTORELOAD": {"SPARE": 1}}, 'WSPBUS["AUTORELOAD"]["SPARE"]', "True or False"),
        (
            {"AUTORELOAD": {"PRELOAD": "numpy"}},
            'WSPBUS["AUTORELOAD"]["PRELOAD"]',
            "a list of packages or modules",
        ),
        (
            {"AUTORELOAD": {"PRELOAD": ["a-b"]}},
            'WSPBUS["AUTORELOAD"]["PRELOAD"]',
            "a list of packages or modules",
        ),
        ({"AUTORELOAD": {"POLL": 1}}, 'WSPBUS["AUTORELOAD"]["POLL"]', "None, True or False"),
        ({"SIGNALS": ["SIGHUP"]}, 'WSPBUS["SIGNALS"]', "signal name -> action or channel"),
        ({"SIGNALS": {"SIGHUP": 1}}, 'WSPBUS["SIGNALS"]["SIGHUP"]', "or None to leave it alone"),
        ({"SIGNALS": {"SIGHUP": ""}}, 'WSPBUS["SIGNALS"]["SIGHUP"]', "or None to leave it alone"),
        ({"DAEMONIZE": 0}, 'WSPBUS["DAEMONIZE"]', 'True, False or {"STDOUT": path'),
        ({"DAEMONIZE": {"STDERR": 2}}, 'WSPBUS["DAEMONIZE"]["STDERR"]', "a path, or None"),
        ({"PIDFILE": ""}, 'WSPBUS["PIDFILE"]', "a path, or None"),
        ({"PIDFILE": "a\0b"}, 'WSPBUS["PIDFILE"]', "a path, or None"),
        ({"USER": ""}, 'WSPBUS["USER"]', "a name or a number, or None"),
        ({"USER": -1}, 'WSPBUS["USER"]', "a name or a number, or None"),
        ({"GROUP": True}, 'WSPBUS["GROUP"]', "a name or a number, or None"),
        ({"UMASK": "089"}, 'WSPBUS["UMASK"]', "a number from 0 to 0o777"),
        ({"UMASK": 2.5}, 'WSPBUS["UMASK"]', "a number from 0 to 0o777"),
        ({"PLUGINS": {"BACKEND": SHOP}}, 'WSPBUS["PLUGINS"]', "a list of"),
        ({"PLUGINS": [SHOP]}, 'WSPBUS["PLUGINS"][0]', "a dict"),
        ({"PLUGINS": [{}]}, 'WSPBUS["PLUGINS"][0]["BACKEND"]', "a dotted path"),
        ({"STATIC_FILES": 0}, 'WSPBUS["STATIC_FILES"]', "True or False"),
        ({"WARMUP": "/"}, 'WSPBUS["WARMUP"]', "paths that begin with a slash"),
        ({"WARMUP": ["x"]}, 'WSPBUS["WARMUP"]', "paths that begin with a slash"),
        ({"READY_TIMEOUT": "30"}, 'WSPBUS["READY_TIMEOUT"]', "seconds above 0"),
        ({"STOP_TIMEOUT": None}, 'WSPBUS["STOP_TIMEOUT"]', "seconds above 0"),
        ({"DRAIN_DELAY": False}, 'WSPBUS["DRAIN_DELAY"]', "seconds from 0"),
        ({"HEALTH": [":8001"]}, 'WSPBUS["HEALTH"]', "one address"),
        ({"CONTROL": 1}, 'WSPBUS["CONTROL"]', "True, False or a path"),
    ],
)
def test_a_wrong_type_or_shape_is_answered_with_the_values_that_the_key_takes(raw, path, takes):
    problem = only_problem(raw)
    assert (problem.id, problem.path) == ("E002", path)
    assert problem.message.startswith("got ")
    assert takes in problem.hint


def test_what_was_got_is_shown_and_not_at_length():
    assert only_problem({"PIDFILE": 3.5}).message == "got 3.5."
    assert read({})[1][0].message == "got nothing."
    assert only_problem({"UMASK": "x" * 1000}).message == f"got '{'x' * 76}...."


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"UMASK": 0o1000}, 'WSPBUS["UMASK"]'),
        ({"UMASK": -1}, 'WSPBUS["UMASK"]'),
        ({"READY_TIMEOUT": 0}, 'WSPBUS["READY_TIMEOUT"]'),
        ({"STOP_TIMEOUT": -1}, 'WSPBUS["STOP_TIMEOUT"]'),
        ({"STOP_TIMEOUT": float("inf")}, 'WSPBUS["STOP_TIMEOUT"]'),
        ({"STOP_TIMEOUT": float("nan")}, 'WSPBUS["STOP_TIMEOUT"]'),
        ({"READY_TIMEOUT": 10**9 + 1}, 'WSPBUS["READY_TIMEOUT"]'),
        ({"READY_TIMEOUT": 10**5000}, 'WSPBUS["READY_TIMEOUT"]'),
        (of_server(REQUEST_TIMEOUT=0), 'WSPBUS["SERVERS"]["default"]["REQUEST_TIMEOUT"]'),
        (of_server(RECYCLE={"MEMORY": 0}), 'WSPBUS["SERVERS"]["default"]["RECYCLE"]["MEMORY"]'),
        (of_server(RECYCLE={"MEMORY": "0MB"}), 'WSPBUS["SERVERS"]["default"]["RECYCLE"]["MEMORY"]'),
        (of_server(RECYCLE={"REQUESTS": -1}), 'WSPBUS["SERVERS"]["default"]["RECYCLE"]["REQUESTS"]'),
        (of_server(RECYCLE={"AGE": 0}), 'WSPBUS["SERVERS"]["default"]["RECYCLE"]["AGE"]'),
        ({"GRACEFUL_TIMEOUT": 0}, 'WSPBUS["GRACEFUL_TIMEOUT"]'),
        ({"USER": 2**32 - 1}, 'WSPBUS["USER"]'),
        ({"GROUP": 10**20}, 'WSPBUS["GROUP"]'),
    ],
)
def test_a_number_out_of_range_is_a_finding_of_its_own(raw, path):
    problem = only_problem(raw)
    assert (problem.id, problem.path) == ("E015", path)
    assert re.match("It takes a (name, or a |whole )?number", problem.hint)


@pytest.mark.parametrize(
    ("size", "bytes_"),
    [
        (1, 1),
        ("1", 1),
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("1.5GiB", 3 * 2**29),
        ("2KiB", 2048),
        ("2KB", 2000),
        ("7B", 7),
        (None, None),
    ],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(size, bytes_):
    settings, problems = read(of_server(RECYCLE={"MEMORY": size}))
    assert problems == []
    assert settings.servers["default"].recycle.memory == bytes_


def test_an_unknown_key_of_recycle_is_named_with_the_nearest_known_one():
    problem = only_problem(of_server(RECYCLE={"REQUEST": 1}))
    assert (problem.id, problem.path) == ("E001", 'WSPBUS["SERVERS"]["default"]["RECYCLE"]["REQUEST"]')
    assert "'REQUESTS'" in problem.hint


# Addresses


@pytest.mark.parametrize(
    "bind",
    [
        *("8000", "localhost", ":", ":x", "host:-1", ":65536", "127.0.0.256:80", "[::1]", "[::g]:80"),
        *(
            "::1:80",
            "a b:80",
            "unix:",
            "unix:relative.sock",
            f"unix:/{'x' * 107}",
            "systemd:",
            "http://host:80",
        ),
    ],
)
def test_an_address_that_cannot_be_bound_is_shown_with_the_forms_there_are(bind):
    problem = only_problem(of_server(BIND=["127.0.0.1:1", bind]))
    assert (problem.id, problem.path) == ("E003", 'WSPBUS["SERVERS"]["default"]["BIND"]')
    assert repr(bind) in problem.message
    assert '"unix:/run/site.sock"' in problem.hint


def test_a_port_out_of_range_says_its_range():
    assert "must be from 0 to 65535" in only_problem(of_server(BIND=":70000")).message


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:80 is bound by the server 'one' too."),
        (":80", "127.0.0.1:80", "127.0.0.1:80 is bound by the server 'one' too, as 0.0.0.0:80."),
        ("[::1]:80", "[::]:80", "[::]:80 is bound by the server 'one' too, as [::1]:80."),
        ("unix:/run/s", "unix:///run/s", "unix:/run/s is bound by the server 'one' too."),
        ("systemd", "systemd", "systemd is bound by the server 'one' too."),
    ],
)
def test_an_address_that_two_servers_share_names_both(one, two, expected):
    problem = only_problem({"SERVERS": {"one": {"BIND": one}, "two": {"BIND": two}}})
    assert (problem.id, problem.path) == ("E004", 'WSPBUS["SERVERS"]["two"]["BIND"]')
    assert problem.message == expected


def test_an_address_that_a_server_would_bind_twice_is_found():
    problem = only_problem(of_server(BIND=[":80", ":81", ":80"]))
    assert (problem.id, problem.message) == ("E004", "0.0.0.0:80 is bound twice here.")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        *((":80", ":81"), (":0", ":0"), ("127.0.0.1:80", "127.0.0.2:80"), ("127.0.0.1:80", "[::1]:80")),
        *(("unix:/run/a", "unix:/run/b"), ("systemd:a", "systemd:b"), ("systemd", "systemd:b")),
    ],
)
def test_addresses_that_can_be_bound_together_are_none_of_our_business(one, two):
    assert read({"SERVERS": {"one": {"BIND": one}, "two": {"BIND": two}}})[1] == []


@pytest.mark.parametrize(
    ("bind", "health"),
    [("127.0.0.1:80", "127.0.0.1:80"), (":80", "127.0.0.1:80"), ("unix:/run/s", "unix:///run/s")],
)
def test_an_address_that_the_probes_share_with_a_server_is_found_at_theirs(bind, health):
    problem = only_problem({"SERVERS": {"one": {}, "two": {"BIND": [":81", bind]}}, "HEALTH": health})
    assert (problem.id, problem.path) == ("E004", 'WSPBUS["HEALTH"]')
    assert problem.message.endswith(" is bound by the server 'two' too.")
    assert problem.hint == "The probes need an address of their own."


def test_an_address_that_the_probes_have_for_themselves_is_none_of_our_business():
    servers = {"one": {"BIND": [":80", "127.0.0.1:0"]}, "two": {"BIND": "unix:/run/s"}}
    assert read({"SERVERS": servers, "HEALTH": "127.0.0.1:81"})[1] == []
    assert read({"SERVERS": servers, "HEALTH": "127.0.0.1:0"})[1] == []


# Seconds


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"DRAIN_DELAY": 5, "STOP_TIMEOUT": 5}, "got 5, and STOP_TIMEOUT is 5, of which it is a part."),
        ({"DRAIN_DELAY": 26}, "got 26, and STOP_TIMEOUT is 25, of which it is a part."),
    ],
)
def test_a_delay_that_leaves_no_time_to_stop_is_found(raw, expected):
    problem = only_problem(raw)
    assert (problem.id, problem.path, problem.message) == ("E015", 'WSPBUS["DRAIN_DELAY"]', expected)
    assert problem.hint == "It takes fewer seconds than STOP_TIMEOUT."


def test_a_delay_that_leaves_time_to_stop_is_taken():
    settings, problems = read({"SERVERS": {"default": {}}, "DRAIN_DELAY": 4.9, "STOP_TIMEOUT": 5})
    assert problems == []
    assert (settings.drain_delay, settings.stop_timeout) == (4.9, 5)


def test_wrong_numbers_of_seconds_give_no_further_findings():
    assert only_problem({"STOP_TIMEOUT": "5", "DRAIN_DELAY": 26}).path == 'WSPBUS["STOP_TIMEOUT"]'
    assert only_problem({"STOP_TIMEOUT": 1, "DRAIN_DELAY": "5"}).path == 'WSPBUS["DRAIN_DELAY"]'


# Signals


@pytest.mark.parametrize(
    ("name", "id", "expected"),
    [
        ("SIGHUB", "E007", "'SIGHUP'"),
        ("hup", "E007", "'SIGHUP'"),
        ("SOMETHING_ELSE", "E007", None),
        (1, "E007", None),
        ("SIGKILL", "E008", None),
        ("SIGSTOP", "E008", None),
    ],
)
def test_a_signal_that_is_unknown_or_cannot_be_caught(name, id, expected):  # noqa: A002
    problem = only_problem({"SIGNALS": {name: "exit"}})
    assert problem.id == id
    assert problem.path == 'WSPBUS["SIGNALS"]' + ("[1]" if name == 1 else f'["{name}"]')
    assert problem.hint == (expected and f"Did you mean {expected}?")


# A daemon does not reload


@pytest.mark.parametrize("value", [True, {"EXTRA_FILES": []}])
def test_a_daemon_with_autoreload_is_an_error(value):
    problem = only_problem({"AUTORELOAD": value, "DAEMONIZE": True})
    assert (problem.id, problem.path, problem.is_error) == ("E018", 'WSPBUS["AUTORELOAD"]', True)


@pytest.mark.parametrize("autoreload", [None, False])
def test_a_daemon_under_debug_does_not_reload(autoreload):
    raw = {"SERVERS": {"default": {}}, "AUTORELOAD": autoreload, "DAEMONIZE": True}
    settings, problems = read(raw, debug=True)
    assert (settings.autoreload, problems) == (None, [])


# All at once, whatever comes


def test_all_that_is_wrong_is_found_at_once():
    _, problems = read(
        {
            "SERVERS": {"one": {"BIND": "x"}, "two": {"BACKEND": "y", "OPTION": {}}},
            "PIDFILE": 1,
            "SIGNALS": {"SIGKILL": "exit"},
            "UMASK": "8",
        }
    )
    assert sorted(problem.id for problem in problems) == ["E001", "E002", "E002", "E002", "E003", "E008"]


@pytest.mark.parametrize("value", NOTHING_OF_THE_SORT, ids=lambda value: repr(value).partition(" at ")[0])
def test_any_value_at_any_key_gives_settings_or_errors_with_the_path_of_that_key(value):
    for key in keys_of(conf.Settings):
        expect_settings_or_errors({"SERVERS": {"default": {}}, key.name: value}, f'WSPBUS["{key.name}"]')
    for section, path in (("DAEMONIZE", "daemonize"), ("AUTORELOAD", "autoreload")):
        for key in keys_of(getattr(conf, path.capitalize())):
            raw = {"SERVERS": {"default": {}}, section: {key.name: value}}
            expect_settings_or_errors(raw, f'WSPBUS["{section}"]["{key.name}"]')
    for key in keys_of(conf.ServerSettings):
        expect_settings_or_errors(
            of_server(**{key.name: value}), f'WSPBUS["SERVERS"]["default"]["{key.name}"]'
        )


def expect_settings_or_errors(raw, path):
    settings, problems = read(raw)
    assert (settings is None) is any(problem.is_error for problem in problems)
    assert all(problem.path.startswith(path) for problem in problems), problems


# What is right


def test_values_are_read_in_the_forms_there_are():
    settings, problems = read(
        {
            "SERVERS": {"default": {"BIND": [":80", "unix:/run/s"], "MOUNTS": {"/x": "a.b"}}},
            "SIGNALS": {"SIGHUP": None, "SIGUSR2": "shop.reload"},
            "DAEMONIZE": {"STDOUT": "out.log"},
            "PIDFILE": Path("run/site.pid"),
            "USER": "www-data",
            "GROUP": 33,
            "UMASK": "027",
            "PLUGINS": ({"BACKEND": SHOP},),
            "CONTROL": "/run/site.control",
        }
    )
    assert problems == []
    assert [str(address) for address in settings.servers["default"].bind] == ["0.0.0.0:80", "unix:/run/s"]
    assert settings.servers["default"].mounts == {"/x": "a.b"}
    assert settings.signals == {"SIGHUP": None, "SIGUSR2": "shop.reload"}
    assert settings.daemonize == conf.Daemonize(stdout=Path("out.log"), stderr=None)
    assert settings.pidfile == Path("run/site.pid")
    assert (settings.user, settings.group, settings.umask) == ("www-data", 33, 0o27)
    assert settings.plugins == (conf.PluginSettings(backend=SHOP, options={}),)
    assert settings.control == Path("/run/site.control")


@pytest.mark.parametrize("value", [None, "left out"])
@pytest.mark.parametrize("debug", [True, False])
def test_autoreload_is_as_debug_unless_the_setting_says_otherwise(value, debug):
    raw = {"SERVERS": {"default": {}}}
    if value is None:
        raw["AUTORELOAD"] = None
    assert (read(raw, debug=debug)[0].autoreload is not None) is debug
    assert (read({**raw, "AUTORELOAD": not debug}, debug=debug)[0].autoreload is not None) is not debug


@pytest.mark.parametrize(
    ("raw", "read_as"),
    [(True, conf.Daemonize()), ({}, conf.Daemonize()), (False, None), (None, None)],
)
def test_daemonize_is_a_switch_or_says_where_output_goes(raw, read_as):
    assert read({"SERVERS": {"default": {}}, "DAEMONIZE": raw})[0].daemonize == read_as
