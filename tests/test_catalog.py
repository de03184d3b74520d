"""What is asked: a server that answered before is only asked to confirm it."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from psycopg.types.enum import EnumInfo

from django_pg_hot_async import pool
from django_pg_hot_async._core.catalog import MAX_CONFIRMED, Catalog, Confirmation, TypeRow
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.types import HSTORE, Registry
from django_pg_hot_async._core.snapshot import Snapshot

from . import scenarios
from .scenarios import ANVIL, ORDERS, READ, create_types, drop_types, own_database

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())


@pytest.fixture
def connect(green):
    """Open a connection that is looked after, to a database that is the test's own."""
    configure = pool.configure("mine")
    opened = []

    def open_one(dbname="checked", **options):
        connection = psycopg.connect(green.conninfo(dbname), autocommit=True, **options)
        opened.append(connection)
        configure(connection)
        return connection

    with own_database(green, "checked", ORDERS["green"]):
        yield open_one
        for connection in opened:
            connection.close()


def asked(statements):
    """Say of each statement of this package whether it read, or checked."""
    return [
        "read" if "pg_catalog.pg_type" in text else "check"
        for text in statements
        if READ in text
    ]


def test_a_connection_has_confirmed_what_another_read(connect, green):
    with green.statements() as statements:
        first = connect()
        assert first.execute(SELECT).fetchone() == ROW
        second = connect()
        assert second.execute(SELECT).fetchone() == ROW
        assert second.execute("select %s::text", [{"a": "1"}]).fetchone()
    assert asked(statements) == ["read", "check"]
    links = [link_of(one) for one in (first, second)]
    assert len({link.snapshot for link in links if link}) == 1


def test_what_is_not_so_any_more_is_read(connect, green):
    assert connect().execute(SELECT).fetchone() == ROW
    drop_types(green, "checked")
    create_types(green, "checked", ORDERS["blue"])
    with green.statements() as statements:
        assert connect().execute(SELECT).fetchone() == ROW
        assert connect().execute(SELECT).fetchone() == ROW
    assert asked(statements) == ["check", "read", "check"]


def test_a_type_that_was_missing(connect, green):
    """Nothing to confirm shows it; its OID, or a value of it, does."""
    with own_database(green, "lacking", []):
        green.execute(scenarios.HSTORE, dbname="lacking")
        one = connect("lacking")
        assert one.execute("select 'a=>1'::hstore").fetchone() == ({"a": "1"},)
        green.execute(scenarios.CITEXT, dbname="lacking")
        with green.statements() as statements:
            two = connect("lacking")
            assert two.execute("select 'a=>1'::hstore").fetchone() == ({"a": "1"},)
            assert two.execute("select '{x}'::citext[]").fetchone() == (["x"],)
        assert asked(statements) == ["check", "read"]
        one.close()
        two.close()


@pytest.mark.parametrize("level", ["server", "connection", "checkout", "result"])
def test_what_is_confirmed_may_be_less_than_there_is(green, level):
    """A type created since, and a new connection whose first value is one of it."""
    with own_database(green, "lacking", []), scenarios.trust(level):
        green.execute(scenarios.CITEXT, dbname="lacking")
        scenarios.lead("default", green.database("lacking"))
        assert scenarios.ask_for("select '{x}'::citext[]") == (["x"],)
        green.execute(scenarios.HSTORE, dbname="lacking")
        for sql, params, answer in (
            ("select 'a=>1'::hstore", None, {"a": "1"}),
            ("select %s -> 'a'", [{"a": "1"}], "1"),
            ("select '{x}'::citext[], 'a=>1'::hstore", None, ["x"]),
        ):
            scenarios.connection.close()
            for _ in range(2):
                assert scenarios.ask_for(sql, params)[0] == answer
        assert scenarios.ask_for("select '{x}'::citext[], 'a=>1'::hstore") == (
            ["x"],
            {"a": "1"},
        )


def test_an_oid_that_was_untracked_is_asked_about_after_a_check(connect, green):
    """It may be of a type that the server has, and that nobody asked it to confirm."""
    one = connect()
    assert one.execute("select feels from product").fetchone() == ("ok",)
    link = link_of(one)
    assert link is not None and link.untracked
    with green.statements() as statements:
        pool.check("mine")(one)
        assert not link.untracked
        assert one.execute("select feels from product").fetchone() == ("ok",)
    assert asked(statements) == ["check", "read"]


def test_the_search_path_leads_to_another(connect, green):
    """The OIDs are all there still; which of them to send is another matter."""
    green.execute(
        "create schema other; create domain other.hstore as text", dbname="checked"
    )
    assert connect().execute(SELECT).fetchone() == ROW
    options = {"options": "-c search_path=other,public"}
    with green.statements() as statements:
        connect(**options).execute("select %s::text", [{"a": "1"}])
    assert asked(statements) == ["check", "read"]


def rows(number):
    return tuple(
        TypeRow("hstore", f"s{n}", n, n + 1, "b", ",", f"s{n}.hstore", False)
        for n in range(20000, 20000 + 2 * number, 2)
    )


@pytest.mark.parametrize("number", [1, MAX_CONFIRMED])
def test_confirmation(green, number):
    """PostgreSQL takes it, and its answer to OIDs of no type confirms nothing."""
    confirmation = Snapshot.of(
        Catalog(150018, rows(number)), Registry.of((HSTORE,))
    ).confirmation
    assert confirmation is not None
    with psycopg.connect(green.conninfo("shop")) as conn:
        result = conn.pgconn.exec_(confirmation.statement)
    assert result.nfields == 1 + 2 * number
    assert not confirmation.is_given_by(result)


@pytest.mark.parametrize(
    ("version", "types", "tracked"),
    [
        (180000, (), HSTORE),
        (180000, rows(MAX_CONFIRMED + 1), HSTORE),
        (180000, rows(1), replace(HSTORE, schema="s20000")),
        (180000, rows(1), replace(HSTORE, info_class=EnumInfo, kinds="be")),
    ],
    ids=["none there", "too many", "with a schema", "with labels"],
)
def test_where_a_name_is_not_enough(version, types, tracked):
    assert (
        Snapshot.of(Catalog(version, types), Registry.of((tracked,))).confirmation
        is None
    )


def test_a_type_without_an_array(green):
    """One created under binary upgrade may have none; regtype shows 0 as a dash."""
    [(oid, array_oid)] = green.execute(
        "select oid::int8, typarray::int8 from pg_type where typname = 'hstore'",
        dbname="shop",
    )
    row = TypeRow("hstore", "public", oid, array_oid, "b", ",", "hstore", True)
    with psycopg.connect(green.conninfo("shop")) as conn:
        version = conn.info.server_version
        for one, expected in ((row, True), (replace(row, array_oid=0), True)):
            confirmation = Confirmation(Catalog(version, (one,)))
            assert (
                confirmation.is_given_by(conn.pgconn.exec_(confirmation.statement))
                is expected
            )
        confirmation = Confirmation(Catalog(version + 1, (row,)))
        assert not confirmation.is_given_by(conn.pgconn.exec_(confirmation.statement))
