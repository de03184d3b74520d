"""What the commands share."""

from django.core.management.base import CommandError

from django_pg_hot_async._driver import why_no_psycopg


def demand_psycopg(returncode: int) -> None:
    """Raise `CommandError`, with that exit status, where there is no psycopg 3."""
    if why := why_no_psycopg():
        raise CommandError(
            f"psycopg 3 cannot be imported ({why}), and nothing is looked after"
            ' without it: install "psycopg[binary]"',
            returncode=returncode,
        )
