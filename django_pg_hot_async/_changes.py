"""Telling people that a server changed: the log, the signal, Django's caches."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.db import connections

from .signals import server_changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._memory import Change
    from ._server import Server
    from ._snapshot import Snapshot

logger = logging.getLogger("django_pg_hot_async")


@dataclass(frozen=True, slots=True)
class ServerState:
    """Where an alias leads: what `server_changed` hands to its receivers."""

    version: int
    """``server_version_num``: 180006 is 18.6."""
    host: str
    port: str
    dbname: str
    types: Mapping[str, int] | None
    """OID of each tracked type by name, of several of one name by "schema.name"; None
    where they have not been read."""


def announce(change: Change, *, in_query: bool) -> None:
    """Log *change*, and send `server_changed` unless that was done on arrival.

    *in_query*: a query is under way on the connection that showed the change, or
    a pool at work on it. A receiver that used the connection, or wanted another
    of a pool that has no more, would wait for itself: a thread of its own sends.
    """
    _log(change)
    if change.is_return:
        return
    if change.new is not None and change.old_server != change.new_server:
        return
    old = _state(change.old_server, change.old)
    new = _state(change.new_server, change.new)
    if in_query or _in_event_loop():
        thread = threading.Thread(
            target=_send_and_close,
            args=(change.alias, old, new),
            name=f"django_pg_hot_async-{change.alias}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            # The interpreter shuts down (Python 3.12), or has no thread left.
            logger.warning("%s: server_changed is not sent: %s", change.alias, error)
    else:
        _send(change.alias, old, new)


def _send(alias: str, old: ServerState, new: ServerState) -> None:
    # It logs what receivers raise, to "django.dispatch".
    server_changed.send_robust(sender=None, alias=alias, old=old, new=new)


def _send_and_close(alias: str, old: ServerState, new: ServerState) -> None:
    try:
        _send(alias, old, new)
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
    if snapshot is None:
        return server
    return replace(server, version=snapshot.catalog.version)


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
    if change.new is None:
        logger.info(
            "%s: moved back from %s to %s"
            if change.is_return
            else "%s: moved from %s to %s",
            change.alias,
            old,
            new,
            extra=extra,
        )
    else:
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
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return ", ".join(moves) or _reshaped_types(old, new)


def _reshaped_types(old: Snapshot | None, new: Snapshot) -> str:
    """Write which types are made of something else, under the OIDs that they had."""
    before = {} if old is None else old.by_name()
    names = [
        name
        for name, row in new.by_name().items()
        if name in before and before[name].identity != row.identity
    ]
    return f"same OIDs; changed: {', '.join(names)}" if names else "same OIDs"
