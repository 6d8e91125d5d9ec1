"""The engine over Redis, or a server that speaks its protocol, such as Valkey."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, UnixDomainSocketConnection, parse_url
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, ResponseError
from redis.retry import Retry

from ..conf.checks import check_text
from ..conf.findings import Problem, shown
from .base import DEFAULT_LEASE, Denied, Engine, Lease, Listener, Member, Run, Unavailable

OLDEST_VERSION = 5
"""The first version whose scripts may ask for the time and write."""

BATCH = 2**20
"""Bytes of messages that are sent at once, within the time for one call."""

MOST_RECEIVED = 1000
"""Messages that `Listener.receive` returns at once."""

KEEPALIVE = {
    name: value
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
"""A listener whose engine has vanished without a word finds out within 11 seconds."""

# A script runs as one step, and Redis replicates its effects, so that it may ask for the time.
BEAT = """
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], time[1] .. '.' .. string.format('%06d', time[2]) .. ' ' .. ARGV[2])
return time
"""
TAKE = """
if (redis.call('HGET', KEYS[1], 'token') or '') ~= ARGV[1] then return false end
if (redis.call('HGET', KEYS[1], 'beat') or '') ~= ARGV[2] then return false end
local time = redis.call('TIME')
local token = math.max(time[1] * 1000000 + time[2], (tonumber(ARGV[1]) or 0) + 1)
token = string.format('%.0f', token)
redis.call('HSET', KEYS[1], 'holder', ARGV[3], 'token', token, 'beat', '0')
return token
"""
HELD = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return false end
if redis.call('HGET', KEYS[1], 'holder') == '' then return false end
"""
RENEW = f"{HELD} return redis.call('HINCRBY', KEYS[1], 'beat', 1)"
RELEASE = f"{HELD} redis.call('HSET', KEYS[1], 'holder', '') return redis.call('HINCRBY', KEYS[1], 'beat', 1)"
CLAIM = """
local last = redis.call('HGET', KEYS[1], ARGV[1])
if last and tonumber(cjson.decode(last)['tick']) >= tonumber(ARGV[2]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
FINISH = """
local last = redis.call('HGET', KEYS[1], ARGV[1])
if not last or tonumber(cjson.decode(last)['tick']) ~= tonumber(ARGV[2]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class RedisFleet(Engine):
    """OPTIONS: ``url``, as redis-py takes it, and ``lease`` in seconds."""

    largest = 2**20

    def __init__(
        self, name: str, url: str = "redis://127.0.0.1:6379/0", lease: float = DEFAULT_LEASE
    ) -> None:
        super().__init__(name, lease)
        self.url = url
        # A client of redis-py connects anew by itself; this connection does not, once it is open.
        self._connection: Any = None

    # Checks

    @classmethod
    def check_options(cls, path: str, options: Mapping[str, Any]) -> Iterable[Problem]:
        yield from super().check_options(path, options)
        url = options.get("url", "redis://")
        yield from check_text(path, options, "url")
        if isinstance(url, str) and url and not _is_url(url):
            takes = 'It takes "redis://host:port/0", "rediss://host:port/0" or "unix:///path?db=0".'
            yield Problem("E012", f'{path}["url"]', "it is no URL that redis-py takes.", takes)
        elif isinstance(url, str) and url and (reason := _misfit(url)):
            yield Problem("E012", f'{path}["url"]', reason)

    def check(self, path: str) -> Iterable[Problem]:
        info = self._info()
        version = info.get("redis_version", "")
        if version and int(version.partition(".")[0]) < OLDEST_VERSION:
            message = f"Redis has the version {version}."
            yield Problem("E025", path, message, f"It needs version {OLDEST_VERSION} or later.")
        if info.get("role") == "slave":
            message = "this Redis is a replica, which takes no writes."
            yield Problem("E025", path, message, "Name the primary in OPTIONS.")
            return
        policy = info.get("maxmemory_policy", "")
        if policy.startswith("allkeys"):
            message = f"the maxmemory-policy of Redis is {policy}, which may evict the lease of the leader."
            hint = "Use noeviction or a policy that begins with volatile: no key of a fleet expires."
            yield Problem("E025", path, message, hint)
        self._use_all()

    def _info(self) -> dict[str, str]:
        """Return what Redis says about itself; nothing if it does not permit that."""
        try:
            lines = self._call("INFO").decode().splitlines()
        except Denied:
            return {}
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _use_all(self) -> None:
        """Do once what the fleet needs; `Denied` if it is not permitted."""
        self._run(BEAT, "check", "check", "")
        self._call("HDEL", self._key("check"), "check")
        listener = self.listen("check")
        try:
            self.send([("check", b"")])
        finally:
            listener.close()

    # The connection

    def connect(self) -> None:
        if self._connection is None:
            self._connection = self._open()

    def _open(self) -> Any:
        kind, options = _options(self.url)
        options |= {
            "client_name": "wspbus",
            "decode_responses": False,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self.timeout,
        }
        if kind is not UnixDomainSocketConnection:
            options |= {
                "socket_connect_timeout": self.timeout,
                "socket_keepalive": True,
                "socket_keepalive_options": {getattr(socket, name): each for name, each in KEEPALIVE.items()},
            }
        connection = kind(**options)
        try:
            connection.connect()
        except (redis.RedisError, OSError) as error:
            connection.disconnect()
            if isinstance(error, ResponseError):  # such as a database that it does not have
                raise Denied(f"Redis: {error}") from error
            raise self._unavailable(error) from error
        return connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _call(self, *command: Any) -> Any:
        return self._calls([command])[0]

    def _calls(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands at once, and return the answer to each."""
        self.connect()
        connection = self._connection
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [connection.read_response() for _ in commands]
        except NoScriptError:  # only a single command calls a script
            raise
        except (redis.RedisError, OSError) as error:
            self.close()
            raise self._unavailable(error) from error

    def _run(self, script: str, key: str, *arguments: Any) -> Any:
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        rest = (1, self._key(key), *arguments)
        try:
            return self._call("EVALSHA", digest, *rest)
        except NoScriptError:
            return self._call("EVAL", script, *rest)

    def _unavailable(self, error: Exception) -> Unavailable:
        if isinstance(error, redis.TimeoutError):
            return Unavailable(f"Redis did not answer within {self.timeout:g} s.")
        kind = Denied if isinstance(error, AuthenticationError | NoPermissionError) else Unavailable
        return kind(f"Redis: {error}")

    def _key(self, *parts: str) -> str:
        # The braces put all keys of a fleet into one slot of a cluster.
        return ":".join(["wspbus", f"{{{self.name}}}", *parts])

    def time(self) -> float:
        return _seconds(self._call("TIME"))

    # Messages

    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        for batch in _batches(messages):
            self._calls([("PUBLISH", self._channel(member), message) for member, message in batch])

    def _channel(self, member: str | None) -> str:
        return self._key("all") if member is None else self._key("to", member)

    def listen(self, member: str) -> Listener:
        connection, channels = self._open(), [self._channel(None), self._channel(member)]
        try:
            connection.send_command("SUBSCRIBE", *channels, check_health=False)
            for _ in channels:
                connection.read_response()
        except (redis.RedisError, OSError) as error:
            connection.disconnect()
            raise self._unavailable(error) from error
        return RedisListener(connection)

    # Members

    def beat(self, member: Member) -> float:
        return _seconds(self._run(BEAT, "members", member.id, member.as_json()))

    def leave(self, member: str) -> None:
        self._call("HDEL", self._key("members"), member)

    def members(self) -> list[Member]:
        time, stored = self._calls([("TIME",), ("HGETALL", self._key("members"))])
        found = []
        for id, value in zip(stored[::2], stored[1::2], strict=True):  # noqa: A001
            seen, _, text = value.partition(b" ")
            found.append(Member.from_json(id.decode(), float(seen), text))
        forgotten = [each.id for each in found if each.is_forgotten(_seconds(time))]
        if forgotten:
            self._call("HDEL", self._key("members"), *forgotten)
        return [each for each in found if each.id not in forgotten]

    # Leases

    def read(self, name: str) -> Lease | None:
        holder, token, beat = self._call("HMGET", self._key("lease", name), "holder", "token", "beat")
        return None if token is None else Lease(holder.decode(), int(token), int(beat))

    def take(self, name: str, seen: Lease | None, holder: str) -> Lease | None:
        last = ("", "") if seen is None else (seen.token, seen.beat)
        token = self._run(TAKE, f"lease:{name}", *last, holder)
        return None if token is None else Lease(holder, int(token), 0)

    def renew(self, name: str, lease: Lease) -> Lease | None:
        beat = self._run(RENEW, f"lease:{name}", lease.token)
        return None if beat is None else Lease(lease.holder, lease.token, int(beat))

    def release(self, name: str, lease: Lease) -> bool:
        return self._run(RELEASE, f"lease:{name}", lease.token) is not None

    # Jobs

    def runs(self) -> list[Run]:
        return [Run.from_json(text) for text in self._call("HVALS", self._key("jobs"))]

    def claim(self, run: Run) -> bool:
        return self._run(CLAIM, "jobs", run.job, repr(run.tick), run.as_json()) is not None

    def finish(self, run: Run) -> bool:
        return self._run(FINISH, "jobs", run.job, repr(run.tick), run.as_json()) is not None


class RedisListener(Listener):
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._is_closed = False

    def receive(self, timeout: float) -> list[bytes]:
        found: list[bytes] = []
        try:
            while len(found) < MOST_RECEIVED and self._connection.can_read(0 if found else timeout):
                kind, _, message = self._connection.read_response()
                if kind == b"message":
                    found.append(message)
        except Exception as error:
            # Closed by another thread, a connection raises whatever its missing socket causes.
            if not self._is_closed and not isinstance(error, redis.RedisError | OSError):
                raise
            self._connection.disconnect()
            reason = "The connection has been closed." if self._is_closed else f"Redis: {error}"
            raise Unavailable(reason) from error
        if self._is_closed:
            raise Unavailable("The connection has been closed.")
        return found

    def close(self) -> None:
        self._is_closed = True
        self._connection.disconnect()


def _is_url(url: str) -> bool:
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:  # its text may hold a part of the password
        return False
    return True


def _options(url: str) -> tuple[Any, dict[str, Any]]:
    """Return the class of the connection to a URL, and its arguments."""
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", Connection)
    for name in ("max_connections", "timeout"):  # those of a pool
        options.pop(name, None)
    return kind, options


def _misfit(url: str) -> str | None:
    """Return what redis-py would leave out of a URL, or raise an error for."""
    parts = urlsplit(url)
    database = unquote(parts.path).replace("/", "")
    if parts.scheme != "unix" and database and not database.isdecimal():
        return f"the database {shown(database)} is no number."
    if parts.scheme == "unix" and not parts.path:
        return "it lacks the path of the socket."
    kind, options = _options(url)
    try:
        kind(**options | {"protocol": 2})
    except (TypeError, ValueError, redis.RedisError) as error:
        return f"redis-py does not take it: {str(error).partition(') ')[2] or error}."
    return None


def _batches(messages: Sequence[tuple[str | None, bytes]]) -> Iterator[list[tuple[str | None, bytes]]]:
    batch: list[tuple[str | None, bytes]] = []
    size = 0
    for member, message in messages:
        if batch and size + len(message) > BATCH:
            yield batch
            batch, size = [], 0
        batch.append((member, message))
        size += len(message)
    if batch:
        yield batch


def _seconds(time: Sequence[bytes]) -> float:
    return int(time[0]) + int(time[1]) / 1e6
