"""A deployment: its connections, what the promise says of them, and the comparison."""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import django.db
import psycopg
from django.test.utils import override_settings
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
)
from psycopg import pq

from django_pg_hot_async._core.connection import RAN_AGAIN
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.declare import GROUP
from tests.scenarios import close_all

from . import backend
from .clients import OWN, Async, AsyncPool, Client, Django, Loop, Own, OwnPool
from .cursors import make_cursor
from .gate import Gate
from .locks import Locks
from .promise import (
    INSUFFICIENT_PRIVILEGE,
    LEVELS,
    MOVED,
    STRAIGHT,
    Alias,
    Expected,
    Identity,
    Link,
    Promise,
    is_evidence,
)
from .world import Door, Layout, Place, World, is_read

ERRORS = (psycopg.Error, django.db.Error)
IDLE = pq.TransactionStatus.IDLE
INERROR = pq.TransactionStatus.INERROR

CLIENTS: tuple[str, ...] = ("first", "second", "own", "pool", "task", "tasks")
if backend.is_installed:
    CLIENTS = (*CLIENTS, "backend")
DOORS = ("front", "back")
CHECK = "SELECT 1"
"""What Django sends to see whether a connection works."""
OFF = "off"
"""The alias that the settings leave to Django."""

MOST = {"fork": 1, "recreate": 2, "rebuild": 1}
"""How often in a deployment; they take longer than all else."""

clients = st.sampled_from(CLIENTS)
doors = st.sampled_from((0, 1))
places = st.integers(0, 5)
"""Two databases on each of three servers."""
nearby = st.integers(0, 17)
"""A place as well; those past the last stand for where a door leads."""

counts: collections.Counter[str] = collections.Counter()
"""What was done, for the report."""


class Cast:
    """What one search after another uses: servers, poolers, threads."""

    def __init__(
        self,
        world: World,
        doors: dict[bool, list[Door]],
        threads: list[Django],
        locks: Locks,
        gate: Gate,
    ) -> None:
        self.world = world
        self.doors = doors
        """Services, and (True) poolers."""
        self.threads = threads
        self.locks = locks
        self.gate = gate
        """A way to the first of the poolers."""
        self.loop = Loop()


def cause(error: BaseException) -> psycopg.Error:
    """psycopg's own of an error that Django wraps."""
    found = error if isinstance(error, psycopg.Error) else error.__cause__
    assert isinstance(found, psycopg.Error), repr(error)
    return found


