"""``manage.py pg_hot_status``: where each alias leads, as of now."""

from __future__ import annotations

import argparse
import re
from itertools import chain
from time import monotonic, sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from django_pg_hot_async._operator.output import CANNOT_TELL, NO, YES, as_json
from django_pg_hot_async.management import check_alias, require_psycopg

EVERY = 1.0
"""Seconds between two looks, with ``--wait``."""


def release(text: str) -> str:
    """Check a version of PostgreSQL as given on the command line."""
    if not re.fullmatch(r"[1-9]\d(\.\d+|\d{4})?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no version such as 18, 18.6 or 180006"
        )
    return text


def seconds(text: str) -> float:
    """Check a time to wait as given on the command line."""
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return float(text)


class Command(BaseCommand):
    """Show which server each PostgreSQL alias leads to now, and its types."""

    help = (
        "Show which server each PostgreSQL alias leads to now, and the OIDs of its"
        " types. It asks over a new connection, as a process started now would: two"
        " statements, 10 seconds at most. What running processes remember it cannot"
        " see: that is django_pg_hot_async.status(), called in them. Whether they"
        " still have connections to the server that was left, --drained tells. Exit"
        " status: 0 if every server answered (and, with --expect, is of that version;"
        " with --drained, nobody of the application is connected), 1 if not, 2 if"
        " asking again would not help."
    )
    # It is for the night on which a check may well fail.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--database",
            metavar="ALIAS",
            help="Ask the server of this alias only.",
        )
        parser.add_argument("--json", action="store_true", help="Print JSON.")
        parser.add_argument(
            "--expect",
            metavar="VERSION",
            type=release,
            help=(
                "Exit with 1 unless every alias leads to this version: 18, 18.6 or"
                " 180006. One alias, one line."
            ),
        )
        parser.add_argument(
            "--drained",
            metavar="ALIAS",
            help=(
                "Show who is connected to the database of this alias, and exit with 1"
                " while its own role is. --expect does not expect anything of it."
            ),
        )
        parser.add_argument(
            "--end",
            action="store_true",
            help=(
                "With --drained: end the connections of its own role; with --expect,"
                " once every other alias leads where it is to."
            ),
        )
        parser.add_argument(
            "--wait",
            metavar="SECONDS",
            type=seconds,
            help="Ask again, every second, until the exit status is not 1.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        expected: str | None = options["expect"]
        drained: str | None = options["drained"]
        chosen: str | None = options["database"]
        for option, needed in (("end", drained), ("wait", expected or drained)):
            if options[option] and not needed:
                raise CommandError(
                    f"--{option} needs --drained"
                    f"{' or --expect' if option == 'wait' else ''}",
                    returncode=CANNOT_TELL,
                )
        for alias in (chosen, drained):
            if alias is not None:
                check_alias(alias)
        require_psycopg(CANNOT_TELL)
        from django_pg_hot_async._operator.status_report import judge

        aliases = [chosen] if chosen else list(connections.settings)
        if drained:
            aliases = [alias for alias in aliases if expected and alias != drained]
        wants = expected or (chosen and not drained)
        deadline, shown = monotonic() + (options["wait"] or 0), ""
        while True:
            entries = self._look(aliases, expected, drained, options["end"])
            status, why = judge(entries, expected)
            if status == YES and wants and not _answered(entries):
                status, why = CANNOT_TELL, "there was nothing to ask"
            is_last = status != NO or monotonic() >= deadline
            text = self._text(entries, expected, drained, status == YES)
            if options["json"]:
                text = as_json(entries) if is_last else shown
            if text != shown:
                self.stdout.write(text)
                self.stdout.flush()
                shown = text
            if is_last:
                break
            sleep(max(0, min(EVERY, deadline - monotonic())))
        if status:
            raise CommandError(why, returncode=status)

    @staticmethod
    def _look(
        aliases: list[str], expected: str | None, drained: str | None, end: bool
    ) -> list[dict[str, Any]]:
        from django_pg_hot_async import status
        from django_pg_hot_async._operator import probe
        from django_pg_hot_async._operator.sessions import read_sessions
        from django_pg_hot_async._operator.status_report import entry_of, judge

        remembered = {entry["alias"]: entry for entry in status()}
        wanted = [*aliases, drained] if drained else aliases
        answers = probe.ask_all(wanted)
        entries = [
            entry_of(alias, answers[alias], remembered.get(alias), expected)
            for alias in aliases
        ]
        if drained:
            # After the others: who connects from now on goes where they lead.
            ends = end and judge(entries, expected)[0] == YES
            found = probe.in_time(
                [drained], lambda alias: read_sessions(alias, end=ends)
            )
            entries.append(
                entry_of(
                    drained,
                    answers[drained],
                    remembered.get(drained),
                    None,
                    found[drained],
                )
            )
        return entries

    @staticmethod
    def _text(
        entries: list[dict[str, Any]],
        expected: str | None,
        drained: str | None,
        is_there: bool,
    ) -> str:
        from django_pg_hot_async._operator.status_report import (
            lines,
            session_lines,
            short_lines,
        )

        asked, told = entries[:-1] if drained else entries, list[str]()
        if expected:
            told += short_lines(asked, expected)
        else:
            told += chain.from_iterable(map(lines, asked))
        if drained:
            told += session_lines(entries[-1])
        elif expected and is_there:
            told.append(
                "for new connections; who is still connected to the server that was"
                " left, --drained ALIAS tells"
            )
        return "\n".join(told)


def _answered(entries: list[dict[str, Any]]) -> bool:
    """Whether an alias that something is expected of answered."""
    return any(
        entry["state"] == "answered" for entry in entries if entry["sessions"] is None
    )
