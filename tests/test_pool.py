"""The hooks for psycopg pools; the switches are in test_switches_elsewhere.py."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
import psycopg
import pytest
from django.test.utils import override_settings
from psycopg.pq import TransactionStatus
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import JsonbDumper
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from django_pg_hot_async import forget, pool, register_type
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections

from .scenarios import (
    ANVIL,
    KINDS,
    ORDERS,
    READ,
    ask_for,
    connection,
    create_types,
    database,
    drop_types,
    has_binary_hstore,
    lead,
    own_database,
    trust,
)

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())


def reads(statements):
    return len([text for text in statements if READ in text])


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("level", ["auto", "server", "connection"])
def test_configure_sends_nothing(green, autocommit, level):
    """The connection is left as it was; the first statement has the types read."""
    with (
        trust(level),
        psycopg.connect(green.conninfo("shop"), autocommit=autocommit) as conn,
    ):
        with green.statements() as statements:
            pool.configure("mine")(conn)
        assert statements == []
        assert conn.info.transaction_status is TransactionStatus.IDLE
        with green.statements() as statements:
            assert conn.execute(SELECT).fetchone() == ROW
            assert conn.execute("select %s -> 'a'", [{"a": "1"}]).fetchone() == ("1",)
        assert reads(statements) == 1
    assert runtime.aliases.keys() == {"mine"}


async def test_aconfigure_sends_nothing(green):
    async with await psycopg.AsyncConnection.connect(green.conninfo("shop")) as conn:
        with green.statements() as statements:
            await pool.aconfigure("mine")(conn)
        assert statements == []
        assert conn.info.transaction_status is TransactionStatus.IDLE
        with green.statements() as statements:
            assert await (await conn.execute(SELECT)).fetchone() == ROW
        assert reads(statements) == 1


@pytest.mark.parametrize("what", [object(), None, "postgresql:///shop"])
def test_configure_of_what_is_no_connection(what):
    message = f"pool.{{}}('mine') was called with {what!r}; it wants a psycopg.{{}}"
    with pytest.raises(TypeError) as caught:
        pool.configure("mine")(what)
    assert str(caught.value) == message.format("configure", "Connection")
    with pytest.raises(TypeError) as caught:
        pool.aconfigure("mine")(what)  # Before it is awaited.
    assert str(caught.value) == message.format("aconfigure", "AsyncConnection")
    assert runtime.aliases == {}


@pytest.mark.parametrize(
    ("hook", "other", "kind"),
    [
        (pool.configure, "aconfigure", AsyncConnectionPool),
        (pool.aconfigure, "configure", ConnectionPool),
    ],
)
def test_the_hook_of_the_other_pool(green, caplog, hook, other, kind):
    """The pool logs what the hook raises, and nothing but that tells what is wrong."""
    conninfo = green.conninfo("shop")
    mine = kind(conninfo, configure=hook("mine"), min_size=1, open=False)

    def open_it():
        with mine:
            mine.wait(0.2)

    async def open_async():
        async with mine:
            await mine.wait(0.2)

    is_async = kind is AsyncConnectionPool
    with pytest.raises(PoolTimeout):
        asyncio.run(open_async()) if is_async else open_it()
    assert f"use pool.{other}('mine')" in caplog.text


@pytest.mark.parametrize("name", pool.__all__)
def test_the_hook_is_what_a_call_returns(name):
    with pytest.raises(TypeError, match=rf'configure=pool.{name}\("shop"\); got <obj'):
        getattr(pool, name)(object())


class SqlAlchemyProxy:
    """As SQLAlchemy's ``_ConnectionFairy``: everything else is the inner one's."""

    def __init__(self, inner: Any) -> None:
        self.dbapi_connection = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dbapi_connection, name)


class AwsProxy:
    """As the AWS wrapper's: what it does not know it does not hand on."""

    def __init__(self, inner: Any) -> None:
        self.target_connection = inner


class PlainProxy:
    def __init__(self, inner: Any) -> None:
        self._connection = inner


@pytest.mark.parametrize("outer", [SqlAlchemyProxy, AwsProxy, PlainProxy])
@pytest.mark.parametrize("inner", [lambda one: one, SqlAlchemyProxy, PlainProxy])
def test_configure_of_what_stands_in_front_of_a_connection(green, outer, inner):
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(outer(inner(conn)))
        assert state_of(conn) is not None
        assert conn.execute(SELECT).fetchone() == ROW
        assert conn.execute("select %s -> 'a'", [{"a": "1"}]).fetchone() == ("1",)


