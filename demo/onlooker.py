"""Fleets and servers that somebody else runs, for the page to watch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from . import shop
from .load import Load
from .report import Result
from .switch import Switch
from .tally import Tally

EVERY = 0.25
"""Seconds between two looks at PgBouncer."""


@dataclass(frozen=True)
class Address:
    """Where some workers are."""

    url: str


class Watched:
    """*count* workers at one address, under load from here."""

    def __init__(
        self, title: str, url: str, *, with_app: bool, count: int, load: dict[str, Any]
    ) -> None:
        self.title = title
        self.with_app = with_app
        self.workers = [Address(url)] * count
        self.result = Result(Tally(title))
        self.load = Load(url, self.tally, **load)

    @property
    def tally(self) -> Tally:
        return self.result.tally


class Onlooker:
    """What a `Stage` is to the page, where others act: *left* and *right* fleet.

    Where PgBouncer leads is asked of its console, *console*.
    """

    route_name = "PgBouncer"

    def __init__(
        self,
        servers: Sequence[shop.Server],
        dbname: str,
        console: str,
        left: Watched,
        right: Watched,
        tell: Callable[[str], object],
    ) -> None:
        self.servers = servers
        self.left = left
        self.right = right
        self.fleets = (left, right)
        self.types = [shop.find_types(server, dbname) for server in servers]
        self.switches: list[Switch] = []
        self.doing = ""
        self.tell = tell
        self._dbname = dbname
        self._console = console
        self._began = time.monotonic()
        self.serving, _ = self._look()

    @property
    def seconds(self) -> float:
        """How long there has been load."""
        return time.monotonic() - self._began

    def counts(self) -> list[int]:
        """Return how many rows each fleet has read wrong."""
        return [fleet.tally.wrong for fleet in self.fleets]

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
        """Put load on both fleets for the block, and watch; yield what does it."""
        async with contextlib.AsyncExitStack() as stack:
            self._began = time.monotonic()
            for fleet in self.fleets:
                fleet.tally.began = self._began
            watching = asyncio.create_task(self._watch())
            stack.callback(watching.cancel)
            loads = [
                await stack.enter_async_context(fleet.load.running())
                for fleet in self.fleets
            ]
            yield [watching, *loads]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            # It may be away for a while.
            with contextlib.suppress(psycopg.OperationalError):
                self._note(*await asyncio.to_thread(self._look))

    def _look(self) -> tuple[int, bool]:
        """Return which of the servers PgBouncer leads to, and whether it has paused."""
        with psycopg.connect(
            self._console, autocommit=True, row_factory=dict_row
        ) as console:
            for row in console.execute("SHOW DATABASES"):
                if row["name"] == self._dbname:
                    place = (row["host"], int(row["port"]))
                    places = [(server.host, server.port) for server in self.servers]
                    return places.index(place), row["paused"] in (1, "1")
        raise LookupError(f"PgBouncer has no database {self._dbname!r}")

    def _note(self, serving: int, is_paused: bool) -> None:
        """Make a switch of what was seen; one that came to nothing is none."""
        ends = [shop.release(self.servers[end]) for end in (self.serving, serving)]
        if is_paused and not self.doing:
            ends[1] = shop.release(self.servers[1 - self.serving])
            self.doing = f"cutting over from {ends[0]} to {ends[1]}"
            self.switches.append(Switch(self.seconds, ends[0], ends[1], self.counts()))
        elif not is_paused and (self.doing or serving != self.serving):
            if not self.doing:
                # Quicker than the looks follow each other.
                began = self.seconds - EVERY
                self.switches.append(Switch(began, ends[0], ends[1], self.counts()))
            self.doing = ""
            if serving == self.serving:
                self.switches.pop()
                return
            switch = self.switches[-1]
            switch.seconds = self.seconds - switch.at
            self.serving = serving
            self.tell(f"moved from {ends[0]} to {ends[1]}")
