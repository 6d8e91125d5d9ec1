"""What ``runserver`` gives, up to where a site would start."""

from __future__ import annotations

import io
import logging
import os
import socket

import pytest
from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import color_style
from django.utils.log import ServerFormatter
from django.utils.module_loading import import_string

from django_wspbus.conf.addrport import parse_addrport
from django_wspbus.development import runserver

from ..runbus.test_options import GUNICORN, THREADED, read, refused

ONE = {"SERVERS": {"default": {"BACKEND": THREADED, "BIND": ":80"}}}
TWO = {"SERVERS": {"public": {"BACKEND": THREADED}, "intern": {"BACKEND": GUNICORN, "BIND": ":81"}}}


@pytest.fixture(autouse=True)
def one_server(settings):
    settings.DEBUG = False
    settings.WSPBUS = ONE


# Which address


def resolver(addresses):
    """Return what resolves these names to IPv6 addresses, and no others."""

    def resolve(host, port, family, kind):
        if host not in addresses:
            raise socket.gaierror(-2, "Name or service not known")
        assert family == socket.AF_INET6
        return [(family, kind, 6, "", (addresses[host], 0, 0, 0))]

    return resolve


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        (["--ipv6"], "[::1]:8000"),
        (["-6", "8080"], "[::1]:8080"),
        (["-6", "[::]:8080"], "[::]:8080"),
        (["-6", "[2001:db8::1]:80"], "[2001:db8::1]:80"),
        (["-6", "shop.example:80"], "[2001:db8::2]:80"),
    ],
    ids=" ".join,
)
def test_ipv6_means_what_it_means_to_runserver(arguments, bound, monkeypatch):
    # No name of this machine need have an IPv6 address.
    monkeypatch.setattr("socket.getaddrinfo", resolver({"shop.example": "2001:db8::2"}))
    assert read(*arguments)["SERVERS"]["default"]["BIND"] == [bound]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "0"])
def test_an_ipv4_address_is_refused_with_ipv6(host):
    assert refused("--ipv6", f"{host}:80") == (
        f"--ipv6: {host!r} is not a valid IPv6 address: give one in brackets, like [::1]."
    )


@pytest.mark.parametrize("host", ["unknown.example", "a..b"])
def test_a_name_without_an_ipv6_address_is_an_error(host, monkeypatch):
    if "unknown" in host:
        monkeypatch.setattr("socket.getaddrinfo", resolver({}))
    assert refused("--ipv6", f"{host}:80").startswith(f"--ipv6: the host {host!r} has no IPv6 address (")


def test_a_python_without_ipv6_says_so(monkeypatch):
    monkeypatch.setattr("socket.has_ipv6", False)
    with pytest.raises(CommandError, match="your Python does not support IPv6"):
        parse_addrport("8000", use_ipv6=True)


@pytest.mark.parametrize("argument", ["", "x", "[::1]", "::1:80", "127.0.0.1"])
def test_what_is_no_address_is_none_with_ipv6_either(argument):
    assert refused("-6", argument) == f"{argument!r} is not a valid port number or address:port pair."


@pytest.mark.parametrize("argument", ["70000", "[::g]:80"])
def test_an_address_of_ipv6_that_cannot_be_bound_is_named_as_the_argument(argument):
    assert refused("-6", argument).startswith("address:port: ")


def test_bind_says_itself_whether_it_is_of_ipv6():
    assert refused("-6", "--bind", "[::1]:80") == "--bind and --ipv6 mean the same: give one of them."
    assert refused("-6", "80", "--bind", "[::1]:80") == (
        "--bind and an address:port argument mean the same: give one of them."
    )


@pytest.mark.parametrize("option", ["--ipv6", "--nothreading"])
def test_what_speaks_of_one_server_is_an_error_where_there_are_several(settings, option):
    settings.WSPBUS = TWO
    assert refused(option) == (
        f"{option} applies to one server, and WSPBUS has several: add --server, one of 'public', 'intern'."
    )
    assert list(read(option, "--server", "public")["SERVERS"]) == ["public"]


# Other options


def test_nothreading_is_an_option_of_the_threaded_server():
    assert read("--nothreading")["SERVERS"]["default"]["OPTIONS"] == {"threading": False}
    assert read()["SERVERS"]["default"]["OPTIONS"] == {}


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ([], None, None),
        ([], True, True),
        (["--nostatic"], True, False),
        (["--insecure"], False, True),
        (["--insecure", "--nostatic"], None, False),
    ],
    ids=str,
)
def test_options_for_static_files_go_before_the_setting(settings, options, setting, value):
    settings.WSPBUS = {**ONE, "STATIC_FILES": setting}
    assert read(*options)["STATIC_FILES"] is value


@pytest.mark.parametrize("option", ["--nostatic", "--insecure"])
def test_without_the_app_that_finds_static_files_its_options_are_mistakes(settings, option):
    settings.INSTALLED_APPS = ["django_wspbus"]
    assert refused(option) == (
        f"{option}: this option needs django.contrib.staticfiles, which is not in INSTALLED_APPS."
    )


# What is said


def test_nothing_is_checked_without_debug_or_where_checks_are_skipped(settings):
    command = BaseCommand(stdout=io.StringIO(), stderr=io.StringIO())
    for settings.DEBUG, skip_checks in ((False, False), (True, True)):
        options = {"skip_checks": skip_checks, "verbosity": 1}
        runserver.prepare(command, options)
        runserver.check_in_dry_run(command, options)
    assert command.stdout.getvalue() == command.stderr.getvalue() == ""


def test_any_failure_to_look_at_the_migrations_is_a_line(monkeypatch):
    def fail(self):
        raise ImportError("one line\n    and another")

    monkeypatch.setattr(BaseCommand, "check_migrations", fail)
    output = io.StringIO()
    runserver.check_migrations(BaseCommand(stdout=output, no_color=True))
    assert output.getvalue() == "The migrations were not checked: ImportError: one line and another\n"


def test_colours_are_disabled_in_the_formatters_of_request_lines_and_in_no_other(monkeypatch):
    monkeypatch.setenv("DJANGO_COLORS", "light")
    formatter = ServerFormatter("{message}", style="{")
    formatter.style = color_style(force_color=True)
    logger = logging.getLogger("django.server")
    handlers = [logging.NullHandler(), logging.NullHandler(), logging.NullHandler()]
    handlers[0].setFormatter(logging.Formatter())
    handlers[1].setFormatter(formatter)
    monkeypatch.setattr(logger, "handlers", handlers)
    record = logging.makeLogRecord({"msg": "GET", "status_code": 404})
    assert "\x1b" in formatter.format(record)

    runserver.disable_colours()
    record = logging.makeLogRecord({"msg": "GET", "status_code": 404})
    assert formatter.format(record) == "GET"
    assert os.environ["DJANGO_COLORS"] == "nocolor"


@pytest.mark.parametrize(
    "kinds", [[THREADED], [GUNICORN, THREADED], [GUNICORN]], ids=["threaded", "both", "gunicorn"]
)
def test_only_with_djangos_server_there_is_a_warning(kinds):
    warns = any(import_string(kind).is_for_development for kind in kinds)
    lines = list(runserver.frame(["the banner"], BaseCommand(), warns=warns))
    assert lines[1] == "the banner"
    assert any("WARNING" in line for line in lines) == (THREADED in kinds)
