"""What else users and operators do: fetch later, move at any moment, err, undo."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from psycopg import sql

from django_pg_hot_async._core.connection import RAN_AGAIN

from . import geometry
from .clients import Client
from .comparison import INERROR
from .cursors import (
    ARRIVED,
    BINARY,
    KEPT,
    NEW_LABEL,
    PROJECTS,
    READERS,
    VALUES,
    Select,
    column_lists,
    make_cursor,
    read_by_cursor,
    send_and_read,
    send_by_cursor,
)
from .deployment import ERRORS, clients, counts, nearby, places
from .gate import Edge
from .promise import MOVED, Expected, Link, Promise
from .schema import ORDERS, SHADOW
from .tenants import Tenants, execute

LATER = ("server", "client", "raw", "several", "binary", "record")
BETWEEN = ("server", "client", "raw", "several", "binary", "record", "stream", "copy")
SENT_BETWEEN = ("server", "client", "raw", "both")


class Widened(Tenants):
    """Each of these has to be right as a whole, or costs what it says."""

    # Rows that are fetched later

    @rule(
        name=clients,
        how=st.sampled_from(LATER),
        columns=column_lists,
        to=places,
        order=st.sampled_from(ORDERS),
        then=column_lists,
    )
    def fetch_later(
        self,
        name: str,
        how: str,
        columns: list[str],
        to: int,
        order: tuple[str, ...],
        then: list[str],
    ) -> None:
        """Rows have arrived; they are fetched after a move, or with types anew.

        In the meantime the connection is used, and learns of that.
        """
        client = self.use(name)
        self.end(client)
        if not self.has_rows(client) or id(client.connection) in self.streamed:
            return
        place = self.place(client)
        select = self.select(client, how, columns)

        def expected(promise: Promise, link: Link) -> Expected:
            found = promise.result(link, place, select.types)
            found.most += MOVED
            return found

        if how in BINARY and not all(self.foresee(client, expected).right):
            return
        cursor, right = self.attempt(
            client, lambda: begin_to_read(client, how, select), expected
        )
        if cursor is None:
            return
        if client.door.is_pooler:
            self._move(client.door, self.world.places[to])
        elif self.left["recreate"]:
            self.left["recreate"] -= 1
            self.end_locks(place)
            self.world.recreate(place, order)
            self.unsettle()
        self._read(self.use(name), "server", then)
        rows = client.do(lambda: finish_reading(client, how, cursor))
        # Nothing is sent for them any more.
        self.reads(0)
        counts["results fetched later"] += 1
        self.compare_row(rows, select, right, binary=how in BINARY)

    # A pooler that moves at any moment

    @precondition(lambda self: self.doors[0].is_pooler)
    @rule(
        uses=st.lists(
            st.one_of(
                st.tuples(st.sampled_from(BETWEEN), column_lists),
                st.tuples(
                    st.sampled_from(SENT_BETWEEN), st.sampled_from(sorted(VALUES))
                ),
            ),
            min_size=1,
            max_size=5,
        ),
        stops=st.lists(st.integers(0, 8), min_size=2, max_size=12),
    )
    def move_between_messages(
        self, uses: list[tuple[str, Any]], stops: list[int]
    ) -> None:
        """In autocommit, by a pooler that may move between any two messages."""
        door = self.doors[0]
        whole = [place for place in self.world.places if place.layout.is_whole]
        if door.place not in whole:
            return
        self.leave(door)
        edge = Edge(door, self.cast.gate)
        edge.open()
        ways = iter(stops)

        def move() -> None:
            way = next(ways, len(whole))
            if way < len(whole):
                door.lead(whole[way])
                counts["moves between messages"] += 1

        try:
            for how, what in uses:
                self.cast.gate.between = move
                try:
                    self.use_edge(edge, how, what)
                finally:
                    self.cast.gate.between = lambda: None
        finally:
            edge.close()
            self.world.statements.new()

    def use_edge(self, edge: Edge, how: str, what: Any) -> None:
        """Read, or send; whatever comes is right, or refused with what to do."""
        work: Callable[[], Any]
        if isinstance(what, str):
            kind = (
                "hstore"
                if how == "both" or (not self.has_moods and what in PROJECTS)
                else what
            )
            sends = send_and_read if how == "both" else send_by_cursor
            work = functools.partial(sends, edge, how, kind, None)
            truth: list[Any] = [ARRIVED[kind]]
        else:
            # Not every server has the label.
            columns = [name for name in what if name != NEW_LABEL] or ["attrs"]
            select = self.select(edge, how, columns)
            read = READERS.get(how, read_by_cursor)
            work = functools.partial(read, edge, how, select)
            truth = self.truth(select.sql, binary=how in BINARY)
        try:
            found = work()
        except ERRORS as error:
            assert RAN_AGAIN in str(error), f"{edge}: {error!r}"
            counts["statements to run again"] += 1
            return
        assert found == truth, f"wrong: {found!r} is not {truth!r}"
        counts["statements across a move"] += 1

    @precondition(lambda self: self.has_moods)
    @rule(name=clients, how=st.sampled_from((*KEPT, "raw")))
    def draw(self, name: str, how: str) -> None:
        """Load and send what PostGIS has, where that is."""
        client = self.use(name)
        self.end(client)
        if not (self.place(client).has_geometry and self.is_sure(client)):
            return
        link = self.link_of(client)
        self.right(
            client,
            functools.partial(geometry.draw, client, self.able(client, how)),
        )
        self.reads(3 * MOVED + link.slack)
        link.slack = MOVED
        counts["points drawn"] += 1

    # What is no evidence

    @rule(place=nearby)
    def shadow(self, place: int) -> None:
        """A session has temporary types that are called as tracked ones; or ends."""
        there = self.near(place)
        session = self.shadows.pop(there, None)
        if session is not None:
            session.close()
        else:
            self.shadows[there] = self.world.session(there)
            self.shadows[there].execute(SHADOW)
            counts["sessions with temporary types"] += 1
        self.reads(0)

    @rule(name=clients, how=st.sampled_from(KEPT), number=st.integers(0, 10**6))
    def mistake(self, name: str, how: str, number: int) -> None:
        """A project's own mistake, beside a value of a tracked type.

        Only the connection that met the error may ask once more.
        """
        client = self.use(name)
        self.end(client)
        if not self.has_rows(client) or not self.is_sure(client):
            return
        how = self.able(client, how)
        query = f"select {{}}::hstore, to_tsvector('no_such_{number}', 'a')"
        try:
            client.do(lambda: execute(client, how, query, VALUES["hstore"]))
        except ERRORS as error:
            assert "no_such_" in str(error), f"{client}: {error!r}"
        link = self.link_of(client)
        self.reads(2 * MOVED + link.slack)
        link.slack = MOVED
        counts["mistakes"] += 1

    @precondition(lambda self: self.threshold is not None)
    @rule(name=clients)
    def count_prepared(self, name: str) -> None:
        """A server keeps what psycopg prepared and has not dropped since, no more."""
        client = self.use(name)
        if client.is_djangos or client.connection.pgconn.transaction_status == INERROR:
            return
        self._plain(client)
        query = "select count(*) from pg_prepared_statements"
        [[found]] = self.right(
            client, functools.partial(execute, client, "client", query)
        )
        prepared = client.connection._prepared
        known = len(prepared._names) + len(prepared._to_flush)
        is_bounded = found <= known or None in prepared._to_flush  # DEALLOCATE ALL
        assert is_bounded, f"{client}: {found} prepared statements, not {known}"
        self.reads(MOVED)
        counts["prepared statements"] += found

    # Transactions

    @precondition(lambda self: self.has_moods)
    @rule(name=clients, commit=st.booleans())
    def make_anew_in_transaction(self, name: str, commit: bool) -> None:
        """A transaction makes a type anew and sends values of it, then is undone."""
        client = self.use(name)
        self.end(client)
        place = self.place(client)
        if not self.has_rows(client) or not self.is_sure(client):
            return
        self.end_locks(place)
        link = self.link_of(client)
        limit = 5 * MOVED + link.slack
        check = functools.partial(check_mood, client)
        self.right(client, check)
        self.begin(client, most=limit)
        self.right(client, check)
        for statement in (
            "drop type mood cascade",
            "create type mood as enum ('ok', 'sad')",
        ):
            self.right(client, functools.partial(execute, client, "server", statement))
        self.right(client, check)
        self.end(client, commit=False)
        self.right(client, check)
        self.reads(limit)
        self.unsettle()
        counts["types made in a transaction"] += 1

    @rule(name=clients, columns=column_lists)
    def set_transaction_first(self, name: str, columns: list[str]) -> None:
        """SET TRANSACTION is the first statement, of a pipeline as well."""
        client = self.use(name)
        self.end(client)
        if not self.has_rows(client) or not self.is_sure(client):
            return
        if id(client.connection) in self.streamed:
            return
        select = self.select(client, "pipeline", columns)
        link = self.link_of(client)
        limit = 2 * MOVED + link.slack

        def work() -> Any:
            with client.using(client.connection.pipeline()):
                execute(
                    client, "server", "set transaction isolation level serializable"
                )
                cursor = make_cursor(client, "server")
                client.call(cursor.execute, select.sql)
                return client.call(cursor.fetchall)

        self.begin(client)
        rows = self.right(client, work)
        self.compare_row(rows, select, [True] * len(select.types))
        self.reads(limit)
        link.slack = MOVED
        self.let_go_of_the_server(client, "pipeline")
        self.end(client)
        counts["transactions at SERIALIZABLE"] += 1


def begin_to_read(client: Client, how: str, select: Select) -> Any:
    """Execute, and fetch nothing that is asked for yet."""
    cursor = make_cursor(client, how if how in (*KEPT, "raw") else "server")
    query, binary = select.sql, how in BINARY
    if how == "several":
        query = f"select 'x'; {select.sql}; {select.sql}"
        client.call(cursor.execute, query, prepare=False)
        assert client.call(cursor.fetchall) == [("x",)]
        return cursor
    if how == "record":
        query = (
            f"select row({', '.join(select.columns)}) from product where name = 'anvil'"
        )
    client.call(cursor.execute, query, binary=binary)
    return cursor


def finish_reading(client: Client, how: str, cursor: Any) -> Any:
    if how == "several":
        found = []
        while cursor.nextset():
            found.append(client.call(cursor.fetchall))
        first, second = found
        assert first == second, f"{first!r} is not {second!r}"
        return first
    rows = client.call(cursor.fetchall)
    return [record for [record] in rows] if how == "record" else rows


def check_mood(client: Client) -> None:
    """A value of the enum goes as what is the enum now."""
    query = sql.SQL("select pg_typeof(%s)::oid = 'mood'::regtype, 'ok'::mood")
    cursor = make_cursor(client, "server")
    client.call(cursor.execute, query, [VALUES["mood"]])
    rows = client.call(cursor.fetchall)
    assert rows == [(True, VALUES["mood"])], f"wrong: {rows!r}"
