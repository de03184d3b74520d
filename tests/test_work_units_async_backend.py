"""Units of work on async connections: read where it can be awaited."""

from __future__ import annotations

import psycopg
import pytest

from django_pg_hot_async import _memory, forget, work_unit

from .scenarios import ANVIL, connections, lead, trust

try:
    from django_async_backend.db import async_connections, async_new_connection
except ImportError:
    pytest.skip(
        "django-async-backend needs Django 6.1 and Python 3.12",
        allow_module_level=True,
    )

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())
ENGINE = "django_async_backend.db.backends.postgresql"


@pytest.fixture
async def ask(green):
    """Ask over the one async connection that the block opens."""
    lead("default", {**green.database("shop"), "ENGINE": ENGINE})
    async_connections.settings["default"] = connections.settings["default"]

    async def ask():
        async with await async_connections["default"].cursor() as cursor:
            await cursor.execute(SELECT)
            return await cursor.fetchone()

    async with async_new_connection():
        yield ask


def counts():
    alias = _memory.alias("default")
    return alias.reads, alias.reads_in_loop


async def test_async_with(ask):
    with trust("checkout"):
        assert await ask() == ROW
        assert counts() == (1, 0)
        async with work_unit():
            assert counts() == (2, 0)
            assert await ask() == ROW
            assert await ask() == ROW
        assert counts() == (2, 0)


async def test_decorated_coroutine_function(ask):
    task = work_unit(ask)
    with trust("checkout"):
        assert await ask() == await task() == await task() == ROW
    assert counts() == (3, 0)


async def test_synchronous_with_leaves_the_read_to_the_next_cursor(ask):
    with trust("checkout"):
        assert await ask() == ROW
        with work_unit():
            assert counts() == (1, 0)
            assert await ask() == ROW
    assert counts() == (2, 0)


async def test_other_levels(ask):
    """What is not trusted any more is read; under "result" each result reads."""
    with trust("connection"):
        assert await ask() == ROW
        async with work_unit():
            assert await ask() == ROW
        assert counts() == (1, 0)
        forget("default")
        async with work_unit():
            assert await ask() == ROW
        assert counts() == (2, 0)
    with trust("result"):
        async with work_unit():
            assert counts() == (2, 0)


async def test_a_lost_connection_is_for_the_next_query_to_meet(ask, green):
    with trust("checkout"):
        assert await ask() == ROW
        green.terminate("shop")
        async with work_unit():
            with pytest.raises(Exception, match="the connection is closed") as caught:
                await ask()
    assert isinstance(caught.value.__cause__ or caught.value, psycopg.OperationalError)
