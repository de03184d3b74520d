"""Types that a project registers: enum, composite, range, domain, plain ones."""

from __future__ import annotations

import asyncio
import enum
import functools
import itertools
import logging
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, InterfaceError, transaction
from django.db.backends.postgresql import psycopg_any
from django.db.models import TextChoices
from django.test.utils import override_settings
from psycopg import sql
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import JsonbDumper
from psycopg.types.multirange import Multirange, MultirangeInfo, register_multirange
from psycopg.types.numeric import FloatLoader
from psycopg.types.range import Range, RangeInfo, register_range

from django_pg_hot_async import pool, register_type
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.loading import UnusableType
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.installed import GROUP

from .scenarios import (
    KINDS,
    READ,
    ask_for,
    connection,
    database,
    lead,
    own_database,
    trust,
)


class Mood(enum.Enum):
    SAD = "sad"
    OK = "ok"
    NEW = "brand new"


MAPPING = {mood: mood.value for mood in Mood}


class Standing(enum.Enum):
    good = "good"


class Size(NamedTuple):
    width: int
    unit: str
    mood: Mood | None


@dataclass(frozen=True)
class Point:
    x: float
    y: float


class Path(str):
    """An ltree."""


class PathLoader(Loader):
    def load(self, data: Any) -> Path:
        return Path(bytes(data).decode())


class PathDumper(Dumper):
    def dump(self, obj: Any) -> bytes:
        return str(obj).encode()


def register_path(info: TypeInfo, context: Any) -> None:
    info.register(context)
    context.adapters.register_loader(info.oid, PathLoader)
    context.adapters.register_dumper(Path, type("D", (PathDumper,), {"oid": info.oid}))


# psycopg 3.2 sends as a composite only what is a sequence.
OLD = psycopg.version.__version__.startswith("3.2")
DUMP_POINT: Any = {} if OLD else {"make_sequence": lambda one, info: (one.x, one.y)}


def register_all() -> None:
    register_type("mood", EnumInfo, register_enum, enum=Mood, mapping=MAPPING)
    register_type("size", CompositeInfo, register_composite, factory=Size)
    register_type(
        '"Point"', CompositeInfo, register_composite, factory=Point, **DUMP_POINT
    )
    register_type("span", RangeInfo, register_range)
    register_type("spans", MultirangeInfo, register_multirange)
    register_type("moods", RangeInfo, register_range)
    register_type("ltree", register=register_path)
    register_type("positive")


TYPES = {
    "mood": "create type mood as enum ('sad', 'ok')",
    "size": "create type size as (width int, unit text, mood mood)",
    "Point": 'create type "Point" as (x float8, y float8)',
    "span": "create type span as range"
    " (subtype = float8, multirange_type_name = spans)",
    "moods": "create type moods as range (subtype = mood)",
    "ltree": "create extension ltree",
    "positive": "create domain positive as int check (value > 0)",
}
ORDERS = {
    "blue": ["mood", "size", "Point", "span", "moods", "ltree", "positive"],
    "green": ["ltree", "positive", "Point", "mood", "moods", "span", "size"],
}
COLUMNS = {
    "mood": "mood",
    "moods": "mood[]",
    "size": "size",
    "sizes": "size[]",
    "point": '"Point"',
    "span": "span",
    "spans": "spans",
    "many": "span[]",
    "felt": "moods",
    "path": "ltree",
    "paths": "ltree[]",
    "counts": "positive[]",
}
ROW: dict[str, Any] = {
    "mood": Mood.OK,
    "moods": [Mood.SAD, None, Mood.OK],
    "size": Size(3, 'a "b", c', Mood.SAD),
    "sizes": [Size(1, "cm", Mood.OK), Size(2, "", None)],
    "point": Point(1.5, -2.0),
    "span": Range(1.5, 2.5),
    "spans": Multirange([Range(1.0, 2.0), Range(3.0, None)]),
    "many": [Range(empty=True), Range(0.5, 1.0)],
    "felt": Range(Mood.SAD, Mood.OK, "[]"),
    "path": Path("top.science"),
    "paths": [Path("a.b"), Path("c")],
    "counts": ["1", "2"],  # psycopg loads the elements of such an array as text
}
SENT = {name: value for name, value in ROW.items() if name != "counts"}
TABLE = "create table thing (id int, {})".format(
    ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
)
VALUES = """
insert into thing values (1, 'ok', '{sad,NULL,ok}', '(3,"a ""b"", c",sad)',
    '{"(1,cm,ok)","(2,\\"\\",)"}', '(1.5,-2)', '[1.5,2.5)', '{[1,2),[3,)}',
    '{empty,"[0.5,1)"}', '[sad,ok]', 'top.science', '{a.b,c}', '{1,2}')
"""


