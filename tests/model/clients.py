"""The connections of a deployment: Django's, psycopg's, pools, sync and async."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from django.db import transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from django_pg_hot_async import pool
from tests.scenarios import connections, settle

from .world import Door

T = TypeVar("T")

SECONDS = 30
POOL: dict[str, Any] = {"min_size": 0, "max_size": 2, "timeout": 10}
OWN = "own"
"""The label of a project's own pools."""


class Loop:
    """An event loop in a thread of its own; each call is a task of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()


class Client:
    """One who has a connection, or none at present."""

    is_djangos = False
    """Whether it is one that Django opens: errors are noticed, requests begin."""
    is_async = False
    ways: frozenset[str] = frozenset()
    """How it can query by what Django has: of DJANGO_READS and DJANGO_SENDS."""

    def __init__(self, name: str, door: Door, alias: str) -> None:
        self.name = name
        self.door = door
        self.alias = alias
        self._connection: Any = None
        self.kept: list[Any] = []
        """What was begun with a cursor that is kept, to be run again."""
        self.senders: dict[str, Any] = {}
        """Cursors to send with that are kept, by their kind."""
        self._transaction: Any = None
        self.is_light = False
        """Whether its transaction has used no table yet, and so locks none."""
        self.threshold: int | None = None
        """After how many executions psycopg prepares a statement."""

    def __repr__(self) -> str:
        return self.name

    @property
    def connection(self) -> Any:
        """The psycopg connection that it has now."""
        return self._connection

    @property
    def in_transaction(self) -> bool:
        return self._transaction is not None

    @property
    def is_open(self) -> bool:
        return self.connection is not None

    def do(self, work: Callable[[], T]) -> T:
        """Do *work* where the connection is used: in its thread, or from outside."""
        return work()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of the connection, and wait for it if it has to be."""
        return function(*args, **kwargs)

    def collect(self, rows: Any) -> list[Any]:
        """Make a list of what is iterated over."""
        return list(rows)

    @contextmanager
    def using(self, manager: Any) -> Iterator[Any]:
        """Enter a context manager, sync or async, and leave it."""
        enter, leave = "__enter__", "__exit__"
        if hasattr(manager, "__aenter__"):
            enter, leave = "__aenter__", "__aexit__"
        value = self.call(getattr(manager, enter))
        try:
            yield value
        except BaseException as error:
            done = self.call(
                getattr(manager, leave), type(error), error, error.__traceback__
            )
            if not done:
                raise
        else:
            self.call(getattr(manager, leave), None, None, None)

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until nothing goes on by itself: a pool replaces what it lost."""

    def begin(self) -> None:
        self._transaction = self.connection.transaction()
        enter = "__aenter__" if self.is_async else "__enter__"
        self.call(getattr(self._transaction, enter))

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back because of an *error*."""
        leave = "__aexit__" if self.is_async else "__exit__"
        manager, self._transaction = self._transaction, None
        self.call(
            getattr(manager, leave),
            type(error) if error else None,
            error,
            error.__traceback__ if error else None,
        )

    def let_go(self) -> None:
        """Forget about the cursors that were kept."""
        self.kept.clear()
        self.senders.clear()

    def drop(self) -> None:
        """Get rid of a connection that was cut."""
        self.let_go()
        with suppress(psycopg.Error):
            if self.in_transaction:
                self.end(RuntimeError("cut"))
        self.do(self.close)
        self.settle()

    def quit(self) -> None:
        """Leave nothing behind."""
        self.let_go()
        if self.is_open:
            self.drop()


