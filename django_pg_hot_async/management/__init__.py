"""What the commands share."""

from django.core.management.base import CommandError

from django_pg_hot_async._django.driver import why_no_psycopg


def require_psycopg(returncode: int) -> None:
    """Raise `CommandError`, with that exit status, where there is no psycopg 3."""
    if why := why_no_psycopg():
        raise CommandError(
            f"psycopg 3 cannot be imported ({why}), and nothing is tracked"
            ' without it: install "psycopg[binary]"',
            returncode=returncode,
        )
