"""Input that means harm, or just looks like it; and what must not leak."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import re
import traceback
from contextlib import contextmanager, suppress
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import (
    DataError,
    InternalError,
    OperationalError,
    ProgrammingError,
    transaction,
)
from django.test.utils import override_settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.range import Range, RangeInfo, register_range
from psycopg_pool import ConnectionPool

from django_pg_hot_async import conf, forget, pool, register_type, status
from django_pg_hot_async._core import catalog as _catalog
from django_pg_hot_async._core.catalog import Catalog, Question
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async._core.trust import Trust
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async.signals import server_changed

from .preflight import two_databases
from .proxy import Proxy
from .scenarios import (
    ANVIL,
    KINDS,
    ORDERS,
    ask_for,
    close_all,
    connection,
    connections,
    create_types,
    database,
    drop_types,
    lead,
    own_database,
    trust,
)
from .shop.models import Product

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())
BINDING = pytest.mark.parametrize(
    "server_side", [False, True], ids=["client", "server"]
)


class Mood(enum.Enum):
    sad = "sad"
    ok = "ok"


@pytest.fixture
def declared():
    """Types of every kind that has a shape, so that all of it is asked for."""
    register_type("mood", EnumInfo, register_enum, enum=Mood)
    register_type("pair", CompositeInfo, register_composite)
    register_type("span", RangeInfo, register_range)
    yield
    runtime.track(GROUP, ())


# Whatever of this is called says so. What is compared with these operators, or read
# from these tables, is never found.
CRY = """
create schema evil;
create function evil.cry(text) returns boolean language plpgsql as
    'begin raise exception ''hijacked by %'', $1; end';
"""
FUNCTIONS = "\n".join(
    f"create function evil.{name} returns {returns} language sql as"
    f" 'select evil.cry(''{name}'')::text::{returns}';"
    for name, returns in {
        "current_setting(text)": "text",
        "current_database()": "name",
        "getdatabaseencoding()": "name",
        "pg_postmaster_start_time()": "timestamptz",
        "pg_backend_pid()": "int",
        "convert_to(text, name)": "bytea",
        "convert_from(bytea, name)": "text",
        "encode(bytea, text)": "text",
        "decode(text, text)": "bytea",
        "format_type(oid, int)": "text",
        "to_regtype(text)": "regtype",
        "pg_type_is_visible(oid)": "boolean",
        "pg_is_other_temp_schema(oid)": "boolean",
        '"extract"(text, timestamptz)': "numeric",
        "same(oid, oid)": "boolean",
        "same(name, name)": "boolean",
        "same(text, text)": "boolean",
        'same("char", "char")': "boolean",
        "same(numeric, numeric)": "boolean",
        "times(numeric, numeric)": "numeric",
        "more(int2, int4)": "boolean",
    }.items()
)
EVIL = (
    f"{CRY}{FUNCTIONS}"
    + """
create operator evil.= (leftarg = oid, rightarg = oid, procedure = evil.same);
create operator evil.= (leftarg = name, rightarg = name, procedure = evil.same);
create operator evil.= (leftarg = text, rightarg = text, procedure = evil.same);
create operator evil.= (leftarg = "char", rightarg = "char", procedure = evil.same);
create operator evil.= (leftarg = numeric, rightarg = numeric, procedure = evil.same);
create operator evil.* (leftarg = numeric, rightarg = numeric, procedure = evil.times);
create operator evil.> (leftarg = int2, rightarg = int4, procedure = evil.more);
create function evil.unnest(anyarray) returns setof anyelement language plpgsql as
    'begin raise exception ''hijacked by unnest''; end';
create function evil.one_more(int8) returns int8 language sql as
    'select evil.cry(''count'')::int::int8';
create aggregate evil.count(*) (sfunc = evil.one_more, stype = int8, initcond = '0');
create function evil.joined(text, text, text) returns text language sql as
    'select evil.cry(''string_agg'')::text';
create aggregate evil.string_agg(text, text) (sfunc = evil.joined, stype = text);
create function evil.object(text, oid, text) returns text language sql as
    'select evil.cry(''json_object_agg'')::text';
create aggregate evil.json_object_agg(oid, text) (sfunc = evil.object, stype = text);
create aggregate evil.json_agg(anycompatible) (sfunc = array_append,
    stype = anycompatiblearray, initcond = '{}');
create function evil.json_build_array(variadic "any") returns json
    language internal as 'json_build_object';
