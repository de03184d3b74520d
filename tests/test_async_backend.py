"""C5, C6: django-async-backend beside django.contrib.postgres, the loop kept free."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import InternalError
from django.db.backends.signals import connection_created
from psycopg import waiting

from django_pg_hot_async import forget
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import startup

from .scenarios import (
    ANVIL,
    ORDERS,
    READ,
    check_row,
    close_all,
    connections,
    create_types,
    drop_types,
    lead,
    own_database,
    trust,
)
from .shop.models import Product

try:
    from django_async_backend.db import async_connections, async_new_connection

    from django_pg_hot_async._django import async_backend
except ImportError:
    pytest.skip(
        "django-async-backend needs Django 6.1 and Python 3.12",
        allow_module_level=True,
    )

model: Any = Product
SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())
ENGINE = "django_async_backend.db.backends.postgresql"
POOL = {"min_size": 1, "max_size": 4, "timeout": 10}


@pytest.fixture
async def shop(green):
    """Lead the default alias to a server; give options to add some."""

    def lead_to(target: dict[str, Any] | None = None, **options: Any) -> None:
        target = target or green.database("shop")
        options = {**target.get("OPTIONS", {}), **options}
        lead("default", {**target, "ENGINE": ENGINE, "OPTIONS": options})
        async_connections.settings["default"] = connections.settings["default"]

    lead_to()
    yield lead_to
    async with async_new_connection():
        await async_connections["default"].close_pool()


async def ask(sql: str = SELECT, params: Any = None) -> Any:
    async with (
        async_new_connection(),
        await async_connections["default"].cursor() as cursor,
    ):
        await cursor.execute(sql, params)
        return await cursor.fetchone()


async def test_orm(shop):
    async with async_new_connection():
        objects = model.async_objects
        check_row(await objects.values(*ANVIL).aget(name="anvil"))
        made = await objects.acreate(name="by the async ORM", **ANVIL)
        found = await objects.aget(pk=made.pk)
        check_row({name: getattr(found, name) for name in ANVIL})
        await objects.filter(pk=made.pk).adelete()


@pytest.mark.parametrize("binding", [False, True])
@pytest.mark.parametrize("pool", [None, POOL])
async def test_nothing_holds_the_loop(shop, green, binding, pool):
    """OIDs are read along with what is awaited, once; not at connect."""
    shop(server_side_binding=binding, **({"pool": pool} if pool else {}))
    with green.statements() as statements:
        if pool is None:
            async with async_new_connection():
                await async_connections["default"].ensure_connection()
        for _ in range(3):
            assert await ask() == ROW
            assert await ask("select %s -> 'a'", [{"a": "1"}]) == ("1",)
    asked = [text for text in statements if READ in text]
    # A new connection has it confirmed, in the message of what it sends first.
    assert len(asked) == (6 if pool is None else len({text.pid for text in asked}))
    assert runtime.alias("default").reads == 1


@pytest.mark.parametrize("pool", [None, {**POOL, "max_size": 1}])
async def test_server_trust_reads_once_a_server(shop, green, pool):
    shop(**({"pool": pool} if pool else {}))
    with trust("server"), green.statements() as statements:
        for _ in range(3):
            assert await ask() == ROW
    assert len([text for text in statements if READ in text]) == 1
    assert runtime.alias("default").reads == 1


@pytest.mark.parametrize("level", ["auto", "connection", "transaction"])
@pytest.mark.parametrize("pool", [None, POOL])
async def test_a_heartbeat_beside_200_connects_and_a_cutover(
    shop, service, blue, green, pool, level, record_property
):
    service.point("shop", blue, "shop")
    shop(service.database("shop"), **({"pool": pool} if pool else {}))
    gaps: list[float] = []

    async def heart() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            gaps.append((now := time.perf_counter()) - last)
            last = now

    with trust(level):
        beating = asyncio.create_task(heart())
        for number in range(200):
            if number == 100:
                service.point("shop", green, "shop")
                await asyncio.to_thread(blue.terminate, "shop")
            try:
                assert await ask() == ROW
            except psycopg.Error:
                assert number == 100
            except Exception as error:
                assert number in range(100, 105), error
        beating.cancel()
    record_property("longest gap, ms", max(gaps) * 1000)
    # Of each server, by whichever connections asked before the first had its answer.
    assert runtime.alias("default").reads == 2


@pytest.mark.parametrize("awaited", [True, False])
async def test_a_read_that_takes_long_does_not_hold_the_loop(
    shop, green, awaited, monkeypatch
):
    """One that is not awaited does: it is how this test is known to tell."""
    shop(pool={**POOL, "max_size": 1})
    gaps: list[float] = []

    async def heart() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            gaps.append((now := time.perf_counter()) - last)
            last = now

    async def hold(self: Any, gen: Any, interval: float = 0.1) -> Any:
        return waiting.wait(gen, self.pgconn.socket)

    with trust("transaction"), psycopg.connect(green.conninfo("shop")) as lock:
        assert await ask() == ROW
        lock.execute("lock table pg_type in access exclusive mode")
        release = threading.Timer(0.5, lock.rollback)
        beating = asyncio.create_task(heart())
        await asyncio.sleep(0.01)
        if not awaited:
            monkeypatch.setattr(psycopg.AsyncConnection, "wait", hold)
        release.start()
        forget("default")
        assert await ask() == ROW
        await asyncio.sleep(0.01)
        beating.cancel()
        await asyncio.to_thread(release.join)
    assert (max(gaps) < 0.4) is awaited


async def test_cancelled_in_the_middle_of_a_read(shop, green):
    """No connection is half registered, and none is lost to the pool."""
    shop(pool={**POOL, "max_size": 1})
    with trust("transaction"):
        assert await ask() == ROW
        lock = await psycopg.AsyncConnection.connect(green.conninfo("shop"))
        async with lock:
            await lock.execute("lock table pg_type in access exclusive mode")
            for _ in range(3):
                forget("default")  # A mere confirmation may not wait for the lock.
                task = asyncio.create_task(ask())
                await asyncio.sleep(0.1)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await lock.rollback()
        for _ in range(3):
            assert await ask() == ROW
            assert await ask("select %s -> 'a'", [{"a": "1"}]) == ("1",)


async def test_an_error_is_evidence_here_too(shop, green):
    with own_database(green, "anew", ORDERS["blue"]):
        shop(green.database("anew"), server_side_binding=True)
        async with async_new_connection():
            wrapper = async_connections["default"]
            async with await wrapper.cursor() as cursor:
                await cursor.execute("select %s -> 'a'", [{"a": "1"}])
                drop_types(green, "anew")
                create_types(green, "anew", ORDERS["green"])
                with pytest.raises(InternalError, match="cache lookup failed"):
                    await cursor.execute("select %s -> 'a'", [{"a": "1"}])
            state = state_of(wrapper.connection)
            assert state is not None and state.snapshot is None
            async with await wrapper.cursor() as cursor:
                await cursor.execute("select %s -> 'a'", [{"a": "1"}])
                assert await cursor.fetchone() == ("1",)


async def test_its_version_follows_the_server(shop, service, blue, green):
    service.point("shop", blue, "shop")
    shop(service.database("shop"))
    wrapper = async_connections["default"]
    assert await wrapper.pg_version() == blue.version
    service.point("shop", green, "shop")
    await wrapper.close()
    await wrapper.ensure_connection()
    assert await wrapper.pg_version() == green.version
    await wrapper.close()


async def test_its_connections_are_tracked_once_they_are_open(shop):
    async with async_new_connection():
        wrapper = async_connections["default"]
        await wrapper.ensure_connection()
        state = state_of(wrapper.connection)
        assert state is not None and state.notes_checkouts


class Unheard:
    """The wrapper of a backend that this package has never heard of."""

    vendor = "postgresql"
    alias = "default"

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection


@pytest.mark.parametrize("method", ["send", "asend"])
async def test_a_backend_never_heard_of(green, method):
    """The receiver is enough: what is asked travels with what is awaited."""
    connection = await psycopg.AsyncConnection.connect(green.conninfo("shop"))
    async with connection:
        wrapper = Unheard(connection)
        sent = getattr(connection_created, method)(sender=Unheard, connection=wrapper)
        if method == "asend":
            await sent
        with green.statements() as statements:
            for _ in range(2):
                cursor = await connection.execute(SELECT)
                assert await cursor.fetchone() == ROW
        assert len([text for text in statements if READ in text]) == 1
    assert runtime.alias("default").reads == 1


async def test_without_the_app_the_backend_cannot_connect(shop, without_app):
    shop()
    with pytest.raises(SynchronousOnlyOperation):
        await ask()
    close_all()


def test_canaries():
    wrapper: Any = vars(async_backend)["AsyncDatabaseWrapper"]
    places = [(patch, vars(wrapper)[patch.name]) for patch in async_backend.PATCHES]
    assert len(places) == 3
    for _, ours in places[:2]:
        assert ours.__module__ == async_backend.__name__
    assert vars(wrapper)["wrap_database_errors"].func is (
        async_backend.NoticingErrorWrapper
    )
    assert wrapper._pg_version is None
    startup.stop()
    try:
        startup.install()
        # They stay where they are, and are not wrapped twice.
        assert all(vars(wrapper)[patch.name] is ours for patch, ours in places)
    finally:
        startup.install()
