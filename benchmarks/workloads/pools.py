"""psycopg pools of a project's own."""

from __future__ import annotations

from typing import Any

from django.db import connection as _connection
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from benchmarks.measures import Run

from .clocks import timed_in_loop

connection: Any = _connection

WHERE = ("host", "port", "user", "dbname")


def conninfo() -> str:
    """Return where Django's default alias leads, for libpq."""
    where = connection.get_connection_params()
    return make_conninfo(**{name: where[name] for name in WHERE})


def getconn_and_putconn(configure: bool = False) -> Run:
    """A connection out of an `AsyncConnectionPool` and back."""
    from django_pg_hot_async import pool as hooks

    where = conninfo()
    opened: list[AsyncConnectionPool[Any]] = []

    async def open_pool() -> AsyncConnectionPool[Any]:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            where,
            kwargs={"autocommit": True},
            min_size=1,
            max_size=2,
            open=False,
            configure=hooks.aconfigure("shop") if configure else None,
        )
        await pool.open(wait=True)
        opened.append(pool)
        return pool

    async def once() -> None:
        pool = opened[0] if opened else await open_pool()
        await pool.putconn(await pool.getconn())

    return timed_in_loop(once)
