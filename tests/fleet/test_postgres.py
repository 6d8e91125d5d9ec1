"""The engine over PostgreSQL: its checks, transactions and fences, and its faults."""

from __future__ import annotations

import contextlib
import io
import secrets
from dataclasses import replace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, connections, transaction
from django.test import override_settings

from django_wspbus import conf
from django_wspbus.fleet.base import Member, Unavailable
from django_wspbus.fleet.engines import check_engine
from django_wspbus.fleet.local import LocalEngine
from django_wspbus.fleet.postgres import PostgresFleet
from django_wspbus.fleet.postgres.engine import chunks
from django_wspbus.process.leader import NotLeader

from ..engines import Pooler, PostgresServer, PostgresStandby
from ..processes import DEADLINE, free_port
from ..servers.load import await_that
from .conftest import ALIAS, APP, database
from .failing import TABLES
from .test_engines import receive

extended = pytest.mark.extended


@pytest.fixture
def engine(postgres_server):
    engine = PostgresFleet(f"shop-{secrets.token_hex(4)}", ALIAS, lease=1.5)
    yield engine
    engine.close()


@pytest.fixture
def notes(postgres_server, django_db_blocker):
    """A table of the project in the database of the fleet; a function returns what is in it."""
    with django_db_blocker.unblock():
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS notes (text text); TRUNCATE notes")

        def read():
            with connections[ALIAS].cursor() as cursor:
                cursor.execute("SELECT text FROM notes ORDER BY text")
                return [text for (text,) in cursor.fetchall()]

        yield read
        connections[ALIAS].close()


def write(text):
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (%s)", [text])


def check(settings, alias):
    """Return the problems of an engine: id and message."""
    backend = "django_wspbus.fleet.postgres.PostgresFleet"
    settings.WSPBUS = {
        "FLEET": {"NAME": "shop", "BACKEND": backend, "OPTIONS": {"database": alias, "lease": 3}}
    }
    return [(problem.id, problem.message) for problem in check_engine(conf.get().fleet)]


# The app


def test_the_migration_makes_the_tables_of_the_models_in_other_databases_too(
    settings, django_db_blocker, tmp_path
):
    # Not one in memory, which Django does not close.
    file = database("file", {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "db.sqlite3"})
    apps = override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, APP])
    with apps, file, django_db_blocker.unblock():
        call_command("migrate", "wspbus_fleet", database="file", verbosity=0)
        tables = connections["file"].introspection.table_names()
        output = io.StringIO()
        call_command("makemigrations", "wspbus_fleet", check=True, dry_run=True, stdout=output)
    assert "No changes detected" in output.getvalue()
    assert set(tables) == {*TABLES, "django_migrations"}


def test_chunks_fit_into_notifications_and_none_is_equal_to_another():
    parts = [*chunks("x" * 2**16), *chunks(""), *chunks("")]
    assert len(set(parts)) == len(parts) == 11
    assert max(map(len, parts)) <= 7999


# Transactions


@extended
def test_a_message_of_a_transaction_is_sent_with_its_commit(engine, notes):
    listener = engine.listen("m1")
    large = b"x" * engine.largest
    with transaction.atomic(ALIAS):
        engine.send_in_transaction([(None, b"1"), (None, b"1"), ("m1", large)], ALIAS)
        assert listener.receive(0.2) == []
    with transaction.atomic(ALIAS):
        engine.send_in_transaction([(None, b"2")], None)
        transaction.set_rollback(True, ALIAS)
    engine.send([(None, b"3")])

    assert receive(listener, 4) == [b"1", b"1", large, b"3"]
    listener.close()


@extended
def test_a_message_of_a_transaction_needs_one_of_the_database_of_the_fleet(engine, notes):
    with pytest.raises(transaction.TransactionManagementError, match=r"transaction\.atomic"):
        engine.send_in_transaction([(None, b"1")], ALIAS)
    with pytest.raises(ImproperlyConfigured, match="the database of the fleet, 'fleet', and not 'default'"):
        engine.send_in_transaction([(None, b"1")], "default")


