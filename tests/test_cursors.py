"""Cursors that live longer than trust, and connections whose errors Django misses."""

from __future__ import annotations

import enum
import gc
import sys
from contextlib import suppress

import psycopg
import pytest
from django.db import DatabaseError
from psycopg._cursor_base import BaseCursor
from psycopg.pq import Format
from psycopg.types.enum import EnumInfo, register_enum

from django_pg_hot_async import (
    _evidence,
    _tracking,
    forget,
    pool,
    register_type,
    work_unit,
)
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
@pytest.mark.parametrize("end", [forget, work_unit], ids=["forget", "work_unit"])
def test_a_cursor_that_is_kept_is_no_exception(own, green, end, server_side):
    """After trust has ended, the same query over the same cursor is right as well."""
    target = database(green.database(own), KINDS["C2"], server_side_binding=server_side)
    lead("default", target)
    with trust("checkout"), connection.cursor() as cursor:
        for turn in range(3):
            cursor.execute(SELECT)
            assert cursor.fetchone() == ROW
            cursor.execute(SEND, SENT)
            assert cursor.fetchone() == ARRIVED
            cursor.execute(SEND, SENT)
            assert cursor.fetchone() == ARRIVED
            if turn < 2:
                types_anew(green, own)
                end()
                with work_unit():
                    pass


@pytest.mark.pgbouncer
@pytest.mark.parametrize("level", ["checkout", "result"])
def test_a_cursor_that_is_kept_over_a_move(blue, green, level):
    """S2 under one cursor, the same query object each time."""
    with PgBouncer(blue, "shop") as bouncer, trust(level):
        lead("default", database(bouncer.database(), KINDS["C2"]))
        with connection.cursor() as cursor:
            for server in (green, blue, green):
                with work_unit():
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
@pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])
async def test_a_work_unit_counts_for_own_connections(blue, green, as_async):
    with PgBouncer(blue, "shop") as bouncer, trust("checkout"):
        if not as_async:
            with psycopg.connect(
                bouncer.conninfo(), autocommit=True, prepare_threshold=None
            ) as mine:
                pool.configure("mine")(mine)
                assert mine.execute(SELECT).fetchone() == ROW
                bouncer.switch(green)
                with work_unit():
                    assert mine.execute(SELECT).fetchone() == ROW
            return
        async with await psycopg.AsyncConnection.connect(
            bouncer.conninfo(), autocommit=True, prepare_threshold=None
        ) as amine:
            await pool.aconfigure("mine")(amine)
            assert await (await amine.execute(SELECT)).fetchone() == ROW
            bouncer.switch(green)
            async with work_unit():
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
    _tracking.declare(())
    _tracking.renew()


@pytest.mark.usefixtures("_declared")
@pytest.mark.parametrize("kind", [psycopg.Cursor, psycopg.ClientCursor])
def test_a_cursor_older_than_the_registration_of_a_type(green, kind):
    """It sends values of the type right, the very query that it sent before too."""
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
        trust("result"),
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


def test_older_cursors_are_followed_as_long_as_there_can_be_any(green):
    """Nor is a connection touched meanwhile that nobody looks after."""
    _evidence.follow_older([])
    normal = start_query()
    mine = psycopg.connect(green.conninfo("shop"))
    with psycopg.connect(green.conninfo("shop")) as another:
        _evidence.follow_older([mine])
        assert start_query() is not normal
        cursor = another.cursor()
        before = cursor.adapters.get_loader(0, Format.TEXT)
        cursor.execute("select 1")
        assert cursor.adapters.get_loader(0, Format.TEXT) is before
        assert start_query() is not normal
        mine.close()
        del mine
        gc.collect()
        cursor.execute("select 1")
        assert start_query() is normal


def start_query():
    """The code that each execution of any cursor goes through."""
    return BaseCursor._start_query.__code__