class Django(Client):
    """A thread with Django's connection of an alias: persistent, or of its pool."""

    is_djangos = True
    ways = frozenset({"cursor", "chunked", "orm", "iterator", "async orm"})

    def __init__(self, name: str, door: Door, alias: str = "default") -> None:
        super().__init__(name, door, alias)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._wrapper: Any = None
        self.peers: list[Django] = [self]
        """All who share the pool."""

    def start(self, door: Door, database: dict[str, Any]) -> None:
        """Begin as a new thread does, with *database* as settings."""
        self.door = door
        assert not self.in_transaction

        def work() -> None:
            if hasattr(connections._connections, self.alias):
                del connections[self.alias]
            wrapper = connections.create_connection(self.alias)
            settings = connections.configure_settings({"default": database})
            wrapper.settings_dict = copy.deepcopy(settings["default"])
            connections[self.alias] = self._wrapper = wrapper

        self.do(work)

    @property
    def wrapper(self) -> Any:
        return self._wrapper

    def do(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result(SECONDS)

    @property
    def connection(self) -> Any:
        return self._wrapper and self._wrapper.connection

    def open(self) -> None:
        self.wrapper.ensure_connection()

    def close(self) -> None:
        self.wrapper.close()

    def begin(self) -> None:
        self._transaction = transaction.atomic(self.alias)
        self._transaction.__enter__()

    def drop(self) -> None:
        def leave() -> None:
            with suppress(psycopg.Error, transaction.TransactionManagementError):
                if self.in_transaction:
                    self.end(RuntimeError("cut"))

        with suppress(Exception):
            self.do(leave)
        self.let_go()
        self.do(self.close)
        self.settle()

    def settle(self) -> None:
        pools: Any = vars(DatabaseWrapper)["_connection_pools"]
        if self.alias in pools:
            taken = sum(peer.is_open for peer in self.peers)
            settle(pools[self.alias].get_stats, taken)

    def stop(self) -> None:
        self._thread.shutdown()


class Own(Client):
    """A psycopg connection of one's own, with the hook called by hand."""

    def open(self) -> None:
        self._connection = psycopg.connect(
            self.door.conninfo(), autocommit=True, prepare_threshold=self.threshold
        )
        pool.configure(self.alias)(self.connection)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        connection.close()


class OwnPool(Client):
    """A psycopg pool of one's own."""

    def __init__(self, name: str, door: Door, alias: str) -> None:
        super().__init__(name, door, alias)
        self._pool: Any = None

    def open(self) -> None:
        if self._pool is None:
            self._pool = ConnectionPool(
                self.door.conninfo(),
                configure=pool.configure(self.alias),
                check=ConnectionPool.check_connection,
                kwargs={"autocommit": True, "prepare_threshold": None},
                open=True,
                **POOL,
            )
        self._connection = self._pool.getconn()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._pool.putconn(connection)

    def settle(self) -> None:
        if self._pool is not None:
            settle(self._pool.get_stats, self.is_open)

    def quit(self) -> None:
        super().quit()
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class Async(Client):
    """A psycopg `AsyncConnection` of one's own; each call is another task."""

    is_async = True

    def __init__(self, name: str, door: Door, alias: str, loop: Loop) -> None:
        super().__init__(name, door, alias)
        self.loop = loop

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return self.loop.run(result) if inspect.isawaitable(result) else result

    def collect(self, rows: Any) -> list[Any]:
        async def consume() -> list[Any]:
            return [row async for row in rows]

        collected: list[Any] = self.loop.run(consume())
        return collected

    def open(self) -> None:
        async def connect() -> Any:
            connection = await psycopg.AsyncConnection.connect(
                self.door.conninfo(), autocommit=True, prepare_threshold=self.threshold
            )
            await pool.aconfigure(self.alias)(connection)
            return connection

        self._connection = self.loop.run(connect())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self.call(connection.close)


class AsyncPool(Async):
    """A psycopg `AsyncConnectionPool` of one's own."""

    def __init__(self, name: str, door: Door, alias: str, loop: Loop) -> None:
        super().__init__(name, door, alias, loop)
        self._pool: Any = None

    def open(self) -> None:
        async def get() -> Any:
            if self._pool is None:
                self._pool = AsyncConnectionPool(
                    self.door.conninfo(),
                    configure=pool.aconfigure(self.alias),
                    check=AsyncConnectionPool.check_connection,
                    kwargs={"autocommit": True, "prepare_threshold": None},
                    open=False,
                    **POOL,
                )
                await self._pool.open()
            return await self._pool.getconn()

        self._connection = self.loop.run(get())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self.loop.run(self._pool.putconn(connection))

    def settle(self) -> None:
        if self._pool is not None:
            settle(self._pool.get_stats, self.is_open)

    def quit(self) -> None:
        super().quit()
        if self._pool is not None:
            self.loop.run(self._pool.close())
            self._pool = None
