"""Memory: of connections that wait, and of a process that has seen many servers.

By `tracemalloc`: what Python and psycopg's C code allocate through Python, to the
byte. libpq's buffers, the same in all variants, are not in it.
"""

from __future__ import annotations

import enum
import gc
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import psycopg
from django.db import connections
from psycopg.types.enum import EnumInfo, register_enum

from benchmarks.measures import Metrics, Run

from .pools import conninfo

SELECT = "select attrs, tags from product where id = 1"


class Feeling(enum.Enum):
    GLAD = "glad"


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def idle_connections() -> Run:
    """Open so many connections, each by a wrapper of its own; then query over each."""
    warm = [opened() for _ in range(5)]
    for wrapper in warm:
        query(wrapper)

    def run(times: int) -> Metrics:
        tracemalloc.start()
        before = traced()
        wrappers = [opened() for _ in range(times)]
        idle = traced() - before
        for wrapper in wrappers:
            query(wrapper)
        used = traced() - before
        tracemalloc.stop()
        for wrapper in wrappers:
            wrapper.close()
        return {
            "traced": idle / times,
            "traced_after_query": used / times,
        }

    return run


def opened() -> Any:
    wrapper: Any = connections.create_connection("default")
    wrapper.connect()
    return wrapper


def query(wrapper: Any) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(SELECT)
        cursor.fetchall()


def switches() -> Run:
    """Lead an alias from one real server to another and back, and query over each."""
    wrapper: Any = connections["default"]
    other: dict[str, Any] = connections.settings["other"]
    ports = itertools.cycle([wrapper.settings_dict["PORT"], other["PORT"]])

    def switch() -> None:
        wrapper.settings_dict["PORT"] = next(ports)
        query(wrapper)
        wrapper.close()

    return growth_of(switch)


def tenants() -> Run:
    """Have each switch lead to OIDs never seen, over 1,000 databases by turns.

    The connection and the queries are real, and so are the OIDs: a type is made anew
    each time. The database's name is made up: so many would take 7 MB of disk each.
    """
    from django_pg_hot_async import register_type
    from django_pg_hot_async._core.server import Server
    from django_pg_hot_async._django.connections import track

    register_type("feeling", EnumInfo, register_enum, enum=Feeling)
    wrapper: Any = connections["default"]
    wrapper.connect()
    numbers = itertools.count()
    other = psycopg.connect(conninfo(), autocommit=True)

    def of_another(*_: object) -> Server:
        return Server(180_000, "10.0.0.1", "5432", f"tenant {next(numbers) % 1000}")

    patch.object(Server, "of", of_another).start()

    def switch() -> None:
        other.execute("drop type if exists feeling", prepare=False)
        other.execute("create type feeling as enum ('GLAD')", prepare=False)
        # What is done for a new connection.
        track(wrapper.connection, "default")
        with wrapper.cursor() as cursor:
            cursor.execute("select %s::feeling, null::hstore", [Feeling.GLAD])
            assert cursor.fetchone() == (Feeling.GLAD, None)

    return growth_of(switch)


def growth_of(switch: Callable[[], None]) -> Run:
    """Return what measures by how much memory grows, from before the first *switch*."""

    def run(times: int) -> Metrics:
        tracemalloc.start()
        start = traced()
        for _ in range(times // 2):
            switch()
        half = traced()
        for _ in range(times // 2):
            switch()
        end = traced()
        tracemalloc.stop()
        return {
            "growth": end - start,
            "growth_second_half": end - half,
        }

    return run