def test_other_engines_have_no_messages_of_transactions():
    with pytest.raises(ImproperlyConfigured, match="on_commit=True"):
        LocalEngine().send_in_transaction([(None, b"1")], None)


# Fences


@extended
def test_while_a_fenced_transaction_runs_the_lease_can_be_renewed_and_not_taken(engine, notes):
    lease = engine.take("leader", None, "one")
    with engine.fence(lease.token, ALIAS):
        write("fenced")
        assert engine.take("leader", lease, "two") is None
        lease = engine.renew("leader", lease)
        assert lease.beat == 1
    assert notes() == ["fenced"]
    assert engine.take("leader", lease, "two").token > lease.token


@extended
def test_a_fence_rolls_back_what_fails(engine, notes):
    lease = engine.take("leader", None, "one")
    with engine.fence(lease.token, ALIAS):
        write("fenced")
        transaction.set_rollback(True, ALIAS)
    assert notes() == []


@extended
@pytest.mark.parametrize("loss", ["taken", "released", "wiped"])
def test_a_fence_refuses_a_token_that_is_not_that_of_the_leader(engine, notes, loss):
    lease = engine.take("leader", None, "one")
    if loss == "taken":
        engine.take("leader", lease, "two")
    elif loss == "released":
        engine.release("leader", lease)
    else:
        engine._execute("DELETE FROM wspbus_fleet_lease WHERE fleet = %(fleet)s")
    with pytest.raises(NotLeader, match=str(lease.token)), engine.fence(lease.token, ALIAS):
        write("fenced")
    assert notes() == []


@extended
def test_a_fence_needs_the_database_of_the_fleet(engine, postgres_server):
    with pytest.raises(ImproperlyConfigured, match="'default'"), engine.fence(1, "default"):
        pass


@extended
def test_a_fence_may_name_another_alias_of_the_database(engine, postgres_server, notes):
    lease = engine.take("leader", None, "one")
    with database("same", postgres_server.settings):
        with engine.fence(lease.token, "same"):
            assert engine.take("leader", lease, "two") is None
        assert engine.take("leader", lease, "two") is not None


@extended
def test_a_fence_holds_through_a_pooler(engine, postgres_server, notes):
    lease = engine.take("leader", None, "one")
    with Pooler(postgres_server, "transaction") as pooler, database("pooled", pooler.settings):
        pooler.start()
        with engine.fence(lease.token, "pooled"):
            assert engine.take("leader", lease, "two") is None
        listener = engine.listen("m1")
        with transaction.atomic("pooled"):
            engine.send_in_transaction([(None, b"1")], "pooled")
        assert listener.receive(DEADLINE) == [b"1"]
        listener.close()


@extended
def test_another_database_of_the_server_is_not_that_of_the_fleet(engine, postgres_server, notes):
    entry = {**postgres_server.settings, "NAME": "template1"}
    with database("other", entry), pytest.raises(ImproperlyConfigured), engine.fence(1, "other"):
        pass


@extended
def test_a_process_that_stops_within_a_fence_loses_its_transaction_after_a_lease(engine, notes, later):
    lease = engine.take("leader", None, "one")

    taken = []

    def wait_for_the_lease():
        await_that(lambda: taken.append(engine.take("leader", lease, "two")) or taken[-1] is not None)
        return taken[-1]

    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(DatabaseError, match="idle-in-transaction"))
        stack.enter_context(engine.fence(lease.token, ALIAS))
        write("fenced")
        assert later(wait_for_the_lease).result(DEADLINE).holder == "two"
        write("too late")
    connections[ALIAS].close()
    assert notes() == []


def test_the_engine_in_memory_runs_a_plain_transaction(db):
    with LocalEngine().fence(1, "default"):
        assert connections["default"].in_atomic_block


# Checks


@extended
def test_a_server_that_is_ready_passes(settings, postgres_server):
    assert check(settings, ALIAS) == []


