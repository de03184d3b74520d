"""Tracked psycopg connections of a project's own, sync and async, driven alike."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import psycopg
import pytest
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum

from django_pg_hot_async import pool, register_type

from .scenarios import READ

ALIAS = "mine"


class Mood(enum.Enum):
    SAD = "sad"
    OK = "ok"


class Size(NamedTuple):
    width: Any
    feels: Any


SIZE = "create type size as (width int, feels mood)"


def register_mood(name: str = "mood") -> None:
    mapping = {mood: mood.value for mood in Mood}
    register_type(name, EnumInfo, register_enum, enum=Mood, mapping=mapping)


def register_size(name: str = "size") -> None:
    register_type(name, CompositeInfo, register_composite, factory=Size)


def conninfo(where: Any, dbname: str = "shop") -> str:
    """Return what leads to *where*: a server, or a PgBouncer."""
    text: str = (
        where.conninfo(dbname) if hasattr(where, "data_dir") else where.conninfo()
    )
    return text


class Sync:
    """A synchronous connection in autocommit."""

    cursors: ClassVar[dict[str, Any]] = {
        "server": psycopg.Cursor,
        "client": psycopg.ClientCursor,
        "raw": psycopg.RawCursor,
    }

    def __init__(self, where: Any, dbname: str = "shop", **params: Any) -> None:
        binding = params.pop("binding", "server")
        params.setdefault("autocommit", True)
        params.setdefault("prepare_threshold", None)
        self.connection: Any = psycopg.connect(
            conninfo(where, dbname), cursor_factory=self.cursors[binding], **params
        )
        pool.configure(ALIAS)(self.connection)

    def results(self, query: Any, params: Any = None, **how: Any) -> list[Any]:
        """Execute *query*; return the rows of each of its results."""
        binary = how.pop("binary", False)
        cursor = self.connection.cursor(binary=binary)
        cursor.execute(query, params, **how)
        return self._all(cursor)

    def row(self, query: Any, params: Any = None, **how: Any) -> Any:
        """Execute *query*; return the first row of its first result."""
        return self.results(query, params, **how)[0][0]

    def many(self, query: Any, params_seq: Any, *, binary: bool = False) -> list[Any]:
        cursor = self.connection.cursor(binary=binary)
        cursor.executemany(query, params_seq, returning=True)
        return self._all(cursor)

    def stream(self, query: Any, params: Any = None, **how: Any) -> list[Any]:
        return list(self.connection.cursor().stream(query, params, **how))

    def copy_in(self, statement: str, types: list[str], row: Any) -> None:
        with self.connection.cursor().copy(statement) as copy:
            copy.set_types(types)
            copy.write_row(row)

    def copy_out(self, statement: str, types: list[str]) -> list[Any]:
        with self.connection.cursor().copy(statement) as copy:
            copy.set_types(types)
            return list(copy.rows())

    def in_pipeline(self, *statements: tuple[Any, Any]) -> list[Any]:
        """Execute all in one pipeline; return the first row of each."""
        with self.connection.pipeline():
            cursors = [self.connection.execute(*one) for one in statements]
        return [cursor.fetchone() for cursor in cursors]

    def in_transaction(self, *statements: tuple[Any, Any]) -> list[Any]:
        """Execute all in one transaction; return the first row of each."""
        with self.connection.transaction():
            cursors = [self.connection.execute(*one) for one in statements]
            return [one.fetchone() if one.description else None for one in cursors]

    def kept(self, query: Any, params: Any = None, *, binary: bool = False) -> Any:
        """Execute *query*; return a cursor whose rows have not been fetched."""
        cursor = self.connection.cursor(binary=binary)
        cursor.execute(query, params)
        return cursor

    def kept_many(self, query: Any, params_seq: Any, *, binary: bool = False) -> Any:
        cursor = self.connection.cursor(binary=binary)
        cursor.executemany(query, params_seq, returning=True)
        return cursor

    def rest(self, cursor: Any) -> list[Any]:
        """Return the rows of each result that *cursor* has."""
        return self._all(cursor)

    def close(self) -> None:
        self.connection.close()

    @staticmethod
    def _all(cursor: Any) -> list[Any]:
        found = []
        while True:
            found.append(cursor.fetchall() if cursor.description else None)
            if not cursor.nextset():
                return found


class Async(Sync):
    """The same over an async connection, in an event loop of its own."""

    cursors: ClassVar[dict[str, Any]] = {
        "server": psycopg.AsyncCursor,
        "client": psycopg.AsyncClientCursor,
        "raw": psycopg.AsyncRawCursor,
    }

    def __init__(self, where: Any, dbname: str = "shop", **params: Any) -> None:
        self._loop = asyncio.new_event_loop()
        binding = params.pop("binding", "server")
        params.setdefault("autocommit", True)
        params.setdefault("prepare_threshold", None)
        self.connection = self.run(
            psycopg.AsyncConnection.connect(
                conninfo(where, dbname), cursor_factory=self.cursors[binding], **params
            )
        )
        self.run(pool.aconfigure(ALIAS)(self.connection))

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def results(self, query: Any, params: Any = None, **how: Any) -> list[Any]:
        binary = how.pop("binary", False)
        cursor = self.connection.cursor(binary=binary)
        self.run(cursor.execute(query, params, **how))
        return self.rest(cursor)

    def many(self, query: Any, params_seq: Any, *, binary: bool = False) -> list[Any]:
        return self.rest(self.kept_many(query, params_seq, binary=binary))

    def stream(self, query: Any, params: Any = None, **how: Any) -> list[Any]:
        async def rows() -> list[Any]:
            cursor = self.connection.cursor()
            return [row async for row in cursor.stream(query, params, **how)]

        found: list[Any] = self.run(rows())
        return found

    def copy_in(self, statement: str, types: list[str], row: Any) -> None:
        async def copied() -> None:
            async with self.connection.cursor().copy(statement) as copy:
                copy.set_types(types)
                await copy.write_row(row)

        self.run(copied())

    def copy_out(self, statement: str, types: list[str]) -> list[Any]:
        async def copied() -> list[Any]:
            async with self.connection.cursor().copy(statement) as copy:
                copy.set_types(types)
                return [row async for row in copy.rows()]

        found: list[Any] = self.run(copied())
        return found

    def in_pipeline(self, *statements: tuple[Any, Any]) -> list[Any]:
        async def piped() -> list[Any]:
            async with self.connection.pipeline():
                cursors = [await self.connection.execute(*one) for one in statements]
            return [await cursor.fetchone() for cursor in cursors]

        found: list[Any] = self.run(piped())
        return found

    def in_transaction(self, *statements: tuple[Any, Any]) -> list[Any]:
        async def whole() -> list[Any]:
            async with self.connection.transaction():
                cursors = [await self.connection.execute(*one) for one in statements]
                return [
                    await one.fetchone() if one.description else None for one in cursors
                ]

        found: list[Any] = self.run(whole())
        return found

    def kept(self, query: Any, params: Any = None, *, binary: bool = False) -> Any:
        cursor = self.connection.cursor(binary=binary)
        self.run(cursor.execute(query, params))
        return cursor

    def kept_many(self, query: Any, params_seq: Any, *, binary: bool = False) -> Any:
        cursor = self.connection.cursor(binary=binary)
        self.run(cursor.executemany(query, params_seq, returning=True))
        return cursor

    def rest(self, cursor: Any) -> list[Any]:
        async def rows() -> list[Any]:
            found = []
            while True:
                found.append(await cursor.fetchall() if cursor.description else None)
                if not cursor.nextset():
                    return found

        found: list[Any] = self.run(rows())
        return found

    def close(self) -> None:
        try:
            self.run(self.connection.close())
        finally:
            self._loop.close()


CLIENTS: dict[str, type[Sync]] = {"sync": Sync, "async": Async}
both = pytest.mark.parametrize("client_class", CLIENTS.values(), ids=CLIENTS)


@contextlib.contextmanager
def opened(
    client_class: type[Sync], where: Any, *args: Any, **params: Any
) -> Iterator[Any]:
    """Yield a client of *client_class* to *where*, and close it."""
    client = client_class(where, *args, **params)
    try:
        yield client
    finally:
        client.close()


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what *function* returns, or the error that it raised."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error


def ours(statements: Any) -> list[str]:
    """Return those of *statements* that hold a question of this package."""
    return [text for text in statements if READ in text]


class Relay:
    """Passes bytes on to *target*; calls `before` with the number of each message.

    What a client sends at a time counts as one. The server has not got it before
    `before` returns.
    """

    def __init__(self, target: Any) -> None:
        self._target = (target.host, target.port)
        self.before: Callable[[int], Any] = lambda number: None
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=shop"

    def count(self, before: Callable[[int], Any]) -> None:
        """Count messages from 0 again, and call *before* with each number."""
        self.sent, self.before = 0, before

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._ends += (client, server)
                for pump, ends in (
                    (self._up, (client, server)),
                    (_pump, (server, client)),
                ):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                number, self.sent = self.sent, self.sent + 1
                self.before(number)
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 20):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
