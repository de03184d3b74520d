"""Many threads and tasks at work, through doors whose servers change under them."""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, transaction
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from django_pg_hot_async import pool
from django_pg_hot_async.testing import PostgreSQL

from .scenarios import KINDS, AsyncOrm, connections, read, write
from .test_switches_elsewhere import ARRIVES, PARAMS, SELECT, check_answers

# What a client gets when the server ends its connection.
CUT = (
    OperationalError,
    InterfaceError,
    PoolTimeout,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
PATIENCE = 120.0
"""Seconds that a pool, or a switch that waits for requests, has."""
DJANGO_POOL = {"min_size": 2, "max_size": 12, "timeout": PATIENCE}
OWN_POOL: dict[str, Any] = {
    "min_size": 1,
    "max_size": 4,
    "timeout": PATIENCE,
    "kwargs": {"autocommit": True, "prepare_threshold": None},
}
RUNNING = 24
"""Requests of tasks that run at one time; the others wait, as a web server has them."""
ROWS = {"read": 2, "write": 1, "own pool": 2}
"""Rows that a request compares."""


@dataclass
class Door:
    """An alias, by which requests go to whatever server it leads to at the time."""

    alias: str
    conninfo: str
    switch: Callable[[PostgreSQL], Any]
    connections: Callable[[], int]
    """How many there are, at the other end."""
    atomic: bool
    """Whether each request is one transaction."""
    has_pools: bool
    """Whether Django's connections come from its pool; with pools of one's own."""
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[BaseException] = field(default_factory=list)
    """Other than of a connection that the server cut; a row that is wrong is one."""
    pause: float = 0.0
    """The longest time, in seconds, in which no request ended well."""
    _last: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        self._last = time.monotonic()

    def reset(self) -> None:
        """Count from here."""
        self.counts.clear()
        self.pause = 0.0

    @contextmanager
    def request(self, kind: str) -> Iterator[None]:
        """Count what becomes of a request; let nothing through."""
        try:
            yield
        except CUT as error:
            with self._lock:
                self.counts["cut"] += 1
                self.counts[f"{type(error).__name__}: {error}"[:100]] += 1
        except Exception as error:
            with self._lock:
                self.failures.append(error)
        else:
            with self._lock:
                now = time.monotonic()
                self.pause = max(self.pause, now - self._last)
                self._last = now
                self.counts["right"] += 1
                self.counts[kind] += 1

    @property
    def rows(self) -> int:
        return sum(self.counts[kind] * rows for kind, rows in ROWS.items())

    # What a request does, sync and async.

    def django(self, number: int) -> None:
        """Read, or write, as a request of Django's does."""
        kind, work = (("read", read), ("write", write))[number % 2]
        with self.request(kind):
            KINDS["C3"].request(functools.partial(self._work, work))

    async def adjango(self, number: int) -> None:
        kind, work = (("read", read), ("write", write))[number % 2]
        with self.request(kind):
            await AsyncOrm().arequest(
                functools.partial(sync_to_async(self._work), work)
            )

    def _work(self, work: Callable[[str], None]) -> None:
        try:
            with transaction.atomic(self.alias) if self.atomic else nullcontext():
                work(self.alias)
        except Exception:
            connections[self.alias].close()
            raise

    def own(self, own: ConnectionPool) -> None:
        """Read a row, and send parameters, over a pool that is the project's own."""
        with self.request("own pool"), own.connection() as connection:
            block: AbstractContextManager[Any] = nullcontext()
            if self.atomic:
                block = connection.transaction()
            with block:
                if self.atomic:
                    # It stays where it is from now on, as the README says.
                    pool.configure(self.alias)(connection)
                row = connection.execute(SELECT).fetchone()
                check_answers(row, connection.execute(ARRIVES, PARAMS).fetchone())

    async def aown(self, own: AsyncConnectionPool) -> None:
        with self.request("own pool"):
            async with own.connection() as connection:
                block: AbstractAsyncContextManager[Any] = nullcontext()
                if self.atomic:
                    block = connection.transaction()
                async with block:
                    if self.atomic:
                        await pool.aconfigure(self.alias)(connection)
                    row = await (await connection.execute(SELECT)).fetchone()
                    cursor = await connection.execute(ARRIVES, PARAMS)
                    check_answers(row, await cursor.fetchone())


class Load:
    """*threads* and *tasks* that make one request after the other, by all doors."""

    def __init__(self, doors: list[Door], threads: int, tasks: int) -> None:
        self.doors = doors
        self._threads = threads
        self._tasks = tasks
        self._stop = threading.Event()
        self._gone_wrong: list[BaseException] = []
        """In the clients themselves."""

    def run(self, seconds: float, every: float, servers: list[PostgreSQL]) -> int:
        """Run; lead each door to the next server *every* so many seconds.

        As often as that makes it in *seconds*, however long it takes; return how
        often. It ends with the last of *servers*, all clients gone, and their pools
        closed.
        """
        self._stop.clear()
        with ExitStack() as pools:
            clients = [*self._clients(pools), threading.Thread(target=self._in_loop)]
            for door in self.doors:
                door.begin()
            for client in clients:
                client.start()
            try:
                switches = self._switch(seconds, every, itertools.cycle(servers))
            finally:
                self._stop.set()
                deadline = time.monotonic() + PATIENCE
                for client in clients:
                    client.join(max(0.0, deadline - time.monotonic()))
        assert not any(client.is_alive() for client in clients), "a client hangs"
        assert self._gone_wrong == []
        return switches

    def _switch(
        self, seconds: float, every: float, servers: Iterator[PostgreSQL]
    ) -> int:
        begun, switches = time.monotonic(), 0
        # Back where it began: an even number of them.
        while switches < seconds / every or switches % 2:
            before = [door.counts["right"] for door in self.doors]
            due = begun + every * (switches + 1)
            self._stop.wait(max(0.0, due - time.monotonic()))
            self._have_worked(before)
            server = next(servers)
            with ThreadPoolExecutor() as switching:
                done = [switching.submit(door.switch, server) for door in self.doors]
            for switch in done:
                switch.result()
            switches += 1
        self._have_worked([door.counts["right"] for door in self.doors])
        return switches

    def _have_worked(self, before: list[int]) -> None:
        """Wait until requests have got through each door since *before*."""
        deadline = time.monotonic() + PATIENCE
        for door, count in zip(self.doors, before, strict=True):
            while door.counts["right"] < count + 10:
                assert time.monotonic() < deadline, (door.alias, door.counts)
                assert not (self._gone_wrong or door.failures), (
                    self._gone_wrong,
                    door.failures[:5],
                )
                time.sleep(0.01)

    def _clients(self, pools: ExitStack) -> Iterator[threading.Thread]:
        """Threads by turns: through each door by Django, by Django, by an own pool."""
        owns = {
            door.alias: pools.enter_context(
                ConnectionPool(
                    door.conninfo,
                    configure=pool.configure(door.alias),
                    check=pool.check(door.alias),
                    open=True,
                    **OWN_POOL,
                )
            )
            for door in self.doors
            if door.has_pools
        }
        for number in range(self._threads):
            door = self.doors[number % len(self.doors)]
            turn = number // len(self.doors)
            work = functools.partial(door.django, turn)
            if turn % 3 == 2 and door.has_pools:
                work = functools.partial(door.own, owns[door.alias])
            yield threading.Thread(target=self._repeat, args=(work,))

    def _repeat(self, work: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                work()
        except BaseException as error:
            self._gone_wrong.append(error)
        finally:
            for door in self.doors:
                connections[door.alias].close()

    def _in_loop(self) -> None:
        try:
            asyncio.run(self._atasks())
        except BaseException as error:
            self._gone_wrong.append(error)

    async def _atasks(self) -> None:
        """Tasks by turns: through each door with pools by Django, by an own pool."""
        doors = [door for door in self.doors if door.has_pools]
        turn = asyncio.Semaphore(RUNNING)

        async def repeat(work: Callable[[], Any]) -> None:
            while not self._stop.is_set():
                async with turn:
                    if not self._stop.is_set():
                        await work()

        async with self._async_pools(doors) as owns:
            works: list[Callable[[], Any]] = []
            for number in range(self._tasks):
                door = doors[number % len(doors)]
                works.append(
                    functools.partial(door.aown, owns[door.alias])
                    if number // len(doors) % 2
                    else functools.partial(door.adjango, number // len(doors) // 2)
                )
            await asyncio.gather(*map(repeat, works))

    @asynccontextmanager
    async def _async_pools(
        self, doors: list[Door]
    ) -> AsyncIterator[dict[str, AsyncConnectionPool]]:
        async with AsyncExitStack() as pools:
            yield {
                door.alias: await pools.enter_async_context(
                    AsyncConnectionPool(
                        door.conninfo,
                        configure=pool.aconfigure(door.alias),
                        check=pool.acheck(door.alias),
                        **OWN_POOL,
                    )
                )
                for door in doors
            }
