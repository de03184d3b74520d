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
    suppress,
)
from dataclasses import dataclass, field
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connections, transaction
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from django_pg_hot_async import pool
from django_pg_hot_async._core.connection import RAN_AGAIN
from django_pg_hot_async.testing import PostgreSQL

from .scenarios import ANVIL, KINDS, AsyncOrm, WrongRow, aread, check_row, read
from .shop.models import Product
from .test_switches_elsewhere import ARRIVES, PARAMS, check_answers

try:
    from django_async_backend.db import async_connections, async_new_connection
except ImportError:
    async_connections = None

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
OWN_POOL: dict[str, Any] = {"min_size": 1, "max_size": 4, "timeout": PATIENCE}
OWN: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}
"""How a pool of one's own connects."""
ASYNC_ENGINE = "django_async_backend.db.backends.postgresql"
RUNNING = 24
"""Requests of tasks that run at one time; the others wait, as a web server has them."""
ROWS = {"read": 2, "aread": 2, "own pool": 4, "async backend": 4}
"""Rows that a request compares. What is written is compared when all is over."""
WRITES = ("write", "own pool", "async backend")
"""Requests that leave a row."""
# One type alone: nothing else in the row tells of another server.
ATTRS = "select attrs from product where name = 'anvil'"
# The last is of a type that nobody registered.
SELECT = "select attrs, tags, parts, feels from product where name = 'anvil'"
INSERT = (
    "insert into product (name, attrs, tags, parts) values (%s, %s, %s, %s)"
    " returning attrs, tags, parts"
)
objects: Any = Product.objects
async_objects: Any = getattr(Product, "async_objects", None)
# Not a generator of names: threads cannot share one.
_numbers = itertools.count()


@dataclass
class Door:
    """An alias, by which requests go to whatever server it leads to at the time."""

    alias: str
    conninfo: str
    switch: Callable[[PostgreSQL], Any]
    connections: Callable[[], int]
    """How many there are, at the other end."""
    is_cut: bool
    """Whether a switch ends connections."""
    atomic: bool
    """Whether each request is one transaction; else each statement is one."""
    has_pools: bool
    """Whether Django's connections come from its pool."""
    by_name: bool
    """Whether the client puts parameters into the statement."""
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    ever: collections.Counter[str] = field(default_factory=collections.Counter)
    """The same, since before the last `reset()`."""
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
                if not self.is_cut or RAN_AGAIN in str(error):
                    self.failures.append(error)
                self._count("cut", f"{type(error).__name__}: {error}"[:100])
        except Exception as error:
            with self._lock:
                self.failures.append(error)
        else:
            with self._lock:
                now = time.monotonic()
                self.pause = max(self.pause, now - self._last)
                self._last = now
                self._count("right", kind)

    def _count(self, *what: str) -> None:
        self.counts.update(what)
        self.ever.update(what)

    @property
    def rows(self) -> int:
        return sum(self.counts[kind] * rows for kind, rows in ROWS.items())

    @property
    def written(self) -> int:
        """How many rows requests have left that ended well."""
        return sum(self.ever[kind] for kind in WRITES)

    def connects_by(self, client_cursor: type) -> dict[str, Any]:
        """Return how a pool of one's own is to connect."""
        return {**OWN, **({"cursor_factory": client_cursor} if self.by_name else {})}

    def _name(self) -> str:
        return f"{self.alias} {next(_numbers)}"

    # What a request does, sync and async. What was written is not read again: the
    # next statement may reach another server, which has no such row.

    def django(self, number: int) -> None:
        """Read, or write, as a request of Django's does."""
        kind, work = (("read", self._read), ("write", self._write))[number % 2]
        with self.request(kind):
            KINDS["C3"].request(functools.partial(self._work, work))

    def _read(self) -> None:
        read(self.alias)

    def _write(self) -> None:
        objects.using(self.alias).create(name=self._name(), **ANVIL)

    async def adjango(self, number: int) -> None:
        """Read, or write, by the ORM's async methods."""
        kind, work = (("read", self._read), ("write", self._write))[number % 2]
        awork: Callable[[], Any] = functools.partial(sync_to_async(self._work), work)
        if not self.atomic:
            kind, awork = (("aread", self._aread), ("write", self._awrite))[number % 2]
        with self.request(kind):
            await AsyncOrm().arequest(awork)

    async def _aread(self) -> None:
        try:
            await aread(self.alias)
        except Exception:
            await sync_to_async(self._close)()
            raise

    async def _awrite(self) -> None:
        try:
            await objects.using(self.alias).acreate(name=self._name(), **ANVIL)
        except Exception:
            await sync_to_async(self._close)()
            raise

    def _work(self, work: Callable[[], None]) -> None:
        try:
            with transaction.atomic(self.alias) if self.atomic else nullcontext():
                work()
        except Exception:
            self._close()
            raise

    def _close(self) -> None:
        connections[self.alias].close()

    def own(self, own: ConnectionPool) -> None:
        """Read, send parameters, and write, over a pool that is the project's own."""
        with self.request("own pool"), own.connection() as connection:
            block: AbstractContextManager[Any] = nullcontext()
            if self.atomic:
                block = connection.transaction()
            with block:
                check_attrs(connection.execute(ATTRS).fetchone())
                row = check_feels(connection.execute(SELECT).fetchone())
                check_answers(row, connection.execute(ARRIVES, PARAMS).fetchone())
                params = [self._name(), *ANVIL.values()]
                check_made(connection.execute(INSERT, params).fetchone())

    async def aown(self, own: AsyncConnectionPool) -> None:
        with self.request("own pool"):
            async with own.connection() as connection:
                block: AbstractAsyncContextManager[Any] = nullcontext()
                if self.atomic:
                    block = connection.transaction()
                async with block:
                    cursor = await connection.execute(ATTRS)
                    check_attrs(await cursor.fetchone())
                    cursor = await connection.execute(SELECT)
                    row = check_feels(await cursor.fetchone())
                    cursor = await connection.execute(ARRIVES, PARAMS)
                    check_answers(row, await cursor.fetchone())
                    params = [self._name(), *ANVIL.values()]
                    cursor = await connection.execute(INSERT, params)
                    check_made(await cursor.fetchone())

    async def abackend(self) -> None:
        """Read, send parameters, and write, by django-async-backend."""
        with self.request("async backend"):
            async with async_new_connection():
                check_row(
                    await async_objects.using(self.alias)
                    .values(*ANVIL)
                    .aget(name="anvil")
                )
                async with await async_connections[self.alias].cursor() as cursor:
                    await cursor.execute(ATTRS)
                    check_attrs(await cursor.fetchone())
                    await cursor.execute(SELECT)
                    row = check_feels(await cursor.fetchone())
                    await cursor.execute(ARRIVES, PARAMS)
                    check_answers(row, await cursor.fetchone())
                await async_objects.using(self.alias).acreate(
                    name=self._name(), **ANVIL
                )


