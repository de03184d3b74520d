"""django-async-backend: its connections, and what our receiver costs the loop."""

from __future__ import annotations

import asyncio
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
    """Connect and close, with a watch on our receiver of `connection_created`.

    What it takes, it takes from every other task of the event loop.
    """
    from django_async_backend.db import async_connections

    from django_pg_hot_async import _checkouts as _receiver
    from django_pg_hot_async import _memory

    loop = asyncio.new_event_loop()
    seconds: list[float] = []

    def watched(**kwargs: Any) -> None:
        started = perf_counter()
        _receiver.connected(**kwargs)
        seconds.append(perf_counter() - started)

    connection_created.disconnect(dispatch_uid=_receiver.UID)
    connection_created.connect(watched, weak=False, dispatch_uid=_receiver.UID)

    async def connects(times: int) -> None:
        wrapper = async_connections["default"]
        for _ in range(times):
            await wrapper.connect()
            await wrapper.close()

    def run(times: int) -> Metrics:
        loop.run_until_complete(connects(times))
        assert len(seconds) == times, "the receiver was not called at each connect"
        ordered = sorted(seconds)
        return {
            "median": ordered[times // 2],
            "p99": ordered[times * 99 // 100],
            "longest": ordered[-1],
            "reads_in_loop": _memory.alias("default").reads_in_loop,
        }

    return run