@pytest.fixture(scope="module")
def things(blue, green):
    """A database of this name on both, the types made in another order."""
    for name, server in (("blue", blue), ("green", green)):
        server.create_database("things")
        for one in ORDERS[name]:
            server.execute(TYPES[one], dbname="things")
        server.execute(TABLE, dbname="things")
        server.execute(VALUES, dbname="things")
    yield
    for server in (blue, green):
        server.drop_database("things")


@contextmanager
def declared(declare=register_all):
    before = runtime.group(GROUP)
    if declare:
        declare()
    try:
        yield
    finally:
        runtime.track(GROUP, before)
        tracked_connections.renew()


def enum_declared(python_enum, name="mood", **kwargs):
    return declared(
        lambda: register_type(name, EnumInfo, register_enum, enum=python_enum, **kwargs)
    )


@pytest.fixture
def registered(things):
    with declared():
        yield


def select(names=ROW):
    return "select {} from thing where id = 1".format(
        ", ".join(f'"{name}"' for name in names)
    )


def sendable():
    return {k: v for k, v in SENT.items() if not (OLD and k == "point")}


def arrives(placeholder="%s"):
    """What the server makes of parameters, with nothing else to infer them from."""
    columns = ", ".join(
        f"pg_typeof({placeholder})::text, ({placeholder})::text" for _ in sendable()
    )
    parameters = [value for value in sendable().values() for _ in range(2)]
    return f"select {columns}", parameters


def expected_arrivals(server):
    names = ", ".join(
        f'pg_typeof("{name}")::text, "{name}"::text' for name in sendable()
    )
    return server.execute(f"select {names} from thing where id = 1", dbname="things")[0]


def check(server):
    assert dict(zip(ROW, ask_for(select()), strict=True)) == ROW
    assert ask_for(*arrives()) == expected_arrivals(server)


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("kind", ["C1", "C2", "C3"])
def test_registered_types_survive_a_cutover(
    kind, server_side, blue, green, service, registered
):
    """Loaded and sent right on blue, on green, and on blue again."""
    service.point("things", blue, "things")
    target = database(
        service.database("things"), KINDS[kind], server_side_binding=server_side
    )
    lead("default", target)
    for server, old in ((blue, None), (green, blue), (blue, green)):
        if old is not None:
            service.point("things", server, "things")
            old.terminate("things")
            connection.close()
        for _ in range(2):
            KINDS[kind].request(functools.partial(check, server))


def test_registered_types_in_async_orm_threads(blue, green, service, registered):
    kind: Any = KINDS["C4"]
    service.point("things", blue, "things")
    lead("default", database(service.database("things"), kind))
    for server in (blue, green):
        if server is green:
            service.point("things", green, "things")
            blue.terminate("things")
        asyncio.run(kind.arequest(sync_to_async(functools.partial(check, server))))


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
async def test_registered_types_over_an_async_connection(
    blue, green, registered, binary
):
    """A project's own connections, without Django between."""
    for server in (blue, green, blue):
        aconn = await psycopg.AsyncConnection.connect(server.conninfo("things"))
        async with aconn:
            await pool.aconfigure("things")(aconn)
            cursor = aconn.cursor(binary=binary)
            await cursor.execute(select())
            row = dict(zip(ROW, (await cursor.fetchone()) or (), strict=True))
            # In binary, psycopg has no loader of its own for what is text to it.
            loaded = ROW if not binary else {**ROW, "counts": row["counts"]}
            if binary:
                row["path"], row["paths"] = ROW["path"], ROW["paths"]
            assert row == loaded
            await cursor.execute(*arrives("%t" if not binary else "%s"))
            assert await cursor.fetchone() == expected_arrivals(server)


