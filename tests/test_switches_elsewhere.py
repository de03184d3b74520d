"""The switches, by connections that are not Django's own: C5, C6 and C7."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore
from psycopg_pool import (
    AsyncConnectionPool,
    AsyncNullConnectionPool,
    ConnectionPool,
    NullConnectionPool,
)

from django_pg_hot_async import pool
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, ServiceFile

from . import scenarios
from .scenarios import (
    ANVIL,
    ORDERS,
    WrongRow,
    check_row,
    connections,
    create_types,
    drop_types,
    is_of_oids,
    own_database,
    settle,
    trust,
)

try:
    from django_async_backend.db import async_connections, async_new_connection
except ImportError:
    async_connections = None

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ARRIVES = "select %s -> 'weight', pg_typeof(%s)::text, pg_typeof(%s)::text"
PARAMS = [ANVIL["attrs"], ANVIL["attrs"], ANVIL["parts"]]
ARRIVED = ("9 kg", "hstore", "hstore[]")
OPTIONS: dict[str, Any] = {"min_size": 0, "max_size": 2, "timeout": 10}


def check_answers(row: Any, arrived: Any) -> None:
    check_row(dict(zip(ANVIL, row, strict=True)))
    if arrived != ARRIVED:
        raise WrongRow(f"arrived as {arrived!r}")


class Elsewhere:
    """A kind of connection; `open` yields one, as a request would get it."""

    async def start(self, target: dict[str, Any], hooks: bool) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        pass

    async def settle(self) -> None:
        """Wait until a pool has made the connections that it is making."""

    def open(self) -> Any:
        raise NotImplementedError

    async def work(self, connection: Any) -> None:
        """Read a row, and send parameters by server-side binding."""
        cursor = await connection.execute(SELECT)
        row = await cursor.fetchone()
        cursor = await connection.execute(ARRIVES, PARAMS)
        check_answers(row, await cursor.fetchone())

    async def request(self) -> None:
        async with self.open() as connection:
            await self.work(connection)


class AsyncBackend(Elsewhere):
    """C5: django-async-backend, by its cursors and its ORM."""

    pool: Any = None

    async def start(self, target: dict[str, Any], hooks: bool) -> None:
        options = {**target.get("OPTIONS", {}), "server_side_binding": True}
        if self.pool:
            options["pool"] = self.pool
        engine = "django_async_backend.db.backends.postgresql"
        scenarios.lead(
            "default",
            {
                **target,
                "ENGINE": engine,
                "CONN_HEALTH_CHECKS": True,
                "OPTIONS": options,
            },
        )
        async_connections.settings["default"] = connections.settings["default"]

    async def stop(self) -> None:
        async with async_new_connection():
            await async_connections["default"].close_pool()

    @contextlib.asynccontextmanager
    async def open(self) -> Any:
        async with async_new_connection():
            yield async_connections["default"]

    async def work(self, connection: Any) -> None:
        async with await connection.cursor() as cursor:
            await cursor.execute(SELECT)
            row = await cursor.fetchone()
            await cursor.execute(ARRIVES, PARAMS)
            check_answers(row, await cursor.fetchone())


class AsyncBackendPooled(AsyncBackend):
    """C6: django-async-backend with its pool."""

    pool: Any = OPTIONS

    async def settle(self) -> None:
        async with async_new_connection():
            await asyncio.to_thread(settle, async_connections["default"].pool.get_stats)


class OwnAsyncPool(Elsewhere):
    """C7: a project's own `AsyncConnectionPool`, with the hook."""

    pool_class: Any = AsyncConnectionPool
    options = OPTIONS
    autocommit = False
    pool: Any = None

    async def start(self, target: dict[str, Any], hooks: bool) -> None:
        known = None if hooks else Known(target)
        self.pool = self.pool_class(
            conninfo_of(target),
            configure=pool.aconfigure("shop") if known is None else known.aregister,
            check=self.pool_class.check_connection,
            kwargs={"prepare_threshold": None, "autocommit": self.autocommit},
            open=False,
            **self.options,
        )
        await self.pool.open()

    async def stop(self) -> None:
        if self.pool is not None:
            await self.pool.close()

    async def settle(self) -> None:
        await asyncio.to_thread(settle, self.pool.get_stats)

    def open(self) -> Any:
        return self.pool.connection()


class OwnAsyncNullPool(OwnAsyncPool):
    """C7: `AsyncNullConnectionPool`."""

    pool_class: Any = AsyncNullConnectionPool
    options: dict[str, Any] = {"max_size": 2, "timeout": 10}  # noqa: RUF012


class OwnAsyncAutocommitPool(OwnAsyncPool):
    """C7: `AsyncConnectionPool` in autocommit: each statement is a transaction."""

    autocommit = True


