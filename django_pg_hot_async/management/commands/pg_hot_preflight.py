"""``manage.py pg_hot_preflight BLUE GREEN``: would the cutover break?"""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from django_pg_hot_async.management import require_psycopg

WOULD_BREAK = 1
COULD_NOT_TELL = 2


class Command(BaseCommand):
    help = (
        "Compare the servers of two database aliases, that of now and that of after"
        " the cutover, without changing anything. Exit status: 0 where the cutover"
        " would work, 1 where it would break, 2 where it could not be found out."
    )
    # It has to work on the night on which something is wrong.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("blue", help="the alias as the project uses it now")
        parser.add_argument("green", help="an alias that leads to the new server")
        parser.add_argument(
            "--json", action="store_true", help="write JSON, for programs"
        )

    def handle(self, *args: Any, blue: str, green: str, **options: Any) -> None:
        if blue == green:
            raise CommandError(
                f"{blue!r} is given twice: name the alias as it is now, then one in"
                " DATABASES that leads to the new server",
                returncode=COULD_NOT_TELL,
            )
        require_psycopg(COULD_NOT_TELL)
        from django_pg_hot_async._operator.preflight.columns import model_tables
        from django_pg_hot_async._operator.preflight.facts import PreflightError
        from django_pg_hot_async._operator.preflight.output import as_data, as_text
        from django_pg_hot_async._operator.preflight.reading import read_side
        from django_pg_hot_async._operator.preflight.report import compare, wanted_types

        wanted, tables = wanted_types(), model_tables()
        names = [one.name for one in wanted]
        try:
            report = compare(
                read_side(blue, names, tables),
                read_side(green, names, tables),
                wanted,
                tables,
                connections.settings[blue],
            )
        except PreflightError as error:
            raise CommandError(str(error), returncode=COULD_NOT_TELL) from error
        if options["json"]:
            self.stdout.write(json.dumps(as_data(report), indent=2))
        else:
            self.stdout.write(as_text(report, self._styles()), ending="")
        if not report.is_ready:
            sys.exit(WOULD_BREAK)

    def _styles(self) -> dict[str, Any]:
        return {
            "break": self.style.ERROR,
            "warning": self.style.WARNING,
            "ready": self.style.SUCCESS,
        }
