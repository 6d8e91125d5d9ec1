"""The queries of the engine. Each is one statement, and so one transaction."""

from __future__ import annotations

from ..base import REMEMBERED

NOW = "extract(epoch FROM clock_timestamp())"
MICROSECONDS = f"({NOW} * 1000000)::bigint"

TIME = f"SELECT {NOW}"

# A lease or a tick that was acknowledged must not be lost in a crash, however the project commits. A message
# or a sign of life may, and so does not wait for the disk.
_WAIT, _NO_WAIT = (f"set_config('synchronous_commit', '{value}', true)" for value in ("on", "off"))

_MESSAGES = "unnest(%(channels)s::text[], %(payloads)s::text[]) AS message(channel, payload)"
SEND = f"SELECT pg_notify(channel, payload), {_NO_WAIT} FROM {_MESSAGES}"
SEND_IN_TRANSACTION = f"SELECT pg_notify(channel, payload) FROM {_MESSAGES}"

BEAT = f"""
INSERT INTO wspbus_fleet_member (fleet, member, seen, data)
VALUES (%(fleet)s, %(member)s, {NOW}, %(data)s)
ON CONFLICT (fleet, member) DO UPDATE SET seen = excluded.seen, data = excluded.data
RETURNING seen, {_NO_WAIT}
"""
LEAVE = "DELETE FROM wspbus_fleet_member WHERE fleet = %(fleet)s AND member = %(member)s"
MEMBERS = f"""
WITH forgotten AS (
    DELETE FROM wspbus_fleet_member WHERE fleet = %(fleet)s AND seen < {NOW} - {REMEMBERED}
)
SELECT member, seen, data FROM wspbus_fleet_member
WHERE fleet = %(fleet)s AND seen >= {NOW} - {REMEMBERED}
"""

_LEASE = f"RETURNING holder, token, beat, {_WAIT}"
READ = "SELECT holder, token, beat FROM wspbus_fleet_lease WHERE fleet = %(fleet)s AND name = %(name)s"
TAKE_FIRST = f"""
INSERT INTO wspbus_fleet_lease (fleet, name, holder, token, beat)
VALUES (%(fleet)s, %(name)s, %(holder)s, {MICROSECONDS}, 0)
ON CONFLICT DO NOTHING {_LEASE}
"""
# A transaction that is fenced by the token holds a lock on the row: then the lease cannot be taken now.
TAKE = f"""
UPDATE wspbus_fleet_lease
SET holder = %(holder)s, token = greatest(token + 1, {MICROSECONDS}), beat = 0
WHERE id = (
    SELECT id FROM wspbus_fleet_lease
    WHERE fleet = %(fleet)s AND name = %(name)s AND token = %(token)s AND beat = %(beat)s
    FOR UPDATE SKIP LOCKED
) {_LEASE}
"""
_HELD = """
WHERE fleet = %(fleet)s AND name = %(name)s AND token = %(token)s AND holder <> ''
"""
RENEW = f"UPDATE wspbus_fleet_lease SET beat = beat + 1 {_HELD} {_LEASE}"
RELEASE = f"UPDATE wspbus_fleet_lease SET holder = '', beat = beat + 1 {_HELD} {_LEASE}"

# A process that is stopped inside of a fence must not keep the lease for ever: the server ends its session.
FENCE = f"""
SELECT CASE current_setting('idle_in_transaction_session_timeout')
    WHEN '0' THEN set_config('idle_in_transaction_session_timeout', %(milliseconds)s, true)
END
FROM wspbus_fleet_lease {_HELD} FOR KEY SHARE
"""

RUNS = "SELECT data FROM wspbus_fleet_run WHERE fleet = %(fleet)s"
CLAIM = f"""
INSERT INTO wspbus_fleet_run AS run (fleet, job, tick, data)
VALUES (%(fleet)s, %(job)s, %(tick)s, %(data)s)
ON CONFLICT (fleet, job) DO UPDATE SET tick = excluded.tick, data = excluded.data
WHERE run.tick < excluded.tick
RETURNING {_WAIT}
"""
FINISH = f"""
UPDATE wspbus_fleet_run SET data = %(data)s
WHERE fleet = %(fleet)s AND job = %(job)s AND tick = %(tick)s
RETURNING {_WAIT}
"""

IDENTITY = """
SELECT system_identifier::text, (SELECT oid::text FROM pg_database WHERE datname = current_database())
FROM pg_control_system()
"""

CONDITION = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
TABLES = """
SELECT name, to_regclass(name) IS NOT NULL
FROM unnest(ARRAY['wspbus_fleet_lease', 'wspbus_fleet_member', 'wspbus_fleet_run']) AS name
"""
MISSING_PRIVILEGES = """
SELECT privilege, name
FROM unnest(ARRAY['wspbus_fleet_lease', 'wspbus_fleet_member', 'wspbus_fleet_run']) AS name,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
WHERE NOT has_table_privilege(name, privilege)
"""
