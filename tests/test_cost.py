"""What it costs, in statements and objects: bounded, whatever users and tenants do."""

from __future__ import annotations

import enum
import gc
from typing import Any, ClassVar, NamedTuple

import psycopg
import pytest
from psycopg import errors
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum

from django_pg_hot_async import register_type
from django_pg_hot_async._core import types
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .clients import (
    ALIAS,
    Mood,
    Sync,
    both,
    conninfo,
    opened,
    ours,
    outcome,
    register_mood,
)
from .scenarios import HSTORE, MOOD, trust

OPEN, TURNS = 4, 8


@pytest.fixture(scope="module")
def old():
    with PostgreSQL(15, config={"max_connections": 200}) as server:
        yield server


@pytest.fixture(scope="module")
def new():
    with PostgreSQL(18, config={"max_connections": 200}) as server:
        yield server


@pytest.fixture(params=["old", "new"], ids=["15", "18"])
def server(request):
    server = request.getfixturevalue(request.param)
    server.create_database("shop")
    yield server
    server.terminate("shop")
    server.drop_database("shop")


@pytest.fixture
def connect(server):
    """Open clients that are closed with the test."""
    clients = []

    def connect(where: Any = server, **params: Any) -> Any:
        clients.append(Sync(where, **params))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def full_reads(statements: Any) -> int:
    """How many of *statements* asked for the types themselves."""
    return sum("pg_type" in text for text in ours(statements))


class TestBadStatements:
    """A mistake of a project's, or what users type, is no reason to ask anew."""

    BAD: ClassVar[dict[str, Any]] = {
        "hstore into jsonb": (
            "insert into item (doc) values (%s)",
            [{"a": "1"}],
            errors.DatatypeMismatch,
        ),
        "unknown configuration": (
            "select %s::hstore, to_tsvector(%s::text::regconfig, 'a')",
            [{"a": "1"}, "klingon"],
            errors.UndefinedObject,
        ),
        "unknown function": ("select nowhere(%s)", [Mood.OK], errors.UndefinedFunction),
        "unknown operator": ("select %s + 1", [{"a": "1"}], errors.UndefinedFunction),
        "label that is none": (
            "select %s, %s::text::mood",
            [Mood.OK, "mad"],
            errors.InvalidTextRepresentation,
        ),
        "number that is none": (
            "select %s, %s::text::int",
            [Mood.OK, "x"],
            errors.InvalidTextRepresentation,
        ),
        "unknown type": (
            "select %s, null::nowhere",
            [Mood.OK],
            errors.UndefinedObject,
        ),
    }

    @pytest.mark.parametrize("level", ["auto", "connection", "server", "transaction"])
    @pytest.mark.parametrize(("query", "params", "error"), BAD.values(), ids=BAD)
    def test_others_do_not_pay(self, server, connect, level, query, params, error):
        """Each error is looked into once, by the connection that met it."""
        server.execute(HSTORE, dbname="shop")
        server.execute(MOOD, dbname="shop")
        server.execute(
            "create table item (attrs hstore, doc jsonb);"
            "insert into item values ('a=>1')",
            dbname="shop",
        )
        register_mood()
        with trust(level):
            others = [connect() for _ in range(OPEN)]
            for other in others:
                assert other.row("select attrs from item") == ({"a": "1"},)
            bad = connect()
            bad.row("select attrs from item")
            with server.statements() as seen:
                for _ in range(TURNS):
                    assert isinstance(outcome(bad.row, query, params), error)
                    for other in others:
                        assert other.row("select attrs from item") == ({"a": "1"},)
        if level == "transaction":
            # Each statement that goes through carries its own; nothing besides.
            assert len(ours(seen)) <= TURNS * OPEN + 2 * TURNS
        else:
            assert len(ours(seen)) <= TURNS
        assert full_reads(seen) <= TURNS

    def test_errors_that_differ_each_time(self, server, connect):
        """As many messages as users care to make up: the memory of them is bounded."""
        server.execute(HSTORE, dbname="shop")
        client = connect()
        query = "select %s::hstore, to_tsvector(%s::text::regconfig, 'a')"
        with server.statements() as seen:
            for number in range(100):
                params = [{"a": "1"}, f"klingon{number}"]
                assert isinstance(outcome(client.row, query, params), psycopg.Error)
        assert len(ours(seen)) <= 101
        reasons = runtime.alias(ALIAS)._reasons
        assert len(reasons) <= 64


