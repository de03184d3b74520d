"""Asking the server behind an alias what it is and which types it has, right now.

Over a connection of its own, opened as Django opens one, but never from a pool and
never kept: what a process that starts now would meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, TypeVar

import psycopg
from django.db import connections

from django_pg_hot_async import conf
from django_pg_hot_async._core.catalog import FIRST_NORMAL_OID
from django_pg_hot_async._core.connection import state_of, unwrapped
from django_pg_hot_async._core.psycopg_internals import has_oids
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.server import Server
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async._django import connections as _connections
from django_pg_hot_async._django import startup

from .access import CannotTell, is_final, redact, wrapper_apart

T = TypeVar("T")

SECONDS = 10.0
"""How long an alias has to answer."""

# The process that this query runs in. What the connection was told, PgBouncer and its
# like make up.
_ABOUT = """\
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       pg_catalog.pg_backend_pid(),
       pg_catalog.host(pg_catalog.inet_server_addr()),
       pg_catalog.inet_server_port(),
       pg_catalog.pg_is_in_recovery()"""


_OTHERS = """\
SELECT n.nspname, t.typname, CASE
           WHEN c.relkind OPERATOR(pg_catalog.<>) 'c' THEN 't'
           ELSE t.typtype
       END
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.typrelid
WHERE t.typname OPERATOR(pg_catalog.=) ANY (%s)
ORDER BY 1, 2"""
"""What else has the names of types that are missing."""


@dataclass(frozen=True, slots=True)
class OtherType:
    """A type that has the name of a tracked type, and is of another kind."""

    schema: str
    name: str
    kind: str
    """``pg_type.typtype``, or "t" for the row type of a table, a view or an index."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said of itself."""

    server: Server
    """As the connection shows it, with the version that the server itself named."""
    snapshot: Snapshot | None
    """Its types; None where none are tracked."""
    missing: tuple[str, ...]
    """Tracked types that it does not have."""
    others: tuple[OtherType, ...]
    """What has their names there instead."""
    registrations: tuple[str, ...]
    """Types that are registered on its connections under OIDs of a server."""
    host: str | None
    """The address it was reached at itself; None by a Unix socket."""
    port: int | None
    is_standby: bool
    """Whether it is in recovery, and so read-only."""
    is_pooled: bool
    """Whether something in between has connections of its own to the server."""


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Why there is no answer."""

    state: str
    """``not_postgresql``, ``left_to_django`` or ``failed``."""
    reason: str
    is_final: bool = False
    """Whether asking again would not help."""


def ask_all(aliases: Iterable[str]) -> dict[str, Answer | NotAsked]:
    """Ask the servers of *aliases*, all at once; return what each said, in order.

    Two statements each, three where a tracked type is missing, in one transaction, on
    a new connection. It takes 10 seconds at most, whatever hangs. Nothing is raised: an
    error is an answer as well.
    """
    return in_time(aliases, ask)


def in_time(aliases: Iterable[str], ask: Callable[[str], T]) -> dict[str, T | NotAsked]:
    """Call *ask* with each alias, all at once; return the results, in order.

    It takes 10 seconds at most; what is raised is a `NotAsked`.
    """
    # Threads, since a PgBouncer that is paused lets a client wait for minutes, and
    # libpq has no limit of its own for that.
    answers: dict[str, T | NotAsked] = {}
    threads = {
        alias: threading.Thread(
            target=_ask_into,
            args=(answers, alias, ask),
            name=f"ask {alias}",
            daemon=True,
        )
        for alias in aliases
    }
    deadline = monotonic() + SECONDS
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0, deadline - monotonic()))
    late = NotAsked("failed", f"no answer in {SECONDS:g} seconds")
    return {alias: answers.get(alias, late) for alias in threads}


def _ask_into(
    answers: dict[str, T | NotAsked], alias: str, ask: Callable[[str], T]
) -> None:
    try:
        answers[alias] = ask(alias)
    except CannotTell as error:
        answers[alias] = NotAsked("failed", str(error), error.is_final)
    except Exception as error:
        reason = redact(error, connections.settings[alias])
        answers[alias] = NotAsked("failed", reason, is_final(error))
    finally:
        # Those that receivers of signals opened in this thread, which ends here.
        connections.close_all()


def ask(alias: str) -> Answer | NotAsked:
    """Ask the server of *alias*, in this thread; raise whatever is raised."""
    if conf.is_off(alias):
        return NotAsked("left_to_django", "left to Django by PG_HOT_ASYNC['ALIASES']")
    wrapper = wrapper_apart(alias)
    if wrapper.vendor != "postgresql":
        return NotAsked("not_postgresql", f"not PostgreSQL ({wrapper.vendor})")
    try:
        wrapper.ensure_connection()
        return _ask(wrapper.connection)
    finally:
        wrapper.close()


def _ask(connection: Any) -> Answer | NotAsked:
    connection = unwrapped(connection)
    state = state_of(connection)
    if state is None:
        return _why_not_tracked(connection)
    registry = runtime.registry
    # One transaction, for a pooler to keep on one server.
    with connection.transaction():
        cursor = connection.execute(_ABOUT)
        version, pid, host, port, is_standby = cursor.fetchone()
        with connection.lock:
            snapshot = (
                connection.wait(state.read(connection)) if registry.question else None
            )
        missing = [
            tracked
            for tracked in registry.types
            if snapshot is None or not snapshot.surrogates_of(tracked)
        ]
        others: tuple[OtherType, ...] = ()
        if missing:
            names = [tracked.name for tracked in missing]
            cursor = connection.execute(_OTHERS, [names])
            others = tuple(OtherType(*row) for row in cursor.fetchall())
    return Answer(
        server=replace(state.server, version=version),
        snapshot=snapshot,
        missing=tuple(map(str, missing)),
        others=others,
        registrations=tuple(_registrations(connection)),
        host=host,
        port=port,
        is_standby=is_standby,
        is_pooled=pid != connection.info.backend_pid,
    )


def _registrations(connection: Any) -> list[str]:
    """Return the types registered on *connection*, and not for the whole process."""
    everywhere = has_oids(psycopg.adapters, FIRST_NORMAL_OID)
    return [
        name
        for name in has_oids(connection.adapters, FIRST_NORMAL_OID)
        if name not in everywhere
    ]


def _why_not_tracked(connection: Any) -> NotAsked:
    if not isinstance(connection, psycopg.Connection):
        return NotAsked(
            "failed", "its backend uses no psycopg 3: nothing is tracked with it", True
        )
    if _connections.is_postgresql(connection):
        number = "E005" if startup.why_not else "E002"
        return NotAsked(
            "failed",
            "its connections are not tracked: the system check"
            f" django_pg_hot_async.{number} tells why",
            True,
        )
    return NotAsked("not_postgresql", "not PostgreSQL (it speaks its protocol)")