def test_binary_parameters(green, registered):
    """A composite names the types of its attributes: those of the server at hand."""
    lead(
        "default",
        database(green.database("things"), KINDS["C2"], server_side_binding=True),
    )
    size = Size(3, "cm", Mood.OK)
    assert ask_for("select %b, %b", [size, [size, size]]) == (size, [size, size])
    assert ask_for("select %b, %b", [Mood.OK, [Mood.OK]]) == (Mood.OK, [Mood.OK])
    assert ask_for("select %b, %b", [Range(1.5, 2.5), Range(Mood.SAD, None)]) == (
        Range(1.5, 2.5),
        Range(Mood.SAD, None),
    )


def test_everything_is_read_in_one_statement(green, registered):
    lead("default", database(green.database("things"), KINDS["C2"]))
    connection.ensure_connection()
    with green.statements() as statements:
        check(green)
        check(green)
    reads = [text for text in statements if READ in text]
    assert len(reads) == 1


@pytest.mark.parametrize("kind", ["C2", "C3"])
def test_declared_after_connections_are_open(green, things, kind):
    """No connection has to be opened anew, no cursor kept is wrong."""
    with declared(None):
        lead("default", database(green.database("things"), KINDS[kind]))
        assert ask_for("select mood from thing") == ("ok",)
        with psycopg.connect(green.conninfo("things")) as mine:
            pool.configure("mine")(mine)
            assert mine.execute("select mood from thing").fetchone() == ("ok",)
            register_type("mood", EnumInfo, register_enum, enum=Mood, mapping=MAPPING)
            question = "select %s::text, mood from thing"
            assert ask_for(question, [Mood.SAD]) == ("sad", Mood.OK)
            assert mine.execute(question, [Mood.SAD]).fetchone() == ("sad", Mood.OK)


def test_declared_before_the_type_exists(green):
    """S7 of a project's own type."""
    green.create_database("empty")
    try:
        with declared(
            lambda: register_type("mood", EnumInfo, register_enum, enum=Mood)
        ):
            lead("default", database(green.database("empty"), KINDS["C2"]))
            assert ask_for("select 1") == (1,)
            green.execute("create type mood as enum ('SAD', 'OK')", dbname="empty")
            assert ask_for("select 'OK'::mood") == (Mood.OK,)
            assert ask_for("select pg_typeof(%s)::text", [Mood.OK]) == ("mood",)
    finally:
        connection.close()
        green.drop_database("empty")


def test_a_type_that_a_server_lacks_costs_one_read(green, things):
    """Sent as psycopg itself sends it, it costs nothing more until it exists."""
    with declared(lambda: register_type("absent", EnumInfo, register_enum, enum=Mood)):
        lead("default", database(green.database("things"), KINDS["C2"]))
        with green.statements() as statements:
            for _ in range(5):
                assert ask_for("select %s::text", [Mood.OK]) == ("OK",)
        reads = [text for text in statements if READ in text]
        assert len(reads) == 1


# --- The same OID, another shape ---


_databases = itertools.count()


@pytest.fixture
def shop(green):
    """A database of its own, and a way to run statements there from elsewhere."""
    name = f"shapes{next(_databases)}"
    green.create_database(name)

    def run(*statements):
        for statement in statements:
            green.execute(statement, dbname=name)

    lead("default", database(green.database(name), KINDS["C2"]))
    yield run
    connection.close()
    green.drop_database(name)


class Feeling(enum.Enum):
    sad = 1
    ok = 2
    new = 3


class Tolerant(enum.Enum):
    sad = "sad"
    UNKNOWN = "?"

    @classmethod
    def _missing_(cls, value):
        return cls.UNKNOWN


class Spelt(TextChoices):
    SAD = "sad"
    OK = "ok"


class Closed(enum.Enum):
    sad = "s"
    ok = "o"


MOOD = "create type mood as enum ('sad', 'ok')"
ADD_NEW = "alter type mood add value 'new'"


@pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
def test_a_label_added_to_an_enum_is_loaded(shop, level):
    """The next value decodes, over the same connection."""
    shop(MOOD, "create table t (m mood)", "insert into t values ('ok')")
    with (
        trust(level),
        enum_declared(Feeling),
    ):
        assert ask_for("select m, array[m] from t") == (Feeling.ok, [Feeling.ok])
        shop(ADD_NEW, "update t set m = 'new'")
        assert ask_for("select m, array[m] from t") == (Feeling.new, [Feeling.new])
        assert ask_for(
            "select %s = m, pg_typeof(%s)::text from t", [Feeling.new] * 2
        ) == (
            True,
            "mood",
        )


@pytest.mark.parametrize("members", [Closed, Tolerant, Spelt])
def test_labels_that_are_no_names_cost_no_reads(shop, green, members):
    """A TextChoices, say: its names are upper case, its values are the labels."""
    shop(MOOD, "create table t as select 'ok'::mood m from generate_series(1, 100)")
    with enum_declared(members):
        found = members("ok") if members is not Closed else members.ok
        with green.statements() as statements:
            for _ in range(2):
                with connection.cursor() as cursor:
                    cursor.execute("select m, array[m] from t")
                    assert cursor.fetchall() == [(found, [found])] * 100
        assert len([text for text in statements if READ in text]) == 1
    if members is Spelt:
        shop(ADD_NEW)
        with enum_declared(members), pytest.raises(DataError, match="bad member"):
            ask_for("select 'new'::mood")


def test_an_enum_that_takes_what_is_missing(shop):
    shop(MOOD)
    with declared(
        lambda: register_type("mood", EnumInfo, register_enum, enum=Tolerant)
    ):
        assert ask_for("select 'sad'::mood") == (Tolerant.sad,)
        assert ask_for("select 'ok'::mood, array['ok'::mood]") == (
            Tolerant.UNKNOWN,
            [Tolerant.UNKNOWN],
        )


def test_a_mapping_holds_a_label_added_later(shop):
    shop(MOOD)
    mapping = {Closed.sad: "sad", Closed.ok: "new"}
    with declared(
        lambda: register_type(
            "mood", EnumInfo, register_enum, enum=Closed, mapping=mapping
        )
    ):
        assert ask_for("select 'sad'::mood") == (Closed.sad,)
        shop(ADD_NEW)
        assert ask_for("select 'new'::mood") == (Closed.ok,)


def test_a_label_that_nothing_can_hold_is_named(shop, green):
    """The type, the member and both sets of labels; the next statement asks, once."""
    shop(MOOD)
    with enum_declared(Closed):
        assert ask_for("select 'ok'::mood") == (Closed.ok,)
        shop(ADD_NEW)
        with green.statements() as statements, pytest.raises(DataError) as caught:
            ask_for("select 'new'::mood")
        message = str(caught.value)
        assert "bad member for enum Closed: 'new'" in message
        assert "type mood at 'default': 'sad', 'ok', 'new'" in message
        assert "members of Closed: 'sad', 'ok'" in message
        assert sum(READ in text for text in statements) == 0
        with green.statements() as statements:
            for _ in range(3):
                assert ask_for("select 'ok'::mood") == (Closed.ok,)
        assert sum(READ in text for text in statements) == 1


def test_inside_a_transaction_a_new_label_is_loaded(shop):
    shop(MOOD, "create table t (m mood)")
    with enum_declared(Feeling):
        assert ask_for("select 'ok'::mood") == (Feeling.ok,)
        shop(ADD_NEW, "insert into t values ('new')")
        with transaction.atomic():
            assert ask_for("select m from t") == (Feeling.new,)
            assert connection.connection.info.transaction_status.name == "INTRANS"


class Flexible:
    """What holds any number of attributes."""

    def __init__(self, *values):
        self.values = values

    def __eq__(self, other):
        return isinstance(other, Flexible) and self.values == other.values

    def __repr__(self):
        return f"Flexible{self.values}"


@pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
def test_attributes_added_dropped_and_altered(shop, level):
    """The same of a composite type.

    Where nothing is asked, one that has as many attributes as before looks the same
    until a value does not parse: that raises, and the next statement is right.
    """
    shop("create type size as (width int, unit text)")
    one = "select row{}::size, array[row{}::size]"

    def ask(values):
        return ask_for(one.format(values, values))

    with (
        trust(level),
        declared(
            lambda: register_type(
                "size", CompositeInfo, register_composite, factory=Flexible
            )
        ),
    ):
        value = Flexible(3, "cm")
        assert ask("(3, 'cm')") == (value, [value])
        shop("alter type size add attribute depth int")
        value = Flexible(3, "cm", 4)
        assert ask("(3, 'cm', 4)") == (value, [value])
        shop("alter type size drop attribute unit")
        value = Flexible(3, 4)
        assert ask("(3, 4)") == (value, [value])
        shop("alter type size alter attribute depth type text")
        if level != "transaction":  # There it is confirmed along with the statement.
            with pytest.raises(ValueError, match="deep") as caught:
                ask("(3, 'deep')")
            if sys.version_info >= (3, 11):
                [note] = caught.value.__notes__
                assert "the type size may have been altered" in note
        value = Flexible(3, "deep")
        assert ask("(3, 'deep')") == (value, [value])


def test_a_factory_that_cannot_hold_it_tells_so_itself(shop):
    shop("create type size as (width int, unit text)")

    class Fixed(NamedTuple):
        width: int
        unit: str

    with declared(
        lambda: register_type("size", CompositeInfo, register_composite, factory=Fixed)
    ):
        assert ask_for("select row(3, 'cm')::size") == (Fixed(3, "cm"),)
        shop("alter type size add attribute depth int")
        with pytest.raises(TypeError, match="positional arguments"):
            ask_for("select row(3, 'cm', 4)::size")
        assert ask_for("select 1") == (1,)


# --- Types of one name in several schemas ---

TENANTS = [
    "create schema a",
    "create schema b",
    "create type a.mood as enum ('sad', 'ok')",
    "create type b.mood as enum ('ok', 'sad', 'new')",
    "create table a.t (m a.mood, ms a.mood[])",
    "create table b.t (m b.mood, ms b.mood[])",
]


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("major", ["blue", "green"])
def test_two_tenants_by_schema_switch_over_one_connection(request, major, server_side):
    """Each reads and writes its own type, with one cursor as with many."""
    server = request.getfixturevalue(major)
    server.create_database("tenants")
    for statement in TENANTS:
        server.execute(statement, dbname="tenants")
    target = server.database("tenants")
    lead("default", database(target, KINDS["C2"], server_side_binding=server_side))
    try:
        with enum_declared(Feeling):
            with connection.cursor() as kept:
                for turn in range(6):
                    schema = "ab"[turn % 2]
                    cursor = kept if turn % 3 else connection.cursor()
                    cursor.execute(f"set search_path = {schema}")
                    sent = [Feeling.ok, [Feeling.sad, Feeling.ok]]
                    cursor.execute("insert into t values (%s, %s)", sent)
                    cursor.execute("select m, ms from t limit 1")
                    assert list(cursor.fetchone()) == sent
                    cursor.execute("select pg_typeof(%s)::oid::int", [Feeling.ok])
                    (oid,) = cursor.fetchone()
                    (expected,) = server.execute(
                        f"select '{schema}.mood'::regtype::oid::int", dbname="tenants"
                    )[0]
                    assert oid == expected
                    if cursor is not kept:
                        cursor.close()
            # With neither in the search_path, the server infers the type.
            ask_for("set search_path = public")
            ask_for("insert into b.t values (%s, %s)", [Feeling.new, [Feeling.new]])
            assert ask_for("select m, ms from b.t where m = 'new'") == (
                Feeling.new,
                [Feeling.new],
            )
            assert ask_for("select m from a.t limit 1") == (Feeling.ok,)
    finally:
        connection.close()
        server.drop_database("tenants")


def test_a_search_path_is_not_taken_from_another_connection(green, shop):
    """Under "server" trust the read was another's; the type sent is one's own."""
    shop(*TENANTS)
    name = connection.settings_dict["NAME"]
    target = database(green.database(name), KINDS["C1"], server_side_binding=True)
    with trust("server"), enum_declared(Feeling):
        for schema in "abab":
            lead("default", target)
            ask_for(f"set search_path = {schema}")
            assert ask_for(
                f"select pg_typeof(%s)::oid = '{schema}.mood'::regtype", [Feeling.ok]
            ) == (True,)