class Deployment(RuleBasedStateMachine):
    """Clients of every kind, and for each connection what the promise says of it."""

    cast: Cast
    """Set by whoever runs the search."""
    levels: tuple[str, ...] = LEVELS
    """The levels of trust to deploy with."""
    poolers: tuple[bool, ...] = (False, True)
    """Whether a pooler may lead to the servers."""

    # Life

    @initialize(
        level=st.sampled_from(LEVELS),
        pooler=st.booleans(),
        pooled=st.booleans(),
        by_name=st.booleans(),
        apart=st.booleans(),
        has_off=st.booleans(),
        threshold=st.sampled_from((None, None, 0, 2)),
    )
    def deploy(
        self,
        level: str,
        pooler: bool,
        pooled: bool,
        by_name: bool,
        apart: bool,
        has_off: bool,
        threshold: int | None,
    ) -> None:
        """*by_name*: client-side binding; *apart*: the threads have a door each;
        *has_off*: an alias is switched off; *threshold*: psycopg prepares statements
        of a project's own connections, where no pooler is in between."""
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
        runtime.aliases = {}
        level = self.levels[LEVELS.index(level) % len(self.levels)]
        pooler = self.poolers[pooler % len(self.poolers)] and level not in STRAIGHT
        self.promise = Promise(level, pooler=pooler)
        self.threshold = None if pooler else threshold
        self.by_name = by_name
        self.links: dict[int, tuple[Any, Link]] = {}
        self.streamed: set[int] = set()
        self.shadows: dict[Place, Any] = {}
        """Sessions with temporary types that are called as tracked ones are."""
        self.left = collections.Counter(MOST)
        self.has_off = has_off
        aliases = {OFF: None} if has_off else {}
        self.settings = override_settings(
            PG_HOT_ASYNC={"TRUST": level, "ALIASES": aliases}
        )
        self.settings.enable()
        self.doors = cast.doors[pooler]
        for door in self.doors:
            door.lead(self.world.places[0])
        self.connect(pooled=pooled, apart=apart)
        self.world.statements.new()

    def connect(self, *, pooled: bool, apart: bool) -> None:
        """Have clients of every kind, none of which is connected yet."""
        threads, loop = self.cast.threads, self.cast.loop
        front, back = self.doors
        clients: list[Client] = [
            *threads,
            Own("own", front, "default"),
            OwnPool("pool", back, OWN),
            Async("task", front, OWN, loop),
            AsyncPool("tasks", back, OWN, loop),
        ]
        if backend.is_installed:
            awaited = backend.Backend("backend", front, loop)
            awaited.start(by_name=self.by_name)
            clients.append(awaited)
        self.clients = dict(zip(CLIENTS, clients, strict=True))
        for client in clients:
            client.threshold = self.threshold
        options: dict[str, Any] = {"server_side_binding": not self.by_name}
        settings: dict[str, Any] = {"CONN_HEALTH_CHECKS": True}
        if pooled:
            options["pool"] = {"min_size": 0, "max_size": 2, "timeout": 10}
        else:
            settings["CONN_MAX_AGE"] = None
        for number, thread in enumerate(threads):
            thread.peers = threads
            # Django has one pool for an alias.
            door = self.doors[number if apart and not pooled else 0]
            database = door.database()
            database.update(settings)
            database["OPTIONS"] = {**database.get("OPTIONS", {}), **options}
            thread.start(door, database)

    def teardown(self) -> None:
        if not hasattr(self, "clients"):
            return
        try:
            for client in self.clients.values():
                client.quit()
        finally:
            for session in self.shadows.values():
                session.close()
            self.settings.disable()
            runtime.track(GROUP, ())
            tracked_connections.renew()
            close_all()

    # What is known

    def link(self, connection: Any, alias: str) -> Link:
        found = self.links.get(id(connection))
        if found is None:
            found = (connection, Link(alias, identity_of(connection)))
            self.links[id(connection)] = found
        return found[1]

    def link_of(self, client: Client) -> Link:
        return self.link(client.connection, client.alias)

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

    def statements(self, client: Client | None) -> list[str]:
        """The statements since the last look, of *client* as a rule."""
        statements = self.world.statements.new()
        if client is not None and any(sql.startswith(CHECK) for sql in statements):
            client.checks_next = False
        return statements

    def reads(self, most: int, client: Client | None = None) -> None:
        """No more than *most* statements were the app's since the last look."""
        statements = self.statements(client)
        reads = sum(map(is_read, statements))
        assert reads <= most, f"{reads} reads, not {most} at most: {statements}"
        counts["reads"] += reads

    def attempt(
        self,
        client: Client,
        work: Callable[[], Any],
        use: Callable[[Promise, Link], Expected],
        *,
        do: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> Any:
        """Do *work*; return what it returns, and which of its values have to be right.

        *use* tells what is expected of it.
        """
        link = self.link_of(client)
        self.promise.begin(link, is_idle=self.is_idle(client))
        before = copy.deepcopy((self.promise.alias(client.alias), link))
        expected = self.expect(client, use)
        status = client.connection.pgconn.transaction_status
        error: BaseException | None = None
        value: Any = None
        try:
            value = (do or client.do)(work)
        except ERRORS as caught:
            error = caught
        found = sum(map(is_read, statements := self.statements(client)))
        counts["reads"] += found
        if any("json_build_object" in statement for statement in statements):
            # What it has found may be news to others, which ask once more then.
            self.unsettle(client.alias, besides=link)
        if any("count(*) OVER" in statement for statement in statements):
            self.note_read(link)
        if not found and expected.most:
            self.learn_nothing(link, *before)
        assert found <= expected.most, (
            f"{client}: {found} reads, {error!r}, where {expected.most} were expected"
            f" at most: {statements}"
        )
        if error is None:
            after = client.connection.pgconn.transaction_status
            if client.in_transaction:
                # Django begins one with its first statement.
                status = pq.TransactionStatus.INTRANS
            assert after == status, f"{client}: left {after!r}, found {status!r}"
            return value, expected.right
        note(f"{client}: {error!r}")
        self.excuse(client, expected, error, before)
        return None, []

    def note_read(self, link: Link) -> None:
        """All types were read; what others are is not known by that."""
        if link.frozen is None:
            self.promise.alias(link.alias).settled.add(link.identity)
        for _, other in self.links.values():
            if other.alias == link.alias:
                other.met.clear()

    def learn_nothing(self, link: Link, alias: Alias, before: Link) -> None:
        """Nothing was asked: what is known is what was known *before*."""
        known = self.promise.alias(link.alias)
        known.known, known.stamp, known.bare = alias.known, alias.stamp, alias.bare
        for name in ("stamp", "held", "last", "met", "is_mixed", "is_provisional"):
            setattr(link, name, getattr(before, name))

    def excuse(
        self,
        client: Client,
        expected: Expected,
        error: BaseException,
        before: tuple[Alias, Link],
    ) -> None:
        """Fail for an *error* that the promise does not cover.

        *before*: what was known of the alias and of the connection.
        """
        link = self.link_of(client)
        found = cause(error)
        assert RAN_AGAIN not in str(found), f"{client}: {error!r}"
        if found.sqlstate in expected.refusals:
            # The error is the database's own, or in its words; nothing was learnt.
            counts[f"reads that failed with {found.sqlstate}"] += 1
            self.learn_nothing(link, *before)
        elif all(expected.right) and not expected.missing:
            raise AssertionError(f"{client}: {error!r}") from error
        counts["excused errors"] += 1
        if client.connection.pgconn.transaction_status == INERROR:
            self.end(client, commit=False)
        link.slack = MOVED
        if is_evidence(found):
            self.promise.doubt(link, (found.sqlstate, str(found)))

    def expect(
        self, client: Client, use: Callable[[Promise, Link], Expected]
    ) -> Expected:
        """What *use* may lead to."""
        link = self.link_of(client)
        self.promise.begin(link, is_idle=self.is_idle(client))
        link.in_transaction = client.in_transaction
        expected = use(self.promise, link)
        expected.most += link.slack
        if link.frozen is not None:
            # What others find meanwhile does not count for it.
            expected.most += MOVED
        if link.slack and not link.has_rights:
            expected.refusals |= {INSUFFICIENT_PRIVILEGE}
        link.slack, link.next_slack = link.next_slack, 0
        if client.checks_next:
            # Whether the connection still works, before it is first used.
            expected.most += MOVED
        return expected

    def make(self, client: Client, how: str) -> Any:
        """Make a cursor that is kept."""
        cursor = client.do(lambda: make_cursor(client, how))
        self.reads(MOVED if client.checks_next else 0, client)
        return cursor

    def unsettle(
        self, alias: str | None = None, *, besides: Link | None = None
    ) -> None:
        """Something has happened: each connection may ask once more."""
        for _, link in self.links.values():
            if alias in (None, link.alias) and link is not besides:
                link.slack = MOVED
        if besides is None:
            for one in self.promise.aliases.values():
                one.settled.clear()

    def is_idle(self, client: Client) -> bool:
        """Whether the next statement begins a transaction, or is one."""
        return bool(client.connection.pgconn.transaction_status == IDLE)

    def is_own(self, client: Client) -> bool:
        """Whether the next statement is a transaction of its own."""
        return not client.in_transaction

    def may_ask(self, client: Client) -> bool:
        """Whether something may be asked with, or before, a statement without types.

        What is prepared, or may be, has a type in it perhaps.
        """
        return self.is_own(client) or self.threshold is not None

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

    def use(self, name: str) -> Client:
        """The client called *name*, with an open connection."""
        client = self.clients[name]
        if not client.is_open:
            self.open(client)
        return client

    def open(self, client: Client) -> None:
        known = set(self.links)
        client.do(client.open)
        client.settle()
        self.link_of(client)
        # Nothing is sent, neither at connect nor at checkout.
        self.reads(0)
        counts["connections"] += len(self.links) - len(known)
        counts["checkouts"] += 1

    def is_stale(self, client: Client) -> bool:
        """Whether *client* sees types as they were, and of new tables no row."""
        frozen = self.link_of(client).frozen
        return frozen is not None and frozen != self.place(client).layout

    def visible(self, client: Client) -> Layout:
        """What *client* sees of the types there are; all, where it sees none."""
        layout = self.place(client).layout
        frozen = self.link_of(client).frozen or layout
        seen = frozen.without_dropped(layout)
        return seen if seen.types else layout

    def touch(self, client: Client) -> None:
        """*client* is about to use the table: whoever changes that would wait."""
        client.is_light = False

    def end_locks(self, place: Place) -> None:
        """End the transactions at *place* that a change of types would wait for."""
        for client in self.here(place):
            if not client.is_light:
                self.end(client)

    def begin(self, client: Client, *, most: int = 0) -> None:
        """Begin a transaction: where trust belongs to one, it ends.

        *most*: what may have been asked since the last look.
        """
        client.do(client.begin)
        self.reads(most + (MOVED if client.checks_next else 0), client)
        self.promise.begin(self.link_of(client), is_idle=True)

    def end(self, client: Client, *, commit: bool = True) -> None:
        """End the transaction of *client*, if there is one."""
        if client.in_transaction:
            client.is_light = False
            link = self.link_of(client)
            if link.frozen is not None:
                # What it saw may not be what there is.
                link.slack = MOVED
            link.frozen, link.has_rights = None, True
            error = None if commit else RuntimeError("roll back")
            with suppress(RuntimeError):
                client.do(lambda: client.end(error))


def identity_of(connection: Any) -> Identity:
    pgconn = connection.pgconn
    host = (pgconn.hostaddr or pgconn.host).decode()
    return pgconn.server_version, host, pgconn.port.decode(), pgconn.db.decode()
