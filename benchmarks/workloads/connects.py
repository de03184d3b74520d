"""Django's connections: opened and closed, or checked out of its pool."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore

from benchmarks.measures import Run

from .clocks import timed


def connect_and_close(fetch: bool = False, aliases: int = 1, servers: int = 1) -> Run:
    """`connect()` and `close()`, what a request that touches the database costs."""
    if fetch:
        connection_created.connect(fetch_types)
    if aliases > 1:
        remember(aliases, servers)
    wrapper: Any = connections["default"]

    def once() -> None:
        wrapper.connect()
        wrapper.close()

    # An alias that has been in use: Django has asked for its OIDs, we have read.
    wrapper.connect()
    with wrapper.cursor() as cursor:
        cursor.execute("select 'a=>1'::hstore")
    wrapper.close()
    return timed(once)


def fetch_types(connection: Any, **kwargs: object) -> None:
    """The plain way to right OIDs: read them from each connection, and register."""
    hstore = TypeInfo.fetch(connection.connection, "hstore")
    citext = TypeInfo.fetch(connection.connection, "citext")
    assert hstore is not None and citext is not None
    register_hstore(hstore, connection.connection)
    TypeInfo(citext.name, 0, citext.array_oid).register(connection.connection)


def remember(aliases: int, servers: int) -> None:
    """Have so many aliases remembered, and so many servers have been reached."""
    from django_pg_hot_async._core.runtime import nothing_known, runtime
    from django_pg_hot_async._core.server import Server

    snapshot = nothing_known()
    for number in range(aliases):
        alias = runtime.alias(f"alias {number}")
        alias.arrive(Server(180000, "10.0.0.1", "5432", "shop"))
    alias = runtime.alias("default")
    for number in range(servers):
        server = Server(180000, "10.0.0.1", "5432", f"tenant {number}")
        alias.arrive(server)
        alias.learn(server, snapshot)
