"""Queries over a connection that is open, and the first one over a new one."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from django.db import connection as _connection
from django.db.backends.signals import connection_created

from benchmarks.measures import Run

from .clocks import timed, timed_by_itself
from .connects import fetch_types

connection: Any = _connection


def cursor(rows: int, select_one: bool = False) -> Run:
    """Rows with hstore and citext[], by a cursor; *select_one* sends that before."""

    def once() -> Any:
        with connection.cursor() as cursor:
            if select_one:
                cursor.execute("select 1")
                cursor.fetchone()
            cursor.execute("select attrs, tags from product where id <= %s", [rows])
            return cursor.fetchall()

    assert once()[rows - 1] == (
        {"n": str(rows), "weight": "9 kg"},
        ["Tag", "two words"],
    )
    return timed(once)


def orm(rows: int) -> Run:
    """Objects with hstore and citext[]."""
    from .models import Product

    queryset = Product.objects.filter(id__lte=rows).order_by("id")
    assert queryset.last().attrs["weight"] == "9 kg"
    return timed(lambda: list(queryset.all()))


def plain_cursor(column: str = "price") -> Run:
    """One row of built-in types, or with a type that nobody tracks."""
    sql = f"select id, name, made, {column} from product where id = %s"

    def once() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(sql, [1])
            return cursor.fetchone()

    return timed(once)


def plain_orm() -> Run:
    """One object of built-in types."""
    from .models import Product

    queryset = Product.objects.only("id", "name", "made", "price")
    return timed(lambda: queryset.get(pk=1))


def first_hstore(select_one: bool = False, fetch: bool = False) -> Run:
    """Connect, query hstore, close; *select_one* sends that before the query."""
    if fetch:
        connection_created.connect(fetch_types)

    def once() -> tuple[float, float]:
        started = perf_counter()
        connection.connect()
        connected = perf_counter()
        with connection.cursor() as cursor:
            if select_one:
                cursor.execute("select 1")
                cursor.fetchone()
            cursor.execute("select attrs, tags from product where id = 1")
            cursor.fetchone()
        ended = perf_counter()
        connection.close()
        return ended - started, ended - connected

    return timed_by_itself(once)
