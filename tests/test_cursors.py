"""Cursors that live longer than trust, and connections whose errors Django misses."""

from __future__ import annotations

import enum
import sys
from contextlib import suppress

import psycopg
import pytest
from django.db import DatabaseError
from psycopg.pq import Format
from psycopg.types.enum import EnumInfo, register_enum

from django_pg_hot_async import forget, pool, register_type
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async.testing import PgBouncer

from .scenarios import (
    ANVIL,
    HSTORE,
    KINDS,
    ORDERS,
    READ,
    close_all,
    connection,
    create_types,
    database,
    drop_types,
    lead,
    own_database,
    trust,
)

# One object each, so that psycopg keeps what it made for the execution before.
SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())
SEND = "select %s -> 'weight', pg_typeof(%s)::text"
SENT = [ANVIL["attrs"]] * 2
ARRIVED = ("9 kg", "hstore")


@pytest.fixture
def own(green):
    """A database that a test may spoil."""
    with own_database(green, "cursors", ORDERS["green"]):
        yield "cursors"


def types_anew(server, dbname):
    """S4, in another order: what was hstore's OID may be another's."""
    drop_types(server, dbname)
    server.execute("drop table product", dbname=dbname)
    create_types(server, dbname, ORDERS["twin"])


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("level", ["auto", "connection", "transaction"])
def test_a_cursor_that_is_kept_is_no_exception(own, green, level, server_side):
    """After trust has ended, the same query over the same cursor is right as well."""
    target = database(green.database(own), KINDS["C2"], server_side_binding=server_side)
    lead("default", target)
    with trust(level), connection.cursor() as cursor:
        for turn in range(3):
            cursor.execute(SELECT)
            assert cursor.fetchone() == ROW
            cursor.execute(SEND, SENT)
            assert cursor.fetchone() == ARRIVED
            cursor.execute(SEND, SENT)
            assert cursor.fetchone() == ARRIVED
            if turn < 2:
                types_anew(green, own)
                if level != "transaction":
                    forget()


@pytest.mark.pgbouncer
@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("level", ["auto", "transaction"])
def test_a_cursor_that_is_kept_over_a_move(blue, green, level, server_side):
    """S2 under one cursor, the same query object each time."""
    options = {"server_side_binding": server_side}
    with PgBouncer(blue, "shop") as bouncer, trust(level):
        lead("default", database(bouncer.database(), KINDS["C2"], **options))
        with connection.cursor() as cursor:
            for server in (green, blue, green):
                for query in (SELECT, SELECT):
                    cursor.execute(query)
                    assert cursor.fetchone() == ROW
                cursor.execute(SEND, SENT)
                assert cursor.fetchone() == ARRIVED
                bouncer.switch(server)
        close_all()


def test_nothing_is_read_again_for_a_cursor_that_is_kept(green):
    lead("default", database(green.database("shop"), KINDS["C2"]))
    connection.ensure_connection()
    with green.statements() as statements, connection.cursor() as cursor:
        for _ in range(5):
            cursor.execute(SELECT)
            assert cursor.fetchone() == ROW
    assert sum(READ in text for text in statements) == 1


@pytest.mark.parametrize("level", ["server", "connection"])
def test_what_a_server_refuses_is_evidence_on_own_connections(own, green, level):
    """One statement is refused, with a note; the next one is right."""
    with trust(level), psycopg.connect(green.conninfo(own), autocommit=True) as mine:
        pool.configure("mine")(mine)
        assert mine.execute(SEND, SENT).fetchone() == ARRIVED
        green.execute("alter table product drop attrs, drop parts", dbname=own)
        green.execute(f"drop extension hstore; {HSTORE}", dbname=own)
        with pytest.raises(psycopg.Error, match="cache lookup failed") as caught:
            mine.execute(SEND, SENT)
        if sys.version_info >= (3, 11):
            [note] = caught.value.__notes__
            assert "'mine' may have other OIDs" in note
        assert mine.execute(SEND, SENT).fetchone() == ARRIVED


def test_the_note_is_on_the_error_that_people_see(own, green):
    lead(
        "default",
        database(green.database(own), KINDS["C2"], server_side_binding=True),
    )
    with connection.cursor() as cursor:
        cursor.execute(SEND, SENT)
        green.execute("alter table product drop attrs, drop parts", dbname=own)
        green.execute(f"drop extension hstore; {HSTORE}", dbname=own)
        with pytest.raises(DatabaseError, match="cache lookup failed") as caught:
            cursor.execute(SEND, SENT)
        if sys.version_info >= (3, 11):
            [note] = caught.value.__notes__
            assert "'default' may have other OIDs" in note
        cursor.execute(SEND, SENT)
        assert cursor.fetchone() == ARRIVED


