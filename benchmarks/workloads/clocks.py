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


class Clocks:
    """Takes the time of each part of a turn, by the wall's clock and the CPU's.

    The CPU's is that of this thread: psycopg waits and computes in the caller's.
    """

    def __init__(self, times: int) -> None:
        self._times = max(1, times // CHUNKS)
        self.parts = [range(self._times)] * (times // self._times)
        self._walls: list[float] = []
        self._cpus: list[float] = []

    def __enter__(self) -> None:
        self._cpu, self._wall = thread_time(), perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        self._walls.append((perf_counter() - self._wall) / self._times)
        self._cpus.append((thread_time() - self._cpu) / self._times)

    def metrics(self) -> Metrics:
        """Return what one time took, in seconds."""
        return {
            "wall": statistics.median(self._walls),
            "cpu": statistics.median(self._cpus),
        }


def timed(once: Callable[[], object]) -> Run:
    """Return what does *once* so many times."""

    def run(times: int) -> Metrics:
        clocks = Clocks(times)
        for part in clocks.parts:
            with clocks:
                for _ in part:
                    once()
        return clocks.metrics()

    return run


def timed_by_itself(once: Callable[[], tuple[float, float]]) -> Run:
    """Return what does *once*, which returns its seconds: all, and the query's."""

    def run(times: int) -> Metrics:
        walls, queries = zip(*(once() for _ in range(times)), strict=True)
        return {"wall": statistics.median(walls), "query": statistics.median(queries)}

    once()
    return run


def timed_in_loop(once: Callable[[], Awaitable[object]]) -> Run:
    """Do what `timed` does in one event loop, kept from turn to turn."""
    loop = asyncio.new_event_loop()

    async def turn(times: int) -> Metrics:
        clocks = Clocks(times)
        for part in clocks.parts:
            with clocks:
                for _ in part:
                    await once()
        return clocks.metrics()

    return lambda times: loop.run_until_complete(turn(times))
