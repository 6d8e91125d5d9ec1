"""What the options of ``runbus`` mean, up to where a site would start."""

from __future__ import annotations

import io
import json
from collections import defaultdict

import pytest
from django.core.management import CommandError, call_command

from django_wspbus import conf
from django_wspbus.conf.keys import keys_of

GUNICORN = "django_wspbus.servers.gunicorn.GunicornServer"
THREADED = "django_wspbus.servers.threaded.ThreadedServer"
ONE = {"SERVERS": {"default": {"BACKEND": GUNICORN, "BIND": ":80", "OPTIONS": {"workers": 1, "threads": 2}}}}
TWO = {"SERVERS": {"public": {"BIND": ":80"}, "intern": {"BACKEND": THREADED, "BIND": ":81"}}}


def nested():
    return defaultdict(nested)


def plain(value):
    return {key: plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def tell(*arguments):
    """Return what ``runbus --print-settings`` prints."""
    output = io.StringIO()
    call_command("runbus", *arguments, "--print-settings", stdout=output)
    return output.getvalue()


def read(*arguments):
    """Return the settings in force as a dict, as ``runbus --print-settings`` prints them."""
    names = {"WSPBUS": nested()}
    exec(tell(*arguments), names)
    return plain(names["WSPBUS"])


def refused(*arguments):
    """Return why ``runbus`` does not start."""
    with pytest.raises(CommandError) as caught:
        call_command("runbus", *arguments, "--check")
    assert caught.value.returncode == 1
    return str(caught.value)


@pytest.fixture(autouse=True)
def one_server(settings):
    settings.DEBUG = False
    settings.WSPBUS = ONE


# Which address


@pytest.mark.parametrize(
    ("argument", "bound"),
    [
        ("8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("0:8000", "0.0.0.0:8000"),
        ("[::1]:8080", "[::1]:8080"),
        ("localhost:8000", "localhost:8000"),
        ("example.org:80", "example.org:80"),
    ],
)
def test_an_address_means_what_it_means_to_runserver(argument, bound):
    assert read(argument)["SERVERS"]["default"]["BIND"] == [bound]


@pytest.mark.parametrize("argument", ["x", "host:", "::1:80", "[::1]", "127.0.0.1"])
def test_an_invalid_address_has_the_message_of_runserver(argument):
    assert refused(argument) == f"{argument!r} is not a valid port number or address:port pair."


@pytest.mark.parametrize("argument", ["70000", "127.0.0.256:80", "[::g]:80", "a b:80"])
def test_an_address_that_cannot_be_bound_is_named_as_the_argument(argument):
    assert refused(argument).startswith("address:port: ")
    assert "(django_wspbus.E003)" in refused(argument)


def test_bind_takes_every_form_of_the_setting_and_may_be_repeated():
    binds = ["127.0.0.1:1", "unix:/tmp/site.sock", "systemd:web"]
    arguments = [argument for bind in binds for argument in ("--bind", bind)]
    assert read(*arguments)["SERVERS"]["default"]["BIND"] == binds


def test_a_wrong_bind_names_the_option():
    assert refused("--bind", "x").startswith("--bind: 'x' is not an address.")


def test_two_ways_to_name_the_address_are_one_too_many():
    assert refused("8080", "--bind", ":80") == (
        "--bind and an address:port argument mean the same: give one of them."
    )


# The others


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--noreload"], "AUTORELOAD", False),
        (["--insecure"], "STATIC_FILES", True),
        (["--nostatic"], "STATIC_FILES", False),
        (["--insecure", "--nostatic"], "STATIC_FILES", False),
        (["--daemonize"], "DAEMONIZE", {"STDOUT": None, "STDERR": None}),
        (["--pidfile", "site.pid"], "PIDFILE", "site.pid"),
        (["--user", "root"], "USER", "root"),
        (["--user", "0"], "USER", 0),
        (["--group", "0"], "GROUP", 0),
        (["--umask", "27"], "UMASK", "027"),
    ],
    ids=str,
)
def test_an_option_goes_before_the_setting(settings, arguments, key, value, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)  # root may name any user
    other = {"AUTORELOAD": True, "PIDFILE": "other", "USER": "other", "GROUP": "other", "UMASK": 0}
    settings.WSPBUS = {**ONE, **({key: other[key]} if key in other else {})}
    assert read(*arguments)[key] == value


def test_workers_and_threads_go_before_those_in_options_and_leave_the_rest(settings):
    settings.WSPBUS = {"SERVERS": {"default": {"OPTIONS": {"workers": 1, "threads": 2, "timeout": 9}}}}
    options = read("--workers", "4")["SERVERS"]["default"]["OPTIONS"]
    assert (options["workers"], options["threads"], options["timeout"]) == (4, 2, 9)
    options = read("--threads", "8")["SERVERS"]["default"]["OPTIONS"]
    assert (options["workers"], options["threads"], options["timeout"]) == (1, 8, 9)


def test_daemonize_keeps_the_files_of_the_setting(settings):
    settings.WSPBUS = {**ONE, "DAEMONIZE": {"STDOUT": "out.log"}}
    assert read("--daemonize")["DAEMONIZE"] == {"STDOUT": "out.log", "STDERR": None}


