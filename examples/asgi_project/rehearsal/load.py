"""Load on the example: ``python -m rehearsal.load http://127.0.0.1:8000``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .client import Client
from .tally import Tally

COLOURS = ["red", "green", "blue", 'off "white"', "grün", "a=>b", ""]
LABELS = ["New", "Sale", 'So-called "best"', "Ökö", "a,b", "{braces}", "NULL"]
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
    """Requests from *clients* connections at *rate* a second, if all goes well."""

    def __init__(
        self, url: str, tally: Tally, *, rows: int, clients: int = 16, rate: float = 300
    ) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._tally = tally
        self._rows = rows
        self._clients = clients
        self._interval = clients / rate
        self._chance = random.Random(18)

    async def run(self) -> None:
        """Send requests until cancelled."""
        tasks = [asyncio.create_task(self._client(n)) for n in range(self._clients)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        # Spread the clients over the interval.
        await asyncio.sleep(self._interval * number / self._clients)
        client = Client(*self._address)
        count = 0
        due = loop.time()
        try:
            while True:
                await self._one(client)
                count += 1
                if count % REQUESTS_A_CONNECTION == number % REQUESTS_A_CONNECTION:
                    client.close()
                # What a pause has kept back is not made up for.
                due = max(due + self._interval, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            client.close()

    async def _one(self, client: Client) -> None:
        kind = self._chance.choices(list(MIX), list(MIX.values()))[0]
        path, sent = self._make(kind)
        method = "GET" if sent is None else "POST"
        try:
            answer = await client.request(method, path, sent)
        except (OSError, EOFError) as error:
            self._tally.add_broken(kind, error)
        else:
            self._tally.add(kind, answer, sent)

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


def make_product(chance: random.Random) -> dict[str, Any]:
    """Make up what to write, with the proof that goes with it."""
    columns = {
        "attributes": {
            "colour": chance.choice(COLOURS),
            "size": str(chance.randint(1, 60)),
            "discontinued": chance.choice([None, "2026"]),
        },
        "labels": chance.sample(LABELS, chance.randint(0, 4)),
    }
    return {**columns, "proof": json.dumps(columns, sort_keys=True)}


async def report(tally: Tally, every: float, write: Callable[[str], object]) -> None:
    """Write a line about *tally* every *every* seconds until cancelled."""
    while True:
        await asyncio.sleep(every)
        write(
            f"{tally.seconds:7.1f} s  {tally.requests} requests"
            f"  {tally.rate:.0f}/s  server {tally.versions(every)}"
            f"  wrong rows {tally.wrong}  failed to decode {tally.undecoded}"
            f"  cut {tally.cut}  other {sum(tally.other.values())}"
        )


async def main(arguments: list[str] | None = None) -> int:
    """Load the example until the time is over; 1 if anything was read wrong."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.load")
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=5000, help="products there are")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=float, default=300, help="requests a second")
    parser.add_argument("--seconds", type=float, help="default: until stopped")
    options = parser.parse_args(arguments)
    tally = Tally("load")
    load = Load(
        options.url,
        tally,
        rows=options.rows,
        clients=options.clients,
        rate=options.rate,
    )
    reporting = asyncio.create_task(
        report(tally, 5, lambda line: print(line, flush=True))
    )
    try:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(load.run(), options.seconds)
    finally:
        reporting.cancel()
        tally.end()
        for key, text in tally.examples.items():
            print(f"{key}: {text}")
    return 1 if tally.wrong or tally.undecoded else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(asyncio.run(main()))
