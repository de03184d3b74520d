"""What users call: forgetting."""

from __future__ import annotations

from django.utils.connection import ConnectionDoesNotExist

from .driver import why_no_psycopg


def forget(alias: str | None = None) -> None:
    """Drop the OIDs remembered of *alias*, or of every alias.

    Nothing is sent: each connection asks again before it next decodes or sends
    a value of a tracked type. Safe in any thread, at any time. Raise
    `django.db.utils.ConnectionDoesNotExist` for an alias that is neither in
    DATABASES nor the label of a pool. Without psycopg 3 there is nothing to forget.
    """
    if why_no_psycopg():
        return
    from django.db import connections

    from django_pg_hot_async._core.runtime import runtime

    if alias is None:
        runtime.withdraw_all()
    elif alias in runtime.aliases or alias in connections:
        runtime.alias(alias).withdraw()
    else:
        raise ConnectionDoesNotExist(
            f"cannot forget {alias!r}: it is not an alias in DATABASES, and no pool is"
            " labelled so"
        )
