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
from pathlib import Path

import pytest
from coverage import Coverage
from django.test.utils import override_settings

from django_pg_hot_async.testing import PgBouncer

from .load import DJANGO_POOL, OWN_POOL, PATIENCE, Door, Load
from .scenarios import (
    KINDS,
    ORDERS,
    close_all,
    connections,
    database,
    lead,
    own_database,
)
from .test_switches_elsewhere import conninfo_of

THREADS = 64
TASKS = 1000
EVERY = 3.0  # seconds: 20 switches a minute
POOLED = {"pool": DJANGO_POOL}
MOST = DJANGO_POOL["max_size"] + 2 * OWN_POOL["max_size"]
"""Connections by a door that has pools: Django's, and one of each class."""
# Through PgBouncer, by alias: TRUST, and whether Django has a pool.
MOVED = {
    "moved_pooled": ("checkout", True),
    "moved_kept": ("checkout", False),
    "moved_anywhere": ("result", True),
}


@pytest.fixture
def doors(blue, green, service, monkeypatch):
    """A service file that names another server, the one before cutting what is open;
    and three PgBouncers, which move what is open, and cut nothing.
    """
    with ExitStack() as stack:
        for server, order in ((blue, "blue"), (green, "green")):
            for name in ("load_cut", "load_moved"):
                stack.enter_context(own_database(server, name, ORDERS[order]))

        def door(alias, target, switch, count, *, pooled, atomic):
            monkeypatch.setitem(connections.settings, alias, {})
            options = {"server_side_binding": True, **(POOLED if pooled else {})}
            lead(alias, database(target, KINDS["C3" if pooled else "C2"], **options))
            return Door(alias, conninfo_of(target), switch, count, atomic, pooled)

        def point(server):
            service.point("load", server, "load_cut")
            # All at once; terminate() waits for one after the other.
            (blue if server is green else green).execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = 'load_cut'"
            )

        def count():
            asked = "select from pg_stat_activity where datname = 'load_cut'"
            return sum(len(server.execute(asked)) for server in (blue, green))

        service.point("load", blue, "load_cut")
        target = service.database("load")
        doors = [door("cut", target, point, count, pooled=True, atomic=False)]
        for alias, (_, pooled) in MOVED.items():
            bouncer = stack.enter_context(PgBouncer(blue, "load_moved"))
            switch = functools.partial(bouncer.switch, timeout=PATIENCE)
            count = functools.partial(clients, bouncer)
            target = bouncer.database()
            doors.append(door(alias, target, switch, count, pooled=pooled, atomic=True))
        trust = {alias: {"TRUST": level} for alias, (level, _) in MOVED.items()}
        with override_settings(PG_HOT_ASYNC={"ALIASES": trust}):
            yield doors


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
def test_switches_under_load(doors, blue, green, seconds, caplog, record_property):
    """Nothing is wrong, nothing fails where nothing is cut, and nothing is left."""
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
        assert door.counts["cut"] <= (0 if door.atomic else switches * MOST), door
    print(
        f"{switches} switches of each, {requests} requests in all; memory"
        f" {memory:+.1f} MB, {blocks:+} blocks"
    )
    # coverage keeps something of each thread there ever was, and tasks have many.
    allowance = requests + 2000 if Coverage.current() else requests / 50 + 700
    assert blocks < allowance


def test_a_forked_child_starts_with_what_is_known(green, tmp_path):
    """A lock held at the moment of the fork does not stop the child."""
    from django_pg_hot_async import _memory

    lead("default", database(green.database("shop"), KINDS["C1"]))
    KINDS["C1"].read()
    with _memory._lock:
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