def test_configure_twice_is_once(green):
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(conn)
        state = state_of(conn)
        pool.configure("mine")(conn)
        assert state_of(conn) is state


@pytest.mark.parametrize("name", pool.__all__)
def test_hooks_can_be_pickled(name):
    """As settings are where Django's tests run in parallel, by "spawn"."""
    hook = getattr(pool, name)("mine")
    assert pickle.loads(pickle.dumps(hook)).args == ("mine",)


def test_a_connection_goes_with_the_last_reference(green):
    """And a result with its cursor: nobody waits for the garbage collector.

    Of an enum: with those of hstore and of arrays psycopg 3.2 has a cycle of its own.
    """
    register_type("mood", EnumInfo, register_enum)
    gc.disable()
    try:
        conn = psycopg.connect(green.conninfo("shop"), autocommit=True)
        pool.configure("mine")(conn)
        [[mood]] = conn.execute("select 'ok'::mood").fetchall()
        assert mood.name == "ok"
        gone = weakref.ref(conn)
        with pytest.warns(ResourceWarning):
            del conn
            assert gone() is None
    finally:
        gc.enable()


def test_a_checkout_that_the_pool_checks_asks_for_no_types(green):
    """psycopg's own check is what it was: an empty statement."""
    with ConnectionPool(
        green.conninfo("shop"),
        min_size=1,
        configure=pool.configure("mine"),
        check=ConnectionPool.check_connection,
    ) as own:
        own.wait()
        with own.connection() as conn:
            assert conn.execute(SELECT).fetchone() == ROW
        with green.statements() as statements:
            for _ in range(3):
                with own.connection():
                    pass
        assert reads(statements) == 0


async def test_a_connection_that_takes_the_place_of_a_lost_one(green):
    async with AsyncConnectionPool(
        green.conninfo("shop"),
        min_size=1,
        configure=pool.aconfigure("mine"),
        check=AsyncConnectionPool.check_connection,
        open=False,
    ) as own:
        await own.wait()
        green.terminate("shop")
        async with own.connection() as conn:
            cursor = await conn.execute(SELECT)
            assert await cursor.fetchone() == ROW


def test_configure_of_a_closed_connection(green):
    """It is left to whoever uses it next to meet that."""
    conn = psycopg.connect(green.conninfo("shop"))
    conn.close()
    with pytest.raises(psycopg.OperationalError):
        pool.configure("mine")(conn)
    assert state_of(conn) is None


def test_where_nothing_is_tracked(green):
    with (
        override_settings(INSTALLED_APPS=["django_pg_hot_async"]),
        psycopg.connect(green.conninfo("shop"), autocommit=True) as conn,
    ):
        with green.statements() as statements:
            pool.configure("mine")(conn)
            assert conn.execute("select 'a=>1'::hstore").fetchone() == ('"a"=>"1"',)
        assert reads(statements) == 0


def test_without_the_app_it_does_nothing(green, without_app):
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(conn)
        assert state_of(conn) is None
        assert conn.execute("select 'a=>1'::hstore").fetchone() == ('"a"=>"1"',)


def test_a_server_that_is_not_postgresql_is_left_alone(green, monkeypatch):
    monkeypatch.setattr(tracked_connections, "is_postgresql", lambda connection: False)
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        with green.statements() as statements:
            pool.configure("mine")(conn)
            conn.execute("select 1")
        assert state_of(conn) is None
        assert reads(statements) == 0


def test_forget_by_label(green):
    with (
        ConnectionPool(
            green.conninfo("shop"), min_size=1, configure=pool.configure("mine")
        ) as own,
        own.connection() as conn,
    ):
        state: Any = state_of(conn)
        assert conn.execute(SELECT).fetchone() == ROW
        assert state.snapshot is not None
        forget("mine")
        assert state.snapshot is None
        assert conn.execute(SELECT).fetchone() == ROW


