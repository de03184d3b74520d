"""``manage.py pg_hot_status``: where each alias leads, as of now."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from django_pg_hot_async.management import require_psycopg

CANNOT_HELP = 2
"""Exit status where waiting and asking again would not help."""


def release(text: str) -> str:
    """Check a version of PostgreSQL as given on the command line."""
    if not re.fullmatch(r"[1-9]\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version such as 18 or 18.6")
    return text


class Command(BaseCommand):
    """Show which server each PostgreSQL alias leads to now, and its types."""

    help = (
        "Show which server each PostgreSQL alias leads to now, and the OIDs of its"
        " types. It asks over a new connection, as a process started now would: two"
        " statements, 10 seconds at most. What running processes remember, and where"
        " connections that they hold open lead, it cannot see: that is"
        " django_pg_hot_async.status(), called in them. Exit status: 0 if every"
        " server answered (and, with --expect, is of that version), 1 if not, 2 if"
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
                "Exit with 1 until every alias leads to this version, 18 or 18.6; for"
                " scripts that wait. One alias, one line."
            ),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        expected: str | None = options["expect"]
        alias: str | None = options["database"]
        if alias is not None and alias not in connections.settings:
            known = ", ".join(map(repr, sorted(connections.settings)))
            raise CommandError(
                f"{alias!r} is no alias in DATABASES; there is {known}",
                returncode=CANNOT_HELP,
            )
        require_psycopg(CANNOT_HELP)
        from django_pg_hot_async import status
        from django_pg_hot_async._operator import probe
        from django_pg_hot_async._operator.status_report import (
            entry_of,
            lines,
            short_lines,
        )

        remembered = {entry["alias"]: entry for entry in status()}
        answers = probe.ask_all([alias] if alias else connections.settings)
        entries = [
            entry_of(name, answer, remembered.get(name), expected)
            for name, answer in answers.items()
        ]
        if options["json"]:
            self.stdout.write(json.dumps(entries, indent=2))
        elif expected:
            self.stdout.write("\n".join(short_lines(entries, expected)))
        else:
            self.stdout.write("\n".join(chain.from_iterable(map(lines, entries))))
        judge(entries, expected, is_chosen=alias is not None)


def judge(
    entries: Iterable[dict[str, Any]], expected: str | None, *, is_chosen: bool
) -> None:
    """Raise `CommandError` where the exit status has something to tell."""
    failed = [entry["alias"] for entry in entries if entry["state"] == "failed"]
    if failed:
        raise CommandError(f"no answer from {', '.join(failed)}")
    answered = [entry for entry in entries if entry["state"] == "answered"]
    if not answered and (expected or is_chosen):
        raise CommandError("there was nothing to ask", returncode=CANNOT_HELP)
    others = [
        f"{entry['alias']} is on {entry['server']['release']}"
        for entry in answered
        if expected and not entry["is_expected"]
    ]
    if others:
        raise CommandError(f"not on {expected} yet: {', '.join(others)}")
