"""Which connections to look after, and what is done for a new one."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import psycopg
from django.db.backends.base.base import NO_DB_ALIAS

from . import _changes, _contrib, _evidence, _resolver, conf
from ._link import Link, attach, link_of

# For a type that is registered late: each connection needs a resolver for the
# parameters it is made of.
_looked_after: weakref.WeakSet[Any] = weakref.WeakSet()
# Those whose errors, and whose units of work, Django sees nothing of.
_own: weakref.WeakSet[Any] = weakref.WeakSet()
# Those that a pool has read from whenever it hands them out.
_checked: weakref.WeakSet[Any] = weakref.WeakSet()
# A signal handler that begins a unit of work may interrupt whoever holds it.
_lock = threading.RLock()


def _renew_lock() -> None:
    """Give a forked child a lock that no thread of its parent can hold."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def renew() -> None:
    """Have every connection that is open resolve what is tracked now.

    New ones do by the template that they are made with.
    """
    with _lock:
        open_ones = list(_looked_after)
    for pg_connection in open_ones:
        _resolver.install(pg_connection.adapters)
    _evidence.follow_older(open_ones)


def mark_own(pg_connection: Any, link: Link) -> None:
    """Note that the project opened *pg_connection* itself."""
    link.is_own = True
    with _lock:
        _own.add(pg_connection)


def mark_checked(pg_connection: Any) -> None:
    """Note that a pool checks *pg_connection* before it hands it out."""
    if pg_connection not in _checked:
        with _lock:
            _checked.add(pg_connection)


def own_links(*, checked: bool) -> list[Link]:
    """Return the links of the project's own connections, whoever uses them now.

    Those that a pool checks are left out unless *checked*.
    """
    if not _own:
        return []
    with _lock:
        connections = [one for one in _own if checked or one not in _checked]
    return [link for one in connections if (link := link_of(one)) is not None]


def is_ours(connection: Any, pg_connection: Any) -> bool:
    """Whether to look after what a Django connection connects with."""
    return (
        connection.vendor == "postgresql"
        and connection.alias != NO_DB_ALIAS
        and is_postgresql(pg_connection)
        and not conf.is_off(connection.alias)
    )


def is_postgresql(connection: Any) -> bool:
    """Whether a connection is psycopg 3's, and leads to a PostgreSQL.

    Servers that only speak its protocol, such as CockroachDB, are left alone.
    """
    return (
        isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection))
        and connection.info.vendor == "PostgreSQL"
        # What psycopg.crdb tells CockroachDB by, on a connection of any class.
        and connection.pgconn.parameter_status(b"crdb_version") is None
    )


def look_after(pg_connection: Any, alias: str, *, in_pool: bool = False) -> Link:
    """Attach a psycopg connection to what is known of *alias*.

    *in_pool*: it is a pool that is at work on the connection.
    """
    # Added first: a type that is registered from here on comes by renew().
    with _lock:
        _looked_after.add(pg_connection)
    if not _resolver.is_installed(pg_connection.adapters):
        _resolver.install(pg_connection.adapters)
    link = attach(pg_connection, alias)
    change = link.memory.arrive(link.server)
    if change is not None:
        _contrib.clear_caches()
        _changes.announce(change, in_query=in_pool)
    return link
