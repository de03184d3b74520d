"""PostgreSQL 15 to 18 and back under load, without the app and with it, side by side.

    python -m demo [--manual | --fast] [--pgbouncer | --service]

Shows it on a page until Ctrl-C, then prints the table; with --fast, the table alone.
Run it from the top of the repository. It needs nothing but Python packages; PgBouncer
is used where it is installed. Exit
status 1: the fleet with the app was not clean, or the one without it was.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
import webbrowser
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from django_pg_hot_async.testing import PgBouncer, PostgreSQL, binaries

from .report import Timeline, find_problems, table
from .room import Room
from .routes import PgBouncerRoute, ServiceRoute
from .stage import Stage

BLUE, GREEN = 15, 18
ROWS = 5000
CUTOVERS = ("cut over", "roll back", "cut over again")
FAST_PAUSE = 3.0
"""Seconds before, between and after the cutovers of ``--fast``."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Wait = Callable[..., Awaitable[bool]]


def say(text: str = "") -> None:
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    held = options.pgbouncer or (PgBouncer.installed() and not options.service)
    stage: Stage | None = None
    stopped = False
    end_as_on_ctrl_c()
    try:
        began = time.monotonic()
        for major in (BLUE, GREEN):
            binaries(major, progress=say)
        say("starting two servers")
        with (
            PostgreSQL(BLUE) as blue,
            PostgreSQL(GREEN) as green,
            Stage(
                blue,
                green,
                PgBouncerRoute if held else ServiceRoute,
                rows=ROWS,
                rate=options.rate,
                tell=lambda text: say(f"  {text}"),
            ) as stage,
        ):
            say(f"ready after {time.monotonic() - began:.0f} s\n")
            stopped = asyncio.run(rehearse(stage, options))
            # asyncio has put back what was there at first.
            end_as_on_ctrl_c()
            stage.check()
    except KeyboardInterrupt:
        stopped = True
        say("stopped")
    if stage is not None:
        say("\n" + table([fleet.result for fleet in stage.fleets]) + "\n")
        for fleet in stage.fleets:
            for key, text in fleet.tally.examples.items():
                say(f"{fleet.title}, {key}: {text}")
    if stage is None or (stopped and options.fast):
        return 130
    problems = find_problems(stage.right.result, clients_held=held)
    left = stage.left.tally
    if options.fast and not (left.wrong or left.undecoded):
        problems.append("nothing went wrong without the app, so this shows nothing")
    say("; ".join(problems) if problems else "With the app: not one row read wrong.")
    return 1 if problems else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="An upgrade under load, to watch."
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--manual", action="store_true", help="cut over only by the page's buttons"
    )
    kind.add_argument(
        "--fast", action="store_true", help="half a minute, no page, the table alone"
    )
    parser.add_argument(
        "--rate", type=float, default=100, help="requests a second, to each fleet"
    )
    parser.add_argument(
        "--first", type=float, default=20, help="seconds until it cuts over by itself"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="of the page, if it is free"
    )
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    route = parser.add_mutually_exclusive_group()
    route.add_argument("--pgbouncer", action="store_true", help="go through PgBouncer")
    route.add_argument("--service", action="store_true", help="use a service file")
    return parser.parse_args(arguments)


def end_as_on_ctrl_c() -> None:
    """Be interrupted by SIGTERM and by the end of the terminal, too."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


async def rehearse(stage: Stage, options: argparse.Namespace) -> bool:
    """Put both fleets under load; return whether that was ended from outside."""
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    async with stage.under_load() as loads:
        timeline = Timeline([fleet.tally for fleet in stage.fleets], say)
        stage.tell = timeline.tell
        wait = partial(wait_for, [stopping, *loads])
        if options.fast:
            await run_through(stage, wait)
        else:
            await show(stage, options, wait)
        timeline.tell("the end")
    return stop.is_set()


async def run_through(stage: Stage, wait: Wait) -> None:
    """Cut over, back, and over again."""
    for number, what in enumerate(CUTOVERS, 1):
        if await wait(FAST_PAUSE):
            return
        stage.tell(f"{number}. {what}")
        await stage.cut_over()
    await wait(FAST_PAUSE)


async def show(stage: Stage, options: argparse.Namespace, wait: Wait) -> None:
    """Serve the page until stopped."""
    from .page.server import serve

    room = Room(stage, first=None if options.manual else options.first)
    async with room.open() as task, serve(room, options.port) as url:
        stage.tell(f"the page: {url}")
        say(f"\n    {url}    (Ctrl-C ends it)\n")
        if options.open:
            await asyncio.to_thread(webbrowser.open, url)
        await wait(None, task)


async def wait_for(
    tasks: Sequence[asyncio.Task[object]],
    seconds: float | None,
    *more: asyncio.Task[object],
) -> bool:
    """Wait until one of *tasks* ends, which none but the first should; whether it did.

    Raise what the others raised.
    """
    done, _ = await asyncio.wait(
        [*tasks, *more], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    for task in done:
        task.result()
    return bool(done)


if __name__ == "__main__":
    sys.exit(main())
