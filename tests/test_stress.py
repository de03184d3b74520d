"""Many threads, many tasks, switches in the middle of it all: no row wrong."""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from coverage import Coverage
from django.conf import settings as django_settings
from django.test.utils import override_settings

from django_pg_hot_async._core import cursors
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, scatter_oids

from .conftest import GREEN
from .load import (
    ASYNC_ENGINE,
    DJANGO_POOL,
    OWN_POOL,
    PATIENCE,
    Door,
    Load,
)
from .scenarios import (
    CITEXT,
    HSTORE,
    KINDS,
    MOOD,
    ORDERS,
    TABLE,
    close_all,
    connections,
    create_at,
    database,
    find_oid,
    lead,
    own_database,
)
from .test_switches_elsewhere import conninfo_of

try:
    from django_async_backend.db import async_connections
except ImportError:
    async_connections = None

THREADS = 64
TASKS = 1000
EVERY = 3.0  # seconds: 20 switches a minute
MOST = 2 * DJANGO_POOL["max_size"] + 2 * OWN_POOL["max_size"]
"""Connections by a door: Django's, django-async-backend's, one pool of each class."""


@dataclass
class Way:
    """What is different from door to door."""

    through: str
    """"service": names another server, the one before cutting what is open; "moved":
    a PgBouncer that moves what is open; "two": one that leads to two servers by
    turns, always."""
    pooled: bool = True
    by_name: bool = False
    atomic: bool = False


WAYS = {
    "cut": Way("service"),
    "moved": Way("moved"),
    "moved_by_name": Way("moved", by_name=True),
    "moved_kept": Way("moved", pooled=False),
    "moved_atomic": Way("moved", atomic=True),
    "two": Way("two"),
    "two_by_name": Way("two", by_name=True),
    "two_atomic": Way("two", atomic=True),
}
RIGHT = """
select count(*), count(*) filter (where attrs = 'weight=>"9 kg", gone=>NULL'
    and tags::text = '{Heavy,"two words"}'
    and parts = array['bolt=>1'::hstore, 'nut=>2'])
from product where name like %s
"""


@pytest.fixture(scope="module")
def beside(blue):
    """Green's version and OIDs, on blue's port: PgBouncer has one for all of a list."""
    with PostgreSQL(
        GREEN, host="127.0.0.2", port=blue.port, config={"max_connections": 300}
    ) as server:
        yield server


def create_colliding_types(blue, *others):
    """What is mood on blue is hstore on the others: a str for a dict, and no error."""
    now = {server: scatter_oids(server, "load", 1) for server in (blue, *others)}
    scatter_oids(blue, "load", max(now.values()) - now[blue] + 1000)
    for statement in (HSTORE, CITEXT, MOOD):
        blue.execute(statement, dbname="load")
    for server in others:
        create_at(server, HSTORE, "hstore", find_oid(blue, "mood", "load"), "load")
        for statement in (CITEXT, MOOD):
            server.execute(statement, dbname="load")
    for server in (blue, *others):
        server.execute(TABLE, dbname="load")


@pytest.fixture
def doors(blue, green, beside, service, monkeypatch):
    """Aliases with nothing configured but where they lead."""
    with ExitStack() as stack:
        servers = (blue, green, beside)
        for server, order in zip(servers, ("blue", "green", "green"), strict=True):
            stack.enter_context(own_database(server, "load_cut", ORDERS[order]))
            stack.enter_context(own_database(server, "load", []))
        create_colliding_types(*servers)
        for server in servers:
            for name in ("load_cut", "load"):
                server.execute("create index on product (name)", dbname=name)

        def open_door(alias, way):
            if way.through == "service":
                target, switch, count = service.database("load"), point, count_cut
            else:
                servers = [blue, beside] if way.through == "two" else blue
                # So few that all are in use at once: PAUSE makes clients fail where a
                # connection is just being made (1.18). By turns, not one as long as
                # it serves.
                config = {"default_pool_size": 6, "server_round_robin": 1}
                bouncer = stack.enter_context(PgBouncer(servers, "load", config=config))
                target = bouncer.database()
                count = functools.partial(clients, bouncer)
                switch = functools.partial(bouncer.switch, timeout=PATIENCE)
                if way.through == "two":
                    switch = stay
            options: dict[str, Any] = {"server_side_binding": not way.by_name}
            if way.pooled:
                options["pool"] = DJANGO_POOL
            settings = database(target, KINDS["C3" if way.pooled else "C2"], **options)
            monkeypatch.setitem(connections.settings, alias, {})
            lead(alias, settings)
            if async_connections:
                settings = {**connections.settings[alias], "ENGINE": ASYNC_ENGINE}
                monkeypatch.setitem(async_connections.settings, alias, settings)
            return Door(
                alias,
                conninfo_of(target),
                switch,
                count,
                is_cut=way.through == "service",
                atomic=way.atomic,
                has_pools=way.pooled,
                by_name=way.by_name,
            )

        def stay(server):
            pass

        def point(server):
            service.point("load", server, "load_cut")
            # All at once; terminate() waits for one after the other.
            (blue if server is green else green).execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = 'load_cut'"
            )

        def count_cut():
            asked = "select from pg_stat_activity where datname = 'load_cut'"
            return sum(len(server.execute(asked)) for server in (blue, green))

        service.point("load", blue, "load_cut")
        yield [open_door(alias, way) for alias, way in WAYS.items()]


def clients(bouncer):
    """How many connections a PgBouncer has, but for that which asks."""
    rows = bouncer.command("SHOW CLIENTS")
    return sum(row["database"] == bouncer.alias for row in rows)


