"""What the launcher holds for a site: its sockets, over edits of the settings, and its standard streams."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from tests.processes import DEADLINE
from tests.projects import GUNICORN, THREADED, reason_of
from tests.servers.conftest import address_of, is_free
from tests.servers.load import addresses_of, await_that
from tests.sockets.test_systemd import PASS

from .broken import (
    BREAKS,
    Mending,
    await_error,
    await_fixed,
    break_and_mend,
    ends_well,
    mend,
    never_refused,
    without_spare,
)


def serve_on(shop, **binds):
    """Write settings with threaded servers: alias -> BIND."""
    without_spare(shop, {alias: {**THREADED, "BIND": bind} for alias, bind in binds.items()})


@pytest.mark.extended
def test_the_file_of_a_unix_socket_stays_until_the_end(shop, tmp_path):
    path = tmp_path / "site.sock"
    address = f"unix:{path}"
    serve_on(shop, default=address)
    with ends_well(shop.serve()) as site:
        address_of(site)
        inode = path.stat().st_ino
        with never_refused(address):
            break_and_mend(shop, address)
        assert path.stat().st_ino == inode
    assert not path.exists()


@pytest.mark.extended
def test_it_is_removed_at_the_end_also_while_the_code_is_broken(shop, tmp_path):
    path = tmp_path / "site.sock"
    serve_on(shop, default=f"unix:{path}")
    with ends_well(shop.serve()) as site:
        address_of(site)
        BREAKS["settings"].does(shop)
        await_error(f"unix:{path}", "settings are broken")
    assert not path.exists()


def test_it_is_removed_by_a_site_whose_launcher_was_killed(shop, tmp_path):
    path = tmp_path / "site.sock"
    serve_on(shop, default=f"unix:{path}")
    with shop.serve() as site:
        address_of(site)
        site.process.kill()
        await_that(lambda: site.members() == [])
        assert not path.exists()


@pytest.mark.extended
def test_several_addresses_and_servers_are_held(shop):
    servers = {
        "default": {**GUNICORN, "BIND": ["127.0.0.1:0", "[::1]:0"]},
        "threaded": {**THREADED, "BIND": ["127.0.0.1:0"]},
    }
    without_spare(shop, servers, HEALTH="127.0.0.1:0", PIDFILE="site.pid")
    with ends_well(shop.serve()) as site:
        addresses = [*addresses_of(site), *addresses_of(site, "threaded")]
        assert len(addresses) == 3
        probes = site.wait_for_line(r"^  probes +(http://\S+) ")[1]
        with contextlib.ExitStack() as stack:
            for address in addresses:
                stack.enter_context(never_refused(address))
            break_and_mend(shop, addresses[1])
        pid = int((shop.root / "site.pid").read_text())
        assert pid != site.pid
        with urllib.request.urlopen(probes, timeout=DEADLINE) as answer:
            assert answer.status == 200
    assert not (shop.root / "site.pid").exists()


@pytest.mark.extended
def test_an_edit_may_name_an_address_that_is_taken_and_the_old_one_shows_that(shop, taken_port):
    with ends_well(shop.serve()) as site:
        address = address_of(site)
        mending = Mending(shop)
        serve_on(shop, default=f"127.0.0.1:{taken_port}")
        await_error(address, "the address is in use by another process")
        mend(shop, address, mending)


@pytest.mark.extended
def test_an_edit_may_rename_add_move_and_remove_servers(shop, free_port, tmp_path):
    address, path = f"127.0.0.1:{free_port}", tmp_path / "more.sock"
    serve_on(shop, one=address)
    with ends_well(shop.serve()) as site:
        address_of(site, "one")

        def edit(url, **binds):
            version = shop.deploy()
            serve_on(shop, **binds)
            await_that(lambda: not is_free(url))
            await_fixed(url, version)

        with never_refused(address):
            edit(address, two=address)
            edit(f"unix:{path}", two=address, three=f"unix:{path}")
        edit(f"unix:{path}", three=f"unix:{path}")
        await_that(lambda: is_free(address))
        edit(address, three=address)
        await_that(lambda: not path.exists())


@pytest.mark.extended
def test_sockets_of_systemd_are_served_by_each_site_and_by_the_page(shop):
    serve_on(shop, default="systemd")
    shop.write("pass.py", PASS)
    with ends_well(shop.start("pass.py", "listening", "", "own", shop.manage, "runbus")) as site:
        address = f"127.0.0.1:{site.wait_for_line(r'^port (.+)')[1]}"
        await_fixed(address, shop.version)
        with never_refused(address):
            break_and_mend(shop, address)


def test_an_address_in_use_is_named_in_a_sentence(shop, taken_port):
    serve_on(shop, default=f"127.0.0.1:{taken_port}")
    result = shop.run("runbus")
    assert result.returncode == 1
    assert reason_of(result) == (
        f"CommandError: The server 'default' cannot listen on 127.0.0.1:{taken_port}: "
        "the address is in use by another process."
    )


@pytest.mark.extended
def test_it_serves_without_input_and_output(shop, free_port):
    serve_on(shop, default=f"127.0.0.1:{free_port}")
    program = "import os, sys\nos.closerange(0, 3)\n"
    program += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    address = f"127.0.0.1:{free_port}"
    with ends_well(shop.start(sys.executable, "-c", program, shop.manage, "runbus")):
        await_that(lambda: not is_free(address))
        break_and_mend(shop, address)


@pytest.mark.extended
def test_it_serves_on_when_the_reader_of_its_output_ends(shop, free_port):
    serve_on(shop, default=f"127.0.0.1:{free_port}")
    address = f"127.0.0.1:{free_port}"
    reader, writer = os.pipe()
    program = "import os, sys\nos.dup2(int(sys.argv[1]), 1)\nos.dup2(1, 2)\nos.close(int(sys.argv[1]))\n"
    program += "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    command = [sys.executable, "-c", program, str(writer), shop.manage, "runbus"]
    environment = os.environ | shop.environment
    process = subprocess.Popen(
        command, cwd=shop.root, env=environment, pass_fds=[writer], start_new_session=True
    )
    try:
        os.close(writer)
        assert os.read(reader, 10)
        os.close(reader)
        await_that(lambda: not is_free(address))
        break_and_mend(shop, address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.extended
def test_with_few_descriptors_left_it_keeps_what_it_holds(shop):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))\n"
    shop.write(
        "few.py", f"{limit}import os, sys\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    with ends_well(shop.start("few.py", shop.manage, "runbus")) as site:
        address = address_of(site)
        host, _, port = address.rpartition(":")
        clients = [socket.create_connection((host, int(port)), timeout=DEADLINE) for _ in range(60)]
        shop.deploy()
        for client in clients[:45]:  # with all of them, the site cannot even read its files
            client.close()
        site.wait_for_line("^Serving again")
        for client in clients[45:]:
            client.close()
        await_fixed(address, shop.version)
        break_and_mend(shop, address)