def test_tenants_do_not_shake_the_trust_of_other_connections(shop):
    """That another search_path leads elsewhere is no evidence against anything."""
    shop(*TENANTS)
    with enum_declared(Feeling):
        for turn in range(8):
            ask_for(f"set search_path = {'ab'[turn % 2]}")
            connection.ensure_connection()
            ask_for("select %s", [Feeling.ok])
            if turn % 3 == 0:
                connection.close()
        state: Any = state_of(connection.connection)
        alias = state.alias
        assert (alias.generation, alias.differences, alias.changes) == (0, 0, 0)


def test_a_type_declared_with_its_schema_is_that_one(shop):
    shop(*TENANTS)

    def declare():
        register_type("b.mood", EnumInfo, register_enum, enum=Feeling)
        register_type(sql.Identifier("a", "mood"), EnumInfo, register_enum, enum=Closed)

    with declared(declare):
        assert ask_for("select 'ok'::a.mood, 'ok'::b.mood") == (Closed.ok, Feeling.ok)
        assert ask_for(
            "select pg_typeof(%s)::text, pg_typeof(%s)::text", [Closed.ok, Feeling.new]
        ) == ("a.mood", "b.mood")


# --- what a user can do wrong ---


def broken(info, connection):
    raise RuntimeError("no such luck")


def broken_in_earnest(info, connection):
    if info.labels:
        raise RuntimeError("no such luck")
    register_enum(info, connection, Feeling)


@pytest.mark.parametrize("function", [broken, broken_in_earnest])
def test_a_register_function_that_raises(shop, function):
    """Named with type and alias; the connection, and other types, stay usable."""
    shop(MOOD, "create extension hstore")
    with declared(lambda: register_type("mood", EnumInfo, function)):
        assert ask_for("select 'a=>1'::hstore") == ({"a": "1"},)
        for _ in range(2):
            with pytest.raises(
                InterfaceError, match=r"default: the type mood .*no such luck"
            ) as caught:
                ask_for("select 'ok'::mood")
            assert isinstance(caught.value.__cause__, UnusableType)
            assert isinstance(caught.value.__cause__.__cause__, RuntimeError)
            assert ask_for("select 'a=>1'::hstore") == ({"a": "1"},)
        if function is broken_in_earnest:
            with pytest.raises(InterfaceError, match="default: the type mood"):
                ask_for("select %s", [Feeling.ok])
        assert ask_for("select 1") == (1,)


def test_the_same_name_twice():
    with enum_declared(Mood):
        register_type("MOOD", EnumInfo, register_enum, enum=Mood)
        assert len(runtime.group(GROUP)) == 1
        with pytest.raises(
            ImproperlyConfigured, match=r"mood is registered already, as EnumInfo, reg"
        ):
            register_type("mood", EnumInfo, register_enum, enum=Feeling)
        register_type("shop.mood", EnumInfo, register_enum, enum=Feeling)


@pytest.mark.parametrize(
    "name", ["", "a b", "mood[]", "a.b.c", '"', "1x", 'we"ird', "numeric(3)", "a;b"]
)
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="is no name of a type"):
        register_type(name)