@contextmanager
def nothing_left(doors):
    """No more connections, threads and files at the end than at the beginning."""

    def count():
        gc.collect()
        return {
            **{door.alias: door.connections() for door in doors},
            "threads": threading.active_count(),
            "files": len(list(Path("/proc/self/fd").iterdir())),
        }

    before = count()
    yield
    deadline = time.monotonic() + 30
    while more := {name: n for name, n in count().items() if n > before[name]}:
        assert time.monotonic() < deadline, (more, before)
        time.sleep(0.05)


def resident():
    """Megabytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def at_rest():
    """Close what is open; return how much there is in memory then."""
    close_all()
    gc.collect()
    return sys.getallocatedblocks(), resident()


@pytest.mark.pgbouncer
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(60, id="short", marks=pytest.mark.slow),
        pytest.param(600, id="long", marks=pytest.mark.long),
    ],
)
def test_switches_under_load(
    doors, blue, green, beside, seconds, caplog, record_property
):
    """Nothing is wrong, nothing fails where nothing is cut, and nothing is left."""
    assert not hasattr(django_settings, "PG_HOT_ASYNC")
    # A line for each connection that is cut; pytest keeps them all.
    caplog.set_level(logging.CRITICAL, "psycopg.pool")
    load = Load(doors, THREADS, TASKS)
    with nothing_left(doors):
        load.run(2 * EVERY, EVERY, [green, blue])  # what is kept for good is there now
        blocks, memory = at_rest()
        for door in doors:
            door.reset()
        switches = load.run(seconds, EVERY, [green, blue])
        blocks, memory = (
            after - before
            for after, before in zip(at_rest(), (blocks, memory), strict=True)
        )
    requests = sum(door.counts["right"] for door in doors)
    for door in doors:
        print(
            f"{door.alias}: {door.counts['right']} requests, {door.rows} rows compared,"
            f" {len(door.failures)} wrong, {door.counts['cut']} cut, longest pause"
            f" {door.pause:.2f} s"
        )
        record_property(door.alias, dict(door.counts))
        assert Counter(map(repr, door.failures)) == {}
        # Those that were in flight, and no other, when their connection was cut.
        assert door.counts["cut"] <= (switches * MOST if door.is_cut else 0), door
        assert door.counts.keys() >= expected_kinds(door)
        check_written(door, [blue, green, beside])
    print(
        f"{switches} switches of each, {requests} requests in all; memory"
        f" {memory:+.1f} MB, {blocks:+} blocks"
    )
    # coverage keeps something of each thread there ever was, and tasks have many.
    allowance = requests + 2000 if Coverage.current() else requests / 50 + 700
    assert blocks < allowance


def expected_kinds(door):
    """The kinds of request that a door has seen."""
    kinds = {"read", "write", "own pool"}
    if door.has_pools and not door.atomic:
        kinds |= {"aread", "async backend"} if async_connections else {"aread"}
    return kinds


def check_written(door, servers):
    """Each row was written once, on one of the servers, as what was sent."""
    dbname = "load_cut" if door.is_cut else "load"
    found = [
        server.execute(RIGHT, [f"{door.alias} %"], dbname=dbname)[0]
        for server in servers
    ]
    rows, right = (sum(numbers) for numbers in zip(*found, strict=True))
    assert right == rows
    # What was cut may have been committed, with no answer any more.
    assert door.written <= rows <= door.written + door.ever["cut"]


@pytest.mark.pgbouncer
@pytest.mark.parametrize("through", ["moved", "two"])
def test_the_load_fails_without_protection(doors, blue, green, through, monkeypatch):
    """No confirmation travels with a statement: the test above would tell.

    What is known of a connection is trusted for as long as it is open.
    """
    monkeypatch.setattr(cursors, "how_to_carry", lambda *args: None)
    doors = [door for door in doors if WAYS[door.alias].through == through]
    load = Load(doors, 16, 100, may_fail=True)
    with override_settings(PG_HOT_ASYNC={"TRUST": "connection"}):
        load.run(6, 1.5, [green, blue])
    kinds = Counter(type(error).__name__ for door in doors for error in door.failures)
    assert kinds["WrongRow"] > 0, kinds
    # What was sent with an OID of the other server.
    texts = Counter(str(error) for door in doors for error in door.failures)
    assert any(text.startswith("cache lookup failed for type") for text in texts), texts


@pytest.mark.pgbouncer
def test_a_door_to_two_servers_leads_to_them_by_turns(blue, green, beside):
    """Else a load through it would prove nothing."""
    with pytest.raises(ValueError, match="several on one port"):
        PgBouncer([blue, green], "postgres")
    with (
        PgBouncer(
            [blue, beside], "postgres", config={"server_round_robin": 1}
        ) as bouncer,
        ExitStack() as stack,
    ):
        one, other = (
            stack.enter_context(psycopg.connect(bouncer.conninfo(), autocommit=True))
            for _ in range(2)
        )
        with one.transaction(), other.transaction():
            found = {version_of(one), version_of(other)}
        assert found == {blue.version, beside.version}
        assert [version_of(one) for _ in range(4)] in (
            [blue.version, beside.version] * 2,
            [beside.version, blue.version] * 2,
        )
        bouncer.switch([beside])
        assert bouncer.server is beside
        assert {version_of(one) for _ in range(4)} == {beside.version}


def version_of(connection):
    [number] = connection.execute("show server_version_num", prepare=False).fetchone()
    return int(number)


def test_a_forked_child_starts_with_what_is_known(green, tmp_path):
    """A lock held at the moment of the fork does not stop the child."""
    lead("default", database(green.database("shop"), KINDS["C1"]))
    KINDS["C1"].read()
    with runtime.lock:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                connections["default"].connection = None
                KINDS["C1"].read()
                KINDS["C1"].write()
                status = 0
            finally:
                os._exit(status)
    deadline = time.monotonic() + 20
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0
    KINDS["C1"].read()
