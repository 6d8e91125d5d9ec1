"""The fleet over Redis, or a server that speaks its protocol (Valkey)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import redis

from .base import DEFAULT_LEASE, Engine, Lease, Listener, Member, MemberProcess, Run, Unavailable

T = TypeVar("T")

# A script runs as one step, and Redis replicates its effects, so that it may ask for the time.
BEAT = """
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], time[1] .. '.' .. string.format('%06d', time[2]) .. ' ' .. ARGV[2])
return time
"""
CHANGED = """
if (redis.call('HGET', KEYS[1], 'token') or '') ~= ARGV[1] then return false end
if (redis.call('HGET', KEYS[1], 'beat') or '') ~= ARGV[2] then return false end
"""
TAKE = (
    CHANGED
    + """
local time = redis.call('TIME')
local token = math.max(time[1] * 1000000 + time[2], (tonumber(ARGV[1]) or 0) + 1)
token = string.format('%.0f', token)
redis.call('HSET', KEYS[1], 'holder', ARGV[3], 'token', token, 'beat', '0')
return token
"""
)
RENEW = CHANGED + "return redis.call('HINCRBY', KEYS[1], 'beat', 1)"
RELEASE = (
    CHANGED + "redis.call('HSET', KEYS[1], 'holder', '') redis.call('HINCRBY', KEYS[1], 'beat', 1) return 1"
)
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
    """OPTIONS: ``url``, as `redis.Redis.from_url` takes it, and ``lease`` in seconds."""

    largest = 2**20

    def __init__(
        self, name: str, url: str = "redis://127.0.0.1:6379/0", lease: float = DEFAULT_LEASE
    ) -> None:
        super().__init__(name, lease)
        self.url = url
        self._client: redis.Redis | None = None

    def _open(self) -> redis.Redis:
        return redis.Redis.from_url(
            self.url,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            single_connection_client=True,
            retry=None,
            client_name=f"wspbus:{self.name}"[:60].replace(" ", "_"),
        )

    def connect(self) -> None:
        if self._client is None:
            client = self._open()
            self._scripts = {
                name: client.register_script(text)
                for name, text in {
                    "beat": BEAT,
                    "take": TAKE,
                    "renew": RENEW,
                    "release": RELEASE,
                    "claim": CLAIM,
                    "finish": FINISH,
                }.items()
            }
            self._client = client
            self._call(lambda client: client.ping())

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, function: Callable[[Any], T]) -> T:
        self.connect()
        try:
            return function(self._client)
        except redis.RedisError as error:
            self.close()
            raise Unavailable(f"Redis: {error}") from error

    def _run(self, script: str, key: str, *arguments: Any) -> Any:
        return self._call(
            lambda client: self._scripts[script](keys=[self._key(key)], args=arguments, client=client)
        )

    def _key(self, *parts: str) -> str:
        # The braces put all keys of a fleet into one slot of a cluster.
        return ":".join(["wspbus", f"{{{self.name}}}", *parts])

    def time(self) -> float:
        return _seconds(self._call(lambda client: client.time()))

    # Messages

    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        def send(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            for member, message in messages:
                pipeline.publish(self._channel(member), message)
            pipeline.execute()

        self._call(send)

    def _channel(self, member: str | None) -> str:
        return self._key("all") if member is None else self._key("to", member)

    def listen(self, member: str) -> Listener:
        return RedisListener(self._open(), [self._channel(None), self._channel(member)])

    # Members

    def beat(self, member: Member) -> float:
        values = {key: value for key, value in asdict(member).items() if key not in ("id", "seen")}
        return _seconds(self._run("beat", "members", member.id, json.dumps(values)))

    def leave(self, member: str) -> None:
        self._call(lambda client: client.hdel(self._key("members"), member))

    def members(self) -> list[Member]:
        found = self._call(lambda client: client.hgetall(self._key("members")))
        return [_member(member, value) for member, value in found.items()]

    # Leases

    def read(self, name: str) -> Lease | None:
        values = self._call(lambda client: client.hmget(self._key("lease", name), "holder", "token", "beat"))
        if values[1] is None:
            return None
        return Lease(values[0].decode(), int(values[1]), int(values[2]))

    def take(self, name: str, seen: Lease | None, holder: str) -> Lease | None:
        token = self._run("take", f"lease:{name}", *_seen(seen), holder)
        return None if token is None else Lease(holder, int(token), 0)

    def renew(self, name: str, lease: Lease) -> Lease | None:
        beat = self._run("renew", f"lease:{name}", *_seen(lease))
        return None if beat is None else Lease(lease.holder, lease.token, int(beat))

    def release(self, name: str, lease: Lease) -> bool:
        return self._run("release", f"lease:{name}", *_seen(lease)) is not None

    # Jobs

    def runs(self) -> list[Run]:
        found = self._call(lambda client: client.hvals(self._key("jobs")))
        return [Run(**json.loads(value)) for value in found]

    def claim(self, run: Run) -> bool:
        return self._record("claim", run)

    def finish(self, run: Run) -> bool:
        return self._record("finish", run)

    def _record(self, script: str, run: Run) -> bool:
        return self._run(script, "jobs", run.job, run.tick, json.dumps(asdict(run))) is not None


class RedisListener(Listener):
    def __init__(self, client: Any, channels: list[str]) -> None:
        self._client = client
        self._pubsub = client.pubsub(ignore_subscribe_messages=False)
        try:
            self._pubsub.subscribe(*channels)
            for _ in channels:
                self._pubsub.get_message(timeout=client.connection_pool.connection_kwargs["socket_timeout"])
        except redis.RedisError as error:
            self.close()
            raise Unavailable(f"Redis: {error}") from error

    def receive(self, timeout: float) -> list[bytes]:
        found = []
        try:
            while (message := self._pubsub.get_message(timeout=0 if found else timeout)) is not None:
                if message["type"] == "message":
                    found.append(message["data"])
                if len(found) >= 1000:
                    break
        except (redis.RedisError, OSError, ValueError) as error:
            raise Unavailable(f"Redis: {error}") from error
        return found

    def close(self) -> None:
        self._pubsub.close()
        self._client.close()


def _seen(lease: Lease | None) -> tuple[str, str]:
    return ("", "") if lease is None else (str(lease.token), str(lease.beat))


def _seconds(time: Sequence[int]) -> float:
    return int(time[0]) + int(time[1]) / 1e6


def _member(member: bytes, value: bytes) -> Member:
    seen, _, values = value.partition(b" ")
    fields = json.loads(values)
    fields["processes"] = [MemberProcess(**each) for each in fields["processes"]]
    return Member(id=member.decode(), seen=float(seen), **fields)
