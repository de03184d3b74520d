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
    Error,
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

from django_pg_hot_async import (
    _catalog,
    _memory,
    _tracking,
    conf,
    forget,
    pool,
    register_type,
    status,
)
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.snapshot import Snapshot
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
    _tracking.declare(())


# Whatever of this is called says so. What is compared with these operators, or read
# from these tables, is never found.
EVIL = """
create schema evil;
create function evil.cry(text) returns boolean language plpgsql as
    'begin raise exception ''hijacked by %'', $1; end';
create function evil.current_setting(text) returns text language sql as
    'select evil.cry(''current_setting'')::text';
create function evil.format_type(oid, int) returns text language sql as
    'select evil.cry(''format_type'')::text';
create function evil.right(text, int) returns text language sql as
    'select evil.cry(''right'')::text';
create function evil.concat(text, text) returns text language sql as
    'select evil.cry(''concat'')::text';
create function evil.rtrim(text, text) returns text language sql as
    'select evil.cry(''rtrim'')::text';
create function evil.quote_ident(text) returns text language sql as
    'select evil.cry(''quote_ident'')::text';
create function evil.length(text) returns int language sql as
    'select evil.cry(''length'')::int';
create function evil.plus(int, int) returns int language sql as
    'select evil.cry(''+'')::int';
create operator evil.+ (leftarg = int, rightarg = int, procedure = evil.plus);
create function evil.pg_type_is_visible(oid) returns boolean language sql as
    'select evil.cry(''pg_type_is_visible'')';
create function evil.same(oid, oid) returns boolean language sql as
    'select evil.cry(''oid ='')';
create function evil.same(name, name) returns boolean language sql as
    'select evil.cry(''name ='')';
create function evil.same(text, text) returns boolean language sql as
    'select evil.cry(''text ='')';
create function evil.more(int2, int4) returns boolean language sql as
    'select evil.cry(''>'')';
create operator evil.= (leftarg = oid, rightarg = oid, procedure = evil.same);
create operator evil.= (leftarg = name, rightarg = name, procedure = evil.same);
create operator evil.= (leftarg = text, rightarg = text, procedure = evil.same);
create operator evil.> (leftarg = int2, rightarg = int4, procedure = evil.more);
create function evil.unnest(anyarray) returns setof anyelement language plpgsql as
    'begin raise exception ''hijacked by unnest''; end';
create aggregate evil.json_agg(anycompatible) (sfunc = array_append,
    stype = anycompatiblearray, initcond = '{}');
create function evil.json_build_array(variadic "any") returns json
    language internal as 'json_build_object';
create table evil.pg_type as select * from pg_catalog.pg_type with no data;
create table evil.pg_namespace as select * from pg_catalog.pg_namespace with no data;
create table evil.pg_enum as select * from pg_catalog.pg_enum with no data;
create table evil.pg_attribute (attname name, atttypid oid, attnum int2);
create table evil.pg_range as select * from pg_catalog.pg_range with no data;
create domain evil.name as text check (evil.cry('name'));
create domain evil.text as pg_catalog.text check (evil.cry('text'));
create domain evil.regtype as pg_catalog.regtype check (evil.cry('regtype'));
create domain evil.oid as pg_catalog.int4 check (evil.cry('oid'));
create domain evil.citext as pg_catalog.text;
create table evil.hstore (id int);
"""
SHAPES = """
create type public.pair as (mood public.mood, number int);
create type public.span as range (subtype = pg_catalog.int4);
create type public.plain as enum ('x');
"""


@BINDING
@pytest.mark.parametrize("level", ["connection", "result"])
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
PARTS = ("_FIND_TYPES", "_LABELS", "_ATTRIBUTES", "_RANGE", "_FIND_NEWER")


def places(*parts):
    return [
        pytest.param(part, match.span(), id=f"{part}-{match.start()}")
        for part in parts
        for match in QUALIFIED.finditer(getattr(_catalog, part))
    ]


