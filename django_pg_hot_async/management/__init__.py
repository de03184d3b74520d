"""What the commands share."""

from django.core.management.base import CommandError
from django.db import connections

from django_pg_hot_async._django.driver import why_no_psycopg


def require_psycopg(returncode: int) -> None:
    """Raise `CommandError`, with that exit status, where there is no psycopg 3."""
    if why := why_no_psycopg():
        raise CommandError(
            f"psycopg 3 cannot be imported ({why}), and nothing is tracked"
            ' without it: install "psycopg[binary]"',
            returncode=returncode,
        )


def check_alias(alias: str, returncode: int = 2) -> None:
    """Raise `CommandError`, with that exit status, where *alias* does not exist."""
    if alias not in connections.settings:
        known = ", ".join(map(repr, sorted(connections.settings)))
        raise CommandError(
            f"{alias!r} is no alias in DATABASES; there is {known}",
            returncode=returncode,
        )