class Size(NamedTuple):
    width: int
    height: int


class TestNamesTaken:
    """Other objects of a tracked name, in other sessions or other schemas."""

    def test_by_temporary_tables_of_others(self, server, connect):
        server.execute("create type size as enum ('sad', 'ok')", dbname="shop")
        register_mood("size")
        open_ones = [connect() for _ in range(OPEN)]
        query = "select 'ok'::public.size"
        for client in open_ones:
            assert client.row(query) == (Mood.OK,)
        with server.statements() as seen:
            for _ in range(TURNS):
                report = psycopg.connect(conninfo(server), autocommit=True)
                report.execute("create temp table size (n int)")
                for client in open_ones:
                    assert client.row(query) == (Mood.OK,)
                    assert client.row("select pg_typeof(%s)::text", [Mood.OK]) == (
                        "size",
                    )
                with opened(Sync, server) as fresh:
                    assert fresh.row(query) == (Mood.OK,)
                report.close()
        # Each new connection asks once, and no other does.
        assert len(ours(seen)) <= 2 * TURNS
        assert full_reads(seen) <= TURNS

    def test_by_a_temporary_table_of_its_own(self, server, connect):
        """Of a composite type's name: its rows are that connection's business."""
        server.execute("create type size as (width int, height int)", dbname="shop")
        server.execute("create table item (s size)", dbname="shop")
        server.execute("insert into item values ('(1,2)')", dbname="shop")
        register_type("size", CompositeInfo, register_composite, factory=Size)
        open_ones = [connect() for _ in range(OPEN)]
        for client in open_ones:
            assert client.row("select s from item") == (Size(1, 2),)
        with server.statements() as seen:
            for turn in range(TURNS):
                client = open_ones[turn % OPEN]
                client.results("create temp table size (width int, height int)")
                client.results("insert into size values (3, 4)")
                assert client.row("select size from size") == (Size(3, 4),)
                for other in open_ones:
                    assert other.row("select s from public.item") == (Size(1, 2),)
                client.results("drop table pg_temp.size")
        assert len(ours(seen)) <= 3 * TURNS

    def test_by_a_table_and_a_domain(self, server, connect):
        """Of kinds that the declared type is not: they do not count."""
        server.execute(MOOD, dbname="shop")
        register_mood()
        server.execute(
            "create schema a; create table a.mood (n int);"
            "create schema b; create domain b.mood as text",
            dbname="shop",
        )
        client = connect()
        client.row("select %s", [Mood.OK])
        with server.statements() as seen:
            for _ in range(TURNS):
                assert client.row("select %s, 'ok'::mood", [Mood.OK]) == (Mood.OK,) * 2
                assert client.row("select 'x'::b.mood") == ("x",)
        assert ours(seen) == []


def tenants(server: Any, numbers: range, labels: str = "'sad', 'ok'") -> None:
    for start in range(numbers.start, numbers.stop, 50):
        server.execute(
            ";".join(
                f"create schema t{n}; create type t{n}.mood as enum ({labels})"
                for n in range(start, min(start + 50, numbers.stop))
            ),
            dbname="shop",
        )