def unqualify(monkeypatch, part, span):
    text = getattr(_catalog, part)
    start, end = span
    bare = QUALIFIED.sub(rb"\1\2", text[start:end])
    monkeypatch.setattr(_catalog, part, text[:start] + bare + text[end:])


def confirm(hostile, green):
    """Have a connection with that search_path ask what another was told."""
    # It keeps the statement.
    Snapshot.of.cache_clear()
    lead("default", database(hostile, KINDS["C2"]))
    sql = "select attrs from public.product"
    assert ask_for(sql) == (ANVIL["attrs"],)
    connection.close()
    ask_for("set search_path to evil, pg_catalog, public")
    with green.statements() as statements:
        assert ask_for(sql) == (ANVIL["attrs"],)
    return [text for text in statements if "regtype" in text]


def test_what_confirms_under_that_search_path(hostile, green):
    assert len(confirm(hostile, green)) == 1


@pytest.mark.parametrize(("part", "span"), places("_CONFIRM", "_CONFIRM_TYPE"))
def test_the_trap_shuts_on_what_confirms(hostile, green, monkeypatch, part, span):
    unqualify(monkeypatch, part, span)
    with pytest.raises(ProgrammingError, match="hijacked"):
        confirm(hostile, green)


@pytest.fixture(scope="module")
def hostile(green):
    with own_database(green, "hostile_too", ORDERS["green"]):
        green.execute(SHAPES + EVIL, dbname="hostile_too")
        yield green.database("hostile_too")


@pytest.mark.parametrize(("part", "span"), places(*PARTS))
def test_the_trap_shuts(hostile, declared, monkeypatch, part, span):
    """Each name and operator, if it were not qualified, would be the evil one."""
    unqualify(monkeypatch, part, span)
    lead("default", database(hostile, KINDS["C1"]))
    ask_for("set search_path to evil, pg_catalog, public")
    with pytest.raises((Error, psycopg.Error, AssertionError, ValueError, TypeError)):
        assert ask_for("select attrs, feels from public.product") == (ROW[0], Mood.ok)
        pair, span = ask_for("select row('sad', 1)::public.pair, public.span(1, 2)")
        assert (tuple(pair), span) == ((Mood.sad, 1), Range(1, 2))
        assert read_in_an_older_transaction() == ("x",)
        link: Any = link_of(connection.connection)
        assert {row.labels for row in link.snapshot.catalog.types} == {
            (),
            ("sad", "ok"),
        }


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
        ["server", "connection", "checkout", "result", "TRUST", "ALIASES"]
    )
    | st.builds(object)
    | st.sampled_from(list(conf.Trust)),
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
            assert conf.trust("default") in conf.Trust
            assert conf.is_off("default") in (True, False)
    except ImproperlyConfigured as error:
        assert str(error).startswith("PG_HOT_ASYNC")
    assert conf.trust("default") is conf.Trust.CONNECTION


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
        for alias in _memory.aliases().values():
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
    @pytest.mark.parametrize("level", ["server", "connection", "checkout", "result"])
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
                link = link_of(connection.connection)
                said += [repr(link), str(link)]
                said.append(repr(link and link.snapshot))
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

        link: Any = link_of(connection.connection)
        assert link.snapshot is not None
        rows = {row.name: row for row in link.snapshot.catalog.types}
        swapped = tuple(
            replace(rows[other], name=name)
            for name, other in (("hstore", "citext"), ("citext", "hstore"))
        )
        link._snapshot = Snapshot(
            replace(link.snapshot.catalog, types=swapped), link.snapshot.registry
        )
        with self.failing(said, DataError):
            ask_for(f"select '{self.DATA}'::citext")
        self.work()

    def test_through_pools(self, green, said):
        conninfo = green.conninfo("shop", password=self.PASSWORD)
        with ConnectionPool(
            conninfo,
            configure=pool.configure("mine"),
            check=pool.check("mine"),
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
                _memory.alias("mine").withdraw()
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
