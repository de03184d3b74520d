"""Who is connected to the database of an alias: for ``pg_hot_status --drained``."""

from __future__ import annotations

from dataclasses import dataclass
from time import sleep
from typing import Any

from .access import opened

_TIME = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
# Not pg_stat_activity as a transaction first saw it, which later looks would repeat.
_CLEAR = "SELECT pg_stat_clear_snapshot()"
_SESSIONS = f"""\
SELECT pid, usename, application_name, coalesce(host(client_addr), ''),
       coalesce(state, ''), {_TIME.format("state_change")},
       {_TIME.format("backend_start")}, usename = session_user
FROM pg_stat_activity
-- Of other roles, the type is not for every role to see.
WHERE datname = current_database()
      AND coalesce(backend_type, 'client backend') = 'client backend'
      AND pid <> pg_backend_pid()
ORDER BY usename <> session_user, backend_start, pid"""
_END = """\
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM unnest(%s) AS pid"""
_LEAVES = 0.2
"""Seconds in which the server is done with a client that has left."""


@dataclass(frozen=True, slots=True)
class Session:
    """A client's connection, as the server has it. Times are UTC, in ISO 8601."""

    pid: int
    role: str
    application_name: str
    address: str
    """Empty for a Unix socket, and where the role may not see it."""
    state: str
    """As in ``pg_stat_activity``; empty where the role may not see it."""
    since: str | None
    """Since when it is in that state: when its last statement ended, if it is idle."""
    connected: str
    is_own: bool
    """Whether its role is that of the alias: the application's own."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions in a database."""

    found: tuple[Session, ...]
    ended: int
    """How many were ended before the rest was found."""


def read_sessions(alias: str, *, end: bool = False) -> Sessions:
    """Return who is connected to the database of *alias*, but for this connection.

    With *end*, end those of the alias's own role first; what they have not committed
    is rolled back. Raise `CannotTell` where the server cannot be asked.
    """
    with opened(alias) as cursor:
        found = _look(cursor)
        if not any(session.is_own for session in found):
            return Sessions(found, 0)
        # Clients that have just left, such as this command's own a moment ago.
        sleep(_LEAVES)
        found, ended = _look(cursor), 0
        own = [session.pid for session in found if session.is_own]
        if own and end:
            cursor.execute(_END, [own])
            [ended] = cursor.fetchone() or [0]
            found = _look(cursor)
    return Sessions(found, ended)


def _look(cursor: Any) -> tuple[Session, ...]:
    cursor.execute(_CLEAR)
    cursor.execute(_SESSIONS)
    return tuple(Session(*row) for row in cursor.fetchall())