class TestManyTenants:
    @pytest.mark.parametrize(
        "road", ["straight", pytest.param("pooler", marks=pytest.mark.pgbouncer)]
    )
    @pytest.mark.parametrize("served", [10, 40])
    def test_a_transaction_for_each_in_turn(self, server, road, served):
        """However many there are: a question for each, that reads no type again."""
        tenants(server, range(served))
        register_mood()

        def serve(client: Any, number: int) -> None:
            client.results("begin")
            client.results(f"set local search_path = t{number}")
            row = client.row(
                f"select %s, pg_typeof(%s)::oid = 't{number}.mood'::regtype",
                [Mood.OK] * 2,
            )
            assert row == (Mood.OK, True)
            client.results("commit")

        def serve_all(client: Any) -> None:
            for number in range(served):
                serve(client, number)
            with server.statements() as seen:
                for number in range(served):
                    serve(client, number)
            assert full_reads(seen) <= 2
            assert len(ours(seen)) <= served + 4

        if road == "straight":
            with opened(Sync, server) as client:
                serve_all(client)
            return
        with PgBouncer(server, "shop") as bouncer, opened(Sync, bouncer) as client:
            serve_all(client)

    @pytest.mark.pgbouncer
    @pytest.mark.parametrize(
        ("name", "values"),
        [
            (
                "timezone",
                ["utc", "Europe/Berlin", "Asia/Tokyo", "Asia/Kolkata", "Africa/Cairo"],
            ),
            ("datestyle", ["iso, mdy", "sql, dmy", "german", "postgres", "sql, mdy"]),
            ("intervalstyle", ["postgres", "iso_8601", "sql_standard"]),
            ("extra_float_digits", ["-15", "3"]),
            ("client_encoding", ["utf8", "latin1", "euc_jp", "sql_ascii"]),
            ("bytea_output", ["hex", "escape"]),
            ("standard_conforming_strings", ["on", "off"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_settings_of_a_session_make_no_other_server(self, server, name, values):
        """How the session writes times and numbers says nothing of who answers."""
        server.execute(HSTORE, dbname="shop")
        with (
            trust("transaction"),
            PgBouncer(server, "shop") as bouncer,
            opened(Sync, bouncer) as client,
        ):

            def ask(value: str) -> None:
                client.results("begin")
                client.results(f"set local {name} = '{value}'")
                row = client.row("select 'a=>1'::hstore ? 'a', 'a=>1'::hstore")
                assert row[0] is True
                assert len(row[1]) == 1
                row = client.row("select %s ? 'a'", [{"a": "1"}])
                assert row == (True,)
                client.results("commit")

            for value in values:
                ask(value)
            with server.statements() as seen:
                for value in values * 2:
                    ask(value)
        assert full_reads(seen) == 0
        assert len(ours(seen)) == 2 * len(values)

    def test_what_is_kept_follows_what_was_met(self, server, connect):
        """Types of other tenants are not held for the sake of one more."""
        tenants(server, range(400))
        register_mood()
        client = connect()
        for number in range(20):
            assert client.row(f"select 'ok'::t{number}.mood") == (Mood.OK,)
        gc.collect()
        snapshots = [one for one in gc.get_objects() if type(one) is Snapshot]
        client.results("set search_path = t1")
        for number in range(20, 60):
            client.row(f"select 'ok'::t{number}.mood")
        gc.collect()
        after = [one for one in gc.get_objects() if type(one) is Snapshot]
        assert len(after) <= len(snapshots) + 4
        assert len(after) < 40

    def test_one_more_costs_one_question(self, server, connect):
        tenants(server, range(300))
        register_mood()
        client = connect()
        client.row("select 'ok'::t0.mood")
        for number in range(300, 305):
            tenants(server, range(number, number + 1))
            with server.statements() as seen:
                assert client.row(f"select 'ok'::t{number}.mood") == (Mood.OK,)
                assert client.row(f"select 'ok'::t{number}.mood") == (Mood.OK,)
            assert len(ours(seen)) <= 2

    def test_labels_of_their_own(self, server, connect):
        """Shapes that nobody uses any more are gone, with what psycopg had of them."""
        tenants(server, range(30))
        register_type("mood", EnumInfo, register_enum)
        client = connect()
        client.row("select 'ok'::t0.mood")

        def count() -> int:
            gc.collect()
            return len(types._by_shape)

        counts = []
        for number in range(100, 220):
            client.results(
                f"create schema t{number};"
                f"create type t{number}.mood as enum ('ok', 'own{number}')"
            )
            assert client.row(f"select 'ok'::t{number}.mood")[0].name == "ok"
            client.results(f"drop schema t{number} cascade")
            if number in (159, 219):
                counts.append(count())
        assert counts[1] - counts[0] <= 8


class TestUntracked:
    """Enums and such that nobody declared."""

    @both
    @pytest.mark.parametrize("level", ["auto", "transaction"])
    def test_each_is_asked_about_once(self, server, client_class, level):
        names = [f"x{n}" for n in range(80)]
        server.execute(
            ";".join(f"create type {name} as enum ('a')" for name in names),
            dbname="shop",
        )
        server.execute(HSTORE, dbname="shop")
        with trust(level), opened(client_class, server) as client:
            for name in names:
                assert client.row(f"select 'a'::{name}") == ("a",)
            with server.statements() as seen:
                for name in names:
                    assert client.row(f"select 'a'::{name}") == ("a",)
        assert full_reads(seen) == 0
        if level == "auto":
            assert ours(seen) == []

    def test_another_connection_has_it_from_the_first(self, server, connect):
        server.execute("create type mine as enum ('a')", dbname="shop")
        server.execute(HSTORE, dbname="shop")
        assert connect().row("select 'a'::mine") == ("a",)
        with server.statements() as seen:
            for _ in range(3):
                assert connect().row("select 'a'::mine, array['a'::mine]")[0] == "a"
        assert full_reads(seen) <= 1

    def test_many_at_once_are_one_question(self, server, connect):
        names = [f"x{n}" for n in range(40)]
        server.execute(
            ";".join(f"create type {name} as enum ('a')" for name in names),
            dbname="shop",
        )
        server.execute(HSTORE, dbname="shop")
        client = connect()
        client.row("select 'a=>1'::hstore")
        with server.statements() as seen:
            client.row("select " + ", ".join(f"'a'::{name}" for name in names))
        assert len(ours(seen)) == 1


class TestStatementsOfOurs:
    def test_roles_with_paths_of_their_own(self, server, connect):
        """A path that was met before is confirmed, not read again."""
        server.execute(
            "create schema ext; create extension hstore schema ext", dbname="shop"
        )
        paths = ["ext", "public", "public", "ext", "public, ext"]
        query = "select pg_typeof(%s)::oid = 'ext.hstore'::regtype"
        for path in paths:
            connect(options=f"-c search_path={path}".replace(", ", ",")).row(
                query, [{"a": "1"}]
            )
        with server.statements() as seen:
            for path in paths:
                client = connect(options=f"-c search_path={path}".replace(", ", ","))
                assert client.row(query, [{"a": "1"}]) == (True,)
        assert full_reads(seen) == 0
        assert len(ours(seen)) <= len(paths)

    @pytest.mark.parametrize("binding", ["server", "client"])
    def test_a_missing_type_is_not_asked_for_each_time(self, server, connect, binding):
        register_mood()
        server.execute(HSTORE, dbname="shop")
        client = connect(binding=binding)
        with server.statements() as seen:
            for _ in range(20):
                # As psycopg sends an Enum that nobody registered: its name, untyped.
                assert client.row("select %s::text", [Mood.OK])[0] in ("OK", "ok")
        assert full_reads(seen) <= 3

    def test_no_memory_for_each_statement(self, server, connect):
        """Texts with values written into them are another one each time."""
        server.execute(HSTORE, dbname="shop")
        with trust("transaction"):
            client = connect(binding="client")
            for number in range(2400):
                if number % 3 == 0:
                    client.row(f"select {number}")
                else:
                    client.row("select %s", [number])
        assert len(runtime.alias(ALIAS)._bare) <= 2048

    def test_enums_of_one_python_class_share_what_psycopg_makes(self, server, connect):
        tenants(server, range(40))
        register_mood()
        client = connect()
        for number in range(40):
            client.row(f"select 'ok'::t{number}.mood")
        state = state_of(client.connection)
        assert state is not None
        assert state.last is not None
        assert len({id(one) for one in state.last.rows.values()}) == 1


def test_declared_types_that_nobody_has_cost_nothing_more(new):
    """One question, however many are declared."""
    new.create_database("few")
    try:
        for number in range(30):
            one = enum.Enum("one", {"a": "a"})
            register_type(f"absent{number}", EnumInfo, register_enum, enum=one)
        with opened(Sync, new, "few") as client, new.statements() as seen:
            for _ in range(3):
                client.row("select 1, 'x'::text")
        assert len(ours(seen)) == 1
    finally:
        new.terminate("few")
        new.drop_database("few")