@pytest.mark.pgbouncer
def test_a_value_that_does_not_parse_is_evidence_on_own_connections(blue, green):
    """Moved under "connection" trust, which promises nothing there: it fails once."""
    with (
        trust("connection"),
        PgBouncer(blue, "shop") as bouncer,
        psycopg.connect(
            bouncer.conninfo(), autocommit=True, prepare_threshold=None
        ) as mine,
    ):
        pool.configure("mine")(mine)
        assert mine.execute(SELECT).fetchone() == ROW
        bouncer.switch(green)
        with suppress(psycopg.Error):
            # What is hstore on blue is mood on green.
            mine.execute("select feels, attrs from product").fetchone()
        assert mine.execute(SELECT).fetchone() == ROW


@pytest.mark.pgbouncer
@pytest.mark.parametrize("level", ["auto", "transaction"])
@pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])
async def test_own_connections_over_a_move(blue, green, as_async, level):
    """S2 in the middle of whatever uses the connection: nothing has to be told."""
    with PgBouncer(blue, "shop") as bouncer, trust(level):
        if not as_async:
            with psycopg.connect(
                bouncer.conninfo(), autocommit=True, prepare_threshold=None
            ) as mine:
                pool.configure("mine")(mine)
                for server in (green, blue):
                    assert mine.execute(SELECT).fetchone() == ROW
                    assert mine.execute(SEND, SENT).fetchone() == ARRIVED
                    bouncer.switch(server)
                assert mine.execute(SEND, SENT).fetchone() == ARRIVED
                assert mine.execute(SELECT).fetchone() == ROW
            return
        async with await psycopg.AsyncConnection.connect(
            bouncer.conninfo(), autocommit=True, prepare_threshold=None
        ) as amine:
            await pool.aconfigure("mine")(amine)
            for server in (green, blue):
                assert await (await amine.execute(SELECT)).fetchone() == ROW
                assert await (await amine.execute(SEND, SENT)).fetchone() == ARRIVED
                bouncer.switch(server)
            assert await (await amine.execute(SEND, SENT)).fetchone() == ARRIVED
            assert await (await amine.execute(SELECT)).fetchone() == ROW


class Mood(enum.Enum):
    SAD = "sad"
    OK = "ok"


SEND_MOOD = "select v::text, pg_typeof(v)::text from (select %s as v) as t"


def register_mood():
    members = {mood: mood.value for mood in Mood}
    register_type("mood", EnumInfo, register_enum, enum=Mood, mapping=members)


@pytest.fixture
def _declared():
    yield
    runtime.track(GROUP, ())
    tracked_connections.renew()


@pytest.mark.usefixtures("_declared")
@pytest.mark.parametrize("kind", [psycopg.Cursor, psycopg.ClientCursor])
def test_a_cursor_older_than_the_registration_of_a_type(green, kind):
    """It sends values of the type right, even the very query that it sent before."""
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as mine:
        pool.configure("mine")(mine)
        cursor = kind(mine)
        cursor.execute(SEND_MOOD, [Mood.OK])
        assert cursor.fetchone() == ("OK", "text")
        register_mood()
        cursor.execute(SEND_MOOD, [Mood.OK])
        assert cursor.fetchone() == ("ok", "mood")
        cursor.executemany(SEND_MOOD, [[Mood.OK], [Mood.SAD]], returning=True)
        assert cursor.fetchone() == ("ok", "mood")


@pytest.mark.usefixtures("_declared")
def test_a_cursor_older_than_the_registration_of_a_type_reads_once(green):
    """What it still holds of the result before is not loaded anew."""
    query = "select array[feels] from product where name = 'anvil'"
    with (
        trust("transaction"),
        psycopg.connect(green.conninfo("shop"), autocommit=True) as mine,
    ):
        pool.configure("mine")(mine)
        cursor = mine.cursor()
        cursor.execute(query)
        register_mood()
        with green.statements() as statements:
            cursor.execute(query)
            assert cursor.fetchall() == [([Mood.OK],)]
        assert sum(READ in text for text in statements) == 1


@pytest.mark.usefixtures("_declared")
async def test_an_async_cursor_older_than_the_registration_of_a_type(green):
    async with await psycopg.AsyncConnection.connect(
        green.conninfo("shop"), autocommit=True
    ) as mine:
        await pool.aconfigure("mine")(mine)
        cursor = mine.cursor()
        await cursor.execute(SEND_MOOD, [Mood.OK])
        register_mood()
        await cursor.execute(SEND_MOOD, [Mood.OK])
        assert await cursor.fetchone() == ("ok", "mood")


def test_a_connection_that_is_not_tracked_is_not_touched(green):
    """Nor are its cursors, whatever becomes of those of others."""
    with (
        psycopg.connect(green.conninfo("shop")) as mine,
        psycopg.connect(green.conninfo("shop")) as another,
    ):
        pool.configure("mine")(mine)
        cursor = another.cursor()
        before = cursor.adapters.get_loader(0, Format.TEXT)
        with green.statements() as statements:
            cursor.execute("select 1")
        assert statements == ["BEGIN", "select 1"]
        assert cursor.adapters.get_loader(0, Format.TEXT) is before
        assert before is psycopg.adapters.get_loader(0, Format.TEXT)
        assert state_of(another) is None
