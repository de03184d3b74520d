"""The load of compose.yaml, and the page that shows what comes of it.

    python -m demo.watch --left http://without:8000 --right http://web:8000

The workers on the left are without the app. `demo.cutover` cuts over; the page has no
buttons. Exit status 1: those with the app were not clean.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from .cutover import DATABASE, Remote
from .onlooker import Onlooker, Watched
from .page.server import serve
from .report import Timeline, find_problems, table
from .room import Room

COMMANDS = {
    "Cut over": "docker compose exec web python -m demo.cutover green",
    "Roll back": "docker compose exec web python -m demo.cutover blue",
}
EVERY = 5.0
"""Seconds between two lines of the time line."""


def say(text: str = "") -> None:
    print(text, flush=True)


def main() -> int:
    options = parse()
    load = {"rows": 5000, "rate": options.rate, "clients": options.clients}

    def fleet(title: str, url: str, *, with_app: bool) -> Watched:
        return Watched(title, url, with_app=with_app, count=options.workers, load=load)

    left = fleet("without the app", options.left, with_app=False)
    right = fleet("with the app", options.right, with_app=True)
    onlooker = Onlooker(
        [Remote("blue"), Remote("green")],
        DATABASE,
        Remote("pgbouncer").conninfo("pgbouncer"),
        left,
        right,
        say,
    )
    asyncio.run(watch(onlooker, options.host, options.port))
    say("\n" + table([left.result, right.result]) + "\n")
    for one in (left, right):
        for key, text in one.tally.examples.items():
            say(f"{one.title}, {key}: {text}")
    problems = find_problems(right.result, clients_held=True)
    say("; ".join(problems) if problems else "With the app: not one row read wrong.")
    return 1 if problems else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.watch")
    parser.add_argument("--left", required=True, help="where those without the app are")
    parser.add_argument("--right", required=True, help="where those with the app are")
    parser.add_argument("--workers", type=int, default=2, help="there are at each")
    parser.add_argument("--clients", type=int, default=16, help="of each")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--host", default="127.0.0.1", help="the page listens at")
    parser.add_argument("--port", type=int, default=8000)
    return parser.parse_args()


async def watch(onlooker: Onlooker, host: str, port: int) -> None:
    """Put both fleets under load, and show it, until told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with onlooker.under_load() as tasks:
        timeline = Timeline([fleet.tally for fleet in onlooker.fleets], say)
        onlooker.tell = timeline.tell
        room = Room(onlooker, commands=COMMANDS)
        async with room.open() as watching, serve(room, port, host) as url:
            timeline.tell(f"the page: {url}")
            stopping = asyncio.create_task(stop.wait())
            done: set[asyncio.Task[object]] = set()
            while not done:
                done, _ = await asyncio.wait(
                    [stopping, watching, *tasks],
                    timeout=EVERY,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                timeline.tell("" if not done else "the end")
            for task in done:
                task.result()


if __name__ == "__main__":
    sys.exit(main())