@pytest.mark.parametrize(
    ("arguments", "kwargs", "message"),
    [
        (["x", dict], {}, r"x: info_class is <class 'dict'>; it must be one of"),
        (["x", "EnumInfo"], {}, "x: info_class is 'EnumInfo'"),
        (["x", Mood], {}, "; pass EnumInfo, register_enum, enum=Mood"),
        (["x", register_enum], {"enum": Mood}, "; pass EnumInfo before it"),
        (["x", []], {}, r"x: info_class is \[\]; it must"),
        (["x", TypeInfo, "register"], {}, "x: register is 'register'"),
        (["x", TypeInfo], {"enum": Mood}, "x: enum given, but no register function"),
        (["x", TypeInfo], {"enum": Mood}, "; pass EnumInfo and register_enum"),
        (["x"], {"factory": tuple}, "; pass CompositeInfo and register_composite"),
        (["x", EnumInfo, register_enum], {"enm": Mood}, "x: register_enum cannot be"),
        (
            ["x", None, register_enum],
            {"enum": Mood},
            "x: register_enum takes an EnumInfo, and info_class is TypeInfo; pass Enum",
        ),
        (
            ["x", RangeInfo, functools.partial(register_enum, enum=Mood)],
            {},
            "x: register_enum takes an EnumInfo, and info_class is RangeInfo",
        ),
        (
            ["x", EnumInfo, register_enum],
            {"enum": "Mood"},
            "x: enum is 'Mood'; it",
        ),
        (
            ["x", CompositeInfo, register_composite],
            {"factory": "Size"},
            "x: factory is 'Size'; it must be callable",
        ),
        ([None], {}, r'None is not the name of a type; pass .* register_type\("mood"'),
        ([42], {}, "42 is not the name of a type"),
        ([Mood], {}, r'"mood", EnumInfo, register_enum, enum=Mood\)'),
        ([dict], {}, r'"dict", CompositeInfo, register_composite, factory=dict\)'),
        ([EnumInfo("m", 1, 2, [])], {}, r"register_type\('m', EnumInfo, \.\.\.\)"),
        ([EnumInfo], {}, "EnumInfo'> is not the name of a type; pass the name of a"),
        (
            ["x", type("Odd", (TypeInfo,), {"__init__": lambda self, a: None})],
            {},
            "x: cannot make a Odd",
        ),
    ],
)
def test_a_declaration_that_cannot_be(arguments, kwargs, message):
    with pytest.raises(TypeError, match=message):
        register_type(*arguments, **kwargs)
    assert runtime.group(GROUP) == ()


HOSTILE = ['"a ""b"" c"', '"100% \\ its"', '"Größe 数"', '"' + "n" * 80 + '"', '"Mood"']


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
def test_names_that_need_quotes(shop, name, server_side, green):
    shop(f"create type {name} as enum ('sad', 'it''s \"ok\"')")
    mapping = {Mood.SAD: "sad", Mood.OK: 'it\'s "ok"'}
    connection.close()
    connection.settings_dict["OPTIONS"]["server_side_binding"] = server_side
    with declared(
        lambda: register_type(name, EnumInfo, register_enum, enum=Mood, mapping=mapping)
    ):
        name = name.replace("%", "%%")
        assert ask_for(
            f"select 'sad'::{name}, %s, %s, pg_typeof(%s)::oid = '{name}'::regtype",
            [Mood.OK, [Mood.SAD, Mood.OK], Mood.OK],
        ) == (Mood.SAD, Mood.OK, [Mood.SAD, Mood.OK], True)


def test_a_project_may_register_hstore_its_own_way(shop):
    shop("create extension hstore")

    def register(info, context):
        info.register(context)
        context.adapters.register_loader(info.oid, PathLoader)

    with declared(lambda: register_type("hstore", register=register)):
        value = ask_for("select 'a=>1'::hstore")[0]
        assert (type(value), value) == (Path, '"a"=>"1"')


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
def test_pgvector_by_its_own_register_function(shop, server_side):
    """The library's loaders and dumpers, some registered by the name of a class.

    The server's extension is not among PostgreSQL's own, so an enum of that name,
    with one vector as its label, answers for it.
    """
    from pgvector import Vector
    from pgvector.psycopg.vector import register_vector_info

    shop("create type vector as enum ('[1.0,2.0,3.0]')")
    connection.settings_dict["OPTIONS"]["server_side_binding"] = server_side
    with declared(
        lambda: register_type(
            "vector", register=lambda info, context: register_vector_info(context, info)
        )
    ):
        senders = runtime.registry.senders
        assert {Vector, "numpy.ndarray"} <= senders.keys()
        vector = Vector([1, 2, 3])
        assert ask_for(
            "select '[1.0,2.0,3.0]'::vector, array['[1.0,2.0,3.0]'::vector]"
        ) == (
            vector,
            [vector],
        )
        assert ask_for("select pg_typeof(%t)::text, %t", [vector, vector]) == (
            "vector",
            vector,
        )


