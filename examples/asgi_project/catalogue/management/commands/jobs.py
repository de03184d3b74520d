"""``manage.py jobs``: a process of its own for the catalogue's jobs."""

from __future__ import annotations

import signal
from threading import Event
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import OperationalError, close_old_connections
from django.utils import timezone

from catalogue.jobs import follow_the_calendar


class Command(BaseCommand):
    help = "Put products on sale and retire them, as their days come and go."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="do not go on")
        parser.add_argument("--every", type=float, default=10, help="seconds")

    def handle(self, *args: Any, once: bool, every: float, **options: Any) -> None:
        stopped = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        while not stopped.is_set():
            # As before and after a request: back to the pool with the connection.
            close_old_connections()
            try:
                done = follow_the_calendar(timezone.localdate())
                if any(done.values()):
                    told = (f"{count} {what}" for what, count in done.items())
                    self.stdout.write(", ".join(told))
            except OperationalError as error:
                # A cutover has cut the connection, say; the next round gets another.
                self.stderr.write(f"again in {every:g} seconds: {error}")
            close_old_connections()
            if once:
                return
            stopped.wait(every)
