"""Load on the example: requests of every kind, at a steady rate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from .client import Client
from .tally import Tally

COLOURS = ["red", "green", "blue", 'off "white"', "grün", "a=>b", ""]
LABELS = ["New", "Sale", 'So-called "best"', "Ökö", "a,b", "{braces}", "NULL"]
STATUSES = ["draft", "on sale", "retired"]
# What is asked for, and how often among 100 requests.
MIX = {
    "sync list": 14,
    "sync detail": 14,
    "async list": 14,
    "async detail": 14,
    "raw list": 32,
    "sync create": 3,
    "async create": 3,
    "sync update": 3,
    "async update": 3,
}
# Ask anew for a connection from time to time, so that all workers get some.
REQUESTS_A_CONNECTION = 40


class Load:
    """Requests from *clients* connections at *rate* a second, if all goes well.

    *url* may be several: the workers that the connections are spread over.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        tally: Tally,
        *,
        rows: int,
        clients: int = 16,
        rate: float = 300,
    ) -> None:
        self._addresses = find_addresses(url)
        self._turn = 0
        # Clients that have not followed `move()` yet.
        self._elsewhere: set[int] = set()
        self._all_moved = asyncio.Event()
        self._tally = tally
        self._rows = rows
        self._clients = clients
        self._interval = clients / rate
        self._chance = random.Random(18)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Send requests for the block; yield the task that does."""
        task = asyncio.create_task(self.run())
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._tally.end()

    async def run(self) -> None:
        """Send requests until cancelled."""
        tasks = [asyncio.create_task(self._client(n)) for n in range(self._clients)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def move(self, url: str | Sequence[str]) -> None:
        """Send all further requests to *url*; wait for those that are under way."""
        self._addresses = find_addresses(url)
        self._elsewhere = set(range(self._clients))
        self._all_moved.clear()
        await self._all_moved.wait()

    async def _client(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        # Spread the clients over the interval.
        await asyncio.sleep(self._interval * number / self._clients)
        client = self._new_client(number)
        count = 0
        due = loop.time()
        try:
            while True:
                if number in self._elsewhere:
                    client.close()
                    client = self._new_client(number)
                await self._one(client)
                count += 1
                if count % REQUESTS_A_CONNECTION == number % REQUESTS_A_CONNECTION:
                    client.close()
                    client = self._new_client(number)
                # What a pause has kept back is not made up for.
                due = max(due + self._interval, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            client.close()

    def _new_client(self, number: int) -> Client:
        """Return a client of the worker whose turn it is, for client *number*."""
        self._elsewhere.discard(number)
        if not self._elsewhere:
            self._all_moved.set()
        self._turn += 1
        return Client(*self._addresses[self._turn % len(self._addresses)])

    async def _one(self, client: Client) -> None:
        kind = self._chance.choices(list(MIX), list(MIX.values()))[0]
        path, sent = self._make(kind)
        method = "GET" if sent is None else "POST"
        began = time.monotonic()
        try:
            answer = await client.request(method, path, sent)
        except (OSError, EOFError) as error:
            self._tally.add_broken(kind, error)
        else:
            self._tally.add(kind, answer, sent, time.monotonic() - began)

    def _make(self, kind: str) -> tuple[str, dict[str, Any] | None]:
        how, what = kind.split()
        pk = self._chance.randint(1, self._rows)
        path = {"sync": "", "async": "/async", "raw": "/raw"}[how] + "/products/"
        if what == "list":
            return f"{path}?after={pk - 1}", None
        if what == "detail":
            return f"{path}{pk}/", None
        sent = make_product(self._chance)
        if what == "create":
            return path, {"name": "Made under load", **sent}
        return f"{path}{pk}/", sent


def find_addresses(url: str | Sequence[str]) -> list[tuple[str, int]]:
    """Return the host and port of each address."""
    parts = [urlsplit(one) for one in ([url] if isinstance(url, str) else url)]
    return [(part.hostname or "127.0.0.1", part.port or 80) for part in parts]


def make_product(chance: random.Random) -> dict[str, Any]:
    """Make up what to write, with the proof that goes with it."""
    columns = {
        "attributes": {
            "colour": chance.choice(COLOURS),
            "size": str(chance.randint(1, 60)),
            "discontinued": chance.choice([None, "2026"]),
        },
        "labels": chance.sample(LABELS, chance.randint(0, 4)),
        "status": chance.choice(STATUSES),
        "dimensions": chance.choice([None, ["12.50", "3.00", "0.75", "cm"]]),
        "valid": chance.choice([None, ["2026-01-01", None], [None, "2026-07-01"]]),
        "stored_at": chance.choice([None, [2.0, 8.5], [None, -18.0]]),
    }
    return {**columns, "proof": json.dumps(columns, sort_keys=True)}
