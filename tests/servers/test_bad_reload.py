"""A reload of code that cannot serve: the old code answers every request, and the next good one works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import GUNICORN, KINDS, address_of, configure
from .faults import (
    EXCEPTION,
    FAULTS,
    Fault,
    Serving,
    broken,
    fail_and_recover,
    give_up_what_hangs,
    rows,
    serve,
)
from .load import Shop, attempt, await_value, pids

FIRST = ("views-exception", "warmup-503")
WRONG = {
    "settings-wrong": Fault("settings.py", "\nWSPBUS['NO_SUCH'] = 1\n", "E001", False),
    **{name: FAULTS[name] for name in FIRST},
    **FAULTS,
}
OF_WORKERS = ("urls-syntax", "models-exit", "start-exit", "warmup-exception")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults."""
    with serve(tmp_path_factory.mktemp("shop"), KINDS["gthread"]) as serving:
        yield serving


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site whose workers import the project by themselves."""
    server = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, "preload_app": False}}
    with serve(tmp_path_factory.mktemp("shop"), server) as serving:
        yield serving


@pytest.mark.parametrize("name", rows(WRONG, 1 + len(FIRST)))
def test_the_old_code_answers_on_and_the_next_good_reload_works(serving: Serving, name: str) -> None:
    fail_and_recover(serving, WRONG[name], method="graceful")


@pytest.mark.extended
@pytest.mark.parametrize("name", OF_WORKERS)
def test_what_each_worker_imports_by_itself_is_reported_once(lazy: Serving, name: str) -> None:
    fail_and_recover(lazy, WRONG[name], method="graceful")


@pytest.mark.extended
def test_a_boot_that_hangs_is_given_up_in_time(shop: Shop) -> None:
    configure(shop, {"default": KINDS["gthread"]}, READY_TIMEOUT=10)
    with shop.serve("-v2") as site:
        give_up_what_hangs(site, shop, address_of(site), "graceful")
        assert site.stop() == 0


@pytest.mark.extended
def test_what_a_boot_has_started_before_it_failed_is_gone_with_it(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    helper = Fault(
        "shop/models.py",
        f"\nimport subprocess\n\nsubprocess.Popen(['sleep', '60']){EXCEPTION}",
        "RuntimeError: broken on purpose",
    )
    with shop.serve("-v2") as site:
        address = address_of(site)
        before = pids(site)
        for method in ("graceful", "restart"):
            with broken(shop, helper):
                assert helper.reason in attempt(address, method)["error"]
            await_value(lambda: pids(site), before)
        assert site.stop() == 0
