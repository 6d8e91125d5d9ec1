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
def engine(own_redis):
    engine = RedisFleet("shop", own_redis.url, lease=1.5)
    yield engine
    engine.close()


def check(settings, url):
    """Return the problems of an engine: id and message."""
    backend = "django_wspbus.fleet.redis.RedisFleet"
    settings.WSPBUS = {"FLEET": {"NAME": "shop", "BACKEND": backend, "OPTIONS": {"url": url}}}
    return [(problem.id, problem.message) for problem in check_engine(conf.get().fleet)]


def test_a_site_has_two_connections(own_redis, engine):
    engine.connect()
    listener = engine.listen("m1")
    engine.send([(None, b"1"), ("m1", b"2")])
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    assert len(engine._call("CLIENT", "LIST").decode().splitlines()) == 2
    listener.close()


def test_a_call_that_takes_long_fails_in_time_and_the_next_one_connects_anew(own_redis, engine):
    lease = engine.take("leader", None, "one")
    own_redis.call("CLIENT", "PAUSE", "10000", "WRITE")
    with pytest.raises(Unavailable, match=r"^Redis did not answer within 0.5 s\.$"):
        engine.renew("leader", lease)
    assert engine.read("leader") == lease
    own_redis.call("CLIENT", "UNPAUSE")
    assert engine.renew("leader", lease)


def test_a_redis_that_hangs_fails_calls_and_connections_in_time(own_redis, engine):
    engine.connect()
    own_redis.freeze()
    for call in (engine.time, engine.connect, lambda: engine.listen("m1")):
        with pytest.raises(Unavailable, match=r"^Redis did not answer within 0.5 s\.$"):
            call()
    own_redis.thaw()
    assert engine.time() > 0


def test_a_killed_server_comes_back_empty_and_the_loss_of_the_connection_is_noticed(own_redis, engine):
    lease, listener = engine.take("leader", None, "one"), engine.listen("m1")
    engine.beat(Member("m1", "web1", 1, "v1", "STARTED"))
    own_redis.kill()
    own_redis.start()
    with pytest.raises(Unavailable):
        listener.receive(DEADLINE)
    listener.close()
    with pytest.raises(Unavailable):
        engine.time()
    assert (engine.read("leader"), engine.members()) == (None, [])
    assert engine.renew("leader", lease) is None
    assert engine.take("leader", None, "two").token > lease.token


def test_a_site_starts_and_serves_while_its_engine_hangs(own_redis, project):
    own_redis.freeze()
    options = {"url": own_redis.url, "lease": 1.5}
    backend = "django_wspbus.fleet.redis.RedisFleet"
    project.serves(GUNICORN, FLEET={"NAME": "shop", "BACKEND": backend, "OPTIONS": options})
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        assert "STARTED" in fetch(url)
        site.wait_for_line("Redis did not answer within 0.5 s.*W003")
        assert site.stop() == 0


def test_a_full_redis_is_unavailable_for_what_writes(own_redis, engine):
    lease = engine.take("leader", None, "one")
    own_redis.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(Unavailable, match="used memory > 'maxmemory'"):
        engine.renew("leader", lease)
    assert engine.read("leader") == lease
    own_redis.call("CONFIG", "SET", "maxmemory", "0")
    assert engine.renew("leader", lease).beat == 1


def test_a_replica_is_unavailable_for_what_writes_and_found_by_the_check(settings, own_redis, engine):
    lease = engine.take("leader", None, "one")
    with RedisServer(replicaof=f"127.0.0.1 {own_redis.port}") as replica:
        replica.start()
        replica.running.wait_for_line("Finished with success")
        other = RedisFleet("shop", replica.url)
        assert other.read("leader") == lease
        with pytest.raises(Unavailable, match="read only replica"):
            other.renew("leader", lease)
        other.close()
        assert check(settings, replica.url) == [("E025", "this Redis is a replica, which takes no writes.")]


def test_a_policy_that_may_evict_the_lease_is_found(settings, own_redis):
    assert check(settings, own_redis.url) == []
    own_redis.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    assert check(settings, own_redis.url) == []
    own_redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    ((number, message),) = check(settings, own_redis.url)
    assert (number, "allkeys-lru" in message) == ("E025", True)


def test_a_wrong_password_is_found_and_shown_nowhere(settings, own_redis):
    own_redis.call("CONFIG", "SET", "requirepass", "right-7")
    right, wrong = (own_redis.url.replace("//", f"//:{word}@") for word in ("right-7", "wrong-7"))
    assert check(settings, right) == []
    ((number, message),) = check(settings, wrong)
    assert number == "E025"
    assert "wrong-7" not in message
    with pytest.raises(Denied):
        RedisFleet("shop", own_redis.url).time()


def test_a_database_that_redis_does_not_have_is_found(settings, own_redis):
    message = "the engine of the fleet refuses this site. Redis: DB index is out of range"
    assert check(settings, own_redis.url.replace("/0", "/99")) == [("E025", message)]


def test_the_permissions_that_the_docs_name_suffice(settings, own_redis):
    permissions = ["+@connection", "+@scripting", "+@hash", "+@pubsub", "+time", "+info"]
    permissions += ["~wspbus:{shop}:*", "&wspbus:{shop}:*"]
    own_redis.call("ACL", "SETUSER", "site", "on", ">word", *permissions)
    url = own_redis.url.replace("//", "//site:word@")
    assert check(settings, url) == []
    own_redis.call("ACL", "SETUSER", "site", "-info")
    assert check(settings, url) == []
    own_redis.call("ACL", "SETUSER", "site", "-publish")
    ((number, message),) = check(settings, url)
    assert (number, "permission" in message) == ("E025", True)


def test_options_in_the_url_do_not_change_the_connection(own_redis):
    options = "decode_responses=yes&protocol=3&retry_on_timeout=yes&max_connections=1&client_name=x"
    engine = RedisFleet("shop", f"{own_redis.url}?{options}")
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
