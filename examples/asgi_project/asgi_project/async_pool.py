"""The project's own pool of async connections, for SQL without the ORM.

A pool belongs to the event loop it was opened in, and a worker has one loop: so each
worker has a pool. `asgi_project.asgi` opens and closes it with the worker where the
web server tells of that (ASGI's lifespan: uvicorn, granian, hypercorn). Where it does
not (daphne), the first query opens it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from django.db import connections
from psycopg import AsyncConnection, OperationalError
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from django_pg_hot_async import pool

Row: TypeAlias = dict[str, Any]

configure = pool.aconfigure("default")
"""Has each new connection tracked: its values are decoded right, whichever server it
leads to. Nothing is sent."""

# What libpq needs, of all that Django knows.
_LIBPQ = {"service", "host", "port", "dbname", "user", "password"}
_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnectionPool[Any]] = (
    WeakKeyDictionary()
)


@asynccontextmanager
async def connection() -> AsyncIterator[AsyncConnection[Row]]:
    """Lend a connection, in autocommit: each statement is a transaction."""
    pool = await open_pool()
    async with pool.connection() as connection:
        yield connection


async def open_pool() -> AsyncConnectionPool[AsyncConnection[Row]]:
    """Open the running loop's pool, if it is not open, and return it.

    Connecting goes on in the background: a worker starts without its database, too.
    """
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _pools[loop] = _make()
    pool = _pools[loop]
    await pool.open()
    return pool


async def close_pool() -> None:
    """Close the running loop's pool, if it has one."""
    pool = _pools.pop(asyncio.get_running_loop(), None)
    if pool is not None:
        await pool.close()


def _make() -> AsyncConnectionPool[Any]:
    # The route to the database is told once, in DATABASES.
    parameters = connections["default"].get_connection_params()
    return AsyncConnectionPool(
        kwargs={
            **{name: parameters[name] for name in _LIBPQ & parameters.keys()},
            # None: a transaction pooler may not know what was prepared elsewhere.
            "prepare_threshold": parameters["prepare_threshold"],
            "row_factory": dict_row,
            # Whoever needs a transaction begins it: `connection.transaction()`.
            "autocommit": True,
        },
        configure=configure,
        check=_check,
        min_size=1,
        max_size=4,
        timeout=30,
        name="async",
        open=False,
    )


async def _check(connection: AsyncConnection[Row]) -> None:
    """Refuse a connection that has ended, and look after the others at once.

    As `asgi_project.pools.check_connection` does, and for the same reason.
    """
    try:
        await AsyncConnectionPool.check_connection(connection)
    except OperationalError:
        await _pools[asyncio.get_running_loop()].check()
        raise
