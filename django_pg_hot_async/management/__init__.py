"""What the commands share."""

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from django_pg_hot_async._django.driver import why_no_psycopg
from django_pg_hot_async._operator.output import CANNOT_TELL


def require_psycopg(returncode: int) -> None:
    """Raise `CommandError`, with that exit status, where there is no psycopg 3."""
    if why := why_no_psycopg():
        raise CommandError(
            f"psycopg 3 cannot be imported ({why}), and nothing is tracked"
            ' without it: install "psycopg[binary]"',
            returncode=returncode,
        )


def check_alias(alias: str, returncode: int = CANNOT_TELL) -> None:
    """Raise `CommandError`, with that exit status, where *alias* does not exist."""
    if alias not in connections.settings:
        known = ", ".join(map(repr, sorted(connections.settings)))
        raise CommandError(
            f"{alias!r} is no alias in DATABASES; there is {known}",
            returncode=returncode,
        )


def add_sides(parser: CommandParser) -> None:
    """Have a command take the aliases of blue and of green."""
    parser.add_argument("blue", help="an alias that leads to the server to be left")
    parser.add_argument("green", help="an alias that leads to the new server")


def check_sides(blue: str, green: str, returncode: int = CANNOT_TELL) -> None:
    """Raise `CommandError` where the two are one alias, or nothing can be asked."""
    if blue == green:
        raise CommandError(
            f"{blue!r} is given twice: name an alias that leads to the server to be"
            " left, then one that leads to the new server",
            returncode=returncode,
        )
    for alias in (blue, green):
        check_alias(alias, returncode)
    require_psycopg(returncode)
