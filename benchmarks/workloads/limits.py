"""What a statement takes when libpq alone sends it: below it, nobody can get."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import psycopg
from django.db import connections

from benchmarks.measures import Run

from .clocks import timed, timed_by_itself
from .pools import conninfo

QUERY = b"select attrs, tags from product where id = 1"
SELECT_ONE = b"select 1"


def messages(name: str, *, is_first: bool = False) -> list[bytes]:
    """Return what goes to the server, message by message.

    *is_first*: the confirmation is that of a connection which was not asked before.
    """
    if name == "query":
        return [QUERY]
    if name == "and select one":
        return [QUERY, SELECT_ONE]
    confirmation = confirmation_of(is_first=is_first)
    if name == "with confirmation":
        return [QUERY + b"\n;" + confirmation]
    assert name == "and confirmation"
    return [QUERY, confirmation]


def confirmation_of(*, is_first: bool) -> bytes:
    """Return the statement that confirms what this package knows of the server."""
    from django_pg_hot_async._core.connection import state_of

    wrapper: Any = connections["default"]
    with wrapper.cursor() as cursor:
        cursor.execute(QUERY.decode())
    if is_first:
        wrapper.close()
        wrapper.connect()
    state = state_of(wrapper.connection)
    assert state is not None
    confirmation = state.confirmation(wrapper.connection.pgconn)
    assert confirmation is not None
    wrapper.close()
    return confirmation.statement


def statement(name: str) -> Run:
    """Messages over a connection that is open."""
    sent = messages(name)
    own = psycopg.connect(conninfo(), autocommit=True)

    def once() -> None:
        for message in sent:
            own.pgconn.exec_(message)

    return timed(once)


def first_statement(name: str) -> Run:
    """Connect, send the messages, close."""
    sent, where = messages(name, is_first=True), conninfo()

    def once() -> tuple[float, float]:
        started = perf_counter()
        with psycopg.connect(where, autocommit=True) as own:
            connected = perf_counter()
            for message in sent:
                own.pgconn.exec_(message)
            ended = perf_counter()
        return ended - started, ended - connected

    return timed_by_itself(once)
