"""``manage.py pg_hot_sequences BLUE GREEN``: carry sequences over."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_pg_hot_async._operator.output import (
    CANNOT_TELL,
    NO,
    as_json,
    count,
    table,
)
from django_pg_hot_async.management import add_sides, check_sides


class Command(BaseCommand):
    """Set green's sequences to where blue's are."""

    help = (
        "Set the sequences of green to where those of blue are, which logical"
        " replication does not do: free ones and those of identity columns as well,"
        " and never backwards. Do it while nobody writes to either. Exit status: 0 if"
        " green's sequences go on where blue's end, 1 if one does not, 2 if it could"
        " not be found out."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        add_sides(parser)
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="show what would be set; exit status 1 if anything would",
        )
        parser.add_argument(
            "--json", action="store_true", help="write JSON, for programs"
        )

    def handle(self, *args: Any, blue: str, green: str, **options: Any) -> None:
        check_sides(blue, green)
        from django_pg_hot_async._operator.access import CannotTell
        from django_pg_hot_async._operator.sequences import carry

        try:
            carried = carry(blue, green, dry_run=options["dry_run"])
        except CannotTell as error:
            raise CommandError(str(error), returncode=CANNOT_TELL) from error
        if options["json"]:
            self.stdout.write(as_json([asdict(one) for one in carried]))
        else:
            rows: list[tuple[str, ...]] = [("sequence", "", "blue", "green", "to set")]
            rows += [
                (one.sequence, one.verdict.replace("_", " "), *map(_shown, numbers))
                for one in carried
                if (numbers := (one.blue, one.green, one.target))
                and one.verdict not in ("same", "ahead")
            ]
            if len(rows) > 1:
                self.stdout.write("\n".join(table(rows, right=2)))
            moved = sum(one.target is not None and one.is_done for one in carried)
            self.stdout.write(f"{count(len(carried), 'sequence')}, {moved:,} set")
        left = [one for one in carried if not one.is_done]
        if left:
            raise CommandError(
                f"{count(len(left), 'sequence')} would give values that blue gave:"
                f" {left[0].sequence} ({left[0].verdict.replace('_', ' ')})"
                f"{' and others' if len(left) > 1 else ''}",
                returncode=NO,
            )


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)
