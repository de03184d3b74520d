"""django-async-backend: its connections, and what we keep the loop from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from django.db.backends.signals import connection_created

from benchmarks.measures import Metrics, Run

from .clocks import timed_in_loop


def connect_and_close() -> Run:
    """`connect()` and `close()` of one wrapper, plain or from its pool."""
    from django_async_backend.db import async_connections

    async def once() -> None:
        wrapper = async_connections["default"]
        await wrapper.connect()
        await wrapper.close()

    return timed_in_loop(once)


def receiver() -> Run:
    """Connect and close, with a watch on what we do at once, while others wait.

    What it takes, it takes from every other task of the event loop.
    """
    from django_async_backend.db import async_connections
    from django_async_backend.db.backends.postgresql.base import AsyncDatabaseWrapper

    from django_pg_hot_async._django import backend as ours
    from django_pg_hot_async._django import connections as tracked

    loop = asyncio.new_event_loop()
    spent = 0.0
    calls = 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent, calls
            started = perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent += perf_counter() - started
                calls += 1

        return call

    backend: Any = AsyncDatabaseWrapper
    backend.init_connection_state = watched(backend.init_connection_state)
    tracked.track = watched(tracked.track)
    connection_created.disconnect(dispatch_uid=ours.UID)
    connection_created.connect(
        watched(ours.connected), weak=False, dispatch_uid=ours.UID
    )

    async def connects(times: int) -> list[float]:
        nonlocal spent
        wrapper = async_connections["default"]
        seconds = []
        for _ in range(times):
            spent = 0.0
            await wrapper.connect()
            seconds.append(spent)
            await wrapper.close()
        return seconds

    def run(times: int) -> Metrics:
        ordered = sorted(loop.run_until_complete(connects(times)))
        assert calls >= times, "it was not told of each connect"
        return {
            "p99": ordered[times * 99 // 100],
            "longest": ordered[-1],
        }

    return run
