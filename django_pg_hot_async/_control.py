"""What users call: forgetting, and beginning a unit of work."""

from __future__ import annotations

from contextlib import ContextDecorator

from django.conf import settings
from django.utils.connection import ConnectionDoesNotExist


def forget(alias: str | None = None) -> None:
    """Drop the OIDs remembered of *alias*, or of every alias.

    Nothing is sent: each connection reads again before it next decodes or sends
    a value of a tracked type. Safe in any thread, at any time. Raise
    `django.db.utils.ConnectionDoesNotExist` for an alias that is neither in
    DATABASES nor the label of a pool.
    """
    from . import _memory

    if alias is None:
        _memory.withdraw_all()
    elif alias in _memory.aliases() or alias in settings.DATABASES:
        _memory.alias(alias).withdraw()
    else:
        raise ConnectionDoesNotExist(
            f"cannot forget {alias!r}: it is no alias in DATABASES, and no pool is"
            " labelled so"
        )


class work_unit(ContextDecorator):
    """Begin a unit of work: under "checkout" trust, OIDs are read anew in it.

    A context manager and a decorator. Requests begin one by themselves. It counts
    for the connections that are open in the thread, or context, at its beginning;
    one that is opened later is read from anyway.
    """

    def __enter__(self) -> None:
        from . import _receiver

        _receiver.begin_work_unit()

    def __exit__(self, *exc: object) -> None:
        return None
