"""A deployment: servers, connections of every kind, and what is known of each."""

from __future__ import annotations

import collections
from contextlib import ExitStack
from typing import Any

import django.db
import psycopg
from django.test.utils import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
)
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.range import RangeInfo, register_range

from django_pg_hot_async import register_type
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.installed import GROUP
from tests.scenarios import close_all

from . import backend, geometry
from .clients import OWN, Async, AsyncPool, Client, Django, Loop, Own, OwnPool
from .gate import Gate
from .locks import Locks
from .promise import (
    LEVELS,
    STRAIGHT,
    Identity,
    Link,
    Promise,
)
from .schema import MAPPING, Hue, Mood, Tone
from .world import Door, Place, World

ERRORS = (psycopg.Error, django.db.Error)

CLIENTS: tuple[str, ...] = ("first", "second", "own", "pool", "task", "tasks")
if backend.is_installed:
    CLIENTS = (*CLIENTS, "backend")
DOORS = ("front", "back")
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


class Deployment(RuleBasedStateMachine):
    """Clients of every kind, and for each connection what the promise says of it."""

    cast: Cast
    """Set by whoever runs the search."""
    levels: tuple[str, ...] = LEVELS
    """The levels of trust to deploy with."""
    poolers: tuple[bool, ...] = (False, True)
    """Whether a pooler may lead to the servers."""
    starts: tuple[bool, ...] = (False, True)
    """Whether the project's types may be registered from the start."""

    # Life

    @initialize(
        level=st.sampled_from(LEVELS),
        pooler=st.booleans(),
        pooled=st.booleans(),
        by_name=st.booleans(),
        apart=st.booleans(),
        has_off=st.booleans(),
        threshold=st.sampled_from((None, None, 0, 2)),
        registers=st.booleans(),
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
        registers: bool,
    ) -> None:
        """*by_name*: client-side binding; *apart*: the threads have a door each;
        *has_off*: an alias is switched off; *threshold*: psycopg prepares statements
        of a project's own connections, where no pooler is in between; *registers*: the
        project's types are registered from the start."""
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
        if self.starts[registers % len(self.starts)]:
            self.declare()
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

    def declare(self) -> None:
        """The project registers a type of its own, with connections open."""
        register_type("mood", EnumInfo, register_enum, enum=Mood, mapping=MAPPING)
        register_type("shift", RangeInfo, register_range)
        # Of two that a value may be, it is the one that was declared last.
        register_type("one.spin", RangeInfo, register_range)
        register_type("span", RangeInfo, register_range)
        geometry.declare()
        register_type("hue", EnumInfo, register_enum, enum=Hue)
        register_type("one.tone", EnumInfo, register_enum, enum=Tone)
        self.promise.register("mood", "shift")
        counts["types registered"] += 1

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


def identity_of(connection: Any) -> Identity:
    pgconn = connection.pgconn
    host = (pgconn.hostaddr or pgconn.host).decode()
    return pgconn.server_version, host, pgconn.port.decode(), pgconn.db.decode()