create function evil.json_build_object(variadic "any") returns json
    language internal as 'json_build_array';
create function evil.concat(variadic "any") returns text
    language internal as 'json_build_object';
create table evil.pg_type as select * from pg_catalog.pg_type with no data;
create table evil.pg_namespace as select * from pg_catalog.pg_namespace with no data;
create table evil.pg_enum as select * from pg_catalog.pg_enum with no data;
create table evil.pg_attribute (attrelid oid, attname name, atttypid oid, attnum int2,
    attisdropped boolean);
create table evil.pg_range as select * from pg_catalog.pg_range with no data;
create domain evil.name as pg_catalog.text check (evil.cry('name'));
create domain evil.text as pg_catalog.text check (evil.cry('text'));
create domain evil.regtype as pg_catalog.regtype check (evil.cry('regtype'));
create domain evil.oid as pg_catalog.int4 check (evil.cry('oid'));
create domain evil.int4 as pg_catalog.text check (evil.cry('int4'));
create domain evil.citext as pg_catalog.text;
create table evil.hstore (id pg_catalog.int4);
"""
)
SHAPES = """
create type public.pair as (mood public.mood, number int);
create type public.span as range (subtype = pg_catalog.int4);
create type public.plain as enum ('x');
create type public."größe" as enum ('klein', 'groß');
"""


@BINDING
@pytest.mark.parametrize("level", ["auto", "connection", "transaction"])
def test_search_path_before_pg_catalog(green, declared, level, server_side):
    """Every name in the statement is qualified, operators too."""
    with own_database(green, "hostile", ORDERS["green"]), trust(level):
        green.execute(SHAPES + EVIL, dbname="hostile")
        options = {"server_side_binding": server_side}
        lead("default", database(green.database("hostile"), KINDS["C2"], **options))
        ask_for("set search_path to evil, pg_catalog, public")
        # It is as hostile as it says.
        for name in (
            "current_setting('x')",
            "'1'::name",
            "'1'::regtype::pg_catalog.oid = '2'::regtype::pg_catalog.oid",
        ):
            with pytest.raises(ProgrammingError, match="hijacked"):
                ask_for(f"select {name}")
        with green.statements() as statements:
            assert ask_for("select attrs, tags, parts, feels from public.product") == (
                *ROW,
                Mood.ok,
            )
            pair, span = ask_for(
                "select (row('sad', 1)::public.pair), public.span(1, 2)"
            )
            assert (tuple(pair), span) == ((Mood.sad, 1), Range(1, 2))
            assert read_in_an_older_transaction() == ("x",)
            # What evil calls hstore and citext is none.
            assert ask_for(
                "select pg_catalog.pg_typeof(%s)::pg_catalog.text,"
                " pg_catalog.pg_typeof(%s)::pg_catalog.text",
                [{"a": "1"}, [{"a": "1"}]],
            ) == ("public.hstore", "public.hstore[]")
        for part in ("LEFT JOIN", "unnest"):
            assert [text for text in statements if part in text]


def read_in_an_older_transaction():
    """Read a value whose type is to be explained to a transaction with a snapshot."""
    with transaction.atomic():
        ask_for("set transaction isolation level repeatable read")
        return ask_for("select 'x'::public.plain")


QUALIFIED = re.compile(rb"OPERATOR\(pg_catalog\.(.*?)\)|pg_catalog\.()")
QUESTION = Question(
    ("hstore", "citext", "mood", "pair", "span", "größe"), frozenset("bcemr")
)


def confirm(catalog: Catalog, **options: bool) -> bytes:
    return _catalog.confirm([catalog], wants_pid=True, wants_database=True, **options)


def assert_(catalog: Catalog, paths: dict[str, int]) -> bytes:
    return _catalog.assert_served_by(catalog, paths, wants_database=True)


STATEMENTS = {
    "read by name": lambda catalog, paths: _catalog.read_by_name(QUESTION),
    "read by OID": lambda catalog, paths: _catalog.read_by_oid(
        QUESTION, [oid for row in catalog.types for oid in (row.oid, row.array_oid)]
    ),
    "confirmation": lambda catalog, paths: confirm(catalog, is_ascii=True, is_iso=True),
    "escaped": lambda catalog, paths: confirm(catalog, is_ascii=False, is_iso=False),
    "paths": lambda catalog, paths: _catalog.find_paths(QUESTION.names),
    "assertion": assert_,
}
"""Every statement that this package sends to a server, by what it is known of it."""


def places():
    """Each name, and operator, that one of them qualifies."""
    known = Catalog(
        180000,
        start=1,
        types=(_catalog.TypeRow("mood", "x", 20000, 20001, "e", ","),),
        confirmed=(20000, 20001),
        names='{"größe","größe[]"}',
        relations=(30000,),
        attributes="1 x",
    )
    for kind, make in STATEMENTS.items():
        text = make(known, dict.fromkeys(QUESTION.names, 20000))
        for number, match in enumerate(QUALIFIED.finditer(text)):
            name = text[match.start() : match.end() + 12].split(b"(")[0].decode()
            yield pytest.param(kind, number, id=f"{kind}-{number}-{name}")


@pytest.fixture(scope="module")
def hostile(green):
    with own_database(green, "hostile_too", ORDERS["green"]):
        green.execute(SHAPES + EVIL, dbname="hostile_too")
        yield green.database("hostile_too")


@pytest.fixture
def ask(hostile, green):
    """Have a session with that search_path answer a statement, or the error."""
    with psycopg.connect(green.conninfo("hostile_too"), autocommit=True) as conn:
        conn.execute("set search_path to evil, pg_catalog, public")
        result = conn.pgconn.exec_

        def answer(text: bytes) -> Any:
            found = result(text)
            if found.status != psycopg.pq.ExecStatus.TUPLES_OK:
                return found.error_message.decode()
            return [
                [found.get_value(row, column) for column in range(found.nfields)]
                for row in range(found.ntuples)
            ]

        found = result(_catalog.read_by_name(QUESTION))
        assert found.status == psycopg.pq.ExecStatus.TUPLES_OK, found.error_message
        catalog = _catalog.parse(found)
        [oids] = answer(_catalog.find_paths(QUESTION.names))
        paths = dict(zip(QUESTION.names, (int(oid or 0) for oid in oids), strict=True))
        yield answer, lambda kind: STATEMENTS[kind](catalog, paths)


@pytest.mark.parametrize("kind", STATEMENTS)
def test_each_statement_under_that_search_path(ask, kind, hostile, green):
    """It says what it says under any other."""
    answer, statement = ask
    under_evil = answer(statement(kind))
    assert isinstance(under_evil, list), under_evil
    if kind == "read by name":
        with psycopg.connect(green.conninfo("hostile_too")) as conn:
            found = _catalog.parse(conn.pgconn.exec_(statement(kind)))
        assert {row.name for row in found.types} == {*QUESTION.names}
        labels = {row.name: row.labels for row in found.types if row.kind == "e"}
        assert labels == {"mood": ("sad", "ok"), "größe": ("klein", "groß")}


@pytest.mark.parametrize(("kind", "number"), [*places()])
def test_the_trap_shuts(ask, kind, number):
    """Each name and operator, if it were not qualified, would be the evil one."""
    answer, statement = ask
    text = statement(kind)
    match = [*QUALIFIED.finditer(text)][number]
    start, end = match.span()
    bare = text[:start] + QUALIFIED.sub(rb"\1\2", text[start:end]) + text[end:]
    found = answer(bare)
    assert found != answer(text)
    if isinstance(found, str):
        assert re.search("hijacked|argument list must have|does not exist|type", found)


def test_what_confirms_under_that_search_path(hostile, green):
    """A connection with it has confirmed what another was told."""
    sql = "select attrs from public.product"
    with trust("transaction"):
        lead("default", database(hostile, KINDS["C2"]))
        assert ask_for(sql) == (ANVIL["attrs"],)
        connection.close()
        ask_for("set search_path to evil, pg_catalog, public")
        with green.statements() as statements:
            assert ask_for(sql) == (ANVIL["attrs"],)
    [text] = statements
    assert "regtype" in text and "pg_catalog.pg_type" not in text


@BINDING
@pytest.mark.parametrize(
    "schema",
    ['we"ird', "100%", "%s %(x)s {} $1", "back\\slash", "it's", "Größe 数", "n" * 63],
)
def test_schemas_that_need_quotes(green, schema, server_side):
    with own_database(green, "hostile", []):
        name = sql.Identifier(schema).as_string(None)
        green.execute(
            f"create schema {name}; create extension hstore schema {name};"
            f"create table thing (attrs {name}.hstore, parts {name}.hstore[])",
            dbname="hostile",
        )
        options = {"server_side_binding": server_side}
        lead("default", database(green.database("hostile"), KINDS["C2"], **options))
        values = [{"a'\"%\\": "1", "b": None}, [{"%s": "%%"}, {}]]
        for _ in range(2):
            ask_for("insert into thing values (%s, %s)", values)
            assert ask_for("select attrs, parts from thing") == tuple(values)
            ask_for("delete from thing")


@pytest.mark.parametrize(
    "name",
    ['we"ird', "100% %s", "back\\slash", "it's = so", "Größe 数", "n" * 63, "A b"],
)
def test_databases_of_such_names(green, name, caplog):
    caplog.set_level(logging.DEBUG, "django_pg_hot_async")
    with own_database(green, name, ORDERS["twin"]):
        lead("default", database(green.database(name), KINDS["C2"]))
        KINDS["C2"].read()
        KINDS["C2"].write()
        [entry] = status()
        assert json.loads(json.dumps(entry)) == entry
        assert entry["server"] is not None and entry["server"]["dbname"] == name
        assert any(f"/{name}" in message for message in caplog.messages)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from(
        [*(level.value for level in Trust), "checkout", "result", "TRUST", "ALIASES"]
    )
    | st.builds(object)
    | st.sampled_from(list(Trust)),
    lambda children: (
        st.lists(children, max_size=3)
        | st.tuples(children)
        | st.dictionaries(
            st.sampled_from(
                ["TRUST", "ALIASES", "default", "other", 1, None, b"TRUST"]
            ),
            children,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(
    max_examples=200,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(VALUES)
@example({"TRUST": ["server"]})
@example({"ALIASES": {"default": {"TRUST": {}}}})
@example({1: 2, None: 3})
@example({"ALIASES": {1: None, "default": None, None: {}}})
def test_settings_of_any_type(value):
    """They are right, or `ImproperlyConfigured` says what is wrong; nothing else."""
    try:
        with override_settings(PG_HOT_ASYNC=value):
            assert conf.trust("default") in Trust
            assert conf.is_off("default") in (True, False)
    except ImproperlyConfigured as error:
        assert str(error).startswith("PG_HOT_ASYNC")
    assert conf.trust("default") is Trust.AUTO


class TestSecrets:
    """Nothing of this is ever in a log line, a signal, a status or an exception."""

    PASSWORD = "p4ssw0rd-in-settings"
    SERVICE = "p4ssw0rd-in-service-file"
    DATA = "r0w-data"
    SECRETS = (PASSWORD, SERVICE, DATA)

    @pytest.fixture
    def said(self, caplog):
        """All that is said; ends with the proof."""
        caplog.set_level(logging.DEBUG)
        said: list[str] = []

        def receive(sender, **kwargs):
            said.append(repr(kwargs))

        server_changed.connect(receive)
        yield said
        server_changed.disconnect(receive)
        said += (repr(vars(record)) for record in caplog.records)
        said += caplog.text.splitlines()
        said.append(repr(status()))
        for alias in runtime.aliases.values():
            said += map(repr, (alias, alias.servers, alias.current))
        assert len(said) > 3
        for secret in self.SECRETS:
            assert [line for line in said if secret in line] == []

    @contextmanager
    def failing(self, said, *errors):
        with pytest.raises(errors) as caught:
            yield
        error: BaseException | None = caught.value
        said += traceback.format_exception(error)
        while error is not None:
            said += map(repr, (error, error.args, getattr(error, "__notes__", "")))
            error = error.__cause__

    def work(self):
        """Read and write rows that hold secrets."""
        value = {"key": self.DATA}
        product = Product.objects.create(name=self.DATA, attrs=value, parts=[value])
        product.refresh_from_db()
        assert (product.attrs, product.parts) == (value, [value])
        product.delete()

    def commands(self, said):
        for arguments in ((), ("--json",)):
            out = StringIO()
            try:
                call_command("pg_hot_status", *arguments, stdout=out, stderr=out)
            except CommandError as error:
                said.append(repr(error))
            said.append(out.getvalue())

    @BINDING
    @pytest.mark.parametrize("level", [level.value for level in Trust])
    def test_through_switches(
        self, blue, green, twin, service, said, level, server_side
    ):
        with trust(level):
            params = {"password": self.SERVICE}
            service.point("secret", blue, "shop", **params)
            target = database(
                service.database("secret"), KINDS["C2"], server_side_binding=server_side
            )
            target["PASSWORD"] = self.PASSWORD
            lead("default", target)
            for server in (blue, green, twin, blue):
                service.point("secret", server, "shop", **params)
                connection.close()
                self.work()
                forget("default")
                self.work()
                state = state_of(connection.connection)
                assert state is not None
                said += [repr(state), str(state), repr(state.last)]
                said.append(repr(state.last and state.last.catalog))
            self.commands(said)

    def test_through_errors(self, green, said):
        """Types created anew, a value that does not parse, a server that is gone."""
        with own_database(green, "secret", ORDERS["blue"]), Proxy(green) as proxy:
            target = database(
                proxy.database("secret"), KINDS["C2"], server_side_binding=True
            )
            target["PASSWORD"] = self.PASSWORD
            lead("default", target)
            self.work()
            drop_types(green, "secret")
            create_types(green, "secret", ORDERS["green"])
            with self.failing(said, InternalError):
                ask_for("select %s -> 'key'", [{"key": self.DATA}])
            self.work()
            self.misread(said)
            forget()
            proxy.at_read = lambda wire: wire.reset()
            with self.failing(said, OperationalError):
                ask_for("select attrs from product where name = %s", [self.DATA])
            connection.close()
            ask_for("set statement_timeout = 100")
            with (
                psycopg.connect(green.conninfo("secret")) as other,
                self.failing(said, OperationalError),
            ):
                other.execute("lock pg_catalog.pg_type in access exclusive mode")
                ask_for("select attrs from product where name = %s", [self.DATA])
            self.commands(said)
            connection.close()

    def test_through_preflight_and_checks(self, blue, green, said):
        """They look at both databases, rows and all that is wrong with them."""
        with two_databases(blue, green, "secret") as sides:
            for server, order in ((blue, "blue"), (green, "green")):
                create_types(server, "secret", ORDERS[order])
            sides.create(
                [
                    f"insert into product (name, attrs) values ('{self.DATA}',"
                    f" 'key=>\"{self.DATA}\"')"
                ]
            )
            sides.create([], ["alter table product drop column tags"])
            sides.lead(PASSWORD=self.PASSWORD)
            connections.settings["green"]["PASSWORD"] = self.PASSWORD
            for arguments in ((), ("--json",)):
                out = StringIO()
                with suppress(SystemExit):
                    call_command(
                        "pg_hot_preflight", "default", "green", *arguments, stdout=out
                    )
                assert "hstore" in out.getvalue()
                said.append(out.getvalue())
            said += map(repr, run_checks(databases=["default", "green"]))
            self.work()
            close_all()

    def misread(self, said):
        """As where a pooler moved the connection, and OIDs collide."""
        from dataclasses import replace

        state: Any = state_of(connection.connection)
        assert state.snapshot is not None
        rows = {row.name: row for row in state.snapshot.catalog.types}
        swapped = tuple(
            replace(rows[other], name=name)
            for name, other in (("hstore", "citext"), ("citext", "hstore"))
        )
        state._snapshot = Snapshot(
            replace(state.snapshot.catalog, types=swapped), state.snapshot.registry
        )
        with self.failing(said, DataError):
            ask_for(f"select '{self.DATA}'::citext")
        self.work()

    def test_through_pools(self, green, said):
        conninfo = green.conninfo("shop", password=self.PASSWORD)
        with ConnectionPool(
            conninfo,
            configure=pool.configure("mine"),
            check=ConnectionPool.check_connection,
            open=True,
            min_size=1,
        ) as own:
            for _ in range(2):
                with own.connection() as conn:
                    row = conn.execute("select %s::hstore", [{"k": self.DATA}])
                    assert row.fetchone() == ({"k": self.DATA},)
                green.terminate("shop")

        async def aread():
            conn = await psycopg.AsyncConnection.connect(conninfo)
            async with conn:
                await pool.aconfigure("mine")(conn)
                runtime.alias("mine").withdraw()
                cursor = await conn.execute("select %s::hstore", [{"k": self.DATA}])
                assert await cursor.fetchone() == ({"k": self.DATA},)

        asyncio.run(aread())

    def test_where_nothing_can_be_reached(self, said):
        target = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "shop",
            "USER": "postgres",
            "HOST": "127.0.0.1",
            "PORT": "1",
            "PASSWORD": self.PASSWORD,
        }
        lead("default", target)
        with self.failing(said, OperationalError):
            ask_for(SELECT)
        self.commands(said)
        assert any("failed" in line for line in said)
