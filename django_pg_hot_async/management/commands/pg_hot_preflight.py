"""``manage.py pg_hot_preflight BLUE GREEN``: would the cutover break?"""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_pg_hot_async._operator.output import CANNOT_TELL, NO, as_json
from django_pg_hot_async.management import require_psycopg


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
        parser.add_argument(
            "green", nargs="?", help="an alias that leads to the new server"
        )
        parser.add_argument(
            "--green-dsn",
            metavar="DSN",
            help="where the new server is, instead of an alias: a connection string of"
            " libpq; what it leaves out is as in BLUE",
        )
        parser.add_argument(
            "--at-cutover",
            action="store_true",
            help="nothing writes any more: what is behind would now be lost",
        )
        parser.add_argument(
            "--json", action="store_true", help="write JSON, for programs"
        )

    def handle(
        self,
        *args: Any,
        blue: str,
        green: str | None,
        green_dsn: str | None,
        **options: Any,
    ) -> None:
        if (green is None) == (green_dsn is None):
            raise CommandError(
                "name either an alias that leads to the new server or --green-dsn",
                returncode=CANNOT_TELL,
            )
        if blue == green:
            raise CommandError(
                f"{blue!r} is given twice: name the alias as it is now, then one in"
                " DATABASES that leads to the new server",
                returncode=CANNOT_TELL,
            )
        require_psycopg(CANNOT_TELL)
        from django_pg_hot_async._operator.preflight import examine
        from django_pg_hot_async._operator.preflight.facts import PreflightError
        from django_pg_hot_async._operator.preflight.output import as_data, as_text

        try:
            report = examine(
                blue, green, green_dsn=green_dsn, at_cutover=options["at_cutover"]
            )
        except PreflightError as error:
            raise CommandError(str(error), returncode=CANNOT_TELL) from error
        if options["json"]:
            self.stdout.write(as_json(as_data(report)))
        else:
            self.stdout.write(as_text(report, self._styles()), ending="")
        if not report.is_ready:
            sys.exit(NO)

    def _styles(self) -> dict[str, Any]:
        return {
            "break": self.style.ERROR,
            "warning": self.style.WARNING,
            "ready": self.style.SUCCESS,
        }
