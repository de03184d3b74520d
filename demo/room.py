"""The control room: what the page shows of a stage, and what its buttons do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from . import shop
from .fleet import Fleet
from .gauge import SAMPLES, TICK, Gauge
from .lookout import Lookout
from .onlooker import Onlooker, Watched
from .stage import Busy, Stage

PAUSE, SOON = 40.0, 5.0
"""Seconds until it cuts over by itself: after it did, and when it is told to."""
BUTTONS = ("cut-over", "roll-back", "app", "automatic")
SHOWN = 600.0
"""Seconds of the time line that are shown."""

State = dict[str, Any]


class Room:
    """Watch *stage* and act on it; *first* says when to cut over unasked, if at all.

    Where there are *commands* that act on it, with what each does, the room has no
    buttons: it only watches.
    """

    def __init__(
        self,
        stage: Stage | Onlooker,
        *,
        first: float | None = None,
        commands: Mapping[str, str] | None = None,
    ) -> None:
        self.stage = stage
        self.commands = commands
        self._due = first
        self._tasks: set[asyncio.Task[None]] = set()
        self._gauges: list[Gauge] = []
        self._lookouts: list[Lookout] = []
        self._ended = False
        self._turn = asyncio.Event()
        self._tick: State = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """Watch for the block; yield the task that does. At its end nothing is left."""
        self._gauges = [Gauge(fleet.tally) for fleet in self.stage.fleets]
        self._lookouts = [Lookout(fleet) for fleet in self.stage.fleets]
        task = asyncio.create_task(self._run())
        try:
            yield task
        finally:
            self.end()
            # What has begun on the servers is seen through.
            await asyncio.gather(*self._tasks, return_exceptions=True)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def end(self) -> None:
        """Begin nothing more, and tell those who follow that it is over."""
        self._due = None
        self._ended = True
        self._end_turn()

    # The buttons

    def press(self, button: str) -> None:
        """Begin what *button* says; raise `Busy` or `ValueError` where it cannot be.

        Whoever cuts over by hand is left to it: nothing goes by itself from then on.
        """
        if not isinstance(self.stage, Stage):
            raise ValueError("nothing can be done from here")
        if button == "automatic":
            self._due = self.stage.seconds + SOON if self._due is None else None
            return
        if self.stage.doing:
            raise Busy(f"still {self.stage.doing}")
        if button == "app":
            left = self.stage.left
            self._begin(self.stage.change_app(not left.with_app))
            return
        target = {"cut-over": 1, "roll-back": 0}[button]
        if target == self.stage.serving:
            release = shop.release(self.stage.servers[target])
            raise ValueError(f"PostgreSQL {release} serves both fleets already")
        self._due = None
        self._begin(self.stage.cut_over())

    def _begin(self, doing: Any) -> None:
        task = asyncio.create_task(doing)
        self._tasks.add(task)

    # What is seen

    def describe_servers(self) -> list[State]:
        """Return what is the same all the time: releases, and types with their OIDs."""
        ends = zip(self.stage.servers, self.stage.types, strict=True)
        return [
            {"number": end.version, "release": shop.release(end), "types": types}
            for end, types in ends
        ]

    async def follow(self) -> AsyncIterator[tuple[str, State]]:
        """Yield what there is now, then what is new with each sample, to the end."""
        yield (
            "all",
            {
                "servers": self.describe_servers(),
                "route": self.stage.route_name,
                "tick": TICK,
                "length": SAMPLES,
                "samples": [list(gauge.samples) for gauge in self._gauges],
                **self._tick,
            },
        )
        while not self._ended:
            await self._turn.wait()
            yield "tick", self._tick
        yield "end", {}

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            asking = [asyncio.create_task(one.run()) for one in self._lookouts]
            for task in asking:
                stack.callback(task.cancel)
            while True:
                self._raise_what_failed(asking)
                if self._due is not None and self.stage.seconds >= self._due:
                    self._due = self.stage.seconds + PAUSE
                    if isinstance(self.stage, Stage) and not self.stage.doing:
                        self._begin(self.stage.cut_over())
                latest = [gauge.take() for gauge in self._gauges]
                self._tick = {**self._describe(), "sample": latest}
                self._end_turn()
                await asyncio.sleep(TICK)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def _raise_what_failed(self, asking: list[asyncio.Task[None]]) -> None:
        for task in [*self._tasks, *asking]:
            if task.done():
                self._tasks.discard(task)
                # Two began at once, and one was first.
                with contextlib.suppress(Busy):
                    task.result()

    def _describe(self) -> State:
        stage, now = self.stage, self.stage.seconds
        fleets: Sequence[Fleet | Watched] = stage.fleets
        return {
            "now": round(now, 2),
            "serving": stage.serving,
            "doing": stage.doing,
            "due": None if self._due is None else max(round(self._due - now, 1), 0),
            "switches": self._describe_switches(now - SHOWN),
            "fleets": [
                self._describe_fleet(fleet, gauge, lookout, now - SHOWN)
                for fleet, gauge, lookout in zip(
                    fleets, self._gauges, self._lookouts, strict=True
                )
            ],
        }

    def _describe_fleet(
        self, fleet: Fleet | Watched, gauge: Gauge, lookout: Lookout, after: float
    ) -> State:
        tally = fleet.tally
        column, _, values = tally.last_fault.partition(" is ")
        value, _, must_be = values.partition(", must be ")
        return {
            "app": fleet.with_app,
            "rows": tally.rows,
            "wrong": tally.wrong,
            "requests": tally.requests,
            "undecoded": tally.undecoded,
            "failed": tally.failures,
            "fault": values and {"of": column, "is": value, "must": must_be},
            "faults": [span for span in gauge.faults if span[1] >= after],
            "workers": lookout.workers,
        }

    def _describe_switches(self, after: float) -> list[State]:
        """Describe the last switches, each with what went wrong until the next."""
        described = []
        end: Sequence[int] = self.stage.counts()
        for switch in reversed(self.stage.switches):
            if switch.at < after:
                break
            described.append(
                {
                    "at": round(switch.at, 2),
                    "from": switch.source,
                    "to": switch.target,
                    "seconds": switch.seconds and round(switch.seconds, 2),
                    "wrong": [
                        new - old for new, old in zip(end, switch.counts, strict=True)
                    ],
                }
            )
            end = switch.counts
        return described[::-1]


def room_of(request: Any) -> Room:
    """Return the room that the page's server has put into a request's scope."""
    room: Room = request.scope["room"]
    return room
