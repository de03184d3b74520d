"""A type of PostGIS, which one of the servers has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import pq
from psycopg.adapt import Dumper, Loader
from psycopg.types import TypeInfo

from django_pg_hot_async import register_type

from .clients import Client
from .cursors import make_cursor

POINT = "0101000000000000000000F03F0000000000000040"
"""POINT(1 2), as PostGIS writes it."""


@dataclass(frozen=True)
class Geometry:
    """What a project loads, and sends."""

    text: str


class GeometryLoader(Loader):
    def load(self, data: Any) -> Geometry:
        return Geometry(bytes(data).decode())


class GeometryDumper(Dumper):
    def dump(self, obj: Geometry) -> bytes:
        return obj.text.encode()


def register(info: Any, context: Any) -> None:
    info.register(context)
    context.register_loader(info.oid, GeometryLoader)
    names = {"oid": info.oid, "format": pq.Format.TEXT}
    context.register_dumper(Geometry, type("Dump", (GeometryDumper,), names))


def declare() -> None:
    register_type("geometry", TypeInfo, register)


def draw(client: Client, how: str) -> None:
    """Load, and send, a point, and an array of points, whose delimiter is no comma."""
    cursor, mark = make_cursor(client, how), "$1" if how == "raw" else "%s"
    client.call(
        cursor.execute,
        f"select '{POINT}'::geo.geometry, array['{POINT}'::geo.geometry, '{POINT}']",
    )
    point = Geometry(POINT)
    rows = client.call(cursor.fetchall)
    assert rows == [(point, [point, point])], f"wrong: {rows!r}"
    query = (
        "select pg_typeof(v)::oid = 'geo.geometry'::regtype, v"
        f" from (select {mark} as v) as t"
    )
    client.call(cursor.execute, query, [point])
    rows = client.call(cursor.fetchall)
    assert rows == [(True, point)], f"wrong: {rows!r}"
