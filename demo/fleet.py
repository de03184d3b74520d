"""Workers of the example with a database of their own, and the load on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django_pg_hot_async.testing import PostgreSQL, Replication

from . import shop
from .load import Load
from .report import Result
from .routes import Route
from .tally import Tally
from .web import Web

WORKERS = 2


class Fleet:
    """Some workers, with the app or without it, on the database *dbname*.

    In the ``with`` block they run, the way to the database leads to *blue*, and
    *green* follows by replication.
    """

    def __init__(
        self,
        title: str,
        *,
        with_app: bool,
        dbname: str,
        blue: PostgreSQL,
        green: PostgreSQL,
        make_route: Callable[[PostgreSQL, str], Route],
        rows: int,
        rate: float,
    ) -> None:
        self.title = title
        self.with_app = with_app
        self.dbname = dbname
        self.replication = Replication(blue, green, dbname, name=dbname)
        self.workers: Sequence[Web] = ()
        self.result = Result(Tally(title))
        self._make_route = make_route
        self._rows = rows
        self._rate = rate
        self._stack = contextlib.ExitStack()
        self._load: Load | None = None

    @property
    def tally(self) -> Tally:
        return self.result.tally

    def __enter__(self) -> Fleet:
        with contextlib.ExitStack() as stack:
            source = self.replication.source
            self.route: Route = self._make_route(source, self.dbname)
            stack.enter_context(self.route)
            stack.enter_context(self.replication)
            stack.callback(lambda: stop(self.workers))
            self.workers = self._start_workers(self.with_app)
            self.replication.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[asyncio.Task[None]]:
        """Put load on the workers for the block, counted from its beginning."""
        self.result = Result(Tally(self.title))
        self._load = Load(
            [web.url for web in self.workers],
            self.tally,
            rows=self._rows,
            rate=self._rate,
        )
        async with self._load.running() as task:
            yield task

    def cut_over(self, tell: Callable[[str], object]) -> None:
        """Move to the other server."""
        self.route.cut_over(self.replication, tell)
        self.result.cutovers += 1

    async def change_app(self, with_app: bool) -> None:
        """Deploy the workers anew, with the app or without it; no request fails."""
        old = self.workers
        self.workers = await asyncio.to_thread(self._start_workers, with_app)
        if self._load:
            await self._load.move([web.url for web in self.workers])
        await asyncio.to_thread(stop, old)
        self.with_app = with_app

    def check(self) -> None:
        """Look for what was written under load, on the servers themselves."""
        self.replication.wait()
        source, target = self.replication.source, self.replication.target
        created = self.tally.created
        self.result.lost = shop.count_lost(source, self.dbname, created)
        self.result.stored_wrong = shop.count_stored_wrong(source, self.dbname)
        self.result.servers_agree = shop.fingerprint(
            source, self.dbname
        ) == shop.fingerprint(target, self.dbname)

    def _start_workers(self, with_app: bool) -> list[Web]:
        environ = {**self.route.environ, "DEMO_WITHOUT_APP": str(int(not with_app))}
        webs = [Web(environ, workers=1) for _ in range(WORKERS)]
        try:
            in_parallel(Web.__enter__, webs)
        except BaseException:
            stop(webs)
            raise
        return webs


def stop(workers: Sequence[Web]) -> None:
    """End *workers*."""
    in_parallel(Web.__exit__, workers)


def in_parallel(call: Callable[[Any], object], items: Sequence[Any]) -> None:
    """Call with each of *items*, in a thread each; raise what the first one raised."""
    if items:
        with ThreadPoolExecutor(len(items)) as threads:
            list(threads.map(call, items))
