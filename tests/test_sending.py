"""What is sent is sent as the type that it was declared as, on this very server.

Types declared with their schema, types of one name in several, ranges by what they
are made of, names and labels that the client's encoding cannot write.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.multirange import Multirange, MultirangeInfo, register_multirange
from psycopg.types.range import Range, RangeInfo, register_range

from django_pg_hot_async import forget, pool, register_type
from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .clients import (
    ALIAS,
    SIZE,
    Mood,
    Size,
    Sync,
    both,
    opened,
    ours,
    outcome,
    register_mood,
    register_size,
)
from .scenarios import HSTORE, MOOD, trust

bindings = pytest.mark.parametrize("binding", ["server", "client"])
levels = pytest.mark.parametrize("level", ["auto", "transaction"])

LABELS = "('sad', 'ok')"
HOURS = Range(dt.time(8), dt.time(9))


@pytest.fixture(scope="module")
def old():
    with PostgreSQL(15) as server:
        yield server


@pytest.fixture(scope="module")
def new():
    with PostgreSQL(18) as server:
        yield server


@pytest.fixture(params=["old", "new"], ids=["15", "18"])
def server(request):
    """One that does not report its search_path, and one that does."""
    return request.getfixturevalue(request.param)


WIPE = """do $$ declare one text; begin
for one in select nspname from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema' loop
    execute format('drop schema %I cascade', one);
