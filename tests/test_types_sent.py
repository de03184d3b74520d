"""What register functions register to send by is what values are sent by."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.adapt import Dumper
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.range import Range, RangeInfo

from django_pg_hot_async import pool, register_type

from .scenarios import own_database


class Path(str):
    """Sent as a path below the top."""


class Step(int):
    """Sent as the number after it."""


class PathDumper(Dumper):
    """It names no type, as psycopg's `Dumper` does not."""

    def dump(self, obj: Any) -> bytes:
        return b"top." + str(obj).encode()


class StepDumper(Dumper):
    def dump(self, obj: Any) -> bytes:
        return b"%d" % (obj + 1)


class Size(NamedTuple):
    width: int
    unit: str


class Mood(enum.Enum):
    SAD = "sad"
    OK = "ok"


MAPPING = {mood: mood.value for mood in Mood}
SIZE = "create type {}size as (width int, unit text)"
MOOD = "create type {}mood as enum ('sad', 'ok')"


@pytest.fixture
def connect(green):
    """Make a tracked connection of one's own, to a database of its own."""
    with own_database(green, "sent", []):

        def connect_to(*statements: str, cursor: Any = psycopg.Cursor) -> Any:
            for statement in statements:
                green.execute(statement, dbname="sent")
            conn = psycopg.connect(
                green.conninfo("sent"), autocommit=True, cursor_factory=cursor
            )
            opened.append(conn)
            pool.configure("mine")(conn)
            return conn

        opened: list[psycopg.Connection[Any]] = []
        yield connect_to
        for conn in opened:
            conn.close()


@pytest.mark.parametrize("cursor", [psycopg.Cursor, psycopg.ClientCursor])
def test_a_dumper_that_names_no_type(connect, cursor):
    """Even for a subclass of what psycopg has a dumper for."""

    def register(info, context):
        info.register(context)
        context.adapters.register_dumper(Path, PathDumper)
        context.adapters.register_dumper(Step, StepDumper)

    register_type("ltree", register=register)
    conn = connect("create extension ltree", cursor=cursor)
    assert conn.execute("select %s::ltree", [Path("a")]).fetchone() == ("top.a",)
    assert conn.execute("select %s::int", [Step(1)]).fetchone() == (2,)
    assert conn.execute("select %s::text, %s", ["a", 1]).fetchone() == ("a", 1)


@pytest.mark.parametrize("cursor", [psycopg.Cursor, psycopg.ClientCursor])
def test_classes_that_psycopg_makes(connect, cursor):
    """Without a factory, or an Enum, they are made of what the server has."""
    register_type("size", CompositeInfo, register_composite)
    register_type("mood", EnumInfo, register_enum)
    conn = connect(SIZE.format(""), MOOD.format(""), cursor=cursor)
    size, mood = conn.execute("select row(1, 'm')::size, 'ok'::mood").fetchone()
    assert (size.width, size.unit, mood.name) == (1, "m", "ok")
    sql = "select (%s).width, pg_typeof(%s)::text, %s"
    assert conn.execute(sql, [size, mood, size]).fetchone() == (1, "mood", size)
    assert conn.execute("select %s::text", [(1, 2)]).fetchone() == ("(1,2)",)
    with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type 'tuple'"):
        psycopg.Cursor(conn).execute("select %b", [(1, "m")])


@pytest.mark.parametrize("there", ["a", "b"])
def test_one_class_for_types_of_which_the_server_has_one(connect, there):
    for schema in ("a", "b"):
        register_type(f"{schema}.size", CompositeInfo, register_composite, factory=Size)
        register_type(
            f"{schema}.mood", EnumInfo, register_enum, enum=Mood, mapping=MAPPING
        )
    schema = f"{there}."
    conn = connect(f"create schema {there}", SIZE.format(schema), MOOD.format(schema))
    sql = "select (%s).unit, pg_typeof(%s)::text"
    sent = conn.execute(sql, [Size(1, "m"), Mood.OK]).fetchone()
    assert sent == ("m", f"{there}.mood")


def test_what_is_registered_for_the_whole_process_after_a_read(connect):
    """As `TypeInfo.register()` does, for connections that are opened later."""
    types = psycopg.adapters.types
    first = connect(
        "create type span as range (subtype = text)", "create extension ltree"
    )
    before = types._registry
    try:
        for info in (RangeInfo.fetch(first, "span"), TypeInfo.fetch(first, "ltree")):
            assert info is not None
            types.add(info)
        later = connect()
        found = later.execute("select pg_typeof(%s)::text", [Range("a", "b")])
        assert found.fetchone() == ("span",)
        assert later.adapters.types["ltree"].name == "ltree"
    finally:
        types._registry = before
