"""PostgreSQL 15 to 18 and back under load, without the app and with it.

    python demo.py [--fast] [--pgbouncer | --service]

Needs nothing but Python packages; PgBouncer is used where it is installed. Exit
status 1: the run with the app was not clean, or the one without it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rehearsal import shop
from rehearsal.load import Load
from rehearsal.report import Result, Timeline, find_problems, table
from rehearsal.routes import PgBouncerRoute, Route, ServiceRoute
from rehearsal.tally import Tally
from rehearsal.web import Web

from django_pg_hot_async.testing import PgBouncer, PostgreSQL, Replication, binaries

BLUE, GREEN = 15, 18
ROWS = 5000
CUTOVERS = ("cut over", "roll back", "cut over again")


@dataclass(frozen=True)
class Plan:
    """How long a run takes: seconds before, between and after its cutovers."""

    route: Callable[[PostgreSQL, str], Route]
    pause: float
    rate: float


def say(text: str = "") -> None:
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A cutover under load.")
    parser.add_argument("--fast", action="store_true", help="under a minute in all")
    parser.add_argument("--rate", type=float, default=300, help="requests a second")
    route = parser.add_mutually_exclusive_group()
    route.add_argument("--pgbouncer", action="store_true", help="go through PgBouncer")
    route.add_argument("--service", action="store_true", help="use a service file")
    options = parser.parse_args(arguments)
    held = options.pgbouncer or (PgBouncer.installed() and not options.service)
    plan = Plan(
        PgBouncerRoute if held else ServiceRoute,
        pause=3 if options.fast else 12,
        rate=options.rate,
    )
    results: list[Result] = []
    stopped = False
    # End on SIGTERM as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rehearse(plan, results)
    except KeyboardInterrupt:
        stopped = True
        say("stopped")
    if results:
        say()
        say(table(results))
    if stopped:
        return 130
    without, with_app = results
    problems = find_problems(with_app, clients_held=held)
    if not (without.tally.wrong or without.tally.undecoded):
        problems.append("nothing went wrong without the app, so this shows nothing")
    say()
    say("; ".join(problems) if problems else "With the app: not one row read wrong.")
    return 1 if problems else 0


def rehearse(plan: Plan, results: list[Result]) -> None:
    """Run without the app, then with it; each adds to *results* as it begins."""
    began = time.monotonic()
    for major in (BLUE, GREEN):
        binaries(major, progress=say)
    with PostgreSQL(BLUE) as blue, PostgreSQL(GREEN) as green:
        for title, without in (("without the app", True), ("with the app", False)):
            dbname = f"shop_{len(results) + 1}"
            say(f"\n{title.upper()} ({time.monotonic() - began:.0f} s since the start)")
            shop.prepare(blue, green, dbname, ROWS, lambda text: say(f"  {text}"))
            with (
                plan.route(blue, dbname) as route,
                Replication(blue, green, dbname) as replication,
            ):
                replication.wait()
                say(f"  replicated to green; the way to the database: {route.name}")
                environ = {**route.environ, "DEMO_WITHOUT_APP": str(int(without))}
                with Web(environ) as web:
                    result = Result(Tally(title))
                    results.append(result)
                    asyncio.run(under_load(plan, route, replication, web, result))
                check(replication, result)
                for key, text in result.tally.examples.items():
                    say(f"  {key}: {text}")


async def under_load(
    plan: Plan, route: Route, replication: Replication, web: Web, result: Result
) -> None:
    """Put load on *web* and cut over three times meanwhile."""
    tally = result.tally = Tally(result.tally.title)
    load = asyncio.create_task(Load(web.url, tally, rows=ROWS, rate=plan.rate).run())
    timeline = Timeline(tally, say)
    try:
        await watch(load, plan.pause)
        for number, what in enumerate(CUTOVERS, 1):
            ends = shop.release(replication.source), shop.release(replication.target)
            timeline.tell(f"{number}. {what}: {ends[0]} to {ends[1]}")
            await asyncio.to_thread(route.cut_over, replication, timeline.tell)
            result.cutovers = number
            await watch(load, plan.pause)
            timeline.tell(f"{plan.pause:g} s later")
    finally:
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load
        tally.end()
    workers = len(tally.workers)
    timeline.tell(f"the end: {tally.requests} requests, {workers} workers")


async def watch(load: asyncio.Task[None], seconds: float) -> None:
    """Wait, unless the load itself breaks down."""
    done, _ = await asyncio.wait([load], timeout=seconds)
    for task in done:
        task.result()


def check(replication: Replication, result: Result) -> None:
    """Look for what was written in the run, on the servers themselves."""
    replication.wait()
    source, dbname = replication.source, replication.dbname
    result.lost = shop.count_lost(source, dbname, result.tally.created)
    result.stored_wrong = shop.count_stored_wrong(source, dbname)
    result.servers_agree = shop.fingerprint(source, dbname) == shop.fingerprint(
        replication.target, dbname
    )


if __name__ == "__main__":
    sys.exit(main())
