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
from ._reading import aread, read, reading
from ._server import Server
from ._snapshot import Snapshot
from .conf import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from psycopg.abc import AdaptContext, Loader, PQGen
    from psycopg.pq.abc import PGconn

    from ._catalog import Catalog, Confirmation
    from ._memory import Alias
    from ._reading import Connection
    from ._registry import Registry

    IsKnown = Callable[["Link", Snapshot], bool]

logger = logging.getLogger("django_pg_hot_async")

ATTRIBUTE = "_django_pg_hot_async"
"""What a connection has its link under; `_resolver` and `pool` spell it out."""

MISSED_SECONDS = 1.0
"""How long a type to send that the server lacks is taken not to have been created."""

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
        "_is_ahead",
        "_is_confirmed",
        "_is_of_result",
        "_missed",
        "_previous",
        "_reads",
        "_search_path",
        "_snapshot",
        "_warned",
        "epoch",
        "is_own",
        "loaders",
        "memory",
        "server",
        "tells_checkouts",
        "untracked",
    )

    def __init__(self, memory: Alias, server: Server) -> None:
        self.memory = memory
        self.server = server
        self.tells_checkouts = False
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
        # Whether the server was last asked for what was known: it may have more.
        self._is_confirmed = False
        self._reads = 0
        # Python types that were sent, since the last read, without the OID of their
        # own: the server had none, when it was asked at that time, in seconds.
        self._missed: Mapping[type, float] = {}
        # As the connection reported it at the last read; PostgreSQL 18 does.
        self._search_path: bytes | None = None
        self.untracked: frozenset[int] = frozenset()
        """OIDs that were asked about and are of no tracked type."""
        self._warned = False
        # Under "result" trust: not before the OIDs were read for the result at hand.
        self._is_of_result = True
        # Under "result" trust: they were read for what is about to be executed.
        self._is_ahead = False

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

    @property
    def _is_read(self) -> bool:
        """Whether a read now would tell no more, for what is executed next."""
        is_read = self.snapshot is not None and not self._is_confirmed
        return is_read and self.memory.trust is not Trust.RESULT

    @property
    def knows_all(self) -> bool:
        """Whether that is so whatever is sent: the server has all that is tracked."""
        snapshot = self.snapshot
        return self._is_read and snapshot is not None and snapshot.is_complete

    def renew(self) -> None:
        """Begin a new checkout or work unit: what was read before is not trusted."""
        if self.memory.trust >= Trust.CHECKOUT:
            self._snapshot = None
            self.loaders = NO_LOADERS

    def begin(self) -> bool:
        """Begin an execution; return whether a cursor may hold what is stale now."""
        is_ahead, self._is_ahead = self._is_ahead, False
        self._is_of_result = is_ahead or self.memory.trust is not Trust.RESULT
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

    def misses(self, key: type) -> bool:
        """Note that the server has no type for *key*; return whether to ask again.

        It may have been created since, and nothing would show it.
        """
        now = monotonic()
        is_due = now - self._missed.get(key, 0) > MISSED_SECONDS
        if is_due:
            self._missed = {**self._missed, key: now}
        return is_due

    def ask_for_missed(self) -> None:
        """Have the next value of a type that the server lacked ask for it at once."""
        if self._missed:
            self._missed = {}

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

    def _trust_server(self, epoch: int, context: AdaptContext) -> Snapshot | None:
        """Take what was read from a server that looks the same, if that is enough."""
        known = self.memory.recall(self.server)
        if self.memory.trust is not Trust.SERVER or known is None:
            return None
        snapshot = known.snapshot.qualified
        self._trust(snapshot, epoch, context)
        # That of the connection which read it may have been another.
        self._search_path = None
        self._is_confirmed = False
        self.untracked = known.untracked
        return snapshot

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

    def _note(self, catalog: Catalog, confirmation: Confirmation | None) -> None:
        """Note what kind of an answer *catalog* is: it may say less than there is."""
        self._is_confirmed = (
            confirmation is not None and catalog is confirmation.catalog
        )
        if self._is_confirmed:
            self.untracked = frozenset()
        else:
            self._reads += 1

    def _confirmation(self, oids: frozenset[int] = frozenset()) -> Confirmation | None:
        """Return what has the server confirm what it answered before, if it did.

        Not where one of *oids* was no part of that: the answer would not tell of it.
        """
        known = self.memory.recall(self.server)
        if known is None or known.snapshot.registry is not _tracking.current():
            return None
        snapshot = known.snapshot
        return snapshot.confirmation if oids <= snapshot.stand_ins.keys() else None

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
        self.ask_for_missed()
        snapshot.share_types(context.connection.adapters)
        snapshot.share_types(context.adapters)

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
