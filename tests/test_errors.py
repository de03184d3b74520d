"""Errors that a stale OID explains end the trust that led to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.db import (
    DatabaseError,
    DataError,
    InternalError,
    ProgrammingError,
    transaction,
)

from django_pg_hot_async import pool
from django_pg_hot_async._core import evidence as _evidence
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.snapshot import Snapshot

from .scenarios import (
    ANVIL,
    KINDS,
    ORDERS,
    ask_for,
    connection,
    create_types,
    database,
    drop_types,
    lead,
    own_database,
    trust,
)

SELECT = "select attrs from product where name = 'anvil'"


@pytest.fixture
def anew(green):
    """Types made anew under an open, verified connection that sends OIDs."""
    green.create_database("anew")
    create_types(green, "anew", ORDERS["blue"])
    options = {"server_side_binding": True}
    lead("default", database(green.database("anew"), KINDS["C2"], **options))

    def make_anew():
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])

    yield make_anew
    connection.close()
    green.drop_database("anew")


@pytest.mark.parametrize("level", ["server", "connection"])
def test_a_refused_parameter_is_right_at_the_next_try(anew, level):
    with trust(level):
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
        anew()
        with pytest.raises(InternalError, match="cache lookup failed for type"):
            ask_for("select %s -> 'a'", [{"a": "1"}])
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)


def test_every_connection_of_the_alias_reads_once_more(anew):
    ask_for("select %s -> 'a'", [{"a": "1"}])
    generation = runtime.alias("default").generation
    anew()
    with pytest.raises(InternalError):
        ask_for("select %s -> 'a'", [{"a": "1"}])
    state = state_of(connection.connection)
    assert state is not None and state.snapshot is None
    # Others are not bothered before the answer is known to be another one.
    assert runtime.alias("default").generation == generation
    ask_for("select %s -> 'a'", [{"a": "1"}])
    assert runtime.alias("default").generation == generation + 1


def test_an_error_of_the_application_costs_nothing(anew):
    """Where no OID was sent since the last read, it explains nothing."""
    ask_for(SELECT)
    state = state_of(connection.connection)
    assert state is not None
    with pytest.raises(ProgrammingError, match="does not exist"):
        ask_for("select 1::no_such_type")
    with pytest.raises(DataError):
        ask_for("select 1 / 0")
    assert state.snapshot is not None


def test_a_value_that_does_not_parse_is_evidence(anew):
    """As a connection meets it that a pooler has moved: its OIDs are not true."""
    ask_for(SELECT)
    state: Any = state_of(connection.connection)
    rows = {row.name: row for row in state.snapshot.catalog.types}
    swapped = tuple(
        replace(rows[other], name=name)
        for name, other in (("hstore", "citext"), ("citext", "hstore"))
    )
    state._snapshot = Snapshot(
        replace(state.snapshot.catalog, types=swapped), state.snapshot.registry
    )
    with pytest.raises(DataError, match="error parsing hstore"):
        ask_for("select 'no hstore'::citext")
    assert state.snapshot is None
    assert ask_for("select 'no hstore'::citext") == ("no hstore",)
    assert ask_for(SELECT) == (ANVIL["attrs"],)


@pytest.mark.parametrize(
    ("error", "evidence"),
    [
        (psycopg.errors.InternalError_("cache lookup failed for type 1"), True),
        (psycopg.errors.InternalError_("TopologyException: side location"), False),
        (psycopg.errors.UndefinedFunction("operator does not exist"), True),
        (psycopg.errors.UndefinedObject('type "hstore" does not exist'), True),
        (psycopg.errors.DatatypeMismatch("column is of type hstore"), True),
        (psycopg.errors.FeatureNotSupported("cached plan"), True),
        (psycopg.DataError("error parsing hstore"), True),
        (psycopg.DataError("timestamp too large (after year 10K): 'infinity'"), False),
        (psycopg.DataError("date too small (before year 1)"), False),
        (psycopg.DataError("time not supported by Python: hour=24"), False),
        (psycopg.DataError("cannot dump lists of mixed types; got: int, str"), False),
        (psycopg.errors.UniqueViolation("duplicate"), False),
        (psycopg.errors.UndefinedTable("no such table"), False),
        (psycopg.OperationalError("the connection is lost"), False),
    ],
)
def test_what_is_evidence(error, evidence):
    assert _evidence.is_evidence(error) is evidence


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ask_for("select %s::text", ["with\0NUL"]),
        lambda: ask_for("select 'infinity'::timestamptz"),
        lambda: ask_for("select '0044-03-15 BC'::date"),
        lambda: ask_for("select '24:00:00'::time"),
        lambda: ask_for("select %s", [[1, "x"]]),
    ],
    ids=["NUL", "infinity", "BC", "24", "list"],
)
def test_what_anybody_can_send_or_store_is_none(anew, ask):
    """Else each would cost every connection of the alias a read."""
    assert ask_for(SELECT) == (ANVIL["attrs"],)
    state = state_of(connection.connection)
    with pytest.raises((ValueError, DataError), match=r"NUL|year|hour|mixed"):
        ask()
    assert state is not None and state.snapshot is not None


def test_a_connection_that_is_not_tracked_keeps_its_statements(green):
    """The cursors of every psycopg connection in the process are followed."""
    with (
        own_database(green, "anew", ORDERS["blue"]),
        psycopg.connect(green.conninfo("anew"), autocommit=True) as conn,
    ):
        for _ in range(7):
            conn.execute("select name from product")
        names = dict(conn._prepared._names)
        assert names
        sql = "alter table product alter column name type citext"
        green.execute(sql, dbname="anew")
        for _ in range(2):
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                conn.execute("select name from product")
        assert dict(conn._prepared._names) == names


def test_in_an_aborted_transaction_the_server_says_so(anew):
    """Nothing was read, and nothing can be: psycopg's complaint would mislead."""
    with transaction.atomic():
        with pytest.raises(DatabaseError, match="no_such_column"):
            ask_for("select no_such_column")
        with pytest.raises(DatabaseError, match="current transaction is aborted"):
            ask_for("select %s", [{"a": "1"}])
        connection.set_rollback(True)
    assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)