class OwnPool(Elsewhere):
    """C7: a project's own `ConnectionPool`, with the hook."""

    pool_class: Any = ConnectionPool
    options = OPTIONS
    autocommit = False
    pool: Any = None

    async def start(self, target: dict[str, Any], hooks: bool) -> None:
        known = None if hooks else Known(target)
        self.pool = self.pool_class(
            conninfo_of(target),
            configure=pool.configure("shop") if known is None else known.register,
            check=self.pool_class.check_connection,
            kwargs={"prepare_threshold": None, "autocommit": self.autocommit},
            open=True,
            **self.options,
        )

    async def stop(self) -> None:
        if self.pool is not None:
            self.pool.close()

    async def settle(self) -> None:
        await asyncio.to_thread(settle, self.pool.get_stats)

    @contextlib.asynccontextmanager
    async def open(self) -> Any:
        with self.pool.connection() as connection:
            yield connection

    async def work(self, connection: Any) -> None:
        row = connection.execute(SELECT).fetchone()
        check_answers(row, connection.execute(ARRIVES, PARAMS).fetchone())


class OwnAutocommitPool(OwnPool):
    """C7: `ConnectionPool` in autocommit."""

    autocommit = True


class OwnNullPool(OwnPool):
    """C7: `NullConnectionPool`."""

    pool_class: Any = NullConnectionPool
    options: dict[str, Any] = {"max_size": 2, "timeout": 10}  # noqa: RUF012


class OwnConnection(Elsewhere):
    """C7: plain `AsyncConnection`s of a project's own, one a request."""

    async def start(self, target: dict[str, Any], hooks: bool) -> None:
        self._conninfo = conninfo_of(target)
        self._configure = pool.aconfigure("shop") if hooks else Known(target).aregister

    @contextlib.asynccontextmanager
    async def open(self) -> Any:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, prepare_threshold=None
        )
        async with connection:
            await self._configure(connection)
            yield connection


class Known:
    """Types read once and registered on each connection: what people do without us."""

    def __init__(self, target: dict[str, Any]) -> None:
        with psycopg.connect(conninfo_of(target)) as connection:
            self.hstore = TypeInfo.fetch(connection, "hstore")
            self.citext = TypeInfo.fetch(connection, "citext")

    def register(self, connection: Any) -> None:
        if self.hstore and self.citext:
            register_hstore(self.hstore, connection)
            self.citext.register(connection)

    async def aregister(self, connection: Any) -> None:
        self.register(connection)


def conninfo_of(target: dict[str, Any]) -> str:
    names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
    params = {names[key]: value for key, value in target.items() if key in names}
    return psycopg.conninfo.make_conninfo(
        **params, **{"service": target["OPTIONS"]["service"]} if not params else {}
    )


class Stage:
    """The servers, and a kind led to one of them."""

    def __init__(self, kind: Elsewhere, hooks: bool, **servers: Any) -> None:
        self.kind = kind
        self.hooks = hooks
        self.blue: PostgreSQL = servers["blue"]
        self.green: PostgreSQL = servers["green"]
        self.twin: PostgreSQL = servers["twin"]
        self.service: ServiceFile = servers["service"]

    async def lead(self, target: dict[str, Any]) -> None:
        await self.kind.start(target, self.hooks)

    def by_service(self, server: Any) -> None:
        self.service.point("shop", server, "shop")

    async def cut_over(self, old: PostgreSQL, new: PostgreSQL) -> None:
        """Have new connections reach *new*, and end those to *old*."""
        await self.kind.settle()
        self.by_service(new)
        old.terminate("shop")


async def s1_other_version(stage: Stage) -> None:
    stage.by_service(stage.blue)
    await stage.lead(stage.service.database("shop"))
    await stage.kind.request()
    await stage.cut_over(stage.blue, stage.green)
    await stage.kind.request()
    await stage.kind.request()


async def s2_moved_alive(stage: Stage) -> None:
    with PgBouncer(stage.blue, "shop") as bouncer:
        await stage.lead(bouncer.database())
        await stage.kind.request()
        for server in (stage.green, stage.twin, stage.blue):
            await asyncio.to_thread(bouncer.switch, server)
            await stage.kind.request()
            await stage.kind.request()
        await stage.kind.stop()


async def s2_moved_within_a_request(stage: Stage) -> None:
    with PgBouncer(stage.blue, "shop") as bouncer:
        await stage.lead(bouncer.database())
        for server in (stage.green, stage.twin, stage.blue):
            async with stage.kind.open() as connection:
                await stage.kind.work(connection)
                if hasattr(connection, "commit"):
                    await_maybe = connection.commit()
                    if asyncio.iscoroutine(await_maybe):
                        await await_maybe
                await asyncio.to_thread(bouncer.switch, server)
                await stage.kind.work(connection)
        await stage.kind.stop()


async def s3_same_version(stage: Stage) -> None:
    with PgBouncer(stage.green, "shop", pool_mode="session") as bouncer:
        await stage.lead(bouncer.database())
        await stage.kind.request()
        await asyncio.to_thread(
            functools.partial(bouncer.switch, stage.twin, kill=True)
        )
        await stage.kind.request()
        await stage.kind.request()
        await stage.kind.stop()