@extended
def test_a_database_without_the_tables_is_found(settings, postgres_server):
    with database("empty", {**postgres_server.settings, "NAME": "template1"}):
        message = f"the database 'empty' has no table {', '.join(TABLES)}."
        assert check(settings, "empty") == [("E024", message)]


@extended
def test_a_router_that_keeps_the_tables_out_is_named(settings, postgres_server):
    class Router:
        def allow_migrate(self, db, app_label, **hints):
            return app_label != "wspbus_fleet"

    settings.DATABASE_ROUTERS = [Router()]
    check(settings, ALIAS)
    with database("empty", {**postgres_server.settings, "NAME": "template1"}):
        fleet = replace(conf.get().fleet, options={"database": "empty"})
        (problem,) = check_engine(fleet)
    assert (problem.id, "DATABASE_ROUTERS" in problem.hint) == ("E024", True)


@extended
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"USER": "locked", "PASSWORD": "wrong-7"}, 'password authentication failed for user "locked"'),
        ({"NAME": "missing"}, 'database "missing" does not exist'),
        ({"HOST": "localhost", "USER": "missing"}, 'role "missing" does not exist'),
        ({"OPTIONS": {"assume_role": "missing"}}, 'role "missing" does not exist'),
        ({"OPTIONS": {"service": "missing"}}, 'connection is bad: definition of service "missing" not found'),
        ({"OPTIONS": {"missing": "x"}}, 'invalid connection option "missing"'),
        ({"NAME": ""}, "settings.DATABASES is improperly configured"),
    ],
)
def test_a_connection_that_is_refused_is_an_error_of_one_sentence(settings, postgres_server, entry, reason):
    with database("refused", {**postgres_server.settings, **entry}):
        ((number, message),) = check(settings, "refused")
    assert number == "E025"
    assert message.startswith(f"the engine of the fleet refuses this site. PostgreSQL: {reason}")
    assert "wrong-7" not in message


@extended
def test_missing_privileges_are_found_and_those_that_the_docs_name_suffice(settings, postgres_server):
    postgres_server.query(
        "CREATE ROLE site LOGIN; GRANT SELECT, INSERT, UPDATE ON wspbus_fleet_lease TO site"
    )
    entry = {**postgres_server.settings, "OPTIONS": {"assume_role": "site"}}
    with database("restricted", entry):
        ((number, message),) = check(settings, "restricted")
        assert number == "E025"
        assert "DELETE on wspbus_fleet_lease, SELECT on wspbus_fleet_member" in message

        privileges = f"SELECT, INSERT, UPDATE, DELETE ON {', '.join(TABLES)}"
        postgres_server.query(f"GRANT {privileges} TO site")
        assert check(settings, "restricted") == []
        engine = PostgresFleet("restricted", "restricted")
        lease = engine.take("leader", None, "one")
        assert engine.renew("leader", lease)
        engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
        assert [member.id for member in engine.members()] == ["m1"]
        engine.close()


@extended
def test_a_pooler_that_drops_notifications_is_found(settings, postgres_server):
    with Pooler(postgres_server, "transaction") as pooler, database("pooled", pooler.settings):
        pooler.start()
        assert check(settings, "pooled") == [
            ("E026", "a notification does not arrive where a connection listens for it.")
        ]


@extended
def test_a_pooler_with_a_session_for_each_client_passes(settings, postgres_server):
    with Pooler(postgres_server, "session") as pooler, database("pooled", pooler.settings):
        pooler.start()
        assert check(settings, "pooled") == []


@extended
def test_options_of_the_database_are_kept(postgres_server):
    options = "-c search_path=nowhere -c idle_session_timeout=1000 -c statement_timeout=1"
    entry = {**postgres_server.settings, "OPTIONS": {"options": options, "pool": True}}
    with database("options", entry):
        engine = PostgresFleet("shop", "options", lease=3)
        with pytest.raises(Unavailable, match="does not exist"):
            engine.read("leader")
        assert engine._execute("SHOW statement_timeout") == [("800ms",)]
        assert engine._execute("SHOW idle_session_timeout") == [("0",)]
        engine.close()


