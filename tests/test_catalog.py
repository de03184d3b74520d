"""What is asked: a server that answered before is only asked to confirm it."""

from __future__ import annotations

import psycopg
import pytest

from django_pg_hot_async import pool
from django_pg_hot_async._core import catalog
from django_pg_hot_async._core.catalog import (
    MAX_CONFIRMED,
    Catalog,
    Question,
    TypeRow,
    moment,
    parse_name,
)
from django_pg_hot_async._core.confirmation import Confirmation
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async._core.types import HSTORE, Registry

from . import scenarios
from .scenarios import ANVIL, ORDERS, READ, create_types, drop_types, own_database

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())


@pytest.fixture
def connect(green):
    """Open a connection that is tracked, to a database that is the test's own."""
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
    states = [state_of(one) for one in (first, second)]
    assert len({state.snapshot for state in states if state}) == 1


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


@pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
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


def test_an_oid_that_is_known_to_be_untracked_is_not_asked_about_again(connect, green):
    """Nor by a connection that has the same server confirm what it is."""
    one = connect()
    assert one.execute("select feels from product").fetchone() == ("ok",)
    with green.statements() as statements:
        assert one.execute("select feels from product").fetchone() == ("ok",)
        assert connect().execute("select feels from product").fetchone() == ("ok",)
    assert asked(statements) == ["check"]


def test_the_search_path_leads_to_another(connect, green):
    """The OIDs are all there still; which of them to send is another matter."""
    green.execute(
        "create schema other; create domain other.hstore as text", dbname="checked"
    )
    assert connect().execute(SELECT).fetchone() == ROW
    options = {"options": "-c search_path=other,public"}
    sent = "select pg_typeof(%s)::oid = 'public.hstore'::regtype"
    with green.statements() as statements:
        for _ in range(2):
            other = connect(**options)
            assert other.execute(sent, [{"a": "1"}]).fetchone() == (True,)
    # The path is another one: the assertion fails, and the confirmation tells it.
    assert "read" not in asked(statements)
    assert asked(statements)[-1] == "check"


def told(number=1, **more):
    """A catalog of *number* types that no server has."""
    types = tuple(
        TypeRow("hstore", f"s{n}", n, n + 1, "b", ",")
        for n in range(20000, 20000 + 2 * number, 2)
    )
    oids = tuple(oid for row in types for oid in (row.oid, row.array_oid))
    return Catalog(150018, start=1, types=types, confirmed=oids, **more)


@pytest.mark.parametrize("number", [1, MAX_CONFIRMED])
@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("is_iso", [True, False])
def test_oids_of_no_type_confirm_nothing(green, number, is_ascii, is_iso):
    """PostgreSQL takes the question; the answer is that of another server."""
    snapshots = (Snapshot(told(number), Registry.of((HSTORE,))),)
    confirmation = Confirmation(
        snapshots, is_ascii=is_ascii, is_iso=is_iso, wants_pid=True
    )
    with psycopg.connect(green.conninfo("shop")) as conn:
        answer = confirmation.read(conn.pgconn.exec_(confirmation.statement))
        assert answer.pid == conn.info.backend_pid
    assert answer.snapshot is None
    assert answer.start > 1_700_000_000_000_000


@pytest.mark.parametrize(
    "setting",
    [
        "timezone = 'Asia/Kathmandu'",
        "timezone = 'America/St_Johns'",
        "datestyle = 'German'",
        "datestyle = 'SQL, DMY'",
        "datestyle = 'Postgres'",
        "extra_float_digits = -15",
        "client_encoding = 'LATIN1'",
        "client_encoding = 'SQL_ASCII'",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "search_path = ''",
        "search_path = pg_temp, public",
        "lc_messages = 'C'",
        "intervalstyle = 'iso_8601'",
    ],
)
def test_an_answer_is_the_same_under_any_setting(connect, green, setting):
    """What is known is confirmed: no session has the server read anew."""
    assert connect().execute(SELECT).fetchone() == ROW
    other = connect()
    other.execute(f"set {setting}")
    select = SELECT.replace("product", "public.product")
    with green.statements() as statements:
        found = other.execute(select).fetchone()
        assert other.execute("select %s::text", [{"a": "1"}]).fetchone()
    assert asked(statements) == ["check"]
    assert found == ROW or "SQL_ASCII" in setting


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("hstore", None, "hstore"),
        ("hstore[]", None, "hstore"),
        ("s.mood", "s", "mood"),
        ('"a.b"', None, "a.b"),
        ('"a.b"."c ""d"""[]', "a.b", 'c "d"'),
        ('s."Mood"', "s", "Mood"),
    ],
)
def test_what_regtype_prints(text, schema, name):
    assert parse_name(text) == (schema, name)


@pytest.mark.parametrize(
    "text",
    [
        b"1795977388.618723",
        b"2026-11-29 18:36:28.618723+00",
        b"2026-11-30 00:21:28.618723+05:45",
        b"2026-11-29 15:06:28.618723-03:30",
    ],
)
def test_a_moment_is_the_same_in_any_time_zone(text):
    assert moment(text) == 1_795_977_388_618_723


def test_a_moment_that_cannot_be_read():
    """It is no server's, so nothing is confirmed by it."""
    assert moment(b"Sun 29 Nov 18:36:28.618723 2026 UTC") == 0


def test_names_that_no_encoding_has_are_asked_for_in_ascii(green):
    question = Question(("hstore", "気分", "it's", "back\\slash"), frozenset("be"))
    statement = catalog.read_by_name(question)
    assert statement.isascii()
    with psycopg.connect(green.conninfo("shop"), client_encoding="latin1") as conn:
        result = conn.pgconn.exec_(statement)
    assert [row.name for row in catalog.parse(result).types] == ["hstore"]


def test_a_type_without_an_array(green):
    """One created under binary upgrade may have none; regtype shows 0 as a dash."""
    with psycopg.connect(green.conninfo("shop")) as conn:
        question = Question(("hstore",), frozenset("b"))
        found = catalog.parse(conn.pgconn.exec_(catalog.read_by_name(question)))
        [oid, _] = found.confirmed
        [row] = found.types
        without = Catalog(
            found.version,
            start=found.start,
            database=found.database,
            types=(TypeRow(row.name, row.schema, oid, 0, "b", ","),),
            visible=found.visible,
            confirmed=(oid, 0),
            names="{hstore,-}",
        )
        for one in (found, without):
            snapshot = Snapshot(one, Registry.of((HSTORE,)))
            confirmation = Confirmation(
                (snapshot,), is_ascii=True, is_iso=True, wants_pid=False
            )
            answer = confirmation.read(conn.pgconn.exec_(confirmation.statement))
            assert answer.snapshot is snapshot
