"""Every reason to replace a worker, with every kind of client that it has at that moment."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import Any

import pytest

from .clients import ask
from .conftest import Later, address_of, release
from .load import Shop, await_that
from .retirement import await_end, hanging, pid_of, serve, workers_of
from .steady import DRIPPING, KINDS

pytestmark = pytest.mark.extended

KEYS: dict[str, dict[str, Any]] = {
    "requests": {"RECYCLE": {"REQUESTS": 200}},  # more than the clients send before all have begun
    "memory": {"RECYCLE": {"MEMORY": "150MB"}},
    "age": {"RECYCLE": {"AGE": 5}},
    "timeout": {"REQUEST_TIMEOUT": 2},
}
FIRST_MEASUREMENT = 1.5
"""Seconds after which a worker has been seen below the limit of its memory, as it must have been."""


def provoke(reason: str, address: str, stack: ExitStack, shop: Shop, later: Later) -> int:
    """Give a worker a reason to retire; return its PID."""
    pid = pid_of(address)
    if reason == "requests":
        for _ in range(225):
            assert ask(address)[0] == 200
    elif reason == "memory":
        pid = int(ask(address, "/eat/")[1].split()[0])
    elif reason == "timeout":
        (pid,) = stack.enter_context(hanging(shop, later, address))
    return pid


@pytest.mark.parametrize("reason", KEYS)
@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_no_client_of_a_worker_notices_that_it_is_replaced(
    shop: Shop, later: Later, reason: str, worker_class: str
) -> None:
    if worker_class == "gevent":
        pytest.importorskip("gevent")
    serve(shop, threads=8, worker_class=worker_class, **KEYS[reason])
    shop.write("shop/urls.py", (shop.root / "shop/urls.py").read_text() + DRIPPING)
    with shop.serve("-v2") as site, ExitStack() as stack:
        address = address_of(site)
        if reason == "memory":
            time.sleep(FIRST_MEASUREMENT)
        clients = [kind(address) for kind in KINDS.values()]
        old = provoke(reason, address, stack, shop, later)
        assert {client.pid for client in clients if client.pid} == {old}
        site.wait_for_line(f"Worker {old} of the server 'default' retires")
        await_that(lambda: pid_of(address) != old)
        release(shop, "last")
        for client in clients:
            client.finish()
        await_end(old)
        stack.close()
        assert site.stop() == 0
        assert site.members() == []
    assert "requests lost" not in site.output
    assert "cut off" not in site.output


@pytest.mark.parametrize(
    ("client", "reason"),
    [*((client, "age") for client in KINDS), *(("stream", reason) for reason in KEYS if reason != "age")],
)
def test_a_sync_worker_finishes_its_one_client_while_its_successor_serves(
    shop: Shop, later: Later, client: str, reason: str
) -> None:
    workers = 2 if reason == "timeout" else 1  # one has the request that hangs
    serve(shop, workers=workers, worker_class="sync", **KEYS[reason])
    shop.write("shop/urls.py", (shop.root / "shop/urls.py").read_text() + DRIPPING)
    with shop.serve("-v2") as site, ExitStack() as stack:
        address = address_of(site)
        if reason == "memory":
            time.sleep(FIRST_MEASUREMENT)
        # Meanwhile the site replaces no worker, which might retire before the client has come to it.
        site.send(signal.SIGSTOP)
        try:
            old = provoke(reason, address, stack, shop, later)
            steady = KINDS[client](address)
        finally:
            site.send(signal.SIGCONT)
        site.wait_for_line(f"Worker {old} of the server 'default' retires")
        before = set(workers_of(address)) - {old}
        await_that(lambda: pid_of(address) != old)
        release(shop, "last")
        steady.finish()
        await_end(old)
        assert before & set(workers_of(address))
        stack.close()
        assert site.stop() == 0
        assert site.members() == []
    assert "requests lost" not in site.output.replace("GET /hang/", "")
