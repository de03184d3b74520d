"""What is known of one psycopg connection: which OIDs it may trust, and why."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import pq

from . import _changes, _memory, _tracking
from ._catalog import FIRST_NORMAL_OID, NOTHING
from ._compat import drop_prepared_statements
from ._reading import aread, read
from ._server import Server
from ._snapshot import Snapshot
from .conf import Trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.abc import AdaptContext, Loader
    from psycopg.pq.abc import PGconn

    from ._catalog import Catalog, Check
    from ._memory import Alias
    from ._reading import Connection
    from ._registry import Registry

    IsKnown = Callable[["Link", Snapshot], bool]

logger = logging.getLogger("django_pg_hot_async")

ATTRIBUTE = "_django_pg_hot_async"
"""What a connection has its link under; `_resolver` and `pool` spell it out."""

LoadersByFormat: TypeAlias = "tuple[dict[int, type[Loader]], ...]"
NO_LOADERS: LoadersByFormat = ({}, {})


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


class Link:
    """Between a psycopg connection and the OIDs of the server behind it.

    It is used by whoever uses the connection, one thread or task at a time, and
    has no lock of its own.
    """

    __slots__ = (
        "_has_sent",
        "_is_of_result",
        "_missed",
        "_previous",
        "_reads",
        "_search_path",
        "_snapshot",
        "_warned",
        "epoch",
        "is_own",
        "is_told",
        "loaders",
        "memory",
        "server",
        "untracked",
    )

    def __init__(self, memory: Alias, server: Server) -> None:
        self.memory = memory
        self.server = server
        self.is_told = False
        """Whether its wrapper tells of each checkout, before `connection_created`."""
        self.is_own = False
        """Whether the project opened it, and Django sees none of its errors."""
        self._snapshot: Snapshot | None = None
        self._previous: Snapshot | None = None
        self.epoch = -1
        """Of the memory, when the OIDs were verified; they count in no other."""
        self.loaders: LoadersByFormat = NO_LOADERS
        """By format and OID, those that are decided: no question in `epoch`."""
        self._has_sent = False
        self._reads = 0
        # Python types that were sent, since the last read, without the OID of their
        # own: the server has none.
        self._missed: frozenset[type] = frozenset()
        # As the connection reported it at the last read; PostgreSQL 18 does.
        self._search_path: bytes | None = None
        self.untracked: frozenset[int] = frozenset()
        """OIDs that were asked about and are of no tracked type."""
        self._warned = False
        # Under "result" trust: not before the OIDs were read for the result at hand.
        self._is_of_result = True

    @property
    def snapshot(self) -> Snapshot | None:
        """What this connection was verified with; None while it is not."""
        return self._snapshot if self.epoch == self.memory.epoch else None

    @property
    def awaits_read(self) -> bool:
        """Whether a read now, where it can be awaited, spares the next query one.

        Not under "result" trust, which no read before a query counts for; under
        "server" trust not where the server was read from before.
        """
        if self.snapshot is not None or self.memory.trust is Trust.RESULT:
            return False
        is_known = self.memory.recall(self.server) is not None
        return not (is_known and self.memory.trust is Trust.SERVER)

    def renew(self) -> None:
        """Begin a new checkout or work unit: what was read before is not trusted."""
        if self.memory.trust >= Trust.CHECKOUT:
            self._snapshot = None
            self.loaders = NO_LOADERS

    def begin(self) -> bool:
        """Begin an execution; return whether a cursor may hold what is stale now."""
        self._is_of_result = self.memory.trust is not Trust.RESULT
        if not self._is_of_result:
            self._snapshot = None
            self.loaders = NO_LOADERS
        return self._previous is not None or self._warned

    def doubt(self, *, refused: bool) -> bool:
        """Take an error as evidence against every connection of the alias.

        *refused*: it was the server that refused a statement, which is evidence
        only where an OID had been sent since the OIDs were last read. Return
        whether trust was withdrawn.
        """
        if self.snapshot is None or (refused and not self._has_sent):
            return False
        self._has_sent = False
        self.memory.withdraw()
        return True

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

        *is_known* tells for a snapshot whether it has an OID to send, and whether
        the search_path decides which. Reads as `stand_in` does.
        """
        reads = self._reads
        snapshot = self.snapshot or self._verify(context)
        if self._reads == reads and not is_known(self, snapshot):
            snapshot = self._verify(context, anew=True)
        # The cursor may be older than the read, and hold types of its own.
        snapshot.share_types(context.adapters)
        self._has_sent = True
        return snapshot

    def misses(self, key: type) -> bool:
        """Note that the server has no type for *key*; return whether that is news."""
        is_news = key not in self._missed
        self._missed |= {key}
        return is_news

    def has_search_path(self, pgconn: PGconn) -> bool:
        """Whether *pgconn* shows the same search_path as at the last read.

        No before PostgreSQL 18, which is the first to report it; nor where it names
        "$user", which SET ROLE makes another with no word of it.
        """
        reported = pgconn.parameter_status(b"search_path")
        if reported is None or b"$user" in reported:
            return False
        return reported == self._search_path

    def verify(self, connection: psycopg.Connection[Any]) -> bool:
        """Read the OIDs now, for whatever *connection* is used for next.

        One round trip, whatever the trust; a second where the server has not what it
        had. Return whether the server was asked: not where nothing can be read just
        now, or nothing is tracked. Raise the database's own error.
        """
        epoch = self.memory.epoch
        registry = _tracking.current()
        question = registry.question
        check = self._check()
        catalog = read(connection, question, check) if question else None
        return self._learn_if(catalog, check, registry, epoch, connection)

    async def averify(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Read the OIDs now, awaiting the answer; see `verify`."""
        epoch = self.memory.epoch
        registry = _tracking.current()
        question = registry.question
        check = self._check()
        catalog = await aread(connection, question, check) if question else None
        return self._learn_if(catalog, check, registry, epoch, connection)

    def _learn_if(
        self,
        catalog: Catalog | None,
        check: Check | None,
        registry: Registry,
        epoch: int,
        context: AdaptContext,
    ) -> bool:
        if catalog is not None:
            self._note(catalog, check)
            self._learn(Snapshot.of(catalog, registry), epoch, context)
        return catalog is not None

    def _note(self, catalog: Catalog, check: Check | None) -> None:
        """Note what kind of an answer *catalog* is: it may say less than there is."""
        if check is not None and catalog is check.catalog:
            self.untracked = frozenset()
        else:
            self._reads += 1

    def _check(self, oids: frozenset[int] = frozenset()) -> Check | None:
        """Return what has the server confirm what it answered before, if it did.

        Not where one of *oids* was no part of that: the answer would not tell of it.
        """
        known = self.memory.recall(self.server)
        if known is None or known.snapshot.registry is not _tracking.current():
            return None
        return known.snapshot.check if oids <= known.snapshot.stand_ins.keys() else None

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
        if memory.trust is Trust.SERVER and known is not None and not anew:
            self._trust(known.snapshot, epoch, context)
            # That of the connection which read it may have been another.
            self._search_path = None
            self.untracked = known.untracked
            return known.snapshot
        registry = _tracking.current()
        if not registry.question:
            nothing = Snapshot.of(NOTHING, registry)
            self._trust(nothing, epoch, context)
            return nothing
        started = monotonic()
        check = None if anew else self._check(oids)
        question = replace(registry.question, oids=oids)
        catalog = read(connection, question, check)
        if catalog is None:
            return self._fall_back(known.snapshot if known else None, connection)
        if isinstance(connection, psycopg.AsyncConnection):
            self._count_hold(monotonic() - started)
        self._note(catalog, check)
        return self._learn(Snapshot.of(catalog, registry), epoch, context)

    def _count_hold(self, seconds: float) -> None:
        self.memory.hold_loop(seconds)
        logger.debug(
            "%s: a read of types held the event loop for %.1f ms",
            self.memory.name,
            seconds * 1000,
            extra={"alias": self.memory.name, "seconds": seconds},
        )

    def _learn(self, snapshot: Snapshot, epoch: int, context: AdaptContext) -> Snapshot:
        """Take *snapshot* as what the server says, asked in *epoch*."""
        memory = self.memory
        previous = self._previous
        moved = (
            previous is not None
            and previous != snapshot
            and previous.registry is snapshot.registry
        )
        epoch, change = memory.learn(self.server, snapshot, epoch=epoch, moved=moved)
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

    def _trust(self, snapshot: Snapshot, epoch: int, context: AdaptContext) -> None:
        if snapshot != self._previous:
            self.untracked = frozenset()
        self._snapshot = self._previous = snapshot
        if self._is_of_result and not self.is_own:
            self.loaders = snapshot.loaders
        self.epoch = epoch
        self._has_sent = self._warned = False
        assert context.connection is not None
        if snapshot.ambiguous:
            pgconn = context.connection.pgconn
            self._search_path = pgconn.parameter_status(b"search_path")
        if self._missed:
            self._missed = frozenset()
        snapshot.share_types(context.connection.adapters)
        snapshot.share_types(context.adapters)

    def _fall_back(self, known: Snapshot | None, connection: Connection) -> Snapshot:
        """Return what "server" would trust, where nothing can be read just now.

        The connection stays unverified, so the next chance to read is taken.
        """
        # Once: another thread may have a unit of work begin.
        if (verified := self.snapshot) is not None:
            known = verified
            if self.memory.trust is not Trust.RESULT:
                # Verified; it is a single OID that is news.
                return known
        self.memory.fall_back()
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

    def _learn_untracked(self, oids: frozenset[int], snapshot: Snapshot) -> None:
        """Remember which of *oids*, there before the read, are no news."""
        oids -= snapshot.stand_ins.keys()
        self.untracked = _memory.bounded_oids(self.untracked, oids)
        if self.memory.trust is Trust.SERVER:
            self.memory.learn_untracked(self.server, snapshot, oids)


def _oids_of(oid: int, context: AdaptContext) -> frozenset[int]:
    """Return *oid*, and those of the result at hand that initdb did not give."""
    result: Any = getattr(context, "pgresult", None)
    columns = range(result.nfields) if result is not None else ()
    oids = (oid, *(result.ftype(column) for column in columns))
    return frozenset(oid for oid in oids if oid >= FIRST_NORMAL_OID)
