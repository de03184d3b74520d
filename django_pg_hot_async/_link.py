"""Between a psycopg connection and its server: what is asked of it, and when."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from . import _changes, _memory, _tracking
from ._catalog import FIRST_NORMAL_OID, NOTHING
from ._compat import drop_prepared_statements
from ._reading import aread, read, reading
from ._server import Server
from ._snapshot import Snapshot
from ._trusted import Trusted
from .conf import Trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.abc import AdaptContext, PQGen

    from ._catalog import Catalog, Confirmation
    from ._reading import Connection
    from ._registry import Registry

    IsKnown = Callable[["Link", Snapshot], bool]

logger = logging.getLogger("django_pg_hot_async")

ATTRIBUTE = "_django_pg_hot_async"
"""What a connection has its link under; `_resolver` and `pool` spell it out."""


def link_of(connection: Any) -> Link | None:
    """Return the link of *connection*; None where it is not ours to look after."""
    link: Link | None = getattr(connection, ATTRIBUTE, None)
    return link


def attach(connection: Connection, alias: str) -> Link:
    """Look after *connection* from now on; nothing is sent, nothing awaited.

    Raise `psycopg.OperationalError` where the connection is lost.
    """
    link = Link(_memory.alias(alias), Server.of(connection.pgconn))
    setattr(connection, ATTRIBUTE, link)
    return link


class Link(Trusted):
    """What a connection goes by, asked of its server where it is not to be trusted."""

    __slots__ = ()

    def stand_in(self, oid: int, context: AdaptContext) -> int:
        """Return the stand-in for a value's *oid*; 0 where no tracked type has it.

        Reads the OIDs from the server where they are not known, or where *oid*
        is news: one round trip, before the first value is loaded. Raise the
        database's own error where the read fails.
        """
        reads = self._reads
        snapshot = self.snapshot
        if snapshot is None or not self._is_of_result:
            # What a parameter was sent with was read before the statement ran.
            self._is_of_result = True
            snapshot = self._verify(context, oids=_oids_of(oid, context))
        if (
            self._reads == reads
            and oid not in snapshot.stand_ins
            and oid not in self.untracked
        ):
            # An OID never seen here is evidence: a type made since the read, or
            # another server behind a pooler, or just a type nobody tracks.
            snapshot = self._verify(context, anew=True, oids=_oids_of(oid, context))
        if self._reads != reads:
            self._learn_untracked(_oids_of(oid, context), snapshot)
        return snapshot.stand_ins.get(oid, 0)

    def reread(self, context: AdaptContext) -> Snapshot:
        """Return what the server has now: a value was not of the shape expected."""
        return self._verify(context, anew=True)

    def sending(self, context: AdaptContext, is_known: IsKnown) -> Snapshot:
        """Return what a parameter may be sent with; it is taken as sent.

        *is_known* tells whether a snapshot is enough: it has the OID to send, and where
        the search_path decides which, that is as it was. Reads as `stand_in` does.
        """
        reads = self._reads
        snapshot = self.snapshot or self._verify(context)
        if self._reads == reads and not is_known(self, snapshot):
            snapshot = self._verify(context, anew=True)
        # The cursor may be older than the read, and hold types of its own.
        snapshot.share_types(context.adapters)
        self._has_sent = True
        return snapshot

    def verify(self, connection: psycopg.Connection[Any]) -> bool:
        """Read the OIDs now, for whatever *connection* is used for next.

        One round trip, whatever the trust; a second where the server has not what it
        had. Return whether the server was asked: not where nothing can be read just
        now, or nothing is tracked. Raise the database's own error.
        """
        epoch = self.memory.epoch
        registry = _tracking.current()
        question = registry.question
        confirmation = self._confirmation()
        catalog = read(connection, question, confirmation) if question else None
        return self._learn_if(catalog, confirmation, registry, epoch, connection)

    async def averify(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Read the OIDs now, awaiting the answer; see `verify`."""
        epoch = self.memory.epoch
        registry = _tracking.current()
        question = registry.question
        confirmation = self._confirmation()
        catalog = await aread(connection, question, confirmation) if question else None
        return self._learn_if(catalog, confirmation, registry, epoch, connection)

    def read_ahead(
        self, context: AdaptContext, is_known: IsKnown | None = None
    ) -> PQGen[None]:
        """Read, if that is due, before something in which nothing can be read.

        It is, too, where *is_known*, if given, tells that a snapshot is not enough, as
        for `sending`. A psycopg generator. Under "server" trust nothing is sent where
        the server was read from before. Raise the database's own error.
        """
        epoch = self.memory.epoch
        registry = _tracking.current()
        snapshot = self.snapshot or self._trust_server(epoch, context)
        if (
            snapshot is not None
            and self._is_read
            and (is_known is None or is_known(self, snapshot))
        ):
            # The cursor may be older than the read.
            snapshot.share_types(context.adapters)
        elif registry.question:
            connection: Any = context.connection
            catalog = yield from reading(connection, registry.question)
            # A cursor's execution follows at once; in a pipeline, who knows when.
            is_at_once = catalog is not None and context is not connection
            self._is_ahead = self.memory.trust is Trust.RESULT and is_at_once
            self._learn_if(catalog, None, registry, epoch, context)

    def _learn_if(
        self,
        catalog: Catalog | None,
        confirmation: Confirmation | None,
        registry: Registry,
        epoch: int,
        context: AdaptContext,
    ) -> bool:
        if catalog is not None:
            self._note(catalog, confirmation)
            self._learn(catalog, registry, epoch, context)
        return catalog is not None

    def _verify(
        self,
        context: AdaptContext,
        *,
        anew: bool = False,
        oids: frozenset[int] = frozenset(),
    ) -> Snapshot:
        """Establish trust in the OIDs of the server that *context* talks to.

        Under "server" trust what was read from a server that looks the same is
        taken, unless *anew*. *oids* are those that will be looked up in it.
        """
        connection: Any = context.connection
        memory = self.memory
        epoch = memory.epoch
        known = memory.recall(self.server)
        if not anew and (trusted := self._trust_server(epoch, context)) is not None:
            return trusted
        registry = _tracking.current()
        if not registry.question:
            nothing = Snapshot.of(NOTHING, registry)
            self._trust(nothing, epoch, context)
            return nothing
        started = monotonic()
        confirmation = None if anew else self._confirmation(oids)
        question = replace(registry.question, oids=oids)
        catalog = read(connection, question, confirmation)
        if catalog is None:
            if anew and (verified := self.snapshot) is not None:
                # It is a single OID that is news.
                return verified
            return self._fall_back(known.snapshot if known else None, oids, connection)
        if isinstance(connection, psycopg.AsyncConnection):
            self._count_hold(monotonic() - started)
        self._note(catalog, confirmation)
        return self._learn(catalog, registry, epoch, context)

    def _count_hold(self, seconds: float) -> None:
        self.memory.count_hold(seconds)
        logger.debug(
            "%s: a read of types held the event loop for %.1f ms",
            self.memory.name,
            seconds * 1000,
            extra={"alias": self.memory.name, "seconds": seconds},
        )

    def _learn(
        self, catalog: Catalog, registry: Registry, epoch: int, context: AdaptContext
    ) -> Snapshot:
        """Take *catalog* as what the server says, asked in *epoch*."""
        memory, snapshot = self.memory, Snapshot.of(catalog, registry)
        previous = self._previous
        moved = (
            previous is not None
            and previous != snapshot
            and previous.registry is snapshot.registry
        )
        epoch, change = memory.learn(
            self.server, snapshot, epoch=epoch, moved=moved, is_old=catalog.is_old
        )
        self._trust(snapshot, epoch, context)
        logger.debug(
            "%s: verified a connection to %s",
            memory.name,
            self.server,
            extra={"alias": memory.name},
        )
        if moved:
            # They were prepared with other OIDs, perhaps on another server.
            drop_prepared_statements(context.connection)
        if change is not None:
            _changes.announce(change, in_query=True)
        return snapshot

    def _fall_back(
        self, known: Snapshot | None, oids: frozenset[int], connection: Connection
    ) -> Snapshot:
        """Return what "server" would trust, where nothing can be read just now.

        Where that has none of *oids*, and what the connection was last verified with
        has: that. It stays unverified, so the next chance to read is taken.
        """
        before = self._previous
        if before is not None and (
            known is None
            or (not oids & known.stand_ins.keys() and oids & before.stand_ins.keys())
        ):
            known = before
        # Once: another thread may have a unit of work begin.
        known = self.snapshot or known
        self.memory.count_fallback()
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: OIDs of %s cannot be verified now (transaction status %s,"
                " pipeline %s); using %s",
                self.memory.name,
                self.server,
                pq.TransactionStatus(connection.pgconn.transaction_status).name,
                pq.PipelineStatus(connection.pgconn.pipeline_status).name,
                "those read from it before" if known else "none",
                extra={"alias": self.memory.name},
            )
        return known or Snapshot.of(NOTHING, _tracking.current())


def _oids_of(oid: int, context: AdaptContext) -> frozenset[int]:
    """Return *oid*, and those of the result at hand that initdb did not give."""
    result: Any = getattr(context, "pgresult", None)
    columns = range(result.nfields) if result is not None else ()
    oids = (oid, *(result.ftype(column) for column in columns))
    return frozenset(oid for oid in oids if oid >= FIRST_NORMAL_OID)