def check_attrs(row: Any) -> None:
    if row != (ANVIL["attrs"],):
        raise WrongRow(f"{row!r} is not {ANVIL['attrs']!r}")


def check_feels(row: Any) -> Any:
    """Check the last column; return the others."""
    *others, feels = row
    if feels != "ok":
        raise WrongRow(f"{feels!r} is not 'ok'")
    return others


def check_made(row: Any) -> None:
    check_row(dict(zip(ANVIL, row, strict=True)))


class Load:
    """*threads* and *tasks* that make one request after the other, by all doors."""

    def __init__(
        self, doors: list[Door], threads: int, tasks: int, *, may_fail: bool = False
    ) -> None:
        self.doors = doors
        self._may_fail = may_fail
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
                if self._may_fail and door.failures:
                    break
                assert not (self._gone_wrong or door.failures), (
                    door.alias,
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
                    check=ConnectionPool.check_connection if door.is_cut else None,
                    kwargs=OWN
                    | (
                        {"cursor_factory": psycopg.ClientCursor} if door.by_name else {}
                    ),
                    open=True,
                    **OWN_POOL,
                )
            )
            for door in self.doors
        }
        for number in range(self._threads):
            door = self.doors[number % len(self.doors)]
            turn = number // len(self.doors)
            work = functools.partial(door.django, turn)
            if turn % 3 == 2:
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
        """Tasks by turns, through each door with pools: by an own pool, by
        django-async-backend, by Django, which reads and writes by turns."""
        doors = [door for door in self.doors if door.has_pools]
        running = asyncio.Semaphore(RUNNING)

        async def repeat(work: Callable[[], Any]) -> None:
            while not self._stop.is_set():
                async with running:
                    if not self._stop.is_set():
                        await work()

        async with self._async_pools(doors) as owns:
            works: list[Callable[[], Any]] = []
            for number in range(self._tasks):
                door = doors[number % len(doors)]
                turn, kind = divmod(number // len(doors), 4)
                if kind == 0:
                    works.append(functools.partial(door.aown, owns[door.alias]))
                elif kind == 1 and async_connections and not door.atomic:
                    works.append(door.abackend)
                else:
                    works.append(functools.partial(door.adjango, kind + turn))
            await asyncio.gather(*map(repeat, works))

    @asynccontextmanager
    async def _async_pools(
        self, doors: list[Door]
    ) -> AsyncIterator[dict[str, AsyncConnectionPool]]:
        check = AsyncConnectionPool.check_connection
        async with AsyncExitStack() as pools:
            yield {
                door.alias: await pools.enter_async_context(
                    AsyncConnectionPool(
                        door.conninfo,
                        configure=pool.aconfigure(door.alias),
                        check=check if door.is_cut else None,
                        kwargs=door.connects_by(psycopg.AsyncClientCursor),
                        **OWN_POOL,
                    )
                )
                for door in doors
            }
            if async_connections:
                async with async_new_connection():
                    for door in doors:
                        with suppress(KeyError):  # Nobody has used it.
                            await async_connections[door.alias].close_pool()
