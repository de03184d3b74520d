"""What is not promised is so: each limit that the README names and no other test shows.

Should one of these fail, something got better, and the README is to say so.
"""

from __future__ import annotations

import enum
import threading
import time
from typing import NamedTuple

import psycopg
import pytest
from django.db import ProgrammingError, transaction
from django.db.backends.signals import connection_created
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import JsonbDumper
from psycopg.types.string import TextLoader

from django_pg_hot_async import _trusted, forget, pool, register_type
from django_pg_hot_async.testing import PgBouncer

from .proxy import Proxy
from .scenarios import (
    ANVIL,
    KINDS,
    MOOD,
    ask_for,
    connection,
    database,
    lead,
    no_time_to_read,
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
@pytest.mark.parametrize("atomic", [False, True])
def test_a_read_that_goes_to_another_server_than_its_result(blue, green, atomic):
    """In autocommit behind a transaction pooler; inside a transaction it cannot."""
    with PgBouncer(blue, "shop") as bouncer, Proxy(bouncer) as proxy, trust("result"):
        lead("default", database(proxy.database("shop"), KINDS["C2"]))
        ask_for("select 1")
        switching = threading.Thread(target=bouncer.switch, args=(green,))

        def switch(wire):
            """The result is here, the read of types on its way."""
            switching.start()
            if not atomic:
                switching.join()

        proxy.at_read = switch
        if atomic:
            with transaction.atomic():
                assert ask_for(SELECT) == ROW
                assert switching.is_alive()
        else:
            assert ask_for(SELECT) != ROW
        switching.join()
        assert ask_for(SELECT) == ROW
        connection.close()


def test_what_a_project_registers_itself_stays_as_it_was(green):
    """Its own connection is looked after; that type, on it, is psycopg's."""
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
    connection.ensure_connection()
    adapters = connection.connection.adapters
    assert adapters.types.get("hstore") is None
    assert ask_for(SELECT) == ROW
    assert adapters.types["hstore"].name == "hstore"
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


@pytest.mark.parametrize("level", ["server", "connection"])
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
    monkeypatch.setattr(_trusted, "monotonic", lambda: time.monotonic() - start)
    with own_database(green, "limits", []):
        options = {"server_side_binding": True}
        lead("default", database(green.database("limits"), KINDS["C2"], **options))
        sent = "select pg_typeof(coalesce(%s, null))::text"
        assert ask_for(sent, [Mood.ok]) == ("text",)
        green.execute(MOOD, dbname="limits")
        monkeypatch.setattr(_trusted, "MISSED_SECONDS", 1000.0)
        assert ask_for(sent, [Mood.ok]) == ("text",)
        monkeypatch.setattr(_trusted, "MISSED_SECONDS", 0.0)
        assert ask_for(sent, [Mood.ok]) == ("mood",)
        # An error is a reason to ask at once.
        green.execute("drop type mood", dbname="limits")
        forget("default")
        monkeypatch.setattr(_trusted, "MISSED_SECONDS", 1000.0)
        assert ask_for(sent, [Mood.ok]) == ("text",)
        green.execute(MOOD, dbname="limits")
        with pytest.raises(ProgrammingError, match="no_such_table"):
            ask_for("select 1 from no_such_table where %s = ''", [Mood.ok])
        assert ask_for(sent, [Mood.ok]) == ("mood",)


def test_a_pipeline_in_which_trust_ends(green, caplog):
    """Values are explained by what was read before it, and the log says so."""
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        pool.configure("mine")(conn)
        with no_time_to_read(conn) as ask:
            forget("mine")
            assert ask("attrs, tags, parts") == ROW
        assert "cannot be verified" in caplog.text
