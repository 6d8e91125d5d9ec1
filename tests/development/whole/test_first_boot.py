"""``python -m django_wspbus runbus``: the very first boot on broken code; and what starts no launcher."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.processes import DEADLINE
from tests.projects import THREADED, reason_of
from tests.servers.conftest import Client, address_of
from tests.servers.load import await_that

from .broken import BREAKS, Mending, await_fixed, count_of, develop, ends_well, look, mend

MODULE = ("-m", "django_wspbus", "runbus")


def run(shop, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "django_wspbus", *arguments],
        cwd=shop.root,
        env=os.environ | shop.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def await_page(address, text):
    """Wait for the page on an address that is not bound yet."""

    def is_there():
        try:
            status, body = look(address)
        except ConnectionRefusedError:
            return False
        return status == 500 and text in body

    await_that(is_there)


@pytest.mark.parametrize(
    ("options", "has_manage"),
    [
        (["{port}"], True),
        (["--bind", "127.0.0.1:{port}"], False),
    ],
)
def test_broken_settings_are_shown_at_the_first_boot_and_mended_by_a_save(
    shop, free_port, options, has_manage
):
    if not has_manage:
        (shop.root / "manage.py").unlink()
    arguments = [option.format(port=free_port) for option in options]
    mending = Mending(shop)
    BREAKS["settings"].does(shop)
    address = f"127.0.0.1:{free_port}"
    with ends_well(shop.start(sys.executable, *MODULE, *arguments)) as site:
        await_page(address, "settings are broken")
        mend(shop, address, mending)
        assert count_of(site, BREAKS["settings"].said) == 1
        site.wait_for_line("^Quit with")  # the end of the banner, as it serves for the first time


def test_broken_code_is_shown_on_an_ipv6_address(shop, free_port):
    BREAKS["syntax of models"].does(shop)
    with shop.start(sys.executable, *MODULE, "-6", str(free_port)) as site:
        await_page(f"[::1]:{free_port}", "SyntaxError")
        assert site.stop(signal.SIGINT) == 0
        assert site.members() == []


def test_without_broken_code_it_is_what_manage_is(shop):
    with ends_well(shop.start(sys.executable, *MODULE)) as site:
        address = address_of(site)
        await_fixed(address, shop.deploy())


@pytest.mark.parametrize("option", ["--noreload", "--check"])
def test_what_does_not_reload_fails_as_manage_does(shop, option):
    BREAKS["settings"].does(shop)
    for result in (run(shop, "runbus", option), shop.run("runbus", option)):
        assert result.returncode == 1
        assert result.stderr.rstrip().endswith("RuntimeError: settings are broken")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "CommandError: 'nowhere' is not a valid port number or address:port pair."),
        (["--bind", "unix:site"], "'unix:site' lacks an absolute path"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_line_while_the_settings_are_broken(shop, arguments, reason):
    BREAKS["settings"].does(shop)
    result = run(shop, "runbus", *arguments)
    assert result.returncode in (1, 2)
    assert reason in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_an_address_in_use_is_named_in_a_line_while_the_settings_are_broken(shop, taken_port):
    BREAKS["settings"].does(shop)
    result = run(shop, "runbus", str(taken_port))
    assert result.returncode == 1
    assert "the address is in use by another process" in reason_of(result)


# Without DEBUG


UNKNOWN = {
    "DEBUG is False": ("DEBUG = False\nSECRET = {}['missing']\n", "KeyError: 'missing'"),
    "DEBUG is set later": ("DEBUG = True\nSECRET = {}['missing']\nDEBUG = False\n", "KeyError: 'missing'"),
    "DEBUG fails": ("DEBUG = {}['missing']\n", "KeyError: 'missing'"),
    "a syntax error": ("DEBUG = True\nA = [[\n", "SyntaxError: '[' was never closed"),
    "a library": (
        "DEBUG = True\nimport no_such_library\nfrom local import *\n",
        "No module named 'no_such_lib",
    ),
}


@pytest.mark.parametrize(
    "how",
    [
        "DEBUG is False",
        "DEBUG is set later",
        *(pytest.param(how, marks=pytest.mark.extended) for how in list(UNKNOWN)[2:]),
    ],
)
def test_while_it_is_not_certain_that_settings_say_debug_there_is_no_page(shop, how):
    text, reason = UNKNOWN[how]
    shop.write("settings.py", text)
    result = run(shop, "runbus")
    assert (result.returncode, result.stdout) == (1, "")
    assert reason in result.stderr
    assert "Traceback (most recent call last)" in result.stderr


@pytest.mark.extended
@pytest.mark.parametrize("broken", ["no settings module", "manage.py"])
def test_without_settings_there_is_no_page(shop, broken):
    if broken == "manage.py":
        shop.write("manage.py", "1 / 0\n")
    result = subprocess.run(
        [sys.executable, "-m", "django_wspbus", "runbus"],
        cwd=shop.root,
        env={**os.environ, **shop.environment, "DJANGO_SETTINGS_MODULE": "no_such_settings"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 1
    assert ("ZeroDivisionError" if broken == "manage.py" else "No module named 'no_such_set") in result.stderr


@pytest.mark.extended
def test_an_edit_that_breaks_the_settings_before_debug_is_shown_to_this_machine_alone(shop):
    with ends_well(shop.serve()) as site:
        address = address_of(site)
        shop.write("settings.py", "SECRET = {}['missing']\n")
        await_page(address, "KeyError: 'missing'")
        port = address.rpartition(":")[2]
        for host, status in (("evil.example", 500), (f"localhost:{port}", 500)):
            # The project allows all hosts: what it allowed last still counts.
            assert status_for(address, host)[0] == status
    shop.configure(DEBUG=True, ALLOWED_HOSTS=[], WSPBUS={"SERVERS": {"default": THREADED}})
    with ends_well(shop.serve()) as site:
        address = address_of(site)
        BREAKS["import of urls"].does(shop)
        await_page(address, "urls are broken")
        status, body = status_for(address, "evil.example")
        assert status == 400
        assert "urls" not in body
        assert status_for(address, f"localhost:{address.rpartition(':')[2]}")[0] == 500


def status_for(address, host):
    """Return the status and the body of an answer to a client that asks for a host."""
    with contextlib.closing(Client(address)) as client:
        client.request("GET", "/", headers={"Host": host})
        response = client.getresponse()
        return response.status, response.read().decode()


@pytest.mark.parametrize("when", ["first", pytest.param("later", marks=pytest.mark.extended)])
def test_without_debug_clients_do_not_see_the_reason(shop, free_port, when):
    shop.configure(DEBUG=False, WSPBUS={"SERVERS": {"default": THREADED}, "AUTORELOAD": True})
    broken = BREAKS["start listener of the site"]
    if when == "first":
        broken.does(shop)
    with ends_well(shop.serve(str(free_port))) as site:
        address = f"127.0.0.1:{free_port}"
        if when == "later":
            address_of(site)
            broken.does(shop)
        await_page(address, "The site does not start at present; the reason is in its terminal.")
        for accept in ("text/html", "application/json", "*/*"):
            body = look(address, accept)[1]
            assert "the site is broken" not in body
            assert "Traceback" not in body
        await_that(lambda: count_of(site, broken.said) > 0)
    assert count_of(site, broken.said) == 1


# No launcher


@pytest.mark.parametrize("how", ["--noreload", "setting"])
def test_without_autoreload_the_process_itself_is_the_site(shop, how):
    if how == "setting":
        develop(shop, AUTORELOAD=False)
    with shop.serve(*(["--noreload"] if how == "--noreload" else [])) as site:
        address = address_of(site)
        assert f'"pid": {site.pid},' in look(address)[1]
        children = psutil.Process(site.pid).children()
        assert [each for each in children if not any("guard" in part for part in each.cmdline())] == []
        assert site.stop() == 0


def test_check_starts_no_launcher(shop):
    result = shop.run("runbus", "--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_program_that_is_no_file_is_refused(shop):
    program = "import django; django.setup(); from django.core.management import call_command as call; "
    program += "call('runbus')"
    result = subprocess.run(
        [sys.executable, "-"],
        cwd=shop.root,
        env=os.environ | shop.environment,
        input=program,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "django.core.management.base.CommandError: The command of the site cannot be run again: "
        "Python read it from standard input. Write it to a file."
    )
