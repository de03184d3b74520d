"""What each worker of a fleet goes by: asked of itself, once a second."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from .client import Client
from .fleet import Fleet
from .onlooker import Watched

EVERY = 1.0
"""Seconds between two questions."""


FORGOTTEN = 15.0
"""Seconds after which a worker that was not met again is taken for gone."""


class Lookout:
    """The workers of one fleet as plain dicts, kept up to date while it runs.

    Each at its own address, or all at one.
    """

    def __init__(self, fleet: Fleet | Watched) -> None:
        self._fleet = fleet
        self._clients: dict[str, Client] = {}
        self._since: dict[int, float] = {}
        self._met: dict[int, tuple[float, dict[str, Any]]] = {}
        self.workers: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                await self.ask()
                await asyncio.sleep(EVERY)
        finally:
            for client in self._clients.values():
                client.close()

    async def ask(self) -> None:
        """Ask every worker that there is now."""
        urls = [web.url for web in self._fleet.workers]
        for url in self._clients.keys() - set(urls):
            self._clients.pop(url).close()
        if len(set(urls)) < len(urls):
            self.workers = await self._meet(urls)
            return
        self.workers = [
            worker
            for worker in await asyncio.gather(*(self._ask(url) for url in urls))
            if worker is not None
        ]

    async def _meet(self, urls: list[str]) -> list[dict[str, Any]]:
        """Ask whoever answers, over new connections; return those who did of late."""
        now = asyncio.get_running_loop().time()
        for url in urls:
            if worker := await self._ask(url):
                self._met[worker["pid"]] = (now, worker)
            self._clients.pop(url).close()
        return [
            worker
            for _, (met, worker) in sorted(self._met.items())
            if now - met < FORGOTTEN
        ]

    async def _ask(self, url: str) -> dict[str, Any] | None:
        if url not in self._clients:
            parts = urlsplit(url)
            assert parts.hostname and parts.port
            self._clients[url] = Client(parts.hostname, parts.port)
        try:
            answer = await self._clients[url].request("GET", "/demo/worker/")
        except (OSError, EOFError):
            # It is being replaced.
            return None
        content = answer.json()
        if content is None:
            raise RuntimeError(f"a worker answers {answer.status}: {answer.body!r}")
        tally, pid = self._fleet.tally, content["pid"]
        return {
            **content,
            # The app knows whose OIDs it has; elsewhere the last row tells.
            "server": content["server"] or tally.worker_servers.get(pid),
            "since": self._since.setdefault(pid, round(tally.seconds, 1)),
        }