async def s4_extension_anew(stage: Stage) -> None:
    with own_database(stage.green, "s4", ORDERS["blue"]):
        await stage.lead(stage.green.database("s4"))
        await stage.kind.request()
        drop_types(stage.green, "s4")
        create_types(stage.green, "s4", ORDERS["green"])
        await stage.kind.request()
        await stage.kind.request()
        await stage.kind.stop()


async def s5_two_at_once(stage: Stage) -> None:
    stage.by_service(stage.blue)
    await stage.lead(stage.service.database("shop"))
    async with stage.kind.open() as to_blue:
        await stage.kind.work(to_blue)
        stage.by_service(stage.green)
        async with stage.kind.open() as to_green:
            for _ in range(3):
                await stage.kind.work(to_green)
                await stage.kind.work(to_blue)
    for _ in range(3):
        await stage.kind.request()


async def s6_roll_back(stage: Stage) -> None:
    await s1_other_version(stage)
    await stage.cut_over(stage.green, stage.blue)
    await stage.kind.request()
    await stage.kind.request()


async def s7_created_late(stage: Stage) -> None:
    with own_database(stage.green, "s7", []):
        await stage.lead(stage.green.database("s7"))
        async with stage.kind.open():
            pass
        create_types(stage.green, "s7", ORDERS["green"])
        await stage.kind.request()
        await stage.kind.request()
        await stage.kind.stop()


async def s8_two_databases(stage: Stage) -> None:
    """One label, two databases of other OIDs, connections to both."""
    with own_database(stage.green, "tenant", ORDERS["blue"]):
        kinds = stage.kind, type(stage.kind)()
        for kind, name in zip(kinds, ("shop", "tenant"), strict=True):
            await kind.start(stage.green.database(name), stage.hooks)
            await kind.request()
            if isinstance(kind, AsyncBackend):
                await kind.stop()
        for kind in (*kinds, *kinds):
            await kind.request()
        for kind in kinds:
            await kind.stop()


SWITCHES: dict[str, tuple[Callable[[Stage], Any], tuple[str, ...]]] = {
    "S1": (s1_other_version, ("auto", "server", "connection", "transaction")),
    "S2": (s2_moved_alive, ("auto", "transaction")),
    "S2mid": (s2_moved_within_a_request, ("auto", "transaction")),
    "S3": (s3_same_version, ("auto", "connection", "transaction")),
    "S4": (s4_extension_anew, ("auto", "connection", "transaction")),
    "S5": (s5_two_at_once, ("auto", "connection", "transaction")),
    "S6": (s6_roll_back, ("auto", "server", "connection", "transaction")),
    "S7": (s7_created_late, ("auto", "server", "connection", "transaction")),
    "S8": (s8_two_databases, ("auto", "server", "connection", "transaction")),
}
KINDS = {
    "C5": AsyncBackend,
    "C6": AsyncBackendPooled,
    "C7-async-pool": OwnAsyncPool,
    "C7-async-autocommit-pool": OwnAsyncAutocommitPool,
    "C7-async-null-pool": OwnAsyncNullPool,
    "C7-async-connection": OwnConnection,
    "C7-pool": OwnPool,
    "C7-autocommit-pool": OwnAutocommitPool,
    "C7-null-pool": OwnNullPool,
}


def cells(levels: bool) -> list[Any]:
    found = []
    for code, (switch, trusts) in SWITCHES.items():
        for name, kind in KINDS.items():
            if not levels and (code, name[:2]) == ("S8", "C7"):
                # What is registered by hand is the pool's own already.
                continue
            marks = []
            if code[:2] in ("S2", "S3"):
                marks.append(pytest.mark.pgbouncer)
            if issubclass(kind, AsyncBackend) and async_connections is None:
                reason = "django-async-backend needs Django 6.1 and Python 3.12"
                marks.append(pytest.mark.skip(reason))
            for level in trusts if levels else ("",):
                found.append(
                    pytest.param(
                        switch,
                        kind,
                        *([level] if levels else []),
                        id="-".join([code, name, level]).rstrip("-"),
                        marks=marks,
                    )
                )
    return found


@pytest.fixture
def stage_of(blue, green, twin, service):
    return functools.partial(Stage, blue=blue, green=green, twin=twin, service=service)


async def play(switch: Any, stage: Stage) -> None:
    try:
        await switch(stage)
    finally:
        await stage.kind.stop()


@pytest.mark.parametrize(("switch", "kind", "level"), cells(True))
async def test_switch_is_survived(switch, kind, level, stage_of):
    with trust(level):
        await play(switch, stage_of(kind(), True))


@pytest.mark.parametrize(("switch", "kind"), cells(False))
async def test_switch_breaks_the_others(switch, kind, stage_of, without_app):
    """Without the app, and with types that were read once and registered."""
    with pytest.raises(Exception) as caught:
        await play(switch, stage_of(kind(), False))
    # With django.contrib.postgres, django-async-backend cannot even connect.
    broken = isinstance(caught.value, (WrongRow, SynchronousOnlyOperation))
    assert broken or is_of_oids(caught.value)