def test_a_configure_that_fails_is_the_pools_to_report(green, monkeypatch):
    def failing(*args, **kwargs):
        raise psycopg.OperationalError("not now")

    monkeypatch.setattr(tracked_connections, "track", failing)
    with (
        ConnectionPool(
            green.conninfo("shop"),
            min_size=1,
            configure=pool.configure("mine"),
            timeout=0.5,
        ) as own,
        pytest.raises(PoolTimeout),
    ):
        own.wait(timeout=0.5)


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django 6.1 lets it be given")
def test_a_check_in_djangos_own_pool(green):
    check = ConnectionPool.check_connection
    options = {"pool": {"min_size": 1, "max_size": 1, "check": check}}
    lead("default", database(green.database("shop"), KINDS["C1"], **options))
    KINDS["C1"].read()
    with green.statements() as statements:
        for _ in range(3):
            assert ask_for(SELECT) == ROW
            connection.close()
    assert reads(statements) == 0


def test_a_settings_file_can_import_it():
    code = (
        "from django_pg_hot_async import pool; pool.configure('default');"
        "from django.conf import settings; assert not settings.configured"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names():
    assert pool.__all__ == ["aconfigure", "configure"]


def test_prepared_statements_are_dropped_with_the_oids_they_carry(green):
    """psycopg would go on executing them by name."""
    with (
        trust("transaction"),
        own_database(green, "anew", ORDERS["blue"]),
        psycopg.connect(
            green.conninfo("anew"), autocommit=True, prepare_threshold=0
        ) as conn,
    ):
        pool.configure("mine")(conn)
        query, params = "select %s -> 'a'", [{"a": "1"}]
        count = "select count(*) from pg_prepared_statements where statement ~ '->'"
        for _ in range(2):
            assert conn.execute(query, params).fetchone() == ("1",)
        assert conn.execute(count, prepare=False).fetchone() == (1,)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        for _ in range(3):
            assert conn.execute(query, params).fetchone() == ("1",)
        # The old one stays on the server for as long as the connection does.
        assert conn.execute(count, prepare=False).fetchone() == (2,)


def test_an_alias_that_is_off_is_left_alone(green):
    with (
        override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}),
        psycopg.connect(green.conninfo("shop"), autocommit=True) as conn,
        green.statements() as statements,
    ):
        pool.configure("default")(conn)
        assert conn.execute("select 'a=>1'::hstore").fetchone() == ('"a"=>"1"',)
        assert state_of(conn) is None
        assert reads(statements) == 0


def test_a_dumper_of_ones_own_goes_on_where_there_is_no_hstore(green):
    """The documentation's way to send a dict as jsonb."""
    green.create_database("bare")
    with psycopg.connect(green.conninfo("bare"), autocommit=True) as conn:
        conn.adapters.register_dumper(dict, JsonbDumper)
        for _ in range(2):
            assert conn.execute("select %s", [{"a": 1}]).fetchone() == ({"a": 1},)
            pool.configure("mine")(conn)
    green.drop_database("bare")


@has_binary_hstore
def test_threads_that_share_a_connection(green):
    """A row that is fetched waits for no other thread's query, and asks nothing."""
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(conn)
        end = time.monotonic() + 3
        done = [0, 0]

        def ask() -> None:
            while time.monotonic() < end:
                done[0] += 1
                answer = conn.execute("select %s::int8", [done[0]]).fetchone()
                assert answer == (done[0],)

        def fetch() -> None:
            # The fields of a record are looked up when it is fetched.
            cursor = conn.cursor(binary=True)
            while time.monotonic() < end:
                cursor.execute("select row(attrs, feels) from product")
                forget("mine")
                assert cursor.fetchone() == ((ANVIL["attrs"], b"ok"),)
                done[1] += 1

        with ThreadPoolExecutor(2) as threads:
            for result in [threads.submit(ask), threads.submit(fetch)]:
                result.result(60)
        assert min(done) > 10


@has_binary_hstore
def test_a_row_is_fetched_while_another_thread_holds_the_connection(green):
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(conn)
        cursor = conn.cursor(binary=True)
        cursor.execute("select row(attrs, feels) from product")
        forget("mine")
        with conn.lock, ThreadPoolExecutor(1) as threads:
            row = threads.submit(cursor.fetchone).result(10)
    assert row == ((ANVIL["attrs"], b"ok"),)


@has_binary_hstore
def test_a_row_that_is_fetched_while_others_arrive(green, caplog):
    """A stream that is under way holds the lock, in this very thread."""
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(conn)
        cursor = conn.cursor(binary=True)
        cursor.execute("select row(attrs, feels) from product")
        forget("mine")
        for _ in conn.cursor().stream("select generate_series(1, 3)"):
            row = cursor.fetchone()
            break
        assert row == ((ANVIL["attrs"], b"ok"),)
    assert caplog.text == ""
