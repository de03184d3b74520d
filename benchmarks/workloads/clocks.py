"""Timing something that is done so many times."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter, thread_time

from benchmarks.measures import Metrics, Run

CHUNKS = 25
"""Parts of a turn. One that lost the processor to somebody else is an outlier, and
the median of all does not know of it."""


def timed(once: Callable[[], object]) -> Run:
    """Return what does *once* n times: seconds for each, by wall and by CPU clock.

    The CPU's is that of this thread: psycopg waits and computes in the caller's.
    """

    def run(times: int) -> Metrics:
        chunk = range(max(1, times // CHUNKS))
        walls = []
        cpu = thread_time()
        for _ in range(times // len(chunk)):
            started = perf_counter()
            for _ in chunk:
                once()
            walls.append(perf_counter() - started)
        return _metrics(walls, thread_time() - cpu, len(chunk))

    return run


def timed_in_loop(once: Callable[[], Awaitable[object]]) -> Run:
    """Do what `timed` does in one event loop, kept from turn to turn."""
    loop = asyncio.new_event_loop()

    async def turn(times: int) -> Metrics:
        chunk = range(max(1, times // CHUNKS))
        walls = []
        cpu = thread_time()
        for _ in range(times // len(chunk)):
            started = perf_counter()
            for _ in chunk:
                await once()
            walls.append(perf_counter() - started)
        return _metrics(walls, thread_time() - cpu, len(chunk))

    return lambda times: loop.run_until_complete(turn(times))


def _metrics(walls: list[float], cpu: float, chunk: int) -> Metrics:
    return {
        "wall": statistics.median(walls) / chunk,
        "cpu": cpu / len(walls) / chunk,
    }
