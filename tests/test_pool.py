"""The hooks for psycopg pools; the switches are in test_switches_elsewhere.py."""

from __future__ import annotations

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

from django_pg_hot_async import _memory, forget, pool, register_type
from django_pg_hot_async._core.connection import state_of

from .scenarios import (
    ANVIL,
    KINDS,
    READ,
    ask_for,
    connection,
    database,
    has_binary_hstore,
    lead,
)

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())


def reads(statements):
    return len([text for text in statements if READ in text])


@pytest.mark.parametrize("autocommit", [False, True])
def test_configure_reads_once_and_leaves_the_connection_idle(green, autocommit):
    with psycopg.connect(green.conninfo("shop"), autocommit=autocommit) as conn:
        with green.statements() as statements:
            pool.configure("mine")(conn)
            assert conn.info.transaction_status is TransactionStatus.IDLE
            assert conn.execute(SELECT).fetchone() == ROW
            assert conn.execute("select %s -> 'a'", [{"a": "1"}]).fetchone() == ("1",)
        assert reads(statements) == 1
    assert _memory.aliases().keys() == {"mine"}


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


def test_check_is_one_round_trip_of_its_own(green):
    with (
        ConnectionPool(
            green.conninfo("shop"),
            min_size=1,
            configure=pool.configure("mine"),
            check=pool.check("mine"),
        ) as own,
    ):
        own.wait()
        with green.statements() as statements:
            for _ in range(3):
                with own.connection():
                    pass
        assert len(statements) == reads(statements) == 3


def test_check_without_configure_is_enough(green):
    with (
        ConnectionPool(
            green.conninfo("shop"), min_size=1, check=pool.check("mine")
        ) as own,
        own.connection() as conn,
    ):
        assert conn.execute(SELECT).fetchone() == ROW


async def test_acheck_finds_a_lost_connection(green):
    async with AsyncConnectionPool(
        green.conninfo("shop"),
        min_size=1,
        configure=pool.aconfigure("mine"),
        check=pool.acheck("mine"),
        open=False,
    ) as own:
        await own.wait()
        green.terminate("shop")
        async with own.connection() as conn:
            cursor = await conn.execute(SELECT)
            assert await cursor.fetchone() == ROW


def test_check_finds_a_closed_connection(green):
    conn = psycopg.connect(green.conninfo("shop"))
    pool.configure("mine")(conn)
    conn.close()
    with pytest.raises(psycopg.OperationalError):
        pool.check("mine")(conn)


async def test_acheck_finds_a_closed_connection(green):
    conn = await psycopg.AsyncConnection.connect(green.conninfo("shop"))
    await pool.aconfigure("mine")(conn)
    await conn.close()
    with pytest.raises(psycopg.OperationalError):
        await pool.acheck("mine")(conn)


def test_check_where_nothing_is_tracked(green):
    """It still finds out whether the connection lives."""
    with (
        override_settings(INSTALLED_APPS=["django_pg_hot_async"]),
        psycopg.connect(green.conninfo("shop"), autocommit=True) as conn,
    ):
        with green.statements() as statements:
            pool.check("mine")(conn)
        assert reads(statements) == 0
        green.terminate("shop")
        with pytest.raises(psycopg.OperationalError):
            pool.check("mine")(conn)


def test_a_server_that_is_not_postgresql_is_left_alone(green, monkeypatch):
    from django_pg_hot_async import _connections

    monkeypatch.setattr(_connections, "is_postgresql", lambda connection: False)
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        with green.statements() as statements:
            pool.configure("mine")(conn)
            pool.check("mine")(conn)
        assert link_of(conn) is None
        assert reads(statements) == 0


def test_forget_by_label(green):
    with (
        ConnectionPool(
            green.conninfo("shop"), min_size=1, configure=pool.configure("mine")
        ) as own,
        own.connection() as conn,
    ):
        link: Any = link_of(conn)
        assert link.snapshot is not None
        forget("mine")
        assert link.snapshot is None
        assert conn.execute(SELECT).fetchone() == ROW


def test_a_configure_that_fails_is_the_pools_to_report(green, monkeypatch):
    def failing(connection, alias):
        raise psycopg.OperationalError("not now")

    monkeypatch.setattr(pool, "_look_after", failing)
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
def test_check_in_djangos_own_pool(green):
    options = {"pool": {"min_size": 1, "check": pool.check("default")}}
    lead("default", database(green.database("shop"), KINDS["C1"], **options))
    KINDS["C1"].read()
    with green.statements() as statements:
        for _ in range(3):
            assert ask_for(SELECT) == ROW
            connection.close()
    assert reads(statements) == 3


def test_a_settings_file_can_import_it():
    code = (
        "from django_pg_hot_async import pool; pool.check('default');"
        "from django.conf import settings; assert not settings.configured"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names():
    assert pool.__all__ == ["acheck", "aconfigure", "check", "configure"]


def test_prepared_statements_are_dropped_with_the_oids_they_carry(green):
    """psycopg would go on executing them by name."""
    from .scenarios import ORDERS, create_types, drop_types, own_database

    with (
        own_database(green, "anew", ORDERS["blue"]),
        psycopg.connect(
            green.conninfo("anew"), autocommit=True, prepare_threshold=0
        ) as conn,
    ):
        pool.configure("mine")(conn)
        query, params = "select %s -> 'a'", [{"a": "1"}]
        assert conn.execute(query, params).fetchone() == ("1",)
        count = "select count(*) from pg_prepared_statements where statement ~ '->'"
        assert conn.execute(count, prepare=False).fetchone() == (1,)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        pool.check("mine")(conn)
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
        pool.check("default")(conn)
        assert link_of(conn) is None
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
    """A read for a row that is fetched waits for another thread's query."""
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
        assert row == ((ANVIL["attrs"], b"ok"),) or "cannot be verified" in caplog.text