end loop; create schema public; end $$"""


@pytest.fixture
def made(server):
    """Fill a database with statements; return what a client is given for it."""
    names: list[str] = []

    def make(*statements: str) -> tuple[Any, str]:
        name = f"sending{len(names)}"
        names.append(name)
        if not server.execute("select 1 from pg_database where datname = %s", [name]):
            server.create_database(name)
        for statement in statements:
            server.execute(statement, dbname=name)
        return server, name

    yield make
    for name in names:
        server.terminate(name)
        server.execute(WIPE, dbname=name)


def schemas(*names: str) -> list[str]:
    return [
        f"create schema {name}; create type {name}.mood as enum {LABELS};"
        f"create type {name}.size as (width int, feels {name}.mood);"
        f"create type {name}.hours as range (subtype = time,"
        f" multirange_type_name = {name}.hourses);"
        f"create table {name}.item (feels {name}.mood, size {name}.size,"
        f" moods {name}.mood[], sizes {name}.size[], hours {name}.hours,"
        f" spans {name}.hourses)"
        for name in names
    ]


VALUES = [
    Mood.OK,
    Size(1, Mood.OK),
    [Mood.OK, Mood.SAD],
    [Size(1, Mood.OK)],
    HOURS,
    Multirange([HOURS]),
]
INSERT = (
    "insert into item values (%s, %s, %s, %s, %s, %s)"
    " returning feels, size, moods, sizes, hours, spans"
)


def register_ranges() -> None:
    register_type("hours", RangeInfo, register_range)
    register_type("hourses", MultirangeInfo, register_multirange)


class TestDeclaredSchema:
    """A type that is declared as shop.mood is that, whatever the search_path."""

    @both
    @bindings
    @levels
    @pytest.mark.parametrize("path", ["tenant, shop", "public"])
    def test_path(self, made, client_class, binding, level, path):
        where = made(*schemas("tenant", "shop"))
        register_mood("shop.mood")
        register_size("shop.size")
        query = (
            "select pg_typeof(%s)::oid = 'shop.mood'::regtype,"
            " pg_typeof(%s)::oid = 'shop.mood[]'::regtype,"
            " pg_typeof(%s)::oid = 'shop.size'::regtype"
        )
        values = [Mood.OK, [Mood.OK], Size(1, Mood.OK)]
        with trust(level), opened(client_class, *where, binding=binding) as client:
            assert client.row(query, values) == (True,) * 3
            client.results(f"set search_path = {path}")
            for _ in range(2):
                assert client.row(query, values) == (True,) * 3
            client.results("begin")
            assert client.row(query, values) == (True,) * 3
            client.results("commit")

    @bindings
    @pytest.mark.parametrize(
        "hostile",
        [
            "create domain public.mood as text check (public.evil(value))",
            "create type public.mood as enum ('ok', 'new')",
            "create type public.mood as (label text)",
            "create table public.mood (label text)",
        ],
        ids=["domain", "enum", "composite", "table"],
    )
    def test_another_role_cannot_put_its_own_there(self, made, binding, hostile):
        """What that role wrote is never run, whenever it came."""
        server, name = made(
            *schemas("shop"),
            "create table public.loot (who text);"
            "create function public.evil(text) returns bool language sql as"
            " $$ insert into public.loot values (current_user); select true $$",
        )
        register_mood("shop.mood")
        query = "select %s, pg_typeof(%s)::oid = 'shop.mood'::regtype"
        options = "-c search_path=public,shop"
        with opened(Sync, server, name, binding=binding, options=options) as client:
            assert client.row(query, [Mood.OK] * 2) == (Mood.OK, True)
            server.execute(hostile, dbname=name)
            for _ in range(2):
                assert client.row(query, [Mood.OK] * 2) == (Mood.OK, True)
                forget(ALIAS)
        with opened(Sync, server, name, binding=binding, options=options) as client:
            assert client.row(query, [Mood.OK] * 2) == (Mood.OK, True)
            written = client.connection.cursor()
            text = sql.SQL("select {}, pg_typeof({})::oid = 'shop.mood'::regtype")
            written.execute(text.format(*[sql.Literal(Mood.OK)] * 2))
            assert written.fetchone() == (Mood.OK, True)
        assert server.execute("table public.loot", dbname=name) == []

    @bindings
    def test_beside_one_that_is_declared_without(self, made, binding):
        where = made(*schemas("one", "shop"))
        register_mood("shop.mood")
        other = enum.Enum("other", {"sad": "sad", "ok": "ok"})
        register_type("mood", EnumInfo, register_enum, enum=other)
        with opened(Sync, *where, binding=binding) as client:
            for _ in range(2):
                client.results("set search_path = one")
                row = client.row(
                    "select 'ok'::shop.mood, 'ok'::one.mood,"
                    " pg_typeof(%s)::oid = 'shop.mood'::regtype",
                    [Mood.OK],
                )
                assert row[0] is Mood.OK
                assert row[2] is True
                row = client.row("select pg_typeof(%s)::text", [other["ok"]])
                assert row == ("mood",)


class TestTenants:
    """The search_path says whose type is meant: when the statement is executed."""

    @both
    @bindings
    @levels
    def test_path_of_a_transaction(self, made, client_class, binding, level):
        server, name = made(*schemas("one", "two", "three"))
        register_mood()
        register_size()
        register_ranges()
        with (
            trust(level),
            opened(client_class, server, name, binding=binding) as client,
        ):
            for tenant in ("one", "two", "three", "two", "one"):
                client.results("begin")
                client.results(f"set local search_path = {tenant}")
                assert client.row(INSERT, VALUES) == tuple(VALUES)
                client.results("commit")
                [[count]] = server.execute(
                    f"select count(*) from {tenant}.item", dbname=name
                )
                assert count
            client.results("begin")
            for tenant in ("three", "one"):
                client.results(f"set local search_path = {tenant}")
                assert client.row(INSERT, VALUES) == tuple(VALUES)
            client.results("rollback")

    @both
    @bindings
    def test_path_of_the_session(self, made, client_class, binding):
        where = made(*schemas("one", "two"))
        register_mood()
        register_size()
        register_ranges()
        with opened(client_class, *where, binding=binding) as client:
            for tenant in ("one", "two", "one"):
                client.results(f"set search_path = {tenant}")
                for _ in range(2):
                    assert client.row(INSERT, VALUES) == tuple(VALUES)

    @bindings
    def test_path_of_a_role(self, made, binding):
        """SET ROLE makes "$user" another, and no parameter reports that."""
        server, name = made(*schemas("ann", "bob"))
        for role in ("ann", "bob"):
            server.execute(
                f"create role {role};"
                f"grant usage on schema {role} to {role};"
                f"grant insert, select on {role}.item to {role}",
                dbname=name,
            )
        register_mood()
        register_size()
        register_ranges()
        try:
            with opened(Sync, server, name, binding=binding) as client:
                for role in ("ann", "bob", "ann", "bob"):
                    client.results(f"set role {role}")
                    assert client.row(INSERT, VALUES) == tuple(VALUES)
                    client.results("reset role")
        finally:
            server.terminate(name)
            for role in ("ann", "bob"):
                server.execute(f"drop owned by {role}; drop role {role}", dbname=name)

    @bindings
    def test_path_that_a_rollback_takes_back(self, made, binding):
        where = made(*schemas("one", "two"))
        register_mood()
        query = "select pg_typeof(%s)::oid = '{}.mood'::regtype"
        with opened(Sync, *where, binding=binding) as client:
            client.results("set search_path = one")
            assert client.row(query.format("one"), [Mood.OK]) == (True,)
            client.results("begin")
            client.results("savepoint here")
            client.results("set search_path = two")
            assert client.row(query.format("two"), [Mood.OK]) == (True,)
            client.results("rollback to here")
            assert client.row(query.format("one"), [Mood.OK]) == (True,)
            client.results("rollback")
            assert client.row(query.format("one"), [Mood.OK]) == (True,)

    def test_nothing_is_asked_in_a_transaction_that_has_failed(self, made):
        server, name = made(*schemas("one", "two"))
        register_mood()
        with opened(Sync, server, name) as client:
            client.row("select %s::one.mood", [Mood.OK])
            client.results("begin")
            assert isinstance(outcome(client.results, "nonsense"), errors.SyntaxError)
            with server.statements() as seen:
                found = outcome(client.row, "select %s", [Mood.OK])
            assert isinstance(found, errors.InFailedSqlTransaction)
            assert ours(seen) == []

    @bindings
    def test_a_tenant_that_somebody_else_makes(self, made, binding):
        server, name = made(*schemas("one"))
        register_mood()
        register_size()
        register_ranges()
        with opened(Sync, server, name, binding=binding) as client:
            client.results("set search_path = one")
            assert client.row(INSERT, VALUES) == tuple(VALUES)
            for statement in schemas("two"):
                server.execute(statement, dbname=name)
            client.results("set search_path = two")
            # Nothing shows another type of that name now; the refusal does.
            with pytest.raises(errors.DatatypeMismatch, match=r"is of type one\.mood"):
                client.row(INSERT, VALUES)
            for tenant in ("two", "one", "two"):
                client.results(f"set search_path = {tenant}")
                assert client.row(INSERT, VALUES) == tuple(VALUES)

    @bindings
    def test_many_values_at_once(self, made, binding):
        where = made(*schemas("one", "two"))
        register_mood()
        register_size()
        register_ranges()
        with opened(Sync, *where, binding=binding) as client:
            for tenant in ("one", "two", "one"):
                client.results(f"set search_path = {tenant}")
                found = client.many(INSERT, [VALUES] * 3)
                assert found == [[tuple(VALUES)]] * 3

    @pytest.mark.pgbouncer
    @bindings
    def test_of_a_pooler_that_goes_back_to_one_that_reports_no_path(
        self, old, new, binding
    ):
        register_mood()
        register_size()
        register_ranges()
        for server in (old, new):
            server.create_database("tenants")
            order = ("one", "two") if server is old else ("two", "one")
            for statement in schemas(*order):
                server.execute(statement, dbname="tenants")
        try:
            with (
                PgBouncer(new, "tenants") as bouncer,
                opened(Sync, bouncer, binding=binding) as client,
            ):
                for server in (new, old, new, old):
                    bouncer.switch(server)
                    for _ in range(2):
                        client.results("begin")
                        for tenant in ("one", "two"):
                            client.results(f"set local search_path = {tenant}")
                            assert client.row(INSERT, VALUES) == tuple(VALUES)
                        client.results("commit")
        finally:
            for server in (old, new):
                server.terminate("tenants")
                server.drop_database("tenants")


class TestNoneVisible:
    """The search_path leads to none of several: the server infers from the column."""

    @both
    @levels
    @pytest.mark.parametrize("how", ["%s", "%t", "%b"])
    def test_by_its_column(self, made, client_class, level, how):
        where = made(*schemas("one", "two"))
        register_mood()
        register_size()
        query = "insert into {}.item (feels, size, moods, sizes)"
        # A list in binary names the type of its elements, and nothing tells that.
        lists = "%t" if how == "%b" else how
        query += f" values ({how}, {how}, {lists}, {lists})"
        query += " returning feels, size, moods, sizes"
        with trust(level), opened(client_class, *where) as client:
            for tenant in ("one", "two", "one"):
                row = client.row(query.format(tenant), VALUES[:4])
                assert row == tuple(VALUES[:4])

    @bindings
    def test_a_cast_says_whose(self, made, binding):
        where = made(*schemas("one", "two"))
        register_mood()
        register_size()
        with opened(Sync, *where, binding=binding) as client:
            for tenant in ("one", "two"):
                row = client.row(
                    f"select %s::{tenant}.mood, %s::{tenant}.size, %s::{tenant}.mood[]",
                    VALUES[:3],
                )
                assert row == tuple(VALUES[:3])

    @both
    @pytest.mark.parametrize("format", ["text", "binary"])
    def test_copy_by_names(self, made, client_class, format):
        """Copy.set_types() names a type that the path leads to only now."""
        server, name = made(*schemas("one", "two"))
        register_mood()
        register_size()
        statement = "copy item (feels, size, moods, sizes)"
        types = ["mood", "size", "mood[]", "size[]"]
        with opened(client_class, server, name) as client:
            assert client.row("select %s::one.mood", [Mood.OK]) == (Mood.OK,)
            for tenant in ("one", "two", "one"):
                client.results("begin")
                client.results(f"set local search_path = {tenant}")
                client.copy_in(
                    f"{statement} from stdin (format {format})", types, VALUES[:4]
                )
                client.results("commit")
                client.results(f"set search_path = {tenant}")
                rows = client.copy_out(
                    f"{statement} to stdout (format {format})", types
                )
                assert set(map(repr, rows)) == {repr(tuple(VALUES[:4]))}
                client.results("reset search_path")


SHIFT = "create type shift as range (subtype = time, multirange_type_name = shifts)"
OPENING = (
    "create type opening as range (subtype = time, multirange_type_name = openings)"
)


class TestRanges:
    """Several over one subtype: the one that is declared last is sent."""

    @levels
    @pytest.mark.parametrize("declared", [("shift", "opening"), ("opening", "shift")])
    @pytest.mark.parametrize(
        "order", [(SHIFT, OPENING), (OPENING, SHIFT)], ids=["a", "b"]
    )
    def test_order(self, made, level, declared, order):
        where = made(*order)
        for name in declared:
            register_type(name, RangeInfo, register_range)
            register_type(f"{name}s", MultirangeInfo, register_multirange)
        last = declared[-1]
        query = "select pg_typeof(%s)::text, pg_typeof(%s)::text, pg_typeof(%s)::text"
        values = [HOURS, [HOURS], Multirange([HOURS])]
        with trust(level), opened(Sync, *where) as client:
            for _ in range(2):
                found = client.row(query, values)
                assert found == (last, f"{last}[]", f"{last}s")
            assert client.row(query.replace("%s", "%b"), values) == found

    @both
    def test_over_a_type_that_is_tracked(self, made, client_class):
        where = made(MOOD, "create type moods as range (subtype = mood)")
        register_mood()
        register_type("moods", RangeInfo, register_range)
        both_ends = Range(Mood.SAD, Mood.OK)
        with opened(client_class, *where) as client:
            for how in ("%s", "%t", "%b"):
                row = client.row(
                    f"select {how}, pg_typeof({how})::text", [both_ends] * 2
                )
                assert row == (both_ends, "moods")

    def test_that_a_server_lacks_goes_without_a_type(self, made):
        """As psycopg sends one that nobody registered."""
        first = made(SHIFT)
        second = made("select 1")
        register_type("shift", RangeInfo, register_range)
        for where, expected in ((first, "shift"), (second, "text")):
            with opened(Sync, *where) as client:
                query = "select pg_typeof(%s)::text"
                if expected == "text":
                    found = outcome(client.row, "select %s::text", [HOURS])
                    assert found == ("[08:00:00,09:00:00)",)
                else:
                    assert client.row(query, [HOURS]) == (expected,)

    def test_set_types_says_what_psycopg_says(self, made):
        """It has no dumper for a range by its OID."""
        server, name = made(SHIFT, "create table t (r shift)")
        register_type("shift", RangeInfo, register_range)
        with psycopg.connect(server.conninfo(name), autocommit=True) as plain:
            info = RangeInfo.fetch(plain, "shift")
            assert info is not None
            register_range(info, plain)
            with (
                pytest.raises(psycopg.ProgrammingError) as expected,
                plain.cursor().copy("copy t from stdin (format binary)") as copy,
            ):
                copy.set_types(["shift"])
                copy.write_row([HOURS])
        with opened(Sync, server, name) as client:
            found = outcome(
                client.copy_in, "copy t from stdin (format binary)", ["shift"], [HOURS]
            )
            assert type(found) is type(expected.value)
            assert client.row("select 1") == (1,)


class Crate(NamedTuple):
    attrs: Any
    sizes: Any
    inner_size: Any


class TestComposite:
    """The binary format names the type of each attribute."""

    @both
    @levels
    def test_nested(self, made, client_class, level):
        where = made(
            HSTORE,
            MOOD,
            SIZE,
            "create type crate as (attrs hstore, sizes size[], inner_size size)",
            "create table crates (c crate, cs crate[])",
        )
        register_mood()
        register_size()
        register_type("crate", CompositeInfo, register_composite, factory=Crate)
        one = Crate({"a": "1"}, [Size(1, Mood.OK), Size(None, None)], Size(2, Mood.SAD))
        with trust(level), opened(client_class, *where) as client:
            for how in ("%s", "%t", "%b"):
                query = f"insert into crates values ({how}, {how}) returning c, cs"
                for _ in range(2):
                    assert client.row(query, [one, [one, one]]) == (one, [one, one])

    @both
    def test_with_attributes_dropped(self, made, client_class):
        where = made(
            MOOD,
            "create type size as (gone text, width int, lost int, feels mood);"
            "alter type size drop attribute gone; alter type size drop attribute lost",
        )
        register_mood()
        register_size()
        value = Size(1, Mood.OK)
        with opened(client_class, *where) as client:
            for how in ("%s", "%t", "%b"):
                row = client.row(f"select {how}::size, array[{how}::size]", [value] * 2)
                assert row == (value, [value])


NAMES = [
    'say "no"',
    "a.b",
    "semi;colon",
    "back\\slash",
    "new\nline",
    "it's",
    "{b},",
    "%",
]
LABEL = "b;'\"\\\n{},"


def quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


class TestNames:
    @bindings
    @pytest.mark.parametrize("name", [*NAMES, "気分"])
    def test_that_need_quotes(self, made, binding, name):
        one = enum.Enum("one", {"plain": "plain", "odd": LABEL})
        text = LABEL.replace("'", "''")
        place = f"{quoted('s ' + name)}.{quoted(name)}"
        where = made(
            f"create schema {quoted('s ' + name)};"
            f"create type {place} as enum ('plain', '{text}');"
            f"create table kept (v {place}, vs {place}[])"
        )
        register_type(
            quoted(name),
            EnumInfo,
            register_enum,
            enum=one,
            mapping=[(member, member.value) for member in one],
        )
        values = [one["odd"], [*one]]
        with opened(Sync, *where, binding=binding) as client:
            for _ in range(2):
                query = "insert into kept values (%s, %s) returning v, vs"
                assert client.row(query, values) == tuple(values)
                forget(ALIAS)


@pytest.fixture(scope="module")
def databases(new):
    made = {}
    for encoding in ("UTF8", "LATIN1", "SQL_ASCII", "EUC_JP"):
        name = encoding.lower()
        new.execute(
            f"create database {name} encoding '{encoding}' locale 'C'"
            " template template0"
        )
        label = "é" if encoding == "LATIN1" else "気分"
        with psycopg.connect(new.conninfo(name), autocommit=True) as conn:
            conn.execute("set client_encoding to utf8")
            conn.execute(HSTORE)
            conn.execute(f"create type mood as enum ('sad', 'ok', '{label}')")
            conn.execute(f'create schema "{label}"')
            conn.execute(f'create table "{label}".hstore (n int)')
            conn.execute(f"create type \"{label}\".mood as enum ('ok')")
            conn.execute("create table item (attrs hstore, feels mood, more mood)")
            conn.execute(f"insert into item values ('a=>1', 'ok', '{label}')")
        made[name] = label
    yield made
    for name in made:
        new.terminate(name)
        new.drop_database(name)


class TestEncodings:
    """What an encoding cannot write must not be in the way of what it can."""

    @levels
    @bindings
    @pytest.mark.parametrize("client_encoding", ["utf8", "latin1", "sql_ascii"])
    @pytest.mark.parametrize("name", ["utf8", "latin1", "sql_ascii", "euc_jp"])
    def test_of_a_database_and_its_client(
        self, new, databases, level, binding, client_encoding, name
    ):
        if (name, client_encoding) == ("euc_jp", "latin1"):
            # The server has no such conversion.
            return
        register_mood()
        params = {"client_encoding": client_encoding, "binding": binding}
        query = "select attrs::text = %s::hstore::text, feels, feels = %s from item"
        with trust(level), opened(Sync, new, name, **params) as client:
            for _ in range(2):
                row = client.row(query, ['"a"=>"1"', Mood.OK])
                assert row == (True, Mood.OK, True)
                [found] = client.row("select attrs from item")
                assert {
                    key.decode() if isinstance(key, bytes) else key for key in found
                } == {"a"}
                row = client.row("select %s ? 'a'", [{"a": "1"}])
                assert row == (True,)

    def test_a_label_that_it_can_write(self, new, databases):
        for name, client_encoding, label in (
            ("latin1", "latin1", "é"),
            ("latin1", "utf8", "é"),
            ("euc_jp", "utf8", "気分"),
            ("euc_jp", "euc_jp", "気分"),
        ):
            one = enum.Enum("one", {"ok": "ok", "odd": label})
            with psycopg.connect(
                new.conninfo(name), autocommit=True, client_encoding=client_encoding
            ) as conn:
                kind = f"mood_{name}_{client_encoding}"
                conn.execute(f"create type {kind} as enum ('ok', '{label}')")
                register_type(
                    kind,
                    EnumInfo,
                    register_enum,
                    enum=one,
                    mapping=[(member, member.value) for member in one],
                )
                pool.configure(ALIAS)(conn)
                for _ in range(2):
                    query = f"select %s, %s::{kind}, array[%s]"
                    found = conn.execute(query, [one["odd"]] * 3).fetchone()
                    assert found == (one["odd"], one["odd"], [one["odd"]])


class TestLiterals:
    """What is written into a text is of the server too, whoever writes it."""

    @bindings
    @pytest.mark.parametrize("within", ["autocommit", "transaction", "pipeline"])
    def test_of_a_first_statement(self, made, binding, within):
        where = made(HSTORE, MOOD)
        register_mood()
        text = sql.SQL("select {}, {} -> 'a', pg_typeof({})::text").format(
            sql.Literal(Mood.OK), sql.Literal({"a": "1"}), sql.Literal(Mood.OK)
        )
        expected = (Mood.OK, "1", "mood")
        with opened(Sync, *where, binding=binding) as client:
            if within == "autocommit":
                assert client.row(text) == expected
            elif within == "transaction":
                assert client.in_transaction((text, None)) == [expected]
            else:
                assert client.in_pipeline((text, None), (text, None)) == [expected] * 2

    def test_of_mogrify(self, made):
        where = made(*schemas("one"))
        register_mood()
        with opened(Sync, *where, binding="client") as client:
            text = client.connection.cursor().mogrify("select %s", [Mood.OK])
            assert text == 'select \'ok\'::"one"."mood"'


def test_values_in_a_pipeline(made):
    """The path moves within it; what was sent before has another type."""
    where = made(*schemas("one", "two"))
    register_mood()
    register_size()
    register_ranges()
    path = "select set_config('search_path', %s, false)"
    with opened(Sync, *where) as client:
        found = client.in_pipeline(
            (path, ["two"]), (INSERT, VALUES), (path, ["one"]), (INSERT, VALUES)
        )
        assert found == [("two",), tuple(VALUES), ("one",), tuple(VALUES)]


def test_nothing_is_asked_for_a_value_that_was_just_sent(made):
    server, name = made(HSTORE, MOOD)
    register_mood()
    with opened(Sync, server, name) as client:
        client.row("select %s", [Mood.OK])
        with server.statements() as seen:
            for _ in range(3):
                client.row("select %s, %s", [Mood.OK, [Mood.SAD]])
    assert ours(seen) == []


@pytest.mark.parametrize("level", ["auto", "connection", "server"])
def test_a_cursor_that_sent_the_same_before_its_type_was_made_anew(made, level):
    """psycopg keeps dumpers for a query that is run again; they have OIDs."""
    server, name = made(HSTORE)
    with trust(level), opened(Sync, server, name) as client:
        cursor = client.connection.cursor()
        for _ in range(2):
            for _ in range(3):
                cursor.execute("select pg_typeof(%s)::text", [{"a": "1"}])
                assert cursor.fetchall() == [("hstore",)]
            server.execute(f"drop extension hstore; {HSTORE}", dbname=name)
            forget()


def test_an_error_names_no_surrogate(made):
    """Numbers that stand for OIDs inside never show."""
    where = made(*schemas("one", "two"))
    register_mood()
    register_size()
    with opened(Sync, *where) as client:
        for query, params in (
            ("select %s = 1", [Mood.OK]),
            ("select %b = 1", [[Mood.OK]]),
            ("select nowhere(%s)", [Size(1, Mood.OK)]),
        ):
            found = outcome(client.row, query, params)
            assert isinstance(found, errors.Error)
            assert "42949" not in str(found)
