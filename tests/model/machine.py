"""The state machine: deployments, moves and mishaps in random order."""

from __future__ import annotations

import collections
import copy
import functools
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import django.db
import psycopg
from django.core.signals import request_started
from django.db.backends.signals import connection_created
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from psycopg import pq
from psycopg.rows import tuple_row
from psycopg.types.enum import EnumInfo, register_enum

from django_pg_hot_async import _memory, _tracking, forget, register_type, work_unit
from django_pg_hot_async._link import link_of
from tests.scenarios import close_all, connections, trust
from tests.shop.models import Product

from .clients import OWN, Async, AsyncPool, Client, Django, Loop, Own, OwnPool
from .promise import LEVELS, Expected, Identity, Link, Promise, is_evidence
from .world import MAPPING, ORDERS, TEMPLATES, Door, Mood, Place, World, is_read

COLUMNS: dict[str, str | None] = {
    "attrs": "hstore",
    "tags": "citext[]",
    "parts": "hstore[]",
    "feels": "mood",
    "array[feels]": "mood[]",
    "tags[1]": "citext",
    "name": None,
}
DJANGO_READS = ("cursor", "chunked", "orm", "iterator")
READS = (
    "server",
    "client",
    "raw",
    "binary",
    "named",
    "record",
    "pipeline",
    "stream",
)
DJANGO_SENDS = ("cursor", "orm")
SENDS = ("server", "client", "raw", "insert", "executemany", "both")
KEPT = ("cursor", "server", "client")
# Where a result comes in several: DECLARE, its description, FETCH.
IN_PARTS = ("named", "chunked", "iterator")
VALUES: dict[str, Any] = {
    "hstore": {"a": "1", "b c": None},
    "hstore[]": [{"a": '"'}, {}],
    "mood": Mood.OK,
    "mood[]": [Mood.SAD, Mood.OK],
}
ARRIVED = {
    "hstore": '"a"=>"1", "b c"=>NULL',
    "hstore[]": r'{"\"a\"=>\"\\\"\"",""}',
    "mood": "ok",
    "mood[]": "{sad,ok}",
}
ERRORS = (psycopg.Error, django.db.Error)
INERROR = pq.TransactionStatus.INERROR

CLIENTS = ("first", "second", "own", "pool", "task", "tasks")
DOORS = ("front", "back")

counts: collections.Counter[str] = collections.Counter()
"""What was done, for the report."""


class Cast:
    """What one search after another uses: servers, poolers, threads."""

    def __init__(
        self, world: World, doors: dict[bool, list[Door]], threads: list[Django]
    ) -> None:
        self.world = world
        self.doors = doors
        """Services, and (True) poolers."""
        self.threads = threads
        self.loop = Loop()


def cause(error: BaseException) -> psycopg.Error:
    """psycopg's own of an error that Django wraps."""
    found = error if isinstance(error, psycopg.Error) else error.__cause__
    assert isinstance(found, psycopg.Error), repr(error)
    return found


