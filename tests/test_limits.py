"""What is not promised is so: each limit that the README names and no other test shows.

Should one of these fail, something got better, and the README is to say so.
"""

from __future__ import annotations

import enum
import time
from typing import NamedTuple

import psycopg
import pytest
from django.db import OperationalError, ProgrammingError
from django.db.backends.signals import connection_created
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import JsonbDumper
from psycopg.types.string import TextLoader

from django_pg_hot_async import forget, pool, register_type
from django_pg_hot_async._core import connection as _connection
from django_pg_hot_async.testing import PgBouncer

from .scenarios import (
    ANVIL,
    KINDS,
    MOOD,
    ORDERS,
    ask_for,
    connection,
    database,
    lead,
    own_database,
    trust,
)

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())


class Mood(enum.Enum):
    sad = "sad"
    ok = "ok"


class Note(NamedTuple):
    number: int
    text: object


@pytest.mark.pgbouncer
def test_a_result_that_nothing_explains_is_refused(blue, green):
    """A statement that had no such type until now goes without a confirmation."""
    with own_database(blue, "bare", ORDERS["blue"]):
        blue.execute("create table t as select 1 as a", dbname="bare")
        with PgBouncer(blue, "bare") as bouncer:
            lead("default", database(bouncer.database(), KINDS["C2"]))
            for _ in range(2):
                assert ask_for("select * from t") == (1,)
            blue.execute("alter table t add b hstore default 'a=>1'", dbname="bare")
            with pytest.raises(OperationalError, match="run the statement again"):
                ask_for("select * from t")
            assert ask_for("select * from t") == (1, {"a": "1"})
            connection.close()


def test_what_a_project_registers_itself_stays_as_it_was(green):
    """Its own connection is tracked; that type, on it, is psycopg's."""
    with (
        own_database(green, "limits", []),
        psycopg.connect(green.conninfo("limits"), autocommit=True) as conn,
    ):
        conn.execute(MOOD)
        pool.configure("mine")(conn)
        info = EnumInfo.fetch(conn, "mood")
        assert info is not None
        register_enum(info, conn, Mood)
        assert conn.execute("select 'ok'::mood").fetchone() == (Mood.ok,)
        conn.execute("drop type mood")
        conn.execute(MOOD)
        forget()
        assert conn.execute("select 'ok'::mood").fetchone() == ("ok",)


def test_what_a_receiver_registers_wins(green):
    """It is called when the template with ours in it was made long ago."""

    def receive(connection, **kwargs):
        connection.connection.adapters.register_dumper(dict, JsonbDumper)
        connection.connection.adapters.register_loader(0, TextLoader)

    connection_created.connect(receive)
    try:
        lead("default", database(green.database("shop"), KINDS["C2"]))
        assert ask_for("select pg_typeof(%s)::text", [{}]) == ("jsonb",)
        assert ask_for("select 'a=>1'::hstore") == ('"a"=>"1"',)
    finally:
        connection_created.disconnect(receive)


def test_adapters_without_their_connection(green):
    lead("default", database(green.database("shop"), KINDS["C2"]))
    assert ask_for(SELECT) == ROW
    with psycopg.connect(green.conninfo("shop"), context=connection.connection) as conn:
        assert conn.execute("select 'a=>1'::hstore").fetchone() == ('"a"=>"1"',)
        pool.configure("default")(conn)
        assert conn.execute(SELECT).fetchone() == ROW


def test_an_attribute_of_another_type_that_the_old_loader_takes(green):
    """It is noticed when types are next read, whatever makes them be."""
    register_type("note", CompositeInfo, register_composite, factory=Note)
    with own_database(green, "limits", []):
        green.execute("create type note as (number int, text text)", dbname="limits")
        lead("default", database(green.database("limits"), KINDS["C2"]))
        assert ask_for("select (1, '2')::note") == (Note(1, "2"),)
        green.execute("alter type note alter attribute text type int", dbname="limits")
        assert ask_for("select (1, 2)::note") == (Note(1, "2"),)
        forget("default")
        assert ask_for("select (1, 2)::note") == (Note(1, 2),)


def test_at_transaction_an_attribute_of_another_type_is_noticed(green):
    register_type("note", CompositeInfo, register_composite, factory=Note)
    with own_database(green, "limits", []), trust("transaction"):
        green.execute("create type note as (number int, text text)", dbname="limits")
        lead("default", database(green.database("limits"), KINDS["C2"]))
        assert ask_for("select (1, '2')::note") == (Note(1, "2"),)
        green.execute("alter type note alter attribute text type int", dbname="limits")
        assert ask_for("select (1, 2)::note") == (Note(1, 2),)


@pytest.mark.parametrize("level", ["auto", "server", "connection"])
def test_a_type_that_is_renamed_to_a_tracked_name(green, level):
    """Its OID is known as one that nobody tracks, until types are read again."""
    with own_database(green, "limits", []), trust(level):
        green.execute("create extension hstore; create schema x", dbname="limits")
        rename = "alter extension hstore set schema x; alter type x.hstore rename to h"
        green.execute(rename, dbname="limits")
        lead("default", database(green.database("limits"), KINDS["C2"]))
        assert ask_for("select 'a=>1'::x.h") == ('"a"=>"1"',)
        green.execute("alter type x.h rename to hstore", dbname="limits")
        assert ask_for("select 'a=>1'::x.hstore") == ('"a"=>"1"',)
        forget("default")
        assert ask_for("select 'a=>1'::x.hstore") == ({"a": "1"},)


def test_a_type_that_is_created_after_it_was_sent(green, monkeypatch):
    """psycopg sends an Enum by name as well; nothing else shows the type."""
    register_type("mood", EnumInfo, register_enum, enum=Mood)
    # As on a machine that has just started.
    start = time.monotonic()
    monkeypatch.setattr(_connection, "monotonic", lambda: time.monotonic() - start)
    with own_database(green, "limits", []):
        options = {"server_side_binding": True}
        lead("default", database(green.database("limits"), KINDS["C2"], **options))
        sent = "select pg_typeof(coalesce(%s, null))::text"
        assert ask_for(sent, [Mood.ok]) == ("text",)
        green.execute(MOOD, dbname="limits")
        monkeypatch.setattr(_connection, "MISSED_SECONDS", 1000.0)
        assert ask_for(sent, [Mood.ok]) == ("text",)
        monkeypatch.setattr(_connection, "MISSED_SECONDS", 0.0)
        assert ask_for(sent, [Mood.ok]) == ("mood",)
        # An error is a reason to ask at once.
        green.execute("drop type mood", dbname="limits")
        forget("default")
        monkeypatch.setattr(_connection, "MISSED_SECONDS", 1000.0)
        assert ask_for(sent, [Mood.ok]) == ("text",)
        green.execute(MOOD, dbname="limits")
        with pytest.raises(ProgrammingError, match="no_such_table"):
            ask_for("select 1 from no_such_table where %s = ''", [Mood.ok])
        assert ask_for(sent, [Mood.ok]) == ("mood",)
