"""Two fleets on one pair of servers, that cut over at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from django_pg_hot_async.testing import PostgreSQL

from . import shop
from .fleet import Fleet
from .routes import Route
from .switch import Switch


class Busy(RuntimeError):
    """Something is under way that has to end first."""


class Stage:
    """The two servers and the two fleets, for the block; `under_load()` begins it.

    Each fleet has a database of its own, so that what one writes the other does not
    read. Both are one database copied, down to the OIDs.
    """

    def __init__(
        self,
        blue: PostgreSQL,
        green: PostgreSQL,
        make_route: Callable[[PostgreSQL, str], Route],
        *,
        rows: int,
        rate: float,
        tell: Callable[[str], object],
    ) -> None:
        self.servers = (blue, green)
        self.tell = tell
        self.switches: list[Switch] = []
        self.doing = ""
        """What is under way, or an empty string."""
        self._rows = rows
        self._stack = contextlib.ExitStack()
        self._began = time.monotonic()

        def fleet(title: str, *, with_app: bool, dbname: str) -> Fleet:
            return Fleet(
                title,
                with_app=with_app,
                dbname=dbname,
                blue=blue,
                green=green,
                make_route=make_route,
                rows=rows,
                rate=rate,
            )

        self.left = fleet("without the app", with_app=False, dbname="shop_left")
        self.right = fleet("with the app", with_app=True, dbname="shop_right")
        self.fleets = (self.left, self.right)

    def __enter__(self) -> Stage:
        blue, green = self.servers
        left, right = (fleet.dbname for fleet in self.fleets)
        shop.prepare(blue, green, left, self._rows, self.tell)
        self.types = [shop.find_types(server, left) for server in self.servers]
        for server in self.servers:
            shop.copy_database(server, left, right)
        with contextlib.ExitStack() as stack:
            for fleet in self.fleets:
                stack.enter_context(fleet)
                count = len(fleet.workers)
                self.tell(
                    f"{fleet.title}: {count} workers, replicated to green;"
                    f" the way to the database: {fleet.route.name}"
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def seconds(self) -> float:
        """How long there has been load."""
        return time.monotonic() - self._began

    @property
    def serving(self) -> int:
        """Which of the servers the fleets' way leads to: 0 or 1."""
        return self.servers.index(self.right.replication.source)

    @property
    def route_name(self) -> str:
        """Which way the fleets take to their databases."""
        return self.right.route.name

    def counts(self) -> list[int]:
        """Return how many rows each fleet has read wrong."""
        return [fleet.tally.wrong for fleet in self.fleets]

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
        """Put load on both fleets for the block; yield the tasks that do it."""
        async with contextlib.AsyncExitStack() as stack:
            self._began = time.monotonic()
            yield [
                await stack.enter_async_context(fleet.under_load())
                for fleet in self.fleets
            ]

    async def cut_over(self) -> None:
        """Move both fleets to the other server; raise `Busy`."""
        source, target = self.serving, 1 - self.serving
        ends = [shop.release(self.servers[end]) for end in (source, target)]
        with self._busy(f"cutting over from {ends[0]} to {ends[1]}"):
            switch = Switch(self.seconds, ends[0], ends[1], self.counts())
            self.switches.append(switch)
            tell = told_by_all(len(self.fleets), self.tell)
            ended = await asyncio.gather(
                *(asyncio.to_thread(fleet.cut_over, tell) for fleet in self.fleets),
                return_exceptions=True,
            )
            switch.seconds = self.seconds - switch.at
        for error in ended:
            if error is not None:
                raise error

    async def change_app(self, with_app: bool) -> None:
        """Restart the left fleet with the app, or without it; raise `Busy`."""
        if with_app == self.left.with_app:
            return
        doing = f"restarting the left fleet with{'' if with_app else 'out'} the app"
        with self._busy(doing):
            self.tell(doing)
            await self.left.change_app(with_app)

    def check(self) -> None:
        """Look on the servers for what was written, each fleet's."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(Fleet.check, self.fleets))

    @contextlib.contextmanager
    def _busy(self, doing: str) -> Iterator[None]:
        if self.doing:
            raise Busy(f"still {self.doing}")
        self.doing = doing
        try:
            yield
        finally:
            self.doing = ""


def told_by_all(count: int, tell: Callable[[str], object]) -> Callable[[str], None]:
    """Return a function that passes on a text once it was called *count* times."""
    heard: Counter[str] = Counter()
    lock = threading.Lock()

    def hear(text: str) -> None:
        with lock:
            heard[text] += 1
            is_last = heard[text] == count
        if is_last:
            tell(text)

    return hear