class Search(RuleBasedStateMachine):
    """Invariants are the promise's; a step that breaks one is the counter-example."""

    cast: Cast
    """Set by whoever runs the search."""
    levels: tuple[str, ...] = LEVELS
    """The levels of trust to deploy with."""

    # Life

    @initialize(
        level=st.sampled_from(LEVELS),
        pooler=st.booleans(),
        pooled=st.booleans(),
        by_name=st.booleans(),
        apart=st.booleans(),
    )
    def deploy(
        self, level: str, pooler: bool, pooled: bool, by_name: bool, apart: bool
    ) -> None:
        """*by_name*: client-side binding; *apart*: the threads have a door each."""
        counts["deployments"] += 1
        cast = self.cast
        self.world = cast.world
        with ExitStack() as stack:
            # Or a pooler meets a database that is not there, and remembers.
            for door in cast.doors[True]:
                assert door.bouncer is not None
                stack.enter_context(door.bouncer.paused())
            self.world.reset()
        close_all()
        _memory._aliases = {}
        level = self.levels[LEVELS.index(level) % len(self.levels)]
        self.promise = Promise(level)
        self.by_name = by_name
        self.links: dict[int, tuple[Any, Link]] = {}
        self.streamed: set[int] = set()
        self.forks = 0
        self.trust = trust(level)
        self.trust.enable()
        self.doors = cast.doors[pooler]
        for door in self.doors:
            door.lead(self.world.places[0])
        front, back = self.doors
        clients: list[Client] = [
            *cast.threads,
            Own("own", front, "default"),
            OwnPool("pool", back, OWN),
            Async("task", front, OWN, cast.loop),
            AsyncPool("tasks", back, OWN, cast.loop),
        ]
        self.clients = dict(zip(CLIENTS, clients, strict=True))
        for client in clients:
            client.configured = functools.partial(self.configured, client)
        for thread in cast.threads:
            thread.peers = cast.threads
        options: dict[str, Any] = {"server_side_binding": not by_name}
        settings: dict[str, Any] = {"CONN_HEALTH_CHECKS": True}
        if pooled:
            options["pool"] = {"min_size": 0, "max_size": 2, "timeout": 10}
        else:
            settings["CONN_MAX_AGE"] = None
        for number, thread in enumerate(cast.threads):
            # Django has one pool for an alias.
            door = self.doors[number if apart and not pooled else 0]
            database = door.database()
            database.update(settings)
            database["OPTIONS"] = {**database.get("OPTIONS", {}), **options}
            thread.start(door, database)
        connection_created.connect(self.connected, weak=False)
        self.world.statements.new()

    def teardown(self) -> None:
        if not hasattr(self, "clients"):
            return
        connection_created.disconnect(self.connected)
        try:
            for client in self.clients.values():
                client.quit()
        finally:
            self.trust.disable()
            _tracking.declare(())
            close_all()

    # What is known

    def connected(self, connection: Any, **kwargs: Any) -> None:
        """Django connected, or checked a connection out of its pool."""
        known = id(connection.connection) in self.links
        link = self.link(connection.connection, connection.alias)
        if known:
            self.promise.renew(link)

    def link(self, connection: Any, alias: str) -> Link:
        found = self.links.get(id(connection))
        if found is None:
            found = (connection, Link(alias, identity_of(connection)))
            self.links[id(connection)] = found
        return found[1]

    def configured(self, client: Client, connection: Any) -> None:
        """A hook has read from a new connection; a pool's, from one of its threads."""
        link = self.link(connection, client.alias)
        self.promise.verify(link, self.place(client, connection).layout)

    def place(self, client: Client, connection: Any = None) -> Place:
        """Where a connection of *client*, its present one or another, leads now."""
        if client.door.is_pooler:
            return client.door.place
        pgconn = (connection or client.connection).pgconn
        return self.world.at(pgconn.port.decode(), pgconn.db.decode())

    def here(self, place: Place) -> list[Client]:
        """The clients with a connection to *place*."""
        return [
            client
            for client in self.clients.values()
            if client.is_open and self.place(client) is place
        ]

    @property
    def has_moods(self) -> bool:
        """Whether the project has registered its enum."""
        return "mood" in self.promise.tracked

    def truth(self, sql: str, *, binary: bool = False) -> list[tuple[Any, ...]]:
        return self.world.truth(sql, binary=binary, moods=self.has_moods)

    # What is compared

    def reads(self, least: int, most: int) -> int:
        """The reads of types since the last look, which are as many as promised."""
        statements = self.world.statements.new()
        reads = sum(map(is_read, statements))
        assert least <= reads <= most, (
            f"{reads} reads; from {least} to {most} expected: {statements}"
        )
        counts["reads"] += reads
        return reads

    def attempt(
        self,
        client: Client,
        work: Callable[[], Any],
        expectations: list[tuple[Promise, Link, Expected]],
        *,
        noticed: bool,
        do: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> Any:
        """Do *work*; return what it returns, and which of its values have to be right.

        One of *expectations* comes true; it is the number of reads that tells which.
        """
        status = client.connection.pgconn.transaction_status
        error: BaseException | None = None
        value: Any = None
        try:
            value = (do or client.do)(work)
        except ERRORS as caught:
            error = caught
        found = sum(map(is_read, statements := self.world.statements.new()))
        counts["reads"] += found
        evidence = None if error is None else is_evidence(cause(error))
        # A value that does not parse has a connection of one's own ask at once, and a
        # label that is none any connection: for an element, and for its array.
        asks = self.has_moods or not client.is_djangos
        more = 2 if evidence is False and asks else 0
        fitting = [
            (promise, link, expected)
            for promise, link, expected in expectations
            if expected.reads <= found <= expected.reads + more
        ]
        assert fitting, (
            f"{client}: {found} reads, {error!r}, where one of"
            f" {[e.reads for _, _, e in expectations]} was expected: {statements}"
        )
        promise, link, expected = fitting[0]
        self.promise = promise
        self.links[id(client.connection)] = (client.connection, link)
        if error is None:
            after = client.connection.pgconn.transaction_status
            if client.in_transaction:
                # Django begins one with its first statement.
                status = pq.TransactionStatus.INTRANS
            assert after == status, f"{client}: left {after!r}, found {status!r}"
            return value, expected.right
        note(f"{client}: {error!r}")
        if all(expected.right) and not expected.missing:
            raise error
        counts["excused errors"] += 1
        if client.connection.pgconn.transaction_status == INERROR:
            self.end(client, commit=False)
        if found > expected.reads:
            promise.verify(link, self.place(client).layout)
        if evidence is True or (evidence is False and noticed):
            promise.doubt(link, refused=evidence)
        return None, []

    def copies(self, client: Client) -> tuple[Promise, Link]:
        """A promise to make an assumption with, and the link of *client* in it."""
        link = self.link(client.connection, client.alias)
        promise, link = copy.deepcopy((self.promise, link))
        return promise, link

    def expect(
        self, client: Client, use: Callable[[Promise, Link, bool], Expected], how: str
    ) -> list[tuple[Promise, Link, Expected]]:
        """What *use* may lead to: one thing, or two where psycopg decides."""
        if how == "stream":
            readable = [False]
        elif how in ("pipeline", "executemany"):
            readable = [True, False]
        else:
            readable = [True]
        found = []
        for able in readable:
            promise, link = self.copies(client)
            promise.begin(link)
            found.append((promise, link, use(promise, link, able)))
        return found

    def compare(
        self, values: Sequence[Any], truth: Sequence[Any], right: Sequence[bool]
    ) -> None:
        assert len(values) == len(truth), f"{values!r} is not {truth!r}"
        for value, true, must in zip(values, truth, right, strict=True):
            if must:
                assert value == true, f"wrong: {value!r} is not {true!r}"
                counts["values compared"] += 1
            elif value != true:
                counts["excused values"] += 1

    # Steps

    client = st.sampled_from(CLIENTS)
    door = st.sampled_from((0, 1))
    columns = st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3)

    def use(self, name: str) -> Client:
        """The client called *name*, with an open connection."""
        client = self.clients[name]
        if not client.is_open:
            self.open(client)
        return client

    def open(self, client: Client) -> None:
        known = len(self.links)
        client.do(client.open)
        client.settle()
        link = self.link(client.connection, client.alias)
        # At connect nothing is sent, but by the hooks of pools.
        new = len(self.links) - known
        reads = client.connects * new + client.checks
        self.reads(reads, reads)
        if client.checks:
            self.promise.verify(link, self.place(client).layout)
        counts["connections"] += new
        counts["checkouts"] += 1

    def end(self, client: Client, *, commit: bool = True) -> None:
        """End the transaction of *client*, if there is one."""
        if client.in_transaction:
            error = None if commit else RuntimeError("roll back")
            with suppress(RuntimeError):
                client.do(lambda: client.end(error))

    @rule(name=client)
    def toggle(self, name: str) -> None:
        """Open, or close, or hand back to the pool."""
        client = self.clients[name]
        if client.is_open:
            self.end(client)
            client.let_go()
            client.do(client.close)
            self.reads(0, 0)
        else:
            self.open(client)

    @rule(
        uses=st.lists(
            st.tuples(client, st.sampled_from(DJANGO_READS + READS), columns),
            min_size=1,
            max_size=4,
        )
    )
    def read(self, uses: list[tuple[str, str, list[str]]]) -> None:
        for name, how, columns in uses:
            self._read(self.use(name), how, columns)

    def _read(
        self,
        client: Client,
        how: str,
        columns: list[str],
        do: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        layout = self.place(client).layout
        if not layout.types:
            return self.read_nothing(client)
        if how in DJANGO_READS and not client.is_djangos:
            how = "server"
        if how in IN_PARTS and client.door.is_pooler and not client.in_transaction:
            # Its connection may be another one by the next FETCH.
            how = "server"
        if how == "stream":
            self.streamed.add(id(client.connection))
        elif how == "pipeline" and id(client.connection) in self.streamed:
            # libpq's single-row mode outlives its query there (psycopg 3.2, 3.3).
            how = "server"
        if how in ("orm", "iterator"):
            columns = [c for c in columns if c in ("attrs", "tags", "parts")] or [
                "attrs"
            ]
        if how in ("binary", "record") and not self.has_moods:
            # Nobody loads it, and in binary it has an OID in it.
            columns = [c for c in columns if c != "array[feels]"] or ["feels"]
        columns = list(dict.fromkeys(columns))
        sql = f"select {', '.join(columns)} from product where name = 'anvil'"
        types = [kind for c in columns if (kind := COLUMNS[c])]

        def expected(promise: Promise, link: Link, readable: bool) -> Expected:
            return promise.result(
                link, layout, types, readable=readable, apart=how == "record"
            )

        value, right = self.attempt(
            client,
            lambda: READERS.get(how, read_by_cursor)(client, how, sql, columns),
            self.expect(client, expected, how),
            noticed=how in DJANGO_READS,
            do=do,
        )
        counts["results"] += 1
        if value is not None:
            truth = self.truth(sql, binary=how in ("binary", "record"))
            assert len(value) == len(truth) == 1, value
            musts = iter(right)
            self.compare(
                value[0],
                truth[0],
                [next(musts) if COLUMNS[c] else True for c in columns],
            )

    def read_nothing(self, client: Client) -> None:
        """The server lacks the types; what it has costs nothing."""
        [row] = client.do(lambda: read_by_cursor(client, "server", "select 'x', 1", []))
        assert row == ("x", 1)
        self.reads(0, 0)

    @rule(name=client, how=st.sampled_from(KEPT), columns=columns)
    def keep(self, name: str, how: str, columns: list[str]) -> None:
        """Open a cursor for a query that is run again later, over and over."""
        client = self.use(name)
        if how == "cursor" and not client.is_djangos:
            how = "server"
        if self.place(client).layout.types:
            columns = list(dict.fromkeys(columns))
            sql = f"select {', '.join(columns)} from product where name = 'anvil'"
            cursor = client.do(lambda: make_cursor(client, how))
            client.kept.append((how, cursor, sql, columns))
            self._again(client, len(client.kept) - 1)

    @rule(
        name=client,
        kinds=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3),
        how=st.sampled_from(KEPT),
    )
    def send_again(self, name: str, kinds: list[str], how: str) -> None:
        """Send values by the same query, over the same cursor as ever."""
        client = self.use(name)
        if how == "cursor" and not client.is_djangos:
            how = "server"
        if how not in client.senders:
            client.senders[how] = client.do(lambda: make_cursor(client, how))
        for kind in kinds:
            self._send(client, how, kind, client.senders[how])

    @rule(which=st.integers(0, 5))
    def again(self, which: int) -> None:
        """Run a query again over the cursor that was kept for it."""
        kept = [
            (client, number)
            for client in self.clients.values()
            if client.is_open and self.place(client).layout.types
            for number in range(len(client.kept))
        ]
        if kept:
            self._again(*kept[which % len(kept)])

    @rule(
        name=client,
        how=st.sampled_from(KEPT),
        columns=columns,
        stops=st.lists(st.integers(0, 5), min_size=2, max_size=4),
        ends=st.sampled_from(("nothing", "forget", "work unit")),
    )
    def tour(
        self, name: str, how: str, columns: list[str], stops: list[int], ends: str
    ) -> None:
        """One query over one cursor, while a pooler moves the connection around."""
        client = self.use(name)
        if how == "cursor" and not client.is_djangos:
            how = "server"
        columns = list(dict.fromkeys(columns))
        sql = f"select {', '.join(columns)} from product where name = 'anvil'"
        cursor = client.do(lambda: make_cursor(client, how))
        client.kept.append((how, cursor, sql, columns))
        number = len(client.kept) - 1
        for stop in stops:
            if self.place(client).layout.types:
                self._again(client, number)
            self._move(client.door, self.world.places[stop])
            if ends == "forget":
                self._forget(client.alias)
            elif ends == "work unit":
                self._begin_work(client, by_signal=False)
        if self.place(client).layout.types:
            self._again(client, number)

    def _again(self, client: Client, which: int) -> None:
        how, cursor, sql, columns = client.kept[which]

        def work() -> Any:
            client.call(cursor.execute, sql)
            return client.call(cursor.fetchall)

        layout = self.place(client).layout
        types = [kind for c in columns if (kind := COLUMNS[c])]
        value, right = self.attempt(
            client,
            work,
            self.expect(
                client,
                lambda promise, link, readable: promise.result(link, layout, types),
                how,
            ),
            noticed=how == "cursor",
        )
        if value is not None:
            musts = iter(right)
            self.compare(
                value[0],
                self.truth(sql)[0],
                [next(musts) if COLUMNS[c] else True for c in columns],
            )

    @rule(
        uses=st.lists(
            st.tuples(
                client,
                st.sampled_from(DJANGO_SENDS + SENDS),
                st.sampled_from(sorted(VALUES)),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def send(self, uses: list[tuple[str, str, str]]) -> None:
        """Send values; the server says what arrived."""
        for name, how, kind in uses:
            self._send(self.use(name), how, kind)

    def _send(self, client: Client, how: str, kind: str, cursor: Any = None) -> None:
        layout = self.place(client).layout
        if not self.has_moods or not layout.types:
            kind = kind.replace("mood", "hstore")
        if how in DJANGO_SENDS and not client.is_djangos:
            how = "insert"
        if how == "executemany" and id(client.connection) in self.streamed:
            how = "insert"
        if not layout.types and cursor is None:
            how = "cursor" if client.is_djangos else "server"
        sends, types = SENDERS.get(how, send_by_cursor), [kind]
        if how in ("orm", "insert"):
            types = ["hstore", "hstore[]"]
        elif how in ("executemany", "both"):
            types = [kind] = ["hstore"]
        by_name = how == "client" or (how in DJANGO_SENDS and self.by_name)

        def expected(promise: Promise, link: Link, readable: bool) -> Expected:
            # No one can read between the parameters of a batch.
            times = 3 if how == "executemany" else 1
            found = promise.parameters(
                link, layout, types * times, by_name=by_name, readable=readable
            )
            if how == "both" and all(found.right):
                found += promise.result(link, layout, ["hstore"])
            return found

        expectations = self.expect(client, expected, "server")
        value, right = self.attempt(
            client,
            lambda: sends(client, how, kind, cursor),
            expectations,
            noticed=how in DJANGO_SENDS,
        )
        counts["statements with parameters"] += 1
        if value is not None:
            self.compare(value, [ARRIVED[kind] for kind in types], right[: len(types)])

    @rule(name=client, commit=st.booleans())
    def transact(self, name: str, commit: bool) -> None:
        """Begin a transaction, or end it."""
        client = self.use(name)
        if client.in_transaction:
            self.end(client, commit=commit)
        else:
            client.do(client.begin)
        self.reads(0, 0)

    @rule(
        name=client,
        sql=st.sampled_from(
            ["select 1 / 0", "select no_such", "select 1::no_such", "nonsense"]
        ),
        how=st.sampled_from(("cursor", "server", "client")),
        kind=st.sampled_from(sorted(VALUES)),
    )
    def fail(self, name: str, sql: str, how: str, kind: str) -> None:
        """Fail within a transaction, go on in it regardless, and roll back."""
        client = self.use(name)
        if not self.has_moods:
            kind = kind.replace("mood", "hstore")
        if not client.in_transaction:
            client.do(client.begin)
        if how == "cursor" and not client.is_djangos:
            how = "server"
        link = self.link(client.connection, client.alias)

        def run(statement: str, params: Any = None) -> None:
            cursor = make_cursor(client, how)
            client.call(cursor.execute, statement, params)

        try:
            client.do(lambda: run(sql))
        except ERRORS as error:
            evidence = is_evidence(cause(error))
            if evidence is not None:
                self.promise.doubt(link, refused=evidence)
        assert client.connection.pgconn.transaction_status == INERROR
        # Nothing can be read any more, and the server refuses whatever comes.
        for work in (
            functools.partial(run, "select 1"),
            functools.partial(run, "select %s", [VALUES[kind]]),
        ):
            try:
                client.do(work)
            except ERRORS as error:
                found = cause(error)
                aborted = isinstance(found, psycopg.errors.InFailedSqlTransaction)
                assert aborted or "cannot adapt" in str(error), error
            else:
                raise AssertionError("a query in an aborted transaction succeeded")
        self.promise.begin(link)
        layout = self.place(client).layout
        self.promise.parameters(link, layout, [kind], by_name=True, readable=False)
        self.reads(0, 0)
        self.end(client, commit=False)
        self.reads(0, 0)

    @rule(door=door, to=st.integers(0, 5))
    def move(self, door: int, to: int) -> None:
        """Lead somewhere else: new connections, or, by a pooler, the open ones."""
        self._move(self.doors[door], self.world.places[to])

    def _move(self, door: Door, place: Place) -> None:
        self.leave(door)
        door.lead(place)
        counts["moves"] += 1
        self.reads(0, 0)

    @rule(door=door, to=st.integers(0, 5))
    def cut_over(self, door: int, to: int) -> None:
        """Lead somewhere else, and end the connections that are open."""
        there = self.doors[door]
        place, old = self.world.places[to], there.place
        if there.bouncer is not None:
            self.leave(there)
            gone = [c for c in self.clients.values() if c.door is there and c.is_open]
            there.place = place
            there.bouncer.switch(place.server, place.dbname, kill=True)
        else:
            gone = self.here(old)
            there.lead(place)
            self.world.terminate(old)
        self.meet_the_end(gone)
        counts["moves"] += 1

    def leave(self, door: Door) -> None:
        """End the transactions that a pooler would wait for."""
        if door.is_pooler:
            for client in self.clients.values():
                if client.door is door:
                    self.end(client)

    def meet_the_end(self, clients: list[Client]) -> None:
        """The connections of *clients* were cut: each is told, and gets rid of it."""
        for client in clients:
            try:
                client.do(
                    lambda: read_by_cursor(client, "server", "select 1", [])  # noqa: B023
                )
            except psycopg.OperationalError:
                client.drop()
            else:
                raise AssertionError(f"{client} was not cut")
        # A pool replaces a connection that it gets back broken.
        replaced = sum(client.checks for client in clients)
        self.reads(replaced, replaced)

    @rule(place=st.integers(0, 5), order=st.sampled_from(ORDERS))
    def recreate(self, place: int, order: tuple[str, ...]) -> None:
        """Drop the types, and create them in another order; or create them late."""
        there = self.world.places[place]
        for client in self.here(there):
            self.end(client)
        self.world.recreate(there, order)
        counts["types created anew"] += 1
        self.reads(0, 0)

    @rule(place=st.integers(0, 5), template=st.sampled_from(TEMPLATES))
    def rebuild(self, place: int, template: str) -> None:
        """Drop the database and create it anew, with other OIDs."""
        there = self.world.places[place]
        here = self.here(there)
        with ExitStack() as stack:
            for door in self.doors:
                if door.bouncer is not None and door.place is there:
                    self.leave(door)
                    stack.enter_context(door.bouncer.paused())
            self.world.rebuild(there, template)
        if not self.doors[0].is_pooler:
            self.meet_the_end(here)
        counts["databases created anew"] += 1
        self.reads(0, 0)

    @rule()
    def register(self) -> None:
        """The project registers a type of its own, with connections open."""
        if not self.has_moods:
            register_type("mood", EnumInfo, register_enum, enum=Mood, mapping=MAPPING)
            self.promise.register("mood")
            for client in self.clients.values():
                # What is registered reaches connections; a cursor has a map of its own.
                client.senders.clear()
            self.reads(0, 0)
            counts["types registered"] += 1

    @rule(name=st.sampled_from(("default", OWN, None)))
    def forget(self, name: str | None) -> None:
        self._forget(name)

    def _forget(self, name: str | None) -> None:
        if name is None:
            forget()
            for alias in self.promise.aliases:
                self.promise.withdraw(alias)
        else:
            self.promise.withdraw(name)
            _memory.alias(name)
            forget(name)

    @rule(name=client, by_signal=st.booleans())
    def begin_work(self, name: str, by_signal: bool) -> None:
        """A request begins in the client's thread, or a unit of work."""
        self._begin_work(self.clients[name], by_signal=by_signal)

    def _begin_work(self, client: Client, *, by_signal: bool) -> None:
        def begin() -> None:
            if by_signal:
                request_started.send(sender=type(self))
            else:
                with work_unit():
                    pass

        client.do(begin)
        for other in self.clients.values():
            # Nothing tells whose the connections of one's own are. A pool that
            # checks them lets a checkout begin with that, not with requests.
            if other.is_djangos:
                reached = other is client
            else:
                reached = not (by_signal and other.checks)
            if other.is_open and reached:
                self.promise.renew(self.link(other.connection, other.alias))
        self.reads(0, 0)

    @rule(name=client, how=st.sampled_from(READS), columns=columns)
    def read_in_another_thread(self, name: str, how: str, columns: list[str]) -> None:
        """The connection is handed to another thread, and back."""
        client = self.use(name)
        if client.is_async:
            return
        # psycopg's own cursors: Django's wrapper keeps to its thread.
        self._read(client, how, columns, in_a_thread)

    @rule(number=st.sampled_from((0, 1)), columns=columns)
    def fork(self, number: int, columns: list[str]) -> None:
        """A child begins with what its parent knows, and opens its own connection."""
        client = self.cast.threads[number]
        layout = client.door.place.layout
        if not layout.types or self.forks:
            return
        self.forks += 1
        columns = list(dict.fromkeys(columns))
        sql = f"select {', '.join(columns)} from product where name = 'anvil'"
        types = [kind for c in columns if (kind := COLUMNS[c])]
        found = fork(lambda: in_the_child(client.wrapper.settings_dict, sql))
        promise = copy.deepcopy(self.promise)
        link = Link("default", tuple(found["identity"]))
        promise.begin(link)
        expected = promise.result(link, layout, types)
        if found["error"]:
            assert not all(expected.right), found["error"]
        else:
            truth = json.loads(json.dumps(self.truth(sql)[0], default=repr))
            musts = iter(expected.right)
            self.compare(
                found["row"],
                truth,
                [next(musts) if COLUMNS[c] else True for c in columns],
            )
        self.reads(expected.reads, expected.reads)
        counts["forks"] += 1

    # Invariants

    @invariant()
    def promises_hold(self) -> None:
        if not hasattr(self, "links"):
            return
        counts["steps"] += 1
        for connection, link in self.links.values():
            # I1, I2: what it goes by was read from where the promise says.
            real = link_of(connection)
            if real is not None and real.snapshot and not connection.closed:
                held = self.promise.trusted(link)
                assert held is not None, f"{connection} is trusted for too long"
                oids = real.snapshot.by_name()
                mine = {name: held.oids[name] for name in oids}
                assert oids == mine, f"{connection} goes by {oids}, not by {mine}"
            # I1: no OID of a server is registered on a connection.
            for loaders in connection.adapters._loaders:
                registered = [oid for oid in loaders if 16384 <= oid < 2**32]
                assert not registered, f"registered on {connection}: {registered}"
        # I3, and what is remembered is bounded.
        assert not _memory._lock.locked()
        for alias in _memory.aliases().values():
            assert len(alias.servers) <= _memory.SERVERS_AN_ALIAS


def identity_of(connection: Any) -> Identity:
    pgconn = connection.pgconn
    host = (pgconn.hostaddr or pgconn.host).decode()
    return pgconn.server_version, host, pgconn.port.decode(), pgconn.db.decode()


def make_cursor(client: Client, how: str, **options: Any) -> Any:
    connection = client.connection
    if how == "cursor":
        return client.wrapper.cursor()  # type: ignore[attr-defined]
    kinds: dict[str, tuple[Any, Any]] = {
        "server": (psycopg.Cursor, psycopg.AsyncCursor),
        "client": (psycopg.ClientCursor, psycopg.AsyncClientCursor),
        "raw": (psycopg.RawCursor, psycopg.AsyncRawCursor),
    }
    return kinds[how][client.is_async](connection, row_factory=tuple_row, **options)


# Ways to read one row; each returns a list of rows.


def read_by_cursor(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    cursor = make_cursor(client, how)
    client.call(cursor.execute, sql)
    rows = client.call(cursor.fetchall)
    client.call(cursor.close)
    return rows


def read_chunked(client: Any, how: str, sql: str, columns: list[str]) -> Any:
    with client.wrapper.chunked_cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def read_by_orm(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    products = Product.objects.filter(name="anvil").values_list(*columns)
    return list(products.iterator(10) if how == "iterator" else products)


def read_binary(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    cursor = make_cursor(client, "server")
    client.call(cursor.execute, sql, binary=True)
    return client.call(cursor.fetchall)


def read_record(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    """A record's fields are loaded when the row is fetched."""
    names = ", ".join(columns)
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute,
        f"select row({names}) from product where name = 'anvil'",
        binary=True,
    )
    [[record]] = client.call(cursor.fetchall)
    return [record]


def read_named(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    connection = client.connection
    kind: Any = psycopg.AsyncServerCursor if client.is_async else psycopg.ServerCursor
    cursor = kind(
        connection, "model", row_factory=tuple_row, withhold=not client.in_transaction
    )
    with client.using(cursor):
        client.call(cursor.execute, sql)
        return client.call(cursor.fetchall)


def read_stream(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    return client.collect(make_cursor(client, "server").stream(sql))


def read_in_pipeline(client: Client, how: str, sql: str, columns: list[str]) -> Any:
    with client.using(client.connection.pipeline()) as pipeline:
        cursor = make_cursor(client, "server")
        client.call(cursor.execute, sql)
        client.call(pipeline.sync)
        return client.call(cursor.fetchall)


READERS: dict[str, Callable[[Any, str, str, list[str]], Any]] = {
    "chunked": read_chunked,
    "orm": read_by_orm,
    "iterator": read_by_orm,
    "binary": read_binary,
    "named": read_named,
    "record": read_record,
    "pipeline": read_in_pipeline,
    "stream": read_stream,
}


# Ways to send; each returns what arrived, as text, one value for each type.


SEND = "select v::text, pg_typeof(v)::text from (select %s as v) as t"
SEND_RAW = SEND.replace("%s", "$1")


def send_by_cursor(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = kept or make_cursor(client, how)
    # One object each: psycopg keeps what it made for the one before.
    client.call(cursor.execute, SEND_RAW if how == "raw" else SEND, [VALUES[kind]])
    [[text, name]] = client.call(cursor.fetchall)
    return [text if name == kind else f"{name}: {text}"]


HOW = "select attrs::text, parts::text from product where name = 'sent'"


def arrived(client: Client, how: str) -> Any:
    """What the server holds of what was sent; it is deleted again."""
    cursor = make_cursor(client, how)
    client.call(cursor.execute, HOW)
    rows = client.call(cursor.fetchall)
    client.call(cursor.execute, "delete from product where name = 'sent'")
    return rows


def send_insert(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute,
        "insert into product (name, attrs, parts) values ('sent', %s, %s)",
        [VALUES["hstore"], VALUES["hstore[]"]],
    )
    [row] = arrived(client, "server")
    return list(row)


def send_by_orm(client: Client, how: str, kind: str, kept: Any) -> Any:
    Product.objects.create(
        name="sent", attrs=VALUES["hstore"], parts=VALUES["hstore[]"]
    )
    [row] = arrived(client, "cursor")
    return list(row)


def send_many(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    client.call(
        cursor.executemany,
        "insert into product (name, attrs) values ('sent', %s)",
        [[VALUES["hstore"]]] * 3,
    )
    rows = arrived(client, "server")
    assert len(rows) == 3 and len(set(rows)) == 1, rows
    return [rows[0][0]]


def send_and_read(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute,
        "select v, v::text from (select hstore(array['a', '1', 'b c', NULL]) as v)"
        " as t where v @> %s",
        [VALUES["hstore"]],
    )
    [[value, text]] = client.call(cursor.fetchall)
    assert value == VALUES["hstore"], f"wrong: {value!r}"
    return [text]


SENDERS: dict[str, Callable[[Any, str, str, Any], Any]] = {
    "orm": send_by_orm,
    "insert": send_insert,
    "executemany": send_many,
    "both": send_and_read,
}


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Do *work* in a thread that ends with it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = outcome
    if error is not None:
        raise error
    return value


def fork(work: Callable[[], Any]) -> Any:
    """Do *work* in a fork of this process; return what it returns, by way of JSON."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        # Threads do run; the child uses none of what they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            os.write(theirs, json.dumps(work(), default=repr).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


_left: list[Any] = []


def in_the_child(settings: dict[str, Any], sql: str) -> dict[str, Any]:
    """Query with a connection of one's own; leave alone what the parent has open."""
    from django.db.backends.postgresql.base import DatabaseWrapper

    pools: Any = vars(DatabaseWrapper)["_connection_pools"]
    _left.append(dict(pools))
    pools.clear()
    for wrapper in connections.all(initialized_only=True):
        _left.append(wrapper.connection)
        wrapper.connection = None
    wrapper = connections.create_connection("default")
    wrapper.settings_dict = settings
    row, error = None, None
    with wrapper.cursor() as cursor:
        identity = identity_of(wrapper.connection)
        try:
            cursor.execute(sql)
            row = cursor.fetchone()
        except ERRORS as caught:
            error = repr(caught)
    return {"identity": identity, "row": row, "error": error}