def test_options_work_without_any_setting(settings):
    del settings.WSPBUS
    for settings.DEBUG, backend in ((True, THREADED), (False, GUNICORN)):
        server = read("8080", "--server", "default")["SERVERS"]["default"]
        assert (server["BACKEND"], server["BIND"]) == (backend, ["127.0.0.1:8080"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workers=-1"], "--workers: "),
        (["--umask", "9"], "--umask: got '9'. It takes a number from 0 to 0o777"),
        (["--umask", "1000"], "--umask: got 0o1000."),
        (["--pidfile", ""], "--pidfile: got ''. It takes a path"),
        (["--pidfile", "/nowhere/site.pid"], "--pidfile: there is no directory '/nowhere'."),
        (["--user", "no-such-user"], "--user: there is no user 'no-such-user' on this machine."),
        (["--group", "no-such-group"], "--group: there is no group 'no-such-group' on this machine."),
    ],
    ids=str,
)
def test_the_message_of_a_wrong_option_is_one_line_and_names_the_option(arguments, expected):
    reason = refused(*arguments)
    assert reason.startswith(expected)
    assert len(reason.splitlines()) == 1


def test_the_message_of_an_option_that_the_server_does_not_know_names_the_option(settings):
    settings.WSPBUS = {"SERVERS": {"default": {"BACKEND": THREADED}}}
    assert refused("--threads", "4").startswith("--threads: the threaded server has no option 'threads'.")


def test_nothreading_is_an_option_of_djangos_own_server():
    assert refused("--nothreading") == (
        "--nothreading: this option is of Django's own server. "
        'With {"workers": 1, "threads": 1} gunicorn answers one request at a time. (django_wspbus.E012)'
    )


# Several servers


@pytest.mark.parametrize(
    "arguments",
    [["8080"], ["--bind", ":80"], ["--workers", "2"], ["--threads", "2"]],
    ids=lambda each: each[0],
)
def test_what_speaks_of_one_server_is_an_error_where_there_are_several(settings, arguments):
    settings.WSPBUS = TWO
    option = arguments[0] if arguments[0].startswith("--") else "address:port"
    assert refused(*arguments) == (
        f"{option} applies to one server, and WSPBUS has several: add --server, one of 'public', 'intern'."
    )


def test_server_chooses_one_and_leaves_the_other_out(settings):
    settings.WSPBUS = TWO
    values = read("--server", "public", "8080", "--workers", "3")
    assert list(values["SERVERS"]) == ["public"]
    assert values["SERVERS"]["public"]["BIND"] == ["127.0.0.1:8080"]
    assert values["SERVERS"]["public"]["OPTIONS"]["workers"] == 3
    assert list(read()["SERVERS"]) == ["public", "intern"]


def test_the_message_of_an_unknown_server_lists_the_known_ones(settings):
    settings.WSPBUS = TWO
    assert refused("--server", "other") == (
        "--server: there is no server 'other'. WSPBUS has 'public', 'intern'."
    )


# --print-settings and --check


@pytest.mark.parametrize(
    "either", [{"AUTORELOAD": {"EXTRA_FILES": ["a.md"]}}, {"DAEMONIZE": {"STDERR": "err.log"}}]
)
def test_every_effective_value_is_printed_as_python_that_gives_the_same_settings(settings, either):
    settings.WSPBUS = {
        **TWO,
        **either,
        "SIGNALS": {"SIGUSR2": None},
        "PIDFILE": "site.pid",
        "UMASK": 0o27,
        "PLUGINS": [{"BACKEND": "django_wspbus.plugins.signals.SignalHandler"}],
        "CONTROL": "control.sock",
    }
    before, printed = conf.get(), read()
    settings.WSPBUS = json.loads(json.dumps(printed))
    after = conf.get()
    fields = {key.field for key in keys_of(conf.Settings)}
    assert set(printed) == {field.upper() for field in fields}
    for field in fields - {"servers"}:
        assert getattr(after, field) == getattr(before, field), field
    for alias, server in before.servers.items():
        assert after.servers[alias].bind == server.bind
        assert after.servers[alias].backend == server.backend


def test_wrong_settings_are_not_printed_and_their_mistakes_are(settings):
    settings.WSPBUS = {**ONE, "PIDFILE": 1, "USERS": 2}
    with pytest.raises(CommandError) as caught:
        tell()
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "wspbus",
    [
        *([1], {"SERVERS": [1]}, {"SERVERS": {}}, {"SERVERS": {"default": [1]}}),
        {"SERVERS": {"default": {"OPTIONS": [1]}}},
    ],
)
def test_settings_of_a_wrong_shape_are_a_mistake_with_any_option(settings, wspbus):
    settings.WSPBUS = wspbus
    assert "(django_wspbus.E002)" in refused("--server", "default", "8080", "--workers", "2", "--daemonize")


def test_a_warning_is_shown_and_the_site_starts(settings):
    plugin = {"BACKEND": "tests.site.checks.test_backends.Small", "OPTIONS": {"size": 6}}
    settings.WSPBUS = {"SERVERS": {"default": {"BACKEND": THREADED}}, "PLUGINS": [plugin]}
    output, errors = io.StringIO(), io.StringIO()
    call_command("runbus", "--check", stdout=output, stderr=errors)
    assert "(shop.W001)" in errors.getvalue()
    assert output.getvalue() == "The settings are valid, and the applications of default load.\n"


def test_check_imports_the_applications(settings):
    settings.WSPBUS = {"SERVERS": {"default": {"BACKEND": THREADED, "APPLICATION": "nowhere.app"}}}
    assert 'WSPBUS["SERVERS"]["default"]["APPLICATION"]: \'nowhere.app\' does not import' in refused()


def test_check_shows_an_error_in_the_projects_code_with_its_place(settings, tmp_path, monkeypatch):
    (tmp_path / "broken_for_runbus.py").write_text("\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.WSPBUS = {"SERVERS": {"default": {"BACKEND": THREADED, "APPLICATION": "broken_for_runbus.app"}}}
    reason = refused()
    assert reason.startswith("The server 'default' did not start: its application does not load")
    assert "broken_for_runbus.py, line 2: ZeroDivisionError" in reason.partition("\n")[0]
    assert 'broken_for_runbus.py", line 2' in reason
    assert reason.endswith("ZeroDivisionError: division by zero")