def test_copy_takes_a_registered_type_by_name(green, registered):
    with closing(psycopg.connect(green.conninfo("things"))) as mine:
        pool.configure("things")(mine)
        cursor = mine.cursor()
        cursor.execute("create temporary table c (m mood, s size)")
        with cursor.copy("copy c from stdin (format binary)") as copy:
            copy.set_types(["mood", "size"])
            copy.write_row([Mood.OK, Size(1, "cm", Mood.SAD)])
        cursor.execute("select * from c")
        assert cursor.fetchone() == (Mood.OK, Size(1, "cm", Mood.SAD))


def test_nothing_is_warned_of(green, registered, caplog):
    lead("default", database(green.database("things"), KINDS["C2"]))
    with caplog.at_level(logging.WARNING, logger="django_pg_hot_async"):
        check(green)
    assert not caplog.records


def test_the_dumper_that_django_has_for_ranges_stays(green):
    """Of naive datetimes it makes a tstzrange, whatever other range is registered."""
    naive = Range(datetime(2026, 1, 1), datetime(2026, 1, 2))
    sql = "select pg_typeof(%s)::text"
    for binding in (False, True):
        options = {"server_side_binding": binding}
        with override_settings(USE_TZ=False):
            lead("default", database(green.database("shop"), KINDS["C2"], **options))
            assert ask_for(sql, [naive]) == ("tstzrange",)
            register_type("floatrange", RangeInfo, register_range)
            assert ask_for(sql, [naive]) == ("tstzrange",)
            connection.close()
            assert ask_for(sql, [naive]) == ("tstzrange",)
            connection.close()
        runtime.track(GROUP, ())


def test_a_dumper_registered_over_ours_stays(green):
    lead("default", database(green.database("shop"), KINDS["C2"]))
    connection.ensure_connection()
    connection.connection.adapters.register_dumper(dict, JsonbDumper)
    assert ask_for("select pg_typeof(%s)::text", [{"a": 1}]) == ("jsonb",)
    register_type("floatrange", RangeInfo, register_range)
    assert ask_for("select pg_typeof(%s)::text", [{"a": 1}]) == ("jsonb",)
    connection.close()


def test_what_a_project_adds_to_djangos_template_stays(green):
    """Whatever is declared after it, and on connections that are made then."""
    use_tz, zone = settings.USE_TZ, connection.timezone
    template = psycopg_any.get_adapters_template(use_tz, zone)
    numeric = template.get_loader(1700, Format.TEXT)
    assert numeric is not None
    lead("default", green.database("shop"))
    try:
        template.register_loader("numeric", FloatLoader)
        with declared():
            assert psycopg_any.get_adapters_template(use_tz, zone) is template
            assert repr(ask_for("select 1.5")) == "(1.5,)"
            assert ask_for("select 'ok'::mood, attrs from product") is not None
    finally:
        template.register_loader("numeric", numeric)


def test_two_tenants_by_role(green):
    """PostgreSQL 18 reports the search_path, and not whom "$user" stands for."""
    roles = ("tenant_one", "tenant_two")
    register_type("standing", EnumInfo, register_enum, enum=Standing)
    with own_database(green, "roles", []):
        for role in roles:
            for sql in (
                f"create role {role}",
                f"create schema {role} authorization {role}",
                f"create type {role}.standing as enum ('good')",
                f"create table {role}.member (is_of {role}.standing)",
                f"grant all on {role}.member to {role}",
            ):
                green.execute(sql, dbname="roles")
        options = {"server_side_binding": True}
        lead("default", database(green.database("roles"), KINDS["C2"], **options))
        for role in roles * 2:
            ask_for(f"set role {role}")
            ask_for("insert into member values (%s)", [Standing.good])
            assert ask_for("select is_of from member") == (Standing.good,)
        connection.close()
    for role in roles:
        green.execute(f"drop role {role}")


@pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
def test_a_name_is_right_under_any_search_path(shop, level):
    """Client-side binding writes names; at "server" one connection reads for all."""
    shop("create extension hstore", "create schema app")
    with trust(level):
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
        for _ in range(2):
            connection.close()
            ask_for("set search_path to app")
            for _ in range(2):
                assert ask_for("select %s::text", [{"a": "1"}]) == ('"a"=>"1"',)
                assert ask_for("select %s::text", [[{"a": "1"}]])
