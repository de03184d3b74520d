"""Telling people that a server changed: the log, the signal, Django's caches."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import connections

from django_pg_hot_async._core.server import Server
from django_pg_hot_async.signals import server_changed
from django_pg_hot_async.typing import ServerState

from . import contrib_postgres

if TYPE_CHECKING:
    from django_pg_hot_async._core.runtime import Change
    from django_pg_hot_async._core.snapshot import Snapshot

logger = logging.getLogger("django_pg_hot_async")


def announce(change: Change, in_query: bool) -> None:
    """Log *change*, and send `server_changed`.

    *in_query*: a query is under way on the connection that showed the change, or
    a pool at work on it. A receiver that used the connection, or wanted another
    of a pool that has no more, would wait for itself: a thread of its own sends.
    """
    contrib_postgres.clear_caches()
    _log(change)
    if change.new is not None and change.old_server != change.new_server:
        # That was told on arrival.
        return
    old = _state(change.old_server, change.old)
    new = _state(change.new_server, change.new)
    if in_query or _in_event_loop():
        thread = threading.Thread(
            target=_send_and_close,
            args=(change.alias, old, new, change.is_return),
            name=f"django_pg_hot_async-{change.alias}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            # The interpreter shuts down (Python 3.12), or has no thread left.
            logger.warning("%s: server_changed is not sent: %s", change.alias, error)
    else:
        _send(change.alias, old, new, change.is_return)


def _send(alias: str, old: ServerState, new: ServerState, is_return: bool) -> None:
    # It logs what receivers raise, to "django.dispatch".
    server_changed.send_robust(
        sender=None, alias=alias, old=old, new=new, is_return=is_return
    )


def _send_and_close(
    alias: str, old: ServerState, new: ServerState, is_return: bool
) -> None:
    try:
        _send(alias, old, new, is_return)
    finally:
        # Those that receivers opened in this thread, which ends here.
        connections.close_all()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _seen(server: Server, snapshot: Snapshot | None) -> Server:
    """Return *server* with the version that it gave itself, if it was asked.

    A connection that a pooler moved goes on showing the one before.
    """
    if snapshot is None or not snapshot.version:
        return server
    return replace(server, version=snapshot.version)


def _state(server: Server, snapshot: Snapshot | None) -> ServerState:
    server = _seen(server, snapshot)
    return ServerState(
        version=server.version,
        host=server.host,
        port=server.port,
        dbname=server.dbname,
        types=None if snapshot is None else _oids(snapshot),
    )


def _log(change: Change) -> None:
    old = _seen(change.old_server, change.old)
    new = _seen(change.new_server, change.new)
    extra = {
        "alias": change.alias,
        "old_version": old.version,
        "new_version": new.version,
    }
    is_other = change.new is None or (
        change.old_server == change.new_server and old.version != new.version
    )
    if is_other:
        logger.info(
            "%s: moved back from %s to %s"
            if change.is_return
            else "%s: moved from %s to %s",
            change.alias,
            old,
            new,
            extra=extra,
        )
    if change.new is not None:
        logger.info(
            "%s: types of %s: %s",
            change.alias,
            new,
            moved_types(change.old, change.new),
            extra=extra,
        )


def _oids(snapshot: Snapshot | None) -> dict[str, int]:
    types = {} if snapshot is None else snapshot.by_name()
    return {name: row.oid for name, row in types.items()}


def moved_types(old: Snapshot | None, new: Snapshot) -> str:
    """Write which types are others now: ``hstore 16386 -> 16497, ...``."""
    before, after = _oids(old), _oids(new)
    moves = [
        f"{printable(name)} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return ", ".join(moves) or _reshaped_types(old, new)


def printable(name: str) -> str:
    """Write *name*, which anybody with CREATE may choose, on one line of a log."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _reshaped_types(old: Snapshot | None, new: Snapshot) -> str:
    """Write which types are made of something else, under the OIDs that they had."""
    before = {} if old is None else old.by_name()
    names = [
        name
        for name, row in new.by_name().items()
        if name in before and before[name] != row
    ]
    return (
        f"same OIDs; changed: {', '.join(map(printable, names))}"
        if names
        else "same OIDs"
    )
