"""What a statement takes when libpq alone sends it: below it, nobody can get."""

from __future__ import annotations

from time import perf_counter

import psycopg

from benchmarks.measures import Run

from .clocks import timed, timed_by_itself
from .pools import conninfo

STATEMENTS = {"empty": b"", "select one": b"select 1"}


def named(name: str) -> bytes:
    """Return a statement of `STATEMENTS`, or the one that confirms known OIDs."""
    if name in STATEMENTS:
        return STATEMENTS[name]
    from django_pg_hot_async import _catalog

    question = _catalog.Question(("citext", "hstore"))
    with psycopg.connect(conninfo()) as own:
        reading = _catalog.read_types(own.pgconn, question, "utf-8")
        return _catalog.Confirmation(own.wait(reading)).statement


def statement(name: str) -> Run:
    """A statement over a connection that is open."""
    sql = named(name)
    own = psycopg.connect(conninfo(), autocommit=True)
    return timed(lambda: own.pgconn.exec_(sql))


def first_statement(name: str) -> Run:
    """Connect, send what returns hstore and a statement after it, close."""
    sql, where = named(name), conninfo()

    def once() -> tuple[float, float]:
        started = perf_counter()
        with psycopg.connect(where, autocommit=True) as own:
            connected = perf_counter()
            own.pgconn.exec_(b"select attrs, tags from product where id = 1")
            own.pgconn.exec_(sql)
            ended = perf_counter()
        return ended - started, ended - connected

    return timed_by_itself(once)
