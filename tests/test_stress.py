"""Many threads, many tasks, switches in the middle of it all: no row wrong."""

from __future__ import annotations

import asyncio
import collections
import os
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, transaction
from psycopg_pool import PoolTimeout

from django_pg_hot_async.testing import PgBouncer

from . import scenarios
from .scenarios import KINDS, AsyncOrm, connection, connections, database, lead, trust

THREADS = 32
TASKS = 500
SWITCHES = 10

# What a client gets when the server ends its connection; nothing else may occur.
CUT = (OperationalError, InterfaceError, PoolTimeout)


class Traffic:
    """Requests by threads and by tasks until told to stop, and what came of them.

    *atomic*: each request is one transaction.
    """

    def __init__(self, *, atomic: bool = False, tasks: int = TASKS) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[BaseException] = []
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._tasks = tasks
        self._work = [scenarios.read, scenarios.write]
        self._awork = [scenarios.aread, scenarios.awrite]
        if atomic:
            self._work = [transaction.atomic(work) for work in self._work]
            self._awork = [sync_to_async(work) for work in self._work]

    def count(self, error: BaseException | None) -> None:
        with self._lock:
            if error is None:
                self.counts["right"] += 1
            elif isinstance(error, CUT):
                self.counts["cut"] += 1
            else:
                self.counts["wrong"] += 1
                self.wrong.append(error)

    def thread(self, number: int) -> None:
        work = self._work[number % 2]
        while not self.stop.is_set():
            try:
                KINDS["C3"].request(work)
            except Exception as error:
                connection.close()
                self.count(error)
            else:
                self.count(None)
        connection.close()

    async def task(self, number: int, turn: asyncio.Semaphore) -> None:
        work = self._awork[number % 2]
        while not self.stop.is_set():
            try:
                # One thread a request is running; not all 500 at the same time.
                async with turn:
                    await AsyncOrm().arequest(work)
            except Exception as error:
                self.count(error)
            else:
                self.count(None)

    async def tasks(self) -> None:
        turn = asyncio.Semaphore(24)
        await asyncio.gather(
            *(self.task(number, turn) for number in range(self._tasks))
        )

    def during(self, switch, pause: float = 0.6) -> None:
        threads = [
            threading.Thread(target=self.thread, args=(number,))
            for number in range(THREADS)
        ]
        threads.append(threading.Thread(target=lambda: asyncio.run(self.tasks())))
        for thread in threads:
            thread.start()
        try:
            for number in range(SWITCHES):
                before = self.counts["right"]
                deadline = time.monotonic() + 60
                # Each switch is made under load that gets through.
                while self.counts["right"] < before + 100:
                    assert time.monotonic() < deadline, self.counts
                    time.sleep(0.01)
                switch(number)
        finally:
            time.sleep(pause)
            self.stop.set()
            for thread in threads:
                thread.join()
        assert self.counts["wrong"] == 0, collections.Counter(
            f"{type(error).__name__}: {error}"[:120] for error in self.wrong
        )


def report(traffic: Traffic, record_property) -> None:
    for name, number in traffic.counts.items():
        record_property(name, number)
    print(f"{SWITCHES} switches: {dict(traffic.counts)}")


def test_switches_by_service_file(blue, green, service, record_property):
    """Pooled; connections to the server that was left are cut."""
    servers = [green, blue]
    service.point("shop", blue, "shop")
    target = {**service.database("shop"), "CONN_HEALTH_CHECKS": True}
    target["OPTIONS"]["pool"] = {"min_size": 4, "max_size": 24, "timeout": 20}
    target["OPTIONS"]["server_side_binding"] = True
    lead("default", target)

    def switch(number: int) -> None:
        service.point("shop", servers[number % 2], "shop")
        servers[(number + 1) % 2].terminate("shop")

    traffic = Traffic()
    traffic.during(switch)
    report(traffic, record_property)


@pytest.mark.pgbouncer
@pytest.mark.parametrize(
    ("level", "kind"), [("checkout", "C2"), ("checkout", "C3"), ("result", "C3")]
)
def test_switches_by_pgbouncer(blue, green, level, kind, record_property):
    """Open connections are moved alive; nothing is cut either.

    Each request is one transaction, so that none is split between two servers.
    """
    pool = {"pool": {"min_size": 4, "max_size": 24, "timeout": 20}}
    options = {"server_side_binding": True, **(pool if kind == "C3" else {})}
    with PgBouncer(blue, "shop", config={"max_client_conn": 500}) as bouncer:
        lead("default", database(bouncer.database(), KINDS[kind], **options))
        traffic = Traffic(atomic=True, tasks=TASKS if kind == "C3" else 0)
        with trust(level):
            traffic.during(lambda number: bouncer.switch([green, blue][number % 2]))
        connection.close()
        connection.close_pool()
    report(traffic, record_property)
    assert traffic.counts["cut"] == 0


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
