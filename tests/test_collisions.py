"""The same OIDs for other types: where a stale one does not even fail.

Three servers of one version. Where blue has hstore, one has ``citext[]`` and the
other an enum; a pooler moves open connections among them.
"""

from __future__ import annotations

import psycopg
import pytest
from django.db import DataError, connections

from django_pg_hot_async import pool
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, scatter_oids

from .scenarios import (
    ANVIL,
    CITEXT,
    HSTORE,
    KINDS,
    MOOD,
    TABLE,
    ask_for,
    connection,
    database,
    lead,
    trust,
)

pytestmark = pytest.mark.pgbouncer

COLUMNS = ("attrs", "tags", "feels")
SELECT = "select attrs, tags, feels from product where name = 'anvil'"
ROW = (ANVIL["attrs"], ANVIL["tags"], "ok")


def find_oid(server, name):
    [[oid]] = server.execute("select %s::regtype::oid::int8", [name], dbname="shop")
    return oid


def create_at(server, statement, name, oid):
    """Execute *statement*, at such a moment that the type *name* gets *oid*."""
    before = scatter_oids(server, "shop", 1)
    server.execute(statement, dbname="shop")
    distance = find_oid(server, name) - before
    kind, word = ("type", "mood") if "enum" in statement else ("extension", name[:6])
    server.execute(f"drop {kind} {word}", dbname="shop")
    now = scatter_oids(server, "shop", 1)
    scatter_oids(server, "shop", oid - distance - now)
    server.execute(statement, dbname="shop")
    assert find_oid(server, name) == oid


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


def test_result_trust_on_one_cursor_that_runs_one_query_again(moving):
    with trust("result"), connection.cursor() as cursor:
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


def test_result_trust_in_a_loop_over_cursors(moving):
    with trust("result"):
        for _ in range(6):
            assert ask_for(SELECT) == ROW
            moving()
            assert ask_for("select pg_typeof(%s)::text", [{}]) == ("hstore",)


def test_result_trust_takes_a_result_that_was_there_before_the_move(moving):
    """Loaders are chosen when a result arrives, not when it is fetched."""
    with trust("result"), connection.cursor() as cursor:
        cursor.execute(SELECT)
        moving()
        assert ask_for(SELECT) == ROW
        assert cursor.fetchone() == ROW


def test_checkout_trust_from_the_next_request_on(moving):
    with trust("checkout"):
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
def test_a_connection_of_ones_own_with_a_check(servers, pool_mode):
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
                    pool.check("mine")(conn)
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
