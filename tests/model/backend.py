"""A connection of django-async-backend: Django's, and awaited."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from tests.scenarios import connections

from .clients import SECONDS, Async, Loop
from .world import Door

ENGINE = "django_async_backend.db.backends.postgresql"

is_installed = find_spec("django_async_backend") is not None


class Task(Loop):
    """A task of a loop that lasts: what it is given to await has one context."""

    def __init__(self, loop: Loop) -> None:
        self._queue: asyncio.Queue[tuple[Any, Future[Any]] | None] = asyncio.Queue()
        self._loop = loop._loop
        self._done = asyncio.run_coroutine_threadsafe(self._serve(), self._loop)

    async def _serve(self) -> None:
        while (given := await self._queue.get()) is not None:
            awaitable, future = given
            try:
                future.set_result(await awaitable)
            except BaseException as error:
                future.set_exception(error)

    def run(self, awaitable: Any) -> Any:
        future: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (awaitable, future))
        return future.result(SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)
        self._done.result(SECONDS)


class Backend(Async):
    """An async wrapper that keeps its connection, in a task of its own."""

    is_djangos = True
    ways = frozenset({"cursor"})

    def __init__(self, name: str, door: Door, loop: Loop) -> None:
        super().__init__(name, door, "default", Task(loop))
        self._wrapper: Any = None

    def start(self, *, by_name: bool) -> None:
        """Begin as a new task does; *by_name*: with client-side binding."""
        from django_async_backend.db import async_connections
        from django_async_backend.db.backends.postgresql.base import (
            AsyncDatabaseWrapper,
        )

        database = {**self.door.database(), "ENGINE": ENGINE, "CONN_MAX_AGE": None}
        binding = {"server_side_binding": not by_name}
        database["OPTIONS"] = {**database.get("OPTIONS", {}), **binding}
        settings = connections.configure_settings({"default": database})["default"]

        async def begin() -> None:
            self._wrapper = AsyncDatabaseWrapper(settings, self.alias)
            async_connections[self.alias] = self._wrapper

        self.loop.run(begin())

    @property
    def wrapper(self) -> Any:
        return self._wrapper

    @property
    def connection(self) -> Any:
        return self._wrapper and self._wrapper.connection

    def open(self) -> None:
        self.loop.run(self._wrapper.ensure_connection())

    def close(self) -> None:
        self.loop.run(self._wrapper.close())

    def begin(self) -> None:
        from django_async_backend.db.transaction import async_atomic

        self._transaction = async_atomic(self.alias)
        self.call(self._transaction.__aenter__)

    def drop(self) -> None:
        self.let_go()
        with suppress(Exception):
            if self.in_transaction:
                self.end(RuntimeError("cut"))
        self.close()

    def quit(self) -> None:
        super().quit()
        self.loop.close()