@extended
def test_a_standby_is_found_and_is_unavailable_for_what_writes(settings, postgres_server):
    with PostgresStandby(postgres_server) as standby, database("standby", standby.settings):
        standby.start()
        ((number, message),) = check(settings, "standby")
        assert (number, message) == ("E025", "this PostgreSQL is a standby, which takes no writes.")
        engine = PostgresFleet("shop", "standby")
        with pytest.raises(Unavailable, match="read-only transaction"):
            engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
        engine.close()


def test_a_password_is_shown_nowhere(settings):
    entry = {**PostgresServer.database, "PORT": str(free_port()), "PASSWORD": "secret-7"}
    with database("away", entry):
        ((number, message),) = check(settings, "away")
    assert number == "W003"
    assert "refused" in message
    assert "secret-7" not in message


# Faults


@extended
def test_a_call_that_takes_long_fails_in_time_and_the_next_one_connects_anew(engine, postgres_server):
    engine.connect()
    postgres_server.freeze()
    try:
        with pytest.raises(Unavailable, match=r"^PostgreSQL did not answer within 0.5 s\.$"):
            engine.time()
        with pytest.raises(Unavailable, match="timeout"):
            engine.listen("m1")
    finally:
        postgres_server.thaw()
    assert engine.time() > 0


@extended
def test_a_query_that_waits_for_a_lock_ends_in_the_server_as_well(engine, notes):
    lease = engine.take("leader", None, "one")
    with transaction.atomic(ALIAS):
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("LOCK TABLE wspbus_fleet_lease")
        with pytest.raises(Unavailable, match=r"^PostgreSQL did not answer within 0.5 s\.$"):
            engine.renew("leader", lease)
    assert engine.read("leader") == lease


@extended
def test_a_killed_server_comes_back_with_the_leases_and_the_loss_of_the_connection_is_noticed(
    engine, postgres_server
):
    lease, listener = engine.take("leader", None, "one"), engine.listen("m1")
    postgres_server.kill()
    postgres_server.start()
    with pytest.raises(Unavailable):
        listener.receive(DEADLINE)
    listener.close()
    with pytest.raises(Unavailable):
        engine.time()
    assert engine.read("leader") == lease


@extended
def test_a_server_that_takes_no_writes_is_unavailable_for_them(settings, engine, postgres_server):
    lease = engine.take("leader", None, "one")
    postgres_server.query("ALTER SYSTEM SET default_transaction_read_only = on")
    postgres_server.query("SELECT pg_reload_conf()")
    try:
        await_that(lambda: check(settings, ALIAS))
        assert check(settings, ALIAS) == [
            ("E025", "this PostgreSQL takes no writes: default_transaction_read_only is on.")
        ]
        with pytest.raises(Unavailable, match="read-only transaction"):
            engine.renew("leader", lease)
        assert engine.read("leader") == lease
    finally:
        postgres_server.query("ALTER SYSTEM RESET default_transaction_read_only")
        postgres_server.query("SELECT pg_reload_conf()")


@extended
def test_an_engine_that_comes_back_empty_has_no_lease_and_no_member(engine):
    lease = engine.take("leader", None, "one")
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    engine._execute("TRUNCATE wspbus_fleet_lease, wspbus_fleet_member, wspbus_fleet_run")
    assert engine.renew("leader", lease) is None
    assert (engine.read("leader"), engine.members()) == (None, [])
    assert engine.take("leader", None, "two").token > lease.token


@extended
def test_a_notification_that_is_not_of_a_fleet_is_ignored(engine):
    listener = engine.listen("m1")
    for text in ("", "nonsense", "a 1/x text", "a 0/99999999 text", "a 5/2 text"):
        engine._execute("SELECT pg_notify(%(channel)s, %(text)s)", channel=engine._channel(None), text=text)
    engine.send([(None, b"1")])
    assert listener.receive(DEADLINE) == [b"1"]
    listener.close()
