"""The OIDs that one psycopg connection goes by, and for how long they count."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from . import _memory, _tracking
from .conf import Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.abc import AdaptContext, Loader
    from psycopg.pq.abc import PGconn

    from ._catalog import Catalog, Confirmation
    from ._memory import Alias
    from ._server import Server
    from ._snapshot import Snapshot

MISSED_SECONDS = 1.0
"""How long a type to send that the server lacks is taken not to have been created."""

LoadersByFormat: TypeAlias = "tuple[dict[int, type[Loader]], ...]"
NO_LOADERS: LoadersByFormat = ({}, {})


class Trusted:
    """What a connection was verified with, and whether that may be trusted now.

    Nothing is sent from here. It is used by whoever uses the connection, one thread or
    task at a time, and has no lock of its own.
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

    def misses(self, key: type) -> bool:
        """Note that the server has no type for *key*; return whether to ask again.

        It may have been created since, and nothing would show it.
        """
        now = monotonic()
        # The clock may begin with the machine: 0 is not long ago then.
        before = self._missed.get(key)
        is_due = before is None or now - before > MISSED_SECONDS
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

    def _learn_untracked(self, oids: frozenset[int], snapshot: Snapshot) -> None:
        """Remember which of *oids*, there before the read, are no news."""
        oids -= snapshot.stand_ins.keys()
        self.untracked = _memory.bounded_oids(self.untracked, oids)
        if self.memory.trust is Trust.SERVER:
            self.memory.learn_untracked(self.server, snapshot, oids)