def test_a_read_that_fails_leaves_no_rows_of_the_result(green):
    """A cursor would go on with the loaders of the result before; in C, past them."""
    lead("default", database(green.database("shop"), KINDS["C2"]))
    with connection.cursor() as cursor:
        cursor.execute("set lock_timeout = '100ms'")
        cursor.execute(SELECT)
        cursor.fetchall()
        cursor.execute("select 1, 2")
        cursor.fetchall()
        runtime.alias("default").withdraw()
        query = f"select 5, '12 apples', attrs from ({SELECT}) as t"
        with psycopg.connect(green.conninfo("shop")) as other:
            other.execute("lock table pg_catalog.pg_type in access exclusive mode")
            with pytest.raises(DatabaseError, match="lock timeout"):
                cursor.execute(query)
        with pytest.raises(psycopg.ProgrammingError, match="no result"):
            cursor.cursor.fetchone()
        cursor.execute(query)
        assert cursor.fetchone() == (5, "12 apples", ANVIL["attrs"])
    connection.close()


def test_a_prepared_statement_whose_plan_is_gone_is_prepared_anew(green):
    """The server refuses it each time, by its name; psycopg goes on sending that."""
    with (
        own_database(green, "anew", ORDERS["blue"]),
        psycopg.connect(green.conninfo("anew"), autocommit=True) as conn,
    ):
        pool.configure("mine")(conn)
        for _ in range(7):
            assert conn.execute(SELECT).fetchone() == (ANVIL["attrs"],)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            conn.execute(SELECT)
        for _ in range(7):
            assert conn.execute(SELECT).fetchone() == (ANVIL["attrs"],)
