"""The engine over Redis: its checks, and its faults."""

from __future__ import annotations

import pytest

from django_wspbus import conf
from django_wspbus.fleet.base import Denied, Member, Unavailable
from django_wspbus.fleet.engines import check_engine
from django_wspbus.fleet.redis import RedisFleet

from ..engines import RedisServer
from ..processes import DEADLINE, fetch
from ..projects import GUNICORN

pytestmark = pytest.mark.extended


@pytest.fixture
def server():
    """A Redis of its own."""
    with RedisServer() as server:
        server.start()
        yield server


@pytest.fixture
def engine(server):
    engine = RedisFleet("shop", server.url, lease=1.5)
    yield engine
    engine.close()


def check(settings, url):
    """Return the problems of an engine: id and message."""
    backend = "django_wspbus.fleet.redis.RedisFleet"
    settings.WSPBUS = {"FLEET": {"NAME": "shop", "BACKEND": backend, "OPTIONS": {"url": url}}}
    return [(problem.id, problem.message) for problem in check_engine(conf.get().fleet)]


def test_a_site_has_two_connections(server, engine):
    engine.connect()
    listener = engine.listen("m1")
    engine.send([(None, b"1"), ("m1", b"2")])
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    assert len(engine._call("CLIENT", "LIST").decode().splitlines()) == 2
    listener.close()


def test_a_call_that_takes_long_fails_in_time_and_the_next_one_connects_anew(server, engine):
    lease = engine.take("leader", None, "one")
    server.call("CLIENT", "PAUSE", "10000", "WRITE")
    with pytest.raises(Unavailable, match=r"^Redis did not answer within 0.5 s\.$"):
        engine.renew("leader", lease)
    assert engine.read("leader") == lease
    server.call("CLIENT", "UNPAUSE")
    assert engine.renew("leader", lease)


def test_a_redis_that_hangs_fails_calls_and_connections_in_time(server, engine):
    engine.connect()
    server.freeze()
    for call in (engine.time, engine.connect, lambda: engine.listen("m1")):
        with pytest.raises(Unavailable, match=r"^Redis did not answer within 0.5 s\.$"):
            call()
    server.thaw()
    assert engine.time() > 0


def test_a_killed_server_comes_back_empty_and_the_loss_of_the_connection_is_noticed(server, engine):
    lease, listener = engine.take("leader", None, "one"), engine.listen("m1")
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    server.kill()
    server.start()
    with pytest.raises(Unavailable):
        listener.receive(DEADLINE)
    listener.close()
    with pytest.raises(Unavailable):
        engine.time()
    assert (engine.read("leader"), engine.members()) == (None, [])
    assert engine.renew("leader", lease) is None
    assert engine.take("leader", None, "two").token > lease.token


def test_a_site_starts_and_serves_while_its_engine_hangs(server, project):
    server.freeze()
    options = {"url": server.url, "lease": 1.5}
    backend = "django_wspbus.fleet.redis.RedisFleet"
    project.serves(GUNICORN, FLEET={"NAME": "shop", "BACKEND": backend, "OPTIONS": options})
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        assert "STARTED" in fetch(url)
        site.wait_for_line("Redis did not answer within 0.5 s.*W003")
        assert site.stop() == 0


def test_a_full_redis_is_unavailable_for_what_writes(server, engine):
    lease = engine.take("leader", None, "one")
    server.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(Unavailable, match="used memory > 'maxmemory'"):
        engine.renew("leader", lease)
    assert engine.read("leader") == lease
    server.call("CONFIG", "SET", "maxmemory", "0")
    assert engine.renew("leader", lease).beat == 1


def test_a_replica_is_unavailable_for_what_writes_and_found_by_the_check(settings, server, engine):
    lease = engine.take("leader", None, "one")
    with RedisServer(replicaof=f"127.0.0.1 {server.port}") as replica:
        replica.start()
        replica.running.wait_for_line("Finished with success")
        other = RedisFleet("shop", replica.url)
        assert other.read("leader") == lease
        with pytest.raises(Unavailable, match="read only replica"):
            other.renew("leader", lease)
        other.close()
        assert check(settings, replica.url) == [("E025", "this Redis is a replica, which takes no writes.")]


def test_a_policy_that_may_evict_the_lease_is_found(settings, server):
    assert check(settings, server.url) == []
    server.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    assert check(settings, server.url) == []
    server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    ((number, message),) = check(settings, server.url)
    assert (number, "allkeys-lru" in message) == ("E025", True)


def test_a_wrong_password_is_found_and_shown_nowhere(settings, server):
    server.call("CONFIG", "SET", "requirepass", "right-7")
    right, wrong = (server.url.replace("//", f"//:{word}@") for word in ("right-7", "wrong-7"))
    assert check(settings, right) == []
    ((number, message),) = check(settings, wrong)
    assert number == "E025"
    assert "wrong-7" not in message
    with pytest.raises(Denied):
        RedisFleet("shop", server.url).time()


def test_a_database_that_redis_does_not_have_is_found(settings, server):
    message = "the engine of the fleet refuses this site. Redis: DB index is out of range"
    assert check(settings, server.url.replace("/0", "/99")) == [("E025", message)]


def test_the_permissions_that_the_docs_name_suffice(settings, server):
    permissions = ["+@connection", "+@scripting", "+@hash", "+@pubsub", "+time", "+info"]
    server.call("ACL", "SETUSER", "site", "on", ">word", "~wspbus:{shop}:*", "&wspbus:{shop}:*", *permissions)
    url = server.url.replace("//", "//site:word@")
    assert check(settings, url) == []
    server.call("ACL", "SETUSER", "site", "-info")
    assert check(settings, url) == []
    server.call("ACL", "SETUSER", "site", "-publish")
    ((number, message),) = check(settings, url)
    assert (number, "permission" in message) == ("E025", True)


def test_options_in_the_url_do_not_change_the_connection(server):
    url = f"{server.url}?decode_responses=yes&protocol=3&retry_on_timeout=yes&max_connections=1&client_name=x"
    engine = RedisFleet("shop", url)
    lease = engine.take("leader", None, "one")
    assert engine.read("leader") == lease
    listener = engine.listen("m1")
    engine.send([(None, b"1")])
    assert listener.receive(5) == [b"1"]
    listener.close()
    engine.close()


def test_a_record_of_a_later_version_is_read(engine):
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    text = '1.5 {"host":"h","pid":1,"version":"","state":"","processes":[{"pid":1,"roles":[],"x":1}],"y":2}'
    engine._call("HSET", engine._key("members"), "m2", f"{engine.time()}{text[3:]}")
    assert {member.id for member in engine.members()} == {"m1", "m2"}


def test_a_member_that_vanished_long_ago_is_forgotten(engine):
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    text = '{"host":"h","pid":1,"version":"","state":"","processes":[]}'
    engine._call("HSET", engine._key("members"), "m2", f"1.5 {text}")
    assert [member.id for member in engine.members()] == ["m1"]
    assert engine._call("HLEN", engine._key("members")) == 1
