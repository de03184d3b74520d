"""``manage.py pg_hot_prove BLUE GREEN mark|check``: that nothing was lost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_pg_hot_async._operator.output import CANNOT_TELL, NO, as_json
from django_pg_hot_async.management import add_sides, check_sides


class Command(BaseCommand):
    """Mark what blue holds while nobody writes; check later that green has it."""

    help = (
        "mark: while nobody writes to blue, note its position in the WAL, its rows"
        " (counts and checksums) and its sequences in a file. check: green has reached"
        " that position, rows agree, blue stands still, green's sequences are ahead,"
        " and nobody of the application is connected to blue. Exit status: 0 if all of"
        " that holds, 1 if not, 2 if it could not be found out."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        add_sides(parser)
        parser.add_argument("action", choices=["mark", "check"])
        parser.add_argument(
            "--file",
            default="pg_hot_prove.json",
            help="what mark writes and check reads (%(default)s)",
        )
        parser.add_argument(
            "--full",
            action="store_true",
            help="mark: all rows, also of tables over 64 MB",
        )
        parser.add_argument(
            "--before-move",
            action="store_true",
            help="check: clients may still be connected to blue",
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=0,
            metavar="SECONDS",
            help="check: look again until all holds",
        )
        parser.add_argument(
            "--json", action="store_true", help="write JSON, for the ticket"
        )

    def handle(self, *args: Any, blue: str, green: str, **options: Any) -> None:
        check_sides(blue, green)
        from django_pg_hot_async._operator.access import CannotTell
        from django_pg_hot_async._operator.prove import check, lines, mark, verdict

        path, before_move = Path(options["file"]), options["before_move"]
        try:
            if options["action"] == "mark":
                marked, conditions = mark(blue, green, full=options["full"]), []
            else:
                marked = _read(path)
                limits = {"before_move": before_move, "wait": options["wait"]}
                conditions = check(blue, green, marked, **limits)
            path.write_text(as_json(marked) + "\n")
        except (CannotTell, OSError) as error:
            raise CommandError(str(error), returncode=CANNOT_TELL) from error
        said = verdict(conditions, before_move=before_move) if conditions else "marked"
        if options["json"]:
            held = all(one.holds for one in conditions)
            told = {"proved": held and bool(conditions), "verdict": said}
            told["conditions"] = [asdict(one) for one in conditions]
            keys = ("marked", "full", "server", "reached", "agreed", "sums")
            self.stdout.write(as_json(told | {key: marked[key] for key in keys}))
        else:
            self.stdout.write("\n".join(lines(blue, green, marked, conditions)))
            self.stdout.write(said[0].upper() + said[1:])
        if not all(one.holds for one in conditions):
            raise CommandError(said, returncode=NO)


def _read(path: Path) -> dict[str, Any]:
    """Read what ``mark`` wrote."""
    from django_pg_hot_async._operator.access import CannotTell
    from django_pg_hot_async._operator.prove import FORMAT

    try:
        marked = json.loads(path.read_text())
    except FileNotFoundError:
        raise CannotTell(f"{path} is not there: mark first, or say --file") from None
    except ValueError as error:
        raise CannotTell(f"{path} is not what mark wrote: {error}") from error
    if not isinstance(marked, dict) or marked.get("format") != FORMAT:
        raise CannotTell(f"{path} is not what mark wrote")
    return marked
