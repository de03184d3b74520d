"""On an AsyncConnection: resolving works, and all that is asked is awaited."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._django import connections as tracked_connections

from .scenarios import ANVIL, READ

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())


@pytest.fixture
async def aconn(green):
    conn = await psycopg.AsyncConnection.connect(green.conninfo("shop"))
    tracked_connections.track(conn, "default")
    yield conn
    await conn.close()


async def test_rows_and_parameters(aconn, green):
    with green.statements() as statements:
        cursor = await aconn.execute(SELECT)
        assert await cursor.fetchone() == ROW
        cursor = await aconn.execute("select %s -> 'a'", [{"a": "1"}])
        assert await cursor.fetchone() == ("1",)
    assert len([text for text in statements if READ in text]) == 1


async def test_server_cursor_and_stream(aconn):
    async with aconn.cursor("by_name") as cursor:
        await cursor.execute(SELECT)
        assert await cursor.fetchone() == ROW
    assert [row async for row in aconn.cursor().stream(SELECT)] == [ROW]


async def test_executemany_as_first_use(aconn):
    async with aconn.cursor() as cursor:
        await cursor.executemany(
            "insert into product (name, attrs) values ('many', %s) returning attrs",
            [[{"n": "0"}], [{"n": "1"}]],
            returning=True,
        )
        assert await cursor.fetchone() == ({"n": "0"},)
    await aconn.rollback()


@pytest.mark.parametrize("params", [None, [{"a": "1"}]], ids=["result", "parameter"])
async def test_a_server_that_hangs_does_not_hold_the_loop(aconn, green, params):
    """Whoever waits can stop waiting; the server was asked, so it goes on."""
    await aconn.execute("select 1")
    state = state_of(aconn)
    assert state is not None and state.snapshot is None
    beats = 0
    green.suspend()
    try:
        sql = SELECT if params is None else "select %s -> 'a'"
        task = asyncio.ensure_future(aconn.execute(sql, params))
        for _ in range(20):
            await asyncio.sleep(0.01)
            beats += 1
        assert not task.done() and beats == 20
    finally:
        green.resume()
    assert await (await task).fetchone() == (ROW if params is None else ("1",))


async def test_a_lost_connection_is_the_databases_own_error(aconn, green):
    await aconn.execute("select 1")
    green.terminate("shop")
    with pytest.raises(psycopg.OperationalError, match=r"terminating|closed|lost"):
        await aconn.execute("select %s", [{"a": "1"}])


async def test_the_read_fails_as_the_database_says(aconn):
    """And the transaction is aborted, as by any statement that fails."""
    await aconn.execute("set local statement_timeout = 1")
    await aconn.execute("set local lock_timeout = 1")
    other = await psycopg.AsyncConnection.connect(aconn.info.dsn)
    async with other:
        await other.execute("lock table pg_catalog.pg_type in access exclusive mode")
        with pytest.raises(psycopg.errors.OperationalError):
            await aconn.execute("select %s", [{"a": "1"}])
        assert aconn.info.transaction_status is (psycopg.pq.TransactionStatus.INERROR)
        await other.rollback()
    await aconn.rollback()
    cursor = await aconn.execute(SELECT)
    assert await cursor.fetchone() == ROW
