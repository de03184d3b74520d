"""The same OIDs for other types: where a stale one does not even fail.

Three servers of one version. Where blue has hstore, one has ``citext[]`` and the
other an enum; a pooler moves open connections among them.
"""

from __future__ import annotations

import psycopg
import pytest
from django.db import DataError, connections

from django_pg_hot_async import pool
from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .scenarios import (
    ANVIL,
    CITEXT,
    HSTORE,
    KINDS,
    MOOD,
    TABLE,
    ask_for,
    connection,
    create_at,
    database,
    find_oid,
    lead,
    trust,
)

pytestmark = pytest.mark.pgbouncer

COLUMNS = ("attrs", "tags", "feels")
SELECT = "select attrs, tags, feels from product where name = 'anvil'"
ROW = (ANVIL["attrs"], ANVIL["tags"], "ok")


@pytest.fixture(scope="module")
def servers():
    """Blue, and the two whose OIDs collide with its hstore."""
    with (
        PostgreSQL(18, next_oid=60_000) as blue,
        PostgreSQL(18) as arrays,
        PostgreSQL(18) as enums,
    ):
        for server in (blue, arrays, enums):
            server.create_database("shop")
        for statement in (HSTORE, CITEXT, MOOD):
            blue.execute(statement, dbname="shop")
        hstore = find_oid(blue, "hstore")
        create_at(arrays, CITEXT, "citext[]", hstore)
        create_at(enums, MOOD, "mood", hstore)
        for server, rest in ((arrays, (MOOD, HSTORE)), (enums, (HSTORE, CITEXT))):
            for statement in rest:
                server.execute(statement, dbname="shop")
        for server in (blue, arrays, enums):
            server.execute(TABLE, dbname="shop")
        yield blue, arrays, enums


@pytest.fixture
def moving(servers):
    """The default alias by PgBouncer; a function that moves it round the servers."""
    with PgBouncer(servers[0], "shop") as bouncer:
        lead(
            "default",
            database(bouncer.database(), KINDS["C2"], server_side_binding=True),
        )
        turns = iter([*servers[1:], servers[0], servers[2], servers[1], servers[0]])
        yield lambda: bouncer.switch(next(turns))
        connection.close()


def test_auto_on_one_cursor_that_runs_one_query_again(moving):
    with trust("auto"), connection.cursor() as cursor:
        for _ in range(6):
            cursor.execute(SELECT)
            assert cursor.fetchall() == [ROW]
            cursor.execute(
                "select %s -> 'a', %s = array['X']::citext[]", [{"a": "1"}, ["x"]]
            )
            assert cursor.fetchone() == ("1", True)
            moving()
        cursor.execute(SELECT)
        assert cursor.fetchall() == [ROW]


def test_auto_in_a_loop_over_cursors(moving):
    with trust("auto"):
        for _ in range(6):
            assert ask_for(SELECT) == ROW
            moving()
            assert ask_for("select pg_typeof(%s)::text", [{}]) == ("hstore",)


def test_auto_takes_a_result_that_was_there_before_the_move(moving):
    """Loaders are chosen when a result arrives, not when it is fetched."""
    with trust("auto"), connection.cursor() as cursor:
        cursor.execute(SELECT)
        moving()
        assert ask_for(SELECT) == ROW
        assert cursor.fetchone() == ROW


@pytest.mark.parametrize("level", ["auto", "transaction"])
def test_requests_of_several_statements(moving, level):
    with trust(level):
        for _ in range(6):
            for _ in range(2):
                KINDS["C2"].request(lambda: check(ask_for(SELECT)))
            moving()
        KINDS["C2"].request(lambda: check(ask_for(SELECT)))


def check(row):
    assert row == ROW


def test_connection_trust_is_not_enough_and_heals(moving):
    """What the documentation says it cannot know; what it notices for nothing."""
    with trust("connection"):
        assert ask_for(SELECT) == ROW
        moving()
        # citext[] where hstore was: it does not parse, which is evidence.
        tags = "select tags from product where name = 'anvil'"
        with pytest.raises(DataError, match="error parsing hstore"):
            ask_for(tags)
        assert ask_for(tags) == ROW[1:2]
        assert ask_for(SELECT) == ROW


def test_connection_trust_notices_an_oid_it_does_not_know(moving):
    with trust("connection"):
        assert ask_for(SELECT) == ROW
        moving()
        assert ask_for("select attrs from product where name = 'anvil'") == ROW[:1]
        assert ask_for(SELECT) == ROW


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_a_connection_of_ones_own(servers, pool_mode):
    blue, *others = servers
    with PgBouncer(blue, "shop", pool_mode=pool_mode) as bouncer:
        for server in (*others, blue):
            with psycopg.connect(
                bouncer.conninfo(), autocommit=True, prepare_threshold=None
            ) as conn:
                pool.configure("mine")(conn)
                assert conn.execute(SELECT).fetchone() == ROW
                if pool_mode == "transaction":
                    bouncer.switch(server)
                    assert conn.execute(SELECT).fetchone() == ROW
            if pool_mode == "session":
                bouncer.switch(server)


def test_django_alone_returns_wrong_rows_without_an_error(servers, moving, without_app):
    """The silent kind: a list where there should be a dict, and the reverse."""
    assert ask_for(SELECT) == ROW
    moving()
    row = ask_for("select attrs from product where name = 'anvil'")
    assert row != ROW[:1] and isinstance(row[0], str)


def test_tenants_by_the_dozen_behind_one_alias(servers):
    """Each in a database of its own, with OIDs of its own."""
    [server, *_] = servers
    names = [f"tenant_{number}" for number in range(24)]
    for number, name in enumerate(names):
        server.create_database(name)
        order = (HSTORE, CITEXT, MOOD)
        for statement in (*order[number % 3 :], *order[: number % 3]):
            server.execute(statement, dbname=name)
        server.execute(TABLE, dbname=name)
    try:
        for level in ("server", "connection"):
            with trust(level):
                for name in [*names, *names]:
                    lead("default", database(server.database(name), KINDS["C1"]))
                    assert ask_for(SELECT) == ROW
                    connection.close()
    finally:
        connections["default"].close()
        for name in names:
            server.drop_database(name)
